"""A store's rows in random order, under a memory ceiling, in two passes over the data.

Rows are read as records, scattered over a spool on disk by random keys, and written in the order of
the keys; `spool` has the algorithm. Reading runs ahead of scattering, and reading back ahead of
writing, in a thread each.
"""

import itertools
import operator
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ooc_train.ahead import ahead
from ooc_train.budget import Budget
from ooc_train.memory import Ceiling, MemoryReport, Term
from ooc_train.store.arrays import ArrayLayout
from ooc_train.store.chunks import ChunkReader
from ooc_train.store.direct import MAX_OPEN_SHARDS
from ooc_train.store.layout import Store, default_chunk_rows, default_shard_rows, open_store
from ooc_train.store.spool import Spool
from ooc_train.store.writer import StoreWriter
from ooc_train.units import approximate_bytes

__all__ = ["shuffle_store"]

_PIECE_BYTES = 2**20
"""Of records that are handed to the spool at once."""

_CODECS: dict[str | None, Literal["none", "lz4", "zstd"]] = {
    "raw": "none",
    "blosc": "lz4",
    "zstd": "zstd",
}


def shuffle_store(
    store: Store | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    random_state: int = 0,
    memory_ceiling: str | int | Ceiling | None = None,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[Store, MemoryReport]:
    """Write the rows of a store in random order: every permutation is as likely as any other.

    The order is a function of `random_state` and the number of rows, never of the ceiling. Types,
    names, classes, weights, recipe and attributes stay, and statistics are carried over; chunks,
    shards and codec stay if the store was written by this package, and are the defaults otherwise.
    Each row has an id: its own, or the number that it had in the source.

    Beside the source, the disk of `out` takes the data twice until this is done.

    Parameters
    ----------
    store : Store, str or os.PathLike
        What to shuffle; a path is opened by `open_store`.
    out : str or os.PathLike
        Where the shuffled store will lie: another place than the source.
    random_state : int
        Seed, at least 0.
    memory_ceiling : str, int or Ceiling, optional
        Bytes, or text such as "1GiB"; by default half of what is available.
    overwrite : bool
        Whether a store that lies there is replaced, once this one is whole.
    progress : callable
        Called with a number of rows, twice for each row: when it is scattered and when it is
        written.

    Returns
    -------
    Store, MemoryReport
        The store, opened, and what the job held.

    Raises
    ------
    ValueError
        If a setting is wrong, or `out` is the source or a directory around it.
    OutputExists
        If something lies at `out`; before anything is read.
    CeilingExceeded
        If the ceiling is too small; before anything is read.
    CorruptChunk, NonFiniteData
        If the source is damaged, or holds NaN or infinity.
    OSError
        If the disk is full or can't be written; what was at `out` stays.
    """
    seed = operator.index(random_state)
    if seed < 0:
        raise ValueError(f"random_state={random_state!r} should be a whole number, at least 0")
    source = store if isinstance(store, Store) else open_store(store)
    _require_elsewhere(source, out)
    record = _record_dtype(source)
    with (
        Budget(memory_ceiling) as budget,
        _writer(source, out, seed=seed, overwrite=overwrite) as writer,
    ):
        terms = _terms(source, record, budget)
        budget.require(terms, "make a store of smaller chunks")
        spool = Spool(
            record,
            os.path.dirname(writer.path),
            room=terms[-1].bytes,
            seed=seed,
            expected_bytes=source.n_rows * record.itemsize,
        )
        with spool:
            with closing(ahead(_records(source, record))) as blocks:
                for records in blocks:
                    spool.add(records)
                    progress(len(records))
            given = [name for name in record.names or () if name != "row"]
            for records in spool.blocks():
                rows = {"row_id": records["row"]} | {name: records[name] for name in given}
                writer.write(**rows)
                progress(len(records))
        shuffled = writer.commit()
        return shuffled, budget.report(terms)


def _require_elsewhere(source: Store, out: str | os.PathLike[str]) -> None:
    """Refuse to replace what is read: of a store, `out` gets no more than what was opened."""
    if "://" in source.path:
        return
    read, written = os.path.realpath(source.path), os.path.realpath(out)
    if os.path.commonpath([read, written]) == written:
        where = "is the store" if read == written else "lies around the store"
        raise ValueError(
            f"out={os.fspath(out)!r} {where} that is read; write to another place, then move it"
        )


def _arrays(source: Store) -> dict[str, ArrayLayout]:
    """Arrays of a store, by role, X first."""
    roles = {
        "X": source.X,
        "y": source.y,
        "sample_weight": source.sample_weight,
        "row_id": source.row_id,
    }
    return {role: layout for role, layout in roles.items() if layout is not None}


def _record_dtype(source: Store) -> np.dtype[Any]:
    """Make the dtype of what the spool holds of a row."""
    fields = [(role, layout.dtype, layout.row_shape) for role, layout in _arrays(source).items()]
    return np.dtype([("row", "<i8", ()), *fields])


def _chunk_rows(source: Store) -> int:
    ours = source.generation > 0
    return source.chunk_rows if ours else default_chunk_rows(source.n_features, source.dtype)


def _writer(
    source: Store, out: str | os.PathLike[str], *, seed: int, overwrite: bool
) -> StoreWriter:
    ours, y, weighted = source.generation > 0, source.y, source.sample_weight is not None
    chunk_rows = _chunk_rows(source)
    known = source.statistics
    return StoreWriter(
        out,
        n_features=source.n_features,
        dtype=source.dtype,
        outputs=y.row_shape[0] if y is not None and y.row_shape else None,
        y_dtype=None if y is None else y.dtype,
        feature_names=source.feature_names,
        classes=None if y is None else source.classes,
        chunk_rows=chunk_rows,
        shard_rows=source.shard_rows
        if ours
        else default_shard_rows(source.n_features, source.dtype, chunk_rows),
        codec=_CODECS[source.X.codec] if ours else "none",
        sample_weight=weighted,
        row_id=True,
        shuffled=seed,
        attributes=source.attributes,
        recipe=source.recipe,
        # Who opened the store without its weights wants statistics without weights.
        statistics=known if known is not None and known.weighted == weighted else None,
        overwrite=overwrite,
    )


def _terms(source: Store, record: np.dtype[Any], budget: Budget) -> list[Term]:
    """List what the job holds; the room of the spool, of what these leave, comes last."""
    reading = 2 * _piece_rows(record) * record.itemsize
    for role, layout in _arrays(source).items():
        with ChunkReader(layout) as reader:
            reading += reader.cache_bytes + reader.hidden_bytes
        reading += 16 * layout.chunks_per_shard * min(layout.n_shards, MAX_OPEN_SHARDS)
        if role != "X":
            # One that is read for the first time while another is held.
            reading += layout.chunk_bytes
    chunk_rows = _chunk_rows(source)
    chunks = chunk_rows * (record.itemsize + 8)
    encoded = 0 if source.X.codec == "raw" else chunks + chunks // 64
    statistics = 3 * 8 * chunk_rows * source.n_features
    writing = chunks + encoded + statistics + _PIECE_BYTES
    terms = [
        Term("reading", reading, "a chunk of each array, and two pieces of records"),
        Term("writing", writing, "a chunk of each array, and what checks it"),
    ]
    data = source.n_rows * record.itemsize
    room = max(
        Spool.least_room(record, data),
        min(Spool.enough_room(record, data), budget.left([*terms])),
    )
    why = f"records of {record.itemsize:,} bytes, {approximate_bytes(data)} of them in all"
    return [*terms, Term("shuffling", room, why)]


def _piece_rows(record: np.dtype[Any]) -> int:
    return max(1, _PIECE_BYTES // record.itemsize)


def _records(source: Store, record: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    """Read a store as records, which lie in two buffers by turns."""
    layouts, step = _arrays(source), _piece_rows(record)
    buffers = itertools.cycle([np.empty(step, record), np.empty(step, record)])
    with ExitStack() as stack:
        readers = {
            role: stack.enter_context(ChunkReader(layout)) for role, layout in layouts.items()
        }
        X = np.empty((source.chunk_rows, source.n_features), source.dtype)
        scratch = np.empty(readers["X"].scratch_bytes, np.uint8)
        for index in range(source.n_chunks):
            chunk = X[: readers["X"].read(index, X, scratch)]
            first = index * source.chunk_rows
            for start in range(0, len(chunk), step):
                records = next(buffers)[: len(chunk) - start]
                stop = start + len(records)
                records["row"] = np.arange(first + start, first + stop)
                records["X"] = chunk[start:stop]
                for role in layouts.keys() - {"X"}:
                    readers[role].read_rows(first + start, first + stop, records[role])
                yield records
