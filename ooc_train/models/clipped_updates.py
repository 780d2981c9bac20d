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
    Block,
    Sums,
    Workspace,
    raise_if_not_finite,
)
from ooc_train.core.thread_team import ThreadTeam
from ooc_train.errors import Diverged
from ooc_train.kernels.specs import KernelSpec
from ooc_train.models.problem import UpdatesOfProblem
from ooc_train.objective.loss import Loss, raise_if_outside
from ooc_train.optimizers.rate_table import RateTable
from ooc_train.optimizers.schedule import Schedule

_COPIES = 12
"""Sets of parameters that an update makes: noise, a step, and the state after it."""

_TAG = 0x70726976
"""Sets the generators of updates apart from those of the order of rows, of the same seed."""


class Clipping(Protocol):
    """Sums of the gradients of rows, each scaled down to a norm."""

    @property
    def needs(self) -> tuple[KernelSpec, ...]:
        """Kernels that every process loads before memory is measured."""

    def workspace(self) -> Workspace:
        """Return the scratch arrays of `add`."""

    def add(
        self,
        params: Array,
        block: Block,
        taken: NDArray[np.int64],
        workspace: Arrays,
        team: ThreadTeam,
        out: Array,
    ) -> None:
        """Add the clipped gradients of the rows `taken` of a block to `out`; NaN if one has none.

        `out` is a float64 array of the shape of the parameters. Threads of the team may help, and
        change no bit.
        """


class ClippedProblem(Protocol):
    """A problem that clips the gradient of each row."""

    @property
    def loss(self) -> Loss:
        """The loss of a row."""

    @property
    def n_parameters(self) -> int:
        """Number of parameters."""

    @property
    def total_weight(self) -> float:
        """Sum of the rows' weights."""

    def penalty_gradient(self, params: Array) -> Array:
        """Return the gradient of the penalty without l1, in units of the sum of losses."""

    def clipping(self, dtype: str, batch_size: int, max_norm: float) -> Clipping:
        """Return the sums of the gradients of rows of X of a type, each scaled down to a norm."""

    def without_frozen(self, gradient: Array) -> None:
        """Set derivatives by parameters that are not learned to 0, in place."""


class StepsByGradients(UpdatesOfProblem, Protocol):
    """A scan that takes steps by gradients that others made.

    Its schedule says which share of `eta0` the learning rate is after so many updates.
    """

    @property
    def schedule(self) -> Schedule:
        """How the learning rate changes."""

    @property
    def eta0(self) -> float:
        """The learning rate that the schedule scales."""

    @property
    def horizon(self) -> float:
        """Planned number of updates; infinity if unknown."""

    def step_by_gradient(self, state: Sums, gradient: Array, eta: float) -> None:
        """Update `state` by the gradient of a mean objective at a learning rate, in place."""


@dataclass(frozen=True, eq=False)
class ClippedUpdates:
    """Updates by batches that are sampled from each block of rows.

    A block of m rows has about ``m / batch_size`` updates, at least one. In each of them every row
    takes part with probability `share`, independently (Poisson sampling).

    Attributes
    ----------
    problem : ClippedProblem
        The problem whose parameters are updated.
    updates : StepsByGradients
        What makes a step of a gradient.
    dtype : str
        Type of X, "<f4" or "<f8".
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
    updates: StepsByGradients
    dtype: str
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

    @property
    def _clipping(self) -> Clipping:
        return self.problem.clipping(self.dtype, self.batch_size, self.max_norm)

    @property
    def needs(self) -> tuple[KernelSpec, ...]:
        """Kernels that every process loads before memory is measured."""
        return self._clipping.needs

    def workspace(self, rows: int) -> Workspace:
        """Return the scratch arrays of a learner, which are those of one batch at a time."""
        del rows
        return self._clipping.workspace()

    def made_bytes(self, rows: int) -> int:
        """Return the bytes of the arrays that an update makes, for blocks of `rows` rows."""
        return 8 * (3 * rows + _COPIES * self.problem.n_parameters)

    @contextmanager
    def learner(
        self, state: Sums, workspace: Arrays, threads: int = 1
    ) -> Iterator[Callable[[Block, NDArray[np.int64]], None]]:
        """Return a context whose function updates `state` by the rows of a block.

        The order of the rows has no effect. The function raises `NonFiniteData` if a sampled row
        holds NaN or infinity, `Diverged` if a gradient is not finite though the data are, and
        `ValueError` if rows have weights.
        """
        clipping, table = self._clipping, RateTable(self._rates)
        with ThreadTeam(threads) as team:

            def learn(block: Block, order: NDArray[np.int64]) -> None:
                del order
                if block.weight is not None:
                    raise ValueError(
                        "sample_weight with differential privacy: a row of a larger weight would "
                        "count more than one row; leave it out"
                    )
                for _ in range(updates_of(block.n_rows, self.batch_size)):
                    t = int(state["counters"][1])
                    table.cover(t, 1)
                    eta = float(table.rates[t % len(table.rates)])
                    rng = np.random.default_rng((self.seed, t, _TAG))
                    count = rng.binomial(block.n_rows, self.share)
                    taken = rng.choice(block.n_rows, count, replace=False, shuffle=False)
                    taken.sort()
                    gradient = rng.normal(0.0, self.deviation, state["theta"].shape)
                    clipping.add(state["theta"], block, taken, workspace, team, gradient)
                    if not np.isfinite(gradient).all():
                        self._raise_for(block)
                    self._step(state, gradient, eta)
                    state["counters"][2] += count

            yield learn

    def finish(self, state: Sums, workspace: Arrays) -> None:
        """Leave the state as it is: no batch goes on in another block."""
        del state, workspace

    def average(self, before: Sequence[Sums], after: Sequence[Sums]) -> None:
        """Raise `ValueError`: one replica learns."""
        del before, after
        raise ValueError("private updates have one replica")

    def _rates(self, t: Array) -> Array:
        return self.updates.schedule.rate(t, self.updates.eta0, self.updates.horizon)

    def _step(self, state: Sums, gradient: Array, eta: float) -> None:
        """Take a step by the noisy sum of a batch, in place."""
        problem = self.problem
        gradient /= self.batch_size
        gradient += problem.penalty_gradient(state["theta"]) / problem.total_weight
        problem.without_frozen(gradient)
        self.updates.step_by_gradient(state, gradient, eta)

    def _raise_for(self, block: Block) -> None:
        """Raise the error of a block whose gradients are not finite."""
        raise_if_not_finite(block)
        raise_if_outside(self.problem.loss, block)
        raise Diverged("the gradient of a row is no number; use a smaller learning rate")


def updates_of(rows: int, batch_size: int) -> int:
    """Return the number of updates that a block of so many rows has."""
    return max(1, round(rows / batch_size))
