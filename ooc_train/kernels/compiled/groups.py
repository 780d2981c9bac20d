"""Predictors and gradients of a group of rows, for one output at a time."""

from typing import Any

import numpy as np

from ooc_train.core.sums import Array
from ooc_train.kernels.compiled.parts import strict_part
from ooc_train.kernels.compiled.vectors import load, load_row, store, total, zeros
from ooc_train.kernels.layout import LANES, MEAN, PARTIAL, Integers, Rows, W


@strict_part
def shift_of(room: Array, at: int) -> Any:
    """Product of the means with the parameters in the data's units."""
    shift = zeros()
    for j in range(0, room.shape[1], LANES):
        shift += load(room, at + W, j) * load(room, MEAN, j)
    return total(shift)


@strict_part
def predict_four(
    X: Rows, places: Integers, first: int, room: Array, at: int, constant: float, k: int, z: Array
) -> None:
    """Write the predictors of four rows by output `k`; the rows share each load of a parameter."""
    a, b, c, d = places[first], places[first + 1], places[first + 2], places[first + 3]
    z0 = z1 = z2 = z3 = zeros()
    for j in range(0, room.shape[1], LANES):
        w = load(room, at + W, j)
        z0 += w * load_row(X, a, j)
        z1 += w * load_row(X, b, j)
        z2 += w * load_row(X, c, j)
        z3 += w * load_row(X, d, j)
    z[k, first], z[k, first + 1] = total(z0) + constant, total(z1) + constant
    z[k, first + 2], z[k, first + 3] = total(z2) + constant, total(z3) + constant


@strict_part
def add_four(X: Rows, places: Integers, first: int, r: Array, k: int, room: Array, at: int) -> None:
    """Add the gradients of four rows by output `k`, one after another."""
    a, b, c, d = places[first], places[first + 1], places[first + 2], places[first + 3]
    r0, r1, r2, r3 = r[k, first], r[k, first + 1], r[k, first + 2], r[k, first + 3]
    for j in range(0, room.shape[1], LANES):
        s = load(room, at + PARTIAL, j) + r0 * load_row(X, a, j)
        s += r1 * load_row(X, b, j)
        s += r2 * load_row(X, c, j)
        s += r3 * load_row(X, d, j)
        store(room, at + PARTIAL, j, s)


@strict_part
def predict_one(
    X: Rows, places: Integers, i: int, room: Array, at: int, constant: float, k: int, z: Array
) -> None:
    """Write the predictor of row `i` by output `k`, with the bits of `predict_four`."""
    row, z0 = places[i], zeros()
    for j in range(0, room.shape[1], LANES):
        z0 += load(room, at + W, j) * load_row(X, row, j)
    z[k, i] = total(z0) + constant


@strict_part
def add_one(X: Rows, places: Integers, i: int, r: Array, k: int, room: Array, at: int) -> None:
    """Add the gradient of row `i` by output `k`, with the bits of `add_four`."""
    row, r0 = places[i], r[k, i]
    for j in range(0, room.shape[1], LANES):
        store(room, at + PARTIAL, j, load(room, at + PARTIAL, j) + r0 * load_row(X, row, j))


@strict_part
def finite_rows(z: Array, r: Array, count: int) -> Any:
    """Count the rows of a group before the first that is not finite."""
    for i in range(count):
        check = 0.0
        for k in range(len(z)):
            check += z[k, i] + r[k, i]
        if not np.isfinite(check):
            return i
    return count
