"""Labels that are no codes: y of text, or of numbers that its metadata name.

Which labels there are is found by reading y, in pieces. From then on readers hand out codes, and
the store has classes, as one of ours has.
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

_LOOK_BYTES = 8 * 2**20
"""What looking at y and weights holds, beside chunks that are kept (measured: 6 MiB)."""


def has_labels(y: ArrayLayout | None) -> bool:
    """Whether y holds labels of classes, and not numbers or codes."""
    return y is not None and (y.is_text or y.names is not None)


def labels_term(*layouts: ArrayLayout | None) -> Term:
    """Say what looking at whole arrays, a chunk at a time, holds."""
    size = _LOOK_BYTES
    for layout in layouts:
        if layout is not None:
            with ChunkReader(layout) as reader:
                size += reader.cache_bytes + reader.hidden_bytes
    return Term("labels", size, "a chunk of y and of the weights, which the manifest lacks")


def with_classes(store: Store, classes: tuple[Scalar, ...] = ()) -> Store:
    """Return a store with classes, whose y is handed out as codes; the same if y holds no labels.

    Parameters
    ----------
    store : Store
        Any store. Where y holds labels, it is read once.
    classes : tuple, optional
        Labels in the order of their codes, where they are known; by default those that y holds, in
        ascending order.

    Raises
    ------
    InvalidStore
        If y holds a label that is not one of `classes`, more than 1,000 labels, one that is longer
        than 100 bytes, or one that its metadata do not name.
    CorruptChunk, NonFiniteData
        As `ChunkReader` does.
    """
    y = store.y
    if y is None or not has_labels(y):
        return store
    lying = store.distinct_labels()
    named = None if y.names is None else dict(y.names)
    names = [_name(label, named, store.path) for label in lying.tolist()]
    found = classes or tuple(sorted(set(names)))
    if unknown := [name for name in names if name not in found]:
        raise InvalidStore(
            f"{store.path} has the label {unknown[0]!r}, which is not one of the model's classes "
            f"{list(found)}"
        )
    coding = Coding(
        _dtype_at_rest(lying, store.path), tuple(lying.tolist()), tuple(map(found.index, names))
    )
    coded = replace(y, dtype="|u1" if len(found) <= 256 else "<u2", names=None, coding=coding)
    return replace(store, y=coded, classes=found, class_counts=None)


def with_classes_within(
    store: Store, memory_ceiling: str | int | Ceiling | None, terms: Callable[[Store], Choice]
) -> Store:
    """Return a store that can be written anew: with classes, where y holds labels.

    Parameters
    ----------
    store : Store
    memory_ceiling : str, int, Ceiling or None
    terms : callable
        What writing it anew will take, so that a ceiling which is told has room for that too.

    Raises
    ------
    CeilingExceeded
        If looking at the labels takes more, before anything is read.
    InvalidStore, CorruptChunk, NonFiniteData
        As `with_classes` does.
    """
    if store.y is not None and has_labels(store.y):
        look = labels_term(store.y)
        # Which labels there are isn't known yet; no codes are longer.
        coding = Coding(store.y.dtype, (), ())
        coded = replace(store, y=replace(store.y, dtype="<u2", names=None, coding=coding))
        with Budget(memory_ceiling) as budget:
            budget.settle(lambda _: [look], worst=terms(coded))
        return with_classes(store)
    return store


def _name(label: Any, named: Mapping[Any, Scalar] | None, path: str) -> Scalar:
    """Say what a label, as it lies, is called."""
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
    """Type in which labels are read: of a fixed length also where each has its own."""
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
