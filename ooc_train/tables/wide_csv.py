"""CSV of many columns: the cells of a block are parsed as tall columns, one for each type.

For each column of each block Arrow sets up converters that take 10 KB and 0.1 ms, however few rows
the block has: 50,000 columns took 500 MB, and 5 s for every 1.5 MB of text. So cells are found
here, by the ends of cells in NumPy, and the cells of all columns of one type are handed to Arrow as
one column, row after row. What a cell means is left to Arrow, as it is for other CSV.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ooc_train.tables.arrow import from_numpy
from ooc_train.tables.quotes import quoted_cells

WIDE_COLUMNS = 256
"""Columns from which on CSV is parsed in this way."""

_STRIP_COLUMNS = 512
"""Columns whose types Arrow finds at a time."""

_NEWLINE, _RETURN, _MINUS = b"\n\r-"

_DIGIT, _POINT, _EXPONENT, _OTHER = 1, 2, 4, 8
"""What a byte of a cell may belong to: a whole number, a fraction, one with an exponent, others."""


def _meanings() -> NDArray[np.uint8]:
    found = np.full(256, _OTHER, np.uint8)
    for letters, meaning in ((b"0123456789-", _DIGIT), (b".", _POINT), (b"eE+", _EXPONENT)):
        found[list(letters)] = meaning
    return found


_MEANINGS = _meanings()


class Parser(Protocol):
    """Parses text as CSV of columns with these names, as types or as what it finds."""

    def __call__(
        self, text: bytes, names: Sequence[str], types: Mapping[str, pa.DataType], /
    ) -> pa.Table:
        """Return the table."""


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of some rows of CSV.

    Parameters
    ----------
    text : ndarray of uint8
        Rows without blank lines between them, each of which ends with one byte.
    ends : ndarray of int32, shape (row, column)
        Where in the text each cell ends: the place of the delimiter, or of the row's end.
    """

    text: NDArray[np.uint8]
    ends: NDArray[np.int32]

    @classmethod
    def of(cls, text: bytes, delimiter: int, columns: int | None = None) -> Self | None:
        """Find the cells of whole rows; None if a row has another number than `columns`.

        Parameters
        ----------
        text : bytes
            Of whole rows; the last one need not end with a line's end.
        delimiter : int
        columns : int, optional
            By default as many as the first row has.
        """
        if not text.endswith((b"\n", b"\r")):
            text += b"\n"
        array = np.frombuffer(text, np.uint8)
        marks = array == _NEWLINE
        if b"\r" in text:
            marks |= array == _RETURN
        breaks = marks.copy()
        marks |= array == delimiter
        if b'"' in text:
            marks &= ~_inside(array, delimiter)
            breaks &= marks
        # Of CR LF, and of blank lines, the first byte is a line's end and the others are nothing.
        again = breaks.copy()
        again[1:] &= breaks[:-1]
        again[0] = breaks[0]
        if again.any():
            kept = ~again
            array, marks, breaks = array[kept], marks[kept], breaks[kept]
        ends = np.flatnonzero(marks).astype(np.int32)
        last = breaks[ends]
        if columns is None:
            columns = int(np.argmax(last)) + 1
        n_rows, rest = divmod(len(ends), columns)
        if rest or np.count_nonzero(last) != n_rows or not last[columns - 1 :: columns].all():
            return None
        return cls(array, ends.reshape(n_rows, columns))

    @property
    def n_rows(self) -> int:
        """Rows of the text."""
        return len(self.ends)

    @cached_property
    def _lengths(self) -> NDArray[np.int32]:
        """Bytes of each cell and its end, (row x column,)."""
        return np.diff(self.ends.reshape(-1), prepend=np.int32(-1))

    def tall(self, columns: NDArray[np.intp]) -> bytes:
        """Give the cells of some columns, row after row, as text with one cell a line."""
        return self._of(columns, self.ends.reshape(-1))

    def strip(self, columns: NDArray[np.intp]) -> bytes:
        """Give some columns, in ascending order, as text with all of their cells in a line."""
        return self._of(columns, self.ends[:, columns[-1]])

    def _of(self, columns: NDArray[np.intp], breaks: NDArray[np.int32]) -> bytes:
        """Give the text of some columns, with line's ends where it is said."""
        text, n = self.text.copy(), self.ends.shape[1]
        text[breaks] = _NEWLINE
        if len(columns) < n:
            wanted = np.zeros(n, bool)
            wanted[columns] = True
            text = text[np.repeat(np.tile(wanted, self.n_rows), self._lengths)]
        return text.tobytes()

    def meanings(self) -> NDArray[np.uint8]:
        """Say of each column what the bytes of its cells may belong to, (column,)."""
        text, flat = self.text, self.ends.reshape(-1)
        found = _MEANINGS[text]
        found[flat] = 0
        # Within a cell, a minus is the exponent's, or it is no number's.
        minus = np.flatnonzero(text == _MINUS)
        minus = minus[minus > 0]
        begins = np.zeros(len(text) + 1, bool)
        begins[flat + 1] = True
        inner = minus[~begins[minus]]
        after = _MEANINGS[text[inner - 1]] == _EXPONENT
        found[inner] = np.where(after, _EXPONENT, _OTHER)
        starts = np.concatenate([[0], flat[:-1] + 1])
        cells = np.bitwise_or.reduceat(found, starts) if len(starts) else found[:0]
        by_column: NDArray[np.uint8] = np.bitwise_or.reduce(cells.reshape(self.ends.shape), axis=0)
        return by_column


def _inside(array: NDArray[np.uint8], delimiter: int) -> NDArray[np.bool_]:
    """Say which bytes lie within quoted cells."""
    opening, closing = quoted_cells(array, delimiter)
    steps = np.zeros(len(array) + 1, np.int8)
    steps[opening] += 1
    steps[closing] -= 1
    inside: NDArray[np.bool_] = np.cumsum(steps[:-1], dtype=np.int8).view(bool)
    return inside


def header_end(text: bytes, delimiter: int) -> int:
    """Say where the first row of a text ends, after its line's end."""
    place = 0
    while True:
        ends = [end for end in (text.find(mark, place) for mark in (b"\n", b"\r")) if end >= 0]
        if not ends:
            return len(text)
        place = min(ends) + 1
        array = np.frombuffer(text[: place - 1], np.uint8)
        opening, closing = quoted_cells(array, delimiter)
        if len(opening) == len(closing):
            return place


def header_cells(text: bytes, delimiter: int, parse: Parser) -> list[str]:
    """Give the cells of the first row of a text."""
    cells = Cells.of(text[: header_end(text, delimiter)], delimiter)
    if cells is None:
        return []
    table = parse(cells.tall(np.arange(cells.ends.shape[1])), ["x"], {"x": pa.string()})
    return ["" if name is None else name for name in table.column(0).to_pylist()]


def types_of(cells: Cells, names: Sequence[str], parse: Parser) -> list[pa.DataType]:
    """Say of each column which type Arrow would find, without its looking at each of them.

    Columns of digits are whole numbers if all of them together can be parsed as such, columns of
    digits and points fractions. Arrow looks at the others.
    """
    meanings = cells.meanings()
    types: list[pa.DataType] = [pa.null()] * len(names)
    others = [np.flatnonzero(meanings & _OTHER)]
    fraction = (meanings & _OTHER == 0) & (meanings & _POINT != 0)
    for arrow, of in ((pa.int64(), meanings == _DIGIT), (pa.float64(), fraction)):
        columns = np.flatnonzero(of)
        try:
            if len(columns):
                parse(cells.tall(columns), ["x"], {"x": arrow})
        except pa.ArrowInvalid:
            others.append(columns)
            continue
        for column in columns:
            types[column] = arrow
    others.append(np.flatnonzero((meanings & (_OTHER | _POINT) == 0) & (meanings > _DIGIT)))
    rest = np.sort(np.concatenate(others))
    for start in range(0, len(rest), _STRIP_COLUMNS):
        columns = rest[start : start + _STRIP_COLUMNS]
        found = parse(cells.strip(columns), [names[i] for i in columns.tolist()], {})
        for column, arrow in zip(columns, found.schema.types, strict=True):
            types[column] = arrow
    return types


@dataclass(frozen=True, eq=False)
class Part:
    """Columns of one type.

    Parameters
    ----------
    type : pyarrow.DataType
    names : tuple of str
    columns : ndarray of int
        Their numbers within the file, ascending.
    """

    type: pa.DataType
    names: tuple[str, ...]
    columns: NDArray[np.intp]


class Parts:
    """The columns of a file that are wanted, by their types; parses blocks.

    Parameters
    ----------
    names : sequence of str
        All of the file's.
    wanted : mapping of str to pyarrow.DataType
    delimiter : int
    parse : Parser
    """

    def __init__(
        self,
        names: Sequence[str],
        wanted: Mapping[str, pa.DataType],
        delimiter: int,
        parse: Parser,
    ) -> None:
        self._n, self._delimiter, self._parse = len(names), delimiter, parse
        by_type: dict[pa.DataType, list[int]] = {}
        for i, name in enumerate(names):
            if name in wanted:
                arrow = wanted[name]
                # Columns of one dictionary would share their values.
                arrow = arrow.value_type if pa.types.is_dictionary(arrow) else arrow
                by_type.setdefault(arrow, []).append(i)
        self.parts = tuple(
            Part(arrow, tuple(names[i] for i in columns), np.array(columns, np.intp))
            for arrow, columns in by_type.items()
        )
        self.places = {
            name: (p, i) for p, part in enumerate(self.parts) for i, name in enumerate(part.names)
        }

    def batch(self, text: bytes, header: int) -> "WideBatch | None":
        """Parse whole rows; None if one of them has another number of cells.

        Parameters
        ----------
        text : bytes
        header : int
            Rows before those of the text, by which errors tell of rows.

        Raises
        ------
        pyarrow.ArrowInvalid
            A cell that can't be what its column is, as Arrow says it of a block.
        """
        cells = Cells.of(text, self._delimiter, self._n)
        if cells is None:
            return None
        return WideBatch(self, [self._array(cells, part, header) for part in self.parts])

    def _array(self, cells: Cells, part: Part, header: int) -> pa.Array:
        try:
            found = self._parse(cells.tall(part.columns), ["x"], {"x": part.type}).column(0)
        except pa.ArrowInvalid as error:
            place = re.search(r"In CSV column #0: Row #(\d+):", str(error))
            if place is None:
                raise
            row, column = divmod(int(place[1]) - 1, len(part.columns))
            told = f"In CSV column #{part.columns[column]}: Row #{row + 1 + header}:"
            raise pa.ArrowInvalid(str(error).replace(place[0], told)) from None
        return found.chunk(0) if found.num_chunks == 1 else found.combine_chunks()


class WideBatch:
    """Rows of many columns, of which those of one type lie in one array, row after row.

    Parameters
    ----------
    columns : Parts
    arrays : sequence of pyarrow.Array, each of shape (row x column of the part,)
    """

    def __init__(self, columns: Parts, arrays: Sequence[pa.Array]) -> None:
        self._columns = columns
        self.arrays = tuple(arrays)

    @property
    def parts(self) -> tuple[Part, ...]:
        """What the arrays hold."""
        return self._columns.parts

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        return len(self.arrays[0]) // len(self.parts[0].names)

    def column(self, name: str) -> pa.Array:
        """Give the values of a column."""
        p, i = self._columns.places[name]
        step = len(self.parts[p].names)
        return self.arrays[p].take(from_numpy(np.arange(i, len(self.arrays[p]), step)))

    def slice(self, start: int, length: int) -> "WideBatch":
        """Give some of the rows."""
        found = []
        for part, array in zip(self.parts, self.arrays, strict=True):
            step = len(part.names)
            found.append(array.slice(start * step, length * step))
        return WideBatch(self._columns, found)
