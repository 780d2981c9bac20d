"""One Zarr array at rest: what a process must know to read or write it, and ``zarr.json``."""

import math
import os
import struct
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from ooc_train.store.format.identity import MetadataStamp
from ooc_train.store.format.missing_values import MissingValues

Codec = Literal["raw", "blosc", "zstd"]

CHECKSUM_BYTES = 4
ENTRY = struct.Struct("<QQ")
"""Offset and length of a chunk, in the index of its shard."""

MISSING = 2**64 - 1
"""Offset and length, in a shard's index, of a chunk that was never written."""

_LARGE_CHUNK_BYTES = 8 * 2**20
"""Chunks of more bytes are not held whole where that can be avoided."""


@dataclass(frozen=True, slots=True)
class Coding:
    """Labels as they lie in an array, and the codes that readers hand out for them.

    Parameters
    ----------
    dtype : str
        NumPy's name of the labels' type, such as "<U3" or "<i4".
    labels : tuple
        In ascending order.
    codes : tuple of int
        Of each label.
    """

    dtype: str
    labels: tuple[str | bytes | float, ...]
    codes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ArrayLayout:
    """What another process needs to read one array: small, and made to be pickled.

    Parameters
    ----------
    path : str
        Directory or URL of the array.
    name : str
        What messages call it, such as "X".
    shape : tuple of int
        Rows that count, then the shape of a row.
    dtype : str
        NumPy's name of the values as they are handed out, little-endian, such as "<f4".
    chunk_rows, shard_rows : int
        Rows of a chunk and of a shard (of a chunk again, where chunks are files).
    sharded : bool
        Whether chunks lie in shards, with an index, or each in its own file.
    codec : {"raw", "blosc", "zstd"} or None
        How chunks are encoded; None if only zarr-python can tell.
    crc : bool
        Whether a crc32c follows each chunk.
    direct : bool
        Whether the direct route reads it; else zarr-python does.
    key : str
        File of a shard, relative to `path`, with ``{}`` for its number; "" unless `direct`.
    source : zarr.Array or None
        The array itself, where a path alone doesn't lead to it (a store with credentials).
    declared : MissingValues or None
        Which values its attributes declare to be missing, None if none can be.
    fill : bytes or None
        The value that fills chunks that were never written, as it lies; empty where zarr-python
        knows it. None if such a chunk is refused.
    names : tuple of (label, scalar), or None
        What the labels in y stand for, where its metadata name them.
    coding : Coding or None
        What makes codes, of type `dtype`, of the labels that lie in the array; None where values
        are handed out as they lie.
    store_id : str
        Id of the store's commit, which each of its shards names; "" where shards name none.
    seen : MetadataStamp or None
        The metadata file that the array was opened by, where shards name no commit and the array is
        local.
    """

    path: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    chunk_rows: int
    shard_rows: int
    sharded: bool
    codec: Codec | None
    crc: bool
    direct: bool
    key: str = ""
    source: object = field(default=None, repr=False, compare=False)
    declared: MissingValues | None = None
    fill: bytes | None = None
    names: tuple[tuple[float, str | float], ...] | None = None
    coding: Coding | None = None
    store_id: str = ""
    stamp: MetadataStamp | None = None

    @property
    def n_rows(self) -> int:
        """Rows that count."""
        return self.shape[0]

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self.shape[1:]

    @property
    def row_bytes(self) -> int:
        """Decoded bytes of a row."""
        return math.prod(self.row_shape) * np.dtype(self.dtype).itemsize

    @property
    def n_chunks(self) -> int:
        """Chunks that hold rows that count."""
        return -(-self.n_rows // self.chunk_rows)

    @property
    def n_shards(self) -> int:
        """Shards that hold rows that count."""
        return -(-self.n_rows // self.shard_rows)

    @property
    def chunk_bytes(self) -> int:
        """Decoded bytes of a chunk."""
        return self.chunk_rows * self.row_bytes

    @property
    def in_parts(self) -> bool:
        """Whether rows can be read without holding the rest of their chunk.

        With a checksum that costs another reading, piece by piece, and is for large chunks only.
        """
        checked = not self.crc or self.chunk_bytes > _LARGE_CHUNK_BYTES
        plain = self.direct and self.codec == "raw" and self.coding is None
        return plain and checked

    @property
    def is_text(self) -> bool:
        """Whether values are text, or bytes that are."""
        return np.dtype(self.dtype).kind in "SUT"

    @property
    def at_rest(self) -> "ArrayLayout":
        """The array as it lies, without codes."""
        if self.coding is None:
            return self
        return replace(self, dtype=self.coding.dtype, coding=None)

    @property
    def chunks_per_shard(self) -> int:
        """Entries of a shard's index."""
        return self.shard_rows // self.chunk_rows

    @property
    def stored_name(self) -> str:
        """Name of the array in its group, which may be another than its role."""
        return self.path.rpartition("/")[2]

    def shard_path(self, shard: int) -> str:
        """File that holds a shard (a chunk, where chunks are files)."""
        return os.path.join(self.path, self.key.format(shard))

    def with_rows(self, n_rows: int) -> "ArrayLayout":
        """Return the same array, of which only the first `n_rows` count."""
        return replace(self, shape=(n_rows, *self.row_shape))
