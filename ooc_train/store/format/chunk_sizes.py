"""Default sizes of chunks and shards."""

from typing import Any

import numpy as np

CHUNK_BYTES = 0.8 * 2**20
"""Decoded bytes of a default chunk. It fits a core's L2 cache, with room for the computation."""

_SHARD_BYTES = 64 * 2**20
_MAX_CHUNKS_PER_SHARD = 4096


def default_chunk_rows(n_features: int, dtype: np.dtype[Any] | str) -> int:
    """Return the rows of a chunk of about 0.8 MiB.

    The number is a multiple of 256 if 256 rows fit, else what fits, and at least 1.
    """
    rows = CHUNK_BYTES / (n_features * np.dtype(dtype).itemsize)
    return round(rows / 256) * 256 if rows >= 256 else max(1, int(rows))


def default_shard_rows(
    n_features: int, dtype: np.dtype[Any] | str, chunk_rows: int | None = None
) -> int:
    """Return the rows of a shard of about 64 MiB: a multiple of `chunk_rows`.

    A shard holds at most 4,096 chunks, because readers keep its index in memory.
    """
    chunk_rows = chunk_rows or default_chunk_rows(n_features, dtype)
    chunk_bytes = chunk_rows * n_features * np.dtype(dtype).itemsize
    chunks = min(_MAX_CHUNKS_PER_SHARD, max(1, round(_SHARD_BYTES / chunk_bytes)))
    return chunks * chunk_rows
