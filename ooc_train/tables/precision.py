"""Numbers that a floating-point type rounds so far that values which differ become the same.

Two kinds of columns lose more than the digits that every rounding costs. Whole numbers, and those
of like size, beyond 2**24 lose units in float32: Unix times of one minute become one value. And a
column may span few of the steps that the type has at that size, such as 1e6 + noise of 0.1.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FEW_STEPS = 2**10
"""Steps of a type: a column that spans fewer is known to less than 0.1 % of its range."""

_MOST_UNITS = 2.0**53
"""Beyond this float64 itself has no units, so numbers that came as fractions can lose none."""


class Rounded(Exception):
    """A column has numbers that the type can't hold, as the text says; a wider type may."""


class Rounding:
    """Watches numbers that are rounded to a type, and says in which columns that loses values.

    Parameters
    ----------
    names : sequence of str
        What the columns are called in messages, such as "column 'a'".
    dtype : dtype
        A floating-point type.
    strict : bool
        Whether the first such number raises `Rounded`.

    Attributes
    ----------
    lost : dict of int to str
        What is lost, by column, in words; without columns of few steps, which `losses` adds.
    """

    def __init__(
        self, names: Sequence[str], dtype: np.dtype[np.floating] | str, *, strict: bool = False
    ) -> None:
        self._names = names
        self._dtype = np.dtype(dtype)
        self._units = 2.0 ** (np.finfo(self._dtype).nmant + 1)
        self._strict = strict
        self._low = np.full(len(names), np.inf)
        self._high = np.full(len(names), -np.inf)
        self._inexact = np.zeros(len(names), bool)
        self.lost: dict[int, str] = {}

    def look(self, values: NDArray[Any], first: int = 0, *, whole: bool = False) -> None:
        """Look at numbers before they are rounded; NaN is a missing value.

        Parameters
        ----------
        values : ndarray of bool, int or float, shape (row, column)
        first : int
            The number of their first column.
        whole : bool
            Whether they were whole numbers before they became `values`.

        Raises
        ------
        Rounded
            If strict.
        """
        given = values.dtype
        wide = given.kind in "iu" and given.itemsize == 8
        whole |= given.kind in "iu"
        # NumPy calls int64 to float64 safe.
        if not len(values) or (np.can_cast(given, self._dtype) and not whole and not wide):
            return
        if given.itemsize * 8 <= np.finfo(self._dtype).nmant + 1:
            return
        low, high = _extremes(values)
        n = first + len(low)
        np.fmin(self._low[first:n], low, out=self._low[first:n])
        np.fmax(self._high[first:n], high, out=self._high[first:n])
        size = np.maximum(-low, high)
        with np.errstate(invalid="ignore", over="ignore"):  # of infinities, which others refuse
            few = high - low < _FEW_STEPS * self._steps(size)
        suspicious = few | (size > self._units) | (whole & (size >= _MOST_UNITS))
        for column in np.flatnonzero(suspicious):
            self._compare(values[:, column], first + int(column), whole=whole)

    def _compare(self, values: NDArray[Any], column: int, *, whole: bool) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            rounded = values.astype(self._dtype)
            inexact = (rounded.astype(values.dtype) != values) & (values == values)
        if whole and values.dtype.kind == "f":
            # What became fractions of float64 may have been rounded then.
            inexact |= np.abs(values) >= _MOST_UNITS
        if not inexact.any():
            return
        self._inexact[column] = True
        sizes = np.abs(values.astype(np.float64))
        units = (sizes > self._units) & ((sizes < _MOST_UNITS) | whole)
        units |= np.isinf(rounded) & np.isfinite(sizes)
        if column not in self.lost and (inexact & units).any():
            row = int(np.argmax(inexact & units))
            way = "which are too many digits for"
            if np.isinf(rounded[row]):
                way = "which is too much for"
            elif rounded[row] != values[row]:
                way = f"which becomes {_shown(rounded[row])} in"
            self._lose(column, f"has numbers such as {_shown(values[row])}, {way} {self._dtype}")

    def _lose(self, column: int, what: str) -> None:
        self.lost[column] = f"{self._names[column]} {what}"
        if self._strict:
            raise Rounded(self.lost[column])

    def losses(self) -> list[str]:
        """Say, once all numbers were seen, what was lost in each column.

        Raises
        ------
        Rounded
            If strict, and there is any.
        """
        with np.errstate(invalid="ignore"):
            spread = self._high - self._low
            steps = self._steps(np.maximum(-self._low, self._high))
            few = self._inexact & (spread > 0) & (spread < _FEW_STEPS * steps)
        for column in np.flatnonzero(few):
            if int(column) not in self.lost:
                self._lose(
                    int(column),
                    f"goes from {_shown(self._low[column])} to {_shown(self._high[column])}, where "
                    f"{self._dtype} has {int(spread[column] / steps[column]) + 1:,} values",
                )
        return [self.lost[column] for column in sorted(self.lost)]

    def _steps(self, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give the distance to the next number of the type."""
        with np.errstate(over="ignore", invalid="ignore"):
            steps: NDArray[np.float64] = np.spacing(np.abs(sizes).astype(self._dtype))
            return steps.astype(np.float64)


def _extremes(values: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the least and the largest of each column."""
    low, high = np.fmin.reduce(values, axis=0), np.fmax.reduce(values, axis=0)
    return low.astype(np.float64), high.astype(np.float64)


def _shown(value: np.generic) -> str:
    return f"{value.item():.17g}" if value.dtype.kind == "f" else f"{value}"
