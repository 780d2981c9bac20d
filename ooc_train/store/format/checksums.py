"""Checksums of a store's metadata: its manifest, and the ``zarr.json`` of its arrays.

They lie in the manifest, as the attribute `checksums`: one for the manifest itself (all attributes
but this checksum), and one for each array. A checksum is the SHA-256 of the values as JSON text
with sorted keys and without spaces. Other programs may reformat or consolidate the files, as long
as no value changes. Long lists of floats enter by their bytes, because their text would make
opening a store with many columns twice as slow.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from ooc_train.errors import InvalidStore

CHECKSUMS = "checksums"
"""Attribute of a group that holds its checksums."""

OFF = "off"
"""Value by which users turn checksums off, after another program changed the store on purpose."""

_AT_A_TIME = 4096
"""Values of a longer list that become text at a time. A list of floats enters by its bytes.
Text of a whole list would take more memory than the values."""

_DEPTH = 4
"""Levels of nested mappings that are visited key by key; deeper ones become text at once."""


@dataclass(frozen=True)
class StoreChecksums:
    """The commit of a verified store, and the checksum of each array's metadata by its name.

    Of an array to which rows are just being added, there are two, before and after.
    """

    store_id: str
    arrays: Mapping[str, str | Sequence[str]]

    def require_array(self, path: str, name: str, metadata: object) -> None:
        """Raise `InvalidStore` if an array's metadata differ from those written with the store."""
        known = self.arrays[name]
        if checksum(metadata) not in ([known] if isinstance(known, str) else known):
            raise InvalidStore(changed(f"{path}/zarr.json"))

    def lacking(self, path: str, name: str) -> InvalidStore:
        """Return the error for an array that was written with the store and is missing."""
        return InvalidStore(
            f"{path} was written with an array {name!r}, which is missing; restore it from a copy, "
            f"or set the attribute {CHECKSUMS!r} of the store to {OFF!r} to open it without"
        )


def checksum(value: object) -> str:
    """Return the SHA-256 of a JSON value as canonical JSON, in hexadecimal digits.

    Canonical JSON is ``json.dumps(value, sort_keys=True, separators=(",", ":"))``. In it, a list of
    more than 4,096 floats becomes "[float64 ", their bytes (little-endian), and "]".
    """
    digest = sha256()
    for piece in _canonical(value):
        digest.update(piece)
    return digest.hexdigest()


def _canonical(value: object, depth: int = 0) -> Iterator[bytes]:
    """Yield the bytes that a checksum is computed of, in pieces."""
    if isinstance(value, Mapping) and depth < _DEPTH:
        separator = b"{"
        for key in sorted(value):
            yield separator + json.dumps(key).encode() + b":"
            yield from _canonical(value[key], depth + 1)
            separator = b","
        yield b"{}" if separator == b"{" else b"}"
    elif isinstance(value, list) and len(value) > _AT_A_TIME:
        if all(issubclass(kind, float) for kind in set(map(type, value))):
            yield b"[float64 "
            yield np.array(value, "<f8").tobytes()
        else:
            separator = b"["
            for start in range(0, len(value), _AT_A_TIME):
                yield separator
                yield _dumped(value[start : start + _AT_A_TIME])[1:-1]
                separator = b","
        yield b"]"
    else:
        yield _dumped(value)


def _dumped(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def with_checksums(
    attributes: Mapping[str, Any],
    store_id: str,
    arrays: Mapping[str, Mapping[str, Any]],
    before: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return a group's attributes with the id of its commit and all checksums.

    `before` has the checksums of arrays whose metadata are about to be replaced, valid as well.
    """
    of_arrays: dict[str, Any] = {name: checksum(metadata) for name, metadata in arrays.items()}
    if before is not None:
        of_arrays = {name: [before[name], after] for name, after in of_arrays.items()}
    sealed = {**attributes, "store_id": store_id, CHECKSUMS: {"arrays": of_arrays}}
    return {**sealed, CHECKSUMS: {"attributes": checksum(sealed), "arrays": of_arrays}}


def verified_checksums(path: str, attributes: Mapping[str, Any]) -> StoreChecksums | None:
    """Verify a group's attributes and return its checksums; None if absent or turned off.

    `InvalidStore` is raised if a value differs from the one that was written.
    """
    stored = attributes.get(CHECKSUMS)
    if stored is None or stored == OFF:
        return None
    try:
        expected, arrays = stored["attributes"], stored["arrays"]
        intact = stored.keys() == {"attributes", "arrays"}
        actual = checksum({**attributes, CHECKSUMS: {"arrays": arrays}})
        checksums = StoreChecksums(attributes["store_id"], arrays)
    except (TypeError, KeyError, AttributeError, RecursionError):
        intact = False
    if not intact or expected != actual:
        raise InvalidStore(changed(f"{path}/zarr.json"))
    return checksums


def changed(file: str) -> str:
    """Return the message for a metadata file that differs from what was written."""
    return (
        f"{file} is not what ooc_train wrote: it is damaged, or another program changed it; "
        "restore the store from a copy, or, if it was changed on purpose, set the attribute "
        f"{CHECKSUMS!r} of its group to {OFF!r} to read it without checks"
    )
