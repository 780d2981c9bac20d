"""How ingest stores rows, of tables and of images: settings, room on the disk, and the commit."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.joint_commits import commit_together
from ooc_train.store.dataset import Store
from ooc_train.store.format.arrays import CODECS, CodecName
from ooc_train.store.format.chunk_sizes import default_chunk_rows
from ooc_train.store.opening.opener import open_store
from ooc_train.store.writing.compression import compressed_fraction, compresses_well
from ooc_train.store.writing.writer import StoreWriter

CodecOption = Literal["auto", "none", "lz4", "zstd"]


@dataclass(frozen=True)
class StorageOptions:
    """How ingest stores its rows, as far as decided.

    Parameters
    ----------
    random_state : int
        Seed of the shuffle and of the test rows, at least 0.
    chunk_rows, shard_rows : int or None
        Rows of a chunk and of a shard; None for the default.
    codec : {"auto", "none", "lz4", "zstd"}
        Codec of the chunks.

    Raises
    ------
    ValueError
        If a setting is wrong.
    """

    random_state: int
    shuffled: bool
    chunk_rows: int | None
    shard_rows: int | None
    codec: CodecOption

    def __post_init__(self) -> None:
        if self.random_state < 0:
            raise ValueError(f"random_state={self.random_state} should be at least 0")
        if self.codec not in ("auto", "none", "lz4", "zstd"):
            raise ValueError(f"codec={self.codec!r} is none of auto, none, lz4, zstd")
        if self.chunk_rows is not None and self.chunk_rows < 1:
            raise ValueError(f"chunk_rows={self.chunk_rows} should be at least 1")

    def with_chunk_rows(
        self, n_features: int, dtype: np.dtype[Any] | str, n_rows: int
    ) -> "StorageOptions":
        """Return options with the default rows of a chunk of `n_rows` rows, if none were set."""
        rows = self.chunk_rows or default_chunk_rows(n_features, dtype, n_rows)
        return replace(self, chunk_rows=rows)

    def with_codec(self, X: NDArray[Any]) -> tuple["StorageOptions", float]:
        """Return options with a codec chosen by a sample, and the fraction of bytes it leaves."""
        codec: CodecName
        codec = self.codec if self.codec != "auto" else "lz4" if compresses_well(X) else "none"
        return replace(self, codec=codec), compressed_fraction(X, CODECS[codec])


def free_disk(path: str) -> int:
    """Return the free bytes of the disk on which a store will be written."""
    return shutil.disk_usage(os.path.dirname(path)).free


def commit_stores(
    writers: Mapping[str, StoreWriter], outputs: Mapping[str, str]
) -> dict[str, Store]:
    """Give finished stores their names, and open them by the names of `outputs`.

    Both or none: the test store comes first, so a training store implies a test store.
    """
    names = list(outputs)[::-1]
    for name in names:
        writers[name].finalize()
    commit_together([writers[name].output for name in names])
    return {name: open_store(outputs[name]) for name in names}
