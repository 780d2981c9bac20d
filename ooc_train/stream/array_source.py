"""Arrays in memory as a source."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import Array, Arrays, Block, Workspace
from ooc_train.store.format.chunk_sizes import default_chunk_rows
from ooc_train.stream.sources import partitions_per_group


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Arrays in memory, read in place by the process that holds them.

    Attributes
    ----------
    X : float32 or float64 array (rows, features), C-contiguous
        The features.
    y : float64 array (rows, outputs), or None
        The targets.
    weight : float64 array (rows,), or None
        The weights.
    copied : int
        Bytes of those that are no arrays of the caller, but copies: they are the job's memory.
    """

    X: NDArray[np.floating]
    y: Array | None = None
    weight: Array | None = None
    copied: int = 0
    decoding: ClassVar[float] = 0.0

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self.X.shape[0])

    @property
    def n_features(self) -> int:
        """Number of columns of X."""
        return int(self.X.shape[1])

    @property
    def n_outputs(self) -> int:
        """Number of columns of y; 0 without y."""
        return 0 if self.y is None else int(self.y.shape[1])

    @property
    def dtype(self) -> str:
        """NumPy's name of the type of X, such as "<f4"."""
        return self.X.dtype.str

    @property
    def partition_rows(self) -> int:
        """Rows of a partition: the default rows of a chunk of a store with these columns."""
        return default_chunk_rows(self.n_features, self.dtype)

    @property
    def n_partitions(self) -> int:
        """Number of partitions."""
        return -(-self.n_rows // self.partition_rows)

    def first_row(self, partition: int) -> int:
        """Return the first row of a partition; of one past the last, the number of rows."""
        return min(partition * self.partition_rows, self.n_rows)

    @property
    def group_partitions(self) -> int:
        """Number of partitions in a partition group of about 8 MiB."""
        return partitions_per_group(self.partition_rows * self.row_bytes)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of X."""
        return self.n_features * self.X.itemsize

    @property
    def hidden_bytes(self) -> int:
        """Bytes that a reader allocates: 0, since rows are read in place."""
        return 0

    @property
    def shuffle_chunks(self) -> int:
        """Number of partitions shuffled together: all, since all rows are in memory."""
        return self.n_partitions

    def buffers(self, partitions: int = 1) -> Workspace:
        """Return no buffers: rows are read in place."""
        del partitions
        return {}

    def reader(self) -> "ArraySource":
        """Return the source itself, which reads in place."""
        return self

    def _rows(self, rows: slice) -> Block:
        y = None if self.y is None else self.y[rows]
        weight = None if self.weight is None else self.weight[rows]
        return Block(self.X[rows], y, weight, ((0, rows.start),))

    def run(self, partitions: Sequence[int], arrays: Arrays) -> Iterator[Block]:
        """Yield the rows of each partition as a block, without a copy."""
        del arrays
        for partition in partitions:
            start = partition * self.partition_rows
            yield self._rows(slice(start, start + self.partition_rows))

    def gather(self, partitions: Sequence[int], arrays: Arrays, at: int = 0) -> Block:
        """Return partitions as one block, without a copy if they are all partitions."""
        del arrays, at
        if tuple(partitions) == tuple(range(self.n_partitions)):
            return self._rows(slice(0, self.n_rows))
        return concatenate(list(self.run(partitions, {})))

    def prefetch(self, partitions: Sequence[int]) -> None:
        """Do nothing: the rows are in memory."""
        del partitions


def beside(source: ArraySource, *given: Any) -> ArraySource:
    """Return the source with the bytes of what is a copy, and no view of what was given.

    Examples
    --------
    >>> X = np.ones((4, 2))
    >>> beside(ArraySource(X.reshape(2, 4), np.zeros((2, 1))), X).copied
    16
    """
    # A slice of a frame with an index of numbers may mean labels; `iloc` has positions.
    heads = [
        np.asarray(getattr(values, "iloc", values)[:1])
        for values in given
        if hasattr(values, "__getitem__")
    ]
    made = (values for values in (source.X, source.y, source.weight) if values is not None)
    return replace(
        source,
        copied=sum(
            values.nbytes
            for values in made
            if not any(np.may_share_memory(values, head) for head in heads)
        ),
    )


def concatenate(blocks: Sequence[Block]) -> Block:
    """Return several blocks of rows as one block; a single block is not copied."""
    first = blocks[0]
    if len(blocks) == 1:
        return first
    ends = accumulate((block.n_rows for block in blocks), initial=0)
    starts = tuple((end, block.starts[0][1]) for end, block in zip(ends, blocks, strict=False))

    def join(name: str) -> Any:
        parts = [getattr(block, name) for block in blocks]
        return None if parts[0] is None else np.concatenate(parts)

    return Block(join("X"), join("y"), join("weight"), starts)
