"""Iterations of a run: within their passes, losses are told and checkpoints are written."""

from collections.abc import Callable
from typing import Any

from ooc_train.runs.history import LossPoint
from ooc_train.solvers.base import Solver, State, advance
from ooc_train.stream.partial_pass import PartialPass
from ooc_train.stream.passes import Stream
from ooc_train.training.checkpoints import CheckpointFolder, Snapshot
from ooc_train.training.run_record import RunRecord
from ooc_train.training.task import Task
from ooc_train.training.within_pass import WithinPass


class Iterations:
    """Takes the iterations of a run, tells losses within passes, and writes checkpoints.

    Parameters
    ----------
    task : Task
        The model and its data.
    stream : Stream
        The passes over the training rows.
    record : RunRecord
        What the run has counted.
    checkpoints : CheckpointFolder or None
        The place of the checkpoints; None keeps none.
    stopped : callable
        Whether the run is to end.
    on_loss : callable
        Called with each loss within a pass.
    on_saving : callable
        Called with what the run waits for until it is written.

    Attributes
    ----------
    begun : bool
        Whether the iteration to take next was begun by an earlier process.
    """

    def __init__(
        self,
        task: Task,
        stream: Stream,
        record: RunRecord,
        checkpoints: CheckpointFolder | None,
        stopped: Callable[[], bool],
        on_loss: Callable[[LossPoint], None],
        on_saving: Callable[[str], None],
    ) -> None:
        self._task, self._stream, self._record = task, stream, record
        self._checkpoints, self._stopped = checkpoints, stopped
        self._solver: Solver = task.solver
        self._resumed: Snapshot | None = None
        self._before: State | None = None
        self._cut: Snapshot | None = None
        self._rows_before_pass = 0
        self._within_pass, self._on_loss = WithinPass(task, stream), on_loss
        self._on_saving = on_saving
        stream.on_progress = self._on_progress
        if not task.training.is_private:  # private updates draw a batch from all rows of a task
            stream.on_updates = self._look

    @property
    def begun(self) -> bool:
        """Whether the next iteration was begun by an earlier process."""
        return self._resumed is not None

    def go_on(self, snapshot: Snapshot) -> State:
        """Return the state of a snapshot, once the record is that of its run."""
        self._record.restore(snapshot.progress, snapshot.best)
        self._resumed = snapshot if snapshot.is_within else None
        return snapshot.state

    def advance(self, problem: Any, state: State) -> State:
        """Return the state after one more iteration, or after the rest of one that was begun."""
        resumed, self._resumed = self._resumed, None
        self._before, self._cut, self._problem = state, None, problem
        asks = state
        if resumed is not None:
            asks = resumed.within or state
            if resumed.within is not None and not asks.phase and resumed.begun is None:
                return asks
            self._stream.begun = resumed.begun
            if resumed.begun is not None:
                # What the pass has read counts when it asks.
                self._record.rows -= resumed.begun.rows
        try:
            return advance(self._solver, problem, self._stream, asks, self._on_asking)
        finally:
            self._before = None

    def _on_asking(self, state: State) -> None:
        """Note which state asks for the pass that follows."""
        self._asking, self._rows_before_pass = state, self._record.rows
        self._within_pass.begin(self._problem, state)
        if self._stream.begun is not None:
            self._record.rows += self._stream.begun.rows

    def _on_progress(self, progress: Callable[[], PartialPass]) -> None:
        """Within a pass, tell the loss or write a checkpoint if it is time.

        Of a run that is to end, note where its epoch is cut short.
        """
        if self._before is None:
            return
        self._look(progress)
        if self._checkpoints is None:
            return
        if self._stopped():
            begun = progress()
            if begun.states and self._cut is None:
                self._cut = self._within(self._before, begun)
        elif self._is_due():
            self._checkpoints.write(self._task, self._within(self._before, progress()))

    def _look(self, progress: Callable[[], PartialPass]) -> None:
        """Within a pass, tell the loss if it is time."""
        point = self._within_pass.look(progress, self._record.rows, self._record.seconds)
        if point is not None:
            self._record.within.add(point)
            self._on_loss(point)

    def _within(self, before: State, begun: PartialPass) -> Snapshot:
        """Return the snapshot of a run within a pass."""
        asking = None if self._asking is before else self._asking
        return self._snapshot(before, self._rows_before_pass + begun.rows, asking, begun)

    def _snapshot(
        self,
        state: State,
        rows: int,
        within: State | None = None,
        begun: PartialPass | None = None,
    ) -> Snapshot:
        best, progress = self._record.goals.best_state, self._record.to_json(rows)
        return Snapshot(state, best, progress, within, begun)

    def _is_due(self) -> bool:
        passes = self._record.rows / self._task.inputs.source.n_rows
        return self._checkpoints is not None and self._checkpoints.is_due(passes)

    def keep(self, state: State, *, if_due: bool = False) -> None:
        """Write a checkpoint between two iterations, or only if it is time for one."""
        if self._checkpoints is not None and (not if_due or self._is_due()):
            self._checkpoints.write(self._task, self._snapshot(state, self._record.rows))

    def keep_within(self, before: State, state: State, *, if_due: bool = False) -> None:
        """Write a checkpoint of an iteration whose step is not recorded yet.

        A run that goes on takes up an epoch where it was cut short. Of a whole iteration, it
        evaluates validation rows and records the step.
        """
        if self._checkpoints is not None and (not if_due or self._is_due()):
            whole = self._snapshot(before, self._record.rows, state)
            self._checkpoints.write(self._task, self._cut or whole)

    def finish(self) -> None:
        """Wait until the last checkpoint is on the disk."""
        if self._checkpoints is not None:
            self._on_saving("checkpoint")
            self._checkpoints.finish()
