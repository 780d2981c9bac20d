"""Training block by block, as `partial_fit` does.

The number of rows to come is not known, so three things differ from `train`:

- Columns are scaled by the moments of the first 30,000 rows or so. With `standardize`, they are
  scaled by the moments of all rows so far.
- The penalty is that of a fit to all rows so far; a repeated row counts again.
- The learning rate "auto" is the largest that is safe for the block and for the mean of all blocks
  so far. How it falls with the number of updates does not depend on the number of rows. Where it
  makes the loss diverge, this call and later ones learn at a lower rate, as `train` does.

The model is the average of the parameters over all updates so far, as in `train`. A block whose
rows have no weight changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np

from ooc_train.core.sums import Sums
from ooc_train.core.threads import one_blas_thread
from ooc_train.errors import Diverged
from ooc_train.memory.ceiling import Ceiling
from ooc_train.models.column_moments import ColumnMoments
from ooc_train.models.linear import LinearProblem
from ooc_train.models.model import Model
from ooc_train.models.problem import ModelProblem
from ooc_train.runs.events import Callback, Stepped, announcing
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.report import Report
from ooc_train.runtime.job import Job
from ooc_train.solvers.base import State, advance
from ooc_train.solvers.base import start as begin
from ooc_train.solvers.divergence import LOWER, MOST_LOWERED
from ooc_train.solvers.training_settings import Training
from ooc_train.solvers.updates import Updates
from ooc_train.stream.executors import LocalExecutor
from ooc_train.stream.feature_names import column_order
from ooc_train.stream.input_data import Inputs
from ooc_train.stream.outliers import report_outliers
from ooc_train.stream.passes import Stream
from ooc_train.training.column_scaling import column_moments, with_target_mean
from ooc_train.training.partial_fit_state import PartialFit, continued_replica
from ooc_train.training.task import Task, fitted_model
from ooc_train.training.updating_task import problem_of, updates_of, updating_task

_SCALED_BY_ROWS = 2**15
"""Rows whose moments scale the columns for conditioning: as many as `train` samples."""


def learn(
    model: Model,
    inputs: Inputs,
    training: Training,
    previous: PartialFit | None = None,
    *,
    start: Fitted | None = None,
    callbacks: Sequence[Callback] = (),
    memory_ceiling: str | int | Ceiling | None = None,
) -> tuple[PartialFit | None, Fitted, Report]:
    """Train on more rows, in one pass in stored order.

    Batches have `batch_size` rows, and the last of a call may have fewer. "full", or a number above
    the rows of the call, is one batch of all of them.

    Parameters
    ----------
    model : Model
        The model.
    inputs : Inputs
        The rows.
    training : Training
        How the model is learned.
    previous : PartialFit or None
        The state that the previous call returned; None for the first call.
    start : Fitted or None
        Parameters that the first call begins from; None for zero.
    callbacks : sequence of Callback
        Functions that receive the event `Compiling`, if kernels are compiled.
    memory_ceiling : str, int, Ceiling or None
        As for `train`.

    Returns
    -------
    state : PartialFit or None
        The state for the next call; None if no row so far has any weight.
    fitted : Fitted
        The model and its parameters.
    report : Report
        The report of this call. If rows are in memory, the first call alone measures memory.

    Raises
    ------
    ValueError
        If a setting does not fit `partial_fit`, or if the features or outputs of the rows differ
        from those of the first call. Features are compared by name if both have names.
    Diverged
        If the loss or a parameter is not finite, by the learning rate as given. By "auto", if that
        is so after it was lowered 10 times, or if the objective of the rows is then still far above
        that of the model before, and of all parameters zero.
    """
    started = perf_counter()
    task = updating_task(model, inputs, training)
    source, names, order = inputs.source, inputs.feature_names, None
    if previous is not None:
        names = previous.feature_names
        order = column_order(names, inputs.feature_names, model="the model", data=inputs.name)
        _require_same_shape(task, previous)
        if order is not None:
            previous = previous.permuted(order)
    elif start is not None:
        start = task.start_from(start)
    rows_read: list[int] = []
    kind, dtype = inputs.kind, source.dtype
    if previous is not None and (previous.kind, previous.dtype) == ("arrays", dtype) == (
        kind,
        dtype,
    ):
        # Measuring memory would take longer than training on a few rows.
        stream = Stream(source, LocalExecutor(), previous.config, rows_read.append)
        config, memory = previous.config, previous.memory
        with one_blas_thread(), report_outliers(stream):
            result = _run_pass(task, stream, previous, start)
    else:
        with (
            one_blas_thread(),
            Job(source, memory_ceiling=memory_ceiling) as job,
        ):
            plan = job.plan(task.requirements(), on_compile=announcing(callbacks))
            stream, config = job.stream(plan, rows_read.append), plan.config
            with report_outliers(stream):
                result = _run_pass(task, stream, previous, start)
            memory = job.memory(plan)
    replica = result.replica
    updates = int(replica["counters"][1])
    updated = updates - (0 if previous is None else int(previous.replica["counters"][1]))
    passes, seconds = sum(rows_read) / source.n_rows, perf_counter() - started
    step = Stepped(
        1,
        passes,
        updated,
        result.loss,
        None,
        seconds,
        result.last_rate,
        progressive_loss=result.progressive_loss,
    )
    report = Report(
        model=model.name,
        solver=task.solver.name,
        batch_size=training.size_text,
        n_rows=source.n_rows,
        n_features=source.n_features,
        passes=passes,
        updates=updated,
        n_iter=1,
        bytes_read=stream.timings.rows * source.row_bytes,
        seconds=seconds,
        loss=result.loss,
        history=(step,),
        converged=False,
        random_state=None,
        shuffle_chunks=None,
        learning_rate=result.eta0,
        profile=stream.timings.profile,
        memory=memory,
        notes=result.notes,
        solver_reason=task.solver_reason,
    )
    fitted = fitted_model(
        replace(task, training=training), result.problem, replica["average"], report
    )
    if result.eta0 is None:
        return previous, fitted, report
    state = PartialFit(
        result.problem,
        result.moments,
        names,
        result.inverse_rate,
        result.lowered,
        result.first,
        updates_of(task).optimizer,
        replica,
        kind,
        dtype,
        config,
        memory,
    )
    if order is not None:
        state = state.permuted(np.argsort(order))
    return state, fitted, report


def _require_same_shape(task: Task, previous: PartialFit) -> None:
    for name in ("n_features", "n_outputs"):
        now, before = getattr(task.problem, name), getattr(previous.problem, name)
        if now != before:
            raise ValueError(
                f"these rows have {now} {name[2:]} and those of the first call {before}; hand over "
                "rows of one kind, or fit anew"
            )


@dataclass(frozen=True, eq=False)
class _PassResult:
    """The result of a pass of `learn`. The learning rate `eta0` is None without weighted rows."""

    problem: ModelProblem
    moments: ColumnMoments | None
    inverse_rate: float
    replica: Sums
    eta0: float | None = None
    last_rate: float | None = None
    loss: float = float("nan")
    progressive_loss: float | None = None
    notes: tuple[str, ...] = ()
    lowered: int = 0
    first: float = 0.0


def _run_pass(
    task: Task, stream: Stream, before: PartialFit | None, start: Fitted | None
) -> _PassResult:
    """Return the result of one pass over the rows."""
    solver = updates_of(task)
    if not task.problem.total_weight > 0:
        return _unchanged(task, before, start)
    problem, moments = _scaled_problem(task, stream, before)
    state = begin(solver, problem, stream, problem.initial(task.settings.seed))
    eta0 = state.memory["eta0"]
    inverse_rate = 1.0 / eta0
    if before is not None:
        share = task.problem.n_rows / problem.n_rows
        inverse_rate = share * inverse_rate + (1.0 - share) * before.inverse_rate
    lowered = 0
    notes: tuple[str, ...] = ()
    is_automatic = task.training.learning_rate == "auto"
    if is_automatic:
        lowered = 0 if before is None else before.lowered
        eta0 = LOWER**lowered * min(eta0, 1.0 / inverse_rate)
    replica = continued_replica(
        problem, solver.optimizer, state.memory["replicas"][0], before, start
    )
    memory = {**state.memory}
    if "starts" in memory:
        # A good model so far, and rows of small losses, say little of the losses to expect.
        memory["starts"] = np.stack([replica["average"], state.params])
        memory |= {} if before is None else {"first": before.first}
    while True:
        own = {name: array.copy() for name, array in replica.items()}
        memory |= {"eta0": eta0, "lowered": lowered, "replicas": (own,)}
        try:
            after = _after_rows(solver, problem, stream, replace(state, memory=memory))
            break
        except Diverged:
            if not is_automatic or lowered >= MOST_LOWERED:
                raise
            lowered += 1
            note = f"the learning rate {eta0:.4g} is too large for some rows: "
            eta0 *= LOWER
            notes = (f"{note}they are learned from again at {eta0:.4g}",)
    state = after
    (replica,) = state.memory["replicas"]
    return _PassResult(
        problem,
        moments,
        inverse_rate,
        replica,
        eta0,
        state.rate,
        state.loss,
        state.progressive_loss,
        notes,
        lowered,
        state.memory.get("first", 0.0),
    )


def _after_rows(solver: Updates, problem: ModelProblem, stream: Stream, state: State) -> State:
    """Return the state after the updates by all rows of the call, or raise `Diverged`."""
    after = advance(solver, problem, stream, state)
    if not np.isfinite(after.memory["replicas"][0]["theta"]).all():
        raise Diverged("a parameter is not finite; use a smaller learning rate")
    return after


def _unchanged(task: Task, before: PartialFit | None, start: Fitted | None) -> _PassResult:
    """Return the result of a call whose rows have no weight: the state before the call."""
    notes = ("no row weighs anything: nothing was learned",)
    if before is not None:
        return _PassResult(
            before.problem,
            before.moments,
            before.inverse_rate,
            before.replica,
            notes=notes,
            lowered=before.lowered,
            first=before.first,
        )
    problem, solver = task.problem, replace(updates_of(task), learning_rate=1.0)
    state = solver.init(problem, task.inputs.source, problem.initial(task.settings.seed))
    replica = continued_replica(problem, solver.optimizer, state.memory["replicas"][0], None, start)
    return _PassResult(problem, None, 0.0, replica, notes=notes)


def _scaled_problem(
    task: Task, stream: Stream, before: PartialFit | None
) -> tuple[ModelProblem, ColumnMoments | None]:
    """Return the objective over all rows so far, and the moments that scale the columns."""
    problem = task.problem
    if before is None:
        problem = with_target_mean(problem, stream)
    else:
        problem = problem_of(
            task,
            before.problem.n_rows + problem.n_rows,
            before.problem.total_weight + problem.total_weight,
        )
    if (
        before is not None
        and isinstance(problem, LinearProblem)
        and isinstance(before.problem, LinearProblem)
    ):
        scaling, target_mean = before.problem.scaling, before.problem.target_mean
        problem = replace(problem, scaling=scaling, target_mean=target_mean)
        if before.problem.n_rows >= _SCALED_BY_ROWS and not problem.standardize:
            return problem, before.moments
    if not problem.needs_moments:
        return problem, None
    moments = column_moments(task, stream)
    if before is not None and before.moments is not None:
        moments = before.moments.merged(moments)
    return problem.scaled_by(moments), moments
