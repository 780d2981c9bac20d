"""Checksums of what a store says of itself: its manifest, and the metadata of its arrays.

They lie in the manifest, as the attribute `checksums`: of the manifest itself (all attributes but
this one checksum), and of each array's ``zarr.json``. A checksum is the SHA-256 of the values as
JSON text with sorted keys and without spaces, so that other programs may write the files anew, or
consolidate them, as long as no value changes. Of long lists of fractions, which
statistics of many columns are, it takes the bytes: their text would make opening twice as slow.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from ooc_train.errors import InvalidStore

CHECKSUMS = "checksums"
"""The attribute that holds them."""

OFF = "off"
"""What users set that attribute to, where another program wrote a store of ours on purpose."""

_AT_A_TIME = 4096
"""Values of a longer list become text so many at a time, or bytes where all are fractions: of a
value for each column, the text and its pieces would take more memory than the values."""

_DEPTH = 4
"""Levels of mappings that are gone through one by one; what lies deeper becomes text at once."""


@dataclass(frozen=True)
class StoreChecksums:
    """The checksums of a store whose manifest has been checked.

    Parameters
    ----------
    store_id : str
        Of the commit, which each shard names.
    arrays : mapping
        Checksum of the metadata of each array, by its name.
    """

    store_id: str
    arrays: Mapping[str, str]

    def require_array(self, path: str, name: str, metadata: object) -> None:
        """Refuse an array whose metadata are not those that were written with the store.

        Raises
        ------
        InvalidStore
            With the way out.
        """
        if checksum(metadata) != self.arrays[name]:
            raise InvalidStore(changed(f"{path}/zarr.json"))

    def lacking(self, path: str, name: str) -> InvalidStore:
        """Return the error that an array which was written with the store is not there."""
        return InvalidStore(
            f"{path} was written with an array {name!r}, which is missing; restore it from a copy, "
            f"or set the attribute {CHECKSUMS!r} of the store to {OFF!r} to open it without"
        )


def checksum(value: object) -> str:
    """Return the SHA-256, as hexadecimal digits, of a value as canonical JSON.

    That is ``json.dumps(value, sort_keys=True, separators=(",", ":"))``, in which each list of more
    than 4,096 floats stands as "[float64 ", their bytes (little-endian), and "]".

    Parameters
    ----------
    value : JSON value
        Mappings with text for keys, lists, text, numbers, booleans and None.
    """
    digest = sha256()
    for piece in _canonical(value):
        digest.update(piece)
    return digest.hexdigest()


def _canonical(value: object, depth: int = 0) -> Iterator[bytes]:
    """Yield what a checksum is taken of, in pieces."""
    if isinstance(value, Mapping) and depth < _DEPTH:
        before = b"{"
        for key in sorted(value):
            yield before + json.dumps(key).encode() + b":"
            yield from _canonical(value[key], depth + 1)
            before = b","
        yield b"{}" if before == b"{" else b"}"
    elif isinstance(value, list) and len(value) > _AT_A_TIME:
        if all(issubclass(kind, float) for kind in set(map(type, value))):
            yield b"[float64 "
            yield np.array(value, "<f8").tobytes()
        else:
            before = b"["
            for start in range(0, len(value), _AT_A_TIME):
                yield before
                yield _dumped(value[start : start + _AT_A_TIME])[1:-1]
                before = b","
        yield b"]"
    else:
        yield _dumped(value)


def _dumped(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def with_checksums(
    attributes: Mapping[str, Any], store_id: str, arrays: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the attributes of a group with the id of its commit and all checksums.

    Parameters
    ----------
    attributes : mapping
        Of the group; JSON values.
    store_id : str
        Of the commit.
    arrays : mapping
        The metadata of each array, by its name.
    """
    of_arrays = {name: checksum(metadata) for name, metadata in arrays.items()}
    sealed = {**attributes, "store_id": store_id, CHECKSUMS: {"arrays": of_arrays}}
    return {**sealed, CHECKSUMS: {"attributes": checksum(sealed), "arrays": of_arrays}}


def verified_checksums(path: str, attributes: Mapping[str, Any]) -> StoreChecksums | None:
    """Check the attributes of a group; return its checksums, None if it has none or they are off.

    Raises
    ------
    InvalidStore
        If a value is not the one that was written, with the way out.
    """
    noted = attributes.get(CHECKSUMS)
    if noted is None or noted == OFF:
        return None
    try:
        due, arrays = noted["attributes"], noted["arrays"]
        intact = noted.keys() == {"attributes", "arrays"}
        found = checksum({**attributes, CHECKSUMS: {"arrays": arrays}})
        checksums = StoreChecksums(attributes["store_id"], arrays)
    except (TypeError, KeyError, AttributeError, RecursionError):
        intact = False
    if not intact or due != found:
        raise InvalidStore(changed(f"{path}/zarr.json"))
    return checksums


def changed(file: str) -> str:
    """Say that a file is not what was written, and the way out."""
    return (
        f"{file} is not what ooc_train wrote: it is damaged, or another program changed it; "
        "restore the store from a copy, or, if it was changed on purpose, set the attribute "
        f"{CHECKSUMS!r} of its group to {OFF!r}, so that it is read as it lies"
    )
