"""The kernels of networks in plain NumPy; see `kernels.api`."""

from itertools import pairwise
from typing import Any

import numpy as np

from ooc_train.core.sums import Array
from ooc_train.kernels.layout import Integers
from ooc_train.kernels.plain_parts import (
    activation_of,
    layers_of,
    loss_of,
    optimizer_of,
    value_and_slope,
)
from ooc_train.kernels.specs import KernelSpec


def loss_slopes(
    spec: KernelSpec,
    y: Array,
    weight: Array,
    own: Array,
    Z: Array,
    R: Array,
    sums: Array,
    cells: Array,
    *numbers: float,
) -> None:
    """Run `loss_slopes` in NumPy."""
    del cells
    value, slope = value_and_slope(loss_of(spec, numbers), y, Z, own)
    weights = weight if len(weight) else np.ones(len(Z))
    sums[0] += weights @ value.reshape(len(Z), -1).sum(axis=1)
    R[...] = weights[:, None] * slope


def network_forward(
    spec: KernelSpec,
    X: Any,
    params: Any,
    sizes: Integers,
    masks: Any,
    inputs: Any,
    values: Any,
    left: Any,
    P: Any,
    Z: Array,
    marks: Array,
    gemm: int = 0,
) -> None:
    """Run `network_forward` in NumPy."""
    del gemm
    activation, below = activation_of(spec), X
    marks[: len(X)] = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        layers = layers_of(params, sizes, len(X), masks, inputs, values, left)
        for i, (weights, biases, (mask, z, value, kept)) in enumerate(layers):
            if value is None:
                Z[...] = np.matmul(below, weights, out=P) + biases
                break
            z = np.matmul(below, weights, out=value if z is None else z)
            z += biases
            if i == 0:
                # An activation may make a finite value of an infinite one.
                marks[: len(X)] = (z - z).sum(axis=1)
            value[...] = activation.value(z)
            below = value if mask is None else np.multiply(value, mask, out=kept)
    Z += marks[: len(X), None]


def network_backward(
    spec: KernelSpec,
    X: Any,
    params: Any,
    sizes: Integers,
    masks: Any,
    inputs: Any,
    values: Any,
    left: Any,
    R: Array,
    slopes: Any,
    gradient: Any,
    gemm: int = 0,
) -> None:
    """Run `network_backward` in NumPy."""
    del gemm, slopes
    activation, above = activation_of(spec), R.astype(X.dtype)
    layers = list(layers_of(params, sizes, len(X), masks, inputs, values, left))
    of_gradient = list(layers_of(gradient, sizes, len(X)))
    for i in range(len(layers) - 1, -1, -1):
        by_weights, by_biases, _ = of_gradient[i]
        mask, z, value, kept = layers[i - 1][2] if i else (None, None, None, None)
        below: Any = X if not i else value if mask is None else kept
        np.matmul(below.T, above, out=by_weights)
        np.sum(above, axis=0, out=by_biases)
        if i:
            above = above @ layers[i][0].T
            above *= activation.slope(value if z is None else z, value)
            if mask is not None:
                above *= mask


def network_batch(
    spec: KernelSpec,
    rows: Any,
    targets: Array,
    weights: Array,
    order: Integers,
    X: Any,
    y: Array,
    weight: Array,
    mean: Any,
    inverse: Any,
    divisor: float,
    params: Any,
    sizes: Integers,
    masks: Any,
    inputs: Any,
    values: Any,
    left: Any,
    P: Any,
    Z: Array,
    marks: Array,
    own: Array,
    R: Array,
    sums: Array,
    cells: Array,
    slopes: Any,
    gradient: Any,
    gemm: int,
    *numbers: float,
) -> None:
    """Run `network_batch` in NumPy."""
    taken = rows[order]
    X[...] = (taken - mean) * inverse if len(mean) else taken / X.dtype.type(divisor)
    y[...] = targets[order]
    weight[...] = weights[order] if len(weights) else 1.0
    layers = X, params, sizes, masks, inputs, values, left
    network_forward(spec, *layers, P, Z, marks)
    sums[...] = 0.0
    loss_slopes(spec, y, weight, own, Z, R, sums, cells, *numbers)
    network_backward(spec, *layers, R, slopes, gradient, gemm)


def network_step(
    spec: KernelSpec,
    theta: Any,
    g: Any,
    others: Any,
    slots: Any,
    average: Array,
    ends: Integers,
    scale: float,
    decay: float,
    eta: float,
    age: float,
    part: float,
    share: float,
    *numbers: float,
) -> None:
    """Run `network_step` in NumPy."""
    optimizer, whole = optimizer_of(spec, numbers), slice(ends[0], ends[-1])
    for each in others:
        g[whole] += each[whole]
    scalars = optimizer.prepare(age, part)
    for s, (start, end) in enumerate(pairwise(ends)):
        rows, penalised = slice(start, end), s % 2 == 0
        slope = scale * g[rows] + (decay * theta[rows] if penalised else 0.0)
        kept = (optimizer.retained(eta) if penalised else 1.0) * theta[rows]
        stepped = optimizer.step(kept, slope, eta, scalars, *slots[:, 0, rows])
        theta[rows] = stepped[0]
        for slot, after in zip(slots[:, 0, rows], stepped[1:], strict=True):
            slot[...] = after
    if share > 0.0:
        average[whole] += share * (theta[whole] - average[whole])
