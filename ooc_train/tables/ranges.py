"""Running statistics of rows: counts, sums and ranges of numeric columns."""

import numpy as np
from numpy.typing import NDArray


class Ranges:
    """Counts, sums and ranges of numeric columns, row by row; NaN is a missing value."""

    def __init__(self, n: int) -> None:
        self.valid = np.zeros(n, np.int64)
        self.missing = np.zeros(n, np.int64)
        self.total = np.zeros(n)
        self.low = np.full(n, np.inf)
        self.high = np.full(n, -np.inf)

    def add(self, values: NDArray[np.floating]) -> None:
        """Add rows, shape (row, column)."""
        if not values.shape[1]:
            return
        # Column by column: short rows are slow to reduce.
        columns = np.ascontiguousarray(values.T)
        total = columns.sum(axis=1, dtype=np.float64)
        missing = np.zeros(len(total), np.int64)
        # A sum shows NaN at the cost of an addition; only such columns are counted.
        for i in np.nonzero(np.isnan(total))[0]:
            missing[i] = np.isnan(columns[i]).sum()
            total[i] = np.nansum(columns[i], dtype=np.float64)
        self.total += total
        self.missing += missing
        self.valid += len(values) - missing
        np.fmin(self.low, np.fmin.reduce(columns, axis=1), out=self.low)
        np.fmax(self.high, np.fmax.reduce(columns, axis=1), out=self.high)
