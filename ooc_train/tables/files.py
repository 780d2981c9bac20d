"""Raw files, CSV and Parquet, one or many, as a stream of Arrow record batches.

A batch comes with its place, so that whatever is wrong with a value can be said with the file and
the row. Nothing is memory-mapped and nothing is read ahead by Arrow itself: what is held is a block
of text, or the pages of a row group, and the batch made of it.
"""

import base64
import glob
import os
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from ooc_train.errors import InvalidTable, TableNotFound

Kind = Literal["number", "boolean", "date", "text", "empty", "other"]
"""What a raw column holds; "empty" where no value was seen yet, "other" what can't become numbers.
"""

_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".parquet": "parquet",
    ".parq": "parquet",
    ".pq": "parquet",
}
_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}

COMPRESSED = tuple(_COMPRESSIONS)
"""How the names of packed files end."""

_BLOCK_BYTES = 2**20
"""Text that is parsed at a time: larger blocks fall out of the cache."""

_LINES_PER_BLOCK = 4
_BATCH_BYTES = 4 * 2**20
_LEAST_BATCH_ROWS = 256
_MOST_BATCH_ROWS = 2**16
_PAGE_BYTES = 2**20
_BUFFER_BYTES = 2**16


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of a raw file, and where they are from.

    Parameters
    ----------
    batch : pyarrow.RecordBatch
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

    batch: pa.RecordBatch
    file: str = ""
    first: int = 0
    start: int = 0
    is_text: bool = False
    share: float = 1.0

    def place(self, row: int) -> str:
        """Say where a row of the batch lies."""
        number = self.first + row
        line = f" (line {number + 2:,})" if self.is_text else ""
        return f"row {number:,}{line} of {self.file or 'the table'}"


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
    expected_rows : int or None
        Rows of all files: as Parquet tells, as the first block of CSV lets expect, None where the
        files are compressed.
    n_bytes : int
        Bytes of all files.
    delimiter, encoding : str
        Of CSV.
    """

    paths: tuple[str, ...]
    format: Literal["csv", "parquet"]
    schema: pa.Schema
    declared: frozenset[str]
    expected_rows: int | None
    n_bytes: int
    delimiter: str = ","
    encoding: str = "utf8"
    _block_bytes: int = field(default=_BLOCK_BYTES, repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, in the order of the first file."""
        return tuple(self.schema.names)

    def kind(self, name: str) -> Kind:
        """Say what a column holds."""
        return kind_of(self.schema.field(name).type)

    @property
    def batch_bytes(self) -> int:
        """About how many bytes a batch takes as float64."""
        return max(_BATCH_BYTES, 4 * self._block_bytes)

    @property
    def room(self) -> int:
        """Bytes that reading holds, the batch included."""
        if self.format == "csv":
            # The text, its rest that goes to the next block, the parsed cells, and the batch.
            return 6 * self._block_bytes
        pages = 0
        for path in self.paths:
            metadata = pq.read_metadata(path)
            for group in range(metadata.num_row_groups):
                columns = metadata.row_group(group)
                # Of every column one page and its dictionary, packed and unpacked.
                held = sum(
                    min(3 * _PAGE_BYTES, 2 * columns.column(i).total_uncompressed_size)
                    for i in range(columns.num_columns)
                )
                pages = max(pages, held)
        return pages + 2 * _BATCH_BYTES

    def pieces(self, columns: Mapping[str, pa.DataType]) -> Generator[Piece, None, None]:
        """Read the files, one after another.

        Parameters
        ----------
        columns : mapping of str to pyarrow.DataType
            The columns that are wanted, and for CSV the types to read them as.

        Raises
        ------
        InvalidTable
            A row of another width, a value of another type, bytes that are no text, columns that
            differ from those of the first file, a file that changed or shrank meanwhile.
        TableNotFound
            A file that is gone.
        """
        start, bytes_before = 0, 0
        batches_of = self._csv_batches if self.format == "csv" else self._parquet_batches
        for path in self.paths:
            first = 0
            for batch, bytes_read in batches_of(path, columns):
                share = min(1.0, (bytes_before + bytes_read) / self.n_bytes)
                yield Piece(batch, path, first, start, self.format == "csv", share)
                first += batch.num_rows
                start += batch.num_rows
            bytes_before += os.path.getsize(path)

    def _csv_batches(
        self, path: str, columns: Mapping[str, pa.DataType]
    ) -> Iterator[tuple[pa.RecordBatch, int]]:
        names = _header(path, self.delimiter, self.encoding)
        _require_all(path, names, columns)
        with _open(path) as raw, _explained(path, self.encoding, names):
            size = os.path.getsize(path)
            reader = _csv_reader(
                _decompressed(raw, path),
                names,
                self.delimiter,
                self.encoding,
                self._block_bytes,
                columns,
            )
            for batch in reader:
                yield batch, raw.tell()
            if raw.tell() < size:
                raise InvalidTable(
                    f"{path} had {size:,} bytes when its reading began and {raw.tell():,} at the "
                    "end: something cut it meanwhile; read it again when it is left alone"
                )

    def _parquet_batches(
        self, path: str, columns: Mapping[str, pa.DataType]
    ) -> Iterator[tuple[pa.RecordBatch, int]]:
        with (
            _parquet_explained(path),
            pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file,
        ):
            _require_all(path, file.schema_arrow.names, columns)
            size, metadata = os.path.getsize(path), file.metadata
            groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
            row_bytes = 1 + sum(group.total_byte_size for group in groups) // metadata.num_rows
            rows = max(_LEAST_BATCH_ROWS, min(_MOST_BATCH_ROWS, _BATCH_BYTES // row_bytes))
            done = 0
            for batch in file.iter_batches(rows, columns=list(columns), use_threads=False):
                done += batch.num_rows
                yield batch.select(list(columns)), size * done // metadata.num_rows


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


def is_table(path: str | os.PathLike[str]) -> bool:
    """Whether a path means raw files and no store: by its name, or since a file lies there."""
    text = os.fspath(path)
    if "://" in text:
        return False
    if os.path.isdir(text):
        return any(format_of(name) for name in os.listdir(text))
    return format_of(text) is not None or os.path.isfile(text)


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
    """
    found = _find(paths)
    formats = {path: format_of(path) or _format_inside(path) for path in found}
    for path, kind in formats.items():
        if kind is None:
            raise InvalidTable(
                f"{path} is neither CSV nor Parquet, by its name and its first bytes; rename it if "
                "it is one of them, or write it as one"
            )
        if os.path.getsize(path) == 0:
            raise InvalidTable(f"{path} is empty: not even a header is in it; leave it out")
    if len(set(formats.values())) > 1:
        raise InvalidTable(f"{found[0]} and others mix CSV and Parquet; read one kind at a time")
    n_bytes = sum(os.path.getsize(path) for path in found)
    if formats[found[0]] == "parquet":
        return _parquet_tables(found, n_bytes)
    delimiter = delimiter or ("\t" if ".tsv" in os.path.basename(found[0]) else ",")
    return _csv_tables(found, n_bytes, delimiter, encoding)


def _csv_tables(paths: tuple[str, ...], n_bytes: int, delimiter: str, encoding: str) -> Tables:
    path = paths[0]
    names = _header(path, delimiter, encoding)
    block = max(_BLOCK_BYTES, _LINES_PER_BLOCK * _line_bytes(path))
    with _open(path) as raw, _explained(path, encoding, names):
        reader = _csv_reader(_decompressed(raw, path), names, delimiter, encoding, block)
        schema, batch = reader.schema, next(iter(reader), None)
        while batch is not None and batch.num_rows == 0:
            batch = next(iter(reader), None)
    if batch is None:
        raise InvalidTable(f"{path} has a header and no rows; leave it out")
    for name, kind in zip(schema.names, schema.types, strict=True):
        if pa.types.is_binary(kind):
            raise InvalidTable(_not_text(path, encoding, f"the column {name!r}"))
    expected = None
    if not any(_compression(path) for path in paths):
        expected = -(-n_bytes * batch.num_rows // min(block, os.path.getsize(path)))
    return Tables(paths, "csv", schema, frozenset(), expected, n_bytes, delimiter, encoding, block)


def _parquet_tables(paths: tuple[str, ...], n_bytes: int) -> Tables:
    schema, rows, declared = None, 0, frozenset[str]()
    for path in paths:
        with _parquet_explained(path), pq.ParquetFile(path, pre_buffer=False) as file:
            found, metadata = file.schema_arrow, file.metadata
        rows += metadata.num_rows
        if schema is None:
            schema, declared = found, _declared(found, metadata.metadata or {})
    if schema is None:
        raise TableNotFound("no file was named")
    _require_distinct(paths[0], schema.names)
    if rows == 0:
        raise InvalidTable(f"{paths[0]} has no rows; leave it out")
    return Tables(paths, "parquet", schema, declared, rows, n_bytes)


def _declared(schema: pa.Schema, metadata: Mapping[bytes, bytes]) -> frozenset[str]:
    """Give the columns that were written as dictionaries, as pandas' categories are.

    Parquet brings only those of text back as such; the schema that Arrow notes tells of all.
    """
    noted = schema
    if b"ARROW:schema" in metadata:
        noted = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(metadata[b"ARROW:schema"])))
    return frozenset(
        column.name for column in noted if pa.types.is_dictionary(column.type)
    ) & frozenset(schema.names)


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


def format_of(path: str) -> Literal["csv", "parquet"] | None:
    """Say what a file is by its name."""
    root, suffix = os.path.splitext(path.lower())
    if suffix in _COMPRESSIONS:
        root, suffix = os.path.splitext(root)
    found: Any = _SUFFIXES.get(suffix)
    return found  # type: ignore[no-any-return]


def _format_inside(path: str) -> Literal["csv", "parquet"] | None:
    """Say what a file is by its first bytes: no CSV goes without a name that says so."""
    with open(path, "rb") as file:
        return "parquet" if file.read(4) == b"PAR1" else None


def _compression(path: str) -> str | None:
    return _COMPRESSIONS.get(os.path.splitext(path.lower())[1])


def _open(path: str) -> Any:
    try:
        return pa.OSFile(path, "rb")
    except FileNotFoundError:
        raise TableNotFound(f"there is no file {path} any more; check the name") from None


def _decompressed(raw: Any, path: str) -> Any:
    kind = _compression(path)
    return raw if kind is None else pa.CompressedInputStream(raw, kind)


def _line_bytes(path: str) -> int:
    """Bytes of the first line."""
    with _open(path) as raw:
        stream = _decompressed(raw, path)
        count = 0
        while part := stream.read(_BLOCK_BYTES):
            end = int(part.find(b"\n"))
            if end >= 0:
                return count + end + 1
            count += len(part)
    return count


def _header(path: str, delimiter: str, encoding: str) -> tuple[str, ...]:
    """Read the names of the columns; one without a name is called by its number."""
    with _open(path) as raw, _explained(path, encoding, ()):
        block = max(_BLOCK_BYTES, _LINES_PER_BLOCK * _line_bytes(path))
        stream = _decompressed(raw, path)
        names = _csv_reader(stream, None, delimiter, encoding, block).schema.names
    found = tuple(name or f"column {i + 1}" for i, name in enumerate(names))
    _require_distinct(path, found)
    return found


def _csv_reader(
    stream: Any,
    names: Sequence[str] | None,
    delimiter: str,
    encoding: str,
    block_bytes: int,
    columns: Mapping[str, pa.DataType] | None = None,
) -> Any:
    """Open a stream of CSV: with the names of its columns, or None to find them."""
    return pyarrow.csv.open_csv(
        stream,
        read_options=pyarrow.csv.ReadOptions(
            # Only one thread knows the numbers of lines, and two are no faster.
            use_threads=False,
            block_size=block_bytes,
            encoding=encoding,
            column_names=None if names is None else list(names),
            skip_rows_after_names=0 if names is None else 1,
        ),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict(columns or {}),
            include_columns=list(columns or ()),
            strings_can_be_null=True,
        ),
    )


def _require_distinct(path: str, names: Sequence[str]) -> None:
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise InvalidTable(
            f"{path} names a column more than once: {', '.join(map(repr, twice))}; rename them in "
            "the file"
        )


def _require_all(path: str, names: Sequence[str], wanted: Iterable[str]) -> None:
    """Refuse a file that lacks a column that is wanted."""
    _require_distinct(path, names)
    if absent := [name for name in wanted if name not in names]:
        raise InvalidTable(
            f"{path} lacks the {'column' if len(absent) == 1 else 'columns'} "
            f"{', '.join(map(repr, absent))}; it has {', '.join(map(repr, names))}"
        )


def _not_text(path: str, encoding: str, what: str) -> str:
    return (
        f"{path} is no text in the encoding {encoding} ({what}); name the right one, such as "
        "--encoding latin1"
    )


@contextmanager
def _explained(path: str, encoding: str, names: Sequence[str]) -> Iterator[None]:
    """Say what Arrow finds wrong with a CSV file in terms of file, line and column."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise InvalidTable(_not_text(path, encoding, str(error))) from None
    except LookupError:
        raise ValueError(f"encoding={encoding!r} is unknown; utf8 and latin1 are common") from None
    except pa.ArrowInvalid as error:
        text = str(error)
        for i, name in enumerate(names):
            text = text.replace(f"In CSV column #{i}:", f"column {name!r},")
        text = text.replace("Row #", "line ").replace("CSV parse error: ", "")
        if "UTF8" in text:
            raise InvalidTable(_not_text(path, encoding, text)) from None
        if "Empty CSV" in text:
            advice = "leave it out"
        elif "conversion error" in text:
            advice = "correct it, read the column as text (--categorical), or leave it out (--drop)"
        elif "Expected" in text:
            advice = "every row needs as many cells as the header: correct it, or the --delimiter"
        else:
            advice = "correct the file"
        raise InvalidTable(f"{path}: {text}; {advice}") from None


@contextmanager
def _parquet_explained(path: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise InvalidTable(
            f"{path} can't be read as Parquet: {error}; write it again, or restore it"
        ) from None
