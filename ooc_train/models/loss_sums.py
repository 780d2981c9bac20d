"""Loss, gradient and Hessian of linear models, added up over rows."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.packing import add_packed, packed_size
from ooc_train.core.sums import (
    Array,
    Arrays,
    ArraySpec,
    Block,
    Sums,
    Value,
    Workspace,
    array_bytes,
    raise_if_not_finite,
    row_weights,
)
from ooc_train.kernels import api as kernels
from ooc_train.kernels.layout import outer_workspace
from ooc_train.kernels.specs import KernelSpec
from ooc_train.objective.loss import Loss, own_class_factors, raise_if_outside
from ooc_train.objective.scaling import Scaling, piece_rows

_TILE = 512
"""Rows that compiled loops process at a time: enough for vectors, and still in a near cache when
the gradient is computed."""

NO_WEIGHTS = np.empty(0)
"""The weights of rows that all weigh one, as kernels take them."""


@dataclass(frozen=True, eq=False)
class LossSums(Value):
    """The reduction of loss, gradient and Hessian of one or more models on one stream.

    The gradient is by coefficients and intercepts in the data's units, since the compiled loops
    read raw rows. `LinearObjective.gradient` scales it once a pass. The Hessian is by `theta`, a
    packed matrix for each pair of outputs that the loss couples.

    Attributes
    ----------
    scaling : Scaling
        Scaling of the columns.
    theta : float64 array (models, outputs, features + 1)
        Parameters of the scaled columns, intercepts last.
    gradients : int
        Number of models, from the first, whose gradients are added up.
    hessian : bool
        Whether the Hessian of the first model is added up.
    class_weight : float64 array (classes,) or None
        Factor of a row's weight by the code of its class.
    compiled : bool
        Whether compiled loops add up the Hessian. They take memory, and time to load. The gradient
        alone always uses compiled loops.
    own_class_weight : bool
        Whether class weights hold in the output of a row's own class alone.
    by_output : bool
        Whether the Hessian is that of each output alone, even if the loss couples outputs. It is
        an estimate: rows of little curvature stand for one another.
    """

    loss: Loss
    scaling: Scaling
    theta: Array
    gradients: int = 1
    hessian: bool = False
    class_weight: Array | None = None
    compiled: bool = False
    own_class_weight: bool = False
    by_output: bool = False

    @property
    def n_outputs(self) -> int:
        """Number of linear predictors of a model."""
        return int(self.theta.shape[1])

    @property
    def _columns(self) -> int:
        return int(self.theta.shape[2])

    @property
    def _pairs(self) -> list[tuple[int, int]]:
        """Pairs of outputs whose second derivative is added up."""
        pairs = self.loss.output_pairs(self.n_outputs)
        return [(a, b) for a, b in pairs if a == b or not self.by_output]

    @cached_property
    def _fused(self) -> bool:
        # Compiled loops over raw rows are faster than BLAS, which needs converted rows.
        return self.compiled or not self.hessian

    @property
    def _own(self) -> Array | None:
        """Class weights that hold in the output of a row's own class alone; None without."""
        return self.class_weight if self.own_class_weight else None

    @cached_property
    def _data_units(self) -> tuple[Array, Array]:
        coef, intercept = self.scaling.to_data_units(self.theta)
        return np.ascontiguousarray(coef.reshape(-1, self._columns - 1)), intercept.ravel()

    @property
    def needs(self) -> tuple[KernelSpec, ...]:
        """Kernels that every process loads before memory is measured."""
        if not self._fused:
            return ()
        needs = kernels.add_rows_needs(self.loss)
        return (*needs, kernels.PREDICTOR, kernels.OUTER_PRODUCTS) if self.hessian else needs

    def zeros(self) -> Sums:
        """Return the sums over no rows: arrays of zeros."""
        sums = {
            "rows": np.zeros(()),
            "weight": np.zeros(()),
            "loss": np.zeros(len(self.theta)),
            "gradient": np.zeros((self.gradients, self.n_outputs, self._columns)),
        }
        if self.hessian:
            sums["hessian"] = np.zeros((len(self._pairs), packed_size(self._columns)))
        return sums

    def workspace(self, rows: int) -> Workspace:
        """Return the scratch arrays of `add`, for blocks of at most `rows` rows."""
        if self._fused:
            specs = {
                "z": ArraySpec((_TILE, len(self.theta) * self.n_outputs)),
                "residual": ArraySpec((_TILE, self.gradients * self.n_outputs)),
                "cells": ArraySpec((2, self.n_outputs)),
            }
            if self.hessian:
                specs["predictors"] = ArraySpec((rows, self.n_outputs))
                specs |= outer_workspace(rows, self._columns)
            return specs
        piece = min(rows, piece_rows(self._columns, square=self.hessian))
        specs = {
            "scaled": ArraySpec((piece, self._columns)),
            "gradient": ArraySpec((self.gradients, self.n_outputs, self._columns)),
        }
        if self.hessian:
            specs["weighted"] = ArraySpec((piece, self._columns))
        return specs

    def made_bytes(self, rows: int) -> int:
        """Return the bytes that `add` allocates.

        They hold the parameters in the data's units, and a product of columns before it is added.
        """
        del rows
        return array_bytes(self) + (0 if self._fused else 8 * self._columns**2)

    def add(self, sums: Sums, block: Block, workspace: Arrays) -> None:
        """Add the sums over one block into `sums`, in place."""
        if block.y is None:
            raise ValueError("a loss needs y, and these data have none")
        weight = row_weights(block, self.class_weight)
        sums["rows"] += block.n_rows
        sums["weight"] += block.n_rows if weight is None else weight.sum()
        weight = weight if self._own is None else block.weight
        add = self._add_fused if self._fused else self._add_scaled
        if not math.isfinite(add(sums, block, block.y, weight, workspace)):
            raise_if_not_finite(block)
            raise_if_outside(self.loss, block)

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
            self.loss,
            workspace["z"],
            workspace["residual"],
            gradient.reshape(models * outputs, columns),
            sums["loss"],
            workspace["cells"],
            np.ones(outputs) if self._own is None else self._own,
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
        for pair, curvature in enumerate(self._curvatures(y, z, weight)):
            kernels.add_outer_products(
                X,
                y[:, :0],
                curvature,
                self.scaling.mean,
                self.scaling.inverse,
                workspace["scaled"],
                workspace["weighted"],
                hessian[pair],
            )

    def _curvatures(self, y: Array, z: Array, weight: Array | None) -> Iterator[Array]:
        """Yield the weighted second derivatives of the loss for each of the `_pairs`, (rows,)."""
        pairs = self.loss.output_pairs(self.n_outputs)
        for (a, b), curvature in zip(pairs, self.loss.curvatures(y, z), strict=True):
            if self.by_output and a != b:
                continue
            if self._own is not None:
                curvature = curvature * np.where(y[:, 0] == a, self._own[a], 1.0)
            if weight is not None:
                curvature = curvature * weight
            yield _gathered(curvature) if self.by_output else np.ascontiguousarray(curvature)

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
        # Predictors of a model are contiguous, since loss functions read them many times.
        z = self.theta.reshape(-1, self._columns) @ scaled.T
        due = self.loss.targets(y, self.n_outputs)
        factors = None if self._own is None else own_class_factors(y, self._own)
        for m in range(len(self.theta)):
            z_model = z[m * self.n_outputs : (m + 1) * self.n_outputs].T
            value = self.loss.value(due, z_model)
            sums["loss"][m] += _total(value if factors is None else value * factors, weight)
            if m >= self.gradients:
                continue
            residual = self.loss.slope(due, z_model)
            if factors is not None:
                residual = residual * factors
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
        weighted = workspace["weighted"][: len(scaled)]
        pairs = self._pairs
        for k, curvature in enumerate(self._curvatures(y, z, weight)):
            a, b = pairs[k]
            if a == b:
                # The product of an array and its own transpose costs half of another one. Without
                # "clip", `take` would go through an array of its own.
                rows = np.flatnonzero(curvature)
                curved = np.take(scaled, rows, axis=0, out=weighted[: len(rows)], mode="clip")
                curved *= np.sqrt(curvature[rows])[:, None]
                product = curved.T @ curved
            else:
                np.multiply(scaled, curvature[:, None], out=weighted)
                product = scaled.T @ weighted
            add_packed(hessian[k], product)


def _gathered(curvature: Array) -> Array:
    """Return second derivatives of fewer rows, which stand for the others, (rows,).

    A row with at least twice the mean keeps its own. Of the others, each that brings their running
    sum to another multiple of that gets so much, and the rest 0: systematic sampling, as Madow
    (1949) has it. Rows that a model is sure of have little curvature, and are most of them near the
    optimum.
    """
    least = min(2, len(curvature)) * float(curvature.mean())
    if least == 0.0:
        return curvature
    small = curvature < least
    steps = np.floor(np.cumsum(np.where(small, curvature, 0.0)) / least + 0.5)
    picked: Array = np.diff(steps, prepend=0.0)
    return np.where(small, picked * least, curvature)


def _total(values: Array, weight: Array | None) -> float:
    """Return the weighted sum of values (rows,) or (rows, outputs)."""
    if weight is None:
        return float(values.sum())
    return float(weight @ values.reshape(len(weight), -1).sum(axis=1))
