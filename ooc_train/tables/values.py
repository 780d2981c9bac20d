"""Conversion of the values of one raw column from Arrow to numbers.

Numbers, booleans and dates become float64, with NaN for a missing value. Dates are days since
1970-01-01. Text becomes the codes of a `Vocabulary`.
"""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ooc_train.core.schema import shown
from ooc_train.core.text import brief
from ooc_train.tables.arrow import to_numpy, valid
from ooc_train.tables.column_kinds import has_zone, kind_of

MISSING = -1
"""Code of a missing value."""

UNKNOWN = -2
"""Code of a value that the vocabulary lacks."""

_DAY_MICROSECONDS = 86_400_000_000
_FIRST_DAY = float(date.min.toordinal() - date(1970, 1, 1).toordinal())
_DAY_AFTER = float(date.max.toordinal() - date(1970, 1, 1).toordinal() + 1)
"""Bounds of days: Python's dates are in the years 1 to 9999."""

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 # days are counted without a zone


class WrongValueError(Exception):
    """Raised for a value that can't become a number; holds its row and the reason as text."""

    def __init__(self, row: int, why: str) -> None:
        super().__init__(why)
        self.row = row
        self.why = why


def numbers(array: pa.Array) -> NDArray[Any]:
    """Return numbers, booleans, or numbers as text: float64, with NaN for missing values.

    Without missing values, numbers and booleans keep their type, which saves a copy. The first
    value that is no number raises `WrongValueError`.
    """
    kind = kind_of(array.type)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if kind == "empty":
        return np.full(len(array), np.nan)
    if kind == "text":
        array = _parsed(array, pa.float64(), "number")
    elif kind not in ("number", "boolean"):
        raise WrongValueError(_first_valid(array), f"holds a {array.type}, which is no number")
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.float64(), safe=False)
    return _with_nan(array)


def days(array: pa.Array, *, zoned: bool) -> NDArray[np.float64]:
    """Return dates or times as days since 1970-01-01, zoned times in UTC; NaN for missing values.

    If `zoned`, times must have a zone; otherwise they must have none. The first value that is no
    date, or has another zone, raises `WrongValueError`.
    """
    kind = kind_of(array.type)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if kind == "text":
        what = "time with a zone" if zoned else "date without a zone"
        array = _parsed(array, pa.timestamp("us", "UTC" if zoned else None), what)
    elif kind not in ("date", "empty"):
        raise WrongValueError(_first_valid(array), f"holds a {array.type}, which is no date")
    elif kind == "date" and has_zone(array.type) != zoned:
        has, had = ("no zone", "a zone") if zoned else ("a zone", "no zone")
        raise WrongValueError(
            _first_valid(array),
            f"is a time with {has} ({array.type}), and the training data had {had}: "
            "bring both to one form",
        )
    zone = getattr(array.type, "tz", None)
    micros = array.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64())
    found: NDArray[np.float64] = _with_nan(micros.cast(pa.float64(), safe=False))
    found = found / _DAY_MICROSECONDS
    outside = (found < _FIRST_DAY) | (found >= _DAY_AFTER)
    if outside.any():
        raise WrongValueError(int(np.argmax(outside)), "is beyond the years 1 to 9999")
    return found


def integers(array: pa.Array) -> NDArray[np.int64]:
    """Return whole numbers exactly, or raise `WrongValueError` at the first other value."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if array.null_count:
        raise WrongValueError(_first_missing(array), "is missing")
    if kind_of(array.type) == "text":
        array = _parsed(array, pa.int64(), "whole number")
    if kind_of(array.type) != "number":
        raise WrongValueError(0, f"holds {array.type}, where whole numbers are needed")
    try:
        found: NDArray[np.int64] = to_numpy(array.cast(pa.int64()))
    except pa.ArrowInvalid:
        values = _with_nan(array.cast(pa.float64(), safe=False))
        row = int(np.argmax((values != np.floor(values)) | (np.abs(values) >= 2.0**63)))
        raise WrongValueError(row, f"is {shown_value(array, row)}, no whole number") from None
    return found


class Vocabulary:
    """A growing or fixed list of values as text; a value's code is its index.

    If the vocabulary `grows`, a new value gets the next code. The text of a whole number doesn't
    depend on its type: a recipe learned from Parquet fits CSV.
    """

    def __init__(self, values: Iterable[str] = (), *, grows: bool) -> None:
        self._codes = {value: code for code, value in enumerate(values)}
        self._grows = grows
        self._last: tuple[pa.Array, NDArray[np.int32]] | None = None
        self.nbytes = 0
        """Approximate bytes of the values that were added."""

    @property
    def values(self) -> list[str]:
        """The distinct values of the column; the value with code i is at index i."""
        return list(self._codes)

    def __len__(self) -> int:
        return len(self._codes)

    def codes(self, array: pa.Array) -> NDArray[np.int32]:
        """Return the codes of values, (rows,); `MISSING` and `UNKNOWN` are less than 0."""
        if not pa.types.is_dictionary(array.type):
            array = array.dictionary_encode()
        if self._last is None or not array.dictionary.equals(self._last[0]):
            # Batches cut from one share its dictionary.
            values = _as_python(array)
            known = np.array([*map(self._code, values), MISSING], np.int32)
            self._last = array.dictionary, known
        known = self._last[1]
        places = to_numpy(array.indices)
        present = valid(array.indices)
        if present is not None:
            # The last entry of `known` is the code of a missing value.
            places = np.where(present, places, len(known) - 1)
        found: NDArray[np.int32] = known[places]
        return found

    def _code(self, value: Any) -> int:
        if value is None or value != value:
            return MISSING
        text = text_of(value)
        code = self._codes.get(text, UNKNOWN)
        if code == UNKNOWN and self._grows:
            code = self._codes[text] = len(self._codes)
            # 160: the string object, its dictionary entry and its number.
            self.nbytes += len(text.encode()) + 160
        return code


def _as_python(array: pa.DictionaryArray) -> list[Any]:
    """Return the dictionary of an encoded array as Python objects.

    A date outside the years 1 to 9999, or text that is no UTF-8, raises `WrongValueError`.
    """
    try:
        found: list[Any] = array.dictionary.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException):
        for code, value in enumerate(array.dictionary):
            try:
                value.as_py()
            except (ValueError, OverflowError, pa.ArrowException) as error:
                rows = np.flatnonzero(to_numpy(array.indices) == code)
                why = f"is a {value.type} that can't be taken as a category: {brief(error)}"
                raise WrongValueError(int(rows[0]) if len(rows) else 0, why) from None
        raise
    return found


def shown_value(array: pa.Array, row: int) -> str:
    """Return a value as text for a message, or its type if Python can't hold it."""
    try:
        return shown(array[row].as_py())
    except (ValueError, OverflowError, pa.ArrowException):
        return f"a {array.type}"


def text_of(value: Any) -> str:
    """Return a value as the text that vocabularies hold."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        # A class is saved as a float: 1.50 and 1.5 are one class.
        near = float(value)
        return text_of(near) if Decimal(repr(near)) == value else f"{value.normalize():f}"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value.isoformat() if isinstance(value, date) else str(value)


def in_order(values: Iterable[str]) -> list[str]:
    """Return sorted values: as numbers if all are numbers, else as text."""
    found = list(values)
    try:
        return sorted(found, key=float)
    except ValueError:
        return sorted(found)


def date_of(days_since_1970: float) -> str:
    """Convert days since 1970-01-01 to text such as "2013-01-01"."""
    return (_EPOCH + timedelta(days=float(np.floor(days_since_1970)))).date().isoformat()


def day_of(text: str) -> float:
    """Convert text such as "2013-01-01" to days since 1970-01-01."""
    return float((date.fromisoformat(text) - _EPOCH.date()).days)


def _parsed(array: pa.Array, to: pa.DataType, what: str) -> pa.Array:
    text = pc.utf8_trim_whitespace(array.cast(pa.string()))
    try:
        return text.cast(to)
    except pa.ArrowInvalid:
        for row, value in enumerate(text):
            try:
                value.cast(to)
            except pa.ArrowInvalid:
                raise WrongValueError(
                    row, f"is {shown_value(text, row)}, which is no {what}"
                ) from None
        raise


def _with_nan(array: pa.Array) -> NDArray[Any]:
    """Return values unchanged, or as float64 with NaN if some are missing."""
    values, present = to_numpy(array), valid(array)
    return values if present is None else np.where(present, values, np.nan)


def _first_missing(array: pa.Array) -> int:
    present = valid(array)
    return 0 if present is None else int(np.argmin(present))


def _first_valid(array: pa.Array) -> int:
    present = valid(array)
    return 0 if present is None else int(np.argmax(present))
