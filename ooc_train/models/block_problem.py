"""Problems defined by the loss and gradient of a block of rows, such as networks.

To add such a model, subclass `BlockProblem` with `shape`, `initial`, `block_gradient` and
`block_bytes`. All solvers that need gradients alone, and all optimizers, then train it.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ooc_train.core.sums import (
    Array,
    Arrays,
    ArraySpec,
    Block,
    Sums,
    Workspace,
    array_bytes,
    raise_if_not_finite,
)
from ooc_train.models.gradient_updates import GradientUpdates
from ooc_train.models.problem import Capability, Evaluation
from ooc_train.optimizers.optimizer import Optimizer
from ooc_train.optimizers.schedule import Schedule


@dataclass(frozen=True, eq=False)
class BlockProblem:
    """A mean loss over rows, plus an l2 penalty on all parameters.

    Attributes
    ----------
    n_rows : int
        Rows of the data.
    total_weight : float
        Sum of the rows' weights.
    l2 : float
        Strength of the penalty ``l2 / 2 * |params|^2``, added to the sum of losses.
    """

    n_rows: int
    total_weight: float
    l2: float = 0.0

    can: ClassVar[frozenset[Capability]] = frozenset({"gradient", "smooth", "updates"})
    bound: ClassVar[float | None] = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the parameters."""
        raise NotImplementedError

    @property
    def n_parameters(self) -> int:
        """Number of parameters."""
        return int(np.prod(self.shape))

    @property
    def hessian_shape(self) -> tuple[int, int, int]:
        """Of the Hessian, if there were one."""
        return 1, self.n_parameters, self.n_parameters

    def initial(self, seed: int = 0) -> Array:
        """Return the parameters that a run begins with."""
        raise NotImplementedError

    def block_gradient(self, params: Array, block: Block) -> tuple[float, Array]:
        """Return the weighted sum of the losses of a block's rows, and the gradient of that sum."""
        raise NotImplementedError

    def block_bytes(self, rows: int) -> int:
        """Return the most bytes that `block_gradient` allocates for a block of `rows` rows."""
        raise NotImplementedError

    def reduction(self, points: Array, *, gradients: int = 1, hessian: bool = False) -> "BlockSums":
        """Return the sums of losses at the points, and of the gradients of the first ones."""
        if hessian:
            raise ValueError("the problem adds up no Hessian")
        return BlockSums(self, points, gradients)

    def objectives(self, sums: Sums, points: Array) -> Array:
        """Return the objective at each point, (points,)."""
        return np.array(
            [loss + self.penalty_value(p) for loss, p in zip(sums["loss"], points, strict=True)]
        )

    def read(self, sums: Sums, points: Array, i: int = 0) -> Evaluation:
        """Return the evaluation of point `i`, by the sums over all rows."""
        loss, params = float(sums["loss"][i]), points[i]
        gradient = sums["gradient"][i] + self.l2 * params
        objective = loss + self.penalty_value(params)
        return Evaluation(params, loss / float(sums["weight"]), objective, gradient)

    def mean_gradient(self, sums: Sums, params: Array) -> Array:
        """Return the gradient of the mean objective, by sums at `params` over any of the rows."""
        mean: Array = sums["gradient"][0] / float(sums["weight"])
        return mean + self.l2 * params / self.total_weight

    def least_subgradient(self, gradient: Array, params: Array) -> Array:
        """Return the gradient: no part of the objective lacks one."""
        del params
        return gradient

    def penalty_value(self, params: Array) -> float:
        """Return the penalty on the parameters, in units of the sum of losses."""
        return 0.5 * self.l2 * float((params**2).sum())

    def updates(
        self,
        dtype: str,
        batch_size: int,
        optimizer: Optimizer,
        schedule: Schedule,
        eta0: float,
        horizon: float,
    ) -> GradientUpdates:
        """Return the updates by batches of so many rows."""
        del dtype
        return GradientUpdates(self, batch_size, optimizer, schedule, eta0, horizon)


@dataclass(frozen=True, eq=False)
class BlockSums:
    """Losses at one or more points, and gradients at the first ones, added up over rows.

    Attributes
    ----------
    points : float64 array (points, *shape)
        The parameters.
    gradients : int
        Number of points, from the first, whose gradients are added up.
    """

    problem: BlockProblem
    points: Array
    gradients: int = 1

    def zeros(self) -> Sums:
        """Return sums over no rows."""
        return {
            "rows": np.zeros(()),
            "weight": np.zeros(()),
            "loss": np.zeros(len(self.points)),
            "gradient": np.zeros((self.gradients, *self.problem.shape)),
        }

    def workspace(self, rows: int) -> Workspace:
        """Return an empty array: the problem allocates its own."""
        del rows
        return {"nothing": ArraySpec((0,))}

    def made_bytes(self, rows: int) -> int:
        """Return the bytes that `add` allocates: the problem's, and a gradient."""
        return array_bytes(self) + 8 * self.problem.n_parameters + self.problem.block_bytes(rows)

    def add(self, sums: Sums, block: Block, workspace: Arrays) -> None:
        """Add the sums over one block into `sums`, in place."""
        del workspace
        for i, params in enumerate(self.points):
            loss, gradient = self.problem.block_gradient(params, block)
            if not np.isfinite(loss):
                raise_if_not_finite(block)
            sums["loss"][i] += loss
            if i < self.gradients:
                sums["gradient"][i] += gradient
        sums["rows"] += block.n_rows
        sums["weight"] += block.n_rows if block.weight is None else block.weight.sum()
