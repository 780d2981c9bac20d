"""Updates of a linear model by clipped gradients of sampled rows and noise: DP-SGD.

The gradient of a row by the parameters is the product of the slopes of its loss and the row. So its
norm is the product of two norms, and clipping is one factor for each row.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import (
    Array,
    Arrays,
    ArraySpec,
    Block,
    Sums,
    Workspace,
    raise_if_not_finite,
)
from ooc_train.errors import Diverged
from ooc_train.models.linear_updates import LinearUpdates
from ooc_train.objective.loss import raise_if_outside

_PIECE = 1024
"""Most rows of a batch that are converted to float64 at a time."""

_TAG = 0x70726976
"""Sets the generators of updates apart from those of the order of rows, of the same seed."""


@dataclass(frozen=True, eq=False)
class ClippedUpdates:
    """Updates by batches that are sampled from each block of rows.

    A block of m rows has about ``m / batch_size`` updates, at least one. In each of them every row
    takes part with probability `share`, independently (Poisson sampling).

    Attributes
    ----------
    updates : LinearUpdates
        What makes a step of a gradient.
    share : float
        Probability that a row of the block takes part in an update.
    max_norm : float
        The largest norm of the gradient of a row, by all parameters.
    deviation : float
        Deviation of the noise in each entry of the sum of a batch.
    seed : int
        Each update has a generator of its own, by this seed and the number of the update.
    """

    updates: LinearUpdates
    share: float
    max_norm: float
    deviation: float
    seed: int

    def start(self, theta: Array) -> Sums:
        """Return the state before the first row."""
        return self.updates.start(theta)

    def rate(self, t: int) -> float:
        """Return the learning rate after t updates."""
        return self.updates.rate(t)

    def workspace(self, rows: int) -> Workspace:
        """Return the scratch arrays of a learner: rows with a one at the end, and a gradient."""
        outputs, columns = self.updates.problem.shape
        return {
            "rows": ArraySpec((min(rows, _PIECE), columns)),
            "gradient": ArraySpec((outputs, columns)),
        }

    def made_bytes(self, rows: int) -> int:
        """Return the bytes of the arrays that an update makes, for blocks of `rows` rows."""
        outputs, columns = self.updates.problem.shape
        slots = len(self.updates.optimizer.slot_powers)
        piece = min(rows, _PIECE) * (2 * columns + 8 * outputs + 4)
        return 8 * (2 * rows + piece + (8 + 3 * slots) * outputs * columns)

    @contextmanager
    def learner(
        self, state: Sums, workspace: Arrays, threads: int = 1
    ) -> Iterator[Callable[[Block, NDArray[np.int64]], None]]:
        """Return a context whose function updates `state` by the rows of a block.

        The order of the rows has no effect. The function raises `NonFiniteData` if a sampled row
        holds NaN or infinity, `Diverged` if a gradient is not finite though the data are, and
        `ValueError` if rows have weights.
        """
        del threads

        def learn(block: Block, order: NDArray[np.int64]) -> None:
            del order
            if block.weight is not None:
                raise ValueError(
                    "sample_weight with differential privacy: a row of a larger weight would count "
                    "more than one row; leave it out"
                )
            for _ in range(updates_of(block.n_rows, self.updates.batch_size)):
                self._update(state, block, workspace)

        yield learn

    def finish(self, state: Sums, workspace: Arrays) -> None:
        """Leave the state as it is: no batch goes on in another block."""
        del state, workspace

    def average(self, before: Sequence[Sums], after: Sequence[Sums]) -> None:
        """Raise `ValueError`: one replica learns."""
        del before, after
        raise ValueError("private updates have one replica")

    def _update(self, state: Sums, block: Block, workspace: Arrays) -> None:
        """Sample a batch, and take a step by its noisy sum, in place."""
        problem, theta = self.updates.problem, state["theta"]
        number = int(state["counters"][1])
        rng = np.random.default_rng((self.seed, number, _TAG))
        count = rng.binomial(block.n_rows, self.share)
        taken = np.sort(rng.choice(block.n_rows, count, replace=False, shuffle=False))
        gradient = workspace["gradient"]
        gradient[...] = 0.0
        for first in range(0, count, _PIECE):
            self._add_clipped(gradient, theta, block, taken[first : first + _PIECE], workspace)
        gradient += rng.normal(0.0, self.deviation, gradient.shape)
        gradient /= self.updates.batch_size
        gradient += problem.theta_penalty.gradient(theta) / problem.total_weight
        if not problem.fit_intercept:
            gradient[:, -1] = 0.0
        rows = state["counters"][2] + count
        for name, array in self.updates.step_by_all_rows(state, gradient).items():
            state[name][...] = array
        state["counters"][2] = rows

    def _add_clipped(
        self,
        gradient: Array,
        theta: Array,
        block: Block,
        taken: NDArray[np.int64],
        workspace: Arrays,
    ) -> None:
        """Add the clipped gradients of some rows of a block to `gradient`, in place."""
        problem = self.updates.problem
        if block.y is None:
            raise ValueError("a loss needs y, and these data have none")
        rows = workspace["rows"][: len(taken)]
        rows[:, :-1] = block.X[taken]
        rows[:, -1] = 1.0 if problem.fit_intercept else 0.0
        with np.errstate(over="ignore", invalid="ignore"):
            due = problem.loss.targets(block.y[taken], problem.n_outputs)
            slopes = problem.loss.slope(due, rows @ theta.T)
            norms = np.sqrt(np.einsum("ij,ij->i", slopes, slopes))
            norms *= np.sqrt(np.einsum("ij,ij->i", rows, rows))
        if not np.isfinite(norms).all():
            raise_if_not_finite(block)
            raise_if_outside(problem.loss, block)
            raise Diverged("the gradient of a row is no number; use a smaller learning rate")
        slopes *= (self.max_norm / np.maximum(norms, self.max_norm))[:, np.newaxis]
        gradient += slopes.T @ rows


def updates_of(rows: int, batch_size: int) -> int:
    """Return the number of updates that a block of so many rows has."""
    return max(1, round(rows / batch_size))
