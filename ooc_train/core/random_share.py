"""Random shares of partitions, as pure functions of their number and a seed."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RandomShare:
    """Some partitions drawn at random: a small value to send, without a list.

    All partitions are put in random order, `numpy.random.default_rng(seed).permutation(n)`. The
    share has those at some places of this order, so shares of other places have no partition of it.

    Attributes
    ----------
    n_partitions : int
        Number of all partitions.
    places : tuple of (int, int)
        The places in the random order, as ranges (first, stop).
    seed : int
        Determines the order.
    """

    n_partitions: int
    places: tuple[tuple[int, int], ...]
    seed: int

    @property
    def partitions(self) -> NDArray[np.intp]:
        """The numbers of the partitions, in ascending order."""
        return _partitions_of(self)


@lru_cache(maxsize=8)
def _partitions_of(share: RandomShare) -> NDArray[np.intp]:
    order = np.random.default_rng(share.seed).permutation(share.n_partitions)
    return np.sort(np.concatenate([order[first:stop] for first, stop in share.places]))
