"""Inputs from arrays in memory and from Dask arrays."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.text import counted
from ooc_train.stream.array_source import ArraySource, beside
from ooc_train.stream.checks import not_one_column, require_finite, require_weights
from ooc_train.stream.classes import Label, codes_of_labels, plain, require_labels
from ooc_train.stream.dask_arrays import aligned, coded, label_weights
from ooc_train.stream.dask_source import dask_source
from ooc_train.stream.input_data import Inputs
from ooc_train.stream.kinds import as_labels, as_numbers, require_arrays, require_rows
from ooc_train.stream.sources import model_dtype


def read_arrays(
    X: Any, y: Any, sample_weight: Any, *, classifier: bool, classes: tuple[Label, ...]
) -> Inputs:
    """Return the inputs of arrays in memory (see `read_inputs` for the arguments)."""
    if y is None:
        raise ValueError("training needs y")
    require_arrays(X, y, sample_weight)
    given = X, y, sample_weight
    names, (X, row_shape) = names_of(X), dense(X)
    weight = None
    if sample_weight is not None:
        weight = as_numbers(sample_weight, "sample_weight", np.float64)
    y = as_labels(y) if classifier else as_numbers(y, "y", np.float64)
    for name, values in (("y", y), ("sample_weight", weight)):
        if values is not None and len(values) != len(X):
            raise ValueError(f"X has {counted(len(X), 'row')} and {name} has {len(values):,}")
    if weight is not None:
        if weight.ndim != 1:
            raise ValueError(f"sample_weight has shape {weight.shape}; give one number a row")
        require_weights(weight, 0)
    found: tuple[Label, ...] = ()
    totals = None
    if classifier:
        if y.size != len(X):
            raise ValueError(not_one_column(y.shape))
        y = y.ravel()
        if y.dtype.kind == "f":
            require_finite(y, 0, "y")
        require_labels(y)
        labels = np.unique(y) if not classes else np.asarray(classes)
        y = codes_of_labels(labels, y)
        found = tuple(plain(label) for label in labels)
        totals = np.bincount(y, weight, minlength=len(found)).astype(np.float64)
    columns = np.require(y, np.float64, ("C", "A")).reshape(len(X), -1)
    source = beside(ArraySource(X, columns, weight), *given)
    total = float(len(X)) if weight is None else float(weight.sum())
    return Inputs(source, "arrays", found, totals, total, feature_names=names, row_shape=row_shape)


def dense(X: Any) -> tuple[NDArray[np.floating], tuple[int, ...] | None]:
    """Return X as compiled kernels read it: float32 or float64, aligned, in C order, two axes.

    X is copied only if it differs. A row of several axes, as of an image, becomes columns of the
    type that a store of such rows has; its shape is returned too, and None for plain columns.
    """
    X = X if isinstance(X, np.ndarray) else np.asarray(X)
    require_rows(X)
    row_shape = X.shape[1:] if X.ndim > 2 else None
    dtype = np.dtype(np.float32 if X.dtype == np.float32 else np.float64)
    if row_shape is not None and X.dtype.kind in "biuf":
        dtype = np.dtype(model_dtype(X.dtype))
    return as_numbers(X, "X", dtype).reshape(len(X), -1), row_shape


def read_dask(
    X: Any, y: Any, sample_weight: Any, *, classifier: bool, classes: tuple[Label, ...]
) -> Inputs:
    """Return the inputs of Dask arrays (see `read_inputs` for the arguments)."""
    if y is None:
        raise ValueError("training needs y")
    row_shape = X.shape[1:] if X.ndim > 2 else None
    X, y, weight = aligned(X, y, sample_weight)
    found: tuple[Label, ...] = ()
    totals, total = None, float(X.shape[0])
    if classifier and y.ndim == 2:
        if y.shape[1] != 1:
            raise ValueError(not_one_column(y.shape))
        y = y[:, 0]
    if classifier or weight is not None:
        y_labels = y if classifier else None
        labels, totals, total = label_weights(y_labels, weight, X.chunks[0], classes)
    if classifier:
        found = tuple(plain(label) for label in labels)
        y = coded(y, labels)
    return Inputs(dask_source(X, y, weight), "dask", found, totals, total, row_shape=row_shape)


def names_of(X: Any) -> tuple[str, ...] | None:
    """Return the column names of a data frame, or None unless all are text."""
    names = tuple(getattr(X, "columns", ()))
    return names if names and all(isinstance(name, str) for name in names) else None
