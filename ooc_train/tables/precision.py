"""Numbers that a floating-point type rounds so far that different values become equal.

Two kinds of columns lose more than the usual last digits. Numbers beyond 2**24 lose units in
float32: all Unix times of one minute become equal. And a column may span few steps of the type,
such as 1e6 + noise of 0.1.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FEW_STEPS = 2**10
"""Fewest steps of the type that a column should span: about 0.1 % of its range each."""

_MOST_MESSAGES = 10
"""Columns with a message of their own."""

_MOST_UNITS = 2.0**53
"""Beyond this size float64 itself has no units, so fractions lose none."""


class Rounded(Exception):
    """Raised if a type rounds a column's numbers too far; a wider type may hold them."""


def narrows(source: np.dtype[Any], dtype: np.dtype[Any]) -> bool:
    """Return whether a floating-point type can't hold all numbers of another type."""
    if source.kind in "iu":
        return 8 * source.itemsize > np.finfo(dtype).nmant + 1
    return not source <= dtype


class Rounding:
    """A check for columns in which rounding to a type makes different numbers equal.

    Parameters
    ----------
    called : callable
        Returns the name of a column for messages, such as "column 'a'".
    strict : bool
        Whether the first such number raises `Rounded`.

    Attributes
    ----------
    lost : ndarray of bool, shape (column,)
        Columns with such numbers; `losses` adds those that span few steps.
    """

    def __init__(
        self,
        n_columns: int,
        called: Callable[[int], str],
        dtype: np.dtype[np.floating] | str,
        *,
        strict: bool = False,
    ) -> None:
        self._called = called
        self._dtype = np.dtype(dtype)
        self._bits = np.finfo(self._dtype).nmant + 1
        self._strict = strict
        self._low = np.full(n_columns, np.inf)
        self._high = np.full(n_columns, -np.inf)
        self._inexact = np.zeros(n_columns, bool)
        self._messages: dict[int, str] = {}
        self.lost = np.zeros(n_columns, bool)

    def observe(
        self,
        values: NDArray[Any],
        of: slice | NDArray[np.intp] = slice(None),
        *,
        whole: bool = False,
    ) -> None:
        """Check numbers (row, column) before they are rounded; NaN is a missing value.

        `of` has the indices of their columns. `whole` says that they were whole before their
        conversion. If strict, a number that would lose units raises `Rounded`.
        """
        source = values.dtype
        whole |= source.kind in "iu"
        if not len(values) or not (narrows(source, self._dtype) or (whole and source.kind == "f")):
            return
        low, high = np.fmin.reduce(values, axis=0), np.fmax.reduce(values, axis=0)
        low, high = low.astype(np.float64), high.astype(np.float64)
        self._low[of] = np.fmin(self._low[of], low)
        self._high[of] = np.fmax(self._high[of], high)
        size = np.maximum(-low, high)
        with np.errstate(invalid="ignore", over="ignore"):  # of infinities, which others refuse
            suspicious = (high - low < _FEW_STEPS * self._steps(size)) | (size > 2.0**self._bits)
        suspicious |= whole & (size >= _MOST_UNITS)
        columns = np.flatnonzero(suspicious & ~self.lost[of])
        if len(columns):
            numbers = np.arange(len(self.lost))[of]
            self._compare(values[:, columns], numbers[columns], whole=whole)

    def _compare(self, values: NDArray[Any], columns: NDArray[np.intp], *, whole: bool) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            rounded = values.astype(self._dtype)
            inexact = (rounded.astype(values.dtype) != values) & (values == values)
        sizes = np.abs(values.astype(np.float64))
        if whole and values.dtype.kind == "f":
            # The conversion to float64 may have rounded whole numbers of this size.
            inexact |= sizes >= _MOST_UNITS
        self._inexact[columns] |= inexact.any(axis=0)
        units = (sizes > 2.0**self._bits) & (sizes < _MOST_UNITS)
        units |= np.isinf(rounded) & np.isfinite(sizes)
        # Larger whole numbers are exact in int64 and in text.
        inexact &= units | (whole & (sizes >= _MOST_UNITS))
        for i in np.flatnonzero(inexact.any(axis=0)):
            row = int(np.argmax(inexact[:, i]))
            value, becomes = values[row, i], rounded[row, i]
            way = "which are too many digits for"
            if np.isinf(becomes):
                way = "which is too much for"
            elif _shown(becomes) != _shown(value):
                way = f"which becomes {_shown(becomes)} in"
            self._lose(int(columns[i]), f"has numbers such as {_shown(value)}, {way} {self._dtype}")

    def _lose(self, column: int, what: str) -> None:
        self.lost[column] = True
        if len(self._messages) < _MOST_MESSAGES:
            self._messages[column] = f"{self._called(column)} {what}"
        if self._strict:
            raise Rounded(self._messages[column])

    def losses(self) -> list[str]:
        """Return messages on columns whose values were rounded; call it after the last row.

        With `strict`, a rounded column raises `Rounded` instead.
        """
        with np.errstate(invalid="ignore"):
            spread = self._high - self._low
            steps = self._steps(np.maximum(-self._low, self._high))
            few = self._inexact & ~self.lost & (spread > 0) & (spread < _FEW_STEPS * steps)
        for column in np.flatnonzero(few):
            self._lose(
                int(column),
                f"goes from {_shown(self._low[column])} to {_shown(self._high[column])}, where "
                f"{self._dtype} has {int(spread[column] / steps[column]) + 1:,} values",
            )
        found = [self._messages[column] for column in sorted(self._messages)]
        if more := int(self.lost.sum()) - len(found):
            found.append(f"{more:,} more columns have such numbers")
        return found

    def _steps(self, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the distance to the next number of the type."""
        with np.errstate(over="ignore", invalid="ignore"):
            steps: NDArray[np.float64] = np.spacing(np.abs(sizes).astype(self._dtype))
            return steps.astype(np.float64)


def _shown(value: np.generic) -> str:
    return f"{value.item():.17g}" if value.dtype.kind == "f" else f"{value}"
