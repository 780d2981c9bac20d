"""Random keys of rows, which decide their order."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def row_keys(rows: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    """Return a random key of each row: a function of (seed, row number), different for every row.

    The SplitMix64 generator of Steele, Lea and Flood (2014, "Fast splittable pseudorandom number
    generators"), with the row number as its step.
    """
    keys = rows.astype(np.uint64)
    keys *= np.uint64(0x9E3779B97F4A7C15)
    keys += _offset(seed)
    mixed = np.empty_like(keys)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        np.right_shift(keys, np.uint64(shift), out=mixed)
        keys ^= mixed
        keys *= np.uint64(factor)
    return keys


@lru_cache
def _offset(seed: int) -> np.uint64:
    """Return where a seed's sequence of keys starts, far from those of other seeds."""
    return np.uint64(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])
