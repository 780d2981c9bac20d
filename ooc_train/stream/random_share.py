"""Random shares of partitions, as pure functions of their number and a seed."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RandomShare:
    """Some partitions drawn at random, or all others: a small value to send, without a list.

    Attributes
    ----------
    n_partitions, drawn : int
        Number of all partitions, and of those that are drawn.
    seed : int
        Determines which ones.
    others : bool
        Whether the share is the partitions that are not drawn.
    """

    n_partitions: int
    drawn: int
    seed: int
    others: bool = False

    @property
    def partitions(self) -> NDArray[np.intp]:
        """The numbers of the partitions, in ascending order."""
        return _partitions_of(self)


@lru_cache(maxsize=4)
def _partitions_of(share: RandomShare) -> NDArray[np.intp]:
    order = np.random.default_rng(share.seed).permutation(share.n_partitions)
    return np.sort(order[share.drawn :] if share.others else order[: share.drawn])
