"""Numbers that a floating-point type rounds so far that values which differ become the same.

Two kinds of columns lose more than the digits that every rounding costs. Whole numbers, and those
of like size, beyond 2**24 lose units in float32: Unix times of one minute become one value. And a
column may span few of the steps that the type has at that size, such as 1e6 + noise of 0.1.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FEW_STEPS = 2**10
"""Steps of a type: a column that spans fewer is known to less than 0.1 % of its range."""

_MOST_TOLD = 10
"""Columns that are told of one by one."""

_MOST_UNITS = 2.0**53
"""Beyond this float64 itself has no units, so numbers that came as fractions can lose none."""


class Rounded(Exception):
    """A column has numbers that the type can't hold, as the text says; a wider type may."""


def narrows(given: np.dtype[Any], dtype: np.dtype[Any]) -> bool:
    """Say whether a floating-point type can't hold all numbers of another type."""
    if given.kind in "iu":
        return 8 * given.itemsize > np.finfo(dtype).nmant + 1
    return not given <= dtype


class Rounding:
    """Watches numbers that are rounded to a type, and says in which columns that loses values.

    Parameters
    ----------
    n_columns : int
    called : callable
        Says what a column is called in messages, such as "column 'a'".
    dtype : dtype
        A floating-point type.
    strict : bool
        Whether the first such number raises `Rounded`.

    Attributes
    ----------
    lost : ndarray of bool, shape (column,)
        Which columns had such numbers; those of few steps are added by `losses`.
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
        self._told: dict[int, str] = {}
        self.lost = np.zeros(n_columns, bool)

    def look(
        self,
        values: NDArray[Any],
        of: slice | NDArray[np.intp] = slice(None),
        *,
        whole: bool = False,
    ) -> None:
        """Look at numbers before they are rounded; NaN is a missing value.

        Parameters
        ----------
        values : ndarray of bool, int or float, shape (row, column)
        of : slice or ndarray of int
            The numbers of their columns.
        whole : bool
            Whether they were whole numbers before they became `values`.

        Raises
        ------
        Rounded
            If strict.
        """
        given = values.dtype
        whole |= given.kind in "iu"
        if not len(values) or not (narrows(given, self._dtype) or (whole and given.kind == "f")):
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
            # What became fractions of float64 may have been rounded then.
            inexact |= sizes >= _MOST_UNITS
        self._inexact[columns] |= inexact.any(axis=0)
        units = (sizes > 2.0**self._bits) & (sizes < _MOST_UNITS)
        units |= np.isinf(rounded) & np.isfinite(sizes)
        # Whole numbers beyond are exact in int64, and were in text.
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
        if len(self._told) < _MOST_TOLD:
            self._told[column] = f"{self._called(column)} {what}"
        if self._strict:
            raise Rounded(self._told[column])

    def losses(self) -> list[str]:
        """Say, once all numbers were seen, what was lost in each column; of many, the first ones.

        Raises
        ------
        Rounded
            If strict, and there is any.
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
        found = [self._told[column] for column in sorted(self._told)]
        if more := int(self.lost.sum()) - len(found):
            found.append(f"{more:,} more columns have such numbers")
        return found

    def _steps(self, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give the distance to the next number of the type."""
        with np.errstate(over="ignore", invalid="ignore"):
            steps: NDArray[np.float64] = np.spacing(np.abs(sizes).astype(self._dtype))
            return steps.astype(np.float64)


def _shown(value: np.generic) -> str:
    return f"{value.item():.17g}" if value.dtype.kind == "f" else f"{value}"
