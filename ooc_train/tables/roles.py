"""What the columns of raw files are for, settled before more than their first block is read."""

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Literal

import pyarrow as pa

from ooc_train.core.text import brief
from ooc_train.errors import InvalidTable
from ooc_train.tables.batches import Tables
from ooc_train.tables.diagnostics import is_number, too_many_classes
from ooc_train.tables.features import Column, ColumnKind, Missing, Target, Unseen
from ooc_train.tables.names import as_option, some_of
from ooc_train.tables.recipe import Recipe
from ooc_train.tables.row_index import index_columns

Task = Literal["auto", "classification", "regression"]

_FEW_VALUES, _FEW_SHARE = 100, 0.1
"""Values of text that are always few enough for categories, and the share of rows beyond which they
are too many."""


@dataclass(frozen=True)
class Roles:
    """What the columns of raw files are for, as the user says.

    Parameters
    ----------
    target : str, optional
        What is to be predicted.
    features : sequence of str, optional
        The columns that features are made of, in this order; by default all that have no other
        role, and aren't the index of a pandas frame.
    drop : sequence of str
        Columns that are left out.
    categorical : sequence of str
        Columns whose values become a feature each, beside those that the files declare so.
    id_column : str, optional
        Whole numbers that rows are known by; by default their numbers within the files.
    sample_weight : str, optional
    task : {"auto", "classification", "regression"}
        Whether the target's values are labels; auto: those of text and booleans are.
    missing, unseen : as of a `Recipe`
    dtype : {"auto", "float32", "float64"}
        Of X; auto: float32, unless numbers that differ would become the same.
    min_count : int
        Values of categories with fewer training rows are taken as unseen.
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
            raise ValueError(f"features names {some_of(sorted(set(twice)))} more than once")

    def indexes(self, tables: Tables) -> dict[str, str]:
        """Say which columns are left out since they number the rows, and why.

        Raises
        ------
        InvalidTable
            A column that looks like such, and isn't sure to be.
        """
        if self.features is not None:
            return {}
        single = (self.target, self.id_column, self.sample_weight)
        return index_columns(tables, {*single, *self.drop, *self.categorical})

    def sure_labels(self, tables: Tables) -> bool:
        """Say whether the values of the target, if it has labels, were declared to be such."""
        declared = self.target in (*self.categorical, *tables.declared)
        return self.task == "classification" or declared

    def draft(self, tables: Tables, dtype: str | None = None) -> Recipe:
        """Say what becomes of each column, as far as types tell.

        Parameters
        ----------
        tables : Tables
        dtype : {"float32", "float64"}, optional
            In the place of one that is auto, for which it is float32.

        Raises
        ------
        InvalidTable
            A column that doesn't exist; text that nothing declares, all of it at once.
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
        columns = []
        for name in used:
            kind = tables.kind(name)
            if name in categorical and kind != "other":
                columns.append(Column(name, "category", self._category_type(tables, name)))
            elif kind in wrong:
                wrong[kind].append(name)
            else:
                what: ColumnKind = "date" if kind == "date" else "number"
                columns.append(Column(name, what, str(tables.schema.field(name).type)))
        if any(wrong.values()):
            raise InvalidTable(_undeclared(tables, **wrong))
        return Recipe(
            tuple(columns),
            self._target(tables),
            self.sample_weight,
            self.id_column,
            self.missing,
            self.unseen,
            dtype or ("float32" if self.dtype == "auto" else self.dtype),
        )

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
        if kind not in ("number", "boolean", "text"):
            raise InvalidTable(
                f"the target {self.target!r} holds {arrow}; it should be numbers, booleans or text"
            )
        if kind == "text" and self.task == "auto" and not self.sure_labels(tables):
            look = _look_at(tables, [self.target])[self.target]
            if look.many:
                raise too_many_classes(self.target, look.texts, look.rows)
        labels = self.task == "auto" and kind != "number"
        labels |= self.sure_labels(tables)
        if not labels and kind == "text":
            raise InvalidTable(
                f"the target {self.target!r} holds text, and a regression learns numbers; "
                "correct it, or use task='classification'"
            )
        return Target(
            self.target, "string" if kind == "text" else str(arrow), () if labels else None
        )


def _require_known(named: Iterable[str], names: Sequence[str]) -> None:
    known = set(names)
    for name in named:
        if name not in known:
            close = get_close_matches(name, names, 3)
            hint = f"did you mean {' or '.join(map(repr, close))}" if close else ""
            hint = hint or f"there are {some_of(names)}"
            raise InvalidTable(f"there is no column {name!r}; {hint}")


def _undeclared(tables: Tables, text: Sequence[str], other: Sequence[str]) -> str:
    """Say what becomes of columns that are no numbers and that nothing declares."""
    lines = []
    if text:
        found = _look_at(tables, text)
        columns = "\n".join(f"  {name}: {found[name]}" for name in text)
        lines.append(
            f"{len(text)} {'column holds' if len(text) == 1 else 'columns hold'} text, and nothing "
            f"says what it means:\n{columns}"
        )
        flags = [f"  --drop {as_option(text)}"]
        few = [name for name in text if not found[name].many]
        if few:
            flags.insert(0, f"  --categorical {as_option(few)}")
        if few and len(few) < len(text):
            flags[0] += f" --drop {as_option([name for name in text if name not in few])}"
        way = "declare their values as categories, or leave them out" if few else "leave them out"
        lines.append(f"{way}:\n" + "\n".join(flags))
    if other:
        types = ", ".join(f"{name!r} ({tables.schema.field(name).type})" for name in other)
        flags = [f"  --drop {as_option(other)}"]
        lines.append(f"no features can be made of {types}; leave them out:\n" + flags[0])
    return "\n".join(lines)


@dataclass(frozen=True)
class _Look:
    """What the first rows of a text column hold.

    Parameters
    ----------
    texts : list of str
        Its different values.
    rows : int
        That have one.
    """

    texts: list[str]
    rows: int

    @property
    def many(self) -> bool:
        """Whether the values are too many to make a feature of each."""
        return len(self.texts) > max(_FEW_VALUES, _FEW_SHARE * self.rows)

    def __str__(self) -> str:
        # What keeps a column of numbers from being one is what its owner wants to see.
        shown = ", ".join(map(repr, sorted(self.texts, key=is_number)[:3]))
        if mixed := _mixed_zones(self.texts):
            shown = f"{mixed[0]!r} with a zone and {mixed[1]!r} without one: write them in one form"
        if not self.many:
            return f"such as {shown}"
        return (
            f"such as {shown}; {len(self.texts):,} values in the first {self.rows:,} rows, too "
            "many to make a feature of each"
        )


def _look_at(tables: Tables, names: Sequence[str]) -> dict[str, _Look]:
    """Look at the first rows of text columns."""
    with closing(tables.pieces({name: pa.string() for name in names})) as pieces:
        batch = next(pieces).batch
    found = {}
    for name in names:
        values = batch.column(name)
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        try:
            texts = [text for text in values.unique().to_pylist() if text is not None]
        except ValueError as error:
            raise InvalidTable(
                f"column {name!r} of {tables.paths[0]} can't be read as text: {brief(error)}; "
                "correct it, or leave it out (--drop)"
            ) from None
        found[name] = _Look(texts, len(values) - values.null_count)
    return found


def _mixed_zones(texts: Sequence[str]) -> tuple[str, str] | None:
    """Give a time with a zone and one without, where all are times and there are both."""
    zoned: dict[bool, str] = {}
    for text in texts[:_FEW_VALUES]:
        try:
            zoned.setdefault(datetime.fromisoformat(text.strip()).tzinfo is not None, text)
        except ValueError:
            return None
    return (zoned[True], zoned[False]) if len(zoned) == 2 else None
