"""Sums of clipped gradients of rows in plain NumPy: the reference of the compiled kernels."""

from typing import Any

import numpy as np

from ooc_train.core.sums import Array
from ooc_train.kernels.layout import Integers, Rows
from ooc_train.kernels.plain_parts import (
    PIECE_ROWS,
    activation_of,
    layers_of,
    loss_of,
    value_and_slope,
)
from ooc_train.kernels.specs import KernelSpec
from ooc_train.optimizers.optimizer import row_clip_factors


def add_clipped(
    spec: KernelSpec,
    X: Rows,
    y: Array,
    taken: Integers,
    coef: Array,
    b: Array,
    Y: Array,
    Z: Array,
    R: Array,
    squares: Array,
    cells: Array,
    G: Array,
    sums: Array,
    own: Array,
    weight: Array,
    most: float,
    constant: float,
    *numbers: float,
) -> None:
    """Run `add_clipped` in NumPy; see `kernels.clipping`."""
    del Y, Z, R, squares, cells, weight
    loss = loss_of(spec, numbers)
    for first in range(0, len(taken), PIECE_ROWS):
        rows = taken[first : first + PIECE_ROWS]
        part = X[rows].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            values, slopes = value_and_slope(loss, y[rows], part @ coef.T + b, own)
            sums[0] += values.sum()
            of_rows = np.einsum("ij,ij->i", part, part) + constant
            norms = np.sqrt(of_rows * np.einsum("ij,ij->i", slopes, slopes))
            slopes = slopes * row_clip_factors(most, norms)[:, np.newaxis]
            G[:, :-1] += slopes.T @ part
            G[:, -1] += slopes.sum(axis=0)


def network_clipped(
    spec: KernelSpec,
    X: Any,
    params: Any,
    sizes: Integers,
    inputs: Any,
    values: Any,
    R: Array,
    slopes: Any,
    squares: Array,
    gradient: Any,
    most: float,
    frozen: int,
    gemm: int = 0,
) -> None:
    """Run `network_clipped` in NumPy; see `kernels.clipping`."""
    del gemm, slopes
    activation, above = activation_of(spec), R.astype(X.dtype)
    layers = list(layers_of(params, sizes, len(X), inputs, values))
    found, squares[...] = [above], 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for i in range(len(layers) - 1, frozen - 1, -1):
            z, value = layers[i - 1][2] if i else (None, X)
            of_inputs = (value.astype(np.float64) ** 2).sum(axis=1)
            squares += (above.astype(np.float64) ** 2).sum(axis=1) * (1.0 + of_inputs)
            if i > frozen:
                above = above @ layers[i][0].T
                above *= activation.slope(value if z is None else z, value)
                found.insert(0, above)
        squares[...] = row_clip_factors(most, np.sqrt(squares))
        gradient[...] = 0.0
        of_gradient = list(layers_of(gradient, sizes, len(X)))
        for i, above in enumerate(found, frozen):
            scaled = (above * squares[:, np.newaxis]).astype(X.dtype)
            by_weights, by_biases, _ = of_gradient[i]
            below: Any = layers[i - 1][2][1] if i else X
            np.matmul(below.T, scaled, out=by_weights)
            np.sum(scaled, axis=0, out=by_biases)
