"""Opening a store: finding its arrays and checking that they fit together."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, get_args

from ooc_train.core.replacements import undo_replacement
from ooc_train.errors import InvalidStore, StoreNotFound
from ooc_train.store.dataset import Store
from ooc_train.store.format.arrays import ArrayLayout
from ooc_train.store.format.checksums import StoreChecksums
from ooc_train.store.format.dimensions import require_rows_first
from ooc_train.store.format.metadata import read_metadata
from ooc_train.store.format.pairs import StorePair, finish_pair, pair_notes
from ooc_train.store.format.statistics import ColumnStatistics
from ooc_train.store.opening.finding import find_node
from ooc_train.store.opening.manifests import (
    checksums_around,
    integrity_notes,
    manifest_of,
)
from ooc_train.store.opening.named_arrays import (
    ArrayLocation,
    Role,
    child_of_role,
    counted,
    manifest_with_other_x,
    named_array,
    no_array,
    require_axes,
)
from ooc_train.store.opening.nodes import Node

_OPENINGS = 5
"""Times that a store is opened which is being replaced again and again."""


def open_store(
    path: ArrayLocation,
    *,
    X: ArrayLocation = "X",
    y: "ArrayLocation | None" = "y",
    sample_weight: "ArrayLocation | None" = "sample_weight",
    fill_missing: bool = False,
) -> Store:
    """Open a store, without reading a row.

    Parameters
    ----------
    path : str, os.PathLike, zarr.Group or zarr.Array
        Directory or URL of a Zarr group (ours or another's, format 2 or 3), or of one array, which
        is taken as X.
    X, y, sample_weight : str, os.PathLike or zarr.Array
        The arrays: by default those of that name in the group. A name that isn't the default must
        exist: in the group, or as a path from there, such as ``y="../two/y"`` or, for labels of
        AnnData, ``y="obs/cell_type"``; else from the working directory, or as a URL. None for y or
        sample_weight leaves it out.
    fill_missing : bool
        Whether chunks that are not there are read as the fill value. Writers such as zarr-python
        leave out chunks of nothing but that; a chunk that was lost looks the same, so by default it
        is an error. Of a store of ours every chunk was written, and this changes nothing.

    Returns
    -------
    Store
        With ``y=None`` where there is none: who needs it says so.

    Raises
    ------
    StoreNotFound
        If nothing lies there.
    InvalidStore
        If it is no Zarr, or its arrays don't fit together: X not of two axes, or transposed by the
        names of its axes, values that are no numbers or stand for others by their attributes,
        lengths that differ, no rows, a format that is newer than this package; or if it is a store
        of ours, and its manifest or the metadata of an array are not what was written.
    """
    notes: tuple[str, ...] = ()
    if isinstance(path, str | os.PathLike) and "://" not in os.fspath(path):
        place = os.path.abspath(path)
        notes = finish_pair(place)
        # Without permission to write, nothing lies there.
        with suppress(OSError):
            undo_replacement(place)
    for attempt in range(1, _OPENINGS + 1):
        node = find_node(path)
        try:
            store = _opened(node, X, y, sample_weight, fill_missing=fill_missing)
        except (InvalidStore, StoreNotFound):
            if attempt == _OPENINGS or not _replaced(node):
                raise
        else:
            break
    return replace(store, notes=(*notes, *store.notes))


def _replaced(node: Node) -> bool:
    """Say whether a store of ours was replaced since its manifest was read."""
    if node.metadata is None or node.is_array:
        return False
    try:
        now = read_metadata(node.path)
        return now is None or now["attributes"]["store_id"] != node.attributes.get("store_id")
    except (InvalidStore, KeyError, TypeError):
        return False


def _opened(
    node: Node,
    X: ArrayLocation,
    y: "ArrayLocation | None",
    sample_weight: "ArrayLocation | None",
    *,
    fill_missing: bool,
) -> Store:
    """Open a store whose group, or array, was found."""
    places: dict[str, ArrayLocation | None] = {"X": X, "y": y, "sample_weight": sample_weight}
    named = {
        role: named_array(node, role, place, fill_missing=fill_missing)
        for role, place in places.items()
        if place is not None and not (isinstance(place, str) and place == role)
    }
    manifest, checksums = manifest_of(node), checksums_around(node)
    fill = fill_missing and "n_rows" not in manifest
    layouts, dimensions = {}, {}
    for role in ("X", "y", "sample_weight", *(["row_id"] if manifest else [])):
        if role in named or places.get(role, role) is None:
            continue
        child = child_of_role(node, role)
        if child is not None and (child.is_array or child.is_encoded):
            layouts[role] = counted(
                node.path,
                manifest,
                role,
                child.verified_layout(role, checksums, fill_missing=fill),
            )
            dimensions[role] = child.dimensions
        elif checksums is not None and role in checksums.arrays:
            raise checksums.lacking(node.path, role)
        elif role == "X":
            raise no_array(node, role, role)
    if "X" in named:
        if node.is_array:
            raise InvalidStore(
                f"{node.path} is an array, and so it is X itself; to name another array, give the "
                "group that it lies in"
            )
        manifest = manifest_with_other_x(manifest, named["X"], inside=named["X"].group == node.path)
        layouts["X"], dimensions["X"] = named["X"].layout, named["X"].dimensions
    for role, array in named.items():
        # Axes are one dimension by their names where one group says so.
        if array.layout.path.startswith(f"{node.path}/"):
            dimensions[role] = array.dimensions
    require_rows_first(node.path, dimensions)
    pair = _pair_of(node, checksums) if "X" not in named else None
    notes = (*integrity_notes(node), *pair_notes(node.path, pair))
    store = replace(_assembled(node.path, manifest, layouts), notes=notes, pair=pair)
    for role in get_args(Role):
        if role in named:
            store = store.with_named_array(role, named[role])
    return store


def _require_consistent(
    path: str, X: ArrayLayout, classes: Any, counts: Any, statistics: Any
) -> None:
    """Refuse a manifest whose parts are of other lengths than the arrays, or than each other."""
    wrong = None
    if counts is not None and len(counts) != len(classes or ()):
        wrong = f"counts the rows of {len(counts):,} classes, and names {len(classes or ()):,}"
    elif classes is not None and (not classes or len(set(classes)) < len(classes)):
        wrong = "names no class, or one twice"
    elif statistics is not None:
        lengths = {len(statistics[key]) for key in ("mean", "scale", "minimum", "maximum")}
        if lengths != {X.shape[1]}:
            wrong = f"has statistics of {lengths} columns, and X has {X.shape[1]:,}"
        elif min(statistics["scale"]) < 0:
            wrong = "has a scale that is less than 0"
    if wrong is not None:
        raise InvalidStore(f"{path}: the manifest {wrong}; restore its zarr.json from a copy")


def _pair_of(node: Node, checksums: StoreChecksums | None) -> StorePair | None:
    """Return what a group of ours, in a local folder, is part of."""
    if checksums is None or node.is_array or node.metadata is None:
        return None
    X = node.child("X")
    return None if X is None else StorePair.of(X.attributes)


def _assembled(path: str, manifest: Mapping[str, Any], layouts: Mapping[str, ArrayLayout]) -> Store:
    """Make a store of these arrays, after checking that they fit together."""
    X = layouts["X"]
    require_axes(path, "X", X)
    for role, layout in layouts.items():
        require_axes(path, role, layout)
        if layout.n_rows != X.n_rows:
            raise InvalidStore(f"{path}: {role} has {layout.n_rows:,} rows, X has {X.n_rows:,}")
    if 0 in X.shape:
        raise InvalidStore(f"{path}: X has shape {X.shape}: there is nothing in it")
    names, classes, counts, statistics = (
        manifest.get(key) for key in ("feature_names", "classes", "class_counts", "statistics")
    )
    if names is not None and len(names) != X.shape[1]:
        raise InvalidStore(
            f"{path}: the manifest names {len(names):,} columns, and X has {X.shape[1]:,}; restore "
            "its zarr.json from a copy"
        )
    _require_consistent(path, X, classes, counts, statistics)
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
