"""A linear model learned by updates: what a scan carries through the rows.

Any batch size from one row to all rows is the same scan: rows add to the gradient of their batch,
and a batch that is full takes a step. Batches straddle the borders of chunks, so nothing of a batch
but its gradient is ever held.
"""

from dataclasses import dataclass

import numpy as np

from ooc_train.errors import Diverged
from ooc_train.models.linear import LinearProblem
from ooc_train.models.rules import Rule, Schedule
from ooc_train.models.sums import (
    Array,
    Arrays,
    Block,
    Room,
    Rooms,
    Sums,
    raise_if_not_finite,
    row_weights,
)


@dataclass(frozen=True, eq=False)
class LinearUpdates:
    """Updates of a linear model's parameters.

    Attributes
    ----------
    problem : the model, whose objective is taken by the mean weight of a row
    dtype : of X, "<f4" or "<f8"
    batch_size : rows per update
    rule : how a gradient becomes a step
    schedule, eta0, horizon : the learning rate after t updates: `eta0`; "linear", `eta0 * (1 - t /
        horizon)`; "inverse_sqrt", `eta0 / sqrt(1 + t / horizon)`
    """

    problem: LinearProblem
    dtype: str
    batch_size: int
    rule: Rule
    schedule: Schedule
    eta0: float
    horizon: float

    def start(self, theta: Array) -> Sums:
        """Return the state before the first row: parameters, and nothing of a batch."""
        slots = 2 if self.rule == "adam" else 0
        return {
            "theta": theta.copy(),
            "slots": np.zeros((slots, *theta.shape)),
            "partial": np.zeros(theta.shape),
            "counters": np.zeros(3, np.int64),
            "sums": np.zeros(2),
        }

    def rooms(self, rows: int) -> Rooms:
        """Return the arrays that `step` works in, for blocks of at most `rows` rows."""
        return {"order": Room((rows,), "<i8")}

    def step(self, state: Sums, block: Block, seed: int | None, work: Arrays) -> None:
        """Take a block's rows into `state`, in place, in the order of `seed` or as they lie.

        Raises
        ------
        NonFiniteData
            where a row holds NaN or infinity; it has not been learned from.
        Diverged
            where the parameters have grown so large that a row's loss is no number.
        """
        from ooc_train.models import kernels

        order = work["order"][: block.n_rows]
        if seed is None:
            order[:] = np.arange(block.n_rows)
        else:
            kernels.shuffle(np.uint64(seed), order)
        weight = row_weights(block, self.problem.class_weight)
        if weight is not None:
            weight = weight * (self.problem.n_rows / self.problem.total_weight)
        stopped = self._scan(state, block.X, block.y, weight, order, flush=False)
        if stopped >= 0:
            raise_if_not_finite(block)
            row = block.row_number(int(order[stopped]))
            raise Diverged(
                f"the loss of row {row} is no number after {state['counters'][1]:,} updates, but "
                f"the data are finite: the learning rate of {self.eta0:.3g} is too large; use "
                'learning_rate="auto" or a smaller one'
            )

    def finish(self, state: Sums) -> None:
        """Take in, in place, what the last full batch of a pass left over."""
        features = self.problem.n_features
        X, y = np.empty((0, features), self.dtype), np.empty((0, 1))
        self._scan(state, X, y, None, np.empty(0, np.int64), flush=True)

    def _scan(
        self,
        state: Sums,
        X: np.ndarray[tuple[int, ...], np.dtype[np.floating]],
        y: Array | None,
        weight: Array | None,
        order: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
        *,
        flush: bool,
    ) -> int:
        from ooc_train.models import kernels

        if y is None:
            raise ValueError("a loss needs y, and these data have none")
        problem = self.problem
        schedules = {
            "constant": kernels.CONSTANT,
            "linear": kernels.LINEAR,
            "inverse_sqrt": kernels.INVERSE_SQRT,
        }
        return int(
            kernels.scan(
                X,
                y,
                np.empty(0) if weight is None else weight,
                order,
                problem.scaling.mean,
                1.0 / problem.scaling.scale,
                state["theta"],
                state["slots"],
                state["partial"],
                state["counters"],
                state["sums"],
                problem.penalty[:-1] / problem.total_weight,
                problem.loss.code,
                self.batch_size,
                kernels.ADAM if self.rule == "adam" else kernels.SGD,
                schedules[self.schedule],
                self.eta0,
                self.horizon,
                problem.fit_intercept,
                flush,
            )
        )
