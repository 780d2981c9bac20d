"""How raw columns become features: learned once, from training rows, and applied again.

A recipe is a plain value, and as JSON it can be read and corrected by a person. Applying it takes
two steps. An `Encoder` turns raw values into *records* of fixed size: numbers as such, days, and
codes of categories. `Recipe.expand` turns records into rows of X, where a category is a column for
each of its values. Ingest keeps records on disk between the two, since they are small.
"""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, Self, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ooc_train.core.schema import UnfitError, list_of, or_none, record, scalar, shown, text
from ooc_train.errors import InvalidTable
from ooc_train.tables.batches import Piece
from ooc_train.tables.encoding import Encoder
from ooc_train.tables.features import (
    FIELDS,
    Column,
    ColumnKind,
    Label,
    Missing,
    Records,
    Target,
    Unseen,
    expand_codes,
    slots,
    span,
)
from ooc_train.tables.values import Vocabulary, day_of, text_of

RECIPE_FORMAT = "ooc_train.recipe"
RECIPE_VERSION = 1

_TARGET = record({"name": text, "type": text, "classes": or_none(list_of(scalar))})


@dataclass(frozen=True)
class _Plain:
    """Columns of numbers, or of dates, that become one feature each; all of shape (column,).

    Parameters
    ----------
    places : ndarray of int
        Their features.
    slots : ndarray of int
        Where they are in a record.
    origins : ndarray of float64
        Days that are taken off.
    filled : ndarray of bool
        Whether missing values are replaced, by `fills`.
    fills : ndarray of float64
    """

    places: NDArray[np.intp]
    slots: NDArray[np.intp]
    origins: NDArray[np.float64]
    filled: NDArray[np.bool_]
    fills: NDArray[np.float64]


@dataclass(frozen=True)
class Recipe:
    """How the columns of raw files become X, y, weights and ids.

    Parameters
    ----------
    columns : tuple of Column
    target : Target or None
    sample_weight, id_column : str or None
        Columns that hold weights, and the numbers that rows are known by.
    missing : {"error", "drop", "mean", "median"}
        What becomes of rows without a value.
    unseen : {"error", "other", "ignore"}
        What becomes of values of categories that no training row had.
    dtype : {"float32", "float64"}
        Of X.
    """

    columns: tuple[Column, ...]
    target: Target | None = None
    sample_weight: str | None = None
    id_column: str | None = None
    missing: Missing = "error"
    unseen: Unseen = "error"
    dtype: str = "float32"

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the columns of X."""
        return tuple(name for column in self.columns for name in column.feature_names)

    @property
    def n_features(self) -> int:
        """Columns of X."""
        return len(self.feature_names)

    @property
    def classes(self) -> tuple[Label, ...] | None:
        """Labels in the order of their codes, None where there are none."""
        return None if self.target is None else self.target.classes

    def apply(self, table: Any) -> NDArray[np.floating]:
        """Make X of a table in memory.

        Parameters
        ----------
        table : pyarrow.Table, pyarrow.RecordBatch, pandas.DataFrame or mapping of columns
            With the raw columns of the recipe; others are ignored.

        Returns
        -------
        ndarray of `dtype`, shape (row, feature)
            Without the rows that ``missing="drop"`` leaves out.

        Warns
        -----
        UserWarning
            Numbers that differ may become the same in `dtype`.

        Raises
        ------
        InvalidTable
            A column is absent, or a value is missing, unseen, or of another type.
        """
        encoder = self.encoder(needs_y=False, needs_id=False)
        parts = [self.expand(encoder.encode(piece)) for piece in _pieces(table, encoder.names)]
        for loss in encoder.rounding.losses():
            warnings.warn(
                f"{loss}, as the recipe has it: numbers that differ may have become the same",
                stacklevel=2,
            )
        return np.concatenate(parts) if parts else np.zeros((0, self.n_features), self.dtype)

    def encoder(
        self, *, needs_y: bool, needs_id: bool = True, unseen: Unseen | None = None
    ) -> "Encoder":
        """Give what turns raw values into records.

        Parameters
        ----------
        needs_y : bool
            Whether the target and the weights are needed too.
        needs_id : bool
            Whether the ids are, where there is a column of them.
        unseen : {"error", "other", "ignore"}, optional
            Takes the place of the recipe's.
        """
        classes = self.classes if needs_y else None
        return Encoder(
            self.columns,
            {
                column.name: Vocabulary(column.values, grows=False)
                for column in self.columns
                if column.kind == "category"
            },
            dtype=self.dtype,
            missing=self.missing,
            unseen=unseen or self.unseen,
            target=self.target if needs_y else None,
            labels=None if classes is None else Vocabulary(map(text_of, classes), grows=False),
            sample_weight=self.sample_weight if needs_y else None,
            id_column=self.id_column if needs_id else None,
        )

    def expand(self, records: Records) -> NDArray[np.floating]:
        """Turn records into rows of X, shape (record, feature)."""
        X = np.zeros((len(records), self.n_features), self.dtype)
        for field, taken in self._plain.items():
            if len(taken.places):
                values = records[field][:, span(taken.slots)]
                # In float64, as days since 1970 are.
                X[:, span(taken.places)] = values - taken.origins if field == "dates" else values
                if taken.filled.any():
                    absent = np.isnan(values) & taken.filled
                    rows, columns = np.nonzero(absent)
                    X[rows, taken.places[columns]] = taken.fills[columns]
        for place, column, field, i in self._categories:
            expand_codes(X, place, column, records[field][:, i])
        return X

    @cached_property
    def _plain(self) -> "dict[str, _Plain]":
        """Of numbers and of dates, where they go and what they become."""
        found = {}
        for field in (FIELDS["number"], FIELDS["date"]):
            of = [
                (place, i, column)
                for place, (column, name, i) in zip(self._places, slots(self.columns), strict=True)
                if name == field
            ]
            fills = [column.fill for *_, column in of]
            found[field] = _Plain(
                np.array([place for place, *_ in of], np.intp),
                np.array([i for _, i, _ in of], np.intp),
                np.array([day_of(c.origin) if c.origin else 0.0 for *_, c in of]),
                np.array([fill is not None for fill in fills], bool),
                np.array([0.0 if fill is None else fill for fill in fills]),
            )
        return found

    @cached_property
    def _categories(self) -> list[tuple[int, Column, str, int]]:
        """Of categories, where they go."""
        return [
            (place, *slot)
            for place, slot in zip(self._places, slots(self.columns), strict=True)
            if slot[0].kind == "category"
        ]

    @cached_property
    def _places(self) -> list[int]:
        """The first feature of each column."""
        widths = (len(column.feature_names) for column in self.columns)
        return [0, *accumulate(widths)][:-1]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        blank = Column("", "number", "")
        columns = []
        for column in self.columns:
            held: dict[str, Any] = {"name": column.name, "kind": column.kind, "type": column.type}
            for key in ("fill", "origin", "values", "missing", "other"):
                value = getattr(column, key)
                if value != getattr(blank, key):
                    held[key] = list(value) if isinstance(value, tuple) else value
            columns.append(held)
        target = None
        if self.target is not None:
            target = asdict(self.target)
            target["classes"] = None if self.classes is None else list(self.classes)
        return {
            "format": RECIPE_FORMAT,
            "format_version": RECIPE_VERSION,
            "dtype": self.dtype,
            "missing": self.missing,
            "unseen": self.unseen,
            "target": target,
            "sample_weight": self.sample_weight,
            "id_column": self.id_column,
            "columns": columns,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """From what `to_json` gave.

        Raises
        ------
        ValueError
            It is no recipe, is damaged, or is of a later release.
        """
        try:
            if values["format"] != RECIPE_FORMAT:
                raise ValueError(f"a recipe has the format {RECIPE_FORMAT!r}")
            if values["format_version"] > RECIPE_VERSION:
                raise ValueError(
                    f"the recipe has format version {values['format_version']}, this package reads "
                    f"up to {RECIPE_VERSION}; update ooc_train"
                )
            columns = tuple(
                Column(**{**column, "values": _tuple(column.get("values", []))})
                for column in _tuple(values["columns"])
            )
            target = values["target"]
            if target is not None:
                _TARGET(target, "target")
                classes = target["classes"]
                target = Target(
                    target["name"], target["type"], None if classes is None else _tuple(classes)
                )
            found = cls(
                columns,
                target,
                values["sample_weight"],
                values["id_column"],
                values["missing"],
                values["unseen"],
                values["dtype"],
            )
            _require_sound(found)
        except (KeyError, TypeError, AttributeError, UnfitError) as error:
            reason = str(error) if isinstance(error, UnfitError) else repr(error)
            raise ValueError(f"the recipe is damaged: {reason}") from None
        return found


def _tuple(values: Any) -> tuple[Any, ...]:
    """Give a list of JSON as a tuple: of text it would make one of letters."""
    if not isinstance(values, list):
        raise TypeError(f"{shown(values)} is no list")
    return tuple(values)


def _pieces(table: Any, names: Sequence[str]) -> Iterator[Piece]:
    """Give a table in memory as pieces."""
    if isinstance(table, Mapping):
        table = pa.table(dict(table))
    elif isinstance(table, pa.RecordBatch):
        table = pa.Table.from_batches([table])
    elif not isinstance(table, pa.Table):
        table = pa.Table.from_pandas(table, preserve_index=False)
    if absent := [name for name in names if name not in table.column_names]:
        raise InvalidTable(
            f"the table lacks {', '.join(map(repr, absent))}; it has "
            f"{', '.join(map(repr, table.column_names))}"
        )
    start = 0
    for batch in table.select(list(names)).to_batches():
        yield Piece(batch, first=start, start=start)
        start += batch.num_rows


def _require_sound(recipe: Recipe) -> None:
    """Refuse a recipe, as a person may have changed it, that can't be applied."""
    names = [column.name for column in recipe.columns]
    if not names or len(set(names)) < len(names):
        raise ValueError("the recipe should name at least one column, and none twice")
    for column in recipe.columns:
        if fault := _fault(column):
            raise ValueError(f"the recipe's column {shown(column.name)} has {fault}")
    for name, value in (
        ("target", recipe.target and recipe.target.name),
        ("sample_weight", recipe.sample_weight),
        ("id_column", recipe.id_column),
    ):
        if value is not None and (not isinstance(value, str) or value in names):
            raise ValueError(
                f"the recipe's {name} is {shown(value)}, which should be another column"
            )
    for name, value, known in (
        ("missing", recipe.missing, get_args(Missing)),
        ("unseen", recipe.unseen, get_args(Unseen)),
        ("dtype", recipe.dtype, ("float32", "float64")),
    ):
        if value not in known:
            raise ValueError(f"the recipe's {name} is {shown(value)}; it can be {', '.join(known)}")
    classes: Any = recipe.classes
    if classes is not None:
        texts = {text_of(label) for label in classes if isinstance(label, str | int | float)}
        if len(texts) < max(2, len(classes)):
            raise ValueError("the recipe's target should have at least 2 classes, none twice")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that float64 can't hold
        return False


def _fault(column: Any) -> str | None:
    """Say what of a column can't be used, whose parts may be of any type that JSON has."""
    if not isinstance(column.name, str) or not isinstance(column.type, str):
        return "a name or a type that is no text"
    for flag in ("missing", "other"):
        if not isinstance(getattr(column, flag), bool):
            return f"{flag}={shown(getattr(column, flag))}, which is neither true nor false"
    if column.kind not in get_args(ColumnKind):
        return f"the kind {shown(column.kind)}; it can be {', '.join(get_args(ColumnKind))}"
    if column.fill is not None and not (
        isinstance(column.fill, int | float) and _is_finite(column.fill)
    ):
        return f"the fill {shown(column.fill)}, which is no number"
    if column.origin is not None:
        try:
            day_of(column.origin)
        except (TypeError, ValueError):
            return f"the origin {shown(column.origin)}, which is no date such as 2013-01-31"
    if not all(isinstance(value, str) for value in column.values):
        return "values that are no text"
    if len(set(column.values)) < len(column.values):
        return "a value twice"
    if column.kind == "category" and not column.feature_names:
        return "no values"
    return None
