"""Exact medians of columns that are larger than memory."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

_DIGIT_BITS = 11
"""Bits of a value that one look at all rows settles: float32 takes three, float64 six."""

BYTES_PER_COLUMN = 2 * 8 * 2**_DIGIT_BITS
"""Bytes that are held for each column."""


def medians(
    blocks: Callable[[], Iterable[NDArray[np.floating]]],
    columns: Sequence[int],
    counts: NDArray[np.int64],
) -> list[float]:
    """Find medians of columns exactly, with a histogram of 2,048 bins a column and rank.

    Every look at all rows settles 11 bits of each median, from the highest on: a radix selection
    (Knuth, The Art of Computer Programming, vol. 3, 5.3.3) on bits that sort as their numbers do.

    Parameters
    ----------
    blocks : callable
        Gives all rows anew, in blocks of shape (row, column) of one float type; NaN is missing.
    columns : sequence of int
    counts : ndarray of int64
        Values of each column that aren't missing.
    """
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
