"""Dask arrays: cut alike by rows, and their blocks as a source.

Blocks have any number of rows. Empty ones are left out when the source is made, so that every leaf
holds a row; where a leaf begins follows from the rows of those before it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, ClassVar

import numpy as np
from dask.delayed import delayed

from ooc_train.models.sums import Arrays, Block, Rooms
from ooc_train.stream.sources import Reader, concatenate, model_dtype


def is_dask(X: object) -> bool:
    """Return whether X is a Dask collection."""
    return hasattr(X, "__dask_graph__")


@dataclass(frozen=True, eq=False)
class DaskSource:
    """The blocks of Dask arrays: each task gets its blocks as arguments, and Dask makes them.

    Attributes
    ----------
    blocks : of each leaf, the delayed (X, y, weight)
    rows : of each leaf
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
    def leaf_rows(self) -> int:
        """Rows of the largest block."""
        return max(self.rows)

    @property
    def n_leaves(self) -> int:
        """Blocks of rows."""
        return len(self.rows)

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *accumulate(self.rows)]

    def first_row(self, leaf: int) -> int:
        """Return the first row of a leaf; of one past the last, the number of rows."""
        return self._starts[leaf]

    def given(self, leaves: Sequence[int]) -> Any:
        """Return what makes the blocks of leaves for a task, which gets them by number."""
        return delayed(_as_blocks)(
            [(leaf, self.blocks[leaf], self.first_row(leaf), self.rows[leaf]) for leaf in leaves],
            self.dtype,
            self.n_outputs,
        )

    @property
    def stripe_leaves(self) -> int:
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
    def mixing(self) -> int:
        """One block: rows of different blocks meet in no process."""
        return 1

    def rooms(self, leaves: int = 1) -> Rooms:
        """Return no buffers: Dask allocates the blocks, outside our count."""
        del leaves
        return {}

    def reader(self) -> Reader:
        """Refuse: a task is given its blocks instead (see `given`)."""
        raise TypeError("blocks of a Dask array are arguments of a task; they cannot be read")


@dataclass(frozen=True, eq=False)
class GivenReader:
    """Hands out leaves that came as arguments of the task."""

    leaves: dict[int, Block]
    decoding: ClassVar[float] = 0.0

    def run(self, leaves: Sequence[int], arrays: Arrays) -> Iterator[Block]:
        """Yield leaves."""
        del arrays
        for leaf in leaves:
            yield self.leaves[leaf]

    def gather(self, leaves: Sequence[int], arrays: Arrays, at: int = 0) -> Block:
        """Return the leaves as one block."""
        del arrays, at
        return concatenate([self.leaves[leaf] for leaf in leaves])

    def prefetch(self, leaves: Sequence[int]) -> None:
        """Do nothing: rows are here."""
        del leaves


def _as_blocks(
    parts: Sequence[tuple[int, tuple[Any, Any, Any], int, int]], dtype: str, n_outputs: int
) -> dict[int, Block]:
    """Return the blocks of Dask arrays as leaves.

    Parameters
    ----------
    parts : of each leaf its number, its X, y and weight, its first row, and its rows
    dtype : of X, as models see it
    n_outputs : columns of y

    Raises
    ------
    ValueError
        where a block has other rows than its array says: others would then lie in wrong places.
    """
    blocks = {}
    for leaf, (X, y, weight), start, rows in parts:
        for name, values in (("X", X), ("y", y), ("sample_weight", weight)):
            if values is not None and len(values) != rows:
                raise ValueError(
                    f"the block of {name} from row {start:,} on has {len(values):,} rows, and its "
                    f"Dask array says {rows:,}; call {name}.compute_chunk_sizes() first"
                )
        X = np.asarray(X)
        if model_dtype(X.dtype) == "<f8" != dtype:
            raise ValueError(
                f"the block of X from row {start:,} on is {X.dtype}, and its Dask array says that "
                f"float32 holds it; call X.astype({X.dtype.name!r}) first"
            )
        # What came from another worker may lie askew in the message that brought it.
        blocks[leaf] = Block(
            np.require(X, dtype, ("C", "A")),
            None if y is None else np.require(y, "<f8", ("C", "A")).reshape(rows, n_outputs),
            None if weight is None else np.require(weight, "<f8", ("C", "A")),
            ((0, start),),
        )
    return blocks


def aligned(X: Any, y: Any, weight: Any) -> tuple[Any, Any, Any]:
    """Return Dask arrays cut alike by rows, and not by columns."""
    import dask.array

    if not hasattr(X, "rechunk"):
        raise TypeError(
            f"X is a {type(X).__name__} of Dask; frame.to_dask_array(lengths=True) makes the array "
            "of it that this takes"
        )
    if X.ndim != 2:
        raise ValueError(f"X has shape {X.shape}; give one row a sample, as (rows, features)")
    if np.isnan(X.shape[0]):
        raise ValueError(
            "the Dask array does not know its rows; call X.compute_chunk_sizes() first"
        )
    X = X.rechunk({1: -1})
    others = []
    for name, values in (("y", y), ("sample_weight", weight)):
        if values is not None:
            values = values if is_dask(values) else dask.array.from_array(np.asarray(values))
            if values.shape[0] != X.shape[0]:
                raise ValueError(f"X has {X.shape[0]:,} rows and {name} has {values.shape[0]}")
            values = values.rechunk({0: X.chunks[0]} | ({1: -1} if values.ndim == 2 else {}))
        others.append(values)
    return X, others[0], others[1]


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
