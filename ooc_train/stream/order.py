"""The order of rows, as pure functions of the layout, the seed and the epoch.

A scan reads *shuffle groups* of chunks. Groups come in random order, and so do the rows within a
group. A shuffled store needs groups of one chunk. In other stores, a group has `shuffle_chunks`
chunks, drawn at random from the whole store.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ooc_train.kernels import api as kernels

MIXED_CHUNKS = 64
"""Chunks of a shuffle group, if the rows of a store are in no random order."""


def groups(n_chunks: int, group: int, seed: int, epoch: int) -> list[tuple[int, ...]]:
    """Return the chunks of each shuffle group of an epoch, in the order of the scan.

    Parameters
    ----------
    group : int
        Chunks of a group, at least 1.
    seed, epoch : int
        Determine the order.

    Returns
    -------
    list of tuples
        Every chunk number below `n_chunks` exactly once.

    Examples
    --------
    >>> sorted(chunk for group in groups(5, 2, seed=0, epoch=0) for chunk in group)
    [0, 1, 2, 3, 4]
    """
    if group >= n_chunks:
        # All rows are permuted together, so the order of chunks doesn't matter.
        return [tuple(range(n_chunks))]
    order = np.random.default_rng((seed, epoch)).permutation(n_chunks).tolist()
    return [tuple(order[i : i + group]) for i in range(0, n_chunks, group)]


@lru_cache(maxsize=2)
def epoch_seed(seed: int, epoch: int) -> int:
    """Return the 64-bit seed of an epoch."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0])


def row_seed(epoch_seed: int, group: int) -> int:
    """Return the 64-bit seed of the order of rows within one shuffle group.

    Seeds of successive groups differ by the golden ratio, and the generator mixes their bits
    (Steele et al. 2014, SplitMix). A `SeedSequence` for each group would take as long as the
    updates by its rows.
    """
    return (epoch_seed + group * 0x9E3779B97F4A7C15) % 2**64


@dataclass(frozen=True)
class EpochOrder:
    """The order of rows of one scan, as a small value to send in place of a list of chunks.

    Attributes
    ----------
    shuffle_chunks : int
        Chunks of a shuffle group.
    seed, epoch : int
        Determine the order. Without a seed, rows keep the order of the data.
    """

    n_chunks: int
    shuffle_chunks: int
    seed: int | None
    epoch: int

    def groups(self) -> Sequence[tuple[int, ...]]:
        """Return the chunks of every shuffle group, in the order of the scan."""
        return _groups_of(self)

    def fill(self, rows: NDArray[np.int64], group: int) -> None:
        """Write the order of the rows of a group into `rows`."""
        if self.seed is None:
            rows[:] = np.arange(len(rows))
            return
        kernels.shuffle(row_seed(epoch_seed(self.seed, self.epoch), group), rows)


@lru_cache(maxsize=2)
def _groups_of(order: EpochOrder) -> tuple[tuple[int, ...], ...]:
    if order.seed is None:
        return tuple((chunk,) for chunk in range(order.n_chunks))
    shuffle_chunks = min(order.shuffle_chunks, order.n_chunks)
    return tuple(groups(order.n_chunks, shuffle_chunks, order.seed, order.epoch))
