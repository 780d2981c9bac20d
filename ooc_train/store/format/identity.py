"""Identity of shards: which commit of which store a file belongs to.

A shard of our format holds its chunks, an identity of 36 bytes, and Zarr's index. Zarr allows
unused bytes between chunks and index, and one call reads identity and index together. The identity
names the store's commit, the array and the shard's number. So a reader detects a shard that was
copied over another, or that belongs to another commit.

Other stores, and ours of format 1, have no identity. There, a task reads its rows, and then checks
that each array's metadata file is still the same. A replaced store has a new metadata file, so an
unchanged file proves that all earlier reads were of the same store. One check a task costs nothing.
One check at each opening of a file took 10 to 18 % of a pass (chunks of 800 and 64 KB, each a
file).
"""

import os
import platform
import struct
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b

from crc32c import crc32c

from ooc_train.errors import InvalidStore, StoreChanged
from ooc_train.store.format.metadata import read_metadata

IDENTITY_BYTES = 36
"""Size of the identity between the chunks and the index of a shard."""

_FIELDS = struct.Struct("<16sQ8s")
"""Id of the commit, number of the shard, digest of the array's name; a CRC32C follows."""

_METADATA = ("zarr.json", ".zarray")


def new_store_id() -> str:
    """Return a random id for one commit of a store: 32 hexadecimal digits."""
    return os.urandom(16).hex()


def shard_identity(store_id: str, array: str, shard: int) -> bytes:
    """Return the identity of a shard, `IDENTITY_BYTES` bytes."""
    fields = _FIELDS.pack(bytes.fromhex(store_id), shard, _name_digest(array))
    checksum: bytes = crc32c(fields).to_bytes(4, "little")
    return fields + checksum


def wrong_identity(
    identity: bytes | bytearray, store_id: str, array: str, shard: int
) -> str | None:
    """Return what is wrong with the identity of a shard, None if it is the expected one."""
    if identity == shard_identity(store_id, array, shard):
        return None
    fields, checksum = identity[: _FIELDS.size], identity[_FIELDS.size :]
    if len(identity) < IDENTITY_BYTES or crc32c(fields).to_bytes(4, "little") != checksum:
        return (
            "its file has no identity of a shard: it is damaged, or another program wrote it "
            "(if that was on purpose: set the attribute 'checksums' of the store to 'off')"
        )
    commit, number, name = _FIELDS.unpack(fields)
    if commit.hex() != store_id:
        return f"its file belongs to another store or commit ({commit.hex()}, expected {store_id})"
    if name != _name_digest(array):
        return f"its file belongs to another array of the store (as shard {number:,})"
    return f"its file is shard {number:,}, expected shard {shard:,}"


@cache
def _name_digest(array: str) -> bytes:
    return blake2b(array.encode(), digest_size=8).digest()


def require_commit(array_path: str, store_id: str) -> None:
    """Raise `StoreChanged` if the store of an array is no longer the commit that was opened.

    Called for a file that is missing or wrong, to explain it by a replaced store.
    """
    store = os.path.dirname(array_path)
    try:
        metadata = read_metadata(store)
        current_id = None if metadata is None else metadata["attributes"]["store_id"]
    except (KeyError, TypeError):
        current_id = None
    except (OSError, InvalidStore):
        return  # The cause is unknown: the caller reports what is wrong with the file.
    if current_id != store_id:
        raise _changed(store)


@dataclass(frozen=True, slots=True)
class MetadataStamp:
    """The state of an array's metadata file when the array was opened.

    Parameters
    ----------
    host : str
        Name of the host that recorded the state.
    device, inode : int
        Numbers of the file; compared on that host only, since other hosts may number otherwise.
    mtime_ns, size : int
        Time of the last change in nanoseconds, and bytes; compared on every host.
    """

    file: str
    host: str
    device: int
    inode: int
    mtime_ns: int
    size: int

    @classmethod
    def of(cls, directory: str) -> "MetadataStamp | None":
        """Record the state of the metadata file in a local directory, None if there is none."""
        for name in _METADATA:
            file = os.path.join(directory, name)
            try:
                state = os.stat(file)
            except OSError:
                continue
            return cls(file, _host(), state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size)
        return None

    def require_same(self) -> None:
        """Raise `StoreChanged` if the file was replaced, changed or removed."""
        try:
            state = os.stat(self.file)
        except OSError:
            raise _changed(os.path.dirname(self.file)) from None
        same = (state.st_mtime_ns, state.st_size) == (self.mtime_ns, self.size)
        if same and self.host == _host():
            same = (state.st_dev, state.st_ino) == (self.device, self.inode)
        if not same:
            raise _changed(os.path.dirname(self.file))


@cache
def _host() -> str:
    return platform.node()


def _changed(path: str) -> StoreChanged:
    return StoreChanged(f"{path} was replaced or removed while it was being read; run again")
