"""Moments of the data: the Gram matrix, and the mean and deviation of each column.

`[columns, 1, outputs]` times its own transpose holds all that least squares ever needs to know: one
product of an array with its own transpose, and one pass.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

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
from ooc_train.objective.scaling import Scaling, piece_rows

_WIDE = np.dtype(np.longdouble).str
"""The type of most digits that there is, which is float64 on some machines."""


@dataclass(frozen=True, eq=False)
class GramSums:
    """Products of all pairs of scaled columns, the constant one, and the outputs.

    Attributes
    ----------
    scaling : of the columns: near enough to the true one, products lose no digits to cancellation
    n_outputs : columns of y to take in, 0 for none
    """

    scaling: Scaling
    n_outputs: int = 0

    @property
    def _columns(self) -> int:
        return self.scaling.n_features + 1 + self.n_outputs

    def zeros(self) -> Sums:
        """Return sums over no rows."""
        return {
            "rows": np.zeros(()),
            "gram": np.zeros((self._columns, self._columns)),
        }

    def workspace(self, rows: int) -> Workspace:
        """Return the arrays that `add` works in, for blocks of at most `rows` rows."""
        return {
            "scaled": ArraySpec((min(rows, piece_rows(self._columns, square=True)), self._columns))
        }

    def made_bytes(self, rows: int) -> int:
        """Return the bytes that a task makes beside sums and workspace: a product of columns."""
        del rows
        return array_bytes(self) + 8 * self._columns**2

    def add(self, sums: Sums, block: Block, workspace: Arrays) -> None:
        """Add the products over one block into `sums`, in place.

        Raises
        ------
        NonFiniteData
            where the block holds NaN or infinity.
        """
        piece, features = len(workspace["scaled"]), self.scaling.n_features
        weight = block.weight
        for start in range(0, block.n_rows, piece):
            rows = slice(start, start + piece)
            scaled = workspace["scaled"][: len(block.X[rows])]
            self.scaling.apply(block.X[rows], scaled[:, : features + 1])
            if self.n_outputs and block.y is not None:
                scaled[:, features + 1 :] = block.y[rows]
            if weight is not None:
                scaled *= np.sqrt(weight[rows])[:, None]
            sums["gram"] += scaled.T @ scaled
        sums["rows"] += block.n_rows
        if not np.isfinite(np.diagonal(sums["gram"])).all():
            raise_if_not_finite(block)


@dataclass(frozen=True, eq=False)
class NormSums:
    """Norms of the scaled rows, and products of all pairs of their columns.

    Attributes
    ----------
    scaling : of the columns
    class_weight : float64 array (classes,), multiplied into the rows' weights by label, or None
    constant : whether a row has a one besides its columns
    with_gram : whether products of pairs are added up too
    """

    scaling: Scaling
    class_weight: Array | None = None
    constant: bool = True
    with_gram: bool = True

    @property
    def _columns(self) -> int:
        return self.scaling.n_features + 1

    def zeros(self) -> Sums:
        """Return sums over no rows.

        Of w the weight and n the squared norm of a row, "squares" adds up w n, and "quartic" the
        square of that.
        """
        names = ("rows", "weight", "squared_weight", "squares", "quartic")
        sums: Sums = {name: np.zeros(()) for name in names}
        if self.with_gram:
            sums["gram"] = np.zeros((self._columns, self._columns))
        return sums

    def workspace(self, rows: int) -> Workspace:
        """Return the arrays that `add` works in, for blocks of at most `rows` rows."""
        piece = piece_rows(self._columns, square=self.with_gram)
        return {"scaled": ArraySpec((min(rows, piece), self._columns))}

    def made_bytes(self, rows: int) -> int:
        """Return the bytes that a task makes beside sums and workspace: a product of columns."""
        del rows
        return array_bytes(self) + (8 * self._columns**2 if self.with_gram else 0)

    def add(self, sums: Sums, block: Block, workspace: Arrays) -> None:
        """Add the sums over one block into `sums`, in place.

        Raises
        ------
        NonFiniteData
            where the block holds NaN or infinity.
        """
        piece = len(workspace["scaled"])
        weight = row_weights(block, self.class_weight)
        for start in range(0, block.n_rows, piece):
            rows = slice(start, start + piece)
            scaled = self.scaling.apply(block.X[rows], workspace["scaled"])
            scaled[:, -1] = float(self.constant)
            if weight is not None:
                scaled *= np.sqrt(weight[rows])[:, None]
            if self.with_gram:
                sums["gram"] += scaled.T @ scaled
            norms = np.einsum("ij,ij->i", scaled, scaled)
            sums["squares"] += norms.sum()
            sums["quartic"] += norms @ norms
        sums["rows"] += block.n_rows
        sums["weight"] += block.n_rows if weight is None else weight.sum()
        sums["squared_weight"] += block.n_rows if weight is None else weight @ weight
        if not np.isfinite(sums["squares"]):
            raise_if_not_finite(block)


@dataclass(frozen=True, eq=False)
class ResidualSums:
    """Products of columns in a basis, the constant one, and the residuals of a linear model.

    The residuals are computed with the digits of `numpy.longdouble`, where that has more than
    float64: of a good model they are small differences of large numbers.

    Attributes
    ----------
    scaling : of the columns
    basis : float64 array (features, directions), by which scaled columns are multiplied
    coef, intercept : of the model, in the data's units, (outputs, features) and (outputs,)
    """

    scaling: Scaling
    basis: Array
    coef: Array
    intercept: Array

    @property
    def _columns(self) -> int:
        return int(self.basis.shape[1]) + 1 + len(self.coef)

    def zeros(self) -> Sums:
        """Return sums over no rows."""
        return {"rows": np.zeros(()), "gram": np.zeros((self._columns, self._columns))}

    def workspace(self, rows: int) -> Workspace:
        """Return the arrays that `add` works in, for blocks of at most `rows` rows."""
        piece, features = min(rows, piece_rows(self._columns, square=True)), len(self.basis)
        return {
            "scaled": ArraySpec((piece, features + 1)),
            "turned": ArraySpec((piece, self._columns)),
            "wide": ArraySpec((piece, features), _WIDE),
            "residual": ArraySpec((piece, len(self.coef)), _WIDE),
        }

    def made_bytes(self, rows: int) -> int:
        """Return the bytes that a task makes beside sums and workspace: a product of columns."""
        del rows
        return array_bytes(self) + 8 * self._columns**2

    def add(self, sums: Sums, block: Block, workspace: Arrays) -> None:
        """Add the products over one block into `sums`, in place.

        Raises
        ------
        NonFiniteData
            where the block holds NaN or infinity.
        """
        if block.y is None:
            raise ValueError("residuals need y, and these data have none")
        piece, directions = len(workspace["scaled"]), self.basis.shape[1]
        coef = self.coef.T.astype(_WIDE)
        for start in range(0, block.n_rows, piece):
            rows = slice(start, start + piece)
            n = len(block.X[rows])
            turned, wide, residual = (
                workspace[name][:n] for name in ("turned", "wide", "residual")
            )
            scaled = self.scaling.apply(block.X[rows], workspace["scaled"])
            np.matmul(scaled[:, :-1], self.basis, out=turned[:, :directions])
            turned[:, directions] = 1.0
            wide[...] = block.X[rows]
            np.matmul(wide, coef, out=residual)
            residual += self.intercept
            np.subtract(block.y[rows], residual, out=residual)
            turned[:, directions + 1 :] = residual
            if block.weight is not None:
                turned *= np.sqrt(block.weight[rows])[:, None]
            sums["gram"] += turned.T @ turned
        sums["rows"] += block.n_rows
        if not np.isfinite(np.diagonal(sums["gram"])).all():
            raise_if_not_finite(block)


@dataclass(frozen=True, eq=False)
class Moments:
    """What the Gram matrix says of scaled data, in those scaled units.

    Attributes
    ----------
    weight : sum of the rows' weights
    mean : of each scaled column, (features,): zero where the scaling was the true one
    covariance : population covariance of the scaled columns, (features, features), times `weight`
    second : uncentred second moments of the scaled columns, (features, features), times `weight`
    output_mean : (outputs,)
    cross, raw_cross : of scaled columns with outputs, centred and not, (features, outputs)
    output_square, raw_output_square : sums of squares of the outputs, centred and not, (outputs,)
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
    def of(cls, gram: Array, n_features: int) -> "Moments":
        """Return the moments that a Gram matrix of `[columns, 1, outputs]` holds."""
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


@dataclass(frozen=True, eq=False)
class ColumnSums:
    """Sums and sums of squares of the columns, about a point near their means.

    Attributes
    ----------
    about : float64 array (features,), subtracted first so that squares lose no digits
    """

    about: Array

    def zeros(self) -> Sums:
        """Return sums over no rows."""
        features = len(self.about)
        return {
            "weight": np.zeros(()),
            "first": np.zeros(features),
            "second": np.zeros(features),
        }

    def workspace(self, rows: int) -> Workspace:
        """Return the arrays that `add` works in, for blocks of at most `rows` rows."""
        piece = min(rows, piece_rows(len(self.about), square=False))
        return {"shifted": ArraySpec((piece, len(self.about)))}

    def made_bytes(self, rows: int) -> int:
        """Return the bytes that a task makes beside sums and workspace: a sum of columns."""
        del rows
        return 2 * array_bytes(self)

    def add(self, sums: Sums, block: Block, workspace: Arrays) -> None:
        """Add the sums over one block into `sums`, in place.

        Raises
        ------
        NonFiniteData
            where the block holds NaN or infinity.
        """
        piece = len(workspace["shifted"])
        for start in range(0, block.n_rows, piece):
            rows = slice(start, start + piece)
            shifted = workspace["shifted"][: len(block.X[rows])]
            np.subtract(block.X[rows], self.about, out=shifted)
            weight = np.ones(len(shifted)) if block.weight is None else block.weight[rows]
            sums["first"] += weight @ shifted
            np.multiply(shifted, shifted, out=shifted)
            sums["second"] += weight @ shifted
            sums["weight"] += weight.sum()
        if not np.isfinite(sums["second"]).all():
            raise_if_not_finite(block)

    def moments(self, sums: Sums) -> "ColumnMoments":
        """Return the moments that the sums over all rows say."""
        offset = sums["first"] / sums["weight"]
        variance = np.maximum(sums["second"] / sums["weight"] - offset**2, 0.0)
        return ColumnMoments(float(sums["weight"]), self.about + offset, variance)

    def scaling(self, sums: Sums, *, centre: bool) -> Scaling:
        """Return the scaling that the sums over all rows say."""
        moments = self.moments(sums)
        return Scaling.of(moments.mean, np.sqrt(moments.variance), centre=centre)


@dataclass(frozen=True, eq=False)
class ColumnMoments:
    """Means and variances of the columns of some rows.

    Attributes
    ----------
    weight : sum of the rows' weights
    mean, variance : population moments, float64 arrays (features,)
    """

    weight: float
    mean: Array
    variance: Array

    def merged(self, other: "ColumnMoments") -> "ColumnMoments":
        """Return the moments of these rows and the others together (Chan et al. 1983)."""
        weight = self.weight + other.weight
        share, apart = other.weight / weight, other.mean - self.mean
        variance = (1.0 - share) * self.variance + share * other.variance
        return ColumnMoments(
            weight, self.mean + share * apart, variance + share * (1.0 - share) * apart**2
        )

    def permuted(self, order: NDArray[np.intp]) -> "ColumnMoments":
        """Return the moments of the columns in another order: column i is `order[i]`."""
        return replace(self, mean=self.mean[order], variance=self.variance[order])
