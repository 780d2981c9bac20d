"""What shuffling and rechunking share: memory terms, and a writer that keeps a store's records."""

import os
from typing import Any

import numpy as np

from ooc_train.core.places import local_path
from ooc_train.memory.ceiling import Term
from ooc_train.store.dataset import Store
from ooc_train.store.format.arrays import CODECS, CodecName
from ooc_train.store.jobs.store_records import PIECE_BYTES, arrays_of
from ooc_train.store.writing.writer import StoreWriter

_FEATURE_BYTES = 448
"""Bytes of a column during commit and opening: its statistics as numbers and as JSON
(measured: 320 with 1,000,000 columns without names)."""

_ROUNDING_BYTES, _ROUNDING_COPIES = 96, 6
"""Bytes of a rounded column, and copies of a piece of rows, as float64 and as masks."""


def require_elsewhere(source: Store, out: str | os.PathLike[str]) -> None:
    """Raise `ValueError` if `out` is the store that is read, or a folder around it."""
    written = os.path.realpath(local_path(out))
    arrays = [layout.path for layout in arrays_of(source).values()]
    for path in (source.path, *arrays):
        read = os.path.realpath(path)
        if "://" in path or os.path.commonpath([read, written]) != written:
            continue
        where = "is the store" if read == written else "contains the store"
        raise ValueError(
            f"out={os.fspath(out)!r} {where} that is read; write to another place, then move it"
        )


def rounding_term(source: Store) -> Term:
    """Return the memory term of `Rounding`: ranges of columns, and copies of a piece of rows."""
    piece = max(PIECE_BYTES, source.n_features * source.dtype.itemsize)
    size = _ROUNDING_COPIES * piece + _ROUNDING_BYTES * source.n_features
    return Term("rounding", size, "ranges of the columns, and a piece compared with itself")


def writing_term(
    row_bytes: int, n_features: int, chunk_rows: int, *, compressed: bool, counted: bool
) -> Term:
    """Return the memory term of a `StoreWriter`, whose rows take `row_bytes` in all arrays.

    If `counted`, the writer computes statistics of the columns.
    """
    chunks = chunk_rows * row_bytes
    encoded = chunks + chunks // 64 if compressed else 0
    statistics = 3 * 8 * chunk_rows * n_features if counted else chunk_rows * n_features
    size = chunks + encoded + statistics + _FEATURE_BYTES * n_features + PIECE_BYTES
    return Term("writing", size, "a chunk of each array, and temporary arrays to check it")


def writer_like(
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
    """Return a writer of a store's rows that keeps names, classes, recipe and statistics.

    The settings are those of `StoreWriter`; `dtype` is the source's by default.
    """
    y, dtype = source.y, dtype or source.dtype
    return StoreWriter(
        out,
        row_shape=source.X.row_shape,
        dtype=dtype,
        outputs=y.row_shape[0] if y is not None and y.row_shape else None,
        y_dtype=None if y is None else y.dtype,
        feature_names=source.feature_names,
        classes=None if y is None else source.classes,
        chunk_rows=chunk_rows,
        shard_rows=shard_rows,
        expected_rows=source.n_rows,
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
    """Return the source's statistics if they hold for its rows in this dtype, else None.

    They don't hold for rounded values, or if the store was opened without the weights they use.
    Those of an earlier release have no checksum, and are computed again.
    """
    known, weighted = source.statistics, source.sample_weight is not None
    same = dtype == source.dtype and source.store_id != ""
    return known if known is not None and known.weighted == weighted and same else None


def kept_codec(source: Store) -> CodecName | None:
    """Return the codec name of a store of our format; None for other writers and codecs."""
    if source.generation == 0:
        return None
    return next((name for name, codec in CODECS.items() if codec == source.X.codec), None)
