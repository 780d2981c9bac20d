"""Rows of a store as records: one field for each array, and the row's number."""

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.units import approximate_bytes
from ooc_train.memory.ceiling import Term
from ooc_train.store.dataset import Store
from ooc_train.store.format.arrays import ArrayLayout
from ooc_train.store.reading.chunks import ChunkReader
from ooc_train.store.reading.shard_files import MAX_OPEN_SHARDS

PIECE_BYTES = 2**20
"""Bytes of records that are read at once."""


def arrays_of(source: Store) -> dict[str, ArrayLayout]:
    """Return the arrays of a store by role, X first."""
    roles = {
        "X": source.X,
        "y": source.y,
        "sample_weight": source.sample_weight,
        "row_id": source.row_id,
    }
    return {role: layout for role, layout in roles.items() if layout is not None}


def record_dtype(source: Store) -> np.dtype[Any]:
    """Return the type of a record: the row's number, "row", and a field for each array."""
    fields = [(role, layout.dtype, layout.row_shape) for role, layout in arrays_of(source).items()]
    return np.dtype([("row", "<i8", ()), *fields])


def _piece_rows(record: np.dtype[Any]) -> int:
    return max(1, PIECE_BYTES // record.itemsize)


def read_records(source: Store, record: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    """Yield a store's rows in order as records, in two buffers that alternate.

    Chunks that must be decoded whole take one chunk of memory an array. Others take only the
    records.
    """
    step = _piece_rows(record)
    buffers = itertools.cycle([np.empty(step, record), np.empty(step, record)])
    with ExitStack() as stack:
        readers = {
            role: stack.enter_context(ChunkReader(layout))
            for role, layout in arrays_of(source).items()
        }
        # A file is read into contiguous memory, and a field of records is not contiguous.
        parts = {
            role: np.empty((step, *reader.layout.row_shape), reader.layout.dtype)
            for role, reader in readers.items()
            if reader.in_parts
        }
        for start in range(0, source.n_rows, step):
            records = next(buffers)[: source.n_rows - start]
            stop = start + len(records)
            records["row"] = np.arange(start, stop)
            for role, reader in readers.items():
                out = parts[role][: len(records)] if role in parts else records[role]
                reader.read_rows(start, stop, out)
                if role in parts:
                    records[role] = out
            yield records


def reading_term(source: Store, record: np.dtype[Any]) -> Term:
    """Return the memory term of `read_records`."""
    size, whole = 2 * _piece_rows(record) * record.itemsize, 0
    for layout in arrays_of(source).values():
        with ChunkReader(layout) as reader:
            held = reader.cache_bytes + reader.hidden_bytes
            if reader.in_parts:
                held += _piece_rows(record) * layout.row_bytes
            else:
                whole += layout.chunk_bytes
        size += held + 16 * layout.chunks_per_shard * min(layout.n_shards, MAX_OPEN_SHARDS)
    why = "two pieces of records"
    if whole:
        why += f", and a whole decoded chunk of each array, {approximate_bytes(whole)}"
    return Term("reading", size, why)
