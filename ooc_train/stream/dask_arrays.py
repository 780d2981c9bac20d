"""Dask arrays with the same chunks of rows, and the labels and weights in them."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from numbers import Real
from typing import Any

import dask
import numpy as np
from dask.delayed import Delayed, delayed
from distributed import CancelledError, Client
from numpy.typing import NDArray

from ooc_train.core.sums import Array
from ooc_train.core.text import counted
from ooc_train.errors import OocTrainError
from ooc_train.stream.checks import require_finite, require_weights
from ooc_train.stream.classes import Label, codes_of_labels, require_labels
from ooc_train.stream.cluster_waits import require_scheduler, scheduler_gone
from ooc_train.stream.kinds import (
    as_labels,
    as_numbers,
    is_dask,
    require_arrays,
    require_rows,
)


def dask_rows(values: Any) -> Any:
    """Return a Dask array or frame as a Dask array whose blocks hold whole rows."""
    array = values.to_dask_array() if hasattr(values, "to_dask_array") else values
    return array.rechunk(dict.fromkeys(range(1, array.ndim), -1)) if array.ndim > 1 else array


def computed_blocks(values: Any) -> Iterator[Any]:
    """Yield the computed blocks of an array of `dask_rows`, one after another."""
    for block in values.to_delayed().ravel():
        yield block.compute()


def block_bytes(values: Any) -> int:
    """Return the bytes of the largest block of rows, 0 if Dask does not know its rows."""
    rows = max(values.chunks[0], default=0)
    width = int(np.prod(values.shape[1:])) * values.dtype.itemsize
    return 0 if np.isnan(rows) else int(rows) * width


def aligned(X: Any, y: Any = None, weight: Any = None) -> tuple[Any, Any, Any]:
    """Return X, y and weights as Dask arrays with blocks of the same rows; X has two axes.

    Raises
    ------
    TypeError
        If an argument is no array.
    ValueError
        If arrays differ in their numbers of rows, have none, do not know it, or hold dates.
    """
    import dask.array

    require_arrays(X, y, weight)
    n_rows = _known_rows(X, "X")
    require_rows(X)
    X = dask_rows(X)
    if X.ndim > 2:
        columns = math.prod(X.shape[1:])
        X = X.map_blocks(
            _flat, drop_axis=list(range(2, X.ndim)), chunks=(X.chunks[0], (columns,)), dtype=X.dtype
        )
    others = []
    for name, values in (("y", y), ("sample_weight", weight)):
        if isinstance(values, Real):
            values = dask.array.full(n_rows, float(values), chunks=(X.chunks[0],))
        if values is not None:
            values = values if is_dask(values) else dask.array.from_array(np.asarray(values))
            if values.ndim == 0 or _known_rows(values, name) != n_rows:
                raise ValueError(
                    f"X has {counted(n_rows, 'row')} and {name} has the shape {values.shape}"
                )
            if values.ndim > (2 if name == "y" else 1):
                what = "one row a sample" if name == "y" else "one number a row"
                raise ValueError(f"{name} has shape {values.shape}; give {what}")
            values = values.rechunk({0: X.chunks[0]} | ({1: -1} if values.ndim == 2 else {}))
        others.append(values)
    return X, others[0], others[1]


def _flat(block: Any) -> Any:
    """Return the values of each row of a block as columns, in C order."""
    return block.reshape(block.shape[0], math.prod(block.shape[1:]))


def _known_rows(values: Any, name: str) -> int:
    if np.isnan(values.shape[0]):
        raise ValueError(
            f"the Dask array {name} does not know its rows; call {name}.compute_chunk_sizes() first"
        )
    return int(values.shape[0])


def label_weights(
    y: Any, weight: Any, rows: Sequence[int], classes: tuple[Label, ...]
) -> tuple[NDArray[Any], Array | None, float]:
    """Return the labels of y and the weight of each, by one pass over y and weights.

    Parameters
    ----------
    y : Dask array or None
        Labels; None for a regression.
    weight : Dask array or None
        Weights, cut alike; None if every row weighs one.
    classes : tuple
        Labels in the order of their codes, if they are known beforehand.

    Returns
    -------
    labels : ndarray of shape (n_classes,)
        The labels in the order of their codes.
    totals : ndarray of shape (n_classes,), or None
        Weight of the rows of each class.
    total : float
        Weight of all rows.

    Raises
    ------
    NonFiniteData
        If a label or weight is NaN, infinite or missing, with its row.
    ValueError
        If a weight is negative, or labels are fractions or of several kinds.
    """

    def blocks(array: Any) -> Any:
        return [None] * len(rows) if array is None else array.to_delayed().ravel()

    tasks = [
        delayed(_block_weights)(labels, weights, start)
        for labels, weights, start, count in zip(
            blocks(y), blocks(weight), accumulate(rows, initial=0), rows, strict=False
        )
        if count
    ]
    found = _computed(tasks)
    for outcome in found:
        if isinstance(outcome, Exception):
            raise outcome
    total = float(sum(weights.sum() for _, weights in found))
    if y is None:
        return np.empty(0), None, total
    present = as_labels(np.concatenate([_objects_of(labels) for labels, _ in found]))
    known = np.asarray(classes) if classes else np.unique(present)
    require_labels(known)
    totals = np.zeros(len(known))
    for labels, weights in found:
        totals[codes_of_labels(known, labels)] += weights
    return known, totals, total


def _block_weights(y: Any, weight: Any, start: int) -> Any:
    """Return the labels of a block and the weight of each, or an error as a value."""
    try:
        if weight is not None:
            weight = as_numbers(weight, "sample_weight", np.float64, start)
            require_weights(weight, start)
        if y is None:
            return None, np.asarray([weight.sum()])
        y = as_labels(y, start)
        if y.dtype.kind == "f":
            require_finite(y, start, "y")
        labels, codes = np.unique(y, return_inverse=True)
        return labels, np.bincount(codes, weight).astype(np.float64)
    except (OocTrainError, ValueError, TypeError) as error:
        return error.with_traceback(None)


def block_totals(blocks: Iterable[tuple[Any, Any]], rows: Sequence[int], n_classes: int) -> Array:
    """Return the weight of the rows of each class, (classes,); of all rows, (1,), without classes.

    Parameters
    ----------
    blocks : iterable of tuple
        The delayed codes and weights of each block; weights may be None.
    rows : sequence of int
        Rows of each block.
    """

    def totals(y: Any, weight: Any, count: int) -> Array:
        codes = np.asarray(y).ravel().astype(np.intp) if n_classes else np.zeros(count, np.intp)
        return np.bincount(codes, weight, minlength=max(n_classes, 1)).astype(np.float64)

    tasks = [
        delayed(totals)(y if n_classes else None, weight, count)
        for (y, weight), count in zip(blocks, rows, strict=True)
    ]
    found: Array = np.sum(_computed(tasks), axis=0)
    return found


def _objects_of(labels: NDArray[Any]) -> NDArray[Any]:
    """Return labels as objects, which keep their kind when blocks are concatenated."""
    return np.asarray(labels.tolist(), object)


def coded(y: Any, labels: NDArray[Any]) -> Any:
    """Return the class codes of a Dask array of labels, as a Dask array."""
    return y.map_blocks(lambda block: codes_of_labels(labels, as_labels(block)), dtype=np.intp)


def _computed(tasks: Iterable[Delayed]) -> tuple[Any, ...]:
    """Return the results of tasks, on the active client or else in threads."""
    try:
        client = Client.current()
    except ValueError:
        return tuple(dask.compute(*tasks))
    require_scheduler(client)
    try:
        return tuple(dask.compute(*tasks))
    except CancelledError as error:
        raise scheduler_gone(client) from error
