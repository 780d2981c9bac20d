"""The manifest of a store of ours, and how far it is checked."""

import os
from collections.abc import Mapping
from typing import Any

from ooc_train.errors import InvalidStore
from ooc_train.store.format.checksums import CHECKSUMS, OFF, StoreChecksums, changed
from ooc_train.store.format.metadata import read_metadata, require_manifest
from ooc_train.store.opening.finding import group_around
from ooc_train.store.opening.nodes import Node

FORMAT = "ooc_train"

FORMAT_VERSION = 2
"""1: before shards named their store, and before the manifest had checksums."""

_UNCHECKED = 1

_BELIEVED = ("feature_names", "classes", "recipe", "attributes")
"""What is taken from the manifest of a store that another program changed on purpose: names, which
no values can belie. Its rows are those of its arrays, and its statistics are added up anew."""


def manifest_of(node: Node) -> Mapping[str, Any]:
    """Return the manifest of a group of ours, else nothing.

    Of a group whose checksums are off only names are returned, and no number of rows.

    Raises
    ------
    InvalidStore
        If a later release wrote it, or it is damaged.
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
        believed = {key: manifest[key] for key in _BELIEVED if key in manifest}
        require_manifest(believed | {"n_rows": 0}, file)
        return believed
    if checksums is None and version != _UNCHECKED:
        raise InvalidStore(changed(file))
    require_manifest(manifest, file)
    return manifest


def checksums_around(node: Node) -> StoreChecksums | None:
    """Return the checksums of a group, or of the group that an array lies in; None without any.

    Raises
    ------
    InvalidStore
        If the manifest is not the one that was written.
    """
    if not node.is_array:
        return node.checksums
    if node.metadata is None and "://" not in node.path:
        return None  # of format 2, which no store of ours is
    group = None
    if node.metadata is None:
        group, _ = group_around(node)
    elif (metadata := read_metadata(os.path.dirname(node.path))) is not None:
        group = Node(os.path.dirname(node.path), metadata, None)
    return None if group is None else group.checksums


def integrity_notes(node: Node) -> tuple[str, ...]:
    """Return what users have to know of how far a store of ours is checked."""
    about = {} if node.is_array else node.attributes
    if about.get("format") != FORMAT:
        return ()
    if about.get(CHECKSUMS) == OFF:
        note = (
            f"the checksums of {node.path} are off: it is read as it lies, and of its manifest "
            "names, classes and recipe are believed"
        )
    elif about.get("format_version") == _UNCHECKED:
        note = (
            f"{node.path} was written by an earlier release: what its manifest says, and which "
            "shard is which, is not checked; `ooc-train rechunk` writes it anew with checksums"
        )
    else:
        return ()
    return (note,)
