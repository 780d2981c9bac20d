"""Labels of classes: their codes and weights."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import Array
from ooc_train.core.text import OR_A_REGRESSION
from ooc_train.errors import InvalidStore
from ooc_train.store.dataset import Store
from ooc_train.store.format.arrays import ArrayLayout
from ooc_train.store.reading.chunks import ChunkReader
from ooc_train.stream.checks import require_finite

Label = str | int | float | bool

ROWS_AT_A_TIME = 2**17
"""Rows of y and weights read at a time, before there is a plan."""


def codes_of(labels: NDArray[Any], y: NDArray[Any]) -> NDArray[np.intp]:
    """Return the index in `labels`, which may be in any order, of each label in y.

    The index of an unknown label is that of another label.
    """
    if labels.dtype != y.dtype and labels.dtype.kind in "iu" and y.dtype.kind in "iu":
        # In float64, several large labels could become one number.
        cast = labels.astype(y.dtype)
        labels = cast if (cast == labels).all() else labels
    order = np.argsort(labels)
    found = np.searchsorted(labels, y, sorter=order)
    return order[np.minimum(found, len(labels) - 1)]


def codes_of_labels(labels: NDArray[Any], y: NDArray[Any]) -> NDArray[np.intp]:
    """Return the index in `labels` of each label in y; an unknown label is a `ValueError`."""
    codes = codes_of(labels, y)
    known = labels[codes] == y
    if not known.all():
        raise ValueError(
            f"y holds the label {plain(y[~known][0])!r}, which is not one of the classes "
            f"{labels.tolist()}; check the data, or name every class when learning begins"
        )
    return codes


def plain(value: Any) -> Label:
    """Return a label as a Python value, with whole numbers as int."""
    plain: Label = value.item() if hasattr(value, "item") else value
    return int(plain) if isinstance(plain, float) and plain.is_integer() else plain


def require_labels(labels: NDArray[Any]) -> None:
    """Raise `ValueError` for labels with a fractional part, which suggest a regression."""
    if labels.dtype.kind == "f" and (labels != np.floor(labels)).any():
        fraction = labels[labels != np.floor(labels)][0]
        raise ValueError(
            f"y holds {fraction:g}, and labels of classes are whole numbers or text; "
            f"{OR_A_REGRESSION}"
        )


def labels_of(
    store: Store, classes: tuple[Label, ...]
) -> tuple[tuple[Label, ...], tuple[int | float, ...] | None]:
    """Return the classes of a store, and the labels in its y, or None if y holds codes."""
    if store.classes is not None:
        if classes and store.classes != classes:
            raise InvalidStore(
                f"{store.path} has the classes {list(store.classes)} and the model "
                f"{list(classes)}; use data with the same classes"
            )
        counts = store.class_counts or (1,) * len(store.classes)
        present = tuple(c for c, n in zip(store.classes, counts, strict=True) if n)
        return (present if len(present) == 1 and not classes else store.classes), None
    values = store.distinct_labels()
    if not np.isfinite(values).all():
        _raise_at_first(store.y)
    require_labels(values)
    found = classes or tuple(plain(value) for value in values)
    if any(isinstance(label, str) for label in found):
        raise InvalidStore(
            f"{store.path} has numbers in y, and the model's classes are {list(found)}; write a "
            "store that names its classes"
        )
    labels = [label for label in found if not isinstance(label, str)]
    if unknown := sorted(set(values.tolist()) - set(labels)):
        raise InvalidStore(
            f"{store.path} has the label {unknown[0]!r}, which is not one of the model's classes "
            f"{list(found)}"
        )
    codes = labels == list(range(len(labels)))
    return found, None if codes else tuple(labels)


def _raise_at_first(y: ArrayLayout | None) -> None:
    """Raise `NonFiniteData` for the first row whose label is not finite."""
    if y is None:
        return
    with ChunkReader(y) as reader:
        step = min(y.chunk_rows, ROWS_AT_A_TIME)
        for start in range(0, y.n_rows, step):
            part = np.empty(min(step, y.n_rows - start), y.dtype)
            reader.read_rows(start, start + len(part), part)
            require_finite(part, start, "y")


def class_weights(
    setting: str | Mapping[Any, float] | None, classes: tuple[Label, ...], totals: Array | None
) -> Array | None:
    """Return the weight of each class by its code, or None if all rows weigh one.

    `ValueError` is raised for the weight of a label that is not in `classes`.
    """
    if setting is None or totals is None:
        return None
    if isinstance(setting, str):
        # As in scikit-learn; a class without rows has no weight.
        share = totals.sum() / max(1, np.count_nonzero(totals))
        balanced: Array = np.divide(share, totals, out=np.zeros(len(totals)), where=totals > 0)
        return balanced
    # As text, as in a saved setting; 1.0 and 1 are one label.
    named = {str(plain(label)): float(weight) for label, weight in setting.items()}
    if unknown := sorted(set(named) - {str(label) for label in classes}):
        raise ValueError(f"class_weight names {unknown[0]!r}, which is not one of {list(classes)}")
    return np.array([named.get(str(label), 1.0) for label in classes])
