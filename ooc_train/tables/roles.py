"""Roles of the columns of raw files, decided after the first block is read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pyarrow as pa

from ooc_train.core.text import listed, meant
from ooc_train.errors import InvalidTable
from ooc_train.tables.arrow import from_texts
from ooc_train.tables.batches import Tables
from ooc_train.tables.cell_formats import PLAIN, CellFormats
from ooc_train.tables.diagnostics import too_many_classes
from ooc_train.tables.features import Column, ColumnKind, Target, Unseen
from ooc_train.tables.format_guesses import guess
from ooc_train.tables.names import Missing, delimiter_advice
from ooc_train.tables.recipe import Recipe
from ooc_train.tables.row_index import index_columns
from ooc_train.tables.undeclared import first_texts, undeclared_columns
from ooc_train.tables.values import WrongValueError

Task = Literal["auto", "classification", "regression"]


@dataclass(frozen=True)
class Roles:
    """The roles of the columns of raw files, as the user sets them.

    Parameters
    ----------
    target : str, optional
        The column to predict.
    features : sequence of str, optional
        The columns that become features, in this order. By default all columns without another
        role, except the index of a pandas frame.
    drop : sequence of str
        Columns that are left out.
    categorical : sequence of str
        Columns whose values become a feature each, besides those that the files declare.
    id_column : str, optional
        Whole numbers that identify rows; by default the row numbers within the files.
    sample_weight : str, optional
        The column of weights.
    task : {"auto", "classification", "regression"}
        Whether the values of the target are labels; auto: text and booleans are.
    missing, unseen : str
        As in a `Recipe`.
    min_count : int
        Values of categories with fewer training rows count as unseen.
    dtype : {"auto", "float32", "float64"}
        The dtype of X; auto: float32, unless different numbers would become equal.
    formats : CellFormats
        How numbers, dates, and yes and no are written in text.
    """

    target: str | None = None
    features: Sequence[str] | None = None
    drop: Sequence[str] = ()
    categorical: Sequence[str] = ()
    id_column: str | None = None
    sample_weight: str | None = None
    task: Task = "auto"
    missing: Missing = "error"
    unseen: Unseen = "error"
    min_count: int = 1
    dtype: str = "auto"
    formats: CellFormats = PLAIN

    def __post_init__(self) -> None:
        allowed = {
            "task": ("auto", "classification", "regression"),
            "missing": ("error", "drop", "mean", "median"),
            "unseen": ("error", "other", "ignore"),
            "dtype": ("auto", "float32", "float64"),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} is none of {', '.join(map(repr, values))}"
                )
        if self.min_count < 1:
            raise ValueError(f"min_count={self.min_count} should be at least 1")
        if self.min_count > 1 and self.unseen == "error":
            raise ValueError(
                f"min_count={self.min_count} makes unseen values of rare ones, which unseen="
                "'error' refuses; use unseen='other' or 'ignore'"
            )
        for name in ("features", "drop", "categorical"):
            if isinstance(getattr(self, name), str):
                raise TypeError(f"{name} is a list of names, not one text")
        if self.features is not None and len(set(self.features)) < len(self.features):
            twice = [name for name in self.features if list(self.features).count(name) > 1]
            raise ValueError(f"features names {listed(sorted(set(twice)))} more than once")

    def indexes(self, tables: Tables) -> dict[str, str]:
        """Return the columns that are left out since they number the rows, with the reason.

        `InvalidTable` is raised for a column that may be one, but is not certain to be.
        """
        if self.features is not None:
            return {}
        single = (self.target, self.id_column, self.sample_weight)
        return index_columns(tables, {*single, *self.drop, *self.categorical})

    def declares_labels(self, tables: Tables) -> bool:
        """Return whether the user or the files declare the values of the target as labels."""
        declared = self.target in (*self.categorical, *tables.declared)
        return self.task == "classification" or declared

    def draft(self, tables: Tables, dtype: str | None = None) -> Recipe:
        """Return a preliminary recipe, as far as the types of the columns decide it.

        `dtype` replaces that of these roles; auto is float32. `InvalidTable` is raised if a column
        doesn't exist, or if columns of text have no declared meaning.
        """
        single = [self.target, self.id_column, self.sample_weight]
        apart = [name for name in single if name is not None]
        named = [*apart, *(self.features or ()), *self.drop, *self.categorical]
        _require_known(named, tables.names)
        if len(set(apart)) < len(apart):
            raise ValueError("target, id_column and sample_weight have to be different columns")
        chosen = tables.names if self.features is None else tuple(self.features)
        indexes = self.indexes(tables)
        left_out = {*apart, *self.drop, *indexes}
        used = [name for name in chosen if name not in left_out]
        if not used:
            raise InvalidTable(f"{tables.paths[0]} has no column left to make features of")
        categorical = {*self.categorical, *tables.declared}
        wrong: dict[str, list[str]] = {"text": [], "other": []}
        formatted = self._formatted(tables, [name for name in used if name not in categorical])
        columns = []
        for name in used:
            kind = tables.kind(name)
            if name in categorical and kind != "other":
                columns.append(Column(name, "category", self._category_type(tables, name)))
            elif name in formatted:
                columns.append(formatted[name])
            elif kind in wrong:
                wrong[kind].append(name)
            else:
                what: ColumnKind = "date" if kind == "date" else "number"
                columns.append(Column(name, what, str(tables.schema.field(name).type)))
        if any(wrong.values()):
            refused = used if self.missing == "error" else []
            raise InvalidTable(undeclared_columns(tables, self.formats, refused, **wrong))
        return Recipe(
            tuple(columns),
            self._target(tables),
            self.sample_weight,
            self.id_column,
            self.missing,
            self.unseen,
            dtype or ("float32" if self.dtype == "auto" else self.dtype),
            self.formats,
            None if tables.dialect.delimiter == "," else tables.dialect.delimiter,
            tables.dialect.encoding,
        )

    def _formatted(self, tables: Tables, names: Sequence[str]) -> dict[str, Column]:
        """Return the columns whose first rows are in the formats of the user."""
        if self.formats == PLAIN:
            return {}
        dates = self.formats.date_formats
        if absent := sorted(dates.keys() - {"", *names}):
            raise InvalidTable(
                f"date_format names {listed(absent)}, which becomes no number or date; "
                f"the columns that do are {listed(names)}"
            )
        tried = [name for name in names if tables.kind(name) == "text" or name in dates]
        found = {}
        rows = tables.first_rows(tried or names)
        for name in tried:
            cells = rows.column(name)
            column = self.formats.column(name, cells)
            if name in dates and (column is None or column.kind != "date"):
                try:
                    self.formats.dates(dates[name], cells)
                except WrongValueError as error:
                    raise InvalidTable(f"a cell of column {name!r} {error.why}") from None
                column = Column(name, "date", "timestamp[us]", date_format=dates[name])
            if column is not None:
                found[name] = column
        if dates.get("") and not any(column.date_format for column in found.values()):
            raise InvalidTable(
                f"no column of text holds dates in the form {dates['']} in its first rows; name "
                f"the column, as in --date-format NAME={dates['']}, or correct the form"
            )
        return found

    def _category_type(self, tables: Tables, name: str) -> str:
        arrow = tables.schema.field(name).type
        if tables.format == "csv":
            return "string"  # as it is written: 01 is not 1
        return str(arrow.value_type if pa.types.is_dictionary(arrow) else arrow)

    def _target(self, tables: Tables) -> Target | None:
        if self.target is None:
            return None
        arrow = tables.schema.field(self.target).type
        kind = tables.kind(self.target)
        if kind == "text" and not self.declares_labels(tables) and self.formats != PLAIN:
            cells = tables.first_rows([self.target]).column(self.target)
            found = replace(self.formats, date_format=None).column(self.target, cells)
            if found is not None and (found.type != "bool" or self.task == "regression"):
                return Target(self.target, found.type, symbol=found.symbol)
        if kind not in ("number", "boolean", "text"):
            raise InvalidTable(
                f"the target {self.target!r} holds {arrow}; it should be numbers, booleans or text"
            )
        if kind == "text" and self.task == "auto" and not self.declares_labels(tables):
            first = first_texts(tables, [self.target])[self.target]
            if first.too_many:
                raise too_many_classes(
                    self.target, first.texts, first.rows, _hint(tables, self.target)
                )
        labels = self.task == "auto" and kind != "number"
        labels |= self.declares_labels(tables)
        if not labels and kind == "text":
            raise InvalidTable(
                f"the target {self.target!r} holds text, and a regression learns numbers"
                f"{_hint(tables, self.target)}; "
                "correct it, or use task='classification'"
            )
        return Target(
            self.target, "string" if kind == "text" else str(arrow), () if labels else None
        )


def _hint(tables: Tables, target: str) -> str:
    """Return text that says how a target of text may be read as numbers."""
    found = guess(from_texts(first_texts(tables, [target])[target].texts))
    return "" if found is None else f"; {found}"


def _require_known(named: Iterable[str], names: Sequence[str]) -> None:
    known = set(names)
    for name in named:
        if name not in known:
            hint = meant(name, names, 3)
            hint = hint or f"there are {listed(names)}{delimiter_advice(names)}"
            raise InvalidTable(f"there is no column {name!r}; {hint}")
