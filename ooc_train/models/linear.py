"""Models whose prediction is linear in the features: `z = X @ W + b` under a loss.

The objective is `sum_i weight_i loss(y_i, z_i) + l2 / 2 * |W|^2`, W in the data's units, intercept
free: scikit-learn's for ridge (`l2 = alpha`) and logistic regression (`l2 = 1 / C`).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import (
    Array,
    Arrays,
    ArraySpec,
    Block,
    Sums,
    Value,
    Workspace,
    raise_if_not_finite,
    row_weights,
)
from ooc_train.kernels import api as kernels
from ooc_train.objective.losses import Loss, probabilities
from ooc_train.objective.scaling import Scaling, piece_rows

_TILE = 512
"""Rows that the compiled loops take at a time: enough for vectors, and still in a near cache when
the gradient is made of them."""

_OUTER_ROWS, _STRIP = 64, 16
"""Rows that `kernels.add_outer_products` scales at a time: 57 KB of 100 columns; and of how many
columns it takes a multiple."""

_COMPILED_WORK = 2**33
"""Multiplications of a pass, from which on its Hessian is compiled: below, a pass of BLAS takes a
few tenths of a second, and no process has to hold kernels, nor a first run to compile them."""

NO_WEIGHTS = np.empty(0)
"""To the kernels: every row weighs one."""


@dataclass(frozen=True, eq=False)
class LossSums(Value):
    """Loss, gradient and Hessian of one or more models on one stream.

    The gradient is added up by coefficients and intercept in the data's units, which is what the
    compiled loops make of raw rows; `LinearProblem.gradient` scales it, once a pass. The Hessian is
    by `theta`.

    Attributes
    ----------
    loss : the loss
    scaling : of the columns that `theta` weighs
    theta : float64 array (models, outputs, features + 1)
    gradients : of so many models, the first ones, the gradient is added up too
    hessian : whether that of the first model is added up
    class_weight : float64 array (classes,), multiplied into the rows' weights by label, or None
    compiled : whether the Hessian is worth compiled loops, which take memory and time to load; the
        gradient alone always is
    """

    loss: Loss
    scaling: Scaling
    theta: Array
    gradients: int = 1
    hessian: bool = False
    class_weight: Array | None = None
    compiled: bool = False

    @property
    def n_outputs(self) -> int:
        """Linear predictors of a model."""
        return int(self.theta.shape[1])

    @property
    def _columns(self) -> int:
        return int(self.theta.shape[2])

    @cached_property
    def _fused(self) -> bool:
        # Compiled loops over raw rows beat BLAS on converted ones where nothing needs the latter.
        return self.compiled or not self.hessian

    @cached_property
    def _data_units(self) -> tuple[Array, Array]:
        coef, intercept = self.scaling.to_data_units(self.theta)
        return np.ascontiguousarray(coef.reshape(-1, self._columns - 1)), intercept.ravel()

    def zeros(self) -> Sums:
        """Return sums over no rows."""
        size = self.n_outputs * self._columns
        sums = {
            "rows": np.zeros(()),
            "weight": np.zeros(()),
            "loss": np.zeros(len(self.theta)),
            "gradient": np.zeros((self.gradients, self.n_outputs, self._columns)),
        }
        if self.hessian:
            sums["hessian"] = np.zeros((size, size))
        return sums

    def workspace(self, rows: int) -> Workspace:
        """Return the arrays that `add` works in, for blocks of at most `rows` rows."""
        if self._fused:
            specs = {
                "z": ArraySpec((_TILE, len(self.theta) * self.n_outputs)),
                "residual": ArraySpec((_TILE, self.gradients * self.n_outputs)),
                "cells": ArraySpec((2, self.n_outputs)),
            }
            if self.hessian:
                width = -(-self._columns // _STRIP) * _STRIP
                specs |= {
                    "predictors": ArraySpec((rows, self.n_outputs)),
                    "scaled": ArraySpec((_OUTER_ROWS, width)),
                    "weighted": ArraySpec((_OUTER_ROWS, width)),
                    "products": ArraySpec((width, width)),
                }
            return specs
        piece = min(rows, piece_rows(self._columns, square=self.hessian))
        specs = {
            "scaled": ArraySpec((piece, self._columns)),
            "gradient": ArraySpec((self.gradients, self.n_outputs, self._columns)),
        }
        if self.hessian:
            specs["weighted"] = ArraySpec((piece, self._columns))
        return specs

    def add(self, sums: Sums, block: Block, workspace: Arrays) -> None:
        """Add the sums over one block into `sums`, in place.

        Raises
        ------
        NonFiniteData
            where the block holds NaN or infinity.
        """
        if block.y is None:
            raise ValueError("a loss needs y, and these data have none")
        weight = row_weights(block, self.class_weight)
        sums["rows"] += block.n_rows
        sums["weight"] += block.n_rows if weight is None else weight.sum()
        add = self._add_fused if self._fused else self._add_scaled
        if not math.isfinite(add(sums, block, block.y, weight, workspace)):
            raise_if_not_finite(block)

    def _add_fused(
        self, sums: Sums, block: Block, y: Array, weight: Array | None, workspace: Arrays
    ) -> float:
        if self.hessian:
            self._add_outer_products(sums["hessian"], block.X, y, weight, workspace)
        gradient = sums["gradient"]
        models, outputs, columns = gradient.shape
        return kernels.add_rows(
            block.X,
            y,
            NO_WEIGHTS if weight is None else weight,
            *self._data_units,
            self.loss.code,
            workspace["z"],
            workspace["residual"],
            gradient.reshape(models * outputs, columns),
            sums["loss"],
            workspace["cells"],
        )

    def _add_outer_products(
        self,
        hessian: Array,
        X: NDArray[np.floating],
        y: Array,
        weight: Array | None,
        workspace: Arrays,
    ) -> None:
        coef, intercept = self._data_units
        z = workspace["predictors"][: len(X)]
        kernels.predictor(X, coef[: self.n_outputs], intercept[: self.n_outputs], z)
        for a, b, curvature in curvatures(self.loss, y, z):
            kernels.add_outer_products(
                X,
                np.ascontiguousarray(curvature if weight is None else curvature * weight),
                self.scaling.mean,
                self.scaling.inverse,
                workspace["scaled"],
                workspace["weighted"],
                workspace["products"],
                hessian,
                a,
                b,
            )

    def _add_scaled(
        self, sums: Sums, block: Block, y: Array, weight: Array | None, workspace: Arrays
    ) -> float:
        workspace["gradient"][...] = 0.0
        piece = len(workspace["scaled"])
        for start in range(0, block.n_rows, piece):
            rows = slice(start, start + piece)
            scaled = self.scaling.apply(block.X[rows], workspace["scaled"])
            part_weight = None if weight is None else weight[rows]
            self._add_piece(sums, scaled, y[rows], part_weight, workspace)
        by_coef, by_intercept = workspace["gradient"][..., :-1], workspace["gradient"][..., -1:]
        sums["gradient"][..., :-1] += (
            by_coef * self.scaling.scale + by_intercept * self.scaling.mean
        )
        sums["gradient"][..., -1:] += by_intercept
        return float(sums["loss"].sum())

    def _add_piece(
        self, sums: Sums, scaled: Array, y: Array, weight: Array | None, workspace: Arrays
    ) -> None:
        # Predictors of a model lie side by side: loss functions go through them many times.
        z = self.theta.reshape(-1, self._columns) @ scaled.T
        for m in range(len(self.theta)):
            z_model = z[m * self.n_outputs : (m + 1) * self.n_outputs].T
            sums["loss"][m] += _total(self.loss.value(y, z_model), weight)
            if m >= self.gradients:
                continue
            residual = self.loss.gradient(y, z_model)
            if weight is not None:
                residual = residual * weight[:, None]
            workspace["gradient"][m] += residual.T @ scaled
        if self.hessian:
            self._add_hessian(sums["hessian"], y, z[: self.n_outputs].T, weight, scaled, workspace)

    def _add_hessian(
        self,
        hessian: Array,
        y: Array,
        z: Array,
        weight: Array | None,
        scaled: Array,
        workspace: Arrays,
    ) -> None:
        weighted, columns = workspace["weighted"][: len(scaled)], self._columns
        for a, b, curvature in curvatures(self.loss, y, z):
            if weight is not None:
                curvature = curvature * weight
            if a == b:
                # A product of an array with its own transpose costs half of any other.
                np.multiply(scaled, np.sqrt(curvature)[:, None], out=weighted)
                product = weighted.T @ weighted
            else:
                np.multiply(scaled, curvature[:, None], out=weighted)
                product = scaled.T @ weighted
            rows, others = (slice(k * columns, (k + 1) * columns) for k in (a, b))
            hessian[rows, others] += product
            if a != b:
                hessian[others, rows] += product.T


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The objective and its derivatives at one point.

    Attributes
    ----------
    loss : the mean loss of a row, by weight
    objective : the sum of losses plus the penalty
    gradient : of the objective by `theta`, float64 array (outputs, features + 1)
    hessian : likewise, (outputs * (features + 1),) * 2, or None where it was not asked for
    """

    theta: Array
    loss: float
    objective: float
    gradient: Array
    hessian: Array | None


@dataclass(frozen=True, eq=False)
class LinearProblem(Value):
    """A linear model, and what has to be known of the data to fit it.

    Attributes
    ----------
    loss : the loss
    n_outputs : linear predictors: targets, or classes where there are more than two
    n_rows : rows of the data
    total_weight : sum of the rows' weights, class weights included
    scaling : of the columns
    l2 : strength of the penalty on the sum of losses
    fit_intercept : whether there is a free constant
    standardize : whether the penalty is on the weights of scaled columns
    class_weight : float64 array (classes,) or None
    restraint : further penalty on each scaled column's weights, float64 array (features,), or None
    """

    loss: Loss
    n_outputs: int
    n_rows: int
    total_weight: float
    scaling: Scaling
    l2: float = 0.0
    fit_intercept: bool = True
    standardize: bool = False
    class_weight: Array | None = None
    restraint: Array | None = None

    @property
    def n_features(self) -> int:
        """Columns of the data."""
        return self.scaling.n_features

    @property
    def n_parameters(self) -> int:
        """Entries of `theta`."""
        return self.n_outputs * (self.n_features + 1)

    @cached_property
    def penalty(self) -> Array:
        """Strength of the penalty on each column's entry of `theta`, (features + 1,)."""
        per_weight = np.full(self.n_features, float(self.l2))
        if not self.standardize:
            per_weight /= self.scaling.scale**2
        if self.restraint is not None:
            per_weight += self.restraint
        return np.append(per_weight, 0.0)

    @property
    def compiled_hessian(self) -> bool:
        """Whether so many rows and parameters are worth loading compiled loops for a Hessian."""
        return self.n_rows * self.n_parameters**2 >= _COMPILED_WORK

    def zeros(self) -> Array:
        """Return the `theta` of a model that knows nothing."""
        return np.zeros((self.n_outputs, self.n_features + 1))

    def from_data_units(self, coef: Array, intercept: Array) -> Array:
        """Return the `theta` of coefficients and intercepts in the data's units.

        Without an intercept, the constant of `theta` is zero, whatever is given.
        """
        theta = self.scaling.from_data_units(coef, intercept)
        if not self.fit_intercept:
            theta[..., -1] = 0.0
        return theta

    def sums(self, theta: Array, *, gradients: int = 1, hessian: bool = False) -> LossSums:
        """Return the sums at the models `theta` (models, outputs, features + 1)."""
        return LossSums(
            self.loss,
            self.scaling,
            theta,
            gradients,
            hessian,
            self.class_weight,
            self.compiled_hessian,
        )

    def objectives(self, sums: Sums, theta: Array) -> Array:
        """Return the objective of each model of a pass, (models,)."""
        penalties: Array = 0.5 * (self.penalty * theta**2).sum(axis=(1, 2))
        return sums["loss"] + penalties

    def gradient(self, sums: Sums, model: int = 0) -> Array:
        """Return the gradient of the sum of losses by the `theta` of one of a pass's models."""
        by_coef, by_intercept = sums["gradient"][model][:, :-1], sums["gradient"][model][:, -1]
        return self.scaling.gradient_from_data_units(by_coef, by_intercept)

    def mean_gradient(self, sums: Sums, theta: Array) -> Array:
        """Return the gradient of the mean objective at `theta`, of a sample of rows or of all."""
        gradient = self.gradient(sums) / float(sums["weight"])
        gradient += self.penalty * theta / self.total_weight
        if not self.fit_intercept:
            gradient[:, -1] = 0.0
        return gradient

    def evaluation(self, sums: Sums, theta: Array, model: int = 0) -> Evaluation:
        """Return what a pass says of one of its models."""
        gradient = self.gradient(sums, model) + self.penalty * theta[model]
        hessian = None
        if "hessian" in sums and model == 0:
            hessian = sums["hessian"] + np.diag(np.tile(self.penalty, self.n_outputs))
        if not self.fit_intercept:
            gradient[:, -1] = 0.0
            if hessian is not None:
                free = np.arange(self.n_parameters).reshape(self.n_outputs, -1)[:, -1]
                hessian[free, :] = hessian[:, free] = 0.0
                hessian[free, free] = 1.0
        return Evaluation(
            theta[model],
            float(sums["loss"][model] / sums["weight"]),
            float(self.objectives(sums, theta)[model]),
            gradient,
            hessian,
        )


def curvatures(loss: Loss, y: Array, z: Array) -> Iterator[tuple[int, int, Array]]:
    """Yield a, b <= a and the second derivative by the predictors a and b, (rows,)."""
    if loss.hessian is not None:
        for k, column in enumerate(loss.hessian(y, z).T):
            yield k, k, column
        return
    p = probabilities(z)
    for a in range(z.shape[1]):
        for b in range(a):
            yield a, b, -p[:, a] * p[:, b]
        yield a, a, p[:, a] * (1.0 - p[:, a])


def _total(values: Array, weight: Array | None) -> float:
    """Return the weighted sum of values (rows,) or (rows, outputs)."""
    if weight is None:
        return float(values.sum())
    return float(weight @ values.reshape(len(weight), -1).sum(axis=1))
