"""Sums from which standard errors come: information, and products or group sums of scores.

The score of a row is the derivative of its log-likelihood by the parameters.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.packing import add_packed, packed_size
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
from ooc_train.objective.loss import Loss, raise_if_outside
from ooc_train.objective.scaling import Scaling, piece_rows
from ooc_train.stream.row_groups import RowGroups


@dataclass(frozen=True, eq=False)
class InformationSums:
    """The reduction of the sums that give standard errors, at one model of scaled columns.

    Attributes
    ----------
    loss : Loss
        A loss that is minus a log-likelihood, up to its dispersion.
    theta : float64 array (outputs, features + 1)
        Parameters of the scaled columns, intercepts last.
    is_robust : bool
        Whether the information is the observed one, and products of scores are added up. Otherwise
        the information is the expected one.
    groups : RowGroups or None
        Groups whose sums of scores are added up, in place of products of the scores of rows.
    counts : bool
        Whether a weight is the number of equal rows that a row stands for.
    """

    loss: Loss
    scaling: Scaling
    theta: Array
    is_robust: bool = False
    groups: RowGroups | None = None
    counts: bool = False

    @property
    def n_outputs(self) -> int:
        """Number of predictors of a row."""
        return len(self.theta)

    @property
    def n_columns(self) -> int:
        """Number of features, and one for the constant."""
        return int(self.theta.shape[1])

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Pairs of outputs whose information is added up: those that the loss couples."""
        return self.loss.output_pairs(self.n_outputs)

    def zeros(self) -> Sums:
        """Return the sums over no rows: arrays of zeros."""
        outputs, columns = self.theta.shape
        sums: Sums = {name: np.zeros(()) for name in ("rows", "weight", "loss")}
        sums["gradient"] = np.zeros((outputs, columns))
        sums["pearson"] = np.zeros(outputs)
        sums["information"] = np.zeros((len(self.pairs), packed_size(columns)))
        if self.groups is not None:
            sums["scores"] = np.zeros((self.groups.n_groups, outputs * columns))
        elif self.is_robust:
            sums["products"] = np.zeros((len(self.pairs), packed_size(columns)))
        return sums

    def workspace(self, rows: int) -> Workspace:
        """Return the scratch arrays of `add`, for blocks of at most `rows` rows."""
        piece = min(rows, piece_rows(self.n_columns, square=True))
        specs = {name: ArraySpec((piece, self.n_columns)) for name in ("scaled", "weighted")}
        if self.groups is not None:
            specs["sorted"] = ArraySpec((piece, self.n_columns))
        return specs

    def made_bytes(self, rows: int) -> int:
        """Return the bytes that `add` allocates: numbers for each row, and a product of columns."""
        piece = min(rows, piece_rows(self.n_columns, square=True))
        sorted_rows = 0 if self.groups is None else 2 * rows + piece * (self.n_columns + 2)
        numbers = rows + piece * (8 * self.n_outputs + 4) + 2 * self.n_columns**2 + sorted_rows
        return array_bytes(self) + 8 * numbers

    def add(self, sums: Sums, block: Block, workspace: Arrays) -> None:
        """Add the sums over one block into `sums`, in place.

        Raises
        ------
        NonFiniteData
            If the block holds NaN or infinity.
        ValueError
            If a y is outside of the domain of the loss.
        """
        if block.y is None:
            raise ValueError("standard errors need y, and these data have none")
        piece = len(workspace["scaled"])
        codes = None if self.groups is None else self.groups.of_block(block)
        for start in range(0, block.n_rows, piece):
            rows = slice(start, start + piece)
            y = block.y[rows]
            weight = np.ones(len(y)) if block.weight is None else block.weight[rows]
            scaled = self.scaling.apply(block.X[rows], workspace["scaled"])
            with np.errstate(over="ignore", invalid="ignore"):
                self._add_piece(
                    sums, scaled, y, weight, None if codes is None else codes[rows], workspace
                )
        if not np.isfinite(sums["loss"]):
            raise_if_not_finite(block)
            raise_if_outside(self.loss, block)

    def _add_piece(
        self,
        sums: Sums,
        scaled: Array,
        y: Array,
        weight: Array,
        codes: NDArray[np.intp] | None,
        workspace: Arrays,
    ) -> None:
        z = (self.theta @ scaled.T).T
        due = self.loss.targets(y, self.n_outputs)
        losses = self.loss.value(due, z)
        slope = self.loss.slope(due, z)
        sums["rows"] += np.count_nonzero(weight)
        sums["weight"] += weight.sum()
        sums["loss"] += weight @ losses.reshape(len(z), -1).sum(axis=1)
        sums["gradient"] += (slope * weight[:, None]).T @ scaled
        weighted = workspace["weighted"][: len(scaled)]
        for k, curvature in enumerate(self._curvatures(y, due, z)):
            a, b = self.pairs[k]
            np.multiply(scaled, (curvature * weight)[:, None], out=weighted)
            add_packed(sums["information"][k], scaled.T @ weighted)
            if "products" in sums:
                # The score of a row that stands for others is that of each of them.
                squared = weight if self.counts else weight * weight
                np.multiply(scaled, (slope[:, a] * slope[:, b] * squared)[:, None], out=weighted)
                add_packed(sums["products"][k], scaled.T @ weighted)
        if self.loss.kind == "pointwise":
            # The square of the residual over the variance function, for every link.
            share = np.divide(slope**2, self._expected(z), out=np.zeros_like(z), where=slope != 0)
            sums["pearson"] += weight @ share
        if codes is not None:
            self._add_group_scores(
                sums["scores"], scaled, slope * weight[:, None], codes, workspace
            )

    def _curvatures(self, y: Array, due: Array, z: Array) -> Iterator[Array]:
        """Yield the observed or expected second derivative of each of the `pairs`, (rows,)."""
        if self.loss.kind == "rowwise":
            yield from self.loss.curvatures(y, z)
            return
        values = self.loss.curvature(due, z) if self.is_robust else self._expected(z)
        for k in range(self.n_outputs):
            yield values[:, k]

    def _expected(self, z: Array) -> Array:
        """Return the expected second derivative of a pointwise loss, (rows, outputs).

        The second derivative of the log-likelihood of a generalised linear model is linear in y. So
        its expectation is its value at the expected y (McCullagh and Nelder 1989, section 2.5).
        """
        values: Array = self.loss.curvature(self.loss.mean(z), z)
        return values

    def _add_group_scores(
        self, scores: Array, scaled: Array, slope: Array, codes: NDArray[np.intp], workspace: Arrays
    ) -> None:
        """Add the scores of rows to those of their groups, in place."""
        order = np.argsort(codes, kind="stable")
        codes = codes[order]
        first = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]])
        weighted = workspace["weighted"][: len(scaled)]
        in_order = np.take(scaled, order, axis=0, out=workspace["sorted"][: len(scaled)])
        for k in range(self.n_outputs):
            np.multiply(in_order, slope[order, k][:, None], out=weighted)
            own = slice(k * self.n_columns, (k + 1) * self.n_columns)
            scores[codes[first], own] += np.add.reduceat(weighted, first, axis=0)
