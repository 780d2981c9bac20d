"""Default sizes of chunks and shards."""

from typing import Any

import numpy as np

CHUNK_BYTES = 0.8 * 2**20
"""Decoded bytes of a default chunk. It fits a core's L2 cache, with room for the computation."""

_FEWEST_CHUNKS = 16
_FEWEST_ROWS = 32
_SHARD_BYTES = 64 * 2**20
_MAX_CHUNKS_PER_SHARD, _ENOUGH_CHUNKS_PER_SHARD = 4096, 256


def default_chunk_rows(
    n_features: int, dtype: np.dtype[Any] | str, n_rows: int | None = None
) -> int:
    """Return the rows of a chunk of about 0.8 MiB, or of smaller ones where there are few rows.

    The number is a multiple of 256 if 256 rows fit, else what fits, and at least 1. If `n_rows`
    rows would fill fewer than 16 such chunks, they are cut into 16 or more, of a multiple of 32
    rows, at least 32: whole chunks are what validation rows and folds are drawn from.
    """
    fit = CHUNK_BYTES / (n_features * np.dtype(dtype).itemsize)
    rows = round(fit / 256) * 256 if fit >= 256 else max(1, int(fit))
    if n_rows is None:
        return rows
    few = n_rows // _FEWEST_CHUNKS // _FEWEST_ROWS * _FEWEST_ROWS
    return min(rows, max(few, _FEWEST_ROWS))


def default_shard_rows(
    n_features: int,
    dtype: np.dtype[Any] | str,
    chunk_rows: int | None = None,
    n_rows: int | None = None,
) -> int:
    """Return the rows of a shard of about 64 MiB: a multiple of `chunk_rows`.

    A shard holds at most 4,096 chunks, because readers keep its index in memory. It has room for
    256 chunks or for `n_rows` rows, but not for many more, since its index takes 16 bytes a chunk.
    """
    chunk_rows = chunk_rows or default_chunk_rows(n_features, dtype)
    chunk_bytes = chunk_rows * n_features * np.dtype(dtype).itemsize
    chunks = min(_MAX_CHUNKS_PER_SHARD, max(1, round(_SHARD_BYTES / chunk_bytes)))
    if n_rows is not None:
        chunks = min(chunks, max(_ENOUGH_CHUNKS_PER_SHARD, -(-n_rows // chunk_rows)))
    return chunks * chunk_rows
