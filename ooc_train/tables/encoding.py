"""Encoding of pieces of raw files as records; errors name the place of the value."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ooc_train.core.text import brief, listed
from ooc_train.errors import InvalidTable
from ooc_train.tables.batches import Piece
from ooc_train.tables.cell_formats import PLAIN, CellFormats
from ooc_train.tables.features import (
    FIELDS,
    Column,
    Records,
    Target,
    Unseen,
    as_slice,
    is_whole,
    record_dtype,
    slots,
)
from ooc_train.tables.names import Missing
from ooc_train.tables.precision import Rounding
from ooc_train.tables.values import (
    MISSING,
    UNKNOWN,
    Vocabulary,
    WrongValueError,
    days,
    integers,
    numbers,
    shown_value,
)
from ooc_train.tables.wide_csv import ColumnGroup, WideBatch

_COLUMNS_TOGETHER = 256
"""Columns that are checked together; a check costs as much as about 1,000 numbers."""

_NumberColumns = tuple[NDArray[np.intp], NDArray[np.intp], bool]
"""Columns of a group, their indices among the numbers of a record, and whether they are whole."""


class Encoder:
    """An encoder, which turns pieces of raw files into records.

    Parameters
    ----------
    dtype : {"float32", "float64"}
        The type of numbers.
    missing, unseen : str
        As in a `Recipe`.
    labels : Vocabulary or None
        The labels of a target with classes.
    strict : bool
        Whether a number that `dtype` would round too far raises `Rounded`.
    formats : CellFormats
        How text is written.

    Attributes
    ----------
    rounding : Rounding
        What numbers lose in `dtype`.
    outcomes : Rounding
        What a target of numbers loses in float64.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        vocabularies: Mapping[str, Vocabulary],
        *,
        dtype: str,
        missing: Missing,
        unseen: Unseen,
        target: Target | None = None,
        labels: Vocabulary | None = None,
        sample_weight: str | None = None,
        id_column: str | None = None,
        strict: bool = False,
        formats: CellFormats = PLAIN,
    ) -> None:
        self.vocabularies = vocabularies
        self.labels = labels
        self.dropped = 0
        self._columns = columns
        self._slots = tuple(slots(columns))
        self._missing = missing
        self._unseen = unseen
        self._target = target
        self._weight = sample_weight
        self._id = id_column
        self._converters = formats.converters(columns, target, sample_weight)
        plain = [column.name for column in columns if column.kind == "number"]
        self._number_slots = {
            column.name: (i, is_whole(column.type))
            for column, field, i in self._slots
            if column.kind == "number"
        }
        self._number_columns: dict[ColumnGroup, list[_NumberColumns]] = {}
        self.rounding = Rounding(len(plain), lambda i: f"column {plain[i]!r}", dtype, strict=strict)
        name = "" if target is None else target.name
        self.outcomes = Rounding(1, lambda _: f"the target {name!r}", "float64")
        self.dtype = record_dtype(
            columns,
            dtype,
            y=target is not None,
            weight=sample_weight is not None,
            row_id=id_column is not None,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the raw columns that are read."""
        return tuple(self.types)

    @property
    def types(self) -> dict[str, pa.DataType]:
        """The raw columns that are read, and the types that text is read as."""
        types = {column.name: column.read_as for column in self._columns}
        if self._target is not None:
            types[self._target.name] = self._target.read_as
        if self._weight is not None:
            types[self._weight] = pa.float64()
        if self._id is not None:
            types[self._id] = pa.int64()
        return types | dict.fromkeys(self._converters, pa.string())

    def _column(self, piece: Piece, name: str) -> pa.Array:
        """Return the values of a column; text in formats of people becomes numbers or dates."""
        array = piece.batch.column(name)
        convert = self._converters.get(name)
        return array if convert is None else convert(array)

    def encode(self, piece: Piece) -> Records:
        """Return the records of a piece, without dropped rows.

        `InvalidTable` names file, row and column of a value that is missing, unseen, or mistyped.
        """
        batch = piece.batch
        records = np.zeros(batch.num_rows, self.dtype)
        records["row"] = np.arange(piece.start, piece.start + batch.num_rows)
        kept = np.ones(batch.num_rows, bool)
        fields = {field: records[field] for field in FIELDS.values()}
        with np.errstate(over="ignore"):
            if isinstance(batch, WideBatch):
                self._store_groups(piece, batch, fields)
            else:
                self._store_columns(piece, fields[FIELDS["number"]])
            for column, field, i in self._slots:
                if column.kind == "number":
                    continue
                with _located(piece, column.name):
                    array = self._column(piece, column.name)
                    if column.kind == "category":
                        fields[field][:, i] = self._codes(column, array, kept)
                    else:
                        fields[field][:, i] = days(array, zoned=column.zoned)
        self._handle_missing_numbers(piece, fields, kept)
        self._store_outcomes(piece, records, kept)
        if kept.all():
            return records
        self.dropped += int(len(kept) - kept.sum())
        return records[kept]

    def _store_groups(
        self, piece: Piece, batch: WideBatch, fields: Mapping[str, NDArray[Any]]
    ) -> None:
        """Store the numbers of many columns, all columns of one type at a time."""
        out = fields[FIELDS["number"]]
        for group, array in zip(batch.groups, batch.arrays, strict=True):
            chosen = self._columns_of(group)
            if not any(len(columns) for columns, *_ in chosen):
                continue
            if group.type not in (pa.float64(), pa.int64(), pa.bool_()):
                for columns, indices, _ in chosen:
                    for column, slot in zip(columns, indices, strict=True):
                        with _located(piece, name := group.names[column]):
                            values = numbers(self._column(piece, name))[:, np.newaxis]
                            self._store(values, out, slice(slot, slot + 1), whole=False)
                continue
            values = numbers(array).reshape(batch.num_rows, -1)
            for columns, indices, whole in chosen:
                if len(columns):
                    some = values[:, as_slice(columns)]
                    self._store(some, out, as_slice(indices), whole=whole)

    def _store(
        self,
        values: NDArray[Any],
        out: NDArray[np.floating],
        of: slice | NDArray[np.intp],
        *,
        whole: bool,
    ) -> None:
        self.rounding.observe(values, of, whole=whole)
        out[:, of] = values

    def _columns_of(self, group: ColumnGroup) -> "list[_NumberColumns]":
        """Return the number columns of a group: those of whole numbers, and the others."""
        if group not in self._number_columns:
            found: list[list[tuple[int, int]]] = [[], []]
            for i, name in enumerate(group.names):
                if name in self._number_slots:
                    slot, whole = self._number_slots[name]
                    found[not whole].append((i, slot))
            self._number_columns[group] = [
                (*np.array(pairs, np.intp).reshape(-1, 2).T, whole)
                for pairs, whole in zip(found, (True, False), strict=True)
            ]
        return self._number_columns[group]

    def _store_columns(self, piece: Piece, out: NDArray[np.floating]) -> None:
        """Copy the number columns of a piece to `out`, up to 256 of one type together."""
        found: list[NDArray[Any]] = []
        first, whole = 0, False

        def store() -> None:
            if found:
                self._store(
                    np.stack(found, axis=1), out, slice(first, first + len(found)), whole=whole
                )
                found.clear()

        for name, (slot, is_whole_now) in self._number_slots.items():
            with _located(piece, name):
                values = numbers(self._column(piece, name))
            if found and (
                values.dtype != found[0].dtype
                or is_whole_now != whole
                or len(found) == _COLUMNS_TOGETHER
            ):
                store()
            if not found:
                first, whole = slot, is_whole_now
            found.append(values)
        store()

    def _handle_missing_numbers(
        self, piece: Piece, fields: Mapping[str, NDArray[Any]], kept: NDArray[np.bool_]
    ) -> None:
        """Drop or refuse rows with missing numbers and dates, and refuse infinite ones."""
        wrong: dict[str, set[int]] = {}
        for field in (FIELDS["number"], FIELDS["date"]):
            values = fields[field]
            with np.errstate(over="ignore", invalid="ignore"):
                # Such a value makes the sum of its column NaN or infinite.
                suspects = np.flatnonzero(~np.isfinite(values.sum(axis=0)))
            wrong[field] = set()
            for start in range(0, len(suspects), _COLUMNS_TOGETHER):
                some = suspects[start : start + _COLUMNS_TOGETHER]
                suspected = values[:, as_slice(some)]
                absent, infinite = np.isnan(suspected), np.isinf(suspected).any(axis=0)
                if self._missing == "error":
                    infinite |= absent.any(axis=0)
                elif self._missing == "drop":
                    kept &= ~absent.any(axis=1)
                wrong[field].update(some[infinite].tolist())
        if any(wrong.values()):
            column, field, i = next(
                slot for slot in self._slots if slot[2] in wrong.get(slot[1], ())
            )
            with _located(piece, column.name):
                suspected = fields[field][:, i]
                self._handle_missing(np.isnan(suspected), kept)
                _require_finite(self._column(piece, column.name), suspected)

    def _codes(self, column: Column, array: pa.Array, kept: NDArray[np.bool_]) -> NDArray[np.int32]:
        codes = self.vocabularies[column.name].codes(array)
        if (absent := codes == MISSING).any() and not column.missing:
            self._handle_missing(absent, kept)
        if self._unseen == "error" and (codes == UNKNOWN).any():
            row = int(np.argmax(codes == UNKNOWN))
            raise WrongValueError(
                row,
                f"is {shown_value(array, row)}, which no training row had; choose what becomes of "
                "such values: --unseen other or --unseen ignore",
            )
        return codes

    def _handle_missing(self, absent: NDArray[np.bool_], kept: NDArray[np.bool_]) -> None:
        """Drop or refuse rows with missing values, as the recipe sets."""
        if not absent.any():
            return
        if self._missing == "error":
            raise WrongValueError(
                int(np.argmax(absent)),
                "is missing; choose what becomes of such rows: --missing drop, mean or median",
            )
        if self._missing == "drop":
            kept &= ~absent

    def _store_outcomes(self, piece: Piece, records: Records, kept: NDArray[np.bool_]) -> None:
        """Store y, weights and ids, of which no row may lack any."""
        if self._target is not None:
            with _located(piece, self._target.name):
                array = self._column(piece, self._target.name)
                if self.labels is None:
                    values = numbers(array)
                    self.outcomes.observe(values[:, np.newaxis], whole=is_whole(self._target.type))
                    y = values.astype(np.float64)
                    absent = np.isnan(y)
                else:
                    codes = self.labels.codes(array)
                    if (codes == UNKNOWN).any():
                        row = int(np.argmax(codes == UNKNOWN))
                        raise WrongValueError(
                            row,
                            f"is {shown_value(array, row)}, which is none of the classes "
                            f"{listed(self.labels.values)}",
                        )
                    y, absent = codes.astype(np.float64), codes == MISSING
                if absent.any() and self._missing != "drop":
                    raise WrongValueError(
                        int(np.argmax(absent)),
                        "is missing, and it is the target; leave such rows out (--missing drop)",
                    )
                kept &= ~absent
                records["y"] = y
                _require_finite(array, records["y"])
        if self._weight is not None:
            with _located(piece, self._weight):
                weight = numbers(self._column(piece, self._weight)).astype(np.float64)
                fits = (weight >= 0) & (weight < np.inf)
                if not fits.all():
                    row = int(np.argmin(fits))
                    raise WrongValueError(row, f"is {weight[row]:g}; weights are numbers >= 0")
                records["weight"] = weight
        if self._id is not None:
            with _located(piece, self._id):
                records["id"] = integers(self._column(piece, self._id))


class _located:  # noqa: N801 # reads as a word of the language: with _located(...)
    """A context manager that turns errors into `InvalidTable`, with the place of the value."""

    def __init__(self, piece: Piece, name: str) -> None:
        self._piece, self._name = piece, name

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, WrongValueError):
            raise InvalidTable(
                f"column {self._name!r} in {self._piece.place(error.row)} {error.why}"
            ) from None
        if isinstance(error, pa.ArrowException) and not isinstance(error, MemoryError):
            raise InvalidTable(
                f"column {self._name!r} from {self._piece.place(0)} on can't be used: "
                f"{brief(error)}; correct it, or leave it out (--drop)"
            ) from None


def _require_finite(array: pa.Array, stored: NDArray[np.floating]) -> None:
    wrong = np.isinf(stored)
    if wrong.any():
        row = int(np.argmax(wrong))
        value = float(numbers(array[row : row + 1])[0])
        limit = f", more than {stored.dtype} can hold" if np.isfinite(value) else ""
        raise WrongValueError(row, f"is {value:g}{limit}; correct it, or leave it out")
