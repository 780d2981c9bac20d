"""Training: the loop around a solver, the same for every model, solver and batch size."""

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np

from ooc_train.core.atomic import PartialOutput
from ooc_train.core.output_kinds import RUN, require_output
from ooc_train.core.partitions import rows_of
from ooc_train.core.sums import Array
from ooc_train.core.threads import one_blas_thread
from ooc_train.errors import Diverged
from ooc_train.memory.ceiling import Ceiling
from ooc_train.models.settings import Model
from ooc_train.monitoring.driver import TrainingPage
from ooc_train.monitoring.interrupts import Interrupts
from ooc_train.runs.events import Callback, Ended, Event, Noted, Progressed, Started, Stepped, Stop
from ooc_train.runs.fitted import Fitted, as_fitted
from ooc_train.runs.report import Report, Steps
from ooc_train.runtime.job import Job
from ooc_train.solvers.base import State, advance
from ooc_train.solvers.base import start as begin
from ooc_train.solvers.learning_rate import evaluated_partitions, gain_requests, guaranteed_gain
from ooc_train.solvers.updates import is_gain_small
from ooc_train.stream.inputs import read_inputs
from ooc_train.stream.outliers import blamed
from ooc_train.stream.passes import Stream
from ooc_train.stream.plan import Plan
from ooc_train.training.task import Task, fitted_model, scaling_of


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
    job = Job(inputs.source, client=client, memory_ceiling=memory_ceiling)
    with (
        nullcontext() if out is None else PartialOutput(out, RUN, overwrite=overwrite) as output,
        Interrupts() as interrupts,
        TrainingPage(job.client, job.dashboard, job.calling) as page,
    ):
        with one_blas_thread(), job:
            plan = job.plan(task.requirements(), task.validation_requirements())
            run = _Run(task, job, plan, (*callbacks, interrupts, page), begun)
            with blamed(run.stream):
                state = run.solve(start, max_passes, max_seconds, page.link)
            report = run.report(state, page.notes)
        fitted = fitted_model(model, run.problem, state.params, inputs, report)
        if output is not None:
            report = replace(report, saved_in=fitted.save_as(output))
            run.note(f"saved in {report.saved_in}")
        run.emit(Ended(report.converged, report.seconds, report.memory))
        interrupts.conclude(report)
    return fitted, report


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
        if task.settings.replicas < task.model.replicas:
            replicas = f"{task.settings.replicas} of {task.model.replicas} replicas"
            self._notes[
                f"learned in {replicas}: the order of rows has no more groups of chunks"
            ] = None
        self._steps = Steps()
        self._learning_rate: float | None = None
        self.stream: Stream = job.stream(plan, self._on_rows, lambda: self._stopped)
        self._validation: Stream | None = None
        if task.validation is not None:
            source = task.validation.source
            self._validation = job.validation_stream(source, plan, lambda _: self._on_rows(0))

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
        if self._validation is not None:
            profile["validating"] = sum(self._validation.timings.profile.values())
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
                solver=self.task.solver.name,
                batch_size=str(model.batch_size),
                n_rows=source.n_rows,
                n_features=source.n_features,
                max_iter=model.iterations,
                solver_passes=self.task.most_passes,
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
                validation_rows=0 if self._validation is None else self._validation.source.n_rows,
                threads=config.replicas * config.pipeline_threads if scans else self._plan.threads,
            )
        )
        self.problem = replace(self.problem, scaling=scaling_of(self.task, self.stream))
        params = self.problem.initial()
        if start is not None:
            params = self.problem.from_data_units(start.coef, start.intercept)
        solver = self.task.solver
        state = begin(solver, self.problem, self.stream, params)
        self._learning_rate = state.rate
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
                self.note(f"stopped: {self._limit}")
                break
            before, state = state, advance(solver, self.problem, self.stream, state)
            if not np.isfinite(state.params).all():
                raise Diverged("the parameters stopped being numbers; use a smaller learning rate")
            if state.n_iter == before.n_iter and not np.isnan(before.loss):
                self.note(state.note)  # a step that has to be shortened is none
                continue
            validation_loss = self._validation_loss(state.params)
            step = Stepped(
                state.n_iter,
                self._passes,
                state.updates,
                state.loss,
                state.gradient_norm,
                self._seconds,
                state.rate,
                self._profile,
                validation_loss,
                state.progressive_loss,
            )
            self._steps.add(step)
            self.emit(step)
            self.note(state.note)
        if state.converged:
            self.note("converged: tolerance reached")
        elif state.stalled:
            self.note(f"stopped: {state.stalled}")
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
            requests = gain_requests(self.problem, self.stream.source, state.params)
            gain = guaranteed_gain(self.problem, self.stream.sums(requests), state.params)
            self._on_rows(0)  # who listens knows what that took, as the report does
            if is_gain_small(gain, state.loss, tol):
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
            return f"max_iter={self.task.model.iterations} reached"
        # Of data in memory, what was looked at before the first iteration may be several passes.
        taken = (self._rows - self._looked) / self.problem.n_rows
        if max_passes is not None and taken >= max_passes:
            return f"max_passes={max_passes:g} reached"
        if max_seconds is not None and self._seconds >= max_seconds:
            return f"max_seconds={max_seconds:g} reached"
        return None

    def _validation_loss(self, params: Array) -> float | None:
        """Return the mean loss of the validation rows; None where they are not to be read."""
        if self._validation is None or self._stopped:
            return None
        sums = self._validation.reduce(self.task.validation_sums(self.problem, params))
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
        if self._validation is not None:
            bytes_read += self._validation.timings.rows * self._validation.source.row_bytes
        settings = task.settings if task.by_updates else None
        if self._shortfall:
            self._notes |= {self._shortfall: None}
        return Report(
            model=task.model.name,
            solver=task.solver.name,
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
            random_state=None if settings is None else settings.seed,
            shuffle_chunks=None if settings is None else settings.shuffle_chunks,
            learning_rate=self._learning_rate,
            profile=self._profile,
            memory=self._job.memory(self._plan),
            replicas=1 if settings is None else settings.replicas,
            dashboard=self._job.dashboard,
            notes=(*self._notes, *notes),
            shortfall=self._shortfall,
            condition=None if state.precision is None else state.precision.condition,
            rank=None if state.precision is None else state.precision.rank,
            digits=None if state.precision is None else state.precision.digits,
        )
