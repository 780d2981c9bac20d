"""Which commit of which store a file belongs to: told by each shard, or by an array's metadata.

A shard of ours ends with its data, an identity of 36 bytes, and Zarr's index. The identity names
the commit of the store, the array, and the number of the shard. Zarr allows bytes between data and
index that no entry of the index names, and a reader gets the identity by the same call as the
index. So a shard that was copied or moved over another one, or that is of another commit, is told
from the one that is due.

Stores of others, and ours of format 1, have no such identity. There a task looks, when it has read
its rows, whether the metadata file of each array is still the one that the array was opened by. A
store is replaced in one direction, and the look comes last: where the file is the same, so were all
that were opened before. One look a task costs a pass nothing; one each time that a file is opened
took 10 to 18 % of a pass over chunks of 800 and 64 KB that are files.
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
"""What a shard of a store of ours has between its data and its index."""

_FIELDS = struct.Struct("<16sQ8s")
"""Commit of the store, number of the shard, and a digest of the array's name; a crc32c follows."""

_METADATA = ("zarr.json", ".zarray")


def new_store_id() -> str:
    """Return a random id for one commit of a store: 32 hexadecimal digits."""
    return os.urandom(16).hex()


def shard_identity(store_id: str, array: str, shard: int) -> bytes:
    """Return what a shard says of itself.

    Parameters
    ----------
    store_id : str
        Of the commit of the store.
    array : str
        Name of the array in its group.
    shard : int
        Number of the shard.

    Returns
    -------
    bytes
        `IDENTITY_BYTES` of them.
    """
    fields = _FIELDS.pack(bytes.fromhex(store_id), shard, _name_digest(array))
    checksum: bytes = crc32c(fields).to_bytes(4, "little")
    return fields + checksum


def wrong_identity(found: bytes | bytearray, store_id: str, array: str, shard: int) -> str | None:
    """Return what is wrong with the identity of a shard, None if it is the one that is due.

    Parameters
    ----------
    found : bytes or bytearray
        `IDENTITY_BYTES` of them, as they were read.
    store_id, array, shard
        As for `shard_identity`.
    """
    if found == shard_identity(store_id, array, shard):
        return None
    fields, checksum = found[: _FIELDS.size], found[_FIELDS.size :]
    if len(found) < IDENTITY_BYTES or crc32c(fields).to_bytes(4, "little") != checksum:
        return (
            "its file does not say which shard it is: it is damaged, or another program wrote it "
            "(if that was on purpose: set the attribute 'checksums' of the store to 'off')"
        )
    of, number, name = _FIELDS.unpack(fields)
    if of.hex() != store_id:
        return f"its file belongs to another store or commit ({of.hex()}, where {store_id} is due)"
    if name != _name_digest(array):
        return f"its file belongs to another array of the store (as shard {number:,})"
    return f"its file is shard {number:,}, where shard {shard:,} is due"


@cache
def _name_digest(array: str) -> bytes:
    return blake2b(array.encode(), digest_size=8).digest()


def require_commit(array_path: str, store_id: str) -> None:
    """Raise if the store around an array is no longer the commit that was opened.

    For a file that is missing or not the one that is due: this tells what happened to it.

    Raises
    ------
    StoreChanged
        If the store was replaced or removed.
    """
    store = os.path.dirname(array_path)
    try:
        metadata = read_metadata(store)
        found = None if metadata is None else metadata["attributes"]["store_id"]
    except (KeyError, TypeError):
        found = None
    except (OSError, InvalidStore):
        return  # It can't be told: the caller says what is wrong with the file.
    if found != store_id:
        raise _changed(store)


@dataclass(frozen=True, slots=True)
class MetadataStamp:
    """The metadata file of an array as it was when the array was opened.

    Parameters
    ----------
    file : str
        Its path.
    host : str
        Name of the host that saw it.
    device, inode : int
        Of the file; compared on that host only, since they may differ on others.
    mtime_ns, size : int
        Time of its last change in nanoseconds, and bytes; compared everywhere.
    """

    file: str
    host: str
    device: int
    inode: int
    mtime_ns: int
    size: int

    @classmethod
    def of(cls, directory: str) -> "MetadataStamp | None":
        """Look at the metadata of an array in a local directory, None if there is none."""
        for name in _METADATA:
            file = os.path.join(directory, name)
            try:
                found = os.stat(file)
            except OSError:
                continue
            return cls(file, _host(), found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
        return None

    def require_same(self) -> None:
        """Raise if the file is another one now.

        Raises
        ------
        StoreChanged
            If it was replaced, changed or removed.
        """
        try:
            found = os.stat(self.file)
        except OSError:
            raise _changed(os.path.dirname(self.file)) from None
        same = (found.st_mtime_ns, found.st_size) == (self.mtime_ns, self.size)
        if same and self.host == _host():
            same = (found.st_dev, found.st_ino) == (self.device, self.inode)
        if not same:
            raise _changed(os.path.dirname(self.file))


@cache
def _host() -> str:
    return platform.node()


def _changed(path: str) -> StoreChanged:
    return StoreChanged(f"{path} was replaced or removed while it was being read; run again")
