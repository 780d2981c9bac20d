"""Read-ahead of a scan, whose random order the operating system cannot foresee."""

import threading
from collections.abc import Sequence

from ooc_train.stream.sources import Reader

_READ_AHEAD_PARTITIONS = 16
"""Partitions requested ahead: with 16, random chunks were as fast as a file read in order."""

_SLOW_SECONDS_PER_BYTE = 0.7e-9
"""A slower read is taken for one from a disk: this is ten times the time of a read from memory."""


class ReadAhead:
    """Asks the operating system for the next groups of a scan, while reads are slow.

    Without a request, a scan would wait for each chunk. A request for a chunk that is in memory
    already takes a third of the time of its read, so a fast scan makes none.
    """

    def __init__(self, groups: Sequence[tuple[int, ...]]) -> None:
        self._groups = groups
        self._distance = max(1, _READ_AHEAD_PARTITIONS // len(groups[0]))
        self._requested = self._until = 0
        self._lock = threading.Lock()

    def after(self, group: int, seconds: float, nbytes: int, reader: Reader) -> None:
        """Record the time of one read, and request further groups if reads are slow."""
        stop = group + 1 + self._distance
        with self._lock:
            if seconds > _SLOW_SECONDS_PER_BYTE * nbytes:
                self._until = group + 4 * self._distance
            first = max(self._requested, group + 1)
            if group >= self._until or first >= stop:
                return
            self._requested = stop
        for partitions in self._groups[first:stop]:
            reader.prefetch(partitions)
