"""Recipes: how raw columns become features, learned from training rows and applied again.

A recipe is a plain value; users can read and correct its JSON. It is applied in two steps. An
`Encoder` turns raw values into *records* of fixed size: numbers, days, and codes of categories.
`Recipe.expand` turns records into rows of X, with a column for each value of a category. Ingest
keeps records on disk between both steps, since records are small.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import accumulate
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ooc_train.core.schema import UnfitError
from ooc_train.errors import InvalidTable
from ooc_train.tables.batches import Piece
from ooc_train.tables.cell_formats import PLAIN, CellFormats
from ooc_train.tables.diagnostics import require_encoding
from ooc_train.tables.encoding import Encoder
from ooc_train.tables.features import (
    FIELDS,
    Column,
    Label,
    Records,
    Target,
    Unseen,
    as_slice,
    expand_codes,
    slots,
)
from ooc_train.tables.names import Missing, require_delimiter
from ooc_train.tables.recipe_schema import RECIPE_FORMAT, RECIPE_VERSION, require_recipe
from ooc_train.tables.values import Vocabulary, day_of, text_of


@dataclass(frozen=True)
class _SingleFeatures:
    """Columns of numbers, or of dates, that become one feature each; arrays of shape (column,).

    Parameters
    ----------
    slots : ndarray of int
        Their indices in the field of a record.
    origins : ndarray of float64
        Days that are subtracted.
    filled : ndarray of bool
        Whether missing values are replaced by `fills`.
    fills : ndarray of float64
        Replacements of missing values.
    """

    features: NDArray[np.intp]
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
        The columns that become features.
    target : Target or None
        The column of y.
    sample_weight, id_column : str or None
        Columns of weights and of row ids.
    missing : {"error", "drop", "mean", "median"}
        How missing values are treated.
    unseen : {"error", "other", "ignore"}
        How values of categories without a training row are treated.
    dtype : {"float32", "float64"}
        The dtype of X.
    formats : CellFormats
        How numbers, dates, and yes and no are written in text.
    delimiter : str or None
        The character between cells of the training files; None for commas, and without CSV.
    encoding : str
        The encoding of the training files, if they were CSV.
    """

    columns: tuple[Column, ...]
    target: Target | None = None
    sample_weight: str | None = None
    id_column: str | None = None
    missing: Missing = "error"
    unseen: Unseen = "error"
    dtype: str = "float32"
    formats: CellFormats = PLAIN
    delimiter: str | None = None
    encoding: str = "utf8"

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the columns of X."""
        return tuple(name for column in self.columns for name in column.feature_names)

    @property
    def n_features(self) -> int:
        """Number of columns of X."""
        return len(self.feature_names)

    @property
    def classes(self) -> tuple[Label, ...] | None:
        """Class labels in the order of their codes; None without classes."""
        return None if self.target is None else self.target.classes

    def apply(self, table: Any) -> NDArray[np.floating]:
        """Return X of a table in memory.

        Parameters
        ----------
        table : pyarrow.Table, pyarrow.RecordBatch, pandas.DataFrame or mapping of columns
            A table with the raw columns of the recipe; other columns are ignored.

        Returns
        -------
        ndarray of `dtype`, shape (row, feature)
            The features, without the rows that ``missing="drop"`` drops.

        Warns
        -----
        UserWarning
            If different numbers may become equal in `dtype`.

        Raises
        ------
        InvalidTable
            If a column is absent, or a value is missing, unseen, or has another type.
        """
        encoder = self.encoder(needs_y=False, needs_id=False)
        parts = [self.expand(encoder.encode(piece)) for piece in _pieces(table, encoder.names)]
        for loss in encoder.rounding.losses():
            warnings.warn(
                f"{loss}, the dtype of the recipe: different numbers may have become equal",
                stacklevel=2,
            )
        return np.concatenate(parts) if parts else np.zeros((0, self.n_features), self.dtype)

    def encoder(
        self, *, needs_y: bool, needs_id: bool = True, unseen: Unseen | None = None
    ) -> "Encoder":
        """Return an encoder from raw values to records.

        Parameters
        ----------
        needs_y : bool
            Whether records hold the target and the weight.
        needs_id : bool
            Whether records hold the id, if the recipe has a column of ids.
        unseen : {"error", "other", "ignore"}, optional
            Replaces the setting of the recipe.
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
            formats=self.formats,
        )

    def expand(self, records: Records) -> NDArray[np.floating]:
        """Return rows of X for records, shape (record, feature)."""
        X = np.zeros((len(records), self.n_features), self.dtype)
        for field, single in self._single_features.items():
            if len(single.features):
                values = records[field][:, as_slice(single.slots)]
                # Dates are subtracted in float64, and then rounded.
                shifted = values - single.origins if field == "dates" else values
                X[:, as_slice(single.features)] = shifted
                if single.filled.any():
                    absent = np.isnan(values) & single.filled
                    rows, columns = np.nonzero(absent)
                    X[rows, single.features[columns]] = single.fills[columns]
        for place, column, field, i in self._categories:
            expand_codes(X, place, column, records[field][:, i])
        return X

    @cached_property
    def _single_features(self) -> "dict[str, _SingleFeatures]":
        """The number and the date columns, by name of the field of a record."""
        found = {}
        for field in (FIELDS["number"], FIELDS["date"]):
            chosen = [
                (place, i, column)
                for place, (column, name, i) in zip(
                    self._first_features, slots(self.columns), strict=True
                )
                if name == field
            ]
            fills = [column.fill for *_, column in chosen]
            found[field] = _SingleFeatures(
                np.array([place for place, *_ in chosen], np.intp),
                np.array([i for _, i, _ in chosen], np.intp),
                np.array([day_of(c.origin) if c.origin else 0.0 for *_, c in chosen]),
                np.array([fill is not None for fill in fills], bool),
                np.array([0.0 if fill is None else fill for fill in fills]),
            )
        return found

    @cached_property
    def _categories(self) -> list[tuple[int, Column, str, int]]:
        """For each category: first feature, column, field of the record, index in the field."""
        return [
            (place, *slot)
            for place, slot in zip(self._first_features, slots(self.columns), strict=True)
            if slot[0].kind == "category"
        ]

    @cached_property
    def _first_features(self) -> list[int]:
        """Index of the first feature of each column."""
        widths = (len(column.feature_names) for column in self.columns)
        return [0, *accumulate(widths)][:-1]

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as JSON values."""
        blank = Column("", "number", "")
        columns = []
        for column in self.columns:
            held: dict[str, Any] = {"name": column.name, "kind": column.kind, "type": column.type}
            for key in ("fill", "origin", "values", "missing", "other", "symbol", "date_format"):
                value = getattr(column, key)
                if value != getattr(blank, key):
                    held[key] = list(value) if isinstance(value, tuple) else value
            columns.append(held)
        target = None
        if self.target is not None:
            target = asdict(self.target)
            target["classes"] = None if self.classes is None else list(self.classes)
            if not self.target.symbol:
                del target["symbol"]
        formats = self.formats.to_json()
        # Releases that don't know these read other files by options alone.
        files = {name: getattr(self, name) for name in ("delimiter", "encoding")}
        known = {name: value for name, value in files.items() if value != getattr(Recipe, name)}
        return {
            "format": RECIPE_FORMAT,
            # Releases that know no formats refuse a recipe with some, and read any other.
            "format_version": RECIPE_VERSION if formats else 1,
            "dtype": self.dtype,
            "missing": self.missing,
            "unseen": self.unseen,
            "target": target,
            "sample_weight": self.sample_weight,
            "id_column": self.id_column,
            "columns": columns,
        } | (known | ({"formats": formats} if formats else {}))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Make a recipe from the values of `to_json`.

        Raises
        ------
        ValueError
            If the values are no recipe, are damaged, or are of a later release.
        """
        try:
            require_recipe(values)
        except UnfitError as error:
            raise ValueError(f"the recipe is damaged: {error}") from None
        settings = {each.name: values[each.name] for each in fields(cls) if each.name in values}
        try:
            settings["formats"] = CellFormats(**values.get("formats", {}))
        except ValueError as error:
            raise ValueError(f"the recipe is damaged: formats: {error}") from None
        try:
            require_delimiter(values.get("delimiter"))
            require_encoding(values.get("encoding", "utf8"))
        except ValueError as error:
            raise ValueError(f"the recipe is damaged: {error}") from None
        columns = (
            Column(**{**column, "values": tuple(column.get("values", ()))})
            for column in values["columns"]
        )
        target = values["target"]
        if target is not None:
            classes = target["classes"]
            target = Target(
                target["name"],
                target["type"],
                None if classes is None else tuple(classes),
                target.get("symbol", ""),
            )
        return cls(**{**settings, "columns": tuple(columns), "target": target})


def _pieces(table: Any, names: Sequence[str]) -> Iterator[Piece]:
    """Yield a table in memory as pieces."""
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
