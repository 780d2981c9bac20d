"""Training: the loop around a solver, the same for every model, solver and batch size."""

import os
import secrets
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.atomic import PartialOutput
from ooc_train.core.output_kinds import RUN, require_output
from ooc_train.core.sums import Array, array_bytes, nbytes, total_bytes
from ooc_train.core.threads import one_blas_thread
from ooc_train.core.units import approximate_bytes
from ooc_train.errors import CeilingExceeded, Diverged
from ooc_train.memory.ceiling import Ceiling
from ooc_train.memory.system import machine_memory
from ooc_train.models.linear import LinearProblem
from ooc_train.models.linear_updates import update_workspace
from ooc_train.models.loss_sums import LossSums
from ooc_train.models.moments import ColumnMoments, ColumnSums
from ooc_train.models.settings import UPDATES, Model
from ooc_train.monitoring.driver import TrainingPage
from ooc_train.monitoring.interrupts import Interrupts
from ooc_train.objective.penalty import Penalty
from ooc_train.objective.scaling import Scaling
from ooc_train.runs.events import Callback, Ended, Event, Noted, Progressed, Started, Stepped, Stop
from ooc_train.runs.fitted import Fitted, as_fitted
from ooc_train.runs.report import Report, Steps
from ooc_train.runtime.job import Job
from ooc_train.solvers.base import Solver, State
from ooc_train.solvers.gram import Gram
from ooc_train.solvers.lbfgs import LBFGS
from ooc_train.solvers.learning_rate import certain_gain, evaluated_partitions
from ooc_train.solvers.newton import Newton
from ooc_train.solvers.updates import Updates, is_near
from ooc_train.stream.classes import class_weights
from ooc_train.stream.feature_names import column_order, permuted
from ooc_train.stream.inputs import Inputs, read_inputs, read_validation
from ooc_train.stream.outliers import blamed
from ooc_train.stream.passes import Stream
from ooc_train.stream.plan import Plan, Requirements
from ooc_train.stream.sources import Source, rows_of, sample_partitions

_SAMPLE_PARTITIONS = 32
"""Leaves from which columns are scaled for conditioning, where no statistics are known."""


@dataclass(frozen=True, eq=False)
class Task:
    """A model and data, put together: everything that is decided before anything is read.

    Attributes
    ----------
    model : what is learned, and how
    inputs : the rows
    problem : the objective; its scaling is provisional until columns were looked at
    solver : the solver
    solver_name : its name
    validation : rows that every step is judged by without learning from them, or None
    """

    model: Model
    inputs: Inputs
    problem: LinearProblem
    solver: Solver
    solver_name: str
    validation: Inputs | None = None

    @classmethod
    def of(
        cls,
        model: Model,
        inputs: Inputs,
        validation: Any = None,
        memory_ceiling: str | int | Ceiling | None = None,
        *,
        may_weigh_nothing: bool = False,
    ) -> "Task":
        """Return what training this model on these data is, judged by those of `validation`.

        Raises
        ------
        ValueError
            where a setting does not go with the data.
        """
        source = inputs.source
        n_outputs = source.n_outputs
        if model.is_classifier:
            n_outputs = 1 if len(inputs.classes) == 2 else len(inputs.classes)
        n_parameters = n_outputs * (source.n_features + 1)
        chunk_rows = source.partition_rows if inputs.store is None else inputs.store.chunk_rows
        batch = model.rows_per_update(source.n_rows, chunk_rows)
        solver_name = model.solver_for(n_parameters)
        for name in ("learning_rate", "shuffle_chunks"):
            if solver_name not in UPDATES and getattr(model, name) != "auto":
                raise ValueError(
                    f"{name}={getattr(model, name)!r} is for updates, and solver={solver_name!r} "
                    f"makes none by batches; leave it out, or use solver='sgd' or a batch_size"
                )
        total, weights = weights_of(model, inputs)
        if not total > 0 and not may_weigh_nothing:
            raise ValueError(
                f"the weights of all rows add up to {total:g}; some must be above zero"
            )
        features = source.n_features
        problem = LinearProblem(
            model.loss(len(inputs.classes)),
            n_outputs,
            source.n_rows,
            total,
            # Takes no memory: whether there is enough is for the plan to say.
            Scaling(np.broadcast_to(0.0, features), np.broadcast_to(1.0, features)),
            Penalty(l2=model.l2),
            model.fit_intercept,
            model.standardize,
            weights,
        )
        if validation is not None:
            validation = read_validation(
                validation,
                inputs,
                classifier=model.is_classifier,
                memory_ceiling=memory_ceiling,
            )
        solver = _solver(model, solver_name, batch, inputs)
        return cls(model, inputs, problem, solver, solver_name, validation)

    def start_from(self, start: Fitted) -> Fitted:
        """Return parameters to begin from in the order of the columns of these data.

        Raises
        ------
        ValueError
            where they are of other classes, columns, or another number of outputs or features.
        """
        order = column_order(
            start.feature_names,
            self.inputs.feature_names,
            model="the model to start from",
            data=self.inputs.name,
        )
        if order is not None:
            start = replace(
                start, coef=start.coef[:, order], feature_names=self.inputs.feature_names
            )
        shape = (self.problem.n_outputs, self.problem.n_features)
        if start.coef.shape != shape or start.classes != self.inputs.classes:
            raise ValueError(
                f"the parameters to start from are of shape {start.coef.shape} for the classes "
                f"{list(start.classes)}, and these data need {shape} for "
                f"{list(self.inputs.classes)}; start afresh"
            )
        return start

    @cached_property
    def _validation_order(self) -> NDArray[np.intp] | None:
        """The columns of the validation rows by ours, or None where they are in our order."""
        if self.validation is None:
            return None
        return column_order(
            self.inputs.feature_names,
            self.validation.feature_names,
            model="the data to learn from",
            data="the validation data",
        )

    def validation_sums(self, problem: LinearProblem, theta: Array) -> LossSums:
        """Return the reduction that evaluates `theta` on the validation rows.

        Their columns may have another order, in which the parameters are then taken.
        """
        order = self._validation_order
        if order is not None:
            problem = replace(problem, scaling=problem.scaling.permuted(order))
            theta = permuted(theta, order)
        return problem.sums(theta[None], gradients=0)

    @property
    def needs_kernels(self) -> bool:
        """Whether workers need the compiled kernels."""
        if self.validation is not None:
            return True
        if self.solver_name == "newton":
            return self.problem.compiled_hessian
        return self.solver_name != "gram"

    @property
    def data_name(self) -> str:
        """Where the rows are from, for people."""
        store = self.inputs.store
        return f"{self.inputs.kind} in memory" if store is None else str(store.path)

    @property
    def rows_per_update(self) -> int:
        """Rows that an update of the parameters looks at."""
        if isinstance(self.solver, Updates):
            return min(self.solver.batch_size, self.inputs.source.n_rows)
        return self.inputs.source.n_rows

    def requirements(self, *, scans: bool = False) -> Requirements:
        """Return what the job needs room for.

        Parameters
        ----------
        scans : bool
            Whether even a batch of all rows is a scan.
        """
        source, solver = self.inputs.source, self.solver
        self._require_square()
        reductions = (*solver.reductions(self.problem), ColumnSums(np.zeros(source.n_features)))
        columns = 8 * (source.n_features + 1)
        shared = max(array_bytes(reduction) for reduction in reductions)
        opened = shared
        if self.solver_name in ("gram", "newton"):
            opened += columns**2 // 8  # a product of the columns, before it is added up
        shuffle_chunks = updates = state = 0
        if isinstance(solver, Updates) and (scans or solver.batch_size < source.n_rows):
            shuffle_chunks = solver.shuffle_chunks
            updates = total_bytes(
                update_workspace(self.problem, source.partition_rows * shuffle_chunks)
            )
            shared, opened = max(shared, array_bytes(self.problem)), max(opened, 4 * columns)
            state = 8 * self.problem.n_parameters * solver.vectors
        return Requirements(
            partition=total_bytes(source.buffers(1)),
            workspace=max(
                total_bytes(reduction.workspace(source.partition_rows)) for reduction in reductions
            ),
            sums=max(nbytes(reduction.zeros()) for reduction in reductions),
            parameters=8 * self.problem.n_parameters,
            slots=solver.slots,
            columns=columns,
            shared=shared,
            opened=opened,
            state=state,
            algebra=solver.algebra(self.problem),
            shuffle_chunks=shuffle_chunks,
            replicas=solver.replicas if isinstance(solver, Updates) else 1,
            updates=updates,
        )

    def beside(self) -> tuple[Source, Requirements] | None:
        """Return the validation rows and what judging by them needs room for, or None."""
        if self.validation is None:
            return None
        source = self.validation.source
        reduction = self.problem.sums(self.problem.zeros()[None], gradients=0)
        copies = 0 if self._validation_order is None else 1  # in the order of their columns
        requirements = Requirements(
            partition=total_bytes(source.buffers(1)),
            workspace=total_bytes(reduction.workspace(source.partition_rows)),
            sums=nbytes(reduction.zeros()),
            parameters=8 * self.problem.n_parameters,
            slots=self.solver.slots + copies,  # what the solver holds stays meanwhile
            columns=8 * (source.n_features + 1),
            shared=array_bytes(reduction),
            opened=array_bytes(reduction),
        )
        return source, requirements

    def _require_square(self) -> None:
        """Refuse a matrix of all pairs of parameters that no machine like this has room for."""
        width = {"newton": self.problem.n_parameters, "gram": self.problem.n_features + 1}
        size = 8 * width.get(self.solver_name, 0) ** 2
        if size > machine_memory():
            raise CeilingExceeded(
                f"solver={self.solver_name!r} adds up a matrix of "
                f"{width[self.solver_name]:,} x {width[self.solver_name]:,} numbers, "
                f"{approximate_bytes(size)}, and this machine has "
                f"{approximate_bytes(machine_memory())}; use solver='lbfgs' or 'sgd', which hold "
                "none"
            )


def weights_of(model: Model, inputs: Inputs) -> tuple[float, Array | None]:
    """Return the weight of all rows, class weights included, and that of each class or None."""
    # Of a store with weights they have to be read, and so only where they are needed.
    totals = None if model.class_weight is None else inputs.class_totals
    weights = class_weights(model.class_weight, inputs.classes, totals)
    if weights is None or totals is None:
        return inputs.total_weight, weights
    return float(weights @ totals), weights


def _solver(model: Model, name: str, batch: int, inputs: Inputs) -> Solver:
    if name == "gram":
        return Gram()
    if name == "newton":
        return Newton(model.tolerance)
    if name == "lbfgs":
        return LBFGS(model.tolerance)
    source = inputs.source
    shuffle_chunks = (
        source.shuffle_chunks if model.shuffle_chunks == "auto" else int(model.shuffle_chunks)
    )
    seed = model.random_state if model.random_state is not None else secrets.randbits(32)
    shuffle_chunks = min(shuffle_chunks, source.n_partitions)
    return Updates(
        "adam" if name == "adam" else "sgd",
        batch,
        model.learning_rate,
        model.tolerance,
        int(seed),
        shuffle_chunks,
        # No more than there are groups of chunks to learn from.
        min(model.replicas, -(-source.n_partitions // shuffle_chunks)),
    )


def train(
    model: Model,
    data: Any,
    *,
    y: Any = None,
    sample_weight: Any = None,
    validation: Any = None,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
    max_passes: float | None = None,
    max_seconds: float | None = None,
    client: Any = None,
    memory_ceiling: str | int | Ceiling | None = None,
    start: Any = None,
) -> tuple[Fitted, Report]:
    """Fit a model to data.

    Ctrl-C ends the run after the current step, or within an epoch of updates after about a second
    of it; what was learned is returned, and saved. A second one interrupts at once.

    Parameters
    ----------
    model : what is learned, and how
    data : `Inputs`, or a store, or the path of one, or an array of rows that `y` goes with
    y, sample_weight : None for those of the store; else an array of NumPy, Dask or pandas, the path
        or URL of an array, a Zarr array or another store, of as many rows, in the order of the data
    validation : rows that are not learned from, as `data` are, or None. Their mean loss, measured
        as that of the others (by weight, class weights included, without penalty), is taken after
        each iteration or epoch, at the parameters that it led to. This reads all of them each
        time, which no limit on passes counts, and changes nothing that is learned.
    out : where the run is saved, or None
    overwrite : whether a run that lies there is replaced
    callbacks : who listens
    max_passes, max_seconds : no further iteration is begun once iterations have read so much, or so
        many seconds have passed
    client : the Dask client to run on, or None for the active one, or our own
    memory_ceiling : the most that the run may hold; None is the cluster's, else half of what is
        available
    start : parameters to begin from, of `Fitted`, a fitted estimator or the path of a saved run; or
        None for zero. Columns are matched by name where both sides have names, else by place; so
        are those of `validation`.

    Returns
    -------
    fitted : the model and its parameters
    report : what the run did

    Raises
    ------
    CeilingExceeded
        before anything is read, where the ceiling is too small.
    CorruptChunk, NonFiniteData
        where the data are damaged.
    Diverged
        where the loss stopped being a number.
    OutputExists
        before anything is read, where `out` is taken, or another process is writing there. Where
        something appears at `out` afterwards, the run is saved beside it, with a `SavedElsewhere`
        warning.
    ValueError
        where a setting does not go with the data.
    """
    if out is not None:
        require_output(out, RUN, overwrite=overwrite)
    # Decided once: before anything is started, which takes of what is available.
    memory_ceiling = Ceiling.of(memory_ceiling)
    inputs = read_inputs(
        data,
        y,
        sample_weight,
        classifier=model.is_classifier,
        memory_ceiling=memory_ceiling,
    )
    task = Task.of(model, inputs, validation, memory_ceiling=memory_ceiling)
    if start is not None:
        start = task.start_from(as_fitted(start))
    begun = perf_counter()
    job = Job(
        inputs.source, client=client, memory_ceiling=memory_ceiling, kernels=task.needs_kernels
    )
    with (
        nullcontext() if out is None else PartialOutput(out, RUN, overwrite=overwrite) as output,
        Interrupts() as interrupts,
        TrainingPage(job.client, job.dashboard, job.calling) as page,
    ):
        with one_blas_thread(), job:
            plan = job.plan(task.requirements(), task.beside())
            run = _Run(task, job, plan, (*callbacks, interrupts, page), begun)
            with blamed(run.stream):
                state = run.solve(start, max_passes, max_seconds, page.link)
            report = run.report(state, page.notes)
        fitted = fitted_model(model, run.problem, state.theta, inputs, report)
        if output is not None:
            report = replace(report, saved_in=fitted.save_as(output))
            run.note(f"saved in {report.saved_in}")
        run.emit(Ended(report.converged, report.seconds, report.memory))
        interrupts.conclude(report)
    return fitted, report


def fitted_model(
    model: Model, problem: LinearProblem, theta: Array, inputs: Inputs, report: Report
) -> Fitted:
    """Return the model that `theta`, in scaled units, stands for."""
    coef, intercept = problem.scaling.to_data_units(theta)
    if problem.loss.shift_invariant:
        # Adding one number to all classes changes no prediction; scikit-learn's sum to zero.
        intercept = intercept - intercept.mean()
        if model.l2 == 0:
            coef = coef - coef.mean(axis=0)
    if not model.fit_intercept and not model.standardize:
        intercept = np.zeros_like(intercept)
    recipe = None if inputs.store is None else inputs.store.recipe
    return Fitted(
        model, coef, intercept, inputs.classes, inputs.feature_names, report.to_json(), recipe
    )


class _Run:
    """One run of `train`: what it has read so far, and who listens."""

    def __init__(
        self, task: Task, job: Job, plan: Plan, callbacks: Sequence[Callback], begun: float
    ) -> None:
        self.task = task
        self.problem = task.problem
        self._job = job
        self._plan = plan
        self._callbacks = callbacks
        self._begun = begun
        self._rows = self._looked = 0
        self._stopped = False
        self._notes: dict[str, None] = dict.fromkeys(task.inputs.notes)
        if task.validation is not None and task.validation.store is not None:
            self._notes |= dict.fromkeys(task.validation.store.notes)
        self._limit: str | None = None
        self._shortfall = ""
        if isinstance(task.solver, Updates) and task.solver.replicas < task.model.replicas:
            replicas = f"{task.solver.replicas} of {task.model.replicas} replicas"
            self._notes[
                f"learned in {replicas}: the order of rows has no more groups of chunks"
            ] = None
        self._steps = Steps()
        self._learning_rate: float | None = None
        self.stream: Stream = job.stream(plan, self._on_rows, lambda: self._stopped)
        self._judging: Stream | None = None
        if task.validation is not None:
            source = task.validation.source
            self._judging = job.beside(source, plan, lambda _: self._on_rows(0))

    def emit(self, event: Event) -> None:
        """Tell everyone who listens."""
        reasons: dict[str, None] = {}
        for callback in self._callbacks:
            try:
                callback(event)
            except Stop as stop:
                self._stopped = True
                reasons |= {str(stop): None} if str(stop) else {}
        new = [reason for reason in reasons if reason not in self._notes]
        self._notes |= reasons
        # Only now, so that everyone has heard of what comes before; and no note has notes.
        for reason in () if isinstance(event, Noted | Ended) else new:
            self.note(reason)

    def note(self, text: str) -> None:
        """Tell everyone of something in words, if there is any."""
        if text:
            self.emit(Noted(text, self._seconds))

    def _on_rows(self, rows: int) -> None:
        self._rows += rows
        self.emit(Progressed(self._rows, self._seconds, self._profile))

    @property
    def _profile(self) -> dict[str, float]:
        profile = self.stream.timings.profile
        if self._judging is not None:
            profile["validating"] = sum(self._judging.timings.profile.values())
        return profile

    @property
    def _seconds(self) -> float:
        return perf_counter() - self._begun

    @property
    def _passes(self) -> float:
        return self._rows / self.problem.n_rows

    def solve(
        self,
        start: Fitted | None,
        max_passes: float | None,
        max_seconds: float | None,
        training_page: str | None,
    ) -> State:
        """Return the state when the tolerance, or a limit, is met."""
        model, source = self.task.model, self._job.source
        scans, config = self.task.rows_per_update < source.n_rows, self._plan.config
        self.emit(
            Started(
                model=model.name,
                solver=self.task.solver_name,
                batch_size=str(model.batch_size),
                n_rows=source.n_rows,
                n_features=source.n_features,
                max_iter=model.iterations,
                dashboard=self._job.dashboard,
                ceiling=self._plan.ceiling.limit,
                projected=self._plan.projected,
                explanation=self._plan.explain(),
                terms=self._plan.projection.terms,
                data=self.task.data_name,
                row_bytes=source.row_bytes,
                rows_per_update=self.task.rows_per_update,
                max_passes=max_passes,
                max_seconds=max_seconds,
                ceiling_source=self._plan.ceiling.source,
                training_page=training_page,
                validation_rows=0 if self._judging is None else self._judging.source.n_rows,
                threads=config.replicas * config.turns if scans else self._plan.threads,
            )
        )
        self.problem = replace(self.problem, scaling=scaling_of(self.task, self.stream))
        theta = self.problem.zeros()
        if start is not None:
            theta = self.problem.from_data_units(start.coef, start.intercept)
        state = self.task.solver.start(self.problem, self.stream, theta)
        self._learning_rate = _rate(state, 0)
        self._looked = self._rows
        self.note(state.note)
        looked_at = rows_of(source, evaluated_partitions(source))
        if scans and looked_at < source.n_rows:
            self._notes[f"losses of epochs are those of {looked_at:,} rows, spread evenly"] = None
        while not state.converged and not state.stalled:
            # The pass that evaluates the start is part of the first iteration, which is ended.
            first = state.n_iter == 0 and not np.isnan(state.loss)
            if self._stopped and state.n_iter:
                break
            self._limit = None if first else self._limit_met(state.n_iter, max_passes, max_seconds)
            if self._limit is not None:
                self.note(f"ends: {self._limit}")
                break
            before, state = state, self.task.solver.step(self.problem, self.stream, state)
            if not np.isfinite(state.theta).all():
                raise Diverged("the parameters stopped being numbers; use a smaller learning rate")
            if state.n_iter == before.n_iter and not np.isnan(before.loss):
                self.note(state.note)  # a step that has to be shortened is none
                continue
            validation_loss = self._judge(state.theta)
            step = Stepped(
                state.n_iter,
                self._passes,
                state.updates,
                state.loss,
                state.gradient_norm,
                self._seconds,
                _rate(state, max(0, state.updates - 1)),
                self._profile,
                validation_loss,
                state.progressive_loss,
            )
            self._steps.add(step)
            self.emit(step)
            self.note(state.note)
        if state.converged:
            self.note("ends: the tolerance is met")
        elif state.stalled:
            self.note(f"ends: {state.stalled}")
        self._shortfall = self._short_of(state)
        return state

    def _short_of(self, state: State) -> str:
        """Return why the run is not converged, and the way out, in one line.

        Nothing where it is converged, and where it was asked to stop.
        """
        cause = state.stalled or self._limit
        if state.converged or not cause:
            return ""
        tol = self.task.model.tolerance
        way_out = f"{cause.split('=')[0]} or tol"
        if self.task.rows_per_update < self.problem.n_rows:
            gain = certain_gain(self.problem, self.stream, state.theta)
            self._on_rows(0)  # who listens knows what that took, as the report does
            if is_near(gain, state.loss, tol):
                if tol == 0:  # no condition to meet
                    return ""
                cause += " before five epochs in a row gained less than tol"
            else:
                cause += f", and the mean objective can be lowered by {gain:.3g} at least"
                way_out = "max_iter, or change learning_rate or batch_size"
        elif state.gradient_norm is not None:
            norm = state.gradient_norm
            cause += f", the largest entry of the gradient is {norm:.3g} and tol is {tol:g}"
            way_out = "tol" if state.stalled else way_out
        return f"not converged: {cause}; raise {way_out}"

    def _limit_met(
        self, n_iter: int, max_passes: float | None, max_seconds: float | None
    ) -> str | None:
        """Return which limit ends the run, or None."""
        if n_iter >= self.task.model.iterations:
            return f"max_iter={self.task.model.iterations} is reached"
        # Of data in memory, what was looked at before the first iteration may be several passes.
        taken = (self._rows - self._looked) / self.problem.n_rows
        if max_passes is not None and taken >= max_passes:
            return f"max_passes={max_passes:g} is reached"
        if max_seconds is not None and self._seconds >= max_seconds:
            return f"max_seconds={max_seconds:g} is reached"
        return None

    def _judge(self, theta: Array) -> float | None:
        """Return the mean loss of the validation rows; None where they are not to be read."""
        if self._judging is None or self._stopped:
            return None
        sums = self._judging.reduce(self.task.validation_sums(self.problem, theta))
        if not sums["weight"] > 0:
            raise ValueError(
                f"class_weight={self.task.model.class_weight!r} leaves the validation rows no "
                "weight; use rows of a class that has some, or another class_weight"
            )
        return float(sums["loss"][0] / sums["weight"])

    def report(self, state: State, notes: Sequence[str] = ()) -> Report:
        """Return what was done."""
        task, timings = self.task, self.stream.timings
        bytes_read = timings.rows * self._job.source.row_bytes
        if self._judging is not None:
            bytes_read += self._judging.timings.rows * self._judging.source.row_bytes
        updates = task.solver if isinstance(task.solver, Updates) else None
        if self._shortfall:
            self._notes |= {self._shortfall: None}
        return Report(
            model=task.model.name,
            solver=task.solver_name,
            batch_size=task.model.batch_size,
            n_rows=self.problem.n_rows,
            n_features=self.problem.n_features,
            passes=self._passes,
            updates=state.updates,
            n_iter=state.n_iter,
            bytes_read=bytes_read,
            seconds=self._seconds,
            loss=state.loss,
            history=self._steps.all(),
            converged=state.converged,
            random_state=None if updates is None else updates.seed,
            shuffle_chunks=None if updates is None else updates.shuffle_chunks,
            learning_rate=self._learning_rate,
            profile=self._profile,
            memory=self._job.memory(self._plan),
            replicas=1 if updates is None else updates.replicas,
            dashboard=self._job.dashboard,
            notes=(*self._notes, *notes),
            shortfall=self._shortfall,
            condition=None if state.precision is None else state.precision.condition,
            rank=None if state.precision is None else state.precision.rank,
            digits=None if state.precision is None else state.precision.digits,
        )


def _rate(state: State, t: int) -> float | None:
    """Return the learning rate after t updates, of all replicas; None of a solver without one."""
    updates = getattr(state.memory, "updates", None)
    return None if updates is None else float(updates.rate(t // len(state.memory.states)))


def scaling_by(problem: LinearProblem, moments: ColumnMoments) -> Scaling:
    """Return the scaling of columns of these moments, for conditioning or to standardize them."""
    # Without an intercept nothing takes up a shift, but a `StandardScaler` put first does.
    centre = problem.fit_intercept or problem.standardize
    scaling = Scaling.of(moments.mean, np.sqrt(moments.variance), centre=centre)
    if problem.standardize:
        return scaling
    return scaling.widened(
        problem.penalty.l2 / (problem.loss.require_bound() * problem.total_weight)
    )


def scaling_of(task: Task, stream: Stream) -> Scaling:
    """Return the scaling of the columns that a fit begins with."""
    return scaling_by(task.problem, column_moments(task, stream))


def column_moments(task: Task, stream: Stream) -> ColumnMoments:
    """Return the moments of the columns: a store's statistics, else from looking at them.

    For conditioning a sample will do; `standardize` is about the true means and deviations.
    """
    problem, statistics = task.problem, task.inputs.statistics
    if statistics is not None:
        return ColumnMoments(problem.total_weight, statistics.mean, statistics.scale**2)
    about: Array = np.zeros(problem.n_features)
    partitions = sample_partitions(stream.source, _SAMPLE_PARTITIONS * stream.source.partition_rows)
    look = ColumnSums(about)
    look = ColumnSums(look.moments(stream.reduce(look, partitions)).mean)
    everything = problem.standardize or task.inputs.kind == "arrays"
    return look.moments(stream.reduce(look, None if everything else partitions))
