"""Exact medians of columns that are larger than memory."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

_DIGIT_BITS = 11
"""Bits of a value that one look at all rows settles: float32 takes three, float64 six."""

BYTES_PER_COLUMN = 2 * 8 * 2**_DIGIT_BITS
"""Bytes that are held for each column."""


MEDIAN_BYTES = 64 * 2**20
"""What finding medians may hold where nobody says."""

_COPIES = 3
"""Of the values of a column whose median is found by sorting them."""


def medians(
    blocks: Callable[[], Iterable[NDArray[np.floating]]],
    columns: Sequence[int],
    counts: NDArray[np.int64],
    room: int = MEDIAN_BYTES,
) -> list[float]:
    """Find medians of columns exactly, of as many columns at a time as there is room for.

    Where rows are few, their values are sorted. Otherwise with a histogram of 2,048 bins a column
    and rank.

    Every look at all rows settles 11 bits of each median, from the highest on: a radix selection
    (Knuth, The Art of Computer Programming, vol. 3, 5.3.3) on bits that sort as their numbers do.

    Parameters
    ----------
    blocks : callable
        Gives all rows anew, in blocks of shape (row, column) of one float type; NaN is missing.
    columns : sequence of int
    counts : ndarray of int64
        Values of each column that aren't missing.
    room : int
        Bytes that may be held, for one column at least.
    """
    found: list[float] = []
    most = int(counts[list(columns)].max())
    # Values are float64 at most, beside which missing ones are as many as they may be.
    sorted_bytes = _COPIES * 8 * most
    few = sorted_bytes <= BYTES_PER_COLUMN
    step = max(1, room // (sorted_bytes if few else BYTES_PER_COLUMN))
    for start in range(0, len(columns), step):
        some = np.asarray(columns[start : start + step], np.intp)
        found += _by_sorting(blocks, some, counts) if few else _by_digits(blocks, some, counts)
    return found


def _by_sorting(
    blocks: Callable[[], Iterable[NDArray[np.floating]]],
    columns: NDArray[np.intp],
    counts: NDArray[np.int64],
) -> list[float]:
    """Find medians of columns of few values."""
    wanted = counts[columns]
    kept: NDArray[np.floating] | None = None
    filled = np.zeros(len(columns), np.int64)
    for block in blocks():
        if kept is None:
            kept = np.full((len(columns), int(wanted.max())), np.inf, block.dtype)
        values = block[:, columns].T
        there = ~np.isnan(values)
        # Each value goes behind those of its column that were there before.
        places = filled[:, np.newaxis] + np.cumsum(there, axis=1) - 1
        of, row = np.nonzero(there)
        kept[of, places[of, row]] = values[of, row]
        filled += there.sum(axis=1)
    if kept is None:
        raise ValueError("there are no rows")
    kept.sort(axis=1)
    each = np.arange(len(columns))
    low, high = kept[each, (wanted - 1) // 2], kept[each, wanted // 2]
    # As `np.mean` has it of two numbers in float64.
    middle = (low.astype(np.float64) + high.astype(np.float64)) / 2
    return [float(value) for value in middle]


def _by_digits(
    blocks: Callable[[], Iterable[NDArray[np.floating]]],
    columns: NDArray[np.intp],
    counts: NDArray[np.int64],
) -> list[float]:
    """Find medians of columns by their bits, from the highest on."""
    # The two in the middle are one where the number of values is odd.
    ranks = np.array([((counts[i] - 1) // 2, counts[i] // 2) for i in columns])
    found = np.zeros(ranks.shape, np.uint64)
    bits, settled, digit_bits = 64, 0, 0
    while settled < bits:
        histograms = np.zeros((*ranks.shape, 2**_DIGIT_BITS), np.int64)
        for block in blocks():
            bits = 8 * block.dtype.itemsize
            digit_bits = min(_DIGIT_BITS, bits - settled)
            shift = np.uint64(bits - settled - digit_bits)
            for c, column in enumerate(columns):
                keys = _sortable(block[:, column]) >> shift
                digits = (keys & np.uint64(2**digit_bits - 1)).astype(np.intp)
                high = keys >> np.uint64(digit_bits)
                for r in range(2):
                    of = digits[high == found[c, r]]
                    histograms[c, r] += np.bincount(of, minlength=2**_DIGIT_BITS)
        for c, r in np.ndindex(*ranks.shape):
            up_to = np.cumsum(histograms[c, r])
            digit = int(np.searchsorted(up_to, ranks[c, r], side="right"))
            ranks[c, r] -= up_to[digit - 1] if digit else 0
            found[c, r] = (found[c, r] << np.uint64(digit_bits)) | np.uint64(digit)
        settled += digit_bits
    return [float(np.mean([_number(key, bits) for key in pair])) for pair in found]


def _sortable(values: NDArray[np.floating]) -> NDArray[np.uint64]:
    """Give the bits of numbers such that they sort as the numbers do, without those that miss."""
    values = np.ascontiguousarray(values[~np.isnan(values)])
    bits = 8 * values.dtype.itemsize
    raw = values.view(f"u{values.dtype.itemsize}").astype(np.uint64)
    sign = np.uint64(1 << (bits - 1))
    flipped = np.uint64((1 << bits) - 1) ^ raw
    return np.where(raw & sign, flipped, raw | sign)


def _number(key: np.uint64, bits: int) -> float:
    """Give the number whose bits `_sortable` made these of."""
    sign = 1 << (bits - 1)
    raw = int(key) ^ sign if int(key) & sign else int(key) ^ ((1 << bits) - 1)
    kind = np.float32 if bits == 32 else np.float64
    return float(np.array([raw], f"u{bits // 8}").view(kind)[0])
