"""Sums of the gradients of rows, each scaled down to a norm, by compiled loops.

What holds for the functions of `kernels.api` holds here: types, layout and indices.
"""

from functools import cache
from typing import Any

import numpy as np

from ooc_train.core.sums import Array
from ooc_train.kernels.blas import gemm
from ooc_train.kernels.calling import kernel_of
from ooc_train.kernels.layout import Integers, Rows
from ooc_train.kernels.specs import KernelSpec
from ooc_train.objective.activations import Activation
from ooc_train.objective.loss import Loss

_NO_WEIGHTS = np.empty(0)


@cache
def _add_clipped_spec(loss: Any) -> KernelSpec:
    return KernelSpec("add_clipped", loss)


@cache
def _network_clipped_spec(activation: Any) -> KernelSpec:
    return KernelSpec("network_clipped", activation=activation)


def add_clipped_needs(loss: Loss) -> tuple[KernelSpec, ...]:
    """Return the kernels that `add_clipped` calls for a loss."""
    kind: Any = type(loss)
    return (_add_clipped_spec(kind),)


def network_clipped_needs(activation: Activation) -> tuple[KernelSpec, ...]:
    """Return the kernels that `network_clipped` calls for an activation."""
    kind: Any = type(activation)
    return (_network_clipped_spec(kind),)


def add_clipped(
    X: Rows,
    y: Array,
    taken: Integers,
    W: Array,
    b: Array,
    loss: Loss,
    Y: Array,
    Z: Array,
    R: Array,
    squares: Array,
    cells: Array,
    G: Array,
    *,
    most: float,
    constant: float,
) -> None:
    """Add the gradients of rows of a linear model, each scaled down to a norm, to `G`.

    Rows are processed in tiles of as many rows as `Z` has. A row that is not finite, or whose class
    is unknown, makes `G` NaN.

    Parameters
    ----------
    X : (rows, features) array
    y : (rows, outputs) or (rows, 1) array
        Targets, or codes of the classes, see `Loss.targets`.
    taken : (n,) array of int64
        The rows that are added, in order.
    W, b : (outputs, features) and (outputs,) array
        Parameters.
    Y : (tile, outputs) or (tile, 1) array
        Scratch for `y`, with as many columns.
    Z, R : (tile, outputs) array
        Scratch.
    squares : (tile,) array
        Scratch.
    cells : (2, outputs) array
        Scratch.
    G : (outputs, features + 1) array
        Gradient by the weights, and by the intercepts in the last column. It is added to in place,
        in float64 from the first row.
    most : float
        The largest norm of the gradient of a row, by weights and intercepts.
    constant : float
        Added to the squared norm of a row: 1 if the intercepts count in the norm, 0 if they do not.
        Their column of `G` is added to in any case.
    """
    (spec,) = add_clipped_needs(loss)
    outputs, numbers = Z.shape[1], loss.hyperparameters.values()
    arrays = X, y, taken, W, b, Y, Z, R, squares, cells, G, np.zeros(1), np.ones(outputs)
    kernel_of(spec, X.dtype)(*arrays, _NO_WEIGHTS, most, constant, *numbers)


def network_clipped(
    activation: Activation,
    X: Rows,
    params: Rows,
    sizes: Integers,
    inputs: Rows,
    values: Rows,
    R: Array,
    slopes: Rows,
    squares: Array,
    gradient: Rows,
    *,
    most: float,
    frozen: int,
) -> None:
    """Write the sum of the gradients of rows, each scaled down to a norm, after a forward pass.

    A gradient that is not finite makes the sum NaN. Norms are added up in float64.

    Parameters
    ----------
    X, params, sizes, inputs, values
        As of `kernels.api.network_forward`, without masks.
    R : (rows, outputs) array
        Derivatives of the losses by the predictors.
    slopes : (numbers,) array
        Scratch: room for all hidden units and outputs of the rows.
    squares : (rows,) array
        Scratch.
    gradient : (parameters,) array
        The result.
    most : float
        The largest norm of the gradient of a row.
    frozen : int
        Layers of weights, from the first, that are not learned: their gradient is 0.
    """
    (spec,) = network_clipped_needs(activation)
    arrays = X, params, sizes, inputs, values, R, slopes, squares, gradient
    kernel_of(spec, X.dtype)(*arrays, most, frozen, gemm(X.dtype) or 0)
