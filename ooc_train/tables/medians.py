"""Exact medians of columns that are larger than memory."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

_DIGIT_BITS = 11
"""Bits of each median that one pass over all rows finds: 3 passes for float32, 6 for float64."""

BYTES_PER_COLUMN = 2 * 8 * 2**_DIGIT_BITS
"""Bytes of the two histograms of a column."""

MEDIAN_BYTES = 64 * 2**20
"""Default of the bytes that `medians` may hold."""

_COPIES = 3
"""Copies of the values of a column that is sorted."""


def medians(
    blocks: Callable[[], Iterable[NDArray[np.floating]]],
    columns: Sequence[int],
    counts: NDArray[np.int64],
    max_bytes: int = MEDIAN_BYTES,
) -> list[float]:
    """Return the exact medians of columns, found for as many columns at a time as memory allows.

    Few values are sorted. Many values go through a radix selection (Knuth, The Art of Computer
    Programming, vol. 3, 5.3.3): each pass over all rows finds 11 bits of each median, from the
    highest on. It takes a histogram of 2,048 bins for each column and rank.

    Parameters
    ----------
    blocks : callable
        Returns all rows, at each call, in blocks of shape (row, column) of one float type. NaN is
        a missing value.
    counts : ndarray of int64
        Number of values of each column, without missing ones.
    max_bytes : int
        Bytes that may be held; at least one column is taken at a time.
    """
    found: list[float] = []
    most = int(counts[list(columns)].max())
    # Values are at most float64.
    sorted_bytes = _COPIES * 8 * most
    few = sorted_bytes <= BYTES_PER_COLUMN
    step = max(1, max_bytes // (sorted_bytes if few else BYTES_PER_COLUMN))
    for start in range(0, len(columns), step):
        some = np.asarray(columns[start : start + step], np.intp)
        found += _by_sorting(blocks, some, counts) if few else _by_digits(blocks, some, counts)
    return found


def _by_sorting(
    blocks: Callable[[], Iterable[NDArray[np.floating]]],
    columns: NDArray[np.intp],
    counts: NDArray[np.int64],
) -> list[float]:
    """Return medians of columns with few values."""
    wanted = counts[columns]
    kept: NDArray[np.floating] | None = None
    filled = np.zeros(len(columns), np.int64)
    for block in blocks():
        if kept is None:
            kept = np.full((len(columns), int(wanted.max())), np.inf, block.dtype)
        values = block[:, columns].T
        present = ~np.isnan(values)
        # Append each value to those of its column.
        places = filled[:, np.newaxis] + np.cumsum(present, axis=1) - 1
        of, row = np.nonzero(present)
        kept[of, places[of, row]] = values[of, row]
        filled += present.sum(axis=1)
    if kept is None:
        raise ValueError("there are no rows")
    kept.sort(axis=1)
    each = np.arange(len(columns))
    low, high = kept[each, (wanted - 1) // 2], kept[each, wanted // 2]
    # The same as `np.mean` of two float64 numbers.
    middle = (low.astype(np.float64) + high.astype(np.float64)) / 2
    return [float(value) for value in middle]


def _by_digits(
    blocks: Callable[[], Iterable[NDArray[np.floating]]],
    columns: NDArray[np.intp],
    counts: NDArray[np.int64],
) -> list[float]:
    """Return medians of columns by their bits, from the highest on."""
    # Both middle ranks are equal if the number of values is odd.
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
    """Return the bits of the numbers in an order-preserving form, without missing values."""
    values = np.ascontiguousarray(values[~np.isnan(values)])
    bits = 8 * values.dtype.itemsize
    raw = values.view(f"u{values.dtype.itemsize}").astype(np.uint64)
    sign = np.uint64(1 << (bits - 1))
    flipped = np.uint64((1 << bits) - 1) ^ raw
    return np.where(raw & sign, flipped, raw | sign)


def _number(key: np.uint64, bits: int) -> float:
    """Return the number whose key `_sortable` gave."""
    sign = 1 << (bits - 1)
    raw = int(key) ^ sign if int(key) & sign else int(key) ^ ((1 << bits) - 1)
    kind = np.float32 if bits == 32 else np.float64
    return float(np.array([raw], f"u{bits // 8}").view(kind)[0])
