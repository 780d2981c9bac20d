"""Norms of scaled rows, summed: the learning rate "auto" is computed from them."""

from dataclasses import dataclass

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
    row_weights,
)
from ooc_train.objective.scaling import Scaling, piece_rows


@dataclass(frozen=True, eq=False)
class NormSums:
    """The reduction of squared norms of scaled rows, and of second moments of scaled columns.

    Attributes
    ----------
    class_weight : float64 array (classes,) or None
        Factor of a row's weight by the code of its class.
    constant : bool
        Whether the last entry of a scaled row is 1, for the intercept; 0 otherwise.
    with_gram : bool
        Whether the products of all pairs of columns are added up.
    vector : float64 array (features + 1,) or None
        A vector whose product with the matrix of these products is added up.
    """

    scaling: Scaling
    class_weight: Array | None = None
    constant: bool = True
    with_gram: bool = True
    vector: Array | None = None

    @property
    def _columns(self) -> int:
        return self.scaling.n_features + 1

    def zeros(self) -> Sums:
        """Return the sums over no rows: arrays of zeros.

        "squares" is the sum of `w n`, where `w` is the weight of a row and `n` its squared norm. By
        columns `x`, "second" is the sum of `w x ** 2`, and "fourth" that of `w n w x ** 2`.
        """
        sums: Sums = {
            name: np.zeros(()) for name in ("rows", "weight", "squared_weight", "squares")
        }
        sums |= {name: np.zeros(self._columns) for name in ("second", "fourth")}
        if self.with_gram:
            sums["gram"] = np.zeros((self._columns, self._columns))
        if self.vector is not None:
            sums["product"] = np.zeros(self._columns)
        return sums

    def workspace(self, rows: int) -> Workspace:
        """Return the scratch arrays of `add`, for blocks of at most `rows` rows."""
        piece = piece_rows(self._columns, square=self.with_gram)
        return {"scaled": ArraySpec((min(rows, piece), self._columns))}

    def made_bytes(self, rows: int) -> int:
        """Return the bytes that `add` allocates: products, before they are added."""
        piece = self.workspace(rows)["scaled"].shape[0]
        products = self._columns**2 if self.with_gram else self._columns + piece
        return array_bytes(self) + 8 * products

    def add(self, sums: Sums, block: Block, workspace: Arrays) -> None:
        """Add the sums over one block into `sums`, in place."""
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
            if self.vector is not None:
                sums["product"] += (scaled @ self.vector) @ scaled
            norms = np.einsum("ij,ij->i", scaled, scaled)
            sums["squares"] += norms.sum()
            np.multiply(scaled, scaled, out=scaled)
            sums["second"] += scaled.sum(axis=0)
            sums["fourth"] += norms @ scaled
        sums["rows"] += block.n_rows
        sums["weight"] += block.n_rows if weight is None else weight.sum()
        sums["squared_weight"] += block.n_rows if weight is None else weight @ weight
        if not np.isfinite(sums["squares"]):
            raise_if_not_finite(block)
