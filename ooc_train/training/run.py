"""The loop around a solver, the same for every model, solver and batch size."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from ooc_train.core.partitions import rows_of
from ooc_train.core.text import counted
from ooc_train.errors import Diverged
from ooc_train.runs.events import (
    Callback,
    Compiling,
    Ended,
    Event,
    Learned,
    Noted,
    Progressed,
    Saving,
    Started,
    Stepped,
    Stop,
)
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.history import LossPoint
from ooc_train.runs.report import Report
from ooc_train.runtime.job import Job
from ooc_train.solvers.base import State
from ooc_train.solvers.divergence import after_divergence
from ooc_train.solvers.learning_rate import evaluated_partitions
from ooc_train.solvers.plateaus import after_epoch
from ooc_train.stream.passes import Stream
from ooc_train.training.checkpoints import CheckpointFolder, Snapshot
from ooc_train.training.column_scaling import prepared
from ooc_train.training.constant_prediction import worse_than_constant
from ooc_train.training.iterations import Iterations
from ooc_train.training.limits import Limits
from ooc_train.training.run_identity import origin_of
from ooc_train.training.run_notes import notes_before
from ooc_train.training.run_record import RunRecord
from ooc_train.training.shortfall import shortfall
from ooc_train.training.task import Task, fitted_model
from ooc_train.training.validation_passes import ValidationPasses


class TrainingRun:
    """One run of `train`: asks the solver, runs the passes, and emits events.

    Parameters
    ----------
    task : Task
        The model and its data.
    job : Job
        The job, whose processes load what the run needs, and are planned for.
    callbacks : sequence of Callback
        Functions that receive the run's events.
    started : float
        Time of `perf_counter` when the run began, in seconds.
    checkpoints : CheckpointFolder or None
        Writes checkpoints of the run.

    Attributes
    ----------
    problem : ModelProblem
        The objective; `solve` scales its columns.
    stream : Stream
        The passes over the training rows.
    """

    def __init__(
        self,
        task: Task,
        job: Job,
        callbacks: Sequence[Callback],
        started: float,
        checkpoints: CheckpointFolder | None = None,
    ) -> None:
        self.task = task
        self.problem = task.problem
        self._job = job
        self._checkpoints = checkpoints
        training = task.training
        self._limits = Limits(task.max_iter, training.max_passes, training.max_seconds)
        self._record = RunRecord(training, started)
        self._callbacks = callbacks
        self._stopped = False
        self._record.notes |= dict.fromkeys(notes_before(task))
        self._ended = self._shortfall = ""
        self._stop_reasons: dict[str, None] = {}  # no notes, which a checkpoint would keep
        self._best: Stepped | None = None
        self._plan = job.plan(task.requirements(), task.validation_requirements(), self._on_compile)
        self.stream: Stream = job.stream(self._plan, self._on_rows, lambda: self._stopped)
        told = (lambda: self._stopped), self._on_loss, self._on_saving
        self._iterations = Iterations(task, self.stream, self._record, checkpoints, *told)
        self._validation: ValidationPasses | None = None
        if task.validation is not None:
            source = task.validation.source
            others = job.validation_stream(source, self._plan, lambda _: self._on_rows(0))
            self._validation = ValidationPasses(task, others)

    def emit(self, event: Event) -> None:
        """Send an event to the callbacks, and record why one of them stops the run."""
        reasons: dict[str, None] = {}
        for callback in self._callbacks:
            if isinstance(event, Learned) and not getattr(callback, "takes_models", False):
                continue
            try:
                callback(event)
            except Stop as stop:
                self._stopped = True
                reasons |= {str(stop): None} if str(stop) else {}
        new = [reason for reason in reasons if reason not in self._stop_reasons]
        self._stop_reasons |= reasons
        # Notes follow once all callbacks have the event; a note itself causes none.
        for reason in () if isinstance(event, Noted | Ended) else new:
            self.note(reason)

    def note(self, text: str) -> None:
        """Emit the event `Noted` with a text, unless the text is empty."""
        if text:
            self.emit(Noted(text, self._record.seconds))

    def _on_compile(self, kernels: tuple[str, ...], kept: bool) -> None:
        self.emit(Compiling(kernels, kept, self._record.seconds))

    def _on_rows(self, rows: int) -> None:
        self._record.rows += rows
        self.emit(Progressed(self._record.rows, self._record.seconds, self._profile))

    def _on_loss(self, point: LossPoint) -> None:
        rows, seconds = self._record.rows, point.seconds
        self.emit(
            Progressed(rows, seconds, self._profile, point.loss, point.updates, point.metrics)
        )

    def _on_saving(self, what: str) -> None:
        self.emit(Saving(what, self._record.seconds))

    @property
    def _profile(self) -> dict[str, float]:
        profile = self.stream.timings.profile
        if self._validation is not None:
            profile["validating"] = sum(self._validation.stream.timings.profile.values())
        return profile

    @property
    def _passes(self) -> float:
        return self._record.rows / self.problem.n_rows

    def solve(
        self, start: Fitted | None, training_page: str | None, snapshot: Snapshot | None = None
    ) -> State:
        """Run the solver to its last state: converged, stalled, or stopped by limit or callback.

        Parameters
        ----------
        start : Fitted or None
            Parameters to begin from, in the column order of the data; None for the problem's own.
        training_page : str or None
            Link of the run's page on the dashboard, for the events.
        snapshot : Snapshot or None
            What to go on from, in place of a start.

        Raises
        ------
        Diverged
            If the loss or a parameter is not finite.
        """
        model, source = self.task.model, self._job.source
        scans, config = self.task.rows_per_update < source.n_rows, self._plan.config
        self.emit(
            Started(
                model=model.name,
                solver=self.task.solver.name,
                batch_size=str(self.task.training.batch_size),
                n_rows=source.n_rows,
                n_features=source.n_features,
                max_iter=self.task.max_iter,
                solver_passes=self.task.most_passes,
                dashboard=self._job.dashboard,
                ceiling=self._plan.ceiling.limit,
                projected=self._plan.projected,
                explanation=self._plan.explain(),
                terms=self._plan.projection.terms,
                data=self.task.data_name,
                row_bytes=source.row_bytes,
                rows_per_update=self.task.rows_per_update,
                max_passes=self.task.training.max_passes,
                max_seconds=self.task.training.max_seconds,
                ceiling_source=self._plan.ceiling.source,
                training_page=training_page,
                validation_rows=self._validation.stream.source.n_rows if self._validation else 0,
                spent=(0, 0.0) if snapshot is None else snapshot.spent,
                threads=config.replicas * config.pipeline_threads if scans else self._plan.threads,
                settings=model.texts() | self.task.training.texts(),
            )
        )
        for text in notes_before(self.task):
            self.note(text)
        solver, self.problem = self.task.solver, prepared(self.task, self.stream)
        if snapshot is None:
            params = self.problem.initial(self.task.settings.seed)
            if start is not None:
                params = self.problem.params_of(start.predictor)
            state = solver.init(self.problem, source, params)
        else:
            state = self._iterations.go_on(snapshot)
            iteration = f"iteration {state.n_iter}, pass {self._passes:.4g}"
            text = f"went on from a checkpoint of {iteration}"
            self._record.notes[text] = None
            self.note(text)
        if snapshot is None or state.phase:
            if state.phase:
                state = self._iterations.advance(self.problem, state)
            self._record.learning_rate = state.rate
            self._record.rows_before = self._record.rows
            self.note(state.note)
        evaluated_rows = rows_of(source, evaluated_partitions(source))
        if self.task.training.is_private:
            note = "losses of the training rows are not computed, since they would not be private"
            self._record.notes[note] = None
        elif scans and evaluated_rows < source.n_rows:
            note = f"losses of epochs are those of {counted(evaluated_rows, 'row')}, spread evenly"
            self._record.notes[note] = None
        reached, lowered, is_kept = "", "", False
        while not state.converged and not state.stalled:
            # The pass that evaluates the start belongs to the first iteration, which no limit cuts.
            first = state.n_iter == 0 and not np.isnan(state.loss)
            if self._stopped and state.n_iter:
                break
            begun = first or self._iterations.begun
            limit = "" if begun else self._reached_limit(state.n_iter)
            reached = self._record.goals.reached or limit
            if reached:
                break
            before = state
            try:
                state = self._iterations.advance(self.problem, before)
            except Diverged as error:
                state = after_divergence(solver, self.problem, self.stream, before, error)
                self._record.learning_rate = state.rate
                self._record.notes.pop(lowered, None)  # the report has the last of several
                lowered = state.note
                self._record.notes[lowered] = None
                self.note(lowered)
                continue
            if not np.isfinite(state.params).all():
                raise Diverged("a parameter is not finite; use a smaller learning rate")
            stopped = self._stopped
            if stopped and not is_kept:
                is_kept = True
                self._iterations.keep_within(before, state)
            if state.n_iter == before.n_iter and not np.isnan(before.loss):
                self.note(state.note)  # a pass that shortened the step is no iteration
                continue
            validation_loss = metric = None
            if self._validation is not None and not stopped:
                self._iterations.keep_within(before, state, if_due=True)
                validation_loss = self._validation.loss(self.problem, state.params)
                metric = self._validation.metric(self.problem, state.params)
            step = Stepped(
                state.n_iter,
                self._passes,
                state.updates,
                state.loss,
                state.gradient_norm,
                self._record.seconds,
                state.rate,
                self._profile,
                validation_loss,
                state.progressive_loss,
                state.batch_size,
                metric,
            )
            self._record.steps.add(step)
            rate_lowered = False
            if not stopped:
                state, rate_lowered = self._after_epoch(step, state)
            self._record.goals.add(step, state, rate_lowered=rate_lowered)
            self.emit(step)
            self.emit(Learned(step, partial(fitted_model, self.task, self.problem, state.params)))
            self.note(state.note)
            if not is_kept:
                self._iterations.keep(state, if_due=True)
        if not (is_kept or self._iterations.begun):
            self._iterations.keep(state)
        self._iterations.finish()
        return self._end(state, state.stalled or reached)

    def _after_epoch(self, step: Stepped, state: State) -> tuple[State, bool]:
        """Return the state with the learning rate of the next epoch, and whether it is lower."""
        figure = self._record.goals.validation(step)
        if figure is None:
            figure = state.loss
            figure += self.problem.penalty_value(state.params) / self.problem.total_weight
        # Early stopping ends runs by validation rows, and a tolerance of 0 ends none.
        ends = step.validation_loss is None and self.task.tol > 0
        after = after_epoch(self.task.solver, state, figure, ends=ends)
        return after, after.memory.get("eta0") != state.memory.get("eta0")

    def _end(self, state: State, cause: str) -> State:
        """Note why the run ended; return the last state, or the best one by validation.

        The cause is empty if the run converged, or if a callback stopped it.
        """
        self._ended = cause or next(reversed(self._stop_reasons), "a callback stopped it")
        if state.converged:
            self._ended = "tolerance reached"
            self.note(f"converged: {self._ended}")
        elif cause:
            self.note(f"stopped: {cause}")
        # A run may end by an exact solver after updates by batches.
        by_batches = state.progressive_loss is not None
        # Updates without a tolerance end by the limit alone.
        as_asked = by_batches and self.task.tol == 0.0
        unmet = not (state.converged or as_asked) and cause != self._record.goals.reached
        self._best, restored = self._record.goals.best_before(state) or (None, state)
        if cause or state.converged:
            worse = worse_than_constant(
                self.task, self.stream, restored.loss, by_batches=by_batches
            )
            self.note(worse)
            self._shortfall = worse if unmet or state.converged else ""
        if cause and unmet:
            self._shortfall = shortfall(
                cause,
                self.problem,
                self.stream,
                state,
                self.task.settings,
                by_batches=by_batches,
                advice=self._shortfall,
            )
            if by_batches:
                self._on_rows(0)  # callbacks learn the time of its passes, as the report does
        if self._best is None:
            return state
        text = (
            f"restored the parameters of iteration {self._best.n_iter} (pass "
            f"{self._best.passes:.4g}), whose validation {self.task.metric or 'loss'} is the best"
        )
        self._record.notes[text] = None
        self.note(text)
        return restored

    def _reached_limit(self, n_iter: int) -> str:
        """Return the limit that the run has reached as text, or ""."""
        # Scaling data in memory may take several passes, which the limit does not count.
        passes = (self._record.rows - self._record.rows_before) / self.problem.n_rows
        return self._limits.reached(n_iter, passes, self._record.seconds) or ""

    def report(self, state: State, notes: Sequence[str] = ()) -> Report:
        """Return the report of the run, whose last state is `state`."""
        task, timings = self.task, self.stream.timings
        bytes_read = timings.rows * self._job.source.row_bytes
        if self._validation is not None:
            others = self._validation.stream
            bytes_read += others.timings.rows * others.source.row_bytes
        settings = task.settings if task.by_updates else None
        # The seed of private updates would tell their noise.
        tells_seed = task.training.draws(task.model) and not task.training.is_private
        seed = task.settings.seed if tells_seed else None
        budget = getattr(task.solver, "budget", None)
        ended_by = filter(None, (*self._stop_reasons, self._shortfall))
        self._record.notes |= dict.fromkeys(ended_by)
        return Report(
            model=task.model.name,
            solver=task.solver.name,
            batch_size=task.training.size_text,
            n_rows=self.problem.n_rows,
            n_features=self.problem.n_features,
            passes=self._passes,
            updates=state.updates,
            n_iter=state.n_iter,
            bytes_read=bytes_read,
            seconds=self._record.seconds,
            loss=state.loss,
            history=self._record.steps.all(),
            within=self._record.within.all(),
            converged=state.converged,
            random_state=seed,
            shuffle_chunks=None if settings is None else settings.shuffle_chunks,
            learning_rate=self._record.learning_rate,
            profile=self._profile,
            memory=self._job.memory(self._plan),
            replicas=1 if settings is None else settings.replicas,
            dashboard=self._job.dashboard,
            notes=(*self._record.notes, *notes),
            shortfall=self._shortfall,
            ended=self._ended,
            best=self._best,
            condition=None if state.precision is None else state.precision.condition,
            dual_gap=None if state.dual_gap is None else tuple(state.dual_gap.tolist()),
            rank=None if state.precision is None else state.precision.rank,
            digits=None if state.precision is None else state.precision.digits,
            solver_reason=task.solver_reason,
            privacy=None if budget is None else budget(self._job.source, max(1, state.n_iter)),
            run_id="" if self._checkpoints is None else self._checkpoints.run_id,
            origin=origin_of(task),
        )
