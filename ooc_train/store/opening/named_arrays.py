"""Arrays that are named: in the group of a store, at a path or URL, or as zarr objects."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ooc_train.core.text import listed
from ooc_train.errors import InvalidStore
from ooc_train.store.format.arrays import ArrayLayout
from ooc_train.store.opening.finding import find_array, group_around
from ooc_train.store.opening.manifests import manifest_of
from ooc_train.store.opening.nodes import Node

if TYPE_CHECKING:
    import zarr


Role = Literal["y", "sample_weight"]

_AXES = {"X": (2,), "y": (1, 2), "sample_weight": (1,), "row_id": (1,)}

ArrayLocation: TypeAlias = "str | os.PathLike[str] | zarr.Group | zarr.Array[Any]"
"""Where an array lies: a name in the group, a path, a URL, or a zarr object."""


@dataclass(frozen=True)
class NamedArray:
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


def manifest_with_other_x(
    manifest: Mapping[str, Any], X: NamedArray, *, inside: bool
) -> Mapping[str, Any]:
    """Return what a manifest says when another array is X: nothing of the columns of its own."""
    about = dict(manifest)
    for key in ("feature_names", "statistics", "recipe", *(() if inside else ("shuffled",))):
        about.pop(key, None)
    known = ("feature_names", "shuffled", "recipe")
    about |= {key: X.manifest[key] for key in known if key in X.manifest}
    if about:
        about["n_rows"] = X.layout.n_rows
    return about


def named_array(node: Node, role: str, place: ArrayLocation, *, fill_missing: bool) -> NamedArray:
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


def array_of(found: Node, role: str, *, fill_missing: bool) -> NamedArray:
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
    layout = found.verified_layout(
        role, None if group is None else group.checksums, fill_missing=fill_missing and not ours
    )
    if layout.n_rows > manifest.get("n_rows", layout.n_rows):
        layout = layout.with_rows(manifest["n_rows"])
    return NamedArray(
        layout,
        found.dimensions,
        None if group is None else group.path,
        manifest if name == role else {},
    )


def no_array(node: Node, role: str, place: ArrayLocation) -> InvalidStore:
    """Return the error that nothing was found where an array was named."""
    return InvalidStore(
        f"{node.path} has no array {str(place)!r}{_listed(node)}; name the array that is {role}, "
        "or its path"
    )


def _listed(node: Node) -> str:
    names = node.array_names()
    return f" (it has {listed(names)})" if names else ""
