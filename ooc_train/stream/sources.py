"""Sources of rows: a store, arrays in memory, or Dask arrays, behind one protocol.

A source is cut into *partitions*, such as the chunks of a store. Their sums are added up in a fixed
order. The cut decides the last bits of sums, so it depends on the data alone, and never on a plan.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from ooc_train.core.partitions import Rows
from ooc_train.core.sums import Arrays, Block, Workspace

_GROUP_BYTES = 8 * 2**20
"""Approximate bytes of rows in a partition group, whose partitions are summed one by one."""


def partitions_per_group(partition_bytes: int) -> int:
    """Return the number of partitions of a partition group of about 8 MiB."""
    return max(1, _GROUP_BYTES // partition_bytes)


def model_dtype(dtype: np.dtype[Any] | str) -> str:
    """Return the type of X as models see it: float32 for types of up to 16 bits, else float64.

    float32 itself stays float32.
    """
    dtype = np.dtype(dtype)
    return "<f4" if dtype.itemsize <= 2 or dtype == np.float32 else "<f8"


class Reader(Protocol):
    """Reads partitions into buffers of the caller."""

    @property
    def decoding(self) -> float:
        """Seconds of decompression so far."""

    def run(self, partitions: Sequence[int], arrays: Arrays) -> Iterator[Block]:
        """Yield the rows of each partition as a block, all in the same buffers."""

    def gather(self, partitions: Sequence[int], arrays: Arrays, at: int = 0) -> Block:
        """Return several partitions as one block, rows in the order of the partitions."""

    def prefetch(self, partitions: Sequence[int]) -> None:
        """Ask for partitions that will be read next, without a wait."""


class Source(Rows, Protocol):
    """Rows that passes read by partitions."""

    @property
    def n_outputs(self) -> int:
        """Number of columns of y; 0 without y."""

    @property
    def group_partitions(self) -> int:
        """Number of partitions in a partition group, the leaf of the tree of sums."""

    @property
    def row_bytes(self) -> int:
        """Decoded bytes of a row."""

    @property
    def hidden_bytes(self) -> int:
        """Bytes that a reader allocates apart from the buffers of its caller."""

    @property
    def shuffle_chunks(self) -> int:
        """Default number of partitions whose rows a scan shuffles together."""

    def buffers(self, partitions: int = 1) -> Workspace:
        """Return the buffers that reading so many partitions at a time needs."""

    def reader(self) -> Reader:
        """Return a reader, for one thread."""
