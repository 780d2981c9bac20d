"""Learning from rows that are handed over block by block, as `partial_fit` does.

How many rows will come is not known, so three things differ from `train`:

- Columns are scaled by the moments of the rows so far, until there are some 30,000 of them; with
  `standardize`, by those of all rows so far.
- The penalty is that of a fit to all rows so far; a row that comes again counts again.
- The learning rate "auto" is the largest that is safe for this block and for the mean of those so
  far. How it falls with the number of updates depends on no number of rows to come.

The model is the average of the parameters over all updates so far, as in `train`. A block whose
rows weigh nothing changes nothing.
"""

from dataclasses import dataclass, replace
from math import inf
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import Array, Sums
from ooc_train.core.threads import one_blas_thread
from ooc_train.errors import Diverged
from ooc_train.memory.ceiling import Ceiling
from ooc_train.memory.measured import MemoryReport
from ooc_train.models.column_moments import ColumnMoments
from ooc_train.models.linear import LinearProblem
from ooc_train.models.settings import EXACT, Model
from ooc_train.objective.scaling import Scaling
from ooc_train.runs.events import Stepped
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.report import Report
from ooc_train.runtime.job import Job
from ooc_train.solvers.base import advance
from ooc_train.solvers.base import start as begin
from ooc_train.solvers.updates import Updates
from ooc_train.stream.executors import Inline
from ooc_train.stream.feature_names import column_order, permuted
from ooc_train.stream.input_data import Inputs
from ooc_train.stream.outliers import blamed
from ooc_train.stream.pass_config import PassConfig
from ooc_train.stream.passes import Stream
from ooc_train.training.task import Task, column_moments, fitted_model, scaling_by

_SCALED_BY_ROWS = 2**15
"""Rows by which columns are scaled for conditioning: as many as `train` looks at."""

_LOSS_ROWS = 2**13
"""Rows of a block by which the loss of the model is told."""

_BY_COLUMN = ("theta", "average", "slots", "partial")
"""What of the state of a scan has an entry for each column, and last one for the constant."""


@dataclass(frozen=True, eq=False)
class Progress:
    """How far learning has come.

    Attributes
    ----------
    problem : the objective over all rows so far
    moments : of the columns of the rows by which they are scaled
    feature_names : of the columns of the first block, in whose order parameters and scaling lie, or
        None
    steepness : mean over all rows of one over the safe learning rate of their block
    replica : what the updates carry through the rows
    kind, dtype : of the last block that was planned for
    config, memory : its plan's, and what was measured
    """

    problem: LinearProblem
    moments: ColumnMoments
    feature_names: tuple[str, ...] | None
    steepness: float
    replica: Sums
    kind: str
    dtype: str
    config: PassConfig
    memory: MemoryReport

    def permuted(self, order: NDArray[np.intp]) -> "Progress":
        """Return the same progress with its columns in another order: column i is `order[i]`."""
        scaling = self.problem.scaling.permuted(order)
        by_column = {name: permuted(self.replica[name], order) for name in _BY_COLUMN}
        return replace(
            self,
            problem=replace(self.problem, scaling=scaling),
            moments=self.moments.permuted(order),
            replica=self.replica | by_column,
        )


def learn(
    model: Model,
    inputs: Inputs,
    progress: Progress | None = None,
    *,
    start: Fitted | None = None,
    memory_ceiling: str | int | Ceiling | None = None,
) -> tuple[Progress | None, Fitted, Report]:
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
    progress : for the next call; None where no row so far weighs anything
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
    counted: list[int] = []
    if progress is not None and known == ("arrays", progress.dtype) and progress.kind == "arrays":
        # A look at the memory would take longer than learning from a few rows.
        stream = Stream(source, Inline(), progress.config, counted.append)
        config, memory = progress.config, progress.memory
        with one_blas_thread(), blamed(stream):
            learned = _take(task, stream, progress, start)
    else:
        with (
            one_blas_thread(),
            Job(source, memory_ceiling=memory_ceiling, kernels=True) as job,
        ):
            plan = job.plan(task.requirements())
            stream, config = job.stream(plan, counted.append), plan.config
            with blamed(stream):
                learned = _take(task, stream, progress, start)
            memory = job.memory(plan)
    replica = learned.replica
    updates = int(replica["counters"][1])
    updated = updates - (0 if progress is None else int(progress.replica["counters"][1]))
    passes, seconds = sum(counted) / source.n_rows, perf_counter() - begun
    step = Stepped(
        1, passes, updated, learned.loss, None, seconds, progressive_loss=learned.progressive_loss
    )
    report = Report(
        model=model.name,
        solver=task.solver.name,
        batch_size=model.batch_size,
        n_rows=source.n_rows,
        n_features=source.n_features,
        passes=passes,
        updates=updated,
        n_iter=1,
        bytes_read=stream.timings.rows * source.row_bytes,
        seconds=seconds,
        loss=learned.loss,
        history=(step,),
        converged=False,
        random_state=None,
        shuffle_chunks=None,
        learning_rate=learned.eta0,
        profile=stream.timings.profile,
        memory=memory,
        notes=learned.notes,
    )
    fitted = fitted_model(model, learned.problem, replica["average"], inputs, report)
    if learned.moments is None:
        return progress, fitted, report
    progress = Progress(
        learned.problem,
        learned.moments,
        names,
        learned.steepness,
        replica,
        *known,
        config,
        memory,
    )
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
    task = Task.of(
        replace(model, solver=solver, batch_size=batch_size, shuffle_chunks=1, replicas=1),
        inputs,
        may_weigh_nothing=True,
    )
    updates = replace(_updates(task), tol=0.0, epochs=inf, evaluated_rows=_LOSS_ROWS, in_order=True)
    return replace(task, solver=updates)


def _updates(task: Task) -> Updates:
    if not isinstance(task.solver, Updates):
        raise TypeError(f"{task.solver.name} does not learn by updates")
    return task.solver


def _require_same_shape(task: Task, progress: Progress) -> None:
    for what in ("n_features", "n_outputs"):
        now, before = getattr(task.problem, what), getattr(progress.problem, what)
        if now != before:
            raise ValueError(
                f"these rows have {now} {what[2:]} and those of the first call {before}; hand over "
                "rows of one kind, or fit anew"
            )


@dataclass(frozen=True, eq=False)
class _Learned:
    """What a call led to; of rows that weigh nothing, what was before, and no moments at first."""

    problem: LinearProblem
    moments: ColumnMoments | None
    steepness: float
    replica: Sums
    eta0: float | None = None
    loss: float = float("nan")
    progressive_loss: float | None = None
    notes: tuple[str, ...] = ()


def _take(task: Task, stream: Stream, before: Progress | None, start: Fitted | None) -> _Learned:
    """Return what one pass over the rows leads to."""
    solver = _updates(task)
    if not task.problem.total_weight > 0:
        return _unchanged(task, before, start)
    problem, moments = _scaled(task, stream, before)
    state = begin(solver, problem, stream, problem.initial())
    eta0 = state.memory["eta0"]
    steepness = 1.0 / eta0
    if before is not None:
        share = task.problem.n_rows / problem.n_rows
        steepness = share * steepness + (1.0 - share) * before.steepness
    if task.model.learning_rate == "auto":
        eta0 = min(eta0, 1.0 / steepness)
    replica = _replica(problem, state.memory["replicas"][0], before, start)
    memory = {**state.memory, "eta0": eta0, "replicas": (replica,)}
    state = advance(solver, problem, stream, replace(state, memory=memory))
    (replica,) = state.memory["replicas"]
    if not np.isfinite(replica["theta"]).all():
        raise Diverged("the parameters stopped being numbers; use a smaller learning rate")
    return _Learned(
        problem,
        moments,
        steepness,
        replica,
        eta0,
        state.loss,
        state.progressive_loss,
    )


def _unchanged(task: Task, before: Progress | None, start: Fitted | None) -> _Learned:
    """Return what was before, since these rows weigh nothing."""
    notes = ("no row weighs anything: nothing was learned",)
    if before is not None:
        return _Learned(
            before.problem, before.moments, before.steepness, before.replica, notes=notes
        )
    problem, solver = task.problem, replace(_updates(task), learning_rate=1.0)
    state = solver.init(problem, task.inputs.source, problem.initial())
    replica = _replica(problem, state.memory["replicas"][0], None, start)
    return _Learned(problem, None, 0.0, replica, notes=notes)


def _scaled(
    task: Task, stream: Stream, before: Progress | None
) -> tuple[LinearProblem, ColumnMoments]:
    """Return the objective over all rows so far, and the moments by which columns are scaled."""
    seen = 0 if before is None else before.problem.n_rows
    problem = task.problem
    if before is not None:
        problem = replace(
            problem,
            scaling=before.problem.scaling,
            n_rows=seen + problem.n_rows,
            total_weight=before.problem.total_weight + problem.total_weight,
        )
        if seen >= _SCALED_BY_ROWS and not problem.standardize:
            return problem, before.moments
    moments = column_moments(task, stream)
    if before is not None:
        moments = before.moments.merged(moments)
    return replace(problem, scaling=scaling_by(problem, moments)), moments


def _rescaled(theta: Array, problem: LinearProblem, old: Scaling) -> Array:
    """Return parameters in the units of the columns' new scaling.

    Where a scale has grown, the parameter keeps its size in units of the scale: what few rows that
    hardly differed said of a column would be far too steep for others. Elsewhere it keeps its
    coefficient. Predictions stay the same at the old means.
    """
    new = problem.scaling
    kept = theta[:, :-1] * np.minimum(1.0, new.scale / old.scale)
    constant = theta[:, -1] + (kept / new.scale) @ (new.mean - old.mean)
    if not problem.fit_intercept:
        constant = np.zeros_like(constant)
    return np.concatenate([kept, constant[:, None]], axis=1)


def _replica(
    problem: LinearProblem, empty: Sums, before: Progress | None, start: Fitted | None
) -> Sums:
    """Return what the updates go on from, its parameters in the units of the new scaling.

    Parameters
    ----------
    empty : what updates begin with at zero
    """
    if before is None:
        if start is None:
            return empty
        theta = problem.from_data_units(start.coef, start.intercept)
        return empty | {"theta": theta, "average": theta.copy()}
    old = before.problem.scaling
    replica = empty | {
        name: _rescaled(before.replica[name], problem, old) for name in ("theta", "average")
    }
    replica |= {name: before.replica[name].copy() for name in ("counters", "clock")}
    if before.replica["slots"].shape == replica["slots"].shape:
        # Slopes by a parameter are in inverse proportion to the scale of its column.
        ratio = np.append(old.scale / problem.scaling.scale, 1.0)
        powers = np.arange(1, 1 + len(replica["slots"])).reshape(-1, 1, 1)
        replica["slots"] = before.replica["slots"] * ratio**powers
    return replica
