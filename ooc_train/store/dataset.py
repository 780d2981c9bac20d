"""A store: the arrays of one data set, its manifest, and how it is opened."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Never, get_args

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.atomic import undo_replacement
from ooc_train.core.units import approximate_bytes
from ooc_train.errors import InvalidStore, StoreNotFound
from ooc_train.memory.ceiling import available_memory
from ooc_train.store.format.arrays import ArrayLayout, load_metadata
from ooc_train.store.format.checksums import Seal
from ooc_train.store.format.conventions import require_rows_first
from ooc_train.store.format.pairs import Pair, finish_pair, notes_of_pair
from ooc_train.store.format.statistics import ColumnStatistics
from ooc_train.store.opening.named_arrays import (
    FORMAT,
    FORMAT_VERSION,
    Named,
    Place,
    Role,
    child_of_role,
    counted,
    manifest_of,
    named_array,
    no_array,
    notes_of,
    of_another_x,
    require_axes,
    seal_around,
)
from ooc_train.store.opening.nodes import Node, find_node
from ooc_train.store.reading.chunks import ChunkReader

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "ArrayLayout",
    "ColumnStatistics",
    "Scalar",
    "Store",
    "default_chunk_rows",
    "default_shard_rows",
    "open_store",
]

CHUNK_BYTES = 0.8 * 2**20
_SHARD_BYTES = 64 * 2**20
_MAX_CHUNKS = 4096
_LABELS_AT_A_TIME = 2**17

_OPENINGS = 5
"""Times that a store is opened which is being replaced again and again."""

Scalar = str | int | float | bool
"""What a class may be called: what JSON can hold."""


def default_chunk_rows(n_features: int, dtype: np.dtype[Any] | str) -> int:
    """Rows of a chunk of about 0.8 MiB, which fits a core's L2 cache beside the work on it.

    A multiple of 256, or fewer where 256 rows take more.
    """
    rows = CHUNK_BYTES / (n_features * np.dtype(dtype).itemsize)
    return round(rows / 256) * 256 if rows >= 256 else max(1, int(rows))


def default_shard_rows(
    n_features: int, dtype: np.dtype[Any] | str, chunk_rows: int | None = None
) -> int:
    """Rows of a shard of about 64 MiB: a multiple of `chunk_rows` (by default the default).

    Of very small chunks a shard holds 4,096, so that its index, which readers keep, stays small.
    """
    chunk_rows = chunk_rows or default_chunk_rows(n_features, dtype)
    chunk_bytes = chunk_rows * n_features * np.dtype(dtype).itemsize
    return min(_MAX_CHUNKS, max(1, round(_SHARD_BYTES / chunk_bytes))) * chunk_rows


@dataclass(frozen=True)
class Store:
    """A data set at rest; `open_store` makes one.

    Parameters
    ----------
    path : str
        Directory or URL.
    X : ArrayLayout
        Shape (sample, feature).
    y : ArrayLayout or None
        Shape (sample,) or (sample, output). With `classes`, places in that tuple. Of another writer
        it may hold text, or codes that its metadata name: what trains a classifier makes classes of
        them.
    sample_weight, row_id : ArrayLayout or None
        Shape (sample,).
    n_rows : int
        Rows that count, by the manifest; arrays may have more of them on disk.
    feature_names : tuple of str, or None
        One a feature.
    classes : tuple of JSON scalars, or None
        Names of the classes, in the order of the codes in y.
    class_counts : tuple of int, or None
        Rows of each class.
    shuffled : int or None
        Seed of the shuffle that the rows went through, None if they lie as they came.
    format_version : int
        Of the manifest; 0 for a store of another writer.
    generation : int
        Counts the commits, from 1; 0 for a store of another writer.
    statistics : ColumnStatistics or None
        Of the columns of X, None for a store of another writer.
    attributes : mapping
        What else the writer noted, such as the truth behind made data.
    recipe : mapping or None
        How raw columns became the features, as JSON values, of which `Recipe.from_json` makes what
        can be applied.
    store_id : str
        Random id of its commit, "" for a store of another writer or an earlier release.
    notes : tuple of str
        What a reader ought to know of how far it is checked.
    pair : Pair or None
        What it is part of, with a store of rows for testing, or for training.
    """

    path: str
    X: ArrayLayout
    y: ArrayLayout | None
    sample_weight: ArrayLayout | None
    row_id: ArrayLayout | None
    n_rows: int
    feature_names: tuple[str, ...] | None = None
    classes: tuple[Scalar, ...] | None = None
    class_counts: tuple[int, ...] | None = None
    shuffled: int | None = None
    format_version: int = 0
    generation: int = 0
    statistics: ColumnStatistics | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] | None = None
    store_id: str = ""
    notes: tuple[str, ...] = ()
    pair: Pair | None = None

    @property
    def n_features(self) -> int:
        """Columns of X."""
        return self.X.shape[1]

    @property
    def n_outputs(self) -> int:
        """Columns of y: 1 if y has one axis, 0 without y."""
        if self.y is None:
            return 0
        return self.y.row_shape[0] if self.y.row_shape else 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values of X."""
        return np.dtype(self.X.dtype)

    @property
    def chunk_rows(self) -> int:
        """Rows of a chunk of X."""
        return self.X.chunk_rows

    @property
    def shard_rows(self) -> int:
        """Rows of a shard of X."""
        return self.X.shard_rows

    @property
    def n_chunks(self) -> int:
        """Chunks of X."""
        return self.X.n_chunks

    @property
    def chunk_bytes(self) -> int:
        """Decoded bytes of a chunk of X."""
        return self.X.chunk_bytes

    @property
    def row_bytes(self) -> int:
        """Decoded bytes that training reads of a row: X, y and weight."""
        arrays = (self.X, self.y, self.sample_weight)
        return sum(array.row_bytes for array in arrays if array is not None)

    @property
    def total_bytes(self) -> int:
        """Decoded bytes that one pass reads."""
        return self.n_rows * self.row_bytes

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Read rows of one array into memory, in this process.

        Holds what it returns and, while it reads, a chunk as it lies and as it is decoded.

        Parameters
        ----------
        name : str
            "X", "y", "sample_weight" or "row_id".
        start, stop : int
            Rows, ``0 <= start <= stop <= n_rows``; by default all of them.

        Returns
        -------
        ndarray of the array's dtype, shape (stop - start, ...)
            Of y with `classes`, places in those: ``np.asarray(store.classes)[y]`` are the labels.

        Raises
        ------
        InvalidStore
            If the store has no such array.
        MemoryError
            If the rows take more than is available.
        CorruptChunk
            If a chunk is missing, cut short, or fails its checksum or decoding.
        """
        arrays = {
            "X": self.X,
            "y": self.y,
            "sample_weight": self.sample_weight,
            "row_id": self.row_id,
        }
        layout = arrays.get(name)
        if layout is None:
            raise InvalidStore(f"{self.path} has no array {name!r}")
        stop = self.n_rows if stop is None else stop
        size = max(0, stop - start) * layout.row_bytes
        if size > (free := available_memory()):
            raise MemoryError(
                f"{stop - start:,} rows of {name} take {approximate_bytes(size)}, and "
                f"{approximate_bytes(free)} are available; read fewer, as in "
                f"store.read({name!r}, 0, 1000)"
            )
        rows = np.empty((max(0, stop - start), *layout.row_shape), layout.dtype)
        with ChunkReader(layout) as reader:
            reader.read_rows(start, stop, rows)
        return rows

    def with_array(
        self,
        role: Role,
        layout: ArrayLayout,
        *,
        classes: tuple[Scalar, ...] | None = None,
        class_counts: tuple[int, ...] | None = None,
    ) -> "Store":
        """Return the store with another array as y or sample_weight.

        What the manifest knows of the array that it replaces is dropped: the classes and the target
        of the recipe, or the statistics.

        Parameters
        ----------
        role : {"y", "sample_weight"}
        layout : ArrayLayout
        classes : tuple of JSON scalars, or None
            Of a y that holds codes.
        class_counts : tuple of int, or None

        Raises
        ------
        InvalidStore
            If it has another number of rows, or not the axes.
        """
        require_axes(layout.path, role, layout)
        if layout.n_rows != self.n_rows:
            raise InvalidStore(
                f"{self.path}: X has {self.n_rows:,} rows, and {role} ({layout.path}) has "
                f"{layout.n_rows:,}; give one of the same rows"
            )
        if role == "sample_weight":
            return replace(self, sample_weight=layout, statistics=None)
        recipe = None if self.recipe is None else {**self.recipe, "target": None}
        return replace(self, y=layout, classes=classes, class_counts=class_counts, recipe=recipe)

    def with_named(self, role: Role, named: Named) -> "Store":
        """Return the store with an array that was named as y or sample_weight.

        Raises
        ------
        InvalidStore
            As `with_array`.
        """
        require_rows_first(self.path, {role: named.dimensions})
        classes, counts = (named.manifest.get(key) for key in ("classes", "class_counts"))
        return self.with_array(
            role,
            named.layout,
            classes=None if classes is None else tuple(classes),
            class_counts=None if counts is None else tuple(counts),
        )

    def distinct_labels(self, limit: int = 1000) -> np.ndarray[Any, np.dtype[Any]]:
        """Sorted distinct values of y, read chunk by chunk in this process.

        Parameters
        ----------
        limit : int
            Most values that y may have.

        Returns
        -------
        ndarray of y's dtype, shape (label,)

        Raises
        ------
        InvalidStore
            If there is no y of one axis, or it has more than `limit` distinct values.
        """
        if self.y is None or self.y.row_shape:
            shape = None if self.y is None else self.y.shape
            raise InvalidStore(
                f"{self.path}: labels need a y of shape (sample,), this one is {shape}"
            )
        labels = np.empty(0, self.y.dtype)
        with ChunkReader(self.y) as reader:
            step = min(self.y.chunk_rows, _LABELS_AT_A_TIME)
            out = np.empty(step, self.y.dtype)
            for start in range(0, self.n_rows, step):
                stop = min(start + step, self.n_rows)
                reader.read_rows(start, stop, out[: stop - start])
                labels = np.union1d(labels, out[: stop - start])
                if len(labels) > limit:
                    raise InvalidStore(
                        f"{self.path}: y has more than {limit:,} distinct values within its first "
                        f"{stop:,} rows; is this a regression?"
                    )
        return labels

    def __array__(self, dtype: object = None, copy: object = None) -> Never:
        raise TypeError(
            f"{self.path} ({self.total_bytes / 2**30:.3g} GiB) would be loaded whole by this call; "
            "pass the store to an estimator of ooc_train, or load rows on purpose, as "
            "store.read('X', 0, 1000) and store.read('y') do"
        )

    def __repr__(self) -> str:
        parts = [f"{self.n_rows:,} x {self.n_features:,} {self.dtype}"]
        if self.y is not None:
            outputs = f" x {self.n_outputs}" if self.y.row_shape else ""
            kind = "text" if self.y.is_text else np.dtype(self.y.dtype)
            parts.append(f"y {kind}{outputs}")
        if self.classes is not None:
            parts.append(f"{len(self.classes)} classes")
        if self.sample_weight is not None:
            parts.append("weighted")
        if self.shuffled is not None:
            parts.append(f"shuffled with seed {self.shuffled}")
        parts.append(
            f"{self.n_chunks:,} chunks of {self.chunk_rows:,} rows "
            f"({self.chunk_bytes / 2**20:.3g} MiB, {self.X.codec or 'by zarr-python'})"
        )
        return f"<Store {self.path}: {', '.join(parts)}>"


def open_store(
    path: Place,
    *,
    X: Place = "X",
    y: "Place | None" = "y",
    sample_weight: "Place | None" = "sample_weight",
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
        now = load_metadata(node.path)
        return now is None or now["attributes"]["store_id"] != node.attributes.get("store_id")
    except (InvalidStore, KeyError, TypeError):
        return False


def _opened(
    node: Node, X: Place, y: "Place | None", sample_weight: "Place | None", *, fill_missing: bool
) -> Store:
    """Open a store whose group, or array, was found."""
    places: dict[str, Place | None] = {"X": X, "y": y, "sample_weight": sample_weight}
    named = {
        role: named_array(node, role, place, fill_missing=fill_missing)
        for role, place in places.items()
        if place is not None and not (isinstance(place, str) and place == role)
    }
    manifest, seal = manifest_of(node), seal_around(node)
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
                child.sealed_layout(role, seal, fill_missing=fill),
            )
            dimensions[role] = child.dimensions
        elif seal is not None and role in seal.arrays:
            raise seal.lacking(node.path, role)
        elif role == "X":
            raise no_array(node, role, role)
    if "X" in named:
        if node.is_array:
            raise InvalidStore(
                f"{node.path} is an array, and so it is X itself; to name another array, give the "
                "group that it lies in"
            )
        manifest = of_another_x(manifest, named["X"], inside=named["X"].group == node.path)
        layouts["X"], dimensions["X"] = named["X"].layout, named["X"].dimensions
    for role, array in named.items():
        # Axes are one dimension by their names where one group says so.
        if array.layout.path.startswith(f"{node.path}/"):
            dimensions[role] = array.dimensions
    require_rows_first(node.path, dimensions)
    pair = _pair_of(node, seal) if "X" not in named else None
    notes = (*notes_of(node), *notes_of_pair(node.path, pair))
    store = replace(_assembled(node.path, manifest, layouts), notes=notes, pair=pair)
    for role in get_args(Role):
        if role in named:
            store = store.with_named(role, named[role])
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


def _pair_of(node: Node, seal: Seal | None) -> Pair | None:
    """Return what a group of ours, in a local folder, is part of."""
    if seal is None or node.is_array or node.metadata is None:
        return None
    X = node.child("X")
    return None if X is None else Pair.of(X.attributes)


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
