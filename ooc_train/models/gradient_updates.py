"""Updates of any problem whose blocks have a gradient, in NumPy.

A batch may lie in several blocks: the gradient of an unfinished batch waits in the state for the
next block. The model is the average of the parameters over the updates, by weights that grow with
the power `AVERAGE_POWER` of the update's number.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
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
    weighted,
)
from ooc_train.core.text import counted
from ooc_train.errors import Diverged
from ooc_train.kernels.layout import AGE
from ooc_train.optimizers.averaging import add_to_average, average_replicas
from ooc_train.optimizers.optimizer import Optimizer
from ooc_train.optimizers.rate_table import update_of_rate
from ooc_train.optimizers.schedule import Schedule


class BlockGradient(Protocol):
    """A problem that computes loss and gradient of a block of rows."""

    @property
    def n_rows(self) -> int:
        """Number of rows of the data."""

    @property
    def total_weight(self) -> float:
        """Sum of the rows' weights."""

    @property
    def class_weight(self) -> Array | None:
        """Factor of a row's weight by the code of its class; None where all are 1."""

    def penalty_gradient(self, params: Array) -> Array:
        """Return the gradient of the penalty, in units of the sum of losses."""

    @property
    def n_parameters(self) -> int:
        """Number of parameters."""

    def block_bytes(self, rows: int) -> int:
        """Return the most bytes that `block_gradient` allocates for a block of `rows` rows."""

    def raise_if_invalid(self, block: Block) -> None:
        """If invalid data make a loss non-finite, raise an error that names the row."""

    def block_gradient(self, params: Array, block: Block) -> tuple[float, Array]:
        """Return the weighted sum of the losses of a block's rows, and the gradient of that sum."""


def mask_key(params: Array) -> int:
    """Return the key of a run's random masks, a checksum of its initial parameters."""
    return zlib.crc32(params.tobytes())


@dataclass(frozen=True, eq=False)
class GradientUpdates:
    """Updates by batches, for a problem that computes its gradient on a block of rows.

    Attributes
    ----------
    problem : BlockGradient
        The problem whose parameters are updated.
    batch_size : int
        Rows per update.
    optimizer : Optimizer
        How a gradient becomes a step.
    schedule : Schedule
        Which share of `eta0` the learning rate is after so many updates.
    eta0 : float
        The learning rate that the schedule scales.
    horizon : float
        Planned number of updates; infinity if unknown.
    """

    problem: BlockGradient
    batch_size: int
    optimizer: Optimizer
    schedule: Schedule
    eta0: float
    horizon: float = inf

    def start(self, params: Array) -> Sums:
        """Return the state of a replica before its first row."""
        return {
            "theta": params.copy(),
            "average": params.copy(),
            "slots": np.zeros((len(self.optimizer.slot_powers), *params.shape)),
            "partial": np.zeros(params.shape),
            "counters": np.zeros(3, np.int64),
            "clock": np.zeros(2),
            "sums": np.zeros(2),
        }

    def rate(self, t: int) -> float:
        """Return the learning rate after t updates."""
        return float(self.schedule.rate(float(update_of_rate(t)), self.eta0, self.horizon))

    def workspace(self, rows: int) -> Workspace:
        """Return a workspace of one empty array: the problem allocates its own arrays."""
        del rows
        return {"nothing": ArraySpec((0,))}

    def made_bytes(self, rows: int) -> int:
        """Return the bytes that the gradient of a batch and a step allocate."""
        rows, params = min(rows, self.batch_size), 8 * self.problem.n_parameters
        return self.problem.block_bytes(rows) + 6 * params

    @contextmanager
    def learner(
        self, state: Sums, workspace: Arrays, threads: int = 1
    ) -> Iterator[Callable[[Block, NDArray[np.int64]], None]]:
        """Return a context whose function updates `state` by rows of a block, in given order.

        The function raises `NonFiniteData` if a row holds NaN or infinity, and `Diverged` if a loss
        or gradient is not finite though the data are.
        """
        del workspace, threads

        def learn(block: Block, order: NDArray[np.int64]) -> None:
            start, counters = 0, state["counters"]
            block = weighted(block, self.problem.class_weight)
            while start < len(order):
                rows = order[start : start + self.batch_size - int(counters[0])]
                part = Block(
                    block.X[rows],
                    None if block.y is None else block.y[rows],
                    None if block.weight is None else block.weight[rows],
                )
                loss, gradient = self.problem.block_gradient(state["theta"], part)
                if not np.isfinite(loss) or not np.isfinite(gradient).all():
                    self.problem.raise_if_invalid(block)
                    raise Diverged(
                        f"a loss is no number after {counted(counters[1], 'update')}, but the data "
                        "are "
                        f"finite: the learning rate of {self.eta0:.3g} is too large; use a smaller "
                        "one"
                    )
                weight = len(rows) if part.weight is None else float(part.weight.sum())
                state["sums"] += loss, weight
                state["partial"] += gradient
                counters[0] += len(rows)
                counters[2] += len(rows)
                start += len(rows)
                if counters[0] == self.batch_size:
                    self._step(state)

        yield learn

    def finish(self, state: Sums, workspace: Arrays) -> None:
        """Update the parameters by the incomplete last batch, in proportion to its rows."""
        del workspace
        if state["counters"][0]:
            self._step(state)

    def _step(self, state: Sums) -> None:
        """Update the parameters by the gradient sum of the batch in `state`, in place."""
        rows = int(state["counters"][0])
        mean_weight = self.problem.total_weight / self.problem.n_rows
        gradient = state["partial"] / (rows * mean_weight)
        gradient += self.problem.penalty_gradient(state["theta"]) / self.problem.total_weight
        part = rows / self.batch_size
        self._update(state, gradient, part, part * self.rate(int(state["counters"][1])))
        state["partial"][...] = 0.0
        state["counters"][0] = 0

    def _update(self, state: Sums, gradient: Array, part: float, eta: float) -> None:
        """Update `state` by the gradient of a mean objective, in place."""
        state["clock"][AGE] += part
        scalars = self.optimizer.prepare(float(state["clock"][AGE]), part)
        left = self.optimizer.retained(eta) * state["theta"]
        gradient = self.optimizer.clipped(gradient)
        params, *slots = self.optimizer.step(left, gradient, eta, scalars, *state["slots"])
        state["theta"][...] = params
        for i, slot in enumerate(slots):
            state["slots"][i] = slot
        state["counters"][1] += 1
        add_to_average(state["average"], state["theta"], float(state["counters"][1]))

    def step_by_gradient(self, state: Sums, gradient: Array, eta: float) -> None:
        """Update `state` by the gradient of a mean objective at a learning rate, in place."""
        self._update(state, gradient, 1.0, eta)

    def step_by_all_rows(self, state: Sums, gradient: Array) -> Sums:
        """Return the state after a step by the gradient of the mean objective of all rows."""
        after = {name: array.copy() for name, array in state.items()}
        self.step_by_gradient(after, gradient, self.rate(int(after["counters"][1])))
        after["counters"][2] += self.problem.n_rows
        return after

    def average(self, before: Sequence[Sums], after: Sequence[Sums]) -> None:
        """Replace the states of replicas by their mean, in place."""
        average_replicas(before, after)
