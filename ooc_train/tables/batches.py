"""Raw files, CSV and Parquet, one or many, as a stream of Arrow record batches.

Each batch has its place, so that errors name the file and the row. Arrow neither maps files nor
prefetches. Memory holds blocks of text, or the pages of a row group, and the batches made of them.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property, partial

import pyarrow as pa

from ooc_train.core.text import counted
from ooc_train.core.units import approximate_bytes
from ooc_train.errors import InvalidTable
from ooc_train.memory.ceiling import Term
from ooc_train.tables import csv, parquet
from ooc_train.tables.column_kinds import Kind, has_zone, kind_of
from ooc_train.tables.csv_blocks import Dialect
from ooc_train.tables.diagnostics import MixedZones, row_place
from ooc_train.tables.names import Format, as_option
from ooc_train.tables.wide_csv import WideBatch

_BATCH_BYTES = 4 * 2**20
"""Bytes of a batch as float64; smaller batches cost more in calls than they gain in cache."""

_FEW_BATCH_ROWS, _LEAST_BATCH_ROWS = 256, 16
"""Rows of a batch of long rows: by default, and at least where memory is short.

A batch of Parquet costs about 0.1 ms a column, however few rows it has.
"""

_COLUMN_BYTES = 2560
"""Bytes of a column, independent of its rows: entries of schemas, recipe, manifest, statistics.

Each exists as a value and as JSON.
"""


@dataclass(frozen=True, slots=True)
class Piece:
    """A batch of rows of a raw file, with the rows' place.

    Parameters
    ----------
    file : str
        The file, or "" for a table in memory.
    first : int
        Number of the first row within the file, from 0.
    start : int
        Number of the first row within all files.
    is_text : bool
        Whether rows of the file are lines.
    share : float
        Share of the bytes of all files that was read so far, from 0 to 1.
    """

    batch: pa.RecordBatch | WideBatch
    file: str = ""
    first: int = 0
    start: int = 0
    is_text: bool = False
    share: float = 1.0

    def place(self, row: int) -> str:
        """Return text with the place of a row of the batch: file and row number."""
        number = self.first + row
        place = row_place(number) if self.is_text else f"row {number:,}"
        return f"{place} of {self.file or 'the table'}"


@dataclass(frozen=True, slots=True)
class ReadingMemory:
    """The bytes that the reader of raw files holds.

    Parameters
    ----------
    blocks : int
        Bytes of blocks of text, or of pages.
    columns : int
        Bytes of what is known of the columns, independent of their rows.
    row : int
        Bytes of a row as float64.
    most, least : int
        Rows of a batch: by default, and where memory is short.
    batches : int
        Number of batches beside the copies for encoding.
    """

    blocks: int
    columns: int
    row: int
    most: int
    least: int
    batches: int

    def terms(self, rows: int, copies: int) -> list[Term]:
        """Return the plan's terms for batches of `rows` rows, with `copies` copies for encoding."""
        batch = rows * self.row
        what = f"a batch of {counted(rows, 'row')}, {approximate_bytes(batch)}"
        return [
            Term("columns", self.columns, "names, types and statistics, as values and as JSON"),
            Term(
                "reading",
                self.blocks + self.batches * batch,
                "a block or the pages of a row group, twice",
            ),
            Term("encoding", copies * batch, f"{copies} x {what}"),
        ]

    def batch_rows(self, available: int, held: Callable[[int], int]) -> int:
        """Return the rows of the largest batch for which `held` terms fit the available bytes."""
        rows = self.most
        while rows > self.least and held(rows) > available:
            rows = max(self.least, rows // 2)
        return rows


@dataclass(frozen=True)
class Tables:
    """Raw files with the same columns; the return value of `open_tables`.

    Parameters
    ----------
    format : {"csv", "parquet"}
        The format of all files.
    schema : pyarrow.Schema
        Names and types of the columns; for CSV those of the first block.
    declared : frozenset of str
        Columns that the files declare as categorical.
    expected_rows : int
        Rows of all files: exact for Parquet, extrapolated from the first block for CSV.
    typed_by : str
        The file that the types of the schema are from.
    dialect : Dialect
        The dialect of CSV.
    differing : mapping of str to str
        Columns of Parquet whose types differ between files, and a message for each.
    index : tuple of str
        Columns of Parquet that are the index of a pandas frame.
    unnamed : bool
        Whether the first column of CSV has no name.
    further : dict of str to str
        Columns that the first file lacks, and a file that has them: of CSV those read so far.
    """

    paths: tuple[str, ...]
    format: Format
    schema: pa.Schema
    declared: frozenset[str]
    expected_rows: int
    n_bytes: int
    typed_by: str = ""
    dialect: Dialect = field(default_factory=Dialect)
    differing: Mapping[str, str] = field(default_factory=dict)
    index: tuple[str, ...] = ()
    unnamed: bool = False
    further: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, in the order of the first file."""
        return tuple(self.schema.names)

    def kind(self, name: str) -> Kind:
        """Return the kind of a column."""
        return kind_of(self.schema.field(name).type)

    @cached_property
    def reading_memory(self) -> ReadingMemory:
        """The memory that reading takes: bytes that `pieces` holds."""
        row = 8 * len(self.names)
        most = max(_FEW_BATCH_ROWS, _BATCH_BYTES // row)
        # Only batches of long rows shrink where memory is short.
        least = _LEAST_BATCH_ROWS if most * row > _BATCH_BYTES else most
        columns = _COLUMN_BYTES * len(self.names)
        if self.format == "csv":
            # A cell takes at least a byte, which bounds the rows of a block.
            most = max(1, min(most, self.dialect.block_bytes // len(self.names)))
            return ReadingMemory(self.dialect.held_bytes, columns, row, most, min(most, least), 0)
        held = parquet.reader_bytes(self.paths)
        # One batch is encoded while another is read.
        return ReadingMemory(held.pages, columns + held.metadata, row, most, least, 2)

    def first_rows(self, names: Iterable[str]) -> pa.RecordBatch | WideBatch:
        """Return columns of the first rows; those of CSV as text."""
        with closing(self.pieces(dict.fromkeys(names, pa.string()))) as pieces:
            return next(pieces).batch

    def pieces(
        self, columns: Mapping[str, pa.DataType], rows: int | None = None
    ) -> Generator[Piece, None, None]:
        """Yield the rows of the files, one file after another.

        Parameters
        ----------
        columns : mapping of str to pyarrow.DataType
            The wanted columns, and for CSV the types to read them as.
        rows : int, optional
            The most rows of a batch; by default those of about 4 MiB.

        Raises
        ------
        InvalidTable
            If a row has another number of cells, a value has another type, bytes are no text,
            columns differ from those of the first file, or a file changes meanwhile.
        TableNotFound
            If a file is gone.
        """
        for name in columns:
            if name in self.differing:
                raise InvalidTable(
                    f"{self.differing[name]}; write them as one type, or leave it out (--drop "
                    f"{as_option([name])})"
                )
        try:
            yield from self._pieces(columns, rows or self.reading_memory.most)
        except MixedZones as error:
            raise InvalidTable(self._zone_message(error, columns)) from None

    def _pieces(
        self, columns: Mapping[str, pa.DataType], most: int
    ) -> Generator[Piece, None, None]:
        start, bytes_before = 0, 0
        for path in self.paths:
            if self.format == "csv":
                notice = partial(self._notice, path)
                batches = csv.read_batches(path, self.dialect, columns, notice)
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

    def _notice(self, path: str, names: Sequence[str]) -> None:
        """Record the columns of a file that the first one lacks."""
        if path != self.paths[0]:
            for name in set(names).difference(self.names):
                self.further.setdefault(name, path)

    def _zone_message(self, error: MixedZones, columns: Mapping[str, pa.DataType]) -> str:
        """Return the message for a time whose zone differs from the other times of its column."""
        wanted = columns[error.column]
        rest = "those of the training data"
        if self.typed_by and has_zone(self.schema.field(error.column).type) == has_zone(wanted):
            rest = "rows before" if self.typed_by == error.path else f"those of {self.typed_by}"
        return f"{error}, unlike {rest}: write all with a zone, or all without one"
