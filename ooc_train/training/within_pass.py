"""The loss within a pass, from what the pass has added up so far: no row is read for it.

Of a full-batch pass it is the mean loss of the rows so far. Of least squares it is that of the
model which the rows so far give. Of updates it is the mean loss of rows just before their update.
Metrics of the model so far stand beside it, of a sample that was read before (`sample_metrics`).
All of this takes less than 1 % of a run's seconds, but for runs that end within a second.
"""

from collections.abc import Callable
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np

from ooc_train.core.sums import Array, Sums
from ooc_train.kernels.layout import AVERAGED
from ooc_train.runs.history import LossPoint
from ooc_train.solvers.base import Solver, State
from ooc_train.solvers.coordinate_descent import CoordinateDescent
from ooc_train.solvers.private_updates import PrivateUpdates
from ooc_train.stream.partial_pass import PartialPass
from ooc_train.stream.passes import Stream
from ooc_train.training.sample_metrics import SampleMetrics
from ooc_train.training.task import Task

_SECONDS, _SHARE, _LEAST_SECONDS = 1.0, 0.02, 0.25
"""A loss is due after so many seconds, or after such a share of a pass and the least seconds."""

_REST = 200
"""The next loss comes after this many times the seconds that a loss took: at most 0.5 %."""

_SAMPLE_SECONDS, _SAMPLE_BYTES = 5.0, 4 * 2**30
"""The sample is read before the first pass that begins after so many seconds: to read it takes 20
to 50 ms. Of so many bytes of rows, whose first pass takes long, it is read before that pass."""

_MOST_COLUMNS = 512
"""Limit of columns up to which the equations of least squares are solved within a pass."""

_MOST_SWEEPS = 100


class WithinPass:
    """Finds the losses within the passes of one run.

    Parameters
    ----------
    task : Task
        The run's model, solver and data.
    stream : Stream
        The passes over the training rows.
    """

    def __init__(self, task: Task, stream: Stream) -> None:
        solver: Solver = task.solver
        if isinstance(solver, CoordinateDescent):
            solver = replace(solver, max_iter=min(solver.max_iter, _MOST_SWEEPS))
        self._solver, self._stream, self._rows = solver, stream, stream.source
        self._metrics: SampleMetrics | None = None
        if not isinstance(solver, PrivateUpdates):  # the loss of the rows is no one's to know
            self._metrics = SampleMetrics(task.model, task.problem, task.inputs)
        self._began = self._last = perf_counter()
        self._rest, self._rows_due = _LEAST_SECONDS, 0.0

    def begin(self, problem: Any, state: State) -> None:
        """Note the problem and the state that asks for the pass that follows."""
        if self._metrics is not None and self._is_long:
            self._metrics.read(self._stream)
        self._problem, self._state = problem, state
        self._seen = np.zeros(2)
        self._rows_due = 0.0

    @property
    def _is_long(self) -> bool:
        """Whether the run has taken so long, or will, that the sample costs it little."""
        rows = self._rows
        size = rows.n_rows * rows.n_features * np.dtype(rows.dtype).itemsize
        return size >= _SAMPLE_BYTES or perf_counter() - self._began >= _SAMPLE_SECONDS

    def look(
        self, progress: Callable[[], PartialPass], rows: int, seconds: float
    ) -> LossPoint | None:
        """Return the loss within the pass if one is due, after so many rows and seconds of a run.

        None if none is due, or if the pass adds up no loss.
        """
        now, n_rows = perf_counter(), self._rows.n_rows
        since = now - self._last
        if since < self._rest or (since < _SECONDS and rows < self._rows_due):
            return None
        part = progress()
        found = self._loss(part)
        metrics = {} if found is None else self._metrics_of(part)
        self._last, self._rows_due = now, rows + _SHARE * n_rows
        self._rest = max(_LEAST_SECONDS, _REST * (perf_counter() - now))
        if found is None or not np.isfinite(found[0]):
            return None
        return LossPoint(rows / n_rows, seconds, *found, metrics)

    def _metrics_of(self, part: PartialPass) -> dict[str, float]:
        """Return the metrics of the model so far, on the sample; nothing where there is none."""
        if self._metrics is None or not self._metrics.is_read:
            return {}
        params: Array | None = self._state.params if self._solved is None else self._solved
        if part.states:
            # In the middle of a task the average is there once it has an entry.
            state = part.states[0]
            params = None
            if not part.in_task or state["clock"][AVERAGED]:
                params = state["average"].copy()
        return {} if params is None else self._metrics.values(self._problem, params)

    def _loss(self, part: PartialPass) -> tuple[float, int] | None:
        """Return the loss, and the number of updates so far."""
        self._solved: Array | None = None
        if self._metrics is None:
            return None
        if part.states:
            seen = np.sum([state["sums"] for state in part.states], axis=0)
            (total, weight), self._seen = seen - self._seen, seen
            updates = sum(int(state["counters"][1]) for state in part.states)
            return (float(total / weight), updates) if weight > 0 else None
        # After updates, sums evaluate a sample, whose loss is that of the next step.
        if not part.added or self._state.progressive_loss is not None:
            return None
        nodes = list(part.added.values())
        if "gram" in nodes[0]:
            loss = self._least_squares(nodes)
            return None if loss is None else (loss, self._state.updates)
        # Of smoothed losses "exact" is the loss itself.
        name = "exact" if "exact" in nodes[0] else "loss"
        if name not in nodes[0]:
            return None
        weight = sum(float(sums["weight"]) for sums in nodes)
        total = sum(float(sums[name].flat[0]) for sums in nodes)
        return (total / weight, self._state.updates) if weight > 0 else None

    def _least_squares(self, nodes: list[Sums]) -> float | None:
        """Return the loss of the model that the rows so far give."""
        if self._state.phase or self._problem.n_features > _MOST_COLUMNS:
            return None
        sums = {name: np.sum([each[name] for each in nodes], axis=0) for name in nodes[0]}
        try:
            with np.errstate(all="ignore"):
                state = self._solver.tell(self._problem, self._rows, self._state, sums)
        except (ArithmeticError, ValueError):  # the rows so far may determine no model
            return None
        self._solved = state.params
        return state.loss
