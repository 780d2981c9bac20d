"""Raw files, CSV and Parquet, one or many, as a stream of Arrow record batches.

A batch comes with its place, so that whatever is wrong with a value can be said with the file and
the row. Nothing is memory-mapped and nothing is read ahead by Arrow itself: what is held are blocks
of text, or the pages of a row group, and the batches made of them.
"""

import glob
import math
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, Literal

import pyarrow as pa

from ooc_train.core.files import read_start, require_regular
from ooc_train.core.schema import shown
from ooc_train.core.units import approximate_bytes
from ooc_train.errors import InvalidTable, TableNotFound
from ooc_train.memory.ceiling import Term
from ooc_train.tables import csv, parquet
from ooc_train.tables.diagnostics import MixedZones, require_encoding, row_place
from ooc_train.tables.names import TABLE, Format, as_option, format_of, require_named
from ooc_train.tables.wide_csv import WideBatch

Kind = Literal["number", "boolean", "date", "text", "empty", "other"]
"""What a raw column holds; "empty" where no value was seen yet, "other" what can't become numbers.
"""


_BATCH_BYTES = 4 * 2**20
"""Of a batch as float64: smaller ones fit caches better, and cost more calls than that gains."""

_FEW_BATCH_ROWS, _LEAST_BATCH_ROWS = 256, 16
"""Rows of a batch where rows are long; and where there is no room for so many: each batch costs
some 0.1 ms a column of Parquet, however few rows it has."""

_COLUMN_BYTES = 2560
"""Of a column, whatever its rows: as it is named in schemas, the recipe, the manifest and its
statistics, each as values and as JSON."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of a raw file, and where they are from.

    Parameters
    ----------
    batch : pyarrow.RecordBatch or WideBatch
    file : str
        The file, or "" for a table in memory.
    first : int
        Number of the first row within the file, from 0.
    start : int
        Number of the first row within all files.
    is_text : bool
        Whether rows of the file are lines.
    share : float
        How much of all files was read when this was, from 0 to 1.
    """

    batch: pa.RecordBatch | WideBatch
    file: str = ""
    first: int = 0
    start: int = 0
    is_text: bool = False
    share: float = 1.0

    def place(self, row: int) -> str:
        """Say where a row of the batch lies."""
        number = self.first + row
        place = row_place(number) if self.is_text else f"row {number:,}"
        return f"{place} of {self.file or 'the table'}"


@dataclass(frozen=True, slots=True)
class Reading:
    """What reading raw files holds, in bytes.

    Parameters
    ----------
    blocks : int
        Of blocks of text, or of pages.
    columns : int
        Of what is known of the columns, whatever their rows.
    row : int
        Of a row, as float64.
    most, least : int
        Rows of a batch, where there is room, and where there isn't.
    batches : int
        Batches that are held beside those that are encoded.
    """

    blocks: int
    columns: int
    row: int
    most: int
    least: int
    batches: int

    def terms(self, rows: int, copies: int) -> list[Term]:
        """Say what is held by batches of so many rows, of which encoding makes so many copies."""
        batch = rows * self.row
        what = f"a batch of {rows:,} rows, {approximate_bytes(batch)}"
        return [
            Term("columns", self.columns, "names, types and statistics, as values and as JSON"),
            Term(
                "reading",
                self.blocks + self.batches * batch,
                "a block or the pages of a row group, twice",
            ),
            Term("encoding", copies * batch, f"{copies} x {what}"),
        ]

    def batch_rows(self, room: int, held: Callable[[int], int]) -> int:
        """Choose the rows of a batch: the most for which what a job holds is within the room."""
        rows = self.most
        while rows > self.least and held(rows) > room:
            rows = max(self.least, rows // 2)
        return rows


@dataclass(frozen=True)
class Tables:
    """Raw files with the same columns; `open_tables` makes one.

    Parameters
    ----------
    paths : tuple of str
    format : {"csv", "parquet"}
    schema : pyarrow.Schema
        Names and types of the columns; of CSV as the first block of the first file has them.
    declared : frozenset of str
        Columns that the files themselves declare as categorical.
    expected_rows : int
        Rows of all files: as Parquet tells, or as the first block of CSV lets expect.
    n_bytes : int
        Bytes of all files.
    typed_by : str
        The file whose types the schema has.
    dialect : Dialect
        Of CSV.
    differing : mapping of str to str
        Columns of Parquet that can't be read as one, and why.
    index : tuple of str
        Columns of Parquet that are the index of a pandas frame.
    unnamed : bool
        Whether the first column of CSV has no name.
    """

    paths: tuple[str, ...]
    format: Format
    schema: pa.Schema
    declared: frozenset[str]
    expected_rows: int
    n_bytes: int
    typed_by: str = ""
    dialect: csv.Dialect = field(default_factory=csv.Dialect)
    differing: Mapping[str, str] = field(default_factory=dict)
    index: tuple[str, ...] = ()
    unnamed: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, in the order of the first file."""
        return tuple(self.schema.names)

    def kind(self, name: str) -> Kind:
        """Say what a column holds."""
        return kind_of(self.schema.field(name).type)

    @cached_property
    def holds(self) -> Reading:
        """What reading holds."""
        row = 8 * len(self.names)
        most = max(_FEW_BATCH_ROWS, _BATCH_BYTES // row)
        # Only long rows come in fewer where room is short: others make the same batches always.
        least = _LEAST_BATCH_ROWS if most * row > _BATCH_BYTES else most
        columns = _COLUMN_BYTES * len(self.names)
        if self.format == "csv":
            # A cell takes a byte at least, so that a block has no more rows.
            most = max(1, min(most, self.dialect.block_bytes // len(self.names)))
            return Reading(self.dialect.room, columns, row, most, min(most, least), 0)
        held = parquet.room(self.paths)
        # One batch that is encoded, and one that is read meanwhile.
        return Reading(held.pages, columns + held.metadata, row, most, least, 2)

    def pieces(
        self, columns: Mapping[str, pa.DataType], rows: int | None = None
    ) -> Generator[Piece, None, None]:
        """Read the files, one after another.

        Parameters
        ----------
        columns : mapping of str to pyarrow.DataType
            The columns that are wanted, and for CSV the types to read them as.
        rows : int, optional
            The most rows of a batch; by default as many as make little of it.

        Raises
        ------
        InvalidTable
            A row of another width, a value of another type, bytes that are no text, columns that
            differ from those of the first file, a file that changed or shrank meanwhile.
        TableNotFound
            A file that is gone.
        """
        for name in columns:
            if name in self.differing:
                raise InvalidTable(
                    f"{self.differing[name]}; write them as one type, or leave it out (--drop "
                    f"{as_option([name])})"
                )
        try:
            yield from self._pieces(columns, rows or self.holds.most)
        except MixedZones as error:
            raise InvalidTable(self._zones(error, columns)) from None

    def _pieces(
        self, columns: Mapping[str, pa.DataType], most: int
    ) -> Generator[Piece, None, None]:
        start, bytes_before = 0, 0
        for path in self.paths:
            if self.format == "csv":
                batches = csv.read_batches(path, self.dialect, columns)
            else:
                batches = parquet.read_batches(path, columns, most)
            first, bytes_read = 0, 0
            with closing(batches):
                for rows, bytes_read in batches:
                    share = min(1.0, (bytes_before + bytes_read) / self.n_bytes)
                    for i in range(0, rows.num_rows, most):
                        batch = rows.slice(i, most)
                        yield Piece(batch, path, first, start, self.format == "csv", share)
                        first += batch.num_rows
                        start += batch.num_rows
            bytes_before += bytes_read

    def _zones(self, error: MixedZones, columns: Mapping[str, pa.DataType]) -> str:
        """Say where the other times of a column are whose zones differ."""
        wanted = columns[error.column]
        rest = "those that were learned from"
        if self.typed_by and has_zone(self.schema.field(error.column).type) == has_zone(wanted):
            rest = "rows before" if self.typed_by == error.path else f"those of {self.typed_by}"
        return f"{error}, unlike {rest}: write all with a zone, or all without one"


def has_zone(arrow: pa.DataType) -> bool:
    """Say whether values of an Arrow type are times with a zone."""
    return bool(pa.types.is_timestamp(arrow)) and arrow.tz is not None


@cache
def kind_of(arrow: pa.DataType) -> Kind:
    """Say what values of an Arrow type are here."""
    types = pa.types
    if types.is_dictionary(arrow):
        return "text"
    kinds: tuple[tuple[Kind, bool], ...] = (
        ("empty", types.is_null(arrow)),
        ("boolean", types.is_boolean(arrow)),
        (
            "number",
            types.is_integer(arrow) or types.is_floating(arrow) or types.is_decimal(arrow),
        ),
        ("date", types.is_date(arrow) or types.is_timestamp(arrow)),
        (
            "text",
            types.is_string(arrow) or types.is_large_string(arrow) or types.is_string_view(arrow),
        ),
    )
    return next((kind for kind, fits in kinds if fits), "other")


def open_tables(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    delimiter: str | None = None,
    encoding: str = "utf8",
) -> Tables:
    """Find raw files and learn their columns, reading no more than the first block.

    Parameters
    ----------
    paths : str, os.PathLike or sequence of these
        Files, patterns such as "part-*.csv", or folders of files. All CSV or all Parquet.
    delimiter : str, optional
        Between the cells of CSV; a tab for .tsv, else a comma.
    encoding : str
        Of CSV.

    Raises
    ------
    TableNotFound
        If nothing lies there.
    InvalidTable
        If a file is empty, is neither CSV nor Parquet, names a column twice, or isn't text in this
        encoding.
    ValueError
        If the delimiter can't be one, or the encoding is none of text.
    """
    if delimiter is not None and (len(delimiter) != 1 or not 0 < ord(delimiter) < 128):
        raise ValueError(f"delimiter={shown(delimiter)} should be one ASCII character, such as ';'")
    if delimiter in ('"', "\n", "\r"):
        raise ValueError(f"delimiter={delimiter!r} has another meaning in CSV; use one such as ';'")
    require_encoding(encoding)
    found = _find(paths)
    for path in found:
        require_regular(path, TABLE)
    formats = {path: format_of(path) or _format_inside(path) for path in found}
    for path, kind in formats.items():
        if os.path.getsize(path) == 0:
            raise InvalidTable(f"{path} is empty: not even a header is in it; leave it out")
        require_named(path, read_start(path, 16))
        if kind is None:
            raise InvalidTable(
                f"{path} is neither CSV nor Parquet, by its name and its first bytes; rename it if "
                "it is one of them, or write it as one"
            )
    if len(set(formats.values())) > 1:
        raise InvalidTable(f"{found[0]} and others mix CSV and Parquet; read one kind at a time")
    if formats[found[0]] == "csv":
        return _open_texts(found, delimiter, encoding)
    return _open_parquet(found)


def _open_texts(paths: tuple[str, ...], delimiter: str | None, encoding: str) -> Tables:
    """Open CSV: files with a header alone tell no types, so the first that has rows does."""
    n_bytes = sum(os.path.getsize(path) for path in paths)
    delimiter = delimiter or ("\t" if ".tsv" in os.path.basename(paths[0]) else ",")
    for path in paths:
        dialect, head = csv.read_head(path, delimiter, encoding)
        if head.rows_per_byte:
            expected = math.ceil(n_bytes * head.rows_per_byte)
            return Tables(
                paths,
                "csv",
                head.schema,
                frozenset(),
                expected,
                n_bytes,
                path,
                dialect,
                unnamed=head.unnamed,
            )
    raise _no_rows(paths, "a header and no rows")


def _open_parquet(paths: tuple[str, ...]) -> Tables:
    """Open Parquet: where a file declares no type of a column, the next one does."""
    n_bytes = sum(os.path.getsize(path) for path in paths)
    schema, n_rows, declared, index = parquet.read_schema(paths[0])
    types = {field.name: (field.type, paths[0]) for field in schema}
    differing: dict[str, str] = {}
    for path in paths[1:]:
        other, more, *_ = parquet.read_schema(path)
        n_rows += more
        for name in set(other.names) & types.keys():
            arrow = other.field(name).type
            known, first = types[name]
            if kind_of(known) == "empty":
                types[name] = arrow, path
            elif kind_of(arrow) != "empty" and _sort_of(arrow) != _sort_of(known):
                differing.setdefault(
                    name, f"column {name!r} holds {known} in {first} and {arrow} in {path}"
                )
    if n_rows == 0:
        raise _no_rows(paths, "no rows")
    schema = pa.schema([(name, types[name][0]) for name in schema.names])
    return Tables(
        paths,
        "parquet",
        schema,
        declared,
        n_rows,
        n_bytes,
        paths[0],
        differing=differing,
        index=index,
    )


def _no_rows(paths: Sequence[str], what: str) -> InvalidTable:
    if len(paths) == 1:
        return InvalidTable(f"{paths[0]} has {what}; leave it out")
    return InvalidTable(f"{paths[0]} and {len(paths) - 1:,} more have {what}; choose others")


def _sort_of(arrow: pa.DataType) -> tuple[Kind, Any]:
    """Say what has to be the same of the types of a column in several files."""
    if pa.types.is_dictionary(arrow):
        return _sort_of(arrow.value_type)
    kind = kind_of(arrow)
    if kind == "date":
        return kind, has_zone(arrow)
    return kind, arrow if kind == "other" else None


def _find(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
) -> tuple[str, ...]:
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    found: list[str] = []
    for path in (os.fspath(item) for item in given):
        if os.path.isdir(path):
            inside = [os.path.join(path, name) for name in sorted(os.listdir(path))]
            files = [file for file in inside if format_of(file) and os.path.isfile(file)]
        elif os.path.lexists(path) or not glob.has_magic(path):
            files = [path]
        else:
            files = sorted(glob.glob(path, recursive=True))
        if not files:
            raise TableNotFound(f"no CSV or Parquet file matches {path}; check the name")
        found += files
    for path in found:
        if not os.path.exists(path):
            raise TableNotFound(f"there is no file {path}; check the name")
    if not found:
        raise TableNotFound("no file was named")
    return tuple(found)


def _format_inside(path: str) -> Format | None:
    """Say what a file is by its first bytes: no CSV goes without a name that says so."""
    return "parquet" if read_start(path, 4) == b"PAR1" else None
