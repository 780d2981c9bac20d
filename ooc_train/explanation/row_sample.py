"""A sample of rows in memory, from evenly spread parts of the data; all rows of small data."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.partitions import rows_of, spread
from ooc_train.core.sums import Arrays, Block, Workspace
from ooc_train.stream.passes import Stream
from ooc_train.stream.sources import Source

_ROWS, _LEAST_ROWS, _BYTES = 16_384, 1_024, 16 * 2**20
"""Most rows of the sample, fewer if their bytes exceed a limit."""

_PARTITIONS = 64
"""Partitions, evenly spread, that the rows come from."""


def sample_rows(source: Source) -> int:
    """Return the number of rows of a sample."""
    row_bytes = source.n_features * np.dtype(source.dtype).itemsize
    return min(source.n_rows, max(_LEAST_ROWS, min(_ROWS, _BYTES // row_bytes)))


@dataclass(frozen=True)
class RowSample:
    """Which rows are a sample: so many of each run, a partition."""

    runs: list[tuple[int, int]]
    kept: NDArray[np.intp]

    @classmethod
    def of(cls, source: Source, wanted_rows: int) -> "RowSample":
        """Return the parts of a sample: all partitions of small data, else evenly spread ones."""
        n = source.n_partitions
        wanted = n if wanted_rows == source.n_rows else _PARTITIONS
        partitions: Sequence[int] = spread(n, wanted)
        while rows_of(source, partitions) < wanted_rows:
            wanted *= 2
            partitions = spread(n, wanted)
        runs = [(source.first_row(p), source.first_row(p + 1)) for p in partitions]
        counts = np.array([stop - start for start, stop in runs])
        ends = np.cumsum(counts) * wanted_rows // counts.sum()
        return cls(runs, np.diff(ends, prepend=0))

    def read(self, stream: Stream, rng: np.random.Generator, repeated: int = 0) -> NDArray[Any]:
        """Return the rows in random order, in Fortran order.

        The first `repeated` ones follow the last once more.
        """
        wanted = {
            start: np.sort(rng.choice(stop - start, n, replace=False))
            for (start, stop), n in zip(self.runs, self.kept, strict=True)
        }
        total = int(self.kept.sum())
        places, ends = rng.permutation(total), np.cumsum(self.kept)
        place_of = {
            start: places[end - n : end]
            for (start, _), n, end in zip(self.runs, self.kept, ends, strict=True)
        }
        source = stream.source
        found = np.empty((total + repeated, source.n_features), source.dtype, order="F")
        for start, rows in stream.map(_Rows(wanted), self.runs):
            found[place_of[start]] = rows
        found[total:] = found[np.arange(repeated) % total]
        return found


@dataclass(frozen=True, eq=False)
class _Rows:
    """Returns chosen rows of each run, which is a partition, by its first row."""

    wanted: Mapping[int, NDArray[np.intp]]

    def workspace(self, rows: int) -> Workspace:
        """Return no arrays: rows are copied from the buffer."""
        del rows
        return {}

    def run(self, blocks: Iterator[Block], workspace: Arrays) -> tuple[int, NDArray[Any]]:
        """Return the first row of a run, and the chosen rows of it."""
        del workspace
        parts, first, at = [], -1, 0
        for block in blocks:
            first = block.row_number(0) if first < 0 else first
            chosen = self.wanted[first] - at
            parts.append(block.X[chosen[(chosen >= 0) & (chosen < block.n_rows)]])
            at += block.n_rows
        return first, np.concatenate(parts)
