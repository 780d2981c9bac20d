"""Sums of losses and scores with the columns of X permuted, one after another.

A permuted column takes its values from a pool of rows in random order: row i has the value of the
pool's row i + s, modulo the size of the pool. The shift s is drawn for each column and repeat. If
the pool has all rows, this is a random permutation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
)
from ooc_train.explanation.raw_columns import Places
from ooc_train.inference.metrics import PIECE_ROWS, MetricSums
from ooc_train.inference.outputs import Outputs
from ooc_train.models.predictor import LinearPredictor
from ooc_train.objective.loss import raise_if_outside
from ooc_train.runs.fitted import Fitted


@dataclass(frozen=True, eq=False)
class ImportanceSums:
    """The reduction of losses and scores, at first of the rows as they are, then permuted.

    Entry ``1 + repeats * g + r`` of a sum is that of the columns g, in repeat r.

    Attributes
    ----------
    metrics : MetricSums
        The metrics of the model.
    columns : tuple of slice or ndarray
        The columns that are permuted together.
    pool : ndarray of shape (pool + piece, features), in Fortran order
        Rows in random order; the first ones follow the last.
    pool_rows : int
        Rows of the pool, each counted once.
    shifts : int64 array (repeats, columns)
        The shift of each permutation.
    """

    metrics: MetricSums
    columns: tuple[Places, ...]
    pool: NDArray[Any]
    pool_rows: int
    shifts: NDArray[np.int64]

    @property
    def fitted(self) -> Fitted:
        """The model."""
        return self.metrics.fitted

    @property
    def loads(self) -> tuple[Callable[[], None], ...]:
        """Functions that load the libraries of the predictor."""
        return self.metrics.loads

    @property
    def _is_linear(self) -> bool:
        plain = self.fitted.calibration is None  # otherwise z is no longer linear
        return plain and isinstance(self.fitted.predictor, LinearPredictor)

    def zeros(self) -> Sums:
        """Return the sums over no rows, all zero."""
        n, outputs = 1 + self.shifts.size, len(self.metrics.about)
        sums: Sums = {"rows": np.zeros(()), "weight": np.zeros(()), "loss": np.zeros(n)}
        if self.fitted.model.is_classifier:
            return sums | {"hits": np.zeros(n)}
        sums |= {name: np.zeros(outputs) for name in ("first", "second")}
        if self.metrics.has_deviance:
            sums["null"] = np.zeros(())
        return sums | {"residual": np.zeros((n, outputs))}

    def workspace(self, rows: int) -> Workspace:
        """Return the scratch arrays of `add`, for blocks of at most `rows` rows."""
        piece, features = min(rows, PIECE_ROWS), self.fitted.n_features
        specs = {"converted": ArraySpec((piece, features))}
        if self._is_linear:
            return specs | {"columns": ArraySpec((features, piece))}
        return specs | {"changed": ArraySpec((piece, features), self.pool.dtype.str)}

    def made_bytes(self, rows: int) -> int:
        """Return the bytes of the arrays that `add` makes for at most `rows` rows."""
        piece, fitted = min(rows, PIECE_ROWS), self.fitted
        numbers = piece * (10 * fitted.n_outputs + 2 * fitted.n_features + 4)
        return 8 * numbers + fitted.predictor.made_bytes + array_bytes(self)

    def add(self, sums: Sums, block: Block, workspace: Arrays) -> None:
        """Add the sums over one block into `sums`, in place.

        Raises
        ------
        NonFiniteData
            If the block holds NaN or infinity.
        """
        if block.y is None:
            raise ValueError("importances need y, and these data have none")
        for start in range(0, block.n_rows, PIECE_ROWS):
            rows = slice(start, start + PIECE_ROWS)
            weight = None if block.weight is None else block.weight[rows]
            first = block.row_number(start)
            part = Block(block.X[rows], block.y[rows], weight, ((0, first),))
            self._add_piece(sums, part, first, workspace)

    def _add_piece(self, sums: Sums, block: Block, first: int, workspace: Arrays) -> None:
        fitted, y = self.fitted, block.y
        if y is None:
            raise ValueError("importances need y, and these data have none")
        weight = np.ones(block.n_rows) if block.weight is None else block.weight
        z = fitted.decision(block.X, workspace["converted"], first)
        due = fitted.loss.targets(y, fitted.n_outputs)
        sums["rows"] += block.n_rows
        sums["weight"] += weight.sum()
        if not fitted.model.is_classifier:
            shifted = y - self.metrics.about
            sums["first"] += weight @ shifted
            sums["second"] += weight @ shifted**2
            if self.metrics.has_deviance:
                null = np.broadcast_to(self.metrics.null, z.shape)
                sums["null"] += weight @ fitted.loss.value(y, null).sum(axis=1)
        self._add_scores(sums, 0, due, y, z, weight)
        if not np.isfinite(sums["loss"][0]):
            raise_if_not_finite(block)
            raise_if_outside(fitted.loss, block)
        moved = self._moved_linear if self._is_linear else self._moved
        prepared = self._prepared(block, workspace)
        repeats = len(self.shifts)
        for g, places in enumerate(self.columns):
            for r in range(repeats):
                start = (first + int(self.shifts[r, g])) % self.pool_rows
                others = self.pool[start : start + block.n_rows, places]
                found = moved(prepared, z, places, others, workspace, first)
                self._add_scores(sums, 1 + g * repeats + r, due, y, found, weight)
            if not self._is_linear:
                prepared[:, places] = block.X[:, places]

    def _prepared(self, block: Block, workspace: Arrays) -> NDArray[Any]:
        """Return a copy of the rows: by column for linear models, else to be changed."""
        if self._is_linear:
            copy: NDArray[Any] = workspace["columns"].T[: block.n_rows]
        else:
            copy = workspace["changed"][: block.n_rows]
        np.copyto(copy, block.X)
        return copy

    def _moved_linear(
        self,
        X: NDArray[Any],
        z: Array,
        places: Places,
        others: NDArray[Any],
        workspace: Arrays,
        first: int,
    ) -> Array:
        """Return the predictors with columns replaced: each changes by its own product alone."""
        del workspace, first
        changed: Array = (others - X[:, places]) @ self.fitted.coef[:, places].T
        changed += z
        return changed

    def _moved(
        self,
        X: NDArray[Any],
        z: Array,
        places: Places,
        others: NDArray[Any],
        workspace: Arrays,
        first: int,
    ) -> Array:
        """Return the predictors with columns replaced, by a whole prediction."""
        del z
        X[:, places] = others
        return self.fitted.decision(X, workspace["converted"], first)

    def _add_scores(
        self, sums: Sums, k: int, due: Array, y: Array, z: Array, weight: Array
    ) -> None:
        loss = self.fitted.loss
        with np.errstate(over="ignore", invalid="ignore"):
            sums["loss"][k] += weight @ loss.value(due, z).reshape(len(z), -1).sum(axis=1)
            if "hits" in sums:
                sums["hits"][k] += weight @ (Outputs.of(self.fitted).codes(z) == y[:, 0])
            else:
                sums["residual"][k] += weight @ (y - loss.mean(z)) ** 2

    @property
    def score_name(self) -> str:
        """Name of the score: what `score` of estimators returns."""
        if self.fitted.model.is_classifier:
            return "accuracy"
        return "d2" if self.metrics.has_deviance else "r2"

    def losses(self, sums: Sums) -> Array:
        """Return the mean loss of each entry, (entries,)."""
        return np.asarray(sums["loss"] / sums["weight"])

    def scores(self, sums: Sums) -> Array:
        """Return the score of each entry, (entries,)."""
        weight = float(sums["weight"])
        if "hits" in sums:
            return np.asarray(sums["hits"] / weight)
        if self.metrics.has_deviance:
            losses = self.losses(sums)
            return np.array([self.metrics.d2(float(loss), sums, weight) for loss in losses])
        return np.array([self.metrics.r2(each, sums, weight) for each in sums["residual"]])
