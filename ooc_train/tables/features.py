"""Raw columns and their features: the entries of a recipe.

Raw values become *records* of fixed size. Their fields are numbers, dates as days, and codes of
categories. `slots` returns the place of each column in a record.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ooc_train.tables.values import MISSING, UNKNOWN

Unseen = Literal["error", "other", "ignore"]
ColumnKind = Literal["number", "date", "category"]
Label = str | int | float | bool
Records = NDArray[np.void]

FIELDS: dict[ColumnKind, str] = {"number": "numbers", "date": "dates", "category": "codes"}
"""The field of a record for each kind of column."""

_FLOATS = ("halffloat", "float", "double")
_CATEGORY_TYPE = pa.dictionary(pa.int32(), pa.string())


@dataclass(frozen=True)
class Column:
    """A raw column that becomes features.

    Parameters
    ----------
    kind : {"number", "date", "category"}
        A number, or a boolean as 0 and 1, is one feature. A date is one feature: days since
        `origin`. A category is one feature for each of `values`: 1 if the row has it, else 0.
    type : str
        The Arrow type in the training data.
    fill : float, optional
        The replacement of a missing number, or of a missing date in days since `origin`.
    origin : str, optional
        The first day of a date column, such as "2013-01-01".
    values : tuple of str
        The values of a category.
    missing, other : bool
        Whether a category has a feature for missing values, and one for other values.
    symbol, date_format : str
        The currency or unit beside a number, and the form of a date, of `CellFormats`; "" is none.
    """

    name: str
    kind: ColumnKind
    type: str
    fill: float | None = None
    origin: str | None = None
    values: tuple[str, ...] = ()
    missing: bool = False
    other: bool = False
    symbol: str = ""
    date_format: str = ""

    @property
    def feature_names(self) -> list[str]:
        """Names of the column's features."""
        if self.kind != "category":
            return [self.name]
        names = [f"{self.name}={value}" for value in self.values]
        names += [f"{self.name} is missing"] if self.missing else []
        return names + ([f"{self.name} is other"] if self.other else [])

    @property
    def zoned(self) -> bool:
        """Whether the column holds times with a zone."""
        return "tz=" in self.type

    @property
    def read_as(self) -> pa.DataType:
        """The Arrow type that text is read as."""
        if self.kind == "date":
            return pa.timestamp("us", "UTC" if self.zoned else None)
        if self.type == "bool":
            return pa.bool_()
        # A category of fractions is read as such, so that 2.0 is the category 2.
        if self.kind == "number" or self.type in _FLOATS:
            return pa.float64()
        return pa.int64() if "int" in self.type else _CATEGORY_TYPE


@dataclass(frozen=True)
class Target:
    """The raw column that a model predicts.

    Parameters
    ----------
    type : str
        The Arrow type in the training data.
    classes : tuple of labels or None
        Class labels in the order of their codes; None if y is the number itself.
    symbol : str
        As in a `Column`.
    """

    name: str
    type: str
    classes: tuple[Label, ...] | None = None
    symbol: str = ""

    @property
    def read_as(self) -> pa.DataType:
        """The Arrow type that text is read as."""
        if self.type == "bool":
            return pa.bool_()
        if self.type == "string":
            return _CATEGORY_TYPE
        return pa.int64() if self._exact else pa.float64()

    @property
    def _exact(self) -> bool:
        """Whether labels are whole numbers that float64 could confuse."""
        return (
            self.classes is not None
            and is_whole(self.type)
            and all(isinstance(label, int) for label in self.classes)
            and max((abs(int(label)) for label in self.classes), default=2**53) >= 2**53
        )


def is_whole(arrow: str) -> bool:
    """Return whether an Arrow type, given by name, is one of whole numbers."""
    return arrow.removeprefix("u").startswith("int")


def slots(columns: Iterable[Column]) -> Iterator[tuple[Column, str, int]]:
    """Yield each column with its field of a record and its index in that field."""
    taken = dict.fromkeys(FIELDS, 0)
    for column in columns:
        yield column, FIELDS[column.kind], taken[column.kind]
        taken[column.kind] += 1


def record_dtype(
    columns: Iterable[Column], dtype: str, *, y: bool, weight: bool, row_id: bool
) -> np.dtype[Any]:
    """Return the dtype of a record: row number, a field for each kind, y, weight and id."""
    kinds = [column.kind for column in columns]
    fields: list[Any] = [
        ("row", "<i8"),
        ("numbers", np.dtype(dtype), (kinds.count("number"),)),
        ("dates", "<f8", (kinds.count("date"),)),
        ("codes", "<i4", (kinds.count("category"),)),
    ]
    fields += [("y", "<f8")] if y else []
    fields += [("weight", "<f8")] if weight else []
    fields += [("id", "<i8")] if row_id else []
    return np.dtype(fields)


def as_slice(places: NDArray[np.intp]) -> slice | NDArray[np.intp]:
    """Return consecutive indices as a slice, which NumPy copies much faster."""
    if len(places) and places[-1] - places[0] == len(places) - 1 and (np.diff(places) == 1).all():
        return slice(int(places[0]), int(places[-1]) + 1)
    return places


def expand_codes(
    X: NDArray[np.floating], first: int, column: Column, codes: NDArray[np.int32]
) -> None:
    """Set the feature of each row's category to 1, in place."""
    places = codes.astype(np.intp)
    known = places >= 0
    for code, has, place in (
        (MISSING, column.missing, len(column.values)),
        (UNKNOWN, column.other, len(column.values) + column.missing),
    ):
        # If no training row was missing, a missing value is treated as unseen.
        same = (codes == code) | ((codes == MISSING) if not column.missing else False)
        if has:
            places[same & ~known] = place
            known |= same
    rows = np.nonzero(known)[0]
    X[rows, first + places[rows]] = 1
