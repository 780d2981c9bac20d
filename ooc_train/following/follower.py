"""The learner of a stream: it takes rows in the store's order, from where it was.

All that changes what is learned happens at ends of windows, which lie at fixed rows. So neither the
rows of an append, nor the rows that are read at a time, nor the moments at which a run was ended
change a bit of the parameters. Where a window's loss diverges, or drifts and the rate is to
rise, rows after that window were learned from too early: the learner goes back and takes the
windows one by one.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import Sums
from ooc_train.errors import Diverged
from ooc_train.following.follow_record import FollowRecord
from ooc_train.following.follow_settings import Following, rows_at_a_time
from ooc_train.following.windowed_updates import WindowedUpdates
from ooc_train.models.linear import LinearProblem
from ooc_train.models.problem import ModelProblem, UpdatesOfProblem
from ooc_train.runs.events import Stepped
from ooc_train.solvers.base import State
from ooc_train.solvers.base import start as begin
from ooc_train.solvers.divergence import LOWER, after_divergence
from ooc_train.stream.executors import LocalExecutor
from ooc_train.stream.partial_pass import PartialPass
from ooc_train.stream.pass_config import PassConfig
from ooc_train.stream.passes import Stream
from ooc_train.stream.store_source import StoreSource
from ooc_train.stream.timings import Timings
from ooc_train.training.column_scaling import column_moments, with_target_mean
from ooc_train.training.task import Task
from ooc_train.training.updating_task import problem_of, updates_of

_SECONDS = 0.5
"""Approximate time of one call of `learn`."""

_FIRST_BYTES, _MOST_ROWS = 2**26, 2**26
"""Bytes of the rows of the first call, while the speed is unknown, and most rows of a call."""


_NO_RATE = 1e-200
"""A learning rate that changes no parameter; schedules refuse zero."""

_WORSE = 1.25
"""A window's loss by updates is so many times that without them at most, if the rate is right."""


class Follower:
    """The state of following a store, and how it learns from further rows.

    Parameters
    ----------
    task : Task
        The task of the first rows, which scale the columns.
    settings : Following
        How the stream is followed.
    record : FollowRecord
        What was counted so far.
    config : PassConfig
        The settings of passes of the plan.
    announce : callable
        Called with a `Stepped` for each window, or with a note.

    Attributes
    ----------
    task : Task
        The task of the first rows.
    step : int
        Rows of which a multiple is learned at a time.
    problem : ModelProblem
        The problem of the first rows, with its scaling.
    state, base : State
        The state after the last row, and that at the begin of its window.
    timings : Timings
        Rows and seconds of all reading and learning.
    """

    def __init__(
        self,
        task: Task,
        settings: Following,
        record: FollowRecord,
        config: PassConfig,
        announce: Callable[[Stepped | str], None],
    ) -> None:
        self.record, self.task, self._settings = record, task, settings
        self._solver = updates_of(task)
        self.step = rows_at_a_time(self._solver.batch_size)
        self.window = settings.window_rows(self.step)
        self._config, self._announce = config, announce
        self.timings = Timings()
        self._careful_until = 0
        self._rows_of_call = float(max(1, _FIRST_BYTES // task.inputs.source.row_bytes))
        self._scale()
        self.state = self.base = self._start()

    def _stream(self, source: Any) -> Stream:
        return Stream(source, LocalExecutor(), self._config)

    def _scale(self) -> None:
        """Scale the columns by the first rows."""
        stream = self._stream(self.task.inputs.source)
        problem: ModelProblem = with_target_mean(self.task.problem, stream)
        self._moments = column_moments(self.task, stream) if problem.needs_moments else None
        self.problem = self._scaled(problem)

    def _scaled(self, problem: ModelProblem) -> ModelProblem:
        return problem if self._moments is None else problem.scaled_by(self._moments)

    def _start(self) -> State:
        """Return the state before the first row."""
        stream, seed = self._stream(self.task.inputs.source), self.task.settings.seed
        state = begin(self._solver, self.problem, stream, self.problem.initial(seed))
        memory = {name: value for name, value in state.memory.items() if name != "starts"}
        memory |= {"first eta0": memory["eta0"], "updates before": 0, "lowered at": -1}
        self.record.learning_rate = state.rate
        return replace(state, memory=memory, note="")

    def restore(self, state: State, base: State | None) -> None:
        """Go on from the states that a checkpoint has."""
        self.state, self.base = state, state if base is None else base

    def _problem_at(self, row: int) -> ModelProblem:
        """Return the problem at a row: its penalty is that of a fit to about the rows before it.

        The number of rows is a power of two in windows, so that it seldom changes.
        """
        problem, first, windows = self.problem, self.task.problem, row // self.window
        rows = self.window << max(0, windows.bit_length() - 1)
        if rows <= first.n_rows:
            return problem
        weight = rows * (first.total_weight / first.n_rows)
        changed = problem_of(self.task, rows, weight)
        if isinstance(changed, LinearProblem) and isinstance(problem, LinearProblem):
            return replace(changed, scaling=problem.scaling, target_mean=problem.target_mean)
        return self._scaled(changed)

    @property
    def updates(self) -> int:
        """Updates of the parameters so far."""
        memory = self.state.memory
        return int(memory["updates before"]) + int(memory["replicas"][0]["counters"][1])

    def learn(self, source: StoreSource, stop: int) -> None:
        """Learn from some rows of a store, for about a second, up to row `stop`.

        Parameters
        ----------
        source : StoreSource
            The rows.
        stop : int
            A multiple of `step`, beyond the rows so far.

        Raises
        ------
        Diverged
            If the loss or a parameter is not finite, or the loss far above that without learning,
            and the rate may not be lowered further.
        """
        first, end = self.record.rows, self._end(stop)
        several, started = end - first > self.window, perf_counter()
        try:
            problem = self._problem_at(first)
            after, steps, windows = self._scan(problem, self.state, source, first, end)
            suspicious = self.record.has_jumped(windows) or self._was_lowered
            if suspicious and several:
                self._careful_until = end
                return
            if suspicious and len(windows):
                self._require_gain(problem, source, windows[0], end)
            if self._replays(end):
                after = self._replayed(problem, after, source, end)
        except Diverged as error:
            if several:
                self._careful_until = end
            else:
                self._lower(source, error)
            return
        restarts = self._settings.rate_after_drift is not None
        if several and restarts and self.record.would_drift(windows[:-1]):
            self._careful_until = end
            return
        self._accept(after, steps, windows, end)
        speed = (end - first) / (perf_counter() - started)
        self._rows_of_call = min(4 * self._rows_of_call, _SECONDS * speed, _MOST_ROWS)

    def _end(self, stop: int) -> int:
        """Return the row up to which the next call learns."""
        row, window = self.record.rows, self.window
        number = row // window
        if row % window or row < self._careful_until or stop < (number + 1) * window:
            return min(stop, (number + 1) * window)
        most = max(1, int(self._rows_of_call) // window)
        if every := self._settings.replay_every:
            most = min(most, every - number % every)
        # The penalty changes at powers of two.
        most = min(most, (1 << number.bit_length()) - number)
        return min(stop // window, number + most) * window

    def _scan(
        self, problem: ModelProblem, state: State, source: StoreSource, first: int, stop: int
    ) -> tuple[State, list[tuple[int, int, float]], NDArray[np.float64]]:
        """Return the state after the rows from `first` to `stop`, and of windows that ended there.

        Of each window: its stop row, the updates of the state then, and the rate of the last; and
        in an array its loss and weight, as sums over its rows.
        """
        request: Any = self._solver.ask(problem, source, state)
        (replica,) = state.memory["replicas"]
        own, windows, model = self._scanned(request.scan, replica, source, first, stop)
        if not (np.isfinite(own["theta"]).all() and np.isfinite(model).all()):
            raise Diverged("a parameter is not finite; use a smaller learning rate")

        def rate(updates: int) -> float:
            known = own.get("own rate")
            return request.scan.rate(max(0, updates - 1)) if known is None else float(known[0])

        updates, steps = int(own["counters"][1]), []
        for number in range(first // self.window + 1, stop // self.window + 1):
            row = number * self.window
            done = updates - (stop - row) // self._solver.batch_size
            steps.append((row, done, rate(done)))
        memory = {**state.memory, "replicas": (own,)}
        after = replace(state, params=model, rate=rate(updates), memory=memory)
        return after, steps, windows

    def _scanned(
        self, updates: UpdatesOfProblem, replica: Sums, source: StoreSource, first: int, stop: int
    ) -> tuple[Sums, NDArray[np.float64], NDArray[np.float64]]:
        """Return the state of updates after the rows, the sums of windows, and the model."""
        rows = source.first_rows(stop)
        scan = WindowedUpdates(updates, first, self.window, self.step)
        replica = scan.started(replica, stop)
        begun = PartialPass(first // rows.partition_rows, 0, states=(replica,))
        stream = self._stream(rows)
        (replica,) = stream.scan(scan, [replica], seed=None, epoch=0, shuffle_chunks=1, begun=begun)
        self.timings += stream.timings
        return scan.ended(replica)

    @property
    def _was_lowered(self) -> bool:
        """Whether the learning rate was lowered for the window under way."""
        return int(self.base.memory["lowered at"]) == self.record.rows // self.window

    def _require_gain(
        self, problem: ModelProblem, source: StoreSource, sums: NDArray[np.float64], end: int
    ) -> None:
        """Raise `Diverged` if the model of a window's begin, kept as it was, had far less loss.

        Else the rows are to blame, not the learning rate.
        """
        memory = {**self.base.memory, "eta0": _NO_RATE}
        request: Any = self._solver.ask(problem, source, replace(self.base, memory=memory))
        replica, first = request.scan.start(self.base.params), end - self.window
        _, windows, _ = self._scanned(request.scan, replica, source, first, end)
        loss, kept = sums[0] / sums[1], windows[0, 0] / windows[0, 1]
        if not loss <= _WORSE * kept:
            raise Diverged(
                f"the loss of the rows {first:,} to {end:,} is {loss:.4g}, and {kept:.4g} without "
                f"learning from them: the learning rate of {self.base.memory['eta0']:.3g} is too "
                'large; use learning_rate="auto" or a smaller one'
            )

    def _accept(
        self,
        after: State,
        steps: Sequence[tuple[int, int, float]],
        windows: NDArray[np.float64],
        end: int,
    ) -> None:
        """Take over the state after some rows, and tell of the windows that ended."""
        before, news = int(after.memory["updates before"]), list[Stepped | str]()
        self.state, self.record.rows = after, end
        for (row, updates, rate), sums in zip(steps, windows, strict=True):
            loss, drifts = self.record.add(sums)
            if loss is not None:
                step = Stepped(
                    row // self.window,
                    row / self.task.problem.n_rows,
                    before + updates,
                    self.record.decayed_loss,
                    None,
                    self.record.seconds,
                    rate,
                    progressive_loss=loss,
                )
                self.record.steps.add(step)
                news.append(step)
            if drifts:
                news.append(self.record.note_drift(row))
                if row == end and self._settings.rate_after_drift is not None:
                    news.append(self._restarted(self._settings.rate_after_drift))
        if end % self.window == 0:
            self.base = self.state
        for each in news:  # last, since a callback may raise anything
            self._announce(each)

    def _restarted(self, factor: float) -> str:
        """Begin the schedule of rates and the average anew; return the note."""
        state, memory = self.state, dict(self.state.memory)
        memory["eta0"] = factor * LOWER ** memory["lowered"] * memory["first eta0"]
        memory["updates before"] = self.updates
        (replica,) = memory["replicas"]
        request: Any = self._solver.ask(self.problem, self.task.inputs.source, state)
        memory["replicas"] = (request.scan.start(replica["theta"]),)
        self.state = replace(state, memory=memory, params=replica["theta"])
        return f"the learning rate begins anew at {memory['eta0']:.4g}"

    def _replays(self, row: int) -> bool:
        """Whether an old window is learned from again after the one that ends at a row."""
        every, number = self._settings.replay_every, row // self.window
        return bool(every) and row % self.window == 0 and number % every == 0 and number > 1

    def _replayed(
        self, problem: ModelProblem, state: State, source: StoreSource, row: int
    ) -> State:
        """Return the state after an old window, drawn by the seed and the row."""
        number = row // self.window
        drawn = np.random.default_rng((self.task.settings.seed, number)).integers(number - 1)
        first = int(drawn) * self.window
        return self._scan(problem, state, source, first, first + self.window)[0]

    def _lower(self, source: StoreSource, error: Diverged) -> None:
        """Go back to the begin of the window, at a lower learning rate; raise if there is none."""
        row, before = self.record.rows // self.window * self.window, self.base
        after = after_divergence(self._solver, self.problem, self._stream(source), before, error)
        memory, eta0 = dict(after.memory), before.memory["eta0"]
        memory |= {"updates before": before.memory["updates before"]}
        memory["lowered at"] = row // self.window
        self.state = self.base = replace(after, note="", memory=memory)
        self.record.rows = row
        note = (
            f"the learning rate {eta0:.4g} is too large for rows after row {row:,}: they are "
            f"learned from again at {memory['eta0']:.4g}"
        )
        self.record.notes[note] = None
        self._announce(note)
