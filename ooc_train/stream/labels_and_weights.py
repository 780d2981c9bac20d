"""y and weights that are passed apart from a store: of another store, or in memory.

Arrays at rest are read in place. Arrays in memory or of Dask are written piece by piece to a
temporary array, which workers read as they read X. So a plan needs no term for them.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.temporary_folders import scratch_folder
from ooc_train.core.text import counted
from ooc_train.errors import InvalidStore
from ooc_train.memory.budget import Budget
from ooc_train.memory.ceiling import Ceiling, Term
from ooc_train.store.dataset import Store
from ooc_train.store.format.arrays import ArrayLayout
from ooc_train.store.labels import with_classes
from ooc_train.store.opening.finding import find_node
from ooc_train.store.opening.named_arrays import Role, array_of, named_array
from ooc_train.store.writing.temporary import write_temporary
from ooc_train.stream.checks import not_one_column, require_finite, require_weights
from ooc_train.stream.classes import ROWS_AT_A_TIME, Label, codes_of_labels, plain, require_labels
from ooc_train.stream.dask_arrays import block_bytes, computed_blocks, dask_rows
from ooc_train.stream.kinds import as_labels, as_numbers, is_dask
from ooc_train.stream.store_source import StoreSource

_PIECE_BYTES = 8 * 2**20
"""Memory to write a piece of y or weights (measured: 4 MiB for numbers, 5 MiB for text)."""


class Scratch:
    """A folder for temporary arrays, which is removed with the last reference to this object."""

    def __init__(self) -> None:
        self.folder = scratch_folder(self)


@dataclass(frozen=True, eq=False)
class StoreWithArrays:
    """A store whose y or weights were replaced by arrays; `scratch` keeps the temporary ones."""

    store: Store
    notes: tuple[str, ...] = ()
    scratch: Scratch | None = None


def is_stored(X: object) -> bool:
    """Return whether data are at rest: a store, a path, a URL, or a Zarr object."""
    return isinstance(X, Store | str | os.PathLike) or type(X).__module__.startswith("zarr.")


def with_arrays(
    store: Store,
    y: Any,
    sample_weight: Any,
    *,
    classifier: bool,
    classes: tuple[Label, ...],
    memory_ceiling: str | int | Ceiling | None,
) -> StoreWithArrays:
    """Return a store with other y and weights; None keeps those of the store.

    Parameters
    ----------
    y, sample_weight : path, URL, Zarr array, store, or array of NumPy, Dask or pandas
        Arrays with as many rows as the store. A number as sample_weight is the weight of every
        row.

    Raises
    ------
    CeilingExceeded
        If a piece to write does not fit the ceiling.
    InvalidStore, StoreNotFound
        If an array at rest can't be used.
    NonFiniteData
        If a value is NaN or infinite.
    ValueError
        If the numbers of rows differ, or values are no labels or weights.
    """
    notes, scratch = [], None
    arrays: dict[Role, Any] = {"y": y, "sample_weight": sample_weight}
    for role, values in arrays.items():
        if values is None:
            continue
        for each in (store, values):
            if isinstance(each, Store):
                each.require_whole(f"{role} that is passed apart")
        own = store.y if role == "y" else store.sample_weight
        if own is not None:
            notes.append(f"{role} was passed apart, and replaces {role} of the store")
        if is_stored(values):
            store = _with_stored(store, role, values)
            continue
        if is_dask(values):
            values = dask_rows(values)
        elif role == "y" and classifier:
            values = as_labels(values)
        elif not isinstance(values, Real | np.ndarray):
            values = np.asarray(values)
        if store.shuffled is not None and np.ndim(values) > 0:
            notes.append(
                f"{role} was passed apart, and is taken in the order of the store, whose rows were "
                f"shuffled (seed {store.shuffled})"
            )
        scratch = scratch or Scratch()
        with Budget(memory_ceiling) as budget:
            size = _PIECE_BYTES + (2 * block_bytes(values) if is_dask(values) else 0)
            budget.require(
                [Term("writing", size, f"a piece of {role}, which was passed apart")],
                alone=f"writing {role}, which was passed apart,",
            )
            if role == "sample_weight":
                store = _with_weights(store, values, scratch)
            elif classifier:
                store = _with_labels(store, values, classes, scratch)
            else:
                store = _with_numbers(store, values, scratch)
    # Nobody can open the store again with these arrays.
    store = replace(store, opened={}) if y is not None or sample_weight is not None else store
    return StoreWithArrays(store, tuple(notes), scratch)


def read_at_rest(values: Any, role: Role) -> NDArray[Any]:
    """Return the values of an array at rest, for an X in memory or of Dask."""
    if isinstance(values, Store):
        store = values
    else:
        named = array_of(find_node(values), role, fill_missing=False)
        layout, classes = named.layout, named.manifest.get("classes")
        store = Store(layout.path, layout, layout, layout, None, layout.n_rows, classes=classes)
    if role == "sample_weight":
        return store.read("sample_weight")
    store = with_classes(store)
    rows = store.read("y")
    return rows if store.classes is None else np.asarray(store.classes)[rows.astype(np.intp)]


def _with_stored(store: Store, role: Role, values: Any) -> Store:
    """Return a store with an array at rest, or with that array of another store."""
    if not isinstance(values, Store):
        array = named_array(find_node(store.path), role, values, fill_missing=False)
        return store.with_named_array(role, array)
    layout = values.y if role == "y" else values.sample_weight
    if layout is None:
        raise InvalidStore(f"{values.path} has no {role} to go with {store.path}")
    return store.with_array(role, layout, classes=values.classes, class_counts=values.class_counts)


def _require_rows(store: Store, role: Role, values: Any) -> tuple[int, ...]:
    """Return the shape of values; refuse a known length that differs from the store's."""
    shape = tuple(np.shape(values))
    if not shape:
        raise ValueError(f"{role} is one number, and X has {counted(store.n_rows, 'row')}")
    # Rows of a Dask array of unknown length are counted as its blocks are computed.
    if not np.isnan(shape[0]) and shape[0] != store.n_rows:
        raise ValueError(f"X has {counted(store.n_rows, 'row')} and {role} has {shape[0]:,}")
    return shape


def _pieces(store: Store, role: Role, values: Any) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield the rows of values in pieces, each with the number of its first row."""
    start = 0
    for block in computed_blocks(values) if is_dask(values) else [values]:
        # A masked array stays as it is, for `as_numbers` to check.
        rows = block if isinstance(block, np.ndarray) else np.asarray(block)
        for first in range(0, len(rows), ROWS_AT_A_TIME):
            piece = rows[first : first + ROWS_AT_A_TIME]
            yield start + first, piece
        start += len(rows)
    if start != store.n_rows:
        raise ValueError(f"X has {counted(store.n_rows, 'row')} and {role} has {start:,}")


def _written(
    store: Store,
    role: Role,
    pieces: Iterable[NDArray[Any]],
    row_shape: tuple[int, ...],
    dtype: str,
    scratch: Scratch,
) -> ArrayLayout:
    """Write pieces to a temporary array, in chunks of the rows of a partition."""
    rows = StoreSource.of(store).partition_rows
    return write_temporary(
        scratch.folder, role, pieces, row_shape=row_shape, dtype=dtype, chunk_rows=rows
    )


def _with_weights(store: Store, values: Any, scratch: Scratch) -> Store:
    if isinstance(values, Real):
        values = np.broadcast_to(np.float64(values), store.n_rows)
    shape = _require_rows(store, "sample_weight", values)
    if len(shape) != 1:
        raise ValueError(f"sample_weight has shape {shape}; give one number a row")

    def weights() -> Iterator[NDArray[np.float64]]:
        for start, piece in _pieces(store, "sample_weight", values):
            weight = as_numbers(piece, "sample_weight", np.float64, start)
            require_weights(weight, start)
            yield weight

    layout = _written(store, "sample_weight", weights(), (), "<f8", scratch)
    return store.with_array("sample_weight", layout)


def _with_numbers(store: Store, values: Any, scratch: Scratch) -> Store:
    shape = _require_rows(store, "y", values)
    if len(shape) > 2:
        raise ValueError(f"y has shape {shape}; give one row a sample, as (rows, outputs)")
    pieces = (
        as_numbers(piece, "y", np.float64, start) for start, piece in _pieces(store, "y", values)
    )
    return store.with_array("y", _written(store, "y", pieces, shape[1:], "<f8", scratch))


def _with_labels(store: Store, values: Any, classes: tuple[Label, ...], scratch: Scratch) -> Store:
    shape = _require_rows(store, "y", values)
    if len(shape) > 1 and shape[1:] != (1,):
        raise ValueError(not_one_column(shape))

    def labels() -> Iterator[NDArray[Any]]:
        for start, piece in _pieces(store, "y", values):
            column = as_labels(piece.reshape(len(piece)), start)
            if column.dtype.kind == "f":
                require_finite(column, start, "y")
            require_labels(column)
            yield column

    if classes:
        known = np.asarray(classes)
    else:
        known = np.unique(np.concatenate([np.unique(piece) for piece in labels()]))
    counts = np.zeros(len(known), np.int64)

    def codes() -> Iterator[NDArray[np.intp]]:
        for piece in labels():
            found = codes_of_labels(known, piece)
            counts[...] += np.bincount(found, minlength=len(known))
            yield found

    layout = _written(store, "y", codes(), (), "<i8", scratch)
    named, counted = tuple(plain(label) for label in known), tuple(counts.tolist())
    return store.with_array("y", layout, classes=named, class_counts=counted)
