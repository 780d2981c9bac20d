"""Norms of scaled rows, added up: what the learning rate "auto" follows from."""

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
    """Norms of the scaled rows, and products of all pairs of their columns.

    Attributes
    ----------
    class_weight : float64 array (classes,) or None
        Factors of the rows' weights.
    constant : bool
        Whether the last entry of a scaled row is 1, for the intercept; 0 otherwise.
    with_gram : bool
        Whether products of pairs are added up.
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

        "squares" is the sum of `w n`, and "quartic" the sum of its squares, where `w` is the weight
        of a row and `n` its squared norm.
        """
        names = ("rows", "weight", "squared_weight", "squares", "quartic")
        sums: Sums = {name: np.zeros(()) for name in names}
        if self.with_gram:
            sums["gram"] = np.zeros((self._columns, self._columns))
        return sums

    def workspace(self, rows: int) -> Workspace:
        """Return the scratch arrays of `add`, for blocks of at most `rows` rows."""
        piece = piece_rows(self._columns, square=self.with_gram)
        return {"scaled": ArraySpec((min(rows, piece), self._columns))}

    def made_bytes(self, rows: int) -> int:
        """Return the bytes that `add` allocates: a product of columns, before it is added."""
        del rows
        return array_bytes(self) + (8 * self._columns**2 if self.with_gram else 0)

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
            norms = np.einsum("ij,ij->i", scaled, scaled)
            sums["squares"] += norms.sum()
            sums["quartic"] += norms @ norms
        sums["rows"] += block.n_rows
        sums["weight"] += block.n_rows if weight is None else weight.sum()
        sums["squared_weight"] += block.n_rows if weight is None else weight @ weight
        if not np.isfinite(sums["squares"]):
            raise_if_not_finite(block)
