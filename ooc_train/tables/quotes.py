"""Quoted cells of CSV: where rows end, and where a quote opens a cell that nothing closes.

A cell is quoted if a quote stands at its beginning. Two quotes in a row within a quoted cell mean
one. After the quote that closes a cell, text up to the next delimiter still belongs to the cell.
Arrow parses CSV by the same rules.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_QUOTE = 34


@dataclass(frozen=True, slots=True)
class Cut:
    """How far a text consists of whole rows.

    Parameters
    ----------
    end : int
        Where the last whole row ends, 0 where none does.
    lost : int or None
        Where a row begins whose quoted cell was closed by a quote that was meant to open another:
        the cell has line ends in it, and text after the quote that closes it. Writers of CSV make
        no such cells.
    is_open : bool
        Whether the text ends within a quoted cell.
    """

    end: int
    lost: int | None = None
    is_open: bool = False


def cut(text: bytes, delimiter: int) -> Cut:
    """Say how far a text, which begins with a row, consists of whole rows."""
    end = _last_break(text, len(text))
    if b'"' not in text:
        return Cut(end + 1)
    array = np.frombuffer(text, np.uint8)
    opening, closing = quoted_cells(array, delimiter)
    lost = _lost_quote(text, array, opening[: len(closing)], closing, delimiter)
    if lost is not None:
        lost = _rows_before(text, lost, opening, closing)
    return Cut(_rows_before(text, len(text), opening, closing), lost, len(opening) > len(closing))


def _last_break(text: bytes, stop: int) -> int:
    return max(text.rfind(b"\n", 0, stop), text.rfind(b"\r", 0, stop))


def _rows_before(text: bytes, stop: int, opening: Any, closing: Any) -> int:
    """Say where the last row ends that is whole before a place, 0 where none is."""
    end = _last_break(text, stop)
    while end >= 0:
        place = int(np.searchsorted(opening, end)) - 1
        if place < 0 or (place < len(closing) and closing[place] < end):
            return end + 1
        end = _last_break(text, int(opening[place]))
    return 0


def _lost_quote(
    text: bytes, array: NDArray[np.uint8], opening: Any, closing: Any, delimiter: int
) -> int | None:
    """Find the first cell with line ends in it and text after the quote that closes it."""
    after = array[np.minimum(closing + 1, len(array) - 1)]
    ends = _marks(delimiter)[after] | (after == _QUOTE)
    if len(closing):
        ends[-1] |= closing[-1] == len(array) - 1
    for place in np.flatnonzero(~ends):
        first = place
        # Two quotes in a row may have been taken for one that closes and one that opens.
        while first > 0 and opening[first] - 1 == closing[first - 1]:
            first -= 1
        start, stop = int(opening[first]), int(closing[place])
        if text.find(b"\n", start, stop) >= 0 or text.find(b"\r", start, stop) >= 0:
            return start
    return None


def quoted_cells(array: NDArray[np.uint8], delimiter: int) -> tuple[Any, Any]:
    """Find where quoted cells open and close; one more opens than closes if the text ends in it."""
    quotes = np.flatnonzero(array == _QUOTE)
    opening, closing = quotes[::2], quotes[1::2]
    # Quotes open and close by turns, where each that opens does so at the beginning of a cell, or
    # right after one that closed: two in a row are one that is meant.
    begins = _begins_cell(array, opening, delimiter)
    begins[1:] |= opening[1:] - 1 == closing[: len(opening) - 1]
    return (opening, closing) if begins.all() else _some_quoted(array, quotes, delimiter)


def _begins_cell(array: Any, places: Any, delimiter: int) -> Any:
    return (places == 0) | _marks(delimiter)[array[np.maximum(places - 1, 0)]]


@cache
def _marks(delimiter: int) -> NDArray[np.bool_]:
    """Say of each byte whether it ends a cell that isn't quoted."""
    marks = np.zeros(256, bool)
    marks[[delimiter, *b"\r\n"]] = True
    return marks


def _some_quoted(array: Any, quotes: Any, delimiter: int) -> tuple[Any, Any]:
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
