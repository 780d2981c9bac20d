"""Problems defined by the loss and gradient of a block of rows, such as networks.

To add such a model, subclass `BlockProblem` with `shape`, `initial`, `block_gradient` and
`block_bytes`. All solvers that need gradients alone, and all optimizers, then train it.
"""

from collections.abc import Callable
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
    weighted,
)
from ooc_train.kernels.specs import KernelSpec
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
        Number of rows of the data.
    total_weight : float
        Sum of the rows' weights.
    l2 : float
        Strength of the penalty ``l2 / 2 * |params|^2``, added to the sum of losses.
    class_weight : float64 array (classes,) or None
        Factors of the rows' weights, by the code of the class.
    """

    n_rows: int
    total_weight: float
    l2: float = 0.0
    class_weight: Array | None = None

    bound: ClassVar[float | None] = None
    averages_all_rows: ClassVar[bool] = True
    own_optimizer: ClassVar[Optimizer | None] = None
    loads: ClassVar[tuple[Callable[[], None], ...]] = ()
    """Functions that load libraries, which every process calls before memory is measured."""

    @property
    def can(self) -> frozenset[Capability]:
        """Capabilities of the problem, which solvers may require."""
        return frozenset({"gradient", "smooth", "updates"})

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the parameters."""
        raise NotImplementedError

    @property
    def needs(self) -> tuple[KernelSpec, ...]:
        """Compiled kernels that `block_gradient` calls."""
        return ()

    @property
    def n_parameters(self) -> int:
        """Number of parameters."""
        return int(np.prod(self.shape))

    @property
    def hessian_shape(self) -> tuple[int, int, int]:
        """Shape of the Hessian, if there were one."""
        return 1, self.n_parameters, self.n_parameters

    def initial(self, seed: int = 0) -> Array:
        """Return the parameters that a run begins with."""
        raise NotImplementedError

    def automatic_rate(self, optimizer: Optimizer) -> float | None:
        """Return the learning rate "auto" of an optimizer; None if the solver finds it."""
        del optimizer
        return None

    def block_gradient(self, params: Array, block: Block) -> tuple[float, Array]:
        """Return the weighted sum of the losses of a block's rows, and the gradient of that sum.

        The weights of the block include those of the classes.
        """
        raise NotImplementedError

    def block_loss(self, params: Array, block: Block) -> float:
        """Return the weighted sum of the losses of a block's rows."""
        return self.block_gradient(params, block)[0]

    def raise_if_invalid(self, block: Block) -> None:
        """If invalid data make a loss non-finite, raise an error that names the row."""
        raise_if_not_finite(block)

    def block_bytes(self, rows: int) -> int:
        """Return the most bytes that `block_gradient` allocates for a block of `rows` rows."""
        raise NotImplementedError

    def reduction(self, points: Array, *, gradients: int = 1, hessian: bool = False) -> "BlockSums":
        """Return the reduction of losses at all points, and of gradients at the first of them."""
        if hessian:
            raise ValueError("the problem adds up no Hessian")
        return BlockSums(self, points, gradients)

    def objectives(self, sums: Sums, points: Array) -> Array:
        """Return the objective at each point, (points,)."""
        return np.array(
            [loss + self.penalty_value(p) for loss, p in zip(sums["loss"], points, strict=True)]
        )

    def read(self, sums: Sums, points: Array, i: int = 0) -> Evaluation:
        """Return the evaluation of point `i`, from the sums over all rows."""
        loss, params = float(sums["loss"][i]), points[i]
        gradient = sums["gradient"][i] + self.penalty_gradient(params)
        objective = loss + self.penalty_value(params)
        return Evaluation(params, loss / float(sums["weight"]), objective, gradient)

    def mean_gradient(self, sums: Sums, params: Array) -> Array:
        """Return the mean objective's gradient at `params`, from sums over all or some rows."""
        mean: Array = sums["gradient"][0] / float(sums["weight"])
        return mean + self.penalty_gradient(params) / self.total_weight

    def least_subgradient(self, gradient: Array, params: Array) -> Array:
        """Return the gradient: the whole objective is differentiable."""
        del params
        return gradient

    def penalty_value(self, params: Array) -> float:
        """Return the penalty on the parameters, in units of the sum of losses."""
        return 0.5 * self.l2 * float((params**2).sum())

    def penalty_gradient(self, params: Array) -> Array:
        """Return the gradient of `penalty_value`."""
        return self.l2 * params

    def updates(
        self,
        dtype: str,
        batch_size: int,
        optimizer: Optimizer,
        schedule: Schedule,
        eta0: float,
        horizon: float,
    ) -> GradientUpdates:
        """Return the scan that updates parameters by batches of `batch_size` rows."""
        del dtype
        return GradientUpdates(self, batch_size, optimizer, schedule, eta0, horizon)


@dataclass(frozen=True, eq=False)
class BlockSums:
    """The reduction of losses at all points, and of gradients at the first of them.

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

    @property
    def needs(self) -> tuple[KernelSpec, ...]:
        """Kernels that every process loads before memory is measured."""
        return self.problem.needs

    @property
    def loads(self) -> tuple[Callable[[], None], ...]:
        """Functions that load libraries."""
        return self.problem.loads

    def zeros(self) -> Sums:
        """Return the sums over no rows: arrays of zeros."""
        return {
            "rows": np.zeros(()),
            "weight": np.zeros(()),
            "loss": np.zeros(len(self.points)),
            "gradient": np.zeros((self.gradients, *self.problem.shape)),
        }

    def workspace(self, rows: int) -> Workspace:
        """Return a workspace of one empty array: the problem allocates its own arrays."""
        del rows
        return {"nothing": ArraySpec((0,))}

    def made_bytes(self, rows: int) -> int:
        """Return the bytes that `add` allocates: the problem's, and a gradient."""
        return array_bytes(self) + 8 * self.problem.n_parameters + self.problem.block_bytes(rows)

    def add(self, sums: Sums, block: Block, workspace: Arrays) -> None:
        """Add the sums over one block into `sums`, in place."""
        del workspace
        block = weighted(block, self.problem.class_weight)
        for i, params in enumerate(self.points):
            if i < self.gradients:
                loss, gradient = self.problem.block_gradient(params, block)
                sums["gradient"][i] += gradient
            else:
                loss = self.problem.block_loss(params, block)
            if not np.isfinite(loss):
                self.problem.raise_if_invalid(block)
            sums["loss"][i] += loss
        sums["rows"] += block.n_rows
        sums["weight"] += block.n_rows if block.weight is None else block.weight.sum()
