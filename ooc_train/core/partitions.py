"""Rows cut into partitions: samples and runs of partitions, and their shares for replicas.

All functions are pure, and know no data: only how many rows lie where.
"""

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Protocol

_ROUND_BYTES = 2**30
"""What each of several replicas learns from until they are averaged: a third of a second, so that a
round's way to the workers and back, of some 15 ms, hardly counts."""


class Rows(Protocol):
    """The size and layout of data, known without reading any rows."""

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        ...

    @property
    def n_features(self) -> int:
        """Number of columns of X."""
        ...

    @property
    def dtype(self) -> str:
        """Type of X as models get it: "<f4" or "<f8"."""
        ...

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of X after decoding."""
        ...

    @property
    def n_partitions(self) -> int:
        """Number of partitions."""
        ...

    @property
    def partition_rows(self) -> int:
        """Number of rows of the largest partition."""
        ...

    def first_row(self, partition: int) -> int:
        """Return the number of a partition's first row; for `n_partitions`, the number of rows."""
        ...


def rounds(n_groups: int, group_bytes: int, replicas: int) -> list[list[tuple[int, int]]]:
    """Return the range of partition groups (first, stop) of each replica, for each round.

    A replica learns from about 1 GiB, and at most from twice that where rounds don't come out even.

    Parameters
    ----------
    n_groups : int
        Partition groups of an epoch, no fewer than replicas.
    group_bytes : int
        Bytes of the rows of a group.
    replicas : int
        Number of replicas. Their shares of a round differ by one group at most.

    Examples
    --------
    >>> rounds(9, 2**29, replicas=2)
    [[(0, 2), (2, 4)], [(4, 6), (6, 9)]]
    """
    most = max(1, _ROUND_BYTES // max(group_bytes, 1))
    n_rounds = max(1, n_groups // (replicas * most))
    cuts = []
    for i in range(n_rounds):
        start, stop = i * n_groups // n_rounds, (i + 1) * n_groups // n_rounds
        inner = [start + replica * (stop - start) // replicas for replica in range(replicas + 1)]
        cuts.append(list(itertools.pairwise(inner)))
    return cuts


def spread(n_chunks: int, wanted: int) -> tuple[int, ...]:
    """Return `wanted` chunk numbers out of `n_chunks`, evenly spread: a sample without randomness.

    Examples
    --------
    >>> spread(10, 3)
    (1, 5, 8)
    """
    wanted = min(wanted, n_chunks)
    return tuple((2 * i + 1) * n_chunks // (2 * wanted) for i in range(wanted))


def sample_partitions(rows: Rows, wanted: int) -> tuple[int, ...]:
    """Return partitions, evenly spread, of about `wanted` rows together, or all partitions.

    The number of partitions follows from the largest one, and is doubled where the others hold few.
    """
    partitions = spread(rows.n_partitions, -(-wanted // rows.partition_rows))
    while 2 * rows_of(rows, partitions) < wanted and len(partitions) < rows.n_partitions:
        partitions = spread(rows.n_partitions, 2 * len(partitions))
    return partitions


def rows_of(rows: Rows, partitions: Sequence[int]) -> int:
    """Return the number of rows in some partitions."""
    return sum(
        rows.first_row(partition + 1) - rows.first_row(partition) for partition in partitions
    )


def runs_of_partitions(rows: Rows, partitions: int) -> list[tuple[int, int]]:
    """Return (first row, stop row) of each run of `partitions` consecutive partitions."""
    starts = [rows.first_row(partition) for partition in range(0, rows.n_partitions, partitions)]
    return list(itertools.pairwise([*starts, rows.n_rows]))


def partitions_within(rows: Rows, start: int, stop: int) -> range:
    """Return the partitions that hold any of the rows from `start` up to but not `stop`."""
    partitions = range(rows.n_partitions)
    first = bisect_right(partitions, start, key=rows.first_row) - 1
    return range(first, bisect_left(partitions, stop, key=rows.first_row))
