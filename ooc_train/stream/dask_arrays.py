"""Dask arrays: cut alike by rows, and their blocks as a source.

Blocks have any number of rows. Empty ones are left out when the source is made, so that every
partition holds a row; where a partition begins follows from the rows of those before it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from dask.delayed import delayed
from numpy.typing import NDArray

from ooc_train.core.sums import Array, Arrays, Block, Workspace
from ooc_train.errors import OocTrainError
from ooc_train.stream.checks import require_finite, require_weights
from ooc_train.stream.classes import Label, codes_of_labels, require_labels
from ooc_train.stream.executors import computed
from ooc_train.stream.kinds import as_labels, as_numbers, is_dask, is_sparse, require_arrays
from ooc_train.stream.sources import Reader, concatenate, model_dtype


@dataclass(frozen=True, eq=False)
class DaskSource:
    """The blocks of Dask arrays: each task gets its blocks as arguments, and Dask makes them.

    Attributes
    ----------
    blocks : of each partition, the delayed (X, y, weight)
    rows : of each partition
    """

    blocks: tuple[Any, ...]
    rows: tuple[int, ...]
    n_features: int
    n_outputs: int
    dtype: str

    @property
    def n_rows(self) -> int:
        """Rows."""
        return sum(self.rows)

    @property
    def partition_rows(self) -> int:
        """Rows of the largest block."""
        return max(self.rows)

    @property
    def n_partitions(self) -> int:
        """Blocks of rows."""
        return len(self.rows)

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *accumulate(self.rows)]

    def first_row(self, partition: int) -> int:
        """Return the first row of a partition; of one past the last, the number of rows."""
        return self._starts[partition]

    def task_blocks(self, partitions: Sequence[int]) -> Any:
        """Return what a task gets of partitions: Dask makes their blocks for it."""
        parts = [
            (partition, self.blocks[partition], self.first_row(partition), self.rows[partition])
            for partition in partitions
        ]
        return delayed(TaskBlocks)(parts, self.dtype, self.n_outputs)

    @property
    def group_partitions(self) -> int:
        """One block: Dask arrays have large ones."""
        return 1

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.n_features * np.dtype(self.dtype).itemsize

    @property
    def hidden_bytes(self) -> int:
        """Nothing that we know of: Dask's own memory is outside our count."""
        return 0

    @property
    def shuffle_chunks(self) -> int:
        """One block: rows of different blocks meet in no process."""
        return 1

    def buffers(self, partitions: int = 1) -> Workspace:
        """Return no buffers: Dask allocates the blocks, outside our count."""
        del partitions
        return {}

    def reader(self) -> Reader:
        """Refuse: a task is given its blocks instead (see `given`)."""
        raise TypeError("blocks of a Dask array are arguments of a task; they cannot be read")


@dataclass(frozen=True, eq=False)
class TaskBlocks:
    """Blocks of Dask arrays, as a task gets them.

    Attributes
    ----------
    parts : of each partition its number, its X, y and weight, its first row, and its rows
    dtype : of X, as models see it
    n_outputs : columns of y
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
        """The blocks by the number of the partition.

        Raises
        ------
        NonFiniteData
            where a value is masked or missing.
        TypeError, ValueError
            where a block holds other than numbers, or other rows than its array says: those after
            it would then lie in wrong places.
        """
        blocks = {}
        for partition, made, start, rows in self.parts:
            X, y, weight = (
                values if values is None or is_sparse(values) else np.asanyarray(values)
                for values in made
            )
            for name, values in (("X", X), ("y", y), ("sample_weight", weight)):
                if values is not None and values.shape[0] != rows:
                    raise ValueError(
                        f"the block of {name} from row {start:,} on has {values.shape[0]:,} rows, "
                        f"and its Dask array says {rows:,}; call {name}.compute_chunk_sizes() first"
                    )
            if model_dtype(X.dtype) == "<f8" != self.dtype:
                raise ValueError(
                    f"the block of X from row {start:,} on is {X.dtype}, and its Dask array says "
                    f"that float32 holds it; call X.astype({X.dtype.name!r}) first"
                )
            # What came from another worker may lie askew in the message that brought it.
            X = as_numbers(X, "X", self.dtype, start)
            if y is not None:
                y = as_numbers(y, "y", np.float64, start).reshape(rows, self.n_outputs)
            if weight is not None:
                weight = as_numbers(weight, "sample_weight", np.float64, start)
            blocks[partition] = Block(X, y, weight, ((0, start),))
        return blocks


@dataclass(frozen=True, eq=False)
class TaskBlocksReader:
    """Hands out partitions that came as arguments of the task."""

    task_blocks: TaskBlocks
    decoding: ClassVar[float] = 0.0

    def run(self, partitions: Sequence[int], arrays: Arrays) -> Iterator[Block]:
        """Yield partitions."""
        del arrays
        for partition in partitions:
            yield self.task_blocks.partitions[partition]

    def gather(self, partitions: Sequence[int], arrays: Arrays, at: int = 0) -> Block:
        """Return the partitions as one block."""
        del arrays, at
        return concatenate([self.task_blocks.partitions[partition] for partition in partitions])

    def prefetch(self, partitions: Sequence[int]) -> None:
        """Do nothing: rows are here."""
        del partitions


def dask_rows(values: Any) -> Any:
    """Return a Dask array, or that of a Dask frame, cut by rows alone."""
    array = values.to_dask_array() if hasattr(values, "to_dask_array") else values
    return array.rechunk(dict.fromkeys(range(1, array.ndim), -1)) if array.ndim > 1 else array


def computed_blocks(values: Any) -> Iterator[Any]:
    """Yield the blocks of rows of what `dask_rows` returned one after another, computed."""
    for block in values.to_delayed().ravel():
        yield block.compute()


def block_bytes(values: Any) -> int:
    """Return the bytes of the largest block of rows, 0 where Dask does not know them."""
    rows = max(values.chunks[0], default=0)
    width = int(np.prod(values.shape[1:])) * values.dtype.itemsize
    return 0 if np.isnan(rows) else int(rows) * width


def aligned(X: Any, y: Any = None, weight: Any = None) -> tuple[Any, Any, Any]:
    """Return Dask arrays cut alike by rows, and not by columns.

    Raises
    ------
    TypeError
        where one is no array.
    ValueError
        where they differ in rows, have none, or don't know how many; or hold dates.
    """
    import dask.array

    require_arrays(X, y, weight)
    n_rows = _known_rows(X, "X")
    if 0 in X.shape:
        raise ValueError(f"X has {n_rows:,} rows and {X.shape[1]:,} columns; give some of both")
    X = X.rechunk({1: -1})
    others = []
    for name, values in (("y", y), ("sample_weight", weight)):
        if isinstance(values, Real):
            values = dask.array.full(n_rows, float(values), chunks=(X.chunks[0],))
        if values is not None:
            values = values if is_dask(values) else dask.array.from_array(np.asarray(values))
            if values.ndim == 0 or _known_rows(values, name) != n_rows:
                raise ValueError(f"X has {n_rows:,} rows and {name} has the shape {values.shape}")
            if values.ndim > (2 if name == "y" else 1):
                what = "one row a sample" if name == "y" else "one number a row"
                raise ValueError(f"{name} has shape {values.shape}; give {what}")
            values = values.rechunk({0: X.chunks[0]} | ({1: -1} if values.ndim == 2 else {}))
        others.append(values)
    return X, others[0], others[1]


def _known_rows(values: Any, name: str) -> int:
    if np.isnan(values.shape[0]):
        raise ValueError(
            f"the Dask array {name} does not know its rows; call {name}.compute_chunk_sizes() first"
        )
    return int(values.shape[0])


def look(
    y: Any, weight: Any, rows: Sequence[int], classes: tuple[Label, ...]
) -> tuple[NDArray[Any], Array | None, float]:
    """Return the labels in y, the weight of the rows of each, and of all: one pass over both.

    Parameters
    ----------
    y : Dask array of labels, or None where there are none to look at
    weight : Dask array, cut alike, or None where every row weighs one
    rows : of each block
    classes : labels in the order of their codes, where they are known beforehand

    Raises
    ------
    NonFiniteData
        with the row of a label or weight that is none.
    ValueError
        where a weight is below zero, or labels are none, or not of one kind.
    """

    def blocks(array: Any) -> Any:
        return [None] * len(rows) if array is None else array.to_delayed().ravel()

    tasks = [
        delayed(_look)(labels, weights, start)
        for labels, weights, start, count in zip(
            blocks(y), blocks(weight), accumulate(rows, initial=0), rows, strict=False
        )
        if count
    ]
    found = computed(tasks)
    for outcome in found:
        if isinstance(outcome, Exception):
            raise outcome
    total = float(sum(weighs.sum() for _, weighs in found))
    if y is None:
        return np.empty(0), None, total
    present = as_labels(np.concatenate([_objects_of(labels) for labels, _ in found]))
    known = np.asarray(classes) if classes else np.unique(present)
    require_labels(known)
    totals = np.zeros(len(known))
    for labels, weighs in found:
        totals[codes_of_labels(known, labels)] += weighs
    return known, totals, total


def _look(y: Any, weight: Any, start: int) -> Any:
    """Return the labels of a block and what the rows of each weigh; or an error, as a value."""
    try:
        if weight is not None:
            weight = as_numbers(weight, "sample_weight", np.float64, start)
            require_weights(weight, start)
        if y is None:
            return None, np.asarray([weight.sum()])
        y = as_labels(y, start)
        if y.dtype.kind == "f":
            require_finite(y, start, "y")
        labels, codes = np.unique(y, return_inverse=True)
        return labels, np.bincount(codes, weight).astype(np.float64)
    except (OocTrainError, ValueError, TypeError) as error:
        return error.with_traceback(None)


def _objects_of(labels: NDArray[Any]) -> NDArray[Any]:
    """Return labels as objects, which keep their kind beside those of other blocks."""
    return np.asarray(labels.tolist(), object)


def coded(y: Any, labels: NDArray[Any]) -> Any:
    """Return a Dask array of the codes of labels."""
    return y.map_blocks(lambda block: codes_of_labels(labels, as_labels(block)), dtype=np.intp)


def dask_source(X: Any, y: Any = None, weight: Any = None) -> DaskSource:
    """Return the blocks of Dask arrays, cut alike by rows and not by columns, as a source."""
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
