"""Opening of a store: its arrays are found, verified, and checked against each other."""

import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, get_args

from ooc_train.core.replacements import undo_replacement
from ooc_train.core.text import counted
from ooc_train.errors import InvalidStore, StoreNotFound
from ooc_train.store.dataset import Store
from ooc_train.store.format.arrays import ArrayLayout
from ooc_train.store.format.checksums import CHECKSUMS, StoreChecksums
from ooc_train.store.format.dimensions import require_rows_first
from ooc_train.store.format.metadata import read_metadata
from ooc_train.store.format.pairs import StorePair, finish_pair, pair_notes
from ooc_train.store.format.shares import read_share
from ooc_train.store.format.statistics import ColumnStatistics
from ooc_train.store.opening.finding import find_node
from ooc_train.store.opening.manifests import checksums_around, integrity_notes, manifest_of
from ooc_train.store.opening.named_arrays import (
    ArrayLocation,
    Role,
    array_not_found,
    child_of_role,
    manifest_with_other_x,
    named_array,
    require_axes,
    with_manifest_rows,
)
from ooc_train.store.opening.nodes import Node
from ooc_train.store.opening.share_opening import share_of

_CHECKED = ("feature_names", "classes", "class_counts", "statistics")
"""Fields of a manifest that must fit X and each other."""

_ATTEMPTS = 5
"""Attempts to open a store that is being replaced."""


def open_store(
    path: ArrayLocation,
    *,
    X: ArrayLocation = "X",
    y: "ArrayLocation | None" = "y",
    sample_weight: "ArrayLocation | None" = "sample_weight",
    fill_missing: bool = False,
) -> Store:
    """Open a store without reading a row.

    Parameters
    ----------
    path : str, os.PathLike, zarr.Group or zarr.Array
        Directory or URL of a Zarr group of any writer, format 2 or 3. A single array is taken as X.
        Or the file of a share of a store's rows, which `split_store` wrote: it knows the arrays
        and `fill_missing` of the store that was split. There ``y="./y"`` is the y of the group.
    X, y, sample_weight : str, os.PathLike or zarr.Array
        The arrays, by default those of that name in the group. Another name must exist: in the
        group, as a path from there or from the working directory, or as a URL. Examples are
        ``y="../two/y"`` and, for labels of AnnData, ``y="obs/cell_type"``. None leaves out y or
        sample_weight.
    fill_missing : bool
        Whether unwritten chunks are read as the fill value. Writers such as zarr-python leave out
        chunks of fill values. A lost chunk looks the same, so by default it is an error. The
        setting has no effect on stores of our format, which hold every chunk.

    Returns
    -------
    Store
        ``y`` and ``sample_weight`` are None if the group has none.

    Raises
    ------
    StoreNotFound
        If there is nothing at `path`.
    InvalidStore
        If it is no Zarr or its arrays don't fit together: X of one axis, X transposed by the names
        of its axes, values that are no numbers or stand for others, different lengths, no
        rows. Also if the format is newer than this package, or the metadata of a store of our
        format differ from what was written.
    StoreChanged
        If the store of a share was replaced since it was split, or an array that the share was
        split with and that has no id of this package (`ooc_train.store.opening.fingerprint` says
        what is noticed).

    Examples
    --------
    >>> from ooc_train import make_data, open_store
    >>> made = make_data("made.zarr", rows=1_000, features=4)
    >>> store = open_store("made.zarr")
    >>> store.n_rows, store.feature_names
    (1000, None)
    >>> store.read("y", 0, 5)
    array([0, 0, 1, 1, 1], dtype=uint8)
    """
    if (share := read_share(path)) is not None:
        passed = {"X": X, "y": y, "sample_weight": sample_weight}
        # The share knows the arrays that it was split with; others are named on purpose.
        others: dict[str, Any] = {
            role: place
            for role, place in passed.items()
            if not (isinstance(place, str) and place == role)
        }
        places = {role: share.arrays.get(role, role) for role in passed} | others
        fill = fill_missing or share.arrays.get("fill_missing", False)
        whole = open_store(share.store_path, **places, fill_missing=fill)
        found = share_of(whole, share, os.path.abspath(os.fspath(path)), others)  # type: ignore[arg-type]
        return replace(found, opened=_opened(passed, fill_missing=fill_missing))
    notes: tuple[str, ...] = ()
    if isinstance(path, str | os.PathLike) and "://" not in os.fspath(path):
        location = os.path.abspath(path)
        notes = finish_pair(location)
        # Without permission to write, there is no interrupted replacement of ours.
        with suppress(OSError):
            undo_replacement(location)
    for attempt in range(1, _ATTEMPTS + 1):
        node = find_node(path)
        try:
            store = _open_node(node, X, y, sample_weight, fill_missing=fill_missing)
        except (InvalidStore, StoreNotFound):
            if attempt == _ATTEMPTS or not _replaced(node):
                raise
        else:
            break
    opened = _opened({"X": X, "y": y, "sample_weight": sample_weight}, fill_missing=fill_missing)
    return replace(store, notes=(*notes, *store.notes), opened=opened)


def _opened(places: Mapping[str, "ArrayLocation | None"], *, fill_missing: bool) -> dict[str, Any]:
    """Return arguments of `open_store` as text; none of them if an array is no text."""
    opened: dict[str, Any] = {
        role: place if place is None else os.fspath(place)
        for role, place in places.items()
        if place is None or isinstance(place, str | os.PathLike)
    }
    return opened | {"fill_missing": fill_missing} if len(opened) == len(places) else {}


def _replaced(node: Node) -> bool:
    """Return whether a store was replaced, or rows were added, since its manifest was read."""
    if node.metadata is None or node.is_array:
        return False
    try:
        now = read_metadata(node.path)
        return now is None or any(
            now["attributes"][key] != node.attributes.get(key) for key in ("store_id", CHECKSUMS)
        )
    except (InvalidStore, KeyError, TypeError):
        return False


def _open_node(
    node: Node,
    X: ArrayLocation,
    y: "ArrayLocation | None",
    sample_weight: "ArrayLocation | None",
    *,
    fill_missing: bool,
) -> Store:
    """Open the store of a group or array."""
    locations: dict[str, ArrayLocation | None] = {"X": X, "y": y, "sample_weight": sample_weight}
    named = {
        role: named_array(node, role, location, fill_missing=fill_missing)
        for role, location in locations.items()
        if location is not None and not (isinstance(location, str) and location == role)
    }
    manifest, checksums = manifest_of(node), checksums_around(node)
    fill = fill_missing and "n_rows" not in manifest
    layouts, dimensions = {}, {}
    for role in ("X", "y", "sample_weight", *(["row_id"] if manifest else [])):
        if role in named or locations.get(role, role) is None:
            continue
        child = child_of_role(node, role)
        if child is not None and child.holds_array:
            layouts[role] = with_manifest_rows(
                node.path, manifest, role, child.verified_layout(role, checksums, fill_missing=fill)
            )
            dimensions[role] = child.dimensions
        elif checksums is not None and role in checksums.arrays:
            raise checksums.lacking(node.path, role)
        elif role == "X":
            raise array_not_found(node, role, role)
    if "X" in named:
        if node.is_array:
            raise InvalidStore(
                f"{node.path} is an array, so it is X itself; to name another array, give the "
                "group that contains it"
            )
        inside = named["X"].group == node.path
        manifest = manifest_with_other_x(manifest, named["X"], inside=inside)
        layouts["X"], dimensions["X"] = named["X"].layout, named["X"].dimensions
    for role, array in named.items():
        # Equal names mean equal dimensions only within one group.
        if array.layout.path.startswith(f"{node.path}/"):
            dimensions[role] = array.dimensions
    require_rows_first(node.path, dimensions)
    pair = _pair_of(node, checksums) if "X" not in named else None
    notes = (*integrity_notes(node), *pair_notes(node.path, pair))
    store = replace(_assemble(node.path, manifest, layouts), notes=notes, pair=pair)
    for role in get_args(Role):
        if role in named:
            store = store.with_named_array(role, named[role])
    return store


def _require_consistent(path: str, X: ArrayLayout, manifest: Mapping[str, Any]) -> None:
    """Raise `InvalidStore` if parts of a manifest differ in length from X or from each other."""
    names, classes, counts, statistics = (manifest.get(key) for key in _CHECKED)
    wrong = None
    columns = math.prod(X.row_shape)
    if names is not None and len(names) != columns:
        wrong = f"names {counted(len(names), 'column')}, and X has {columns:,}"
    elif counts is not None and len(counts) != len(classes or ()):
        wrong = (
            f"counts the rows of {counted(len(counts), 'class')}, and names {len(classes or ()):,}"
        )
    elif classes is not None and (not classes or len(set(classes)) < len(classes)):
        wrong = "names no class, or one twice"
    elif statistics is not None:
        lengths = {len(statistics[key]) for key in ("mean", "scale", "minimum", "maximum")}
        if lengths != {columns}:
            wrong = f"has statistics of {lengths} columns, and X has {columns:,}"
        elif min(statistics["scale"]) < 0:
            wrong = "has a scale that is less than 0"
    if wrong is not None:
        raise InvalidStore(f"{path}: the manifest {wrong}; restore its zarr.json from a copy")


def _pair_of(node: Node, checksums: StoreChecksums | None) -> StorePair | None:
    """Return the `StorePair` that a store of our format in a local folder records, or None."""
    if checksums is None or node.is_array or node.metadata is None:
        return None
    X = node.child("X")
    return None if X is None else StorePair.of(X.attributes)


def _assemble(path: str, manifest: Mapping[str, Any], layouts: Mapping[str, ArrayLayout]) -> Store:
    """Return a store of these arrays, after checking that they fit together."""
    X = layouts["X"]
    require_axes(path, "X", X)
    for role, layout in layouts.items():
        require_axes(path, role, layout)
        if layout.n_rows != X.n_rows:
            raise InvalidStore(
                f"{path}: {role} has {counted(layout.n_rows, 'row')}, X has {X.n_rows:,}"
            )
    if 0 in X.shape:
        raise InvalidStore(f"{path}: X has shape {X.shape}: it is empty")
    _require_consistent(path, X, manifest)
    names, classes, counts, statistics = (manifest.get(key) for key in _CHECKED)
    return Store(
        path=path,
        X=X,
        y=layouts.get("y"),
        sample_weight=layouts.get("sample_weight"),
        row_id=layouts.get("row_id"),
        n_rows=X.n_rows,
        feature_names=None if names is None else tuple(names),
        classes=None if classes is None else tuple(classes),
        class_counts=None if counts is None else tuple(counts),
        shuffled=manifest.get("shuffled"),
        format_version=manifest.get("format_version", 0),
        generation=manifest.get("generation", 0),
        statistics=None if statistics is None else ColumnStatistics.from_json(statistics),
        attributes=manifest.get("attributes", {}),
        recipe=manifest.get("recipe"),
        store_id=manifest.get("store_id", ""),
    )
