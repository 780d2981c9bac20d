"""A linear model learned by updates: what a scan carries through the rows.

Any batch size from one row to all rows is the same scan: rows add to the gradient of their batch,
and a batch that is full takes a step. Batches straddle the borders of chunks, so nothing of a batch
but its gradient is ever held.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ooc_train.errors import Diverged
from ooc_train.models.linear import NO_WEIGHTS, LinearProblem
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

_PORTION_BYTES = 2**20

Integers = NDArray[np.int64]


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

    @property
    def portion(self) -> int:
        """Rows that are prepared at a time: about 1 MiB, which stay in a near cache."""
        return max(1, _PORTION_BYTES // sum(room.row_bytes for room in self.rooms(1).values()))

    def rooms(self, rows: int) -> Rooms:
        """Return the arrays that `prepare` writes up to so many rows to."""
        outputs = self.problem.n_outputs
        targets = 1 if self.problem.loss.name == "multinomial" else outputs
        return {
            "X": Room((rows, self.problem.n_features), self.dtype),
            "y": Room((rows, targets)),
            "weight": Room((rows,)),
            "order": Room((rows,), "<i8"),
            "predictors": Room((rows, outputs)),
        }

    def prepare(self, block: Block, order: Integers, into: Arrays) -> Block:
        """Return rows of a block, scaled and in the order of `order`: all but learning itself.

        Raises
        ------
        ValueError
            where there is no y.
        """
        from ooc_train.models import scanning

        rows, scaling = len(order), self.problem.scaling
        X, y, weight = into["X"][:rows], into["y"][:rows], None
        of_rows = row_weights(block, self.problem.class_weight)
        if of_rows is not None:
            of_rows = of_rows * (self.problem.n_rows / self.problem.total_weight)
            weight = into["weight"][:rows]
        into["order"][:rows] = order
        scanning.gather(
            block.X,
            _targets(block),
            NO_WEIGHTS if of_rows is None else of_rows,
            order,
            scaling.mean,
            1.0 / scaling.scale,
            X,
            y,
            NO_WEIGHTS if weight is None else weight,
        )
        return Block(X, y, weight, block.starts, into["order"][:rows])

    def step(self, state: Sums, block: Block, work: Arrays) -> None:
        """Take prepared rows into `state`, in place; `work` is what they lie in.

        Raises
        ------
        NonFiniteData
            where a row holds NaN or infinity; it has not been learned from.
        Diverged
            where the parameters have grown so large that a row's loss is no number.
        """
        stopped = self._scan(state, block, work["predictors"], flush=False)
        if stopped >= 0:
            raise_if_not_finite(block)
            raise Diverged(
                f"the loss of row {block.row_number(stopped)} is no number after "
                f"{state['counters'][1]:,} updates, but the data are finite: the learning rate of "
                f'{self.eta0:.3g} is too large; use learning_rate="auto" or a smaller one'
            )

    def finish(self, state: Sums) -> None:
        """Take in, in place, what the last full batch of a pass left over."""
        none = {name: np.empty(room.shape, room.dtype) for name, room in self.rooms(0).items()}
        self._scan(state, Block(none["X"], none["y"], None), none["predictors"], flush=True)

    def _scan(self, state: Sums, rows: Block, predictors: Array, *, flush: bool) -> int:
        from ooc_train.models import scanning

        problem = self.problem
        schedules = {
            "constant": scanning.CONSTANT,
            "linear": scanning.LINEAR,
            "inverse_sqrt": scanning.INVERSE_SQRT,
        }
        return int(
            scanning.scan(
                rows.X,
                _targets(rows),
                NO_WEIGHTS if rows.weight is None else rows.weight,
                predictors,
                state["theta"],
                state["slots"],
                state["partial"],
                state["counters"],
                state["sums"],
                problem.penalty[:-1] / problem.total_weight,
                problem.loss.code,
                self.batch_size,
                scanning.ADAM if self.rule == "adam" else scanning.SGD,
                schedules[self.schedule],
                self.eta0,
                self.horizon,
                problem.fit_intercept,
                flush,
            )
        )


def _targets(block: Block) -> Array:
    if block.y is None:
        raise ValueError("a loss needs y, and these data have none")
    return block.y
