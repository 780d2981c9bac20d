"""Updates by rows from some row of the data on, whose losses are added up window by window."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import Arrays, Block, Sums, Workspace
from ooc_train.models.problem import UpdatesOfProblem

_WINDOWS = "windows"
"""The array of the state with loss and weight of each window that ended, (windows, 2)."""

_MODEL = "model"
"""The array of the state with the parameters of the model after the last row."""


@dataclass(frozen=True, eq=False)
class WindowedUpdates:
    """A scan in stored order that goes on within a chunk; each row is scored before it is learned.

    Attributes
    ----------
    updates : UpdatesOfProblem
        What learns from the rows.
    first : int
        Row of the data to begin from. Rows before it, in its chunk, were learned from earlier.
    window : int
        Rows of a window, a multiple of `step`. Windows begin at multiples of it.
    step : int
        Calls of the learner begin at multiples of so many rows, or at the first row of a chunk.
    """

    updates: UpdatesOfProblem
    first: int
    window: int
    step: int

    def started(self, state: Sums, stop: int) -> Sums:
        """Return a state of the updates for a scan to row `stop`, with room for its windows."""
        ended = stop // self.window - self.first // self.window
        return state | {_WINDOWS: np.zeros((ended, 2))}

    @staticmethod
    def ended(state: Sums) -> tuple[Sums, NDArray[np.float64], NDArray[np.float64]]:
        """Return the state of the updates after a scan, its windows, and the model."""
        own = {name: array for name, array in state.items() if name not in (_WINDOWS, _MODEL)}
        return own, state[_WINDOWS], state[_MODEL]

    def workspace(self, rows: int) -> Workspace:
        """Return the arrays that a learner works in."""
        return self.updates.workspace(rows)

    def made_bytes(self, rows: int) -> int:
        """Return the bytes that a learner allocates beside its workspace."""
        return self.updates.made_bytes(rows)

    @contextmanager
    def learner(
        self, state: Sums, workspace: Arrays, threads: int = 1
    ) -> Iterator[Callable[[Block, NDArray[np.int64]], None]]:
        """Return a context whose function learns from a block of consecutive rows."""
        own = {name: array for name, array in state.items() if name != _WINDOWS}
        sums, windows = own["sums"], state[_WINDOWS]
        begun = self.first // self.window
        with self.updates.learner(own, workspace, threads) as learn:

            def learn_in_windows(block: Block, order: NDArray[np.int64]) -> None:
                row = block.row_number(0)
                order = order[max(0, self.first - row) :]
                row = max(row, self.first)
                while len(order):
                    # Kernels round by the place of a row in its call, so calls are always the same.
                    most = -row % self.step or self.window
                    part = order[: min(most, self.window - row % self.window)]
                    learn(block, part)
                    order, row = order[len(part) :], row + len(part)
                    if row % self.window == 0:
                        windows[row // self.window - 1 - begun] = sums
                        sums[...] = 0.0

            yield learn_in_windows
        state.update(own)

    def finish(self, state: Sums, workspace: Arrays) -> None:
        """Add the model to the state, as at the end of an epoch; the updates go on without it."""
        last = {name: array.copy() for name, array in state.items() if name != _WINDOWS}
        self.updates.finish(last, workspace)
        state[_MODEL] = last["average"]

    def average(self, before: Sequence[Sums], after: Sequence[Sums]) -> None:
        """Replace the states of replicas by their mean, in place."""
        self.updates.average(before, after)
