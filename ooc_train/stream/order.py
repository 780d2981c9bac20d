"""Which rows when: pure functions of the layout, the random state and the epoch.

A scan goes through *groups* of chunks. Groups come in random order; within a group, rows come in
random order. A store that was shuffled at rest needs groups of one chunk only; one that was not has
`shuffle_chunks` chunks mixed row by row, which are themselves drawn at random from the whole store.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ooc_train.kernels import api as kernels

MIXED_CHUNKS = 64
"""Chunks mixed row by row where the rows at rest are in no random order (DESIGN, section 6)."""


def groups(n_chunks: int, group: int, seed: int, epoch: int) -> list[tuple[int, ...]]:
    """Return the chunks of every group of an epoch, in the order in which a scan takes them.

    Parameters
    ----------
    n_chunks : chunks in the data
    group : chunks mixed with one another, at least 1
    seed, epoch : what the order is a function of

    Returns
    -------
    list of tuples that hold every chunk number below `n_chunks` exactly once

    Examples
    --------
    >>> sorted(chunk for group in groups(5, 2, seed=0, epoch=0) for chunk in group)
    [0, 1, 2, 3, 4]
    """
    if group >= n_chunks:
        # Its rows are permuted all together, so its chunks may as well be read as they lie.
        return [tuple(range(n_chunks))]
    order = np.random.default_rng((seed, epoch)).permutation(n_chunks).tolist()
    return [tuple(order[i : i + group]) for i in range(0, n_chunks, group)]


@lru_cache(maxsize=2)
def epoch_seed(seed: int, epoch: int) -> int:
    """Return the 64-bit seed from which the orders of rows of an epoch are derived."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0])


def row_seed(epoch_seed: int, group: int) -> int:
    """Return the 64-bit seed of the order of rows within one group of an epoch.

    A step of the golden ratio keeps seeds of neighbouring groups far apart, and the generator that
    takes them mixes their bits (Steele et al. 2014, SplitMix); a `SeedSequence` a group would cost
    as much as learning from its rows.
    """
    return (epoch_seed + group * 0x9E3779B97F4A7C15) % 2**64


@dataclass(frozen=True)
class EpochOrder:
    """The order of one scan: small enough to travel, where the chunks themselves would be many.

    Attributes
    ----------
    n_chunks : chunks in the data
    mixing : chunks mixed with one another
    seed, epoch : what the order is a function of; without a seed, rows come as they lie
    """

    n_chunks: int
    shuffle_chunks: int
    seed: int | None
    epoch: int

    def groups(self) -> Sequence[tuple[int, ...]]:
        """Return the chunks of every group, in the order in which they are taken."""
        return _groups_of(self)

    def fill(self, rows: NDArray[np.int64], group: int) -> None:
        """Write the order of the rows of a group."""
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
