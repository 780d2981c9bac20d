"""CSV as Arrow record batches: text is cut at the ends of rows, two blocks parsed at a time.

Arrow's own streaming reader parses one block at a time and reads up to 32 blocks ahead of it. Here
no more than three are held, and the number of every row is known, by which errors are placed.
"""

import codecs
import re
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.csv

from ooc_train.core.files import require_regular
from ooc_train.errors import InvalidTable, TableNotFound
from ooc_train.tables.diagnostics import (
    Broken,
    blank,
    explained,
    is_utf8,
    not_text,
    require_all,
    too_long,
    unnamed,
)
from ooc_train.tables.names import TABLE, compression_of
from ooc_train.tables.quotes import cut
from ooc_train.tables.wide_csv import (
    WIDE_COLUMNS,
    Cells,
    Parts,
    WideBatch,
    header_cells,
    header_end,
    types_of,
)

_BLOCK_BYTES = 2**20
"""Text that is parsed at a time: larger blocks fall out of the cache."""

_ROWS_PER_BLOCK = 4
_MOST_ROW_BYTES = 16 * 2**20
"""Of the header and the first row, for which blocks are made large enough."""

_PACKED_BYTES = 2**14
"""Text that is unpacked by a call."""

_PARSERS = 2
"""Threads that parse; beside them one reads and one encodes, on machines that have the cores."""

_WIDE_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32", "utf32"),
    (codecs.BOM_UTF32_BE, "UTF-32", "utf32"),
    (codecs.BOM_UTF16_LE, "UTF-16", "utf16"),
    (codecs.BOM_UTF16_BE, "UTF-16", "utf16"),
)
"""Byte order marks, what begins so, and its name as an encoding: that of UTF-32 before UTF-16."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How CSV is written.

    Parameters
    ----------
    delimiter, encoding : str
    block_bytes : int
        Text that is parsed at a time, in which a few rows fit.
    wide : bool
        Whether there are so many columns that they are parsed by types, and not one by one.
    """

    delimiter: str = ","
    encoding: str = "utf8"
    block_bytes: int = _BLOCK_BYTES
    wide: bool = False

    @property
    def room(self) -> int:
        """Bytes that `read_batches` holds, as a multiple of a block.

        Three blocks wait, are parsed, or were; a block of digits and commas takes four times as
        much in float64. The next one is joined of two and cut into two. Where cells are found one
        by one, their places and the text of a type take eight more of each that is parsed.
        """
        cells = 8 * self.parsers if self.wide else 0
        return ((self.parsers + 1) * (1 + 4) + 4 + cells) * self.block_bytes

    @property
    def parsers(self) -> int:
        """Threads that parse: of long rows one, since their blocks are large."""
        return 1 if self.block_bytes > _BLOCK_BYTES else _PARSERS


@dataclass(frozen=True, slots=True)
class Head:
    """What the first block of a CSV file tells.

    Parameters
    ----------
    schema : pyarrow.Schema
        Types are null where the block has no rows.
    rows_per_byte : float
        Of the file as it lies there; 0 where it has a header alone.
    unnamed : bool
        Whether the first column has no name.
    """

    schema: pa.Schema
    rows_per_byte: float
    unnamed: bool = False


def read_head(path: str, delimiter: str, encoding: str) -> tuple[Dialect, Head]:
    """Read the first block of a file.

    Raises
    ------
    InvalidTable
        It has no header, or isn't text in this encoding.
    """
    with explained(path, encoding):
        longest = max(_line_bytes(path))
        dialect = Dialect(delimiter, encoding, max(_BLOCK_BYTES, _ROWS_PER_BLOCK * longest))
        with _open(path) as raw:
            blocks = _blocks(raw, path, dialect)
            text, position = next(blocks, (b"", 0))
            names, nameless = _names(path, text, dialect)
            dialect = replace(dialect, wide=len(names) >= WIDE_COLUMNS)
            types, n_rows = _types(text, names, dialect, skipped=1)
            if not n_rows:
                # The first row may end, or not, in another block.
                text, position = next(blocks, (b"", position))
                if text:
                    types, n_rows = _types(text, names, dialect, skipped=0)
    for name, kind in zip(names, types, strict=True):
        if pa.types.is_binary(kind):
            raise InvalidTable(not_text(path, encoding, f"the column {name!r}"))
    # What is held of the next block counts neither as rows nor as bytes.
    read = position if compression_of(path) else len(text)
    schema = pa.schema(list(zip(names, types, strict=True)))
    return dialect, Head(schema, n_rows / read if read else 0.0, nameless)


def read_batches(
    path: str, dialect: Dialect, columns: Mapping[str, pa.DataType]
) -> Generator[tuple[pa.RecordBatch | WideBatch, int], None, None]:
    """Give the rows of some columns, with the bytes of the file that were read so far.

    Parameters
    ----------
    path : str
    dialect : Dialect
    columns : mapping of str to pyarrow.DataType
        What is wanted, and what to read it as.

    Raises
    ------
    InvalidTable
        Columns that aren't there, rows of another width, values of another type, bytes that are no
        text, a file that shrinks.
    TableNotFound
        The file is gone.
    """
    pending: deque[tuple[Future[pa.Table | WideBatch], int]] = deque()
    names: tuple[str, ...] | None = None
    parts: Parts | None = None
    failure: Exception | None = None
    first = 0
    with _open(path) as raw, ThreadPoolExecutor(dialect.parsers, "ooc_train-csv") as parsers:
        blocks, left = _blocks(raw, path, dialect), True
        while left or pending:
            with explained(path, dialect.encoding, first, names or ()):
                if left:
                    try:
                        text, read = next(blocks, (b"", 0))
                    except (InvalidTable, OSError, UnicodeError, Broken) as error:
                        # Raised after the rows before it, whose number tells the row.
                        failure, text, read = error, b"", 0
                    left = bool(text)
                if left:
                    skipped = 0
                    if names is None:
                        (names, _), skipped = _names(path, text, dialect), 1
                        require_all(path, names, columns)
                        if dialect.wide and columns:
                            parts = Parts(
                                names, columns, ord(dialect.delimiter), partial(_cells, dialect)
                            )
                    parsed = parsers.submit(
                        _parse_block, text, names, dialect, columns, parts, skipped=skipped
                    )
                    pending.append((parsed, read))
                if len(pending) <= dialect.parsers and left:
                    continue
                if not pending:
                    break
                parsed, position = pending.popleft()
                table = parsed.result()
            batches = [table] if isinstance(table, WideBatch) else table.to_batches()
            for batch in batches:
                yield batch, position
            first += table.num_rows
        with explained(path, dialect.encoding, first, names or ()):
            if failure is not None:
                raise failure
            if names is None:
                raise blank(path)


def _parse(
    text: bytes,
    names: Sequence[str] | None,
    dialect: Dialect,
    columns: Mapping[str, pa.DataType],
    *,
    skipped: int = 0,
) -> pa.Table:
    """Parse a block: its columns have these names, or those of its first row."""
    return pyarrow.csv.read_csv(
        pa.BufferReader(text),
        read_options=pyarrow.csv.ReadOptions(
            # Of several threads none knows the numbers of rows.
            use_threads=False,
            block_size=len(text) + 1,
            column_names=None if names is None else list(names),
            skip_rows_after_names=skipped,
        ),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=dialect.delimiter, newlines_in_values=b'"' in text
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict(columns), include_columns=list(columns), strings_can_be_null=True
        ),
    )


def _parse_block(
    text: bytes,
    names: Sequence[str],
    dialect: Dialect,
    columns: Mapping[str, pa.DataType],
    parts: Parts | None,
    *,
    skipped: int,
) -> pa.Table | WideBatch:
    """Parse a block: by types where there are many columns, else by columns."""
    if parts is not None:
        rows = text[header_end(text, ord(dialect.delimiter)) :] if skipped else text
        if rows.strip(b"\r\n"):
            batch = parts.batch(rows, skipped)
            if batch is not None:
                return batch
        # A row of another width, which Arrow says how it does of other files.
    return _parse(text, names, dialect, columns, skipped=skipped)


def _cells(
    dialect: Dialect,
    text: bytes,
    names: Sequence[str],
    types: Mapping[str, pa.DataType],
    *,
    missing: bool = True,
) -> pa.Table:
    """Parse text made of cells, where an empty line is an empty cell."""
    return pyarrow.csv.read_csv(
        pa.BufferReader(text),
        read_options=pyarrow.csv.ReadOptions(
            use_threads=False, block_size=len(text) + 1, column_names=list(names)
        ),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=dialect.delimiter,
            newlines_in_values=b'"' in text,
            ignore_empty_lines=False,
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict(types), strings_can_be_null=missing
        ),
    )


def _types(
    text: bytes, names: Sequence[str], dialect: Dialect, *, skipped: int
) -> tuple[list[pa.DataType], int]:
    """Find the types of the columns in a block, and the number of its rows."""
    if dialect.wide:
        delimiter = ord(dialect.delimiter)
        rows = text[header_end(text, delimiter) :] if skipped else text
        if not rows.strip(b"\r\n"):
            return [pa.null()] * len(names), 0
        cells = Cells.of(rows, delimiter, len(names))
        if cells is not None:
            return types_of(cells, names, partial(_cells, dialect)), cells.n_rows
    table = _parse(text, names, dialect, {}, skipped=skipped)
    return table.schema.types, table.num_rows


def _names(path: str, text: bytes, dialect: Dialect) -> tuple[tuple[str, ...], bool]:
    """Read the names of the columns from the first block, and say whether the first has none.

    `unnamed` calls those without a name.
    """
    if not text:
        raise blank(path)
    delimiter = ord(dialect.delimiter)
    header = text[: header_end(text, delimiter)]
    if header.count(delimiter) + 1 >= WIDE_COLUMNS:
        names = header_cells(header, delimiter, partial(_cells, dialect, missing=False))
    else:
        names = _parse(text, None, dialect, {}).schema.names
    if "\0" in "".join(names):
        likely = "utf-16-be" if text.startswith(b"\0") else "utf-16-le"
        what = "its header has NUL bytes, as that of UTF-16 has"
        raise InvalidTable(not_text(path, dialect.encoding, what, likely))
    found = tuple(name or unnamed(i) for i, name in enumerate(names))
    require_all(path, found, ())
    return found, not names[0]


def _blocks(raw: Any, path: str, dialect: Dialect) -> Iterator[tuple[bytes, int]]:
    """Cut text into blocks of whole rows, in UTF-8, without blank lines at its beginning.

    With each come the bytes of the file that were read so far.
    """
    size = raw.size()
    decoder = None
    if not is_utf8(dialect.encoding):
        decoder = codecs.getincrementaldecoder(dialect.encoding)()
    delimiter = ord(dialect.delimiter)
    stream, packed, rest, first = _decompressed(raw, path), compression_of(path), b"", True
    while True:
        part = _read(stream, dialect.block_bytes, _PACKED_BYTES if packed else dialect.block_bytes)
        ended = not part
        if decoder is not None:
            part = decoder.decode(part, ended).encode()
        text = rest + part
        if first:
            _require_narrow(path, text, dialect)
            text = text.removeprefix(codecs.BOM_UTF8).lstrip(b"\r\n")
        if ended and raw.tell() < size:
            raise InvalidTable(
                f"{path} had {size:,} bytes when its reading began and {raw.tell():,} at the "
                "end: something cut it meanwhile; read it again when it is left alone"
            )
        if ended and first and text and not text.endswith((b"\n", b"\r")):
            text += b"\n"  # Arrow takes a header alone only as a line
        found = cut(text, delimiter)
        end = len(text) if ended else found.end
        if found.lost is not None:
            if found.lost:
                yield text[: found.lost], raw.tell()
                first = False
            raise Broken(
                -first,
                "a quote opens a cell that only a quote of a later row closes, with text after "
                "it: one of the two is missing",
            )
        if ended and found.is_open:
            raise Broken(-first, "a quote opens a cell, and the file ends before one closes it")
        if end:
            yield text[:end], raw.tell()
            first = False
        if ended:
            return
        rest = text[end:]
        if len(rest) > 2 * dialect.block_bytes:
            raise Broken(-first, too_long(dialect.block_bytes))


def _read(stream: Any, size: int, step: int) -> bytes:
    """Read so many bytes, fewer at the end or before what can't be read.

    A compressed stream loses what a call unpacked before it fails: of smaller calls, less.
    """
    parts: list[bytes] = []
    while size > 0:
        try:
            part = bytes(stream.read(min(step, size)))
        except OSError:
            if not parts:
                raise
            break
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _require_narrow(path: str, text: bytes, dialect: Dialect) -> None:
    """Refuse text of an encoding with more than one byte a letter that is read as another."""
    for mark, kind, encoding in _WIDE_MARKS:
        if text.startswith(mark):
            what = f"it begins as {kind} does"
            raise InvalidTable(not_text(path, dialect.encoding, what, encoding))


def _line_bytes(path: str) -> tuple[int, int]:
    """Bytes of the first two lines that aren't blank: the header, and mostly the first row."""
    lines, line = [0, 0], 0
    with _open(path) as raw:
        stream = _decompressed(raw, path)
        while part := bytes(stream.read(_BLOCK_BYTES)):
            for i, text in enumerate(re.split(rb"\r?\n|\r", part, maxsplit=64)):
                if i > 0 and lines[line]:
                    line += 1
                if line > 1:
                    return lines[0], lines[1]
                lines[line] += len(text)
            # What is no text at all may have no line's end: it must not be taken in as a whole.
            if lines[line] > _MOST_ROW_BYTES:
                raise InvalidTable(f"{path}: {too_long(_MOST_ROW_BYTES)}; correct it")
    return lines[0], lines[1]


def _open(path: str) -> Any:
    try:
        require_regular(path, TABLE)
        return pa.OSFile(path, "rb")
    except FileNotFoundError:
        raise TableNotFound(f"there is no file {path} any more; check the name") from None


def _decompressed(raw: Any, path: str) -> Any:
    """Give what a file is when it is unpacked, as its name says."""
    kind = compression_of(path)
    return raw if kind is None else pa.CompressedInputStream(raw, kind)
