"""Text of CSV files, cut into blocks of whole rows: how a file is opened, unpacked and decoded."""

import codecs
import re
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ooc_train.core.files import require_regular
from ooc_train.errors import InvalidTable, TableNotFound
from ooc_train.tables.diagnostics import BrokenText, is_utf8, not_text, row_too_long, seems_utf8
from ooc_train.tables.names import TABLE, compression_of
from ooc_train.tables.quotes import whole_rows

BLOCK_BYTES = 2**20
"""Bytes of text that are parsed at a time; larger blocks don't fit the cache."""

_MOST_ROW_BYTES = 16 * 2**20
"""Most bytes of the header and of the first row, for which blocks are made large enough."""

_UNPACK_BYTES = 2**14
"""Bytes of text that one call unpacks."""

_PARSERS = 2
"""Threads that parse, beside one that reads and one that encodes."""

_WIDE_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32", "utf32"),
    (codecs.BOM_UTF32_BE, "UTF-32", "utf32"),
    (codecs.BOM_UTF16_LE, "UTF-16", "utf16"),
    (codecs.BOM_UTF16_BE, "UTF-16", "utf16"),
)
"""Byte order marks, their encodings, and the names of these; UTF-32 has to come before UTF-16."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a CSV file is written, and how it is parsed.

    Parameters
    ----------
    block_bytes : int
        Bytes of text that are parsed at a time: enough for a few rows.
    wide : bool
        Whether columns are parsed by type, since there are many, and not one by one.
    encoding_is_assumed : bool
        Whether nobody told the encoding of the file, which is that of others.
    """

    delimiter: str = ","
    encoding: str = "utf8"
    block_bytes: int = BLOCK_BYTES
    wide: bool = False
    encoding_is_assumed: bool = False

    @property
    def held_bytes(self) -> int:
        """Bytes that `read_batches` holds, as a multiple of a block.

        Three blocks wait, are parsed, or have been. A block of digits and commas is four times as
        large in float64. The next block is joined of two parts and cut into two. Where cells are
        found in NumPy, places and text of a type take eight blocks more for each parser.
        """
        cells = 8 * self.parsers if self.wide else 0
        return ((self.parsers + 1) * (1 + 4) + 4 + cells) * self.block_bytes

    @property
    def parsers(self) -> int:
        """Number of threads that parse; one for long rows, whose blocks are large."""
        return 1 if self.block_bytes > BLOCK_BYTES else _PARSERS


def text_blocks(raw: Any, path: str, dialect: Dialect) -> Generator[tuple[bytes, int], None, None]:
    """Yield blocks of whole rows in UTF-8, and the bytes of the file that were read so far.

    Blank lines at the start of the file are left out.
    """
    size = raw.size()
    decoder = None
    if not is_utf8(dialect.encoding):
        decoder = codecs.getincrementaldecoder(dialect.encoding)()
    unicode = None
    if decoder is not None and dialect.encoding_is_assumed:
        unicode = codecs.getincrementaldecoder("utf8")()
    delimiter = ord(dialect.delimiter)
    stream, packed, rest, first = _decompressed(raw, path), compression_of(path), b"", True
    while True:
        part = _read(stream, dialect.block_bytes, _UNPACK_BYTES if packed else dialect.block_bytes)
        ended = not part
        if unicode is not None:
            try:
                letters = unicode.decode(part, ended)
            except UnicodeDecodeError:
                unicode = None
            else:
                # Latin 1 would read any text of UTF-8, as other letters.
                if not letters.isascii():
                    raise InvalidTable(seems_utf8(path, dialect.encoding))
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
            text += b"\n"  # Arrow accepts a header without rows only as a whole line
        found = whole_rows(text, delimiter)
        end = len(text) if ended else found.end
        if found.unbalanced is not None:
            if found.unbalanced:
                yield text[: found.unbalanced], raw.tell()
                first = False
            raise BrokenText(
                -first,
                "a quote opens a cell that only a quote of a later row closes, with text after "
                "it: one of the two is missing",
            )
        if ended and found.is_open:
            raise BrokenText(-first, "a quote opens a cell, and the file ends before one closes it")
        if end:
            yield text[:end], raw.tell()
            first = False
        if ended:
            return
        rest = text[end:]
        if len(rest) > 2 * dialect.block_bytes:
            raise BrokenText(-first, row_too_long(dialect.block_bytes))


def _read(stream: Any, size: int, step: int) -> bytes:
    """Read `size` bytes in calls of `step`; fewer at the end, or before a part that can't be read.

    A compressed stream loses the bytes of the call that fails, so calls are small.
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
    """Refuse text with the byte-order mark of an encoding of two or four bytes a letter."""
    for mark, kind, encoding in _WIDE_MARKS:
        if text.startswith(mark):
            what = f"it starts as {kind} does"
            raise InvalidTable(not_text(path, dialect.encoding, what, encoding))


def longest_line(path: str) -> int:
    """Return the bytes of the longer of the first two lines, mostly the header and a row."""
    lines, line = [0, 0], 0
    with open_raw(path) as raw:
        stream = _decompressed(raw, path)
        while part := bytes(stream.read(BLOCK_BYTES)):
            for i, text in enumerate(re.split(rb"\r?\n|\r", part, maxsplit=64)):
                if i > 0 and lines[line]:
                    line += 1
                if line > 1:
                    return max(lines)
                lines[line] += len(text)
            # A file that is no text may have no line end, and must not be read whole.
            if lines[line] > _MOST_ROW_BYTES:
                raise InvalidTable(f"{path}: {row_too_long(_MOST_ROW_BYTES)}; correct it")
    return max(lines)


def open_raw(path: str) -> Any:
    """Open a raw file as Arrow's stream of its bytes.

    Raises
    ------
    TableNotFound
        If the file is gone.
    InvalidTable
        If it is no regular file.
    """
    try:
        require_regular(path, TABLE)
        return pa.OSFile(path, "rb")
    except FileNotFoundError:
        raise TableNotFound(f"there is no file {path} any more; check the name") from None


def _decompressed(raw: Any, path: str) -> Any:
    """Return the stream of the unpacked file; the name says how it is packed."""
    kind = compression_of(path)
    return raw if kind is None else pa.CompressedInputStream(raw, kind)
