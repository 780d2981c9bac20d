"""Default sizes of chunks and shards."""

from typing import Any

import numpy as np

CHUNK_BYTES = 0.8 * 2**20

_SHARD_BYTES = 64 * 2**20

_MAX_CHUNKS = 4096


def default_chunk_rows(n_features: int, dtype: np.dtype[Any] | str) -> int:
    """Rows of a chunk of about 0.8 MiB, which fits a core's L2 cache beside the work on it.

    A multiple of 256, or fewer where 256 rows take more.
    """
    rows = CHUNK_BYTES / (n_features * np.dtype(dtype).itemsize)
    return round(rows / 256) * 256 if rows >= 256 else max(1, int(rows))


def default_shard_rows(
    n_features: int, dtype: np.dtype[Any] | str, chunk_rows: int | None = None
) -> int:
    """Rows of a shard of about 64 MiB: a multiple of `chunk_rows` (by default the default).

    Of very small chunks a shard holds 4,096, so that its index, which readers keep, stays small.
    """
    chunk_rows = chunk_rows or default_chunk_rows(n_features, dtype)
    chunk_bytes = chunk_rows * n_features * np.dtype(dtype).itemsize
    return min(_MAX_CHUNKS, max(1, round(_SHARD_BYTES / chunk_bytes))) * chunk_rows
