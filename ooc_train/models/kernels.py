"""Compiled loops over rows, where NumPy would make a temporary or a call for each.

`predictor` and `accumulate` are the two halves of a full-batch pass over one chunk, with the loss
in NumPy between them. `scan` carries parameters through batches of any size, from one row up: one
kernel for all of them, so that the batch size is a question of statistics and not of speed.
`shuffle` makes the order that `scan` follows.

X is (rows, features) float32 or float64; everything else is float64. All arrays are C-contiguous.
Nothing here depends on where an array lies in memory, so neither do the bits of a result.

Importing this module imports numba (60 MB of memory), and compiles the kernels or loads them from
numba's cache: whoever needs them imports it where they are used.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ooc_train.models import losses
from ooc_train.models.losses import LOGISTIC, MULTINOMIAL, SQUARED, Array

__all__ = [
    "ADAM",
    "CONSTANT",
    "INVERSE_SQRT",
    "LINEAR",
    "SGD",
    "accumulate",
    "load",
    "predictor",
    "scan",
    "shuffle",
]

Rows = NDArray[np.float32] | NDArray[np.float64]
Integers = NDArray[np.int64]
Function = TypeVar("Function", bound=Callable[..., Any])

SGD, ADAM = 0, 1
CONSTANT, LINEAR, INVERSE_SQRT = 0, 1, 2

_SQUARED, _MULTINOMIAL = SQUARED.code, MULTINOMIAL.code
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8  # Kingma and Ba 2015, section 2


def _source_digest(*paths: str) -> str:
    """Digest of the sources that the kernels are compiled from."""
    return hashlib.sha256(b"".join(Path(path).read_bytes() for path in paths)).hexdigest()[:16]


_DIGEST = _source_digest(__file__, losses.__file__)


def _kernel(function: Function) -> Function:
    """Compile at the first call, or load from numba's cache.

    numba trusts a cached kernel while the modification time and the size of *this* file are the
    same. That misses a change of ``losses.py``, and wheels give all files one time. The cache's
    files are named after the function's qualified name, so the digest of both sources goes there.

    ``reassoc`` lets sums be vectorised. Not ``fastmath=True``: it would drop the checks for NaN.
    """
    function.__qualname__ = f"{function.__name__}_{_DIGEST}"
    compiled: Function = njit(
        nogil=True, cache=True, fastmath={"reassoc", "contract"}, error_model="numpy"
    )(function)
    return compiled


# Scalars go in and come out here, where the sources are annotated with arrays.
_softmax: Any = _kernel(losses.softmax)
_squared_value: Any = _kernel(SQUARED.value)
_squared_gradient: Any = _kernel(SQUARED.gradient)
_logistic_value: Any = _kernel(LOGISTIC.value)
_logistic_gradient: Any = _kernel(LOGISTIC.gradient)


@_kernel
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


@_kernel
def accumulate(X: Rows, R: Array, G: Array, g: Array) -> None:
    """Add ``R.T @ X`` to `G` and the column sums of `R` to `g`, in float64 from the first row.

    Parameters
    ----------
    X : (rows, features) array, float32 or float64
    R : (rows, outputs) array
        Derivative of the loss by the predictor.
    G : (outputs, features) array
        Gradient by the weights, added to in place.
    g : (outputs,) array
        Gradient by the intercepts, added to in place.
    """
    rows, features = X.shape
    whole = rows - rows % 8
    for i in range(0, whole, 8):  # eight rows share a load and a store of G
        x0, x1, x2, x3 = X[i], X[i + 1], X[i + 2], X[i + 3]
        x4, x5, x6, x7 = X[i + 4], X[i + 5], X[i + 6], X[i + 7]
        for k in range(len(G)):
            r0, r1, r2, r3 = R[i, k], R[i + 1, k], R[i + 2, k], R[i + 3, k]
            r4, r5, r6, r7 = R[i + 4, k], R[i + 5, k], R[i + 6, k], R[i + 7, k]
            gk = G[k]
            for j in range(features):
                gk[j] += (
                    (r0 * x0[j] + r1 * x1[j])
                    + (r2 * x2[j] + r3 * x3[j])
                    + (r4 * x4[j] + r5 * x5[j])
                    + (r6 * x6[j] + r7 * x7[j])
                )
            g[k] += (r0 + r1) + (r2 + r3) + (r4 + r5) + (r6 + r7)
    for i in range(whole, rows):
        x = X[i]
        for k in range(len(G)):
            r = R[i, k]
            gk = G[k]
            for j in range(features):
                gk[j] += r * x[j]
            g[k] += r


@_kernel
def _value(loss: int, y: float, z: float) -> Any:
    """Value of a pointwise loss, by its code."""
    if loss == _SQUARED:
        return _squared_value(y, z)
    return _logistic_value(y, z)


@_kernel
def _gradient(loss: int, y: float, z: float) -> Any:
    """Slope of a pointwise loss, by its code."""
    if loss == _SQUARED:
        return _squared_gradient(y, z)
    return _logistic_gradient(y, z)


@_kernel
def _rate(schedule: int, eta0: float, horizon: float, updates: int) -> float:
    """Learning rate after `updates` updates."""
    if schedule == LINEAR:
        return eta0 * (1.0 - updates / horizon)
    if schedule == INVERSE_SQRT:
        return eta0 / float(np.sqrt(1.0 + updates / horizon))
    return eta0


@_kernel
def _standardise(x: Array, mean: Array, inv_scale: Array, t: Array) -> None:
    """Write ``(x - mean) * inv_scale`` to `t`."""
    for j in range(len(t)):
        t[j] = (x[j] - mean[j]) * inv_scale[j]


@_kernel
def _dot(t: Array, v: Array) -> float:
    """Inner product over the features of `t`."""
    s = 0.0
    for j in range(len(t)):
        s += t[j] * v[j]
    return s


@_kernel
def _row_update(theta: Array, t: Array, r: Array, l2: Array, eta: float, intercept: bool) -> None:
    """Take a step down the gradient of one row, ``r`` times ``(t, 1)``, without storing it."""
    features = len(t)
    for k in range(len(theta)):
        v = theta[k]
        step = eta * r[k]
        for j in range(features):
            v[j] -= step * t[j] + eta * l2[j] * v[j]
        if intercept:
            v[features] -= step


@_kernel
def _batch_update(
    theta: Array,
    slots: Array,
    partial: Array,
    l2: Array,
    rows: int,
    eta: float,
    optimizer: int,
    updates: int,
    intercept: bool,
) -> None:
    """Take a step down the mean gradient of a batch, and zero `partial` for the next."""
    features = len(l2)
    last = features + 1 if intercept else features
    share = 1.0 / rows
    rate = eta / (1.0 - _BETA1 ** (updates + 1))
    correction = 1.0 / (1.0 - _BETA2 ** (updates + 1))
    for k in range(len(theta)):
        v, total = theta[k], partial[k]
        for j in range(features):
            total[j] = share * total[j] + l2[j] * v[j]
        total[features] *= share
        if optimizer == ADAM:
            first, second = slots[0, k], slots[1, k]
            for j in range(last):
                first[j] += (1.0 - _BETA1) * (total[j] - first[j])
                second[j] += (1.0 - _BETA2) * (total[j] * total[j] - second[j])
                v[j] -= rate * first[j] / (np.sqrt(correction * second[j]) + _EPSILON)
        else:
            for j in range(last):
                v[j] -= eta * total[j]
        total[:] = 0.0


@_kernel
def scan(
    X: Rows,
    y: Array,
    weight: Array,
    order: Integers,
    mean: Array,
    inv_scale: Array,
    theta: Array,
    slots: Array,
    partial: Array,
    counters: Integers,
    sums: Array,
    l2: Array,
    loss: int,
    batch_size: int,
    optimizer: int,
    schedule: int,
    eta0: float,
    horizon: float,
    fit_intercept: bool,
    flush: bool,
) -> int:
    """Carry parameters through rows: one update each `batch_size` rows, wherever the calls are cut.

    With ``t = (X[i] - mean) * inv_scale`` and ``z = theta[:, :-1] @ t + theta[:, -1]``, an update
    follows the mean over the batch of ``weight * gradient(y, z) * (t, 1)`` plus ``l2 * theta``. A
    batch that the rows of this call don't fill stays in `partial` and `counters` for the next call.

    Parameters
    ----------
    X : (rows, features) array, float32 or float64
    y : (rows, outputs) array
        For the multinomial loss (rows, 1): codes of the classes.
    weight : (rows,) array
        Multiplies a row's loss; of mean 1 over the data. Of length 0: every row weighs 1.
    order : (n,) array of int64
        Which rows of `X`, in which order. Not checked against the rows of `X`.
    mean, inv_scale : (features,) array
        The scaling: in the data's units, and one over them.
    theta : (outputs, features + 1) array
        Parameters of the scaled features, intercepts last. Changed in place, like the next four.
    slots : (2, outputs, features + 1) array
        Adam's first and second moments; of shape (0, outputs, features + 1) for SGD.
    partial : (outputs, features + 1) array
        Sum of the gradients of an unfinished batch.
    counters : (3,) array of int64
        Rows in `partial`, updates done, rows seen.
    sums : (2,) array
        Progressive loss (of each row before the update that uses it) and weight, summed over rows.
    l2 : (features,) array
        Penalty ``l2 / 2 * theta ** 2``; the intercepts go free.
    loss : int
        ``Loss.code``.
    batch_size : int
        Rows per update.
    optimizer : int
        `SGD` or `ADAM` (beta1 0.9, beta2 0.999, epsilon 1e-8).
    schedule : int
        Of the learning rate after t updates: `CONSTANT`; `LINEAR`, ``eta0 * (1 - t / horizon)``; or
        `INVERSE_SQRT`, ``eta0 / sqrt(1 + t / horizon)``.
    eta0, horizon : float
    fit_intercept : bool
        Whether the intercepts learn.
    flush : bool
        Whether an unfinished batch is applied at the end: the last call of a pass.

    Returns
    -------
    int
        -1; or the position in `order` of the first row whose predictor or loss isn't finite (or
        whose class isn't one), with everything left as it was before that row.
    """
    outputs, features = theta.shape[0], len(mean)
    weighted = len(weight) > 0
    single = batch_size == 1 and optimizer == SGD
    t = np.empty(features)
    z = np.empty(outputs)
    r = np.empty(outputs)
    for position in range(len(order)):
        i = order[position]
        w = weight[i] if weighted else 1.0
        _standardise(X[i], mean, inv_scale, t)
        value = 0.0
        for k in range(outputs):
            z[k] = _dot(t, theta[k]) + theta[k, features]
        if loss == _MULTINOMIAL:
            if not 0.0 <= y[i, 0] < outputs:  # false for NaN
                return position
            code = int(y[i, 0])
            value = _softmax(z, r) - z[code]
            r[code] -= 1.0
        else:
            for k in range(outputs):
                value += _value(loss, y[i, k], z[k])
                r[k] = _gradient(loss, y[i, k], z[k])
        value *= w
        if not np.isfinite(value):
            return position
        sums[0] += value
        sums[1] += w
        counters[2] += 1
        for k in range(outputs):
            r[k] *= w
        if single:
            _row_update(theta, t, r, l2, _rate(schedule, eta0, horizon, counters[1]), fit_intercept)
            counters[1] += 1
            continue
        for k in range(outputs):
            total, rk = partial[k], r[k]
            for j in range(features):
                total[j] += rk * t[j]
            total[features] += rk
        counters[0] += 1
        if counters[0] == batch_size:
            _batch_update(
                theta,
                slots,
                partial,
                l2,
                counters[0],
                _rate(schedule, eta0, horizon, counters[1]),
                optimizer,
                counters[1],
                fit_intercept,
            )
            counters[0] = 0
            counters[1] += 1
    if flush and counters[0] > 0:
        _batch_update(
            theta,
            slots,
            partial,
            l2,
            counters[0],
            _rate(schedule, eta0, horizon, counters[1]),
            optimizer,
            counters[1],
            fit_intercept,
        )
        counters[0] = 0
        counters[1] += 1
    return -1


@_kernel
def shuffle(seed: np.uint64, order: Integers) -> None:
    """Fill `order` with a random permutation of its indices.

    Fisher and Yates' shuffle (Knuth, TAOCP 2, algorithm P) on splitmix64 (Steele, Lea and Flood
    2014). A bounded integer is the product of the bound and 33 random bits, shifted: at 2,048 rows
    no permutation is off by more than a few in ten million.

    Parameters
    ----------
    seed : uint64
    order : (n,) array of int64, n below 2**31
    """
    state = seed
    for i in range(len(order)):
        order[i] = i
    for i in range(len(order) - 1, 0, -1):
        state += np.uint64(0x9E3779B97F4A7C15)
        word = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        word ^= word >> np.uint64(31)
        j = np.int64(((word >> np.uint64(31)) * np.uint64(i + 1)) >> np.uint64(33))
        order[i], order[j] = order[j], order[i]


def load(dtype: np.typing.DTypeLike) -> None:
    """Compile the kernels for X of `dtype`, or load them from numba's cache, by running them."""
    X = np.zeros((1, 1), dtype)
    one = np.zeros((1, 1))
    order = np.zeros(1, np.int64)
    counters = np.zeros(3, np.int64)
    predictor(X, one, one[0], one.copy())
    accumulate(X, one, one.copy(), one[0].copy())
    shuffle(np.uint64(0), order)
    pair, slots = np.zeros((1, 2)), np.zeros((2, 1, 2))
    scan(
        X, one, one[0], order, one[0], one[0], pair, slots, pair.copy(), counters, np.zeros(2),
        one[0], _SQUARED, 1, SGD, CONSTANT, 0.0, 1.0, True, True,
    )  # fmt: skip
