"""An array of the calling process, written as temporary Zarr for workers to read."""

import os
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ooc_train.store.format.arrays import ArrayLayout
from ooc_train.store.opening.finding import find_node
from ooc_train.store.opening.named_arrays import array_of
from ooc_train.store.writing.output import OutputStore
from ooc_train.store.writing.predictions import PredictionRows, add_arrays

_SHARD_BYTES = 8 * 2**20
_MAX_CHUNKS = 4096


def write_temporary(
    folder: str,
    role: str,
    pieces: Iterable[NDArray[np.generic]],
    *,
    row_shape: tuple[int, ...],
    dtype: str,
    chunk_rows: int,
) -> ArrayLayout:
    """Write an array that arrives in pieces, (row, *row_shape), and return its layout.

    With `chunk_rows` of a partition, a partition is read in one call. A value that is NaN or
    infinite raises `NonFiniteData`. `role` names the array in messages.
    """
    path = os.path.join(folder, role)
    width = max(1, int(np.prod(row_shape))) * np.dtype(dtype).itemsize
    chunks = max(1, min(_MAX_CHUNKS, _SHARD_BYTES // (width * chunk_rows)))
    with OutputStore(path) as output:
        layouts = add_arrays(
            output,
            {role: (row_shape, np.dtype(dtype))},
            chunk_rows=chunk_rows,
            shard_rows=chunks * chunk_rows,
        )
        with PredictionRows(layouts) as rows:
            for piece in pieces:
                rows.write({role: piece})
            rows.commit()
        output.commit(rows.n_rows, {})
    return array_of(find_node(os.path.join(path, role)), role, fill_missing=False).layout
