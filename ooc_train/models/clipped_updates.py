"""Updates by clipped gradients of sampled rows and noise: DP-SGD."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

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
from ooc_train.models.problem import UpdatesOfProblem
from ooc_train.objective.loss import Loss, raise_if_outside

_PIECE = 1024
"""Most rows of a batch that are converted to float64 at a time."""

_COPIES = 12
"""Sets of parameters that an update makes: noise, a step, and the state after it."""

_TAG = 0x70726976
"""Sets the generators of updates apart from those of the order of rows, of the same seed."""


class ClippedProblem(Protocol):
    """A problem that clips the gradient of each row."""

    @property
    def loss(self) -> Loss:
        """The loss of a row."""

    @property
    def n_features(self) -> int:
        """Number of columns of the data."""

    @property
    def n_parameters(self) -> int:
        """Number of parameters."""

    @property
    def total_weight(self) -> float:
        """Sum of the rows' weights."""

    def penalty_gradient(self, params: Array) -> Array:
        """Return the gradient of the penalty without l1, in units of the sum of losses."""

    def clipped_bytes(self, rows: int) -> int:
        """Return the bytes that `clipped_gradient` allocates for so many rows."""

    def clipped_gradient(self, params: Array, X: Array, y: Array, max_norm: float) -> Array:
        """Return the sum of the rows' gradients, each scaled down to a norm; NaN if one has none.

        Parameters
        ----------
        X : float64 array (rows, features)
        y : float64 array (rows, outputs), or codes of classes (rows, 1)
        """

    def without_frozen(self, gradient: Array) -> None:
        """Set derivatives by parameters that are not learned to 0, in place."""


@dataclass(frozen=True, eq=False)
class ClippedUpdates:
    """Updates by batches that are sampled from each block of rows.

    A block of m rows has about ``m / batch_size`` updates, at least one. In each of them every row
    takes part with probability `share`, independently (Poisson sampling).

    Attributes
    ----------
    problem : ClippedProblem
        The problem whose parameters are updated.
    updates : UpdatesOfProblem
        What makes a step of a gradient.
    batch_size : int
        Expected rows of a batch.
    share : float
        Probability that a row of the block takes part in an update.
    max_norm : float
        The largest norm of the gradient of a row, by all parameters.
    deviation : float
        Deviation of the noise in each entry of the sum of a batch.
    seed : int
        Each update has a generator of its own, by this seed and the number of the update.
    """

    problem: ClippedProblem
    updates: UpdatesOfProblem
    batch_size: int
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
        """Return the scratch array of a learner: rows in float64."""
        return {"rows": ArraySpec((min(rows, _PIECE), self.problem.n_features))}

    def made_bytes(self, rows: int) -> int:
        """Return the bytes of the arrays that an update makes, for blocks of `rows` rows."""
        piece, problem = min(rows, _PIECE), self.problem
        made = 8 * piece * (problem.n_features + 1) + problem.clipped_bytes(piece)
        return made + 8 * (2 * rows + _COPIES * problem.n_parameters)

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
            for _ in range(updates_of(block.n_rows, self.batch_size)):
                self._update(state, block, workspace["rows"])

        yield learn

    def finish(self, state: Sums, workspace: Arrays) -> None:
        """Leave the state as it is: no batch goes on in another block."""
        del state, workspace

    def average(self, before: Sequence[Sums], after: Sequence[Sums]) -> None:
        """Raise `ValueError`: one replica learns."""
        del before, after
        raise ValueError("private updates have one replica")

    def _update(self, state: Sums, block: Block, workspace: Array) -> None:
        """Sample a batch, and take a step by its noisy sum, in place."""
        problem, params = self.problem, state["theta"]
        rng = np.random.default_rng((self.seed, int(state["counters"][1]), _TAG))
        count = rng.binomial(block.n_rows, self.share)
        taken = np.sort(rng.choice(block.n_rows, count, replace=False, shuffle=False))
        gradient = rng.normal(0.0, self.deviation, params.shape)
        for first in range(0, count, _PIECE):
            rows = taken[first : first + _PIECE]
            gradient += self._clipped(params, block, rows, workspace[: len(rows)])
        gradient /= self.batch_size
        gradient += problem.penalty_gradient(params) / problem.total_weight
        problem.without_frozen(gradient)
        n_rows = state["counters"][2] + count
        for name, array in self.updates.step_by_all_rows(state, gradient).items():
            state[name][...] = array
        state["counters"][2] = n_rows

    def _clipped(self, params: Array, block: Block, taken: NDArray[np.int64], out: Array) -> Array:
        """Return the sum of the clipped gradients of some rows of a block."""
        if block.y is None:
            raise ValueError("a loss needs y, and these data have none")
        out[...] = block.X[taken]
        found = self.problem.clipped_gradient(params, out, block.y[taken], self.max_norm)
        if not np.isfinite(found).all():
            raise_if_not_finite(block)
            raise_if_outside(self.problem.loss, block)
            raise Diverged("the gradient of a row is no number; use a smaller learning rate")
        return found


def updates_of(rows: int, batch_size: int) -> int:
    """Return the number of updates that a block of so many rows has."""
    return max(1, round(rows / batch_size))
