"""Arrays that are named: in the group of a store, at a path or URL, or as zarr objects."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ooc_train.core.text import listed
from ooc_train.errors import InvalidStore
from ooc_train.store.format.arrays import ArrayLayout, load_metadata
from ooc_train.store.format.checksums import CHECKSUMS, OFF, Seal, changed
from ooc_train.store.format.metadata import require_manifest
from ooc_train.store.opening.nodes import Node, find_array, group_around

if TYPE_CHECKING:
    import zarr

FORMAT = "ooc_train"
FORMAT_VERSION = 2
"""1: before shards named their store, and before the manifest had checksums."""

_UNCHECKED = 1

_BELIEVED = ("feature_names", "classes", "recipe", "attributes")
"""What is taken from the manifest of a store that another program changed on purpose: names, which
no values can belie. Its rows are those of its arrays, and its statistics are added up anew."""

Role = Literal["y", "sample_weight"]

_AXES = {"X": (2,), "y": (1, 2), "sample_weight": (1,), "row_id": (1,)}

Place: TypeAlias = "str | os.PathLike[str] | zarr.Group | zarr.Array[Any]"
"""Where an array lies: a name in the group, a path, a URL, or a zarr object."""


@dataclass(frozen=True)
class Named:
    """An array that was named, and what its own store knows of it.

    Parameters
    ----------
    layout : ArrayLayout
        Of the rows that count.
    dimensions : tuple of str or None, or None
        Names of its axes.
    group : str or None
        Path of the group that it lies in.
    manifest : mapping
        Of that group, if it is a store of ours and the array has that role there; else empty.
    """

    layout: ArrayLayout
    dimensions: tuple[str | None, ...] | None
    group: str | None
    manifest: Mapping[str, Any]


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
    seal = node.seal
    if manifest.get("format") != FORMAT:
        return {}
    file = os.path.join(node.path, "zarr.json")
    if manifest.get(CHECKSUMS) == OFF:
        believed = {key: manifest[key] for key in _BELIEVED if key in manifest}
        require_manifest(believed | {"n_rows": 0}, file)
        return believed
    if seal is None and version != _UNCHECKED:
        raise InvalidStore(changed(file))
    require_manifest(manifest, file)
    return manifest


def seal_around(node: Node) -> Seal | None:
    """Return the checksums of a group, or of the group that an array lies in; None without any.

    Raises
    ------
    InvalidStore
        If the manifest is not the one that was written.
    """
    if not node.is_array:
        return node.seal
    if node.metadata is None and "://" not in node.path:
        return None  # of format 2, which no store of ours is
    group = None
    if node.metadata is None:
        group, _ = group_around(node)
    elif (metadata := load_metadata(os.path.dirname(node.path))) is not None:
        group = Node(os.path.dirname(node.path), metadata, None)
    return None if group is None else group.seal


def notes_of(node: Node) -> tuple[str, ...]:
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


def child_of_role(node: Node, role: str) -> Node | None:
    """Return the array of a group that is called as its role; an array by itself is X."""
    if node.is_array:
        return node if role == "X" else None
    child = node.child(role)
    path = os.path.join(node.path, role)
    if child is None and "://" not in path and os.path.lexists(path):
        raise InvalidStore(
            f"{path} has no metadata of Zarr, and the store would be taken for one without {role}; "
            "restore its metadata from a copy, or remove it"
        )
    return child


def counted(path: str, manifest: Mapping[str, Any], role: str, layout: ArrayLayout) -> ArrayLayout:
    """Return an array of a group with the rows that the group's manifest counts."""
    require_axes(path, role, layout)
    n_rows = manifest.get("n_rows", layout.n_rows)
    if layout.n_rows < n_rows:
        raise InvalidStore(
            f"{path}: {role} has {layout.n_rows:,} rows, the manifest counts {n_rows:,}"
        )
    return layout.with_rows(n_rows)


def require_axes(path: str, role: str, layout: ArrayLayout) -> None:
    """Refuse an array whose axes are not those of its role.

    Raises
    ------
    InvalidStore
        With its shape.
    """
    if len(layout.shape) not in _AXES[role]:
        expected = {
            "X": "(sample, feature): flatten images and the like to rows first",
            "y": "(sample,) or (sample, output)",
        }.get(role, "(sample,)")
        raise InvalidStore(f"{path}: {role} has shape {layout.shape}, it should be {expected}")


def of_another_x(manifest: Mapping[str, Any], X: Named, *, inside: bool) -> Mapping[str, Any]:
    """Return what a manifest says when another array is X: nothing of the columns of its own."""
    about = dict(manifest)
    for key in ("feature_names", "statistics", "recipe", *(() if inside else ("shuffled",))):
        about.pop(key, None)
    known = ("feature_names", "shuffled", "recipe")
    about |= {key: X.manifest[key] for key in known if key in X.manifest}
    if about:
        about["n_rows"] = X.layout.n_rows
    return about


def named_array(node: Node, role: str, place: Place, *, fill_missing: bool) -> Named:
    """Return the array that is to be `role`.

    A group stands for its array of that role.

    Parameters
    ----------
    node : Node
        The group or array that paths begin from.
    role : {"X", "y", "sample_weight"}
    place : str, os.PathLike, zarr.Array or zarr.Group
    fill_missing : bool
        As of `open_store`.

    Raises
    ------
    StoreNotFound
        If nothing lies at an absolute path or URL.
    InvalidStore
        If there is no such array, or no array of numbers.
    """
    found = find_array(node, place)
    if found is None:
        raise no_array(node, role, place)
    return array_of(found, role, fill_missing=fill_missing)


def array_of(found: Node, role: str, *, fill_missing: bool) -> Named:
    """Return an array that was found, or that of its role in a group that was.

    Raises
    ------
    InvalidStore
        As `named_array`.
    """
    if not (found.is_array or found.is_encoded):
        inside = found.child(role)
        if inside is None or not inside.is_array:
            raise InvalidStore(
                f"{found.path} is a group without an array {role!r}{_listed(found)}; name the "
                f"array that is {role}"
            )
        found = inside
    group, name = group_around(found)
    manifest = {} if group is None else manifest_of(group)
    ours = "n_rows" in manifest and name in _AXES
    layout = found.sealed_layout(
        role, None if group is None else group.seal, fill_missing=fill_missing and not ours
    )
    if layout.n_rows > manifest.get("n_rows", layout.n_rows):
        layout = layout.with_rows(manifest["n_rows"])
    return Named(
        layout,
        found.dimensions,
        None if group is None else group.path,
        manifest if name == role else {},
    )


def no_array(node: Node, role: str, place: Place) -> InvalidStore:
    """Return the error that nothing was found where an array was named."""
    return InvalidStore(
        f"{node.path} has no array {str(place)!r}{_listed(node)}; name the array that is {role}, "
        "or its path"
    )


def _listed(node: Node) -> str:
    names = node.array_names()
    return f" (it has {listed(names)})" if names else ""
