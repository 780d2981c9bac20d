"""Quoted cells of CSV: where rows end, and where a quote opens a cell without a closing quote.

A cell is quoted if its first character is a quote. Two quotes in a row within a quoted cell mean
one. Text between the closing quote and the next delimiter still belongs to the cell. Arrow parses
CSV by the same rules.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_QUOTE = 34


@dataclass(frozen=True, slots=True)
class WholeRows:
    """The part of a text that consists of whole rows.

    Parameters
    ----------
    end : int
        The end of the last whole row, 0 if there is none.
    unbalanced : int or None
        The start of the first row with an unbalanced quote. Its quoted cell holds line ends, and
        text after the closing quote; writers of CSV make no such cells.
    is_open : bool
        Whether the text ends within a quoted cell.
    """

    end: int
    unbalanced: int | None = None
    is_open: bool = False


def whole_rows(text: bytes, delimiter: int) -> WholeRows:
    """Find the part of a text that consists of whole rows; the text starts with a row."""
    end = _last_break(text, len(text))
    if b'"' not in text:
        return WholeRows(end + 1)
    array = np.frombuffer(text, np.uint8)
    opening, closing = quoted_cells(array, delimiter)
    unbalanced = _unbalanced_cell(text, array, opening[: len(closing)], closing, delimiter)
    if unbalanced is not None:
        unbalanced = _rows_before(text, unbalanced, opening, closing)
    end = _rows_before(text, len(text), opening, closing)
    return WholeRows(end, unbalanced, len(opening) > len(closing))


def _last_break(text: bytes, stop: int) -> int:
    return max(text.rfind(b"\n", 0, stop), text.rfind(b"\r", 0, stop))


def _rows_before(text: bytes, stop: int, opening: Any, closing: Any) -> int:
    """Return the end of the last whole row before `stop`, 0 if there is none."""
    end = _last_break(text, stop)
    while end >= 0:
        place = int(np.searchsorted(opening, end)) - 1
        if place < 0 or (place < len(closing) and closing[place] < end):
            return end + 1
        end = _last_break(text, int(opening[place]))
    return 0


def _unbalanced_cell(
    text: bytes, array: NDArray[np.uint8], opening: Any, closing: Any, delimiter: int
) -> int | None:
    """Return the start of the first cell with line ends, and text after its closing quote."""
    after = array[np.minimum(closing + 1, len(array) - 1)]
    ends = _marks(delimiter)[after] | (after == _QUOTE)
    if len(closing):
        ends[-1] |= closing[-1] == len(array) - 1
    for place in np.flatnonzero(~ends):
        first = place
        # Two quotes in a row count as a closing and an opening one.
        while first > 0 and opening[first] - 1 == closing[first - 1]:
            first -= 1
        start, stop = int(opening[first]), int(closing[place])
        if text.find(b"\n", start, stop) >= 0 or text.find(b"\r", start, stop) >= 0:
            return start
    return None


def quoted_cells(array: NDArray[np.uint8], delimiter: int) -> tuple[Any, Any]:
    """Return the places of opening and closing quotes; the last cell may have no closing one."""
    quotes = np.flatnonzero(array == _QUOTE)
    opening, closing = quotes[::2], quotes[1::2]
    # Quotes alternate if each opening one starts a cell, or follows a closing one directly: two in
    # a row mean one.
    begins = _begins_cell(array, opening, delimiter)
    begins[1:] |= opening[1:] - 1 == closing[: len(opening) - 1]
    return (opening, closing) if begins.all() else _some_quoted(array, quotes, delimiter)


def _begins_cell(array: Any, places: Any, delimiter: int) -> Any:
    return (places == 0) | _marks(delimiter)[array[np.maximum(places - 1, 0)]]


@cache
def _marks(delimiter: int) -> NDArray[np.bool_]:
    """Return for each of the 256 byte values whether it ends a cell that isn't quoted."""
    marks = np.zeros(256, bool)
    marks[[delimiter, *b"\r\n"]] = True
    return marks


def _some_quoted(array: Any, quotes: Any, delimiter: int) -> tuple[Any, Any]:
    """Return opening and closing quotes of a text in which some quotes are plain characters."""
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
