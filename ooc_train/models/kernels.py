"""Compiled loops over rows of a full batch, where NumPy would make a temporary or a call for each.

`add_rows` is a full-batch pass over one chunk, made of `predictor`, `slope` and `accumulate`: X
times parameters, the loss, and its derivative times X. `scanning.py` has the updates by batches.

X is (rows, features) float32 or float64; everything else is float64. All arrays are C-contiguous.
No result's bits depend on where an array lies in memory.

Importing this module imports numba (74 MB of memory), and the first kernel to be loaded, even from
the cache, makes numba register all it knows (60 MB and 0.3 s; a second type of X is 2 MB more). So
whoever needs it imports it where it is used, and calls `load` before memory is measured.
"""

from typing import Any

import numpy as np
from numba import types

from ooc_train.models.compiled import (
    LOGISTIC,
    MULTINOMIAL,
    SQUARED,
    Rows,
    hinge_slope,
    hinge_value,
    kernel,
    logistic_slope,
    logistic_value,
    part,
    softmax_slope,
    squared_slope,
    squared_value,
)
from ooc_train.models.losses import Array
from ooc_train.models.outer import add_outer_products
from ooc_train.models.scanning import scan, shuffle

__all__ = ["accumulate", "add_rows", "load", "predictor", "slope"]


@kernel
def predictor(X: Rows, W: Array, b: Array, Z: Array) -> None:
    """Write ``Z[i, k] = sum_j X[i, j] W[k, j] + b[k]``, added up in float64.

    Parameters
    ----------
    X : (rows, features) array, float32 or float64
    W : (outputs, features) array
    b : (outputs,) array
    Z : (rows, outputs) array
        The result.
    """
    rows, features = X.shape
    whole = rows - rows % 4
    for i in range(0, whole, 4):  # four rows share a load of W and hide each other's latency
        x0, x1, x2, x3 = X[i], X[i + 1], X[i + 2], X[i + 3]
        for k in range(len(W)):
            w = W[k]
            s0 = s1 = s2 = s3 = 0.0
            for j in range(features):
                s0 += w[j] * x0[j]
                s1 += w[j] * x1[j]
                s2 += w[j] * x2[j]
                s3 += w[j] * x3[j]
            Z[i, k] = s0 + b[k]
            Z[i + 1, k] = s1 + b[k]
            Z[i + 2, k] = s2 + b[k]
            Z[i + 3, k] = s3 + b[k]
    for i in range(whole, rows):
        x = X[i]
        for k in range(len(W)):
            w = W[k]
            s = 0.0
            for j in range(features):
                s += w[j] * x[j]
            Z[i, k] = s + b[k]


@kernel
def accumulate(X: Rows, R: Array, G: Array) -> None:
    """Add ``R.T @ (X, 1)`` to `G`, in float64 from the first row.

    Parameters
    ----------
    X : (rows, features) array, float32 or float64
    R : (rows, outputs) array
        Derivative of the loss by the predictor.
    G : (outputs, features + 1) array
        Gradient by the weights and, last, the intercepts; added to in place.
    """
    rows, features = X.shape
    whole = rows - rows % 8
    for i in range(0, whole, 8):  # eight rows share a load and a store of G
        x0, x1, x2, x3 = X[i], X[i + 1], X[i + 2], X[i + 3]
        x4, x5, x6, x7 = X[i + 4], X[i + 5], X[i + 6], X[i + 7]
        for k in range(len(G)):
            r0, r1, r2, r3 = R[i, k], R[i + 1, k], R[i + 2, k], R[i + 3, k]
            r4, r5, r6, r7 = R[i + 4, k], R[i + 5, k], R[i + 6, k], R[i + 7, k]
            g = G[k]
            for j in range(features):
                g[j] += (
                    (r0 * x0[j] + r1 * x1[j])
                    + (r2 * x2[j] + r3 * x3[j])
                    + (r4 * x4[j] + r5 * x5[j])
                    + (r6 * x6[j] + r7 * x7[j])
                )
            g[features] += (r0 + r1) + (r2 + r3) + (r4 + r5) + (r6 + r7)
    for i in range(whole, rows):
        x = X[i]
        for k in range(len(G)):
            r = R[i, k]
            g = G[k]
            for j in range(features):
                g[j] += r * x[j]
            g[features] += r


@part
def _vector_slope(
    loss: int, y: Array, Z: Array, weight: Array, R: Array, m: int, k: int, by_z: bool
) -> Any:
    """Sum of a pointwise loss over one column of predictors; its derivative goes to `R`."""
    weighted = len(weight) > 0
    total = 0.0
    for i in range(len(Z)):
        w = weight[i] if weighted else 1.0
        if loss == SQUARED:
            total += w * squared_value(y[i, k], Z[i, m, k])
            if by_z:
                R[i, m, k] = w * squared_slope(y[i, k], Z[i, m, k])
        elif loss == LOGISTIC:
            total += w * logistic_value(y[i, k], Z[i, m, k])
            if by_z:
                R[i, m, k] = w * logistic_slope(y[i, k], Z[i, m, k])
        else:
            total += w * hinge_value(y[i, k], Z[i, m, k])
            if by_z:
                R[i, m, k] = w * hinge_slope(y[i, k], Z[i, m, k])
    return total


@kernel
def slope(loss: int, y: Array, Z: Array, weight: Array, R: Array, sums: Array) -> None:
    """Add each model's loss to `sums`, and write its derivative by the predictors to `R`.

    Parameters
    ----------
    loss : int
        ``Loss.code``.
    y : (rows, outputs) array
        For the multinomial loss (rows, 1): codes of the classes. One that doesn't exist makes the
        sum a NaN.
    Z : (rows, models, outputs) array
        Predictors.
    weight : (rows,) array
        Multiplies a row's loss. Of length 0: every row weighs 1.
    R : (rows, gradients, outputs) array
        The derivative of the first models, in place of whatever it held.
    sums : (models,) array
        Losses, added to in place.
    """
    rows, models, outputs = Z.shape
    gradients = R.shape[1]
    if loss == MULTINOMIAL:
        weighted = len(weight) > 0
        z = np.empty(outputs)
        r = np.empty(outputs)
        for i in range(rows):
            w = weight[i] if weighted else 1.0
            for m in range(models):
                for k in range(outputs):
                    z[k] = Z[i, m, k]
                sums[m] += w * softmax_slope(y, i, z, r)
                if m < gradients:
                    for k in range(outputs):
                        R[i, m, k] = w * r[k]
    else:
        for m in range(models):
            for k in range(outputs):
                sums[m] += _vector_slope(loss, y, Z, weight, R, m, k, m < gradients)


@kernel
def add_rows(
    X: Rows,
    y: Array,
    weight: Array,
    W: Array,
    b: Array,
    loss: int,
    Z: Array,
    R: Array,
    G: Array,
    sums: Array,
) -> float:
    """Add up losses, and gradients of the first models: `predictor`, `slope` and `accumulate`.

    So many rows at a time as `Z` has, which are still in the nearest cache when the gradient is
    made of them.

    Parameters
    ----------
    X, y, weight, loss, sums
        As of `predictor` and `slope`.
    W : (models * outputs, features) array
    b : (models * outputs,) array
    Z : (tile, models, outputs) array
        To work in.
    R : (tile, gradients, outputs) array
        To work in.
    G : (gradients * outputs, features + 1) array
        As of `accumulate`.

    Returns
    -------
    float
        The losses of all models added up: no number, where one isn't.
    """
    tile, rows = len(Z), len(X)
    flat, flat_slopes = Z.reshape(tile, len(W)), R.reshape(tile, len(G))
    for start in range(0, rows, tile):
        n = min(tile, rows - start)
        part = X[start : start + n]
        part_weight = weight[start : start + n] if len(weight) else weight
        predictor(part, W, b, flat[:n])
        slope(loss, y[start : start + n], Z[:n], part_weight, R[:n], sums)
        if len(G):
            accumulate(part, flat_slopes[:n], G)
    total: float = sums.sum()
    return total


def load(dtype: np.typing.DTypeLike) -> None:
    """Compile the kernels for X of `dtype`, or load them from numba's cache.

    From here on no call compiles: what doesn't fit (another dtype, a Fortran order) is a TypeError,
    where numba would spend seconds and memory in mid-job on one more version. Read-only arrays,
    which is what Dask hands to a task, fit wherever a kernel only reads.
    """

    def read(dimensions: int, of: Any = types.float64) -> Any:
        return types.Array(of, dimensions, "C", readonly=True)

    def write(dimensions: int, of: Any = types.float64) -> Any:
        return types.Array(of, dimensions, "C")

    X = read(2, types.float32 if np.dtype(dtype) == np.float32 else types.float64)
    integer, real, flag = types.int64, types.float64, types.boolean
    signatures: list[tuple[Any, tuple[Any, ...]]] = [
        (
            add_rows,
            (
                *(X, read(2), read(1), read(2), read(1), integer),
                *(write(3), write(3), write(2), write(1)),
            ),
        ),
        (predictor, (X, read(2), read(1), write(2))),
        (
            add_outer_products,
            (
                *(X, read(1), read(1), read(1), write(2), write(2), write(2), write(2)),
                *(integer, integer),
            ),
        ),
        (
            scan,
            (
                *(X, read(2), read(1), read(1, integer), read(1), read(1), write(2), write(2)),
                *(write(2), write(3), write(2), write(1, integer), write(1), read(1)),
                *(integer, integer, integer, integer, real, real, flag, flag),
            ),
        ),
        (shuffle, (types.uint64, write(1, integer))),
    ]
    for compiled, _ in signatures:  # all before any, since they call each other
        compiled.disable_compile(False)
    for compiled, signature in signatures:
        compiled.compile(signature)
    for compiled, _ in signatures:
        compiled.disable_compile()
