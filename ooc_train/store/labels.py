"""Labels in y that are no codes: text, or numbers that the array's metadata name.

The distinct labels are found by reading y in pieces. From then on readers return codes, and the
store has classes, like a store of our format.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.errors import InvalidStore
from ooc_train.memory.budget import Budget, Choice
from ooc_train.memory.ceiling import Ceiling, Term
from ooc_train.store.dataset import Scalar, Store
from ooc_train.store.format.arrays import ArrayLayout, Coding
from ooc_train.store.reading.chunks import ChunkReader
from ooc_train.store.reading.zarr_route import LONGEST_LABEL

_READING_BYTES = 8 * 2**20
"""Memory to read y and weights, without the reader's chunks (measured: 6 MiB)."""


def has_labels(y: ArrayLayout | None) -> bool:
    """Return whether y holds labels of classes instead of numbers or codes."""
    return y is not None and (y.is_text or y.names is not None)


def one_column(store: Store) -> Store:
    """Return a store whose y of shape (row, 1) is read as (row,), as labels are; else the same."""
    y = store.y
    if y is None or y.row_shape != (1,):
        return store
    return replace(store, y=replace(y, shape=(y.n_rows,)))


def labels_term(*layouts: ArrayLayout | None) -> Term:
    """Return the memory term of reading whole arrays chunk by chunk."""
    size = _READING_BYTES
    for layout in layouts:
        if layout is not None:
            with ChunkReader(layout) as reader:
                size += reader.cache_bytes + reader.hidden_bytes
    return Term("labels", size, "a chunk of y and of the weights, to find what the manifest lacks")


def with_classes(store: Store, classes: tuple[Scalar, ...] = ()) -> Store:
    """Return a store with classes, whose y is read as codes; the same store if y has no labels.

    Parameters
    ----------
    store : Store
        Any store. If y holds labels, it is read once.
    classes : tuple, optional
        Known labels in the order of their codes. By default the labels in y, in ascending order.

    Raises
    ------
    InvalidStore
        If y holds a label that isn't in `classes`, more than 1,000 labels, a label longer than 100
        bytes, or one that the metadata don't name.
    CorruptChunk, NonFiniteData
        As in `ChunkReader`.
    """
    column = one_column(store)
    y = column.y
    if y is None or not has_labels(y):
        return store
    store = column
    stored = store.distinct_labels()
    named = None if y.names is None else dict(y.names)
    names = [_name(label, named, store.path) for label in stored.tolist()]
    known = classes or tuple(sorted(set(names)))
    if unknown := [name for name in names if name not in known]:
        raise InvalidStore(
            f"{store.path} has the label {unknown[0]!r}, which is not one of the model's classes "
            f"{list(known)}"
        )
    coding = Coding(
        _dtype_at_rest(stored, store.path), tuple(stored.tolist()), tuple(map(known.index, names))
    )
    coded = replace(y, dtype="|u1" if len(known) <= 256 else "<u2", names=None, coding=coding)
    return replace(store, y=coded, classes=known, class_counts=None)


def with_classes_within(
    store: Store, memory_ceiling: str | int | Ceiling | None, terms: Callable[[Store], Choice]
) -> Store:
    """Return a store that can be rewritten: with classes, if y holds labels.

    `terms` are the memory terms of the rewrite, so that a ceiling named in an error allows for it
    too. `CeilingExceeded` is raised if reading the labels takes more than the ceiling, before
    anything is read.
    """
    if store.y is not None and has_labels(store.y):
        reading = labels_term(store.y)
        # The labels aren't known yet; "<u2" is the largest type of codes.
        coding = Coding(store.y.dtype, (), ())
        coded = replace(store, y=replace(store.y, dtype="<u2", names=None, coding=coding))
        with Budget(memory_ceiling) as budget:
            budget.settle(lambda _: [reading], worst=terms(coded))
        return with_classes(store)
    return store


def _name(label: Any, named: Mapping[Any, Scalar] | None, path: str) -> Scalar:
    """Return the name of a stored label."""
    if isinstance(label, bytes):
        try:
            return label.decode()
        except UnicodeDecodeError:
            raise InvalidStore(
                f"{path} has the label {label!r} in y, which is no text in UTF-8; write it as text"
            ) from None
    if named is None:
        return str(label)
    if label not in named:
        raise InvalidStore(
            f"{path} has the label {label!r} in y, which its metadata do not name: they name "
            f"{list(named)}; correct y, or its flag_values and flag_meanings"
        )
    return named[label]


def _dtype_at_rest(labels: NDArray[Any], path: str) -> str:
    """Return the type that labels are read in; text of any length gets a fixed length."""
    if labels.dtype.kind != "T":
        return labels.dtype.str
    texts = labels.tolist()
    longest = max(texts, key=lambda text: len(text.encode()))
    if (size := len(longest.encode())) > LONGEST_LABEL:
        raise InvalidStore(
            f"{path} has a text of {size:,} bytes in y, {longest[:20]!r}...; labels of classes "
            f"have at most {LONGEST_LABEL}"
        )
    return np.dtype(f"<U{max(1, *map(len, texts))}").str
