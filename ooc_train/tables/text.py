"""CSV as Arrow record batches: text is cut at the ends of rows, two blocks parsed at a time.

Arrow's own streaming reader parses one block at a time and reads up to 32 blocks ahead of it. Here
no more than three are held, and the number of every row is known, by which errors are placed.
"""

import codecs
import re
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from ooc_train.errors import InvalidTable, TableNotFound
from ooc_train.tables.names import compression_of
from ooc_train.units import approximate_bytes

_BLOCK_BYTES = 2**20
"""Text that is parsed at a time: larger blocks fall out of the cache."""

_ROWS_PER_BLOCK = 4
_MOST_ROW_BYTES = 16 * 2**20
"""Of the header and the first row, for which blocks are made large enough."""

_PARSERS = 2
"""Threads that parse; beside them one reads and one encodes, on machines that have the cores."""

_QUOTE = 34
_LINE_ENDS = (10, 13)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How CSV is written.

    Parameters
    ----------
    delimiter, encoding : str
    block_bytes : int
        Text that is parsed at a time, in which a few rows fit.
    """

    delimiter: str = ","
    encoding: str = "utf8"
    block_bytes: int = _BLOCK_BYTES

    @property
    def room(self) -> int:
        """Bytes that `read_batches` holds, as a multiple of a block.

        Three blocks wait, are parsed, or were; a block of digits and commas takes four times as
        much in float64. The next one is joined of two and cut into two.
        """
        return (3 * (1 + 4) + 4) * self.block_bytes


@dataclass(frozen=True, slots=True)
class Head:
    """What the first block of a CSV file tells.

    Parameters
    ----------
    schema : pyarrow.Schema
    rows_per_byte : float
        Of the file as it lies there.
    """

    schema: pa.Schema
    rows_per_byte: float


def read_head(path: str, delimiter: str, encoding: str) -> tuple[Dialect, Head]:
    """Read the first block of a file.

    Raises
    ------
    InvalidTable
        It has no rows, or isn't text in this encoding.
    """
    with _explained(path, encoding):
        longest = max(_line_bytes(path))
        dialect = Dialect(delimiter, encoding, max(_BLOCK_BYTES, _ROWS_PER_BLOCK * longest))
        with _open(path) as raw:
            text, position = next(_blocks(raw, path, dialect), (b"", 0))
        if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise InvalidTable(_not_text(path, encoding, "it begins as UTF-16 does", "utf16"))
        names = _names(text, dialect)
        require_all(path, names, ())
        table = _parse(text, names, dialect, {}, skipped=1)
    if not table.num_rows:
        raise InvalidTable(f"{path} has a header and no rows; leave it out")
    for name, kind in zip(names, table.schema.types, strict=True):
        if pa.types.is_binary(kind):
            raise InvalidTable(_not_text(path, encoding, f"the column {name!r}"))
    # What is held of the next block counts neither as rows nor as bytes.
    read = position if compression_of(path) else len(text)
    return dialect, Head(table.schema, table.num_rows / read)


def read_batches(
    path: str, dialect: Dialect, columns: Mapping[str, pa.DataType]
) -> Generator[tuple[pa.RecordBatch, int], None, None]:
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
    pending: deque[tuple[Future[pa.Table], int]] = deque()
    names: tuple[str, ...] | None = None
    first = 0
    with _open(path) as raw, ThreadPoolExecutor(_PARSERS, "ooc_train-csv") as parsers:
        blocks, left = _blocks(raw, path, dialect), True
        while left or pending:
            with _explained(path, dialect.encoding, first, names or ()):
                text, read = next(blocks, (b"", 0)) if left else (b"", 0)
                if left := bool(text):
                    skipped = 0
                    if names is None:
                        names, skipped = _names(text, dialect), 1
                        require_all(path, names, columns)
                    parsed = parsers.submit(_parse, text, names, dialect, columns, skipped=skipped)
                    pending.append((parsed, read))
                if len(pending) <= _PARSERS and left:
                    continue
                if not pending:
                    break
                parsed, position = pending.popleft()
                table = parsed.result()
            for batch in table.to_batches():
                yield batch, position
            first += table.num_rows


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


def _names(text: bytes, dialect: Dialect) -> tuple[str, ...]:
    """Read the names of the columns; one without a name is called by its number."""
    names = _parse(text, None, dialect, {}).schema.names
    return tuple(name or f"column {i + 1}" for i, name in enumerate(names))


def _blocks(raw: Any, path: str, dialect: Dialect) -> Iterator[tuple[bytes, int]]:
    """Cut text into blocks of whole rows, in UTF-8, without blank lines at its beginning.

    With each come the bytes of the file that were read so far.
    """
    size = raw.size()
    decoder = None
    if not _is_utf8(dialect.encoding):
        decoder = codecs.getincrementaldecoder(dialect.encoding)()
    stream, rest, first = _decompressed(raw, path), b"", True
    while True:
        part = bytes(stream.read(dialect.block_bytes))
        ended = not part
        if decoder is not None:
            part = decoder.decode(part, ended).encode()
        text = rest + part
        if first:
            text = text.removeprefix(codecs.BOM_UTF8).lstrip(b"\r\n")
        end = len(text) if ended else _rows_end(text, ord(dialect.delimiter))
        if end:
            yield text[:end], raw.tell()
            first = False
        if ended and raw.tell() < size:
            raise InvalidTable(
                f"{path} had {size:,} bytes when its reading began and {raw.tell():,} at the "
                "end: something cut it meanwhile; read it again when it is left alone"
            )
        if ended:
            return
        rest = text[end:]
        if len(rest) > 2 * dialect.block_bytes:
            raise _too_long(path, dialect.block_bytes)


def _rows_end(text: bytes, delimiter: int) -> int:
    """Say where the last whole row of a text ends, 0 where none does; it begins with a row."""
    end = max(text.rfind(b"\n"), text.rfind(b"\r"))
    if b'"' not in text:
        return end + 1
    array = np.frombuffer(text, np.uint8)
    quotes = np.flatnonzero(array == _QUOTE)
    opening, closing = quotes[::2], quotes[1::2]
    # Quotes open and close by turns, where each that opens does so at the beginning of a cell, or
    # right after one that closed: two in a row are one that is meant.
    begins = _begins_cell(array, opening, delimiter)
    begins[1:] |= opening[1:] - 1 == closing[: len(opening) - 1]
    if not begins.all():
        opening, closing = _quoted(array, quotes, delimiter)
    while end >= 0:
        place = int(np.searchsorted(opening, end)) - 1
        if place < 0 or (place < len(closing) and closing[place] < end):
            return end + 1
        end = int(opening[place])
        end = max(text.rfind(b"\n", 0, end), text.rfind(b"\r", 0, end))
    return 0


def _begins_cell(array: Any, places: Any, delimiter: int) -> Any:
    before = array[np.maximum(places - 1, 0)]
    return (places == 0) | np.isin(before, (delimiter, *_LINE_ENDS))


def _quoted(array: Any, quotes: Any, delimiter: int) -> tuple[Any, Any]:
    """Find where quoted cells open and close, in text where some quotes mean themselves."""
    begins = _begins_cell(array, quotes, delimiter)
    opening, closing, i = [], [], 0
    while i < len(quotes):
        if begins[i]:
            opening.append(quotes[i])
            i += 1
            while i + 1 < len(quotes) and quotes[i + 1] == quotes[i] + 1:
                i += 2
            closing += quotes[i : i + 1].tolist()
        i += 1
    return np.array(opening, np.int64), np.array(closing, np.int64)


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
                raise _too_long(path, _MOST_ROW_BYTES)
    return lines[0], lines[1]


def _open(path: str) -> Any:
    try:
        return pa.OSFile(path, "rb")
    except FileNotFoundError:
        raise TableNotFound(f"there is no file {path} any more; check the name") from None


def _decompressed(raw: Any, path: str) -> Any:
    """Give what a file is when it is unpacked, as its name says."""
    kind = compression_of(path)
    return raw if kind is None else pa.CompressedInputStream(raw, kind)


def _is_utf8(encoding: str) -> bool:
    return codecs.lookup(encoding).name == "utf-8"


def require_all(path: str, names: Sequence[str], wanted: Iterable[str]) -> None:
    """Refuse a file that names a column twice, or lacks one that is wanted."""
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise InvalidTable(
            f"{path} names a column more than once: {', '.join(map(repr, twice))}; rename them in "
            "the file"
        )
    if absent := [name for name in wanted if name not in names]:
        raise InvalidTable(
            f"{path} lacks the {'column' if len(absent) == 1 else 'columns'} "
            f"{', '.join(map(repr, absent))}; it has {', '.join(map(repr, names))}"
        )


def row_place(row: int) -> str:
    """Say where a row lies in a text; breaks within cells, and blank lines, aren't counted."""
    return f"row {row:,} (about line {row + 2:,})"


def _too_long(path: str, most: int) -> InvalidTable:
    return InvalidTable(
        f"{path}: a row takes more than {approximate_bytes(most)} of text; is a quote never "
        "closed, or is it no CSV? correct it"
    )


def _not_text(path: str, encoding: str, what: str, likely: str = "latin1") -> str:
    return (
        f"{path} is no text in the encoding {encoding} ({what}); name the right one, such as "
        f"--encoding {likely}"
    )


@contextmanager
def _explained(
    path: str, encoding: str, first: int = 0, names: Sequence[str] = ()
) -> Iterator[None]:
    """Say what is wrong with a CSV file in terms of file, row and column.

    Parameters
    ----------
    path, encoding : str
    first : int
        Number of the first row of the block that is parsed.
    names : sequence of str
        Of the columns, where they are known.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        raise InvalidTable(_not_text(path, encoding, str(error))) from None
    except LookupError:
        raise ValueError(f"encoding={encoding!r} is unknown; utf8 and latin1 are common") from None
    except pa.ArrowInvalid as error:
        # Arrow counts from 1, and in the first block, whose rows follow the header, from that.
        before = 2 if first == 0 else 1
        text = re.sub(
            r"Row #(\d+)", lambda row: row_place(first + int(row[1]) - before), str(error)
        )
        text = re.sub(
            r"In CSV column #(\d+):", lambda column: f"column {names[int(column[1])]!r},", text
        )
        text = text.removeprefix("CSV parse error: ")
        if "UTF8" in text:
            raise InvalidTable(_not_text(path, encoding, text)) from None
        if "Empty CSV" in text:
            raise InvalidTable(f"{path} has a header and no rows; leave it out") from None
        if "conversion error" in text:
            advice = "correct it, read the column as text (--categorical), or leave it out (--drop)"
        elif "Expected" in text:
            advice = "every row needs as many cells as the header: correct it, or the --delimiter"
        else:
            advice = "correct the file"
        raise InvalidTable(f"{path}: {text}; {advice}") from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise InvalidTable(
            f"{path} can't be unpacked: {error}; rename it if it isn't packed, or restore it"
        ) from None
