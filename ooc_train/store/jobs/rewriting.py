"""A store written anew: its rows as records, and a writer that keeps what is known of them.

What shuffling and rechunking have in common. Rows are read in pieces, into the fields of records;
of chunks that have to be decoded whole one an array is held meanwhile, of others no more than the
piece.
"""

import os
from typing import Any, Literal

import numpy as np

from ooc_train.core.places import local_path
from ooc_train.memory.ceiling import Term
from ooc_train.store.dataset import Store
from ooc_train.store.format.chunk_sizes import default_shard_rows
from ooc_train.store.jobs.store_records import PIECE_BYTES, arrays_of
from ooc_train.store.writing.writer import StoreWriter

CodecName = Literal["none", "lz4", "zstd"]
"""How chunks are written, as users say it."""


_PACKINGS: dict[str | None, CodecName] = {"raw": "none", "blosc": "lz4", "zstd": "zstd"}
"""By the codec of an array that is read directly."""

_FEATURE_BYTES = 448
"""Of a column while a store is committed and opened: its statistics, as numbers and as JSON
(measured: 320 with 1,000,000 columns without names)."""

_ROUNDING_BYTES, _ROUNDING_COPIES = 96, 6
"""Of a column whose numbers are rounded; of a piece of rows, in float64 and as masks."""


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


def rounding_term(source: Store) -> Term:
    """Say what a `Rounding` of the columns of X holds, and takes for a piece of rows."""
    piece = max(PIECE_BYTES, source.n_features * source.dtype.itemsize)
    size = _ROUNDING_COPIES * piece + _ROUNDING_BYTES * source.n_features
    return Term("rounding", size, "ranges of the columns, and a piece compared with itself")


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
    codec: CodecName,
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


def kept_codec(source: Store) -> CodecName | None:
    """How a store of ours is packed; None of another writer's, and if another program packed it."""
    return _PACKINGS.get(source.X.codec) if source.generation > 0 else None
