"""Rows of all roles of a store, checked against its arrays before they are written."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ooc_train.store.format.statistics import ColumnStatistics, StatisticsSum
from ooc_train.store.writing.rows import ChunkedRows


class CheckedRows(ChunkedRows):
    """Checks rows, counts classes, and computes statistics while chunks are written.

    Parameters
    ----------
    chunk_rows, first_row : int
        As for `ChunkedRows`.
    statistics : ColumnStatistics or StatisticsSum
        Known statistics, or the sum that chunks are added to.
    class_counts : int64 array (classes,), or None
        Rows of each class so far; None if y holds no codes of classes.
    """

    def __init__(
        self,
        chunk_rows: int,
        statistics: ColumnStatistics | StatisticsSum,
        class_counts: NDArray[np.int64] | None,
        first_row: int = 0,
    ) -> None:
        super().__init__(chunk_rows, first_row)
        self._statistics, self._counts = statistics, class_counts
        self._known_rows = first_row % chunk_rows
        """Rows of the first chunk that the statistics have already."""

    @property
    def path(self) -> str:
        """Path of the store."""
        raise NotImplementedError

    @property
    def _active(self) -> bool:
        """Whether rows can be added."""
        raise NotImplementedError

    def _expected(self, rows: Mapping[str, NDArray[Any]]) -> set[str]:
        """Return the roles that every call of `write` passes; the first call may decide."""
        del rows
        return set(self._arrays)

    def write(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        row_id: ArrayLike | None = None,
    ) -> None:
        """Add rows.

        Parameters
        ----------
        X : array-like, shape (row, feature), or ``(row, *row_shape)``
            Any number of rows.
        y : array-like, shape (row,) or (row, output), optional
            In every call or in none.
        sample_weight : array-like, shape (row,), optional
            Required if the store has weights.
        row_id : array-like of int, shape (row,), optional
            Required if the store has ids.

        Raises
        ------
        NonFiniteData
            NaN, infinity, or a value too large for the array's type.
        ValueError
            If shapes don't fit, a class or an integer is out of range, or a weight is negative.
        OSError
            If the disk is full or not writable.
        """
        arguments = {"X": X, "y": y, "sample_weight": sample_weight, "row_id": row_id}
        rows = {
            role: np.asarray(values) for role, values in arguments.items() if values is not None
        }
        self._check(rows)
        try:
            self._add(rows)
        except BaseException:
            # Some rows may be written: an incomplete store must not be committed.
            self.discard()
            raise

    def _check(self, rows: Mapping[str, NDArray[Any]]) -> None:
        """Check rows against the arrays; the first y decides its type."""
        if not self._active:
            raise ValueError(f"the writer of {self.path} is closed, by commit or by an error")
        expected = self._expected(rows)
        if rows.keys() != expected:
            raise ValueError(
                f"every write to this store takes {', '.join(sorted(expected))}; "
                f"this one has {', '.join(sorted(rows))}"
            )
        count = len(rows["X"]) if rows["X"].ndim else 0
        for role, values in rows.items():
            expected_shape = (count, *self._arrays[role].layout.row_shape)
            if values.shape != expected_shape:
                raise ValueError(f"{role} has shape {values.shape}, it should be {expected_shape}")
            if values.dtype.kind not in "biuf":
                raise ValueError(
                    f"{role} holds {values.dtype}, and numbers are needed; encode it first"
                )

    def _fill(self, rows: Mapping[str, NDArray[Any]], position: int) -> None:
        super()._fill(rows, position)
        if "sample_weight" in rows and (rows["sample_weight"] < 0).any():
            raise ValueError("sample_weight has negative values: weights are >= 0")
        if self._counts is not None:
            self._counts += _count(rows["y"], len(self._counts))

    def _flush(self, rows: int) -> None:
        if isinstance(self._statistics, StatisticsSum):
            weight = self._arrays.get("sample_weight")
            new = slice(self._known_rows, rows)
            X = self._arrays["X"].chunk[new].reshape(rows - new.start, -1)
            self._statistics.add(X, None if weight is None else weight.chunk[new])
        self._known_rows = 0
        super()._flush(rows)


def _count(codes: NDArray[Any], n_classes: int) -> NDArray[np.int64]:
    """Return the rows of each class, after checking that codes are indices into `classes`."""
    indices = codes.astype(np.int64)
    if indices.min() < 0 or indices.max() >= n_classes or (indices != codes).any():
        raise ValueError(
            f"y has values from {codes.min()} to {codes.max()}, with {n_classes} classes it holds "
            f"their indices, 0 to {n_classes - 1}"
        )
    return np.bincount(indices, minlength=n_classes)
