"""Reading of shard files: their index, and exact reads from them."""

import os
from typing import Any, NamedTuple

from crc32c import crc32c
from numpy.typing import NDArray

from ooc_train.core.files import IrregularError, open_plain
from ooc_train.core.text import counted
from ooc_train.store.format.arrays import CHECKSUM_BYTES, ENTRY, MISSING, ArrayLayout
from ooc_train.store.format.identity import IDENTITY_BYTES, wrong_identity
from ooc_train.store.reading.decoding import DamageError, MissingChunkError

MAX_OPEN_SHARDS = 64


class OpenShard(NamedTuple):
    """A shard whose file is open.

    Attributes
    ----------
    data_bytes : int
        Bytes of its chunks, which lie before identity and index.
    entries : bytes
        Its index: offset and length of each chunk.
    checked : set of int
        Positions of the chunks whose checksum was verified, where chunks are read in parts.
    """

    fd: int
    data_bytes: int
    entries: bytes
    checked: set[int]


RESTORE = "restore that file from a copy, or write the store anew"

NEVER_WRITTEN = (
    ", most likely as zarr-python and other writers leave out chunks of nothing but the fill "
    "value: open_store(path, fill_missing=True) reads such chunks as that value. If there was a "
    f"chunk, {RESTORE}"
)
"""Advice where a chunk of another writer's store is missing; the likely case comes first."""


class OpenShards:
    """Shards of one array that stay open, up to `MAX_OPEN_SHARDS`, each with its index.

    A file and its index are dropped together, so a replaced shard is never read by the index of the
    old one.
    """

    def __init__(self, layout: ArrayLayout) -> None:
        self._layout = layout
        self._shards: dict[int, OpenShard] = {}

    def get(self, number: int) -> OpenShard:
        """Return a shard, opened if necessary; the least recently used one may be closed.

        `DamageError` is raised if its file or its index is missing or wrong.
        """
        shard = self._shards.pop(number, None)
        if shard is None:
            if len(self._shards) >= MAX_OPEN_SHARDS:
                os.close(self._shards.pop(next(iter(self._shards))).fd)
            shard = self._open(number)
        self._shards[number] = shard
        return shard

    def _open(self, number: int) -> OpenShard:
        layout = self._layout
        try:
            fd = open_plain(layout.shard_path(number))
        except (FileNotFoundError, NotADirectoryError) as error:
            why = "" if layout.store_id else NEVER_WRITTEN
            raise MissingChunkError(f"its file is missing{why}") from error
        except IrregularError as error:
            raise DamageError(f"its file {error}") from None
        try:
            size = os.fstat(fd).st_size
            if layout.sharded:
                return self._indexed(fd, size, number)
            return OpenShard(fd, size, ENTRY.pack(0, size), set())
        except BaseException:
            os.close(fd)
            raise

    def _indexed(self, fd: int, size: int, number: int) -> OpenShard:
        """Read identity (if shards have one) and index from the end of a shard."""
        layout = self._layout
        identity = bytearray(IDENTITY_BYTES if layout.store_id else 0)
        index_bytes = ENTRY.size * layout.chunks_per_shard
        data_bytes = size - len(identity) - index_bytes - CHECKSUM_BYTES
        entries = _read_index(fd, data_bytes, index_bytes, identity)
        if identity:
            wrong = wrong_identity(identity, layout.store_id, layout.stored_name, number)
            if wrong is not None:
                raise DamageError(wrong)
        return OpenShard(fd, data_bytes, entries, set())

    def close(self) -> None:
        """Close every file."""
        while self._shards:
            os.close(self._shards.popitem()[1].fd)

    def __del__(self) -> None:
        self.close()


def _read_index(fd: int, offset: int, length: int, identity: bytearray) -> bytes:
    """Read the index of a shard, which ends its file, and the identity before the index."""
    if offset < 0:
        raise DamageError(f"its shard is {counted(-offset, 'byte')} too short for an index alone")
    entries, checksum = bytearray(length), bytearray(CHECKSUM_BYTES)
    end = [identity, entries, checksum] if identity else [entries, checksum]
    read_exactly(fd, end, offset, sum(map(len, end)))
    try:
        check_crc(entries, checksum)
    except DamageError as damage:
        raise DamageError(f"the index of its shard has {damage}") from None
    return bytes(entries)


def index_entry(shard: OpenShard, position: int) -> tuple[int, int]:
    """Return offset and length of a chunk in bytes, after checking that the file holds them."""
    offset, length = ENTRY.unpack_from(shard.entries, ENTRY.size * position)
    if offset + length > shard.data_bytes:
        if offset == MISSING:
            raise MissingChunkError(f"it is missing from its shard{NEVER_WRITTEN}")
        raise DamageError(
            f"bytes {offset:,} to {offset + length:,} of a file that holds {shard.data_bytes:,}"
        )
    return offset, length


def read_exactly(fd: int, buffers: list[Any], offset: int, length: int) -> None:
    """Fill buffers of `length` bytes in total, by one system call unless it is cut short."""
    if os.preadv(fd, buffers, offset) == length:
        return
    views = [memoryview(buffer).cast("B") for buffer in buffers]
    while any(views):
        count = os.preadv(fd, views, offset)
        if count == 0:
            raise DamageError("its file ends within it")
        offset += count
        while views and count >= len(views[0]):
            count -= len(views.pop(0))
        if views:
            views[0] = views[0][count:]


def check_crc(
    encoded: NDArray[Any] | memoryview | bytearray, checksum: bytearray | memoryview
) -> None:
    """Raise `DamageError` unless the CRC32C of the bytes is the stored one."""
    # From 32 KiB on, crc32c releases the interpreter's lock.
    require_crc(crc32c(encoded), checksum)


def require_crc(found: int, checksum: bytearray | memoryview) -> None:
    """Raise `DamageError` unless a CRC32C is the stored one."""
    expected = int.from_bytes(checksum, "little")
    if found != expected:
        raise DamageError(f"checksum {found:08x}, expected {expected:08x}")
