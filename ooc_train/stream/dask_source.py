"""The blocks of Dask arrays as a source: Dask computes the blocks of each task.

Blocks have any number of rows. A source leaves out empty ones, so that every partition holds a row.
The first row of a partition follows from the rows of those before it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any, ClassVar

import numpy as np
from dask.delayed import delayed

from ooc_train.core.random_share import RandomShare
from ooc_train.core.sums import Arrays, Block, Workspace
from ooc_train.core.text import counted
from ooc_train.stream.array_source import concatenate
from ooc_train.stream.kinds import as_numbers, is_sparse
from ooc_train.stream.sources import Reader, model_dtype


@dataclass(frozen=True, eq=False)
class DaskSource:
    """The blocks of Dask arrays, which tasks receive as delayed arguments.

    Attributes
    ----------
    blocks : tuple
        The delayed X, y and weight of each partition.
    rows : tuple of int
        Rows of each partition.
    n_features, n_outputs : int
        Columns of X, and columns of y, 0 without y.
    dtype : str
        Type of X as models see it.
    numbers : tuple of int
        The number within the data of each partition's first row; empty where all blocks follow one
        another.
    """

    blocks: tuple[Any, ...]
    rows: tuple[int, ...]
    n_features: int
    n_outputs: int
    dtype: str
    numbers: tuple[int, ...] = ()

    def restricted(self, share: RandomShare) -> "DaskSource":
        """Return the source of a share of the partitions; row numbers stay those of all data."""
        partitions = share.partitions.tolist()
        return replace(
            self,
            blocks=tuple(self.blocks[i] for i in partitions),
            rows=tuple(self.rows[i] for i in partitions),
            numbers=tuple(self.first_row(i) for i in partitions),
        )

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return sum(self.rows)

    @property
    def partition_rows(self) -> int:
        """Rows of the largest block."""
        return max(self.rows)

    @property
    def n_partitions(self) -> int:
        """Number of partitions: the blocks of rows of the Dask array."""
        return len(self.rows)

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *accumulate(self.rows)]

    def first_row(self, partition: int) -> int:
        """Return the first row of a partition; of one past the last, the number of rows."""
        return self._starts[partition]

    def task_blocks(self, partitions: Sequence[int]) -> Any:
        """Return the blocks of partitions, as a delayed argument of a task."""
        numbers = self.numbers or self._starts
        parts = [
            (partition, self.blocks[partition], numbers[partition], self.rows[partition])
            for partition in partitions
        ]
        return delayed(TaskBlocks)(parts, self.dtype, self.n_outputs)

    @property
    def group_partitions(self) -> int:
        """Number of partitions in a group: 1, since blocks of Dask arrays are large."""
        return 1

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of X."""
        return self.n_features * np.dtype(self.dtype).itemsize

    @property
    def hidden_bytes(self) -> int:
        """Bytes that a reader allocates: 0, since memory of Dask itself isn't counted."""
        return 0

    @property
    def shuffle_chunks(self) -> int:
        """Number of blocks shuffled together: 1, since no process holds rows of two blocks."""
        return 1

    def buffers(self, partitions: int = 1) -> Workspace:
        """Return no buffers: Dask allocates the blocks, uncounted."""
        del partitions
        return {}

    def reader(self) -> Reader:
        """Refuse: a task receives its blocks instead (see `task_blocks`)."""
        raise TypeError("blocks of a Dask array are arguments of a task; they cannot be read")


@dataclass(frozen=True, eq=False)
class TaskBlocks:
    """The computed blocks of a task.

    Attributes
    ----------
    parts : sequence of tuples
        Of each partition: its number, its X, y and weight, its first row, and its rows.
    """

    parts: Sequence[tuple[int, tuple[Any, Any, Any], int, int]]
    dtype: str
    n_outputs: int

    @property
    def largest(self) -> int:
        """Rows of the largest partition."""
        return max(rows for *_, rows in self.parts)

    @cached_property
    def partitions(self) -> dict[int, Block]:
        """The blocks of rows, each under the number of its partition.

        Raises
        ------
        NonFiniteData
            If a value is masked or missing.
        TypeError, ValueError
            If a block holds values other than numbers, or has another number of rows than its
            array says, so that later rows would be misplaced.
        """
        blocks = {}
        for partition, computed, start, rows in self.parts:
            X, y, weight = (
                values if values is None or is_sparse(values) else np.asanyarray(values)
                for values in computed
            )
            for name, values in (("X", X), ("y", y), ("sample_weight", weight)):
                if values is not None and values.shape[0] != rows:
                    raise ValueError(
                        f"the block of {name} from row {start:,} on has "
                        f"{counted(values.shape[0], 'row')}, "
                        f"and its Dask array says {rows:,}; call {name}.compute_chunk_sizes() first"
                    )
            if model_dtype(X.dtype) == "<f8" != self.dtype:
                raise ValueError(
                    f"the block of X from row {start:,} on is {X.dtype}, and its Dask array says "
                    f"that float32 holds it; call X.astype({X.dtype.name!r}) first"
                )
            # A block that came within a message may be misaligned.
            X = as_numbers(X, "X", self.dtype, start)
            if y is not None:
                y = as_numbers(y, "y", np.float64, start).reshape(rows, self.n_outputs)
            if weight is not None:
                weight = as_numbers(weight, "sample_weight", np.float64, start)
            blocks[partition] = Block(X, y, weight, ((0, start),))
        return blocks


@dataclass(frozen=True, eq=False)
class TaskBlocksReader:
    """Reads partitions that the task received as arguments."""

    task_blocks: TaskBlocks
    decoding: ClassVar[float] = 0.0

    def run(self, partitions: Sequence[int], arrays: Arrays) -> Iterator[Block]:
        """Yield the rows of each partition as a block."""
        del arrays
        for partition in partitions:
            yield self.task_blocks.partitions[partition]

    def gather(self, partitions: Sequence[int], arrays: Arrays, at: int = 0) -> Block:
        """Return the partitions as one block."""
        del arrays, at
        return concatenate([self.task_blocks.partitions[partition] for partition in partitions])

    def prefetch(self, partitions: Sequence[int]) -> None:
        """Do nothing: the rows are in memory."""
        del partitions


def dask_source(X: Any, y: Any = None, weight: Any = None) -> DaskSource:
    """Return the source of Dask arrays that `aligned` has returned."""
    rows = X.chunks[0]

    def parts(array: Any) -> list[Any]:
        if array is None:
            return [None] * np.count_nonzero(rows)
        blocks = array.to_delayed().ravel()
        return [block for block, count in zip(blocks, rows, strict=True) if count]

    return DaskSource(
        tuple(zip(parts(X), parts(y), parts(weight), strict=True)),
        tuple(int(count) for count in rows if count),
        int(X.shape[1]),
        0 if y is None else (int(y.shape[1]) if y.ndim == 2 else 1),
        model_dtype(X.dtype),
    )
