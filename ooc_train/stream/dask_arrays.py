"""Dask arrays: cut alike by rows, and their blocks as a source."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

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

    def parts(array: Any) -> list[Any]:
        if array is None:
            return [None] * len(X.chunks[0])
        return list(array.to_delayed().ravel())

    return DaskSource(
        tuple(zip(parts(X), parts(y), parts(weight), strict=True)),
        tuple(int(rows) for rows in X.chunks[0]),
        int(X.shape[1]),
        0 if y is None else (int(y.shape[1]) if y.ndim == 2 else 1),
        model_dtype(X.dtype),
    )
