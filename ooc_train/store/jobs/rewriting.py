"""A store written anew: its rows as records, and a writer that keeps what is known of them.

What shuffling and rechunking have in common. Rows are read in pieces, into the fields of records;
of chunks that have to be decoded whole one an array is held meanwhile, of others no more than the
piece.
"""

import itertools
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.places import in_scratch, local_path
from ooc_train.core.units import approximate_bytes
from ooc_train.memory.budget import GROWTH_BYTES
from ooc_train.memory.ceiling import Projection, Term
from ooc_train.store.dataset import Store, default_chunk_rows, default_shard_rows
from ooc_train.store.format.arrays import ArrayLayout, Coding
from ooc_train.store.reading.chunks import ChunkReader
from ooc_train.store.reading.direct import MAX_OPEN_SHARDS
from ooc_train.store.writing.writer import StoreWriter

Packing = Literal["none", "lz4", "zstd"]
"""How chunks are written, as users say it."""

PIECE_BYTES = 2**20
"""Of records that are handed on at once."""

_PACKINGS: dict[str | None, Packing] = {"raw": "none", "blosc": "lz4", "zstd": "zstd"}
"""By the codec of an array that is read directly."""

_FEATURE_BYTES = 448
"""Of a column while a store is committed and opened: its statistics, as numbers and as JSON
(measured: 320 with 1,000,000 columns without names)."""

_ROUNDING_BYTES, _ROUNDING_COPIES = 96, 6
"""Of a column whose numbers are rounded; of a piece of rows, in float64 and as masks."""

_COMMAND_BYTES = 64 * 2**20
"""What the command line holds before any data (measured: 45 MiB, 51 where zarr is needed)."""


def require_elsewhere(source: Store, out: str | os.PathLike[str]) -> None:
    """Refuse to replace what is read: of a store, `out` gets no more than what was opened.

    Raises
    ------
    ValueError
        If `out` is the source or a directory around it.
    """
    written = os.path.realpath(local_path(out))
    arrays = [layout.path for layout in arrays_of(source).values()]
    for path in (source.path, *arrays):
        read = os.path.realpath(path)
        if "://" in path or os.path.commonpath([read, written]) != written:
            continue
        where = "is the store" if read == written else "lies around the store"
        raise ValueError(
            f"out={os.fspath(out)!r} {where} that is read; write to another place, then move it"
        )


def arrays_of(source: Store) -> dict[str, ArrayLayout]:
    """Arrays of a store, by role, X first."""
    roles = {
        "X": source.X,
        "y": source.y,
        "sample_weight": source.sample_weight,
        "row_id": source.row_id,
    }
    return {role: layout for role, layout in roles.items() if layout is not None}


def record_dtype(source: Store) -> np.dtype[Any]:
    """Make the dtype of a record: the row's number, "row", and a field for each array."""
    fields = [(role, layout.dtype, layout.row_shape) for role, layout in arrays_of(source).items()]
    return np.dtype([("row", "<i8", ()), *fields])


def _piece_rows(record: np.dtype[Any]) -> int:
    return max(1, PIECE_BYTES // record.itemsize)


def read_records(source: Store, record: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    """Read a store as records, in order; they lie in two buffers by turns.

    Raises
    ------
    CorruptChunk
        If the store is damaged.
    """
    step = _piece_rows(record)
    buffers = itertools.cycle([np.empty(step, record), np.empty(step, record)])
    with ExitStack() as stack:
        readers = {
            role: stack.enter_context(ChunkReader(layout))
            for role, layout in arrays_of(source).items()
        }
        # A file is read into memory in one run, which a field of records is not.
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


def rounding_term(source: Store) -> Term:
    """Say what a `Rounding` of the columns of X holds, and takes for a piece of rows."""
    piece = max(PIECE_BYTES, source.n_features * source.dtype.itemsize)
    size = _ROUNDING_COPIES * piece + _ROUNDING_BYTES * source.n_features
    return Term("rounding", size, "ranges of the columns, and a piece compared with itself")


def reading_term(source: Store, record: np.dtype[Any]) -> Term:
    """Say what `read_records` holds."""
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
        why += f", and a chunk of each array, {approximate_bytes(whole)}, which is decoded whole"
    return Term("reading", size, why)


def writing_term(
    row_bytes: int, n_features: int, chunk_rows: int, *, packed: bool, counted: bool
) -> Term:
    """Say what a `StoreWriter` holds.

    Parameters
    ----------
    row_bytes : int
        Of all arrays.
    n_features, chunk_rows : int
        Columns of X, and rows of a chunk.
    packed : bool
        Whether chunks are compressed.
    counted : bool
        Whether statistics of the columns are added up.
    """
    chunks = chunk_rows * row_bytes
    encoded = chunks + chunks // 64 if packed else 0
    statistics = 3 * 8 * chunk_rows * n_features if counted else chunk_rows * n_features
    size = chunks + encoded + statistics + _FEATURE_BYTES * n_features + PIECE_BYTES
    return Term("writing", size, "a chunk of each array, and what checks it")


def writer_of(
    source: Store,
    out: str | os.PathLike[str],
    *,
    chunk_rows: int,
    shard_rows: int | None = None,
    dtype: np.dtype[Any] | None = None,
    codec: Packing,
    row_id: bool,
    shuffled: int | None,
    overwrite: bool,
) -> StoreWriter:
    """Make the writer of a store's rows, which keeps all that is known of the source.

    Raises
    ------
    OutputExists, OSError, ValueError
        As `StoreWriter` does.
    """
    y, dtype = source.y, dtype or source.dtype
    return StoreWriter(
        out,
        n_features=source.n_features,
        dtype=dtype,
        outputs=y.row_shape[0] if y is not None and y.row_shape else None,
        y_dtype=None if y is None else y.dtype,
        feature_names=source.feature_names,
        classes=None if y is None else source.classes,
        chunk_rows=chunk_rows,
        shard_rows=shard_rows or default_shard_rows(source.n_features, dtype, chunk_rows),
        codec=codec,
        sample_weight=source.sample_weight is not None,
        row_id=row_id,
        shuffled=shuffled,
        attributes=source.attributes,
        recipe=source.recipe,
        statistics=known_statistics(source, dtype),
        overwrite=overwrite,
        pair=source.pair,
    )


def known_statistics(source: Store, dtype: np.dtype[Any]) -> Any:
    """Statistics that are true of the same rows as this dtype; None where they are to be counted.

    Who opened the store without its weights wants statistics without weights; and who has values
    rounded, those of the rounded ones.
    """
    known, weighted = source.statistics, source.sample_weight is not None
    # Of an earlier release nothing says that they are those that were written.
    same = dtype == source.dtype and source.store_id != ""
    return known if known is not None and known.weighted == weighted and same else None


def kept_packing(source: Store) -> Packing | None:
    """How a store of ours is packed; None of another writer's, and if another program packed it."""
    return _PACKINGS.get(source.X.codec) if source.generation > 0 else None


def rechunk_command(path: str, layouts: Mapping[str, ArrayLayout]) -> str:
    """Give the command that rewrites a store in chunks of the default size.

    Parameters
    ----------
    path : str
        Of the store.
    layouts : mapping
        Its arrays by role, X among them.
    """
    X, y = layouts["X"], layouts.get("y")
    if y is not None and y.is_text:
        # It will be read as codes, once it is known which labels there are.
        y = replace(y, dtype="<u2", coding=Coding(y.dtype, (), ()))
    source = Store(path, X, y, layouts.get("sample_weight"), layouts.get("row_id"), X.n_rows)
    record = record_dtype(source)
    chunk_rows = default_chunk_rows(source.n_features, source.dtype)
    terms = (
        Term("reserved", _COMMAND_BYTES, ""),
        Term("growth", GROWTH_BYTES, ""),
        reading_term(source, record),
        writing_term(record.itemsize, source.n_features, chunk_rows, packed=True, counted=True),
    )
    return (
        f"ooc-train rechunk {_and_beside(path, 'rechunked')} "
        f"--memory-ceiling {Projection(terms, started=1).smallest}{_opened_by(path, layouts)}"
    )


def shuffle_command(path: str, layouts: Mapping[str, ArrayLayout]) -> str:
    """Give the command that puts the rows of a store in random order.

    Parameters
    ----------
    path, layouts
        As for `rechunk_command`.
    """
    return f"ooc-train shuffle {_and_beside(path, 'shuffled')}{_opened_by(path, layouts)}"


def _opened_by(path: str, layouts: Mapping[str, ArrayLayout]) -> str:
    """Give the options of a command that opens a store with the same arrays."""
    options = ""
    for role, name in (("X", "x"), ("y", "y"), ("sample_weight", "weight")):
        layout = layouts.get(role)
        # A store of one array is X itself; what was in memory has no lasting place.
        if layout is None or layout.path in (path, f"{path}/{role}") or in_scratch(layout.path):
            continue
        place = layout.path.removeprefix(f"{path}/")
        options += f" --{name} {shlex.quote(place)}"
    filled = any(layout.fill is not None for layout in layouts.values())
    return options + (" --fill-missing" if filled else "")


def _and_beside(path: str, what: str) -> str:
    """Give a path and another beside it, such as a.zarr and a.shuffled.zarr, for a shell."""
    folder, name = os.path.split(path.rstrip("/"))
    stem, suffix = os.path.splitext(name)
    out = f"{stem}.{what}{suffix}"
    if "://" not in path:
        out = os.path.join(folder, out)
    return f"{shlex.quote(path)} {shlex.quote(out)}"
