"""Compiled loops over rows, as functions of arrays.

`add_rows` makes a full-batch pass over one chunk. `add_outer_products` adds up a Hessian. `shuffle`
fills the order in which updates take rows (`kernels.scan`). The sources of the loops are in
`compiled`; `machine_code` loads them.

X is (rows, features) float32 or float64; other numbers are float64 or int64. All arrays are
C-contiguous, and arrays that are only read may be read-only; any other array is a TypeError.
Indices and shapes are not checked against each other. No result's bits depend on where an array
lies in memory. The interpreter's lock is released.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ooc_train.core.sums import Array
from ooc_train.kernels.blas import gemm
from ooc_train.kernels.calling import any_kernel_of, kernel_of
from ooc_train.kernels.layout import Integers, Rows
from ooc_train.kernels.plain_networks import network_forward as plain_network_forward
from ooc_train.kernels.specs import KernelSpec
from ooc_train.objective.activations import Activation
from ooc_train.objective.loss import Loss
from ooc_train.optimizers.optimizer import Optimizer

PREDICTOR = KernelSpec("predictor")
OUTER_PRODUCTS = KernelSpec("add_outer_products")
SHUFFLE = KernelSpec("shuffle")


@cache
def _add_rows_spec(loss: Any) -> KernelSpec:
    return KernelSpec("add_rows", loss)


def add_rows_needs(loss: Loss) -> tuple[KernelSpec, ...]:
    """Return the kernels that `add_rows` calls for a loss."""
    kind: Any = type(loss)
    return (_add_rows_spec(kind),)


def predictor(X: Rows, W: Array, b: Array, Z: Array) -> None:
    """Write ``Z[i, k] = sum_j X[i, j] W[k, j] + b[k]``, added up in float64."""
    kernel_of(PREDICTOR, X.dtype)(X, W, b, Z)


def add_rows(
    X: Rows,
    y: Array,
    weight: Array,
    W: Array,
    b: Array,
    loss: Loss,
    Z: Array,
    R: Array,
    G: Array,
    sums: Array,
    cells: Array,
    own: Array,
) -> float:
    """Add up losses of one or more models, and gradients of as many of the first as `G` has.

    Rows of `X` are processed in tiles of as many rows as `Z` has, so that a tile is still in the
    nearest cache when its gradient is computed.

    Parameters
    ----------
    X : (rows, features) array
    y : (rows, outputs) or (rows, 1) array
        Targets, or codes of the classes, see `Loss.targets`. An unknown code makes the sum NaN.
    weight : (rows,) array
        Factors of the rows' losses. Of length 0: every row weighs 1.
    W : (models * outputs, features) array
    b : (models * outputs,) array
    Z : (tile, models * outputs) array
        Scratch for the predictors of a tile.
    R : (tile, gradients * outputs) array
        Scratch for the derivatives of its losses by the predictors.
    G : (gradients * outputs, features + 1) array
        Gradient by the weights, and by the intercepts in the last column. It is added to in place,
        in float64 from the first row.
    sums : (models,) array
        Losses, added to in place.
    cells : (2, outputs) array
        Scratch.
    own : (outputs,) array
        One against the rest only, where `y` holds codes and each output has a loss of its own:
        factors of a row's weight in the output of its class.

    Returns
    -------
    float
        The losses of all models added up; NaN or infinite if one of them is.
    """
    (spec,) = add_rows_needs(loss)
    kernel = kernel_of(spec, X.dtype)
    numbers = loss.hyperparameters.values()
    total: float = kernel(X, y, weight, W, b, Z, R, G, sums, cells, own, *numbers)
    return total


def add_outer_products(
    X: Rows, y: Array, c: Array, mean: Array, inv_scale: Array, T: Array, W: Array, sums: Array
) -> None:
    """Add ``sum_i c[i] * outer(t_i, t_i)`` to `sums`; t_i is the scaled row i, a 1, and y of row i.

    Parameters
    ----------
    X : (rows, features) array
    y : (rows, n) array
        Further columns, which are not scaled.
    c : (rows,) array
        Factors. Rows with 0 are not read.
    mean, inv_scale : (features,) array
        The scaling: means in the data's units, and inverse scales.
    T, W : (strip rows, 16) array
        Scratch, see `layout.outer_workspace`.
    sums : (packed,) array
        The result, added to in place: a packed matrix of features + 1 + n columns.
    """
    kernel_of(OUTER_PRODUCTS, X.dtype)(X, y, c, mean, inv_scale, T, W, sums)


@cache
def _loss_slopes_spec(loss: Any) -> KernelSpec:
    return KernelSpec("loss_slopes", loss)


@cache
def _network_step_spec(optimizer: Any) -> KernelSpec:
    return KernelSpec("network_step", optimizer=optimizer)


def loss_slopes_needs(loss: Loss) -> tuple[KernelSpec, ...]:
    """Return the kernels that `loss_slopes` calls for a loss."""
    kind: Any = type(loss)
    return (_loss_slopes_spec(kind),)


def network_step_needs(optimizer: Optimizer) -> tuple[KernelSpec, ...]:
    """Return the kernels that `network_step` calls for an optimizer."""
    kind: Any = type(optimizer)
    return (_network_step_spec(kind),)


def loss_slopes(loss: Loss, y: Array, weight: Array, Z: Array, R: Array, cells: Array) -> float:
    """Return the weighted sum of losses of rows; write the derivatives by predictors to `R`.

    Parameters
    ----------
    y : (rows, outputs) or (rows, 1) array
        Targets, or codes of the classes, see `Loss.targets`. An unknown code makes the sum NaN.
    weight : (rows,) array
        Factors of the rows' losses. Of length 0: every row weighs 1.
    Z : (rows, outputs) array
        Predictors.
    R : (rows, outputs) array
        The derivatives of the losses by the predictors, times the weights.
    cells : (2, outputs) array
        Scratch.
    """
    (spec,) = loss_slopes_needs(loss)
    sums = np.zeros(1)
    own, numbers = np.ones(Z.shape[1]), loss.hyperparameters.values()
    any_kernel_of(spec)(y, weight, own, Z, R, sums, cells, *numbers)
    return float(sums[0])


@cache
def _network_pass_spec(kernel: str, activation: Any) -> KernelSpec:
    return KernelSpec(kernel, activation=activation)


def network_pass_needs(activation: Activation) -> tuple[KernelSpec, ...]:
    """Return the kernels that `network_forward` and `network_backward` call for an activation."""
    kernels = ("network_forward", "network_backward")
    kind: Any = type(activation)
    return tuple(_network_pass_spec(kernel, kind) for kernel in kernels)


def network_forward(
    activation: Activation,
    X: Rows,
    params: Rows,
    sizes: Integers,
    masks: Rows,
    inputs: Rows,
    values: Rows,
    left: Rows,
    P: Rows,
    Z: Array,
    marks: Array,
    *,
    compiled: bool = True,
) -> None:
    """Write the predictors of rows, and the values of the hidden units on the way there.

    Arrays of hidden units are flat: the units of all rows of a layer, (rows, units), follow those
    of the layer before. Each has room for all hidden layers, or no numbers where it is not needed.

    Parameters
    ----------
    X : (rows, features) array
        Rows as the first layer takes them. Where the inputs of its units are not finite, the
        predictors of the row are NaN.
    params : (parameters,) array
        Weights (units before, units) and biases of each layer.
    sizes : (layers + 1,) array of int64
        Features, units of each hidden layer, and outputs.
    masks : flat array
        Factors of the values of hidden units.
    inputs, values, left : flat arrays
        Inputs of hidden units, if the activation needs them for its slope; values; and values times
        `masks`. They are written.
    P, Z : (rows, outputs) array
        Scratch, and the predictors.
    marks : (rows,) array
        Scratch.
    compiled : bool
        Whether a compiled kernel runs. Otherwise NumPy does, which loads and compiles nothing.
    """
    spec, _ = network_pass_needs(activation)
    arrays = X, params, sizes, masks, inputs, values, left, P, Z, marks
    if compiled:
        kernel_of(spec, X.dtype)(*arrays, gemm(X.dtype) or 0)
    else:
        plain_network_forward(spec, *arrays)


def network_backward(
    activation: Activation,
    X: Rows,
    params: Rows,
    sizes: Integers,
    masks: Rows,
    inputs: Rows,
    values: Rows,
    left: Rows,
    R: Array,
    slopes: Rows,
    gradient: Rows,
) -> None:
    """Write the gradient of the sum of losses of rows by back-propagation, after a forward pass.

    Parameters
    ----------
    R : (rows, outputs) array
        Derivatives of the losses by the predictors.
    slopes : (2, numbers) array
        Scratch: room for the rows of the widest layer but the features, twice.
    gradient : (parameters,) array
        The result.
    """
    _, spec = network_pass_needs(activation)
    arrays = X, params, sizes, masks, inputs, values, left, R, slopes, gradient
    kernel_of(spec, X.dtype)(*arrays, gemm(X.dtype) or 0)


@cache
def _network_batch_spec(loss: Any, activation: Any) -> KernelSpec:
    return KernelSpec("network_batch", loss, activation=activation)


def network_batch_needs(loss: Loss, activation: Activation) -> tuple[KernelSpec, ...]:
    """Return the kernels that `network_batch` calls for a loss and an activation."""
    kinds: Any = type(loss), type(activation)
    return (_network_batch_spec(*kinds),)


def network_batch(
    loss: Loss,
    activation: Activation,
    X: Rows,
    y: Array,
    weight: Array,
    mean: Rows,
    inverse: Rows,
    divisor: float,
    params: Rows,
    sizes: Integers,
    inputs: Rows,
    values: Rows,
    P: Rows,
    Z: Array,
    marks: Array,
    R: Array,
    sums: Array,
    cells: Array,
    slopes: Rows,
    gradient: Rows,
) -> Callable[[Rows, Array, Array, Integers], None]:
    """Return a function that takes rows, and writes the sum of their losses and its gradient.

    The function takes rows (n, features), their targets, their weights or none, and the numbers of
    those to take. It keeps the arrays that are passed here, whose first axis is the rows to take.

    Parameters
    ----------
    X, y, weight : arrays (rows, ...)
        Where rows, scaled, and their targets and weights are written.
    mean, inverse : (features,) arrays
        Rows less `mean` are multiplied by `inverse`. If there are no numbers, rows are divided by
        `divisor`.
    sums : (1,) array
        Where the sum of the losses is written.
    params, sizes, inputs, values, P, Z, marks, R, cells, slopes, gradient
        As of `network_forward`, `loss_slopes` and `network_backward`.
    """
    (spec,) = network_batch_needs(loss, activation)
    nothing = params[:0]
    layers = params, sizes, nothing, inputs, values, nothing
    losses = np.ones(Z.shape[1]), R, sums, cells
    return kernel_of(spec, X.dtype).followed_by(
        *(X, y, weight, mean, inverse, divisor, *layers, P, Z, marks, *losses, slopes, gradient),
        *(gemm(X.dtype) or 0, *loss.hyperparameters.values()),
    )


def network_step(
    optimizer: Optimizer,
    theta: Rows,
    g: Rows,
    others: Rows,
    slots: Rows,
    average: Array,
    ends: Integers,
    *,
    scale: float,
    decay: float,
    eta: float,
    age: float,
    part: float,
    share: float,
) -> None:
    """Update all parameters of a network by one optimizer step, in place, in the type of X.

    Parameters
    ----------
    theta, g : (parameters,) array
        Parameters, and the gradient of a sum of losses.
    others : (gradients, parameters) array
        Gradients of further losses, which are added to `g` in their order.
    average : (parameters,) array of float64
        The running average of the parameters.
    slots : (slots, 1, parameters) array
        What the optimizer keeps from step to step.
    ends : (2 * layers + 1,) array of int64
        Where weights and biases begin, in turn, and the number of all. Weights alone decay.
    scale : float
        Factor of the gradient.
    decay : float
        Strength of an l2 penalty, whose gradient is added after that factor.
    eta, age, part : float
        As of `Optimizer.step` and `Optimizer.prepare`.
    share : float
        Weight of the parameters after the step in their average; 0 leaves the average as it is.
    """
    (spec,) = network_step_needs(optimizer)
    arrays, numbers = (theta, g, others, slots, average, ends), optimizer.hyperparameters.values()
    kernel_of(spec, theta.dtype)(*arrays, scale, decay, eta, age, part, share, *numbers)


def shuffle(seed: int, order: Integers) -> None:
    """Fill `order` with a random permutation of its indices.

    Fisher and Yates' shuffle (Knuth, TAOCP 2, algorithm P) on splitmix64 (Steele, Lea and Flood
    2014). A bounded integer is the product of the bound and 33 random bits, shifted. So
    the probability of a permutation of 2,048 indices is within 1.3e-4 of uniform, relatively.

    Parameters
    ----------
    seed : int, from 0 to 2**64 - 1
    order : (n,) array of int64, n below 2**31
    """
    any_kernel_of(SHUFFLE)(seed, order)
