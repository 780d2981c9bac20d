"""Loops over rows of a full batch, where NumPy would make a temporary or a call for each.

`add_rows` is a full-batch pass over one chunk, made of `predictor`, `slope` and `accumulate`: X
times parameters, the loss, and its derivative times X.
"""

from typing import Any

from ooc_train.core.sums import Array
from ooc_train.kernels.compiled.parts import (
    LOGISTIC,
    MULTINOMIAL,
    SQUARED,
    Rows,
    hinge_slope,
    hinge_value,
    logistic_slope,
    logistic_value,
    part,
    softmax_slope,
    squared_slope,
    squared_value,
)
from ooc_train.kernels.compiled.vectors import LANES, load_row, store_row, total, zeros

__all__ = ["accumulate", "add_rows", "predictor", "slope"]


@part
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
        for k in range(len(W)):
            z0 = z1 = z2 = z3 = zeros()
            for j in range(0, features, LANES):
                w = load_row(W, k, j)
                z0 += w * load_row(X, i, j)
                z1 += w * load_row(X, i + 1, j)
                z2 += w * load_row(X, i + 2, j)
                z3 += w * load_row(X, i + 3, j)
            Z[i, k] = total(z0) + b[k]
            Z[i + 1, k] = total(z1) + b[k]
            Z[i + 2, k] = total(z2) + b[k]
            Z[i + 3, k] = total(z3) + b[k]
    for i in range(whole, rows):
        for k in range(len(W)):
            z0 = zeros()
            for j in range(0, features, LANES):
                z0 += load_row(W, k, j) * load_row(X, i, j)
            Z[i, k] = total(z0) + b[k]


@part
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
        for k in range(len(G)):
            r0, r1, r2, r3 = R[i, k], R[i + 1, k], R[i + 2, k], R[i + 3, k]
            r4, r5, r6, r7 = R[i + 4, k], R[i + 5, k], R[i + 6, k], R[i + 7, k]
            for j in range(0, features, LANES):
                g = load_row(G, k, j) + r0 * load_row(X, i, j)
                g += r1 * load_row(X, i + 1, j)
                g += r2 * load_row(X, i + 2, j)
                g += r3 * load_row(X, i + 3, j)
                g += r4 * load_row(X, i + 4, j)
                g += r5 * load_row(X, i + 5, j)
                g += r6 * load_row(X, i + 6, j)
                g += r7 * load_row(X, i + 7, j)
                store_row(G, k, j, features, g)
            G[k, features] += ((r0 + r1) + (r2 + r3)) + ((r4 + r5) + (r6 + r7))
    for i in range(whole, rows):
        for k in range(len(G)):
            r = R[i, k]
            for j in range(0, features, LANES):
                store_row(G, k, j, features, load_row(G, k, j) + r * load_row(X, i, j))
            G[k, features] += r


@part
def _vector_slope(
    loss: int, y: Array, k: int, Z: Array, weight: Array, R: Array, column: int, by_z: bool
) -> Any:
    """Sum of a pointwise loss over a column of predictors; its derivative goes to that of `R`."""
    weighted = len(weight) > 0
    added = 0.0
    for i in range(len(Z)):
        w = weight[i] if weighted else 1.0
        if loss == SQUARED:
            added += w * squared_value(y[i, k], Z[i, column])
            if by_z:
                R[i, column] = w * squared_slope(y[i, k], Z[i, column])
        elif loss == LOGISTIC:
            added += w * logistic_value(y[i, k], Z[i, column])
            if by_z:
                R[i, column] = w * logistic_slope(y[i, k], Z[i, column])
        else:
            added += w * hinge_value(y[i, k], Z[i, column])
            if by_z:
                R[i, column] = w * hinge_slope(y[i, k], Z[i, column])
    return added


@part
def slope(
    loss: int, y: Array, Z: Array, weight: Array, R: Array, sums: Array, cells: Array
) -> None:
    """Add each model's loss to `sums`, and write its derivative by the predictors to `R`.

    Parameters
    ----------
    loss : int
        ``Loss.code``.
    y : (rows, outputs) array
        For the multinomial loss (rows, 1): codes of the classes. One that doesn't exist makes the
        sum a NaN.
    Z : (rows, models * outputs) array
        Predictors.
    weight : (rows,) array
        Multiplies a row's loss. Of length 0: every row weighs 1.
    R : (rows, gradients * outputs) array
        The derivative of the first models, in place of whatever it held.
    sums : (models,) array
        Losses, added to in place.
    cells : (2, outputs) array
        To work in.
    """
    rows, models, outputs = len(Z), len(sums), cells.shape[1]
    slopes = R.shape[1]
    if loss == MULTINOMIAL:
        weighted = len(weight) > 0
        z, r = cells[0], cells[1]
        for i in range(rows):
            w = weight[i] if weighted else 1.0
            for m in range(models):
                first = m * outputs
                for k in range(outputs):
                    z[k] = Z[i, first + k]
                sums[m] += w * softmax_slope(y, i, z, r)
                if first < slopes:
                    for k in range(outputs):
                        R[i, first + k] = w * r[k]
    else:
        for m in range(models):
            for k in range(outputs):
                column = m * outputs + k
                sums[m] += _vector_slope(loss, y, k, Z, weight, R, column, column < slopes)


@part
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
    cells: Array,
) -> Any:
    """As `kernels.add_rows`."""
    rows, start = len(X), 0
    while start < rows:  # a range of a step that may be zero could raise
        n = min(len(Z), rows - start)
        part = X[start : start + n]
        part_weight = weight[start : start + n] if len(weight) else weight
        predictor(part, W, b, Z[:n])
        slope(loss, y[start : start + n], Z[:n], part_weight, R[:n], sums, cells)
        if len(G):
            accumulate(part, R[:n], G)
        start += n
    losses = 0.0
    for m in range(len(sums)):
        losses += sums[m]
    return losses
