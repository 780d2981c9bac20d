"""What kernels in plain NumPy share: their classes, losses of rows, and the layers of networks."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from ooc_train.core.sums import Array
from ooc_train.kernels.layout import Integers
from ooc_train.kernels.specs import KernelSpec, hyperparameters
from ooc_train.objective.loss import own_class_factors

PIECE_ROWS = 512
"""Rows of a product in NumPy."""


def loss_of(spec: KernelSpec, numbers: tuple[float, ...]) -> Any:
    """Return the loss; its hyperparameters are the first of a kernel's numbers."""
    if spec.loss is None:
        raise TypeError(f"{spec.kernel} depends on a loss")
    return spec.loss(*numbers[: len(hyperparameters(spec.loss))])


def optimizer_of(spec: KernelSpec, numbers: tuple[float, ...]) -> Any:
    """Return the optimizer, whose hyperparameters follow those of the loss; None without one."""
    if spec.optimizer is None:
        return None
    of_optimizer = numbers[len(hyperparameters(spec.loss)) :]
    return spec.optimizer(**dict(zip(hyperparameters(spec.optimizer), of_optimizer, strict=True)))


def value_and_slope(loss: Any, y: Array, z: Array, own: Array) -> tuple[Array, Array]:
    """Return a loss and its derivative by z, NaN for rows of an unknown class."""
    due = loss.targets(y, z.shape[1])
    with np.errstate(all="ignore"):
        value, slope = loss.value(due, z), loss.slope(due, z)
    if loss.kind == "pointwise" and y.shape[1] < len(own):
        factors = own_class_factors(y, own)
        return value * factors, slope * factors
    if loss.target == "codes":
        unknown = ~((y[:, 0] >= 0) & (y[:, 0] < z.shape[1]))
        value = np.where(unknown, np.nan, value)
        slope = np.where(unknown[:, None], np.nan, slope)
    return value, slope


def layers_of(
    params: Any, sizes: Integers, rows: int, *flat: Any
) -> Iterator[tuple[Any, Any, list[Any]]]:
    """Yield each layer's weights and biases, and its part of flat arrays of hidden units.

    The part of an array without numbers, and of the last layer, is None.
    """
    at = first = 0
    for i, (before, units) in enumerate(pairwise(map(int, sizes))):
        weights = params[at : at + before * units].reshape(before, units)
        at += before * units
        own = slice(first, first + rows * units)
        is_hidden = i < len(sizes) - 2
        parts = [
            each[own].reshape(rows, units) if is_hidden and len(each) else None for each in flat
        ]
        yield weights, params[at : at + units], parts
        at, first = at + units, own.stop


def activation_of(spec: KernelSpec) -> Any:
    """Return the activation of a kernel."""
    if spec.activation is None:
        raise TypeError(f"{spec.kernel} depends on an activation")
    return spec.activation()
