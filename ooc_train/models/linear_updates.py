"""Updates of a linear model by batches of rows, as a scan with its state.

Every batch size, from one row to all rows, is the same scan. Rows add to the gradient of their
batch, and a full batch takes a step. A batch may lie in several chunks, and only its gradient is
held.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import (
    Array,
    Arrays,
    Block,
    Sums,
    Workspace,
    raise_if_not_finite,
    row_weights,
)
from ooc_train.errors import Diverged
from ooc_train.kernels.layout import AGE, AVERAGED, scan_workspace
from ooc_train.kernels.scan import Scan, ScanState, Updating, scan_needs
from ooc_train.kernels.specs import KernelSpec
from ooc_train.models.linear_objective import LinearObjective
from ooc_train.models.loss_sums import NO_WEIGHTS
from ooc_train.objective.loss import raise_if_outside
from ooc_train.optimizers.averaging import add_to_average, average_every, average_replicas
from ooc_train.optimizers.optimizer import Optimizer
from ooc_train.optimizers.rate_table import RateTable, update_of_rate
from ooc_train.optimizers.schedule import Schedule

_MOST_ROWS, _MOST_PREDICTORS = 4092, 2**15
"""Most rows of one call of a kernel, and most predictors; no bit depends on them."""

_QUADS = 12
"""Calls may end at multiples of this number of rows: quads of batches of 1 to 4 rows do."""


@dataclass(frozen=True, eq=False)
class LinearUpdates:
    """Updates of a linear model's parameters.

    Attributes
    ----------
    problem : LinearObjective
        The objective, which is divided by the mean weight of a row.
    dtype : str
        Type of X, "<f4" or "<f8".
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

    problem: LinearObjective
    dtype: str
    batch_size: int
    optimizer: Optimizer
    schedule: Schedule
    eta0: float
    horizon: float = inf

    def start(self, theta: Array) -> Sums:
        """Return the state of a replica before its first row."""
        return {
            "theta": theta.copy(),
            "slots": np.zeros((len(self.optimizer.slot_powers), *theta.shape)),
            "partial": np.zeros(theta.shape),
            "counters": np.zeros(3, np.int64),
            "average": theta.copy(),
            "clock": np.zeros(3),
            "sums": np.zeros(2),
        }

    def rate(self, t: int) -> float:
        """Return the learning rate after t updates."""
        return float(self._rates(float(update_of_rate(t))))

    def _rates(self, t: Array | float) -> Array:
        return self.schedule.rate(t, self.eta0, self.horizon)

    def workspace(self, rows: int) -> Workspace:
        """Return the scratch arrays of a learner, for blocks of at most `rows` rows."""
        features, outputs = self.problem.n_features, self.problem.n_outputs
        most = min(_MOST_ROWS, max(_QUADS, _MOST_PREDICTORS // outputs // _QUADS * _QUADS))
        return scan_workspace(min(rows, most), features, outputs)

    def made_bytes(self, rows: int) -> int:
        """Return 0: compiled loops allocate no arrays."""
        del rows
        return 0

    @property
    def needs(self) -> tuple[KernelSpec, ...]:
        """Kernels that every process loads before memory is measured."""
        problem = self.problem
        return scan_needs(
            problem.loss,
            self.optimizer,
            self.batch_size,
            problem.n_outputs,
            l1=not problem.theta_penalty.smooth,
        )

    @contextmanager
    def learner(
        self, state: Sums, workspace: Arrays, threads: int = 1
    ) -> Iterator[Callable[[Block, NDArray[np.int64]], None]]:
        """Return a context whose function updates `state` by rows of a block, in given order.

        Parameters and the gradient of an unfinished batch are in `state` only when the context
        ends. The function raises `NonFiniteData` at a row with NaN or infinity, before its update.
        It raises `Diverged` if a loss is not finite though the data are.
        """
        del threads
        table, counters = RateTable(self._rates), state["counters"]
        most = workspace["pairs"].shape[1]
        of_mean_1 = self.problem.n_rows / self.problem.total_weight
        weighed: tuple[Block | None, Array] = None, NO_WEIGHTS

        def learn(block: Block, order: NDArray[np.int64]) -> None:
            if block.y is None:
                raise ValueError("a loss needs y, and these data have none")
            nonlocal weighed
            if weighed[0] is not block:  # a large block is learned from in pieces
                weighed = None, NO_WEIGHTS  # before those of this block are made
                weight = row_weights(block, self.problem.row_factors)
                weighed = block, NO_WEIGHTS if weight is None else weight * of_mean_1
            for first in range(0, len(order), most):
                part = order[first : first + most]
                table.cover(int(counters[1]), len(part) // self.batch_size + 1)
                stopped = scan(block.X, block.y, weighed[1], part)
                if stopped >= 0:
                    raise_if_not_finite(block)
                    raise_if_outside(self.problem.loss, block)
                    row = block.row_number(int(part[stopped]))
                    raise Diverged(
                        f"the loss of row {row} is no number after {counters[1]:,} "
                        f"updates, but the data are finite: the learning rate of {self.eta0:.3g} "
                        'is too large; use learning_rate="auto" or a smaller one'
                    )
            if not math.isfinite(state["sums"][0]):
                raise_if_outside(self.problem.loss, block)  # its slope alone may be finite

        with self._scan(state, workspace, table) as scan:
            yield learn

    def finish(self, state: Sums, workspace: Arrays) -> None:
        """Update the parameters by the incomplete last batch, in proportion to its rows.

        The average takes in the last parameters: an epoch of a few rows has no other entry.
        """
        table, counters = RateTable(self._rates), state["counters"]
        table.cover(int(counters[1]), 1)
        with self._scan(state, workspace, table) as scan:
            scan.flush()
        if counters[1] % average_every(self.batch_size):
            self._add_to_average(state)

    def step_by_all_rows(self, state: Sums, gradient: Array) -> Sums:
        """Return the state after a step by the gradient of the mean objective of all rows."""
        after = {name: array.copy() for name, array in state.items()}
        self.step_by_gradient(after, gradient, self.rate(int(after["counters"][1])))
        after["counters"][2] += self.problem.n_rows
        return after

    def step_by_gradient(self, state: Sums, gradient: Array, eta: float) -> None:
        """Update `state` by the gradient of a mean objective at a learning rate, in place."""
        clock, optimizer = state["clock"], self.optimizer
        clock[AGE] += 1.0
        scalars = optimizer.prepare(float(clock[AGE]), 1.0)
        state["theta"][:, :-1] *= optimizer.retained(eta)
        gradient = optimizer.clipped(gradient)
        theta, *slots = optimizer.step(state["theta"], gradient, eta, scalars, *state["slots"])
        if not self.problem.theta_penalty.smooth:
            rate = optimizer.proximal_rate(eta, scalars, *slots)
            theta = self.problem.theta_penalty.prox(theta, rate / self.problem.total_weight)
        state["theta"][...] = theta
        for i, slot in enumerate(slots):
            state["slots"][i] = slot
        self._add_to_average(state)
        state["counters"][1] += 1

    def _add_to_average(self, state: Sums) -> None:
        """Add the parameters to their average, in place."""
        state["clock"][AVERAGED] += 1.0
        add_to_average(state["average"], state["theta"], float(state["clock"][AVERAGED]))

    def average(self, before: Sequence[Sums], after: Sequence[Sums]) -> None:
        """Replace the states of replicas by their mean, in place."""
        average_replicas(before, after)

    @contextmanager
    def _scan(self, state: Sums, workspace: Arrays, table: RateTable) -> Iterator[Scan]:
        problem, penalty = self.problem, self.problem.theta_penalty
        updating = Updating(
            np.dtype(self.dtype),
            problem.loss,
            self.optimizer,
            self.batch_size,
            problem.scaling.mean,
            problem.scaling.inverse,
            penalty.l2[:-1] / problem.total_weight,
            penalty.l1[:-1] / problem.total_weight,
            problem.fit_intercept,
            problem.own_factors,
        )
        scan = Scan(updating, ScanState(**state), table.rates, workspace)
        try:
            yield scan
        finally:
            scan.close()
