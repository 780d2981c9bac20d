"""Cells of CSV text, found by their ends in NumPy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ooc_train.tables.quotes import quoted_cells

_NEWLINE, _RETURN, _MINUS = b"\n\r-"

DIGIT, POINT, EXPONENT, OTHER = 1, 2, 4, 8
"""Classes of bytes: of a whole number, of a fraction, of an exponent, others; as bits."""


def _byte_classes() -> NDArray[np.uint8]:
    found = np.full(256, OTHER, np.uint8)
    for letters, byte_class in ((b"0123456789-", DIGIT), (b".", POINT), (b"eE+", EXPONENT)):
        found[list(letters)] = byte_class
    return found


_CLASSES = _byte_classes()


class Parser(Protocol):
    """A function that parses text as CSV of named columns, with given or found types."""

    def __call__(
        self, text: bytes, names: Sequence[str], types: Mapping[str, pa.DataType], /
    ) -> pa.Table:
        """Return the text as a table."""


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of whole rows of CSV.

    Parameters
    ----------
    text : ndarray of uint8
        Rows without blank lines; the end of each is one byte.
    ends : ndarray of int32, shape (row, column)
        The end of each cell in the text: the place of the delimiter or of the row's end.
    """

    text: NDArray[np.uint8]
    ends: NDArray[np.int32]

    @classmethod
    def of(cls, text: bytes, delimiter: int, columns: int | None = None) -> Self | None:
        """Find the cells of whole rows; return None if a row has another number of cells.

        Parameters
        ----------
        text : bytes
            Whole rows; the last one may lack a line end.
        columns : int, optional
            Number of cells of a row; by default that of the first row.
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
            marks &= ~_quoted_bytes(array, delimiter)
            breaks &= marks
        # Of CR LF and of blank lines, the first byte is the line end, and the others are removed.
        extra = breaks.copy()
        extra[1:] &= breaks[:-1]
        extra[0] = breaks[0]
        if extra.any():
            kept = ~extra
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
        """Number of rows."""
        return len(self.ends)

    @cached_property
    def _lengths(self) -> NDArray[np.int32]:
        """Return the bytes of each cell with its end, shape (row x column,)."""
        return np.diff(self.ends.reshape(-1), prepend=np.int32(-1))

    def one_cell_a_line(self, columns: NDArray[np.intp]) -> bytes:
        """Return the cells of some columns, row by row, as text with one cell a line."""
        return self._text_of(columns, self.ends.reshape(-1))

    def one_row_a_line(self, columns: NDArray[np.intp]) -> bytes:
        """Return some columns, in ascending order, as text with one row a line."""
        return self._text_of(columns, self.ends[:, columns[-1]])

    def _text_of(self, columns: NDArray[np.intp], breaks: NDArray[np.int32]) -> bytes:
        """Return the text of some columns, with a newline in place of the cell ends `breaks`."""
        text, n = self.text.copy(), self.ends.shape[1]
        text[breaks] = _NEWLINE
        if len(columns) < n:
            wanted = np.zeros(n, bool)
            wanted[columns] = True
            text = text[np.repeat(np.tile(wanted, self.n_rows), self._lengths)]
        return text.tobytes()

    def byte_classes(self) -> NDArray[np.uint8]:
        """Return the union of the byte classes of each column's cells, shape (column,)."""
        text, flat = self.text, self.ends.reshape(-1)
        found = _CLASSES[text]
        found[flat] = 0
        # Within a cell, a minus is part of an exponent, or the cell is no number.
        minus = np.flatnonzero(text == _MINUS)
        minus = minus[minus > 0]
        begins = np.zeros(len(text) + 1, bool)
        begins[flat + 1] = True
        inner = minus[~begins[minus]]
        after = _CLASSES[text[inner - 1]] == EXPONENT
        found[inner] = np.where(after, EXPONENT, OTHER)
        starts = np.concatenate([[0], flat[:-1] + 1])
        cells = np.bitwise_or.reduceat(found, starts) if len(starts) else found[:0]
        by_column: NDArray[np.uint8] = np.bitwise_or.reduce(cells.reshape(self.ends.shape), axis=0)
        return by_column


def _quoted_bytes(array: NDArray[np.uint8], delimiter: int) -> NDArray[np.bool_]:
    """Return a mask of the bytes that lie within quoted cells."""
    opening, closing = quoted_cells(array, delimiter)
    steps = np.zeros(len(array) + 1, np.int8)
    steps[opening] += 1
    steps[closing] -= 1
    inside: NDArray[np.bool_] = np.cumsum(steps[:-1], dtype=np.int8).view(bool)
    return inside


def header_end(text: bytes, delimiter: int) -> int:
    """Return the end of the first row of a text, after its line end."""
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
    """Return the cells of the first row of a text."""
    cells = Cells.of(text[: header_end(text, delimiter)], delimiter)
    if cells is None:
        return []
    table = parse(cells.one_cell_a_line(np.arange(cells.ends.shape[1])), ["x"], {"x": pa.string()})
    return ["" if name is None else name for name in table.column(0).to_pylist()]
