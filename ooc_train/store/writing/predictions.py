"""Predictions as a Zarr group: one array for each kind, and the ids of the rows."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.closing import Discarding
from ooc_train.store.dataset import Scalar
from ooc_train.store.format.arrays import ArrayLayout
from ooc_train.store.format.shares import StoreShare
from ooc_train.store.reading.chunks import ChunkReader
from ooc_train.store.writing.output import OutputStore
from ooc_train.store.writing.rows import ChunkedRows, RowWriter

PREDICTIONS_FORMAT = "ooc_train.predictions"

Columns = Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
"""Shape of a row and type of each array, by array name."""


def add_arrays(
    output: OutputStore, columns: Columns, *, chunk_rows: int, shard_rows: int
) -> dict[str, ArrayLayout]:
    """Add an array for each kind of prediction to an output store."""
    return {
        name: output.add_array(
            name,
            row_shape=shape,
            dtype=dtype,
            chunk_rows=chunk_rows,
            shard_rows=shard_rows,
            dimension_names=("sample", "output")[: 1 + len(shape)],
        )
        for name, (shape, dtype) in columns.items()
    }


def manifest(n_rows: int, classes: Sequence[Scalar], model: str) -> dict[str, Any]:
    """Return the attributes of a group of predictions."""
    return {
        "format": PREDICTIONS_FORMAT,
        "n_rows": n_rows,
        "classes": list(classes) or None,
        "model": model,
    }


class PredictionRows(ChunkedRows):
    """Writes rows of all arrays of `add_arrays`, in calls of any size, from a shard's start on.

    A context manager: leaving it without `commit` removes the current shard.
    """

    def __init__(self, layouts: Mapping[str, ArrayLayout], first_shard: int = 0) -> None:
        layout = next(iter(layouts.values()))
        super().__init__(layout.chunk_rows, first_shard * layout.shard_rows)
        self._arrays = {name: RowWriter(a, first_shard) for name, a in layouts.items()}

    def write(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Add rows: a mapping from names of arrays to values of shape (row, ...)."""
        self._add(columns)

    def commit(self) -> None:
        """Write the last chunk and commit the last shard."""
        self._finish()


def row_ids(
    ids: ChunkReader | None, within: StoreShare | None, start: int, count: int
) -> NDArray[Any]:
    """Return the ids of rows of one chunk of a store, or of a share; without ids, their numbers.

    The number of a row of a share is that in the store.
    """
    first = start if within is None else within.stored_row(start)
    if ids is None:
        return np.arange(first, first + count)
    found = np.empty(count, ids.layout.dtype)
    ids.read_rows(first, first + count, found)
    return found


class PredictionWriter(Discarding):
    """Writes predictions in calls of any size to a store of their own.

    A context manager: leaving it without `commit` removes what was written. `columns` has the shape
    of a row and the type of each array. `classes` are labels by code, and empty for a regression.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        columns: Columns,
        *,
        chunk_rows: int,
        shard_rows: int,
        classes: Sequence[Scalar],
        model: str,
        overwrite: bool = False,
    ) -> None:
        self._about = classes, model
        self._output = OutputStore(path, overwrite=overwrite)
        self._rows = PredictionRows(
            add_arrays(self._output, columns, chunk_rows=chunk_rows, shard_rows=shard_rows)
        )

    def write(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Add rows: a mapping from names of arrays to values of shape (row, ...)."""
        self._rows.write(columns)

    def commit(self) -> None:
        """Write the last rows and give the group its name."""
        self._rows.commit()
        n_rows = self._rows.n_rows
        self._output.commit(n_rows, manifest(n_rows, *self._about))

    def discard(self) -> None:
        """Remove what was written, unless it was committed."""
        self._rows.discard()
        self._output.discard()
