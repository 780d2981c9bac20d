"""The manifest of a store of our format: its version, its checksums, and the keys that are used."""

import os
from collections.abc import Mapping
from typing import Any

from ooc_train.errors import InvalidStore
from ooc_train.store.format.checksums import CHECKSUMS, OFF, StoreChecksums, changed
from ooc_train.store.format.metadata import read_metadata, require_manifest
from ooc_train.store.opening.finding import find_node, group_around
from ooc_train.store.opening.nodes import Node

FORMAT = "ooc_train"

FORMAT_VERSION = 2
"""Version 1 had no identities in shards, and no checksums in the manifest."""

_VERSION_WITHOUT_CHECKSUMS = 1

_UNVERIFIED_FIELDS = ("feature_names", "classes", "recipe", "attributes")
"""Fields used of a manifest whose checksums are off, because another program changed the store.
The number of rows then comes from the arrays, and statistics are computed again."""


def manifest_of(node: Node) -> Mapping[str, Any]:
    """Return the manifest of a group of our format, else an empty mapping.

    If the group's checksums are off, only names are returned, and no number of rows. `InvalidStore`
    is raised if a later release wrote the manifest, or the manifest is damaged.
    """
    manifest = {} if node.is_array else node.attributes
    version = manifest.get("format_version", 0)
    later = isinstance(version, int) and version > FORMAT_VERSION
    if manifest.get("format") == FORMAT and later:
        raise InvalidStore(
            f"{node.path} has format version {version}, this package reads up to "
            f"{FORMAT_VERSION}; update ooc_train"
        )
    checksums = node.checksums
    if manifest.get("format") != FORMAT:
        return {}
    file = os.path.join(node.path, "zarr.json")
    if manifest.get(CHECKSUMS) == OFF:
        used = {key: manifest[key] for key in _UNVERIFIED_FIELDS if key in manifest}
        require_manifest(used | {"n_rows": 0}, file)
        return used
    if checksums is None and version != _VERSION_WITHOUT_CHECKSUMS:
        raise InvalidStore(changed(file))
    require_manifest(manifest, file)
    return manifest


def checksums_around(node: Node) -> StoreChecksums | None:
    """Return the checksums of a group, or of the group that contains an array; None if none.

    `InvalidStore` is raised if the manifest differs from the one that was written.
    """
    if not node.is_array:
        return node.checksums
    if node.metadata is None and "://" not in node.path:
        return None  # Zarr format 2, which our format never uses.
    group = None
    if node.metadata is None:
        group, _ = group_around(node)
    elif (metadata := read_metadata(os.path.dirname(node.path))) is not None:
        group = Node(os.path.dirname(node.path), metadata, None)
    return None if group is None else group.checksums


def integrity_notes(node: Node) -> tuple[str, ...]:
    """Return notes for the user on how far a store of our format is verified."""
    attributes = {} if node.is_array else node.attributes
    if attributes.get("format") != FORMAT:
        return ()
    if attributes.get(CHECKSUMS) == OFF:
        note = (
            f"the checksums of {node.path} are off: nothing is verified, and of its manifest only "
            "names, classes, recipe and attributes are used"
        )
    elif attributes.get("format_version") == _VERSION_WITHOUT_CHECKSUMS:
        note = (
            f"{node.path} was written by an earlier release: its manifest and the identity of its "
            "shards can't be verified; `ooc-train rechunk` writes the store with checksums"
        )
    else:
        return ()
    return (note,)


def require_appendable(path: str) -> None:
    """Refuse a group of another writer, whatever its arrays are called, to add rows to.

    Raises
    ------
    StoreNotFound, InvalidStore
        If there is no Zarr at the path, or another program wrote it.
    """
    node = find_node(path)
    if node.attributes.get("format") != FORMAT:
        raise InvalidStore(
            f"{path} was written by another program, and rows can be added to stores of ooc_train "
            "alone; `ooc-train rechunk` makes one of it, and takes its arrays by any name"
        )
