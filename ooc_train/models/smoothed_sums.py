"""Sums of a smoothed loss, and of the duality gap of the loss itself."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ooc_train.core.sums import (
    Array,
    Arrays,
    ArraySpec,
    Block,
    Sums,
    Value,
    Workspace,
    row_weights,
)
from ooc_train.kernels.specs import KernelSpec
from ooc_train.models.loss_sums import LossSums
from ooc_train.objective.loss import Loss, own_class_factors

_PIECE_ROWS = 1024
"""Rows whose predictors are computed at a time."""

_COPIES = 10
"""Arrays of the size of a piece's predictors that a loss and a gap make."""


@dataclass(frozen=True, eq=False)
class SmoothedSums(Value):
    """The reduction of a smoothed loss; and, at models with gradients, of the loss and its gap.

    Attributes
    ----------
    sums : LossSums
        The reduction of the smoothed loss.
    loss : Loss
        The loss itself, without smoothing.
    """

    sums: LossSums
    loss: Loss

    @cached_property
    def _data_units(self) -> tuple[Array, Array]:
        theta = self.sums.theta[: self.sums.gradients]
        coef, intercept = self.sums.scaling.to_data_units(theta)
        return coef.reshape(-1, coef.shape[-1]), intercept.ravel()

    @property
    def needs(self) -> tuple[KernelSpec, ...]:
        """Kernels that every process loads before memory is measured."""
        return self.sums.needs

    def zeros(self) -> Sums:
        """Return the sums over no rows: arrays of zeros.

        Beside those of the smoothed loss, "exact" and "gap" (models,), and "drift" (models,
        outputs, columns): the derivative of "gradient" by the width.
        """
        zeros = self.sums.zeros()
        models, drift = self.sums.gradients, np.zeros_like(zeros["gradient"])
        return zeros | {"exact": np.zeros(models), "gap": np.zeros(models), "drift": drift}

    def workspace(self, rows: int) -> Workspace:
        """Return the scratch arrays of `add`, for blocks of at most `rows` rows."""
        features = self.sums.scaling.n_features
        own = {"converted": ArraySpec((min(rows, _PIECE_ROWS), features))}
        return self.sums.workspace(rows) | own

    def made_bytes(self, rows: int) -> int:
        """Return the bytes that `add` allocates."""
        predictors = 8 * min(rows, _PIECE_ROWS) * self.sums.gradients * self.sums.n_outputs
        coefficients = 8 * self.sums.theta[: self.sums.gradients].size
        return self.sums.made_bytes(rows) + coefficients + _COPIES * predictors

    def add(self, sums: Sums, block: Block, workspace: Arrays) -> None:
        """Add the sums over one block into `sums`, in place."""
        self.sums.add(sums, block, workspace)
        by_class, own = self.sums.class_weight, self.sums.own_class_weight
        y, weight = np.asarray(block.y), row_weights(block, None if own else by_class)
        if weight is None:
            weight = np.ones(block.n_rows)
        piece, outputs = len(workspace["converted"]), self.sums.n_outputs
        coef, intercept = self._data_units
        for start in range(0, block.n_rows, piece):
            rows = slice(start, start + piece)
            X = workspace["converted"][: len(block.X[rows])]
            np.copyto(X, block.X[rows])
            due, predictors = self.loss.targets(y[rows], outputs), X @ coef.T + intercept
            factors = 1.0 if by_class is None or not own else own_class_factors(y[rows], by_class)
            for m in range(self.sums.gradients):
                z = predictors[:, m * outputs : (m + 1) * outputs]
                exact, gap = self.loss.value(due, z), self.sums.loss.gap(due, z)
                sums["exact"][m] += weight[rows] @ (factors * exact).sum(axis=1)
                sums["gap"][m] += weight[rows] @ (factors * gap).sum(axis=1)
                drift = weight[rows, None] * factors * self.sums.loss.drift(due, z)
                sums["drift"][m, :, :-1] += drift.T @ X
                sums["drift"][m, :, -1] += drift.sum(axis=0)
