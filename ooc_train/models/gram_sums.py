"""Gram matrices added up over rows, and the moments that they hold.

A Gram matrix is the product of `[columns, 1, outputs]` and its transpose. One pass adds up all that
least squares needs.
"""

from dataclasses import dataclass

import numpy as np

from ooc_train.core.packing import add_packed, packed_diagonal, packed_size, unpacked
from ooc_train.core.sums import (
    Array,
    Arrays,
    ArraySpec,
    Block,
    Sums,
    Workspace,
    array_bytes,
    raise_if_not_finite,
    row_weights,
)
from ooc_train.kernels import api as kernels
from ooc_train.kernels.layout import outer_workspace
from ooc_train.kernels.specs import KernelSpec
from ooc_train.objective.losses.squared import Squared
from ooc_train.objective.scaling import Scaling, piece_rows

_SQUARED = Squared()

_LONG = np.dtype(np.longdouble).str
"""The float type with the most digits; on some machines it is float64."""


@dataclass(frozen=True, eq=False)
class GramSums:
    """The reduction of products of all pairs of scaled columns, the constant 1, and outputs.

    Attributes
    ----------
    scaling : Scaling
        Scaling of the columns. If its means are near the true ones, products lose no digits to
        cancellation.
    n_outputs : int
        Number of columns of y, or of classes if y holds class codes.
    compiled : bool
        Whether compiled loops, which take time to load, add the products up.
    loss : Squared
        The loss, whose `outputs` makes the outputs from y.
    class_weight : float64 array (classes,) or None
        Factor of a row's weight by the code of its class.
    """

    scaling: Scaling
    n_outputs: int = 0
    compiled: bool = False
    loss: Squared = _SQUARED
    class_weight: Array | None = None

    @property
    def _columns(self) -> int:
        return self.scaling.n_features + 1 + self.n_outputs

    @property
    def needs(self) -> tuple[KernelSpec, ...]:
        """Kernels that every process loads before memory is measured."""
        return (kernels.OUTER_PRODUCTS,) if self.compiled else ()

    def zeros(self) -> Sums:
        """Return the sums over no rows: arrays of zeros."""
        return {"rows": np.zeros(()), "gram": np.zeros(packed_size(self._columns))}

    def workspace(self, rows: int) -> Workspace:
        """Return the scratch arrays of `add`, for blocks of at most `rows` rows."""
        if self.compiled:
            return outer_workspace(rows, self._columns)
        return {
            "scaled": ArraySpec((min(rows, piece_rows(self._columns, square=True)), self._columns))
        }

    def made_bytes(self, rows: int) -> int:
        """Return the bytes that `add` allocates: weights and targets, or a product of columns."""
        sides = 0 if self.loss.target == "real" else 3 * self.n_outputs
        made = rows * (1 + sides) if self.compiled else self._columns**2
        return array_bytes(self) + 8 * made

    def add(self, sums: Sums, block: Block, workspace: Arrays) -> None:
        """Add the products over one block into `sums`, in place."""
        if self.compiled:
            y, weight = np.empty((block.n_rows, 0)), row_weights(block, self.class_weight)
            if self.n_outputs and block.y is not None:
                y = self.loss.outputs(block.y, self.n_outputs)
            if weight is not None and not weight.all():
                raise_if_not_finite(block)  # the kernel leaves out rows that weigh nothing
            kernels.add_outer_products(
                block.X,
                y,
                np.ones(block.n_rows) if weight is None else weight,
                self.scaling.mean,
                self.scaling.inverse,
                workspace["scaled"],
                workspace["weighted"],
                sums["gram"],
            )
        else:
            self._add_by_blas(sums["gram"], block, workspace)
        sums["rows"] += block.n_rows
        if not np.isfinite(packed_diagonal(sums["gram"], self._columns)).all():
            raise_if_not_finite(block)

    def _add_by_blas(self, gram: Array, block: Block, workspace: Arrays) -> None:
        piece, features = len(workspace["scaled"]), self.scaling.n_features
        weight = row_weights(block, self.class_weight)
        for start in range(0, block.n_rows, piece):
            rows = slice(start, start + piece)
            scaled = workspace["scaled"][: len(block.X[rows])]
            self.scaling.apply(block.X[rows], scaled[:, : features + 1])
            if self.n_outputs and block.y is not None:
                scaled[:, features + 1 :] = self.loss.outputs(block.y[rows], self.n_outputs)
            if weight is not None:
                scaled *= np.sqrt(weight[rows])[:, None]
            add_packed(gram, scaled.T @ scaled)


@dataclass(frozen=True, eq=False)
class ResidualSums:
    """The reduction of products of rotated columns, the constant 1, and a model's residuals.

    Residuals of a good model are small differences of large numbers. They are computed in
    `numpy.longdouble`, which has more digits than float64 on most machines.

    Attributes
    ----------
    basis : float64 array (features, directions)
        Factor of the scaled columns.
    coef : float64 array (outputs, features)
        Coefficients of the model, in the data's units.
    intercept : float64 array (outputs,)
        Intercepts of the model, in the data's units.
    loss : Squared
        The loss, whose `outputs` makes the outputs from y.
    class_weight : float64 array (classes,) or None
        Factor of a row's weight by the code of its class.
    """

    scaling: Scaling
    basis: Array
    coef: Array
    intercept: Array
    loss: Squared = _SQUARED
    class_weight: Array | None = None

    @property
    def _columns(self) -> int:
        return int(self.basis.shape[1]) + 1 + len(self.coef)

    def zeros(self) -> Sums:
        """Return the sums over no rows: arrays of zeros."""
        return {"rows": np.zeros(()), "gram": np.zeros(packed_size(self._columns))}

    def workspace(self, rows: int) -> Workspace:
        """Return the scratch arrays of `add`, for blocks of at most `rows` rows."""
        piece, features = min(rows, piece_rows(self._columns, square=True)), len(self.basis)
        return {
            "scaled": ArraySpec((piece, features + 1)),
            "rotated": ArraySpec((piece, self._columns)),
            "X": ArraySpec((piece, features), _LONG),
            "residual": ArraySpec((piece, len(self.coef)), _LONG),
        }

    def made_bytes(self, rows: int) -> int:
        """Return the bytes that `add` allocates: a product of columns, before it is added."""
        del rows
        return array_bytes(self) + 8 * self._columns**2

    def add(self, sums: Sums, block: Block, workspace: Arrays) -> None:
        """Add the products over one block into `sums`, in place."""
        if block.y is None:
            raise ValueError("residuals need y, and these data have none")
        piece, directions = len(workspace["scaled"]), self.basis.shape[1]
        coef, weight = self.coef.T.astype(_LONG), row_weights(block, self.class_weight)
        for start in range(0, block.n_rows, piece):
            rows = slice(start, start + piece)
            n = len(block.X[rows])
            rotated, X, residual = (workspace[name][:n] for name in ("rotated", "X", "residual"))
            scaled = self.scaling.apply(block.X[rows], workspace["scaled"])
            np.matmul(scaled[:, :-1], self.basis, out=rotated[:, :directions])
            rotated[:, directions] = 1.0
            X[...] = block.X[rows]
            np.matmul(X, coef, out=residual)
            residual += self.intercept
            due = self.loss.outputs(block.y[rows], len(self.coef))
            np.subtract(due, residual, out=residual)
            rotated[:, directions + 1 :] = residual
            if weight is not None:
                rotated *= np.sqrt(weight[rows])[:, None]
            add_packed(sums["gram"], rotated.T @ rotated)
        sums["rows"] += block.n_rows
        if not np.isfinite(packed_diagonal(sums["gram"], self._columns)).all():
            raise_if_not_finite(block)


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments of scaled columns and outputs, from a Gram matrix.

    Attributes
    ----------
    weight : float
        Sum of the rows' weights.
    mean : float64 array (features,)
        Means of the scaled columns: zero if the scaling has the true means.
    covariance, second : float64 array (features, features)
        Sums of products of scaled columns, centred and uncentred.
    output_mean : float64 array (outputs,)
        Means of the outputs.
    cross, raw_cross : float64 array (features, outputs)
        Sums of products of scaled columns and outputs, centred and uncentred.
    output_square, raw_output_square : float64 array (outputs,)
        Sums of squares of the outputs, centred and uncentred.
    """

    weight: float
    mean: Array
    covariance: Array
    second: Array
    output_mean: Array
    cross: Array
    raw_cross: Array
    output_square: Array
    raw_output_square: Array

    @classmethod
    def of(cls, packed: Array, n_features: int, n_outputs: int) -> "Moments":
        """Compute the moments from the packed Gram matrix of `[columns, 1, outputs]`."""
        gram = unpacked(packed, n_features + 1 + n_outputs)
        one, outputs = n_features, slice(n_features + 1, None)
        columns = slice(0, n_features)
        weight = float(gram[one, one])
        mean, output_mean = gram[columns, one] / weight, gram[one, outputs] / weight
        second, raw_cross = gram[columns, columns], gram[columns, outputs]
        raw_square = np.diagonal(gram)[outputs]
        return cls(
            weight,
            mean,
            second - weight * np.outer(mean, mean),
            second,
            output_mean,
            raw_cross - weight * np.outer(mean, output_mean),
            raw_cross,
            raw_square - weight * output_mean**2,
            raw_square,
        )
