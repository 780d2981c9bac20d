"""Learning from rows that are handed over block by block, as `partial_fit` does.

How many rows will come is not known, so three things differ from `train`:

- Columns are scaled by the first block, and so ever after.
- The penalty is that of a fit to all rows so far; a row that comes again counts again.
- The learning rate "auto" is the largest that is safe for this block and for the mean of those so
  far, and falls with the root of the number of updates, where `train` lets it fall to zero.
"""

from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from ooc_train.errors import Diverged
from ooc_train.events import Stepped
from ooc_train.job import Job
from ooc_train.memory import Ceiling, MemoryReport
from ooc_train.models.columns import column_order, permuted
from ooc_train.models.fitted import Fitted
from ooc_train.models.linear import LinearProblem
from ooc_train.models.model import EXACT, Model
from ooc_train.models.sums import Sums
from ooc_train.models.updates import LinearUpdates
from ooc_train.report import Report
from ooc_train.solvers.updates import Updates
from ooc_train.stream.executors import Inline
from ooc_train.stream.inputs import Inputs
from ooc_train.stream.outliers import blamed
from ooc_train.stream.passes import Grain, Stream
from ooc_train.threads import one_blas_thread
from ooc_train.train import Task, fitted_model, scaling_of

_HORIZON = 10
"""Updates, but no fewer rows than parameters, after which the automatic learning rate has fallen to
`1 / sqrt(2)`: on the flights, one call in natural order then ended 0.7 to 3% above the optimum."""


_BY_COLUMN = ("theta", "slots", "partial")
"""What of the state of a scan has an entry for each column, and last one for the constant."""


@dataclass(frozen=True, eq=False)
class Progress:
    """How far learning has come.

    Attributes
    ----------
    problem : the objective over all rows so far, with the scaling of the first block
    feature_names : of the columns of the first block, in whose order parameters and scaling lie, or
        None
    steepness : mean over all rows of one over the safe learning rate of their block
    state : what a scan carries
    kind, dtype : of the last block that was planned for
    grain, memory : its plan's, and what was measured
    """

    problem: LinearProblem
    feature_names: tuple[str, ...] | None
    steepness: float
    state: Sums
    kind: str
    dtype: str
    grain: Grain
    memory: MemoryReport

    def permuted(self, order: NDArray[np.intp]) -> "Progress":
        """Return the same progress with its columns in another order: column i is `order[i]`."""
        scaling = self.problem.scaling.permuted(order)
        by_column = {name: permuted(self.state[name], order) for name in _BY_COLUMN}
        return replace(
            self,
            problem=replace(self.problem, scaling=scaling),
            state=self.state | by_column,
        )


def learn(
    model: Model,
    inputs: Inputs,
    progress: Progress | None = None,
    *,
    start: Fitted | None = None,
    memory_ceiling: str | int | Ceiling | None = None,
) -> tuple[Progress, Fitted, Report]:
    """Learn from some more rows: one pass over them, in the order in which they lie.

    Batches have `batch_size` rows, but for the last of a call; "full" is all rows of the call, and
    so is a number of more than there are.

    Parameters
    ----------
    model : what is learned, and how
    inputs : the rows
    progress : what the call before returned, or None for the first
    start : parameters for the first call to begin from, or None for zero
    memory_ceiling : the most that the pass may hold; None is as for `train`

    Returns
    -------
    progress : for the next call
    fitted : the model and its parameters
    report : of this call; of rows in memory, only the first call measures what it holds

    Raises
    ------
    ValueError
        where a setting cannot be used here, or the rows have other features (by name where both
        have names) or outputs than those before them.
    Diverged
        where the parameters stopped being numbers.
    """
    begun = perf_counter()
    task = _task(model, inputs)
    source, names, order = inputs.source, inputs.feature_names, None
    if progress is not None:
        names = progress.feature_names
        order = column_order(names, inputs.feature_names, model="the model", data=inputs.name)
        _require_same_shape(task, progress)
        if order is not None:
            progress = progress.permuted(order)
    elif start is not None:
        start = task.start_from(start)
    known = (inputs.kind, source.dtype)
    if progress is not None and known == ("arrays", progress.dtype) and progress.kind == "arrays":
        # A look at the memory would take longer than learning from a few rows.
        stream, grain, memory = (
            Stream(source, Inline(), progress.grain),
            progress.grain,
            progress.memory,
        )
        with one_blas_thread(), blamed(stream):
            problem, steepness, eta0, state = _take(task, stream, progress, start)
    else:
        with (
            one_blas_thread(),
            Job(source, memory_ceiling=memory_ceiling, kernels=True) as job,
        ):
            plan = job.plan(task.demand(scans=True))
            stream, grain = job.stream(plan), plan.grain
            with blamed(stream):
                problem, steepness, eta0, state = _take(task, stream, progress, start)
            memory = job.memory(plan)
    loss = float(state["sums"][0] / state["sums"][1])
    updates = int(state["counters"][1])
    updated = updates - (0 if progress is None else int(progress.state["counters"][1]))
    passes, seconds = stream.spent.rows / source.n_rows, perf_counter() - begun
    report = Report(
        model=model.name,
        solver=task.solver_name,
        batch_size=model.batch_size,
        n_rows=source.n_rows,
        n_features=source.n_features,
        passes=passes,
        updates=updated,
        n_iter=1,
        bytes_read=stream.spent.rows * source.row_bytes,
        seconds=seconds,
        loss=loss,
        history=(Stepped(1, passes, updated, loss, None, seconds),),
        converged=False,
        random_state=None,
        shuffle_buffer=None,
        learning_rate=eta0,
        profile=stream.spent.profile,
        memory=memory,
    )
    fitted = fitted_model(model, problem, state["theta"], inputs, report)
    progress = Progress(problem, names, steepness, state, *known, grain, memory)
    if order is not None:
        progress = progress.permuted(np.argsort(order))
    return progress, fitted, report


def _task(model: Model, inputs: Inputs) -> Task:
    """Return what a call is, if it can be done."""
    if model.solver in EXACT:
        raise ValueError(
            f"solver={model.solver!r} looks at all rows before each step, and partial_fit has some "
            "of them only; use solver='auto', 'sgd' or 'adam'"
        )
    if model.class_weight == "balanced":
        raise ValueError(
            "class_weight='balanced' needs to know all rows, and partial_fit has some of them "
            "only; give the weight of each class"
        )
    rows = inputs.source.n_rows
    batch_size = model.batch_size
    if batch_size != "chunk":
        batch_size = rows if batch_size == "full" else min(int(batch_size), rows)
    solver = "sgd" if model.solver == "auto" else model.solver
    return Task.of(
        replace(model, solver=solver, batch_size=batch_size, shuffle_buffer=1, lanes=1), inputs
    )


def _require_same_shape(task: Task, progress: Progress) -> None:
    for what in ("n_features", "n_outputs"):
        now, before = getattr(task.problem, what), getattr(progress.problem, what)
        if now != before:
            raise ValueError(
                f"these rows have {now} {what[2:]} and those of the first call {before}; hand over "
                "rows of one kind, or fit anew"
            )


def _take(
    task: Task, stream: Stream, before: Progress | None, start: Fitted | None
) -> tuple[LinearProblem, float, float, Sums]:
    """Return problem, steepness, learning rate and state after one pass over the rows."""
    model, solver = task.model, task.solver
    if not isinstance(solver, Updates):
        raise TypeError(f"{task.solver_name} does not learn by updates")
    if before is None:
        problem = replace(task.problem, scaling=scaling_of(task, stream))
    else:
        problem = replace(
            task.problem,
            scaling=before.problem.scaling,
            n_rows=before.problem.n_rows + task.problem.n_rows,
            total_weight=before.problem.total_weight + task.problem.total_weight,
        )
    eta0, automatic = solver.first_rate(problem, stream), model.learning_rate == "auto"
    steepness = 1.0 / eta0
    if before is not None:
        share = task.problem.n_rows / problem.n_rows
        steepness = share * steepness + (1.0 - share) * before.steepness
    if automatic:
        eta0 = min(eta0, 1.0 / steepness)
    updates = LinearUpdates(
        problem,
        stream.source.dtype,
        solver.batch_size,
        solver.rule,
        "inverse_sqrt" if automatic else "constant",
        eta0,
        max(_HORIZON, problem.n_parameters / solver.batch_size),
    )
    theta = problem.zeros() if before is None else before.state["theta"]
    if before is None and start is not None:
        theta = problem.scaling.from_data_units(start.coef, start.intercept)
    state = updates.start(theta)
    if before is not None:
        state["counters"] = before.state["counters"]
        if before.state["slots"].shape == state["slots"].shape:
            state["slots"] = before.state["slots"]
    (after,) = stream.scan(updates, [state], seed=0, epoch=0, mixing=1, shuffled=False)
    if not np.isfinite(after["theta"]).all():
        raise Diverged("the parameters stopped being numbers; use a smaller learning rate")
    return problem, steepness, eta0, after
