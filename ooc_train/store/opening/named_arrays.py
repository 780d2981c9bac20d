"""Arrays by role or by name: in a store's group, at a path or URL, or as zarr objects."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ooc_train.core.text import counted, listed
from ooc_train.errors import InvalidStore
from ooc_train.store.format.arrays import ArrayLayout
from ooc_train.store.opening.finding import find_array, group_around
from ooc_train.store.opening.manifests import manifest_of
from ooc_train.store.opening.nodes import Node

if TYPE_CHECKING:
    import zarr


Role = Literal["y", "sample_weight"]

_AXES = {"X": (2, 32), "y": (1, 2), "sample_weight": (1, 1), "row_id": (1, 1)}
"""The least and the most axes of an array."""

ArrayLocation: TypeAlias = "str | os.PathLike[str] | zarr.Group | zarr.Array[Any]"
"""A name in the group, a path, a URL, or a zarr object."""


@dataclass(frozen=True)
class NamedArray:
    """An array that the user named, and what its own group records of it.

    Parameters
    ----------
    layout : ArrayLayout
        Layout with the rows in use.
    dimensions : tuple of str or None, or None
        Names of its axes.
    group : str or None
        Path of the group that contains it.
    manifest : mapping
        Manifest of that group, if it is of our format and the array has this role there; else
        empty.
    """

    layout: ArrayLayout
    dimensions: tuple[str | None, ...] | None
    group: str | None
    manifest: Mapping[str, Any]


def child_of_role(node: Node, role: str) -> Node | None:
    """Return the array named `role` in a group, or None; a node that is an array is X itself."""
    if node.is_array:
        return node if role == "X" else None
    child = node.child(role)
    path = os.path.join(node.path, role)
    if child is None and "://" not in path and os.path.lexists(path):
        raise InvalidStore(
            f"{path} has no metadata of Zarr, and the store would be opened without {role}; "
            "restore its metadata from a copy, or remove it"
        )
    return child


def with_manifest_rows(
    path: str, manifest: Mapping[str, Any], role: str, layout: ArrayLayout
) -> ArrayLayout:
    """Return an array's layout with the number of rows that the manifest states.

    `InvalidStore` is raised if the array has wrong axes, or fewer rows.
    """
    require_axes(path, role, layout)
    n_rows = manifest.get("n_rows", layout.n_rows)
    if layout.n_rows < n_rows:
        raise InvalidStore(
            f"{path}: {role} has {counted(layout.n_rows, 'row')}, the manifest counts {n_rows:,}"
        )
    return layout.with_rows(n_rows)


def require_axes(path: str, role: str, layout: ArrayLayout) -> None:
    """Raise `InvalidStore` if an array's axes don't fit its role."""
    least, most = _AXES[role]
    if not least <= len(layout.shape) <= most:
        expected = {
            "X": "(sample, feature), or (sample, height, width) and the like",
            "y": "(sample,) or (sample, output)",
        }.get(role, "(sample,)")
        raise InvalidStore(f"{path}: {role} has shape {layout.shape}, it should be {expected}")


def manifest_with_other_x(
    manifest: Mapping[str, Any], X: NamedArray, *, inside: bool
) -> Mapping[str, Any]:
    """Return a store's manifest with the records of another X in place of its own X's."""
    manifest_of_x = dict(manifest)
    for key in ("feature_names", "statistics", "recipe", *(() if inside else ("shuffled",))):
        manifest_of_x.pop(key, None)
    known = ("feature_names", "shuffled", "recipe")
    manifest_of_x |= {key: X.manifest[key] for key in known if key in X.manifest}
    if manifest_of_x:
        manifest_of_x["n_rows"] = X.layout.n_rows
    return manifest_of_x


def named_array(
    node: Node, role: str, location: ArrayLocation, *, fill_missing: bool
) -> NamedArray:
    """Return the array to use as `role`; a group stands for its array of that role.

    Relative paths start from `node`. `InvalidStore` is raised if there is no such array, or it
    holds no numbers.
    """
    found = find_array(node, location)
    if found is None:
        raise array_not_found(node, role, location)
    return array_of(found, role, fill_missing=fill_missing)


def array_of(node: Node, role: str, *, fill_missing: bool) -> NamedArray:
    """Return the array at a node, or the array of that role in the node's group."""
    if not node.holds_array:
        inside = node.child(role)
        if inside is None or not inside.is_array:
            raise InvalidStore(
                f"{node.path} is a group without an array {role!r}{_listed(node)}; name the "
                f"array that is {role}, as {role}=NAME"
            )
        node = inside
    group, name = group_around(node)
    manifest = {} if group is None else manifest_of(group)
    is_ours = "n_rows" in manifest and name in _AXES
    layout = node.verified_layout(
        role, None if group is None else group.checksums, fill_missing=fill_missing and not is_ours
    )
    if layout.n_rows > manifest.get("n_rows", layout.n_rows):
        layout = layout.with_rows(manifest["n_rows"])
    return NamedArray(
        layout,
        node.dimensions,
        None if group is None else group.path,
        manifest if name == role else {},
    )


def array_not_found(node: Node, role: str, location: ArrayLocation) -> InvalidStore:
    """Return the error for a name that refers to nothing."""
    return InvalidStore(
        f"{node.path} has no array {str(location)!r}{_listed(node)}; name the array that is {role}"
        f", or its path, as {role}=NAME"
    )


def _listed(node: Node) -> str:
    names = node.array_names()
    if not names and not node.is_array:  # a level deeper, such as xarray's groups
        groups = {name: node.child(name) for name in node.group_names()}
        names = [
            f"{name}/{each}"
            for name, group in groups.items()
            if group
            for each in group.array_names()
        ]
    return f" (it has {listed(names)})" if names else ""
