"""The layout of one Zarr array: what a process must know to read or write it."""

import math
import os
import struct
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from ooc_train.store.format.chunk_sizes import default_chunk_rows
from ooc_train.store.format.identity import MetadataStamp
from ooc_train.store.format.missing_values import MissingValues

Codec = Literal["raw", "blosc", "zstd"]
CodecName = Literal["none", "lz4", "zstd"]
CODECS: dict[CodecName, Codec] = {"none": "raw", "lz4": "blosc", "zstd": "zstd"}
"""Codecs by the names that users give."""

CHECKSUM_BYTES = 4
ENTRY = struct.Struct("<QQ")
"""Offset and length of a chunk, in bytes, in the index of its shard."""

MISSING = 2**64 - 1
"""Offset and length in a shard's index where the chunk was never written."""

_LARGE_CHUNK_BYTES = 8 * 2**20
"""Larger chunks are read in parts where possible, even at the cost of a second read."""

_LARGE_CHUNK, _CHUNK_PART = 8, 2
"""Chunks above 8 times the default size are read in parts of twice the default size. A larger part
doesn't stay in cache."""


@dataclass(frozen=True, slots=True)
class Coding:
    """Labels as an array stores them (ascending), and the codes that a reader returns for them.

    `dtype` is NumPy's name of the labels' type, such as "<U3" or "<i4".
    """

    dtype: str
    labels: tuple[str | bytes | float, ...]
    codes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ArrayLayout:
    """What another process needs to read one array; small and picklable.

    Parameters
    ----------
    path : str
        Directory or URL of the array.
    name : str
        Name of the array in messages, such as "X".
    shape : tuple of int
        Rows in use, then the shape of a row.
    dtype : str
        NumPy's name of the type that readers return, little-endian, such as "<f4".
    chunk_rows, shard_rows : int
        Rows of a chunk and of a shard. Both are equal where each chunk is a file.
    sharded : bool
        Whether chunks lie in indexed shards. Otherwise each chunk is a file.
    codec : {"raw", "blosc", "zstd"} or None
        Codec of the chunks; None if only zarr-python can decode them.
    crc : bool
        Whether a CRC32C follows each chunk.
    direct : bool
        Whether the direct route reads the array. Otherwise zarr-python does.
    key : str
        File of a shard relative to `path`, with ``{}`` for its number; "" unless `direct`.
    source : zarr.Array or None
        The opened array, where its path isn't enough to open it (a store with credentials).
    missing_values : MissingValues or None
        Values that the array's attributes declare to be missing.
    fill_value : bytes or None
        Stored bytes of the value that stands for unwritten chunks; empty on the zarr route, which
        knows the value. None if unwritten chunks are an error.
    names : tuple of (label, scalar), or None
        Names of the labels in y, where the array's metadata give names.
    coding : Coding or None
        Codes of type `dtype` for the stored labels; None if values are returned as stored.
    store_id : str
        Id of the store's commit, which each of its shards repeats; "" if shards have no identity.
    stamp : MetadataStamp or None
        Metadata file by which a local array was opened, if its shards have no identity.
    pieces : int
        Stored chunks that hold the rows of one chunk: several where columns are cut too.
    group : str
        Directory or URL of the group that stands for the array, as AnnData's categories do; "" for
        an array that stands for itself.
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
    missing_values: MissingValues | None = None
    fill_value: bytes | None = None
    names: tuple[tuple[float, str | float], ...] | None = None
    coding: Coding | None = None
    store_id: str = ""
    stamp: MetadataStamp | None = None
    pieces: int = 1
    group: str = ""

    @property
    def n_rows(self) -> int:
        """Number of rows in use."""
        return self.shape[0]

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self.shape[1:]

    @property
    def flat(self) -> "ArrayLayout":
        """The layout with two axes: the values of a row become columns, in C order."""
        return replace(self, shape=(self.n_rows, math.prod(self.row_shape)))

    @property
    def row_bytes(self) -> int:
        """Decoded bytes of a row."""
        return math.prod(self.row_shape) * np.dtype(self.dtype).itemsize

    @property
    def n_chunks(self) -> int:
        """Number of chunks that hold rows in use."""
        return -(-self.n_rows // self.chunk_rows)

    @property
    def n_shards(self) -> int:
        """Number of shards that hold rows in use."""
        return -(-self.n_rows // self.shard_rows)

    @property
    def chunk_bytes(self) -> int:
        """Decoded bytes of a chunk."""
        return self.chunk_rows * self.row_bytes

    @property
    def in_parts(self) -> bool:
        """Whether a reader can read some rows without holding their whole chunk.

        Verifying the checksum of such a chunk takes a second read, so small chunks are excluded.
        """
        checked = not self.crc or self.chunk_bytes > _LARGE_CHUNK_BYTES
        plain = self.direct and self.codec == "raw" and self.coding is None
        return plain and checked

    @property
    def part_rows(self) -> int:
        """Rows of X that are read together: a chunk, or a part of a large chunk.

        A part stays in cache from the read to the gradient, and needs no buffer for the rest of
        its chunk. Whether chunks are split depends on the layout alone, not on the ceiling.
        """
        usual = default_chunk_rows(math.prod(self.row_shape), self.dtype)
        if self.in_parts and self.chunk_rows > _LARGE_CHUNK * usual:
            return _CHUNK_PART * usual
        return self.chunk_rows

    @property
    def is_text(self) -> bool:
        """Whether values are text or bytes."""
        return np.dtype(self.dtype).kind in "SUT"

    @property
    def at_rest(self) -> "ArrayLayout":
        """The layout of the values as stored, without codes."""
        if self.coding is None:
            return self
        return replace(self, dtype=self.coding.dtype, coding=None)

    @property
    def chunks_per_shard(self) -> int:
        """Number of chunks in a shard, and so of entries in its index."""
        return self.shard_rows // self.chunk_rows

    def place(self, store: str) -> str:
        """Return where users find the array: a path in the store of that path, else its own."""
        return (self.group or self.path).removeprefix(f"{store}/")

    @property
    def stored_name(self) -> str:
        """Name of the array in its group, which may differ from its role."""
        return self.path.rpartition("/")[2]

    def shard_path(self, shard: int) -> str:
        """Return the file of a shard (of a chunk, where chunks are files)."""
        return os.path.join(self.path, self.key.format(shard))

    def with_rows(self, n_rows: int) -> "ArrayLayout":
        """Return the same layout with the first `n_rows` rows in use."""
        return replace(self, shape=(n_rows, *self.row_shape))
