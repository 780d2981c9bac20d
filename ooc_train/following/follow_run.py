"""The loop of following a store: looks for rows, learns from them, and publishes the model."""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from time import perf_counter, sleep
from typing import Self

from ooc_train.core.atomic import PartialOutput
from ooc_train.core.output_kinds import RUN
from ooc_train.core.text import counted
from ooc_train.errors import OocTrainError
from ooc_train.following.follow_record import FollowRecord
from ooc_train.following.follower import Follower
from ooc_train.following.growing_store import GrowingStore
from ooc_train.runs.events import Callback, Event, Noted, Progressed, Started, Stepped, Stop
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.report import Report
from ooc_train.runtime.job import Job
from ooc_train.store.dataset import Store
from ooc_train.stream.plan import Plan
from ooc_train.stream.requirements import Requirements
from ooc_train.stream.store_source import StoreSource
from ooc_train.training.checkpoints import CheckpointFolder, Snapshot
from ooc_train.training.run_identity import origin_of
from ooc_train.training.task import Task, fitted_model

_POLL_SECONDS = 0.1
"""Time between two looks for further rows."""

_PLANNED_CHUNKS = 64
"""Chunks for which passes are planned, at least: a store that begins with one chunk will grow."""

_TOLD_DRIFTS = 5
"""Drifts that the report names, the last ones."""

_LOSSES = (
    "of rows before their updates: the first is decayed, by half in ten windows; that before its "
    "update is of the last window"
)
"""What the losses of a report are, which those of `train` are not."""


@dataclass(frozen=True, repr=False)
class Followed:
    """The result of `follow`.

    Attributes
    ----------
    fitted : Fitted
        The model after the last row.
    report : Report
        What was done. An entry of `report.history` is a window of rows: `progressive_loss` is its
        mean loss, of each row before it was learned from, and `loss` the decayed mean up to it.
        `passes` there are rows so far over the first rows.
    rows : int
        Rows of the store that were learned from so far: the next follower begins there.
    new_rows : int
        Those of this call.
    waiting_rows : int
        Rows after them, which fill no batch yet.
    progressive_loss : float
        Mean of the losses of all rows in windows that ended, by weight; NaN if none has.
    drifts : tuple of int
        Rows before which the progressive loss was found to have risen.
    """

    fitted: Fitted
    report: Report
    rows: int
    new_rows: int
    waiting_rows: int
    progressive_loss: float
    drifts: tuple[int, ...]

    def __repr__(self) -> str:
        rows = counted(self.rows, "row")
        return f"<Followed: {rows}, {self.new_rows:,} of them new; {self.report!r}>"

    def _repr_html_(self) -> str:
        """Return the figures as an HTML table, for notebooks."""
        return self.report._repr_html_()


class Published:
    """The place of a model that is saved again and again, and of its checkpoint.

    A context manager, in which no other process writes there.

    Parameters
    ----------
    out : str
        Folder of the saved run.
    checkpoints : CheckpointFolder
        The place of the checkpoint.
    overwrite : bool
        Whether a run that lies there is replaced.
    """

    def __init__(self, out: str, checkpoints: CheckpointFolder, *, overwrite: bool) -> None:
        self.out, self.checkpoints, self._overwrite = out, checkpoints, overwrite

    def __enter__(self) -> Self:
        self.checkpoints.__enter__()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.checkpoints.__exit__(kind, error, trace)

    def publish(self, task: Task, snapshot: Snapshot, fitted: Fitted) -> str:
        """Write the checkpoint, then the model; return where the model lies.

        A process that is killed between them leaves the model of the checkpoint before.
        """
        self.checkpoints.write(task, snapshot)
        self.checkpoints.finish()
        with PartialOutput(self.out, RUN, overwrite=self._overwrite) as output:
            place = fitted.save_as(output)
        self._overwrite = True
        return place


class FollowRun:
    """One call of `follow`.

    Parameters
    ----------
    growing : GrowingStore
        The store.
    feed : iterator of bool, or None
        Appends a block of rows when it is asked for the next value, or does not have one yet.
    max_rows : int or None
        New rows after which to end.
    idle : float
        Seconds without a new row after which to end.
    callbacks : sequence of Callback
        Functions that receive events.
    started : float
        Time of `perf_counter` when following began, in seconds.

    Attributes
    ----------
    record : FollowRecord
        What was counted so far.
    """

    def __init__(
        self,
        growing: GrowingStore,
        feed: Iterator[bool] | None,
        max_rows: int | None,
        idle: float,
        callbacks: Sequence[Callback],
        started: float,
    ) -> None:
        self.record = FollowRecord(started)
        self._growing, self._feed, self._max_rows, self._idle = growing, feed, max_rows, idle
        self._callbacks = callbacks
        self._ended = ""
        self._last_new = perf_counter()
        self._kept = 0  # rows of the last checkpoint

    def emit(self, event: Event) -> None:
        """Send an event to the callbacks; note why one of them ends the run."""
        for callback in self._callbacks:
            try:
                callback(event)
            except Stop as stop:
                self._ended = self._ended or str(stop) or "a callback stopped it"

    def announce(self, what: Stepped | str) -> None:
        """Emit a step, or a note."""
        self.emit(Noted(what, self.record.seconds) if isinstance(what, str) else what)

    def wait_for(self, n_rows: int) -> None:
        """Wait until the store has so many rows.

        Raises
        ------
        ValueError
            If following ends before.
        """
        while (found := self._growing.now().n_rows) < n_rows:
            if not self._wait(found):
                raise ValueError(
                    f"{self._growing.store.path} has {counted(found, 'row')}, and following begins "
                    "with "
                    f"{n_rows:,}, which scale the columns; append more, or use a smaller "
                    "first_rows"
                )
        self._last_new = perf_counter()

    def _wait(self, seen: int) -> bool:
        """Wait a moment, or let a block be appended; return whether following goes on."""
        if self._ended:
            return False
        if self._feed is not None:
            came = next(self._feed, None)
            if came is None:
                self._ended = "the rows ended"
                return False
            if came:
                return True
        if perf_counter() - self._last_new >= self._idle:
            self._ended = f"no new row in {self._idle:g} s"
            return False
        self.emit(Progressed(self.record.rows, self.record.seconds))
        sleep(_POLL_SECONDS)
        if self._growing.now().n_rows > seen:
            self._last_new = perf_counter()
        return not self._ended

    def to_the_end(
        self, follower: Follower, job: Job, plan: Plan, published: Published | None
    ) -> Followed:
        """Learn until the run ends; return its result.

        Raises
        ------
        OocTrainError, OSError, ValueError
            If rows can't be learned from or appended. What was learned before is published.
        """
        self._follower, self._job, self._plan, self._published = follower, job, plan, published
        record = self.record
        if published is not None:
            found = published.checkpoints.snapshot(follower.task)
            if found is not None:
                record.restore(found.progress)
                follower.restore(found.state, found.best)
                self.announce(f"went on from row {record.rows:,}")
        self._start(follower.task, job, plan)
        begun = self._kept = record.rows
        try:
            self._learn(None if self._max_rows is None else begun + self._max_rows)
        except (OocTrainError, OSError, ValueError):
            if record.rows > self._kept:
                self._publish()
            raise
        fitted, report = self._publish(ended=True)
        if report.saved_in is not None:
            self.announce(f"saved in {report.saved_in}")
        return Followed(
            fitted,
            report,
            record.rows,
            record.rows - begun,
            self._growing.store.n_rows - record.rows,
            record.loss,
            tuple(record.drifts),
        )

    def _learn(self, limit: int | None) -> None:
        """Learn from rows up to row `limit`, and wait for them, until the run ends."""
        follower, record = self._follower, self.record
        store: Store | None = None
        while not self._ended:
            if (now := self._growing.now()) is not store:
                store, source = now, _source(follower.task, now)
            stop = store.n_rows if limit is None else min(store.n_rows, limit)
            stop -= stop % follower.step
            if record.rows < stop:
                follower.learn(source, stop)
                self._last_new = perf_counter()
                self.emit(Progressed(record.rows, record.seconds, follower.timings.profile))
            elif limit is not None and limit - record.rows < follower.step:
                self._ended = f"max_rows={self._max_rows} reached"
            else:
                self._wait(store.n_rows)
            due = self._published is not None and self._published.checkpoints.is_due(0.0)
            if due and record.rows > self._kept:
                self._publish()

    def _publish(self, *, ended: bool = False) -> tuple[Fitted, Report]:
        """Return the model and its report; save both, and a checkpoint, if they have a place."""
        follower, published = self._follower, self._published
        report = self._report(follower, self._job, self._plan, ended=ended)
        if published is not None:
            report = replace(report, run_id=published.checkpoints.run_id)
        params = follower.state.params
        fitted = fitted_model(follower.task, follower.problem, params, report)
        if published is not None:
            snapshot = Snapshot(follower.state, follower.base, self.record.to_json())
            place = published.publish(follower.task, snapshot, fitted)
            report = replace(report, saved_in=place)
        self._kept = self.record.rows
        return fitted, report

    def _start(self, task: Task, job: Job, plan: Plan) -> None:
        """Emit the event that following begins."""
        source = task.inputs.source
        self.emit(
            Started(
                model=task.model.name,
                solver=task.solver.name,
                batch_size=str(task.training.size_text),
                n_rows=self._growing.store.n_rows,
                n_features=source.n_features,
                max_iter=1,
                solver_passes=None,
                dashboard=job.dashboard,
                ceiling=plan.ceiling.limit,
                projected=plan.projected,
                explanation=plan.explain(),
                terms=plan.projection.terms,
                data=self._growing.store.path,
                row_bytes=source.row_bytes,
                rows_per_update=task.settings.batch_size,
                ceiling_source=plan.ceiling.source,
                threads=plan.config.pipeline_threads,
            )
        )

    def _report(self, follower: Follower, job: Job, plan: Plan, *, ended: bool) -> Report:
        """Return the report of all rows so far; an entry of its history is a window."""
        task, record = follower.task, self.record
        notes = [*record.notes, *task.inputs.notes]
        if record.drifts:
            told = ", ".join(f"{row:,}" for row in record.drifts[-_TOLD_DRIFTS:])
            notes.append(
                f"drift: the progressive loss rose {len(record.drifts):,} times, the last times "
                f"before the rows {told}"
            )
        return Report(
            model=task.model.name,
            solver=task.solver.name,
            batch_size=task.training.size_text,
            n_rows=record.rows,
            n_features=task.inputs.source.n_features,
            passes=1.0,
            updates=follower.updates,
            n_iter=len(record.steps.all()),
            bytes_read=record.rows * task.inputs.source.row_bytes,
            seconds=record.seconds,
            loss=record.decayed_loss,
            history=record.steps.all(),
            converged=False,
            random_state=task.settings.seed,
            shuffle_chunks=None,
            learning_rate=record.learning_rate,
            profile=follower.timings.profile,
            memory=job.memory(plan, ended=ended),
            notes=tuple(notes),
            ended=self._ended,
            solver_reason=task.solver_reason,
            origin=origin_of(task, record.rows) | {"losses": _LOSSES},
        )


def planned_source(task: Task) -> StoreSource:
    """Return a source like that of a task, of as many rows as passes are planned for."""
    source = _store_source(task)
    return source.first_rows(max(source.n_rows, _PLANNED_CHUNKS * source.partition_rows))


def requirements(task: Task, others: int) -> Requirements:
    """Return what following needs, with the bytes that others hold in this process.

    Beyond an epoch of updates, that is the state at the window's begin. A replay holds one more
    state, and a scan's end copies its own.
    """
    found = task.requirements()
    carried = -(-found.state // max(1, found.parameters))
    return replace(found, slots=found.slots + 3 * carried + 2, results=others)


def _store_source(task: Task) -> StoreSource:
    if not isinstance(task.inputs.source, StoreSource):
        raise TypeError("only the rows of a store are followed")
    return task.inputs.source


def _source(task: Task, store: Store) -> StoreSource:
    """Return the source of a store that has grown."""
    return replace(
        _store_source(task),
        X=store.X.flat,
        y=store.y,
        weight=store.sample_weight,
        n_rows=store.n_rows,
        opened=secrets.token_hex(8),
    )
