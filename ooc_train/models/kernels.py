"""Compiled loops over rows, where NumPy would make a temporary or a call for each.

`add_rows` is a full-batch pass over one chunk, made of `predictor`, `slope` and `accumulate`: X
times parameters, the loss, and its derivative times X. `scan` carries parameters through batches of
any size, from one row up: one kernel for all of them, so that the batch size is a question of
statistics and not of speed. `shuffle` makes the order that `scan` follows.

X is (rows, features) float32 or float64; everything else is float64. All arrays are C-contiguous.
No result's bits depend on where an array lies in memory, but speed does: `aligned` makes the copies
of parameters that `scan` is fastest on.

Importing this module imports numba (74 MB of memory), and the first kernel to be loaded, even from
the cache, makes numba register all it knows (60 MB and 0.3 s; a second type of X is 2 MB more). So
whoever needs it imports it where it is used, and calls `load` before memory is measured.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from ooc_train.models import losses, rules
from ooc_train.models.losses import LOGISTIC, MULTINOMIAL, SQUARED, Array
from ooc_train.models.rules import BETA1, BETA2, EPSILON

__all__ = [
    "ADAM",
    "CONSTANT",
    "INVERSE_SQRT",
    "LINEAR",
    "SGD",
    "accumulate",
    "add_rows",
    "aligned",
    "load",
    "predictor",
    "scan",
    "shuffle",
    "slope",
]

Rows = NDArray[np.float32] | NDArray[np.float64]
Integers = NDArray[np.int64]
Function = TypeVar("Function", bound=Callable[..., Any])

SGD, ADAM = 0, 1
CONSTANT, LINEAR, INVERSE_SQRT = 0, 1, 2

_TILE = 16
"""Rows that `scan` scales at a time: 13 KB of 100 columns, in the nearest cache."""

_SQUARED, _MULTINOMIAL = SQUARED.code, MULTINOMIAL.code


def _source_digest(*paths: str) -> str:
    """Digest of the sources that the kernels are compiled from."""
    return hashlib.sha256(b"".join(Path(path).read_bytes() for path in paths)).hexdigest()[:16]


# Lets sums be vectorised. Not ``fastmath=True``: it would drop the checks for NaN.
_OPTIONS: Any = {"fastmath": {"reassoc", "contract"}, "error_model": "numpy"}
_DIGEST = _source_digest(__file__, losses.__file__, rules.__file__)


def _part(function: Function) -> Function:
    """Compile as a part of the kernels that call it.

    Parts take whole arrays and indices, never views: a view counts references, by an atomic
    instruction that cost as much as the arithmetic of a row.
    """
    compiled: Function = njit(forceinline=True, **_OPTIONS)(function)
    return compiled


def _kernel(function: Function) -> Function:
    """Compile, or load from numba's cache, by `load` or at the first call.

    numba trusts a cached kernel while the modification time and the size of *this* file are the
    same. That misses a change of ``losses.py``, and wheels give all files one time. The cache's
    files are named after the function's qualified name, so the digest of both sources goes there.
    """
    function.__qualname__ = f"{function.__name__}_{_DIGEST}"
    compiled: Function = njit(cache=True, nogil=True, **_OPTIONS)(function)
    return compiled


_LOG2_E = 1.0 / np.log(2.0)
_LN2, _LN2_REST = 6.93147180369123816490e-01, 1.90821492927058770002e-10
"""Their sum is log(2) to 85 bits, and the first times a small whole number is exact."""

_TWO52 = 2.0**52
_TWO52_BITS = int(np.float64(_TWO52).view(np.int64))
_SQRT_HALF_BITS = int(np.float64(0.5**0.5).view(np.int64))
"""Added to 2 ** 52, a whole number stands in the last bits of the sum: conversions for vectors."""


# Exponential and logarithm as polynomials, since calls of the C library's don't make vectors: 2 ns
# a row for loss and derivative, and 13 in NumPy. The powers are written out, since loops over
# coefficients don't make vectors either. Without ``reassoc``, which would cancel what rounds.
@njit(forceinline=True, fastmath={"contract"}, error_model="numpy")  # type: ignore[untyped-decorator]
def _exp(x: float) -> Any:
    """Return ``exp(x)`` of x <= 0, within 1 ulp; below -708 that is 0."""
    a = -708.0 if x < -708.0 else x
    shifted = a * _LOG2_E + 1.5 * _TWO52
    k = shifted - 1.5 * _TWO52
    power = np.int64((np.float64(shifted).view(np.int64) << 52) + (1023 << 52)).view(np.float64)
    r = (a - k * _LN2) - k * _LN2_REST
    s = r * r
    e = 1 / 479001600 + r * (1 / 6227020800)  # Taylor's series, in pairs
    e = (1 / 3628800 + r * (1 / 39916800)) + s * e
    e = (1 / 40320 + r * (1 / 362880)) + s * e
    e = (1 / 720 + r * (1 / 5040)) + s * e
    e = (1 / 24 + r * (1 / 120)) + s * e
    e = (1 / 2 + r * (1 / 6)) + s * e
    e = power * (1.0 + (r + s * e))
    return 0.0 if x < -708.0 else e


@njit(forceinline=True, fastmath={"contract"}, error_model="numpy")  # type: ignore[untyped-decorator]
def _log(x: float) -> Any:
    """Return ``log(x)`` of finite x >= 1, within 1 ulp."""
    bits = np.float64(x).view(np.int64)
    k = (bits - _SQRT_HALF_BITS) >> 52
    n = np.int64(k + _TWO52_BITS).view(np.float64) - _TWO52
    f = np.int64(bits - (k << 52)).view(np.float64) - 1.0  # x = 2 ** k (1 + f)
    q = f / (2.0 + f)  # log(1 + f) = 2 atanh(q), and q is at most 0.172
    s = q * q
    t = 1 / 19 + s * (1 / 21 + s * (1 / 23))
    t = 1 / 13 + s * (1 / 15 + s * (1 / 17 + s * t))
    t = 1 / 7 + s * (1 / 9 + s * (1 / 11 + s * t))
    t = s * (1 / 3 + s * (1 / 5 + s * t))
    return n * _LN2 + (f - (q * (f - 2.0 * t) - n * _LN2_REST))


def _vector_part(function: Callable[..., Any]) -> Any:
    """Compile the source of a loss on `_exp` and `_log`, to become vectors in a loop over rows."""
    names = function.__globals__ | {"exp": _exp, "log": _log}
    return _part(FunctionType(function.__code__, names, function.__name__))


# Scalars go in and come out here, where the sources are annotated with arrays.
_softmax = _vector_part(losses.softmax)
_squared_value: Any = _part(SQUARED.value)
_squared_gradient: Any = _part(SQUARED.gradient)
# Of single rows in `scan`, the C library's functions are the faster ones.
_logistic_value: Any = _part(LOGISTIC.value)
_logistic_gradient: Any = _part(LOGISTIC.gradient)
_logistic_values = _vector_part(LOGISTIC.value)
_logistic_gradients = _vector_part(LOGISTIC.gradient)


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


# Without ``reassoc``: vectors of outputs, which are few, only slowed it.
@njit(forceinline=True, fastmath={"contract"}, error_model="numpy")  # type: ignore[untyped-decorator]
def _loss(loss: int, y: Array, i: int, z: Array, r: Array) -> Any:
    """Loss of row `i` at predictor `z`, with the derivative by `z` written to `r`."""
    if loss == _MULTINOMIAL:
        if not 0.0 <= y[i, 0] < len(z):  # true for NaN too
            return np.nan
        code = int(y[i, 0])
        value = _softmax(z, r) - z[code]
        r[code] -= 1.0
        return value
    value = 0.0
    for k in range(len(z)):
        if loss == _SQUARED:
            value += _squared_value(y[i, k], z[k])
            r[k] = _squared_gradient(y[i, k], z[k])
        else:
            value += _logistic_value(y[i, k], z[k])
            r[k] = _logistic_gradient(y[i, k], z[k])
    return value


@_part
def _vector_slope(
    loss: int, y: Array, Z: Array, weight: Array, R: Array, m: int, k: int, by_z: bool
) -> Any:
    """Sum of a pointwise loss over one column of predictors; its derivative goes to `R`."""
    weighted = len(weight) > 0
    total = 0.0
    for i in range(len(Z)):
        w = weight[i] if weighted else 1.0
        if loss == _SQUARED:
            total += w * _squared_value(y[i, k], Z[i, m, k])
            if by_z:
                R[i, m, k] = w * _squared_gradient(y[i, k], Z[i, m, k])
        else:
            total += w * _logistic_values(y[i, k], Z[i, m, k])
            if by_z:
                R[i, m, k] = w * _logistic_gradients(y[i, k], Z[i, m, k])
    return total


@_kernel
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
    if loss == _MULTINOMIAL:
        weighted = len(weight) > 0
        z = np.empty(outputs)
        r = np.empty(outputs)
        for i in range(rows):
            w = weight[i] if weighted else 1.0
            for m in range(models):
                for k in range(outputs):
                    z[k] = Z[i, m, k]
                sums[m] += w * _loss(loss, y, i, z, r)
                if m < gradients:
                    for k in range(outputs):
                        R[i, m, k] = w * r[k]
    else:
        for m in range(models):
            for k in range(outputs):
                sums[m] += _vector_slope(loss, y, Z, weight, R, m, k, m < gradients)


@_kernel
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
) -> None:
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


@_part
def _rate(schedule: int, eta0: float, horizon: float, updates: int) -> float:
    """Learning rate after `updates` updates."""
    if schedule == LINEAR:
        return eta0 * (1.0 - updates / horizon)
    if schedule == INVERSE_SQRT:
        return eta0 / float(np.sqrt(1.0 + updates / horizon))
    return eta0


@_part
def _scale_rows(
    X: Rows, order: Integers, first: int, count: int, mean: Array, inv_scale: Array, tile: Array
) -> None:
    """Write scaled rows, in the order of `order`, side by side.

    Rows come from all over a chunk that is in no near cache: here several are on their way at once,
    and in the updates each would be waited for.
    """
    for t in range(count):
        i = order[first + t]
        for j in range(len(mean)):
            tile[t, j] = (X[i, j] - mean[j]) * inv_scale[j]


@_part
def _dot(tile: Array, t: int, theta: Array, k: int) -> Any:
    """Predictor of one scaled row by the parameters of output `k`."""
    features = tile.shape[1]
    z = theta[k, features]
    for j in range(features):
        z += tile[t, j] * theta[k, j]
    return z


@_part
def _add_row(tile: Array, t: int, r: float, partial: Array, k: int) -> None:
    """Add the gradient of one row, ``r`` times the scaled row and 1, to `partial`."""
    features = tile.shape[1]
    for j in range(features):
        partial[k, j] += r * tile[t, j]
    partial[k, features] += r


@_part
def _row_update(
    tile: Array,
    t: int,
    r: float,
    theta: Array,
    k: int,
    l2: Array,
    eta: float,
    fit_intercept: bool,
) -> None:
    """Take a step down the gradient of one row, without storing it."""
    features = tile.shape[1]
    step = eta * r
    for j in range(features):
        theta[k, j] -= step * tile[t, j] + eta * l2[j] * theta[k, j]
    if fit_intercept:
        theta[k, features] -= step


@_part
def _step(
    theta: Array,
    slots: Array,
    k: int,
    j: int,
    g: float,
    optimizer: int,
    eta: float,
    bias1: float,
    bias2: float,
) -> None:
    """Move one parameter down its slope `g`."""
    if optimizer == ADAM:
        slots[0, k, j] += (1.0 - BETA1) * (g - slots[0, k, j])
        slots[1, k, j] += (1.0 - BETA2) * (g * g - slots[1, k, j])
        size = np.sqrt(bias2 * slots[1, k, j]) + EPSILON
        theta[k, j] -= eta * bias1 * slots[0, k, j] / size
    else:
        theta[k, j] -= eta * g


@_part
def _batch_update(
    theta: Array,
    slots: Array,
    partial: Array,
    l2: Array,
    rows: int,
    eta: float,
    optimizer: int,
    updates: int,
    fit_intercept: bool,
) -> None:
    """Take a step down the mean gradient of a batch, and zero `partial` for the next."""
    features = len(l2)
    share = 1.0 / rows
    bias1 = bias2 = 1.0
    if optimizer == ADAM:  # a power costs as much as a row
        bias1 = 1.0 / (1.0 - BETA1 ** (updates + 1))
        bias2 = 1.0 / (1.0 - BETA2 ** (updates + 1))
    for k in range(len(theta)):
        for j in range(features):
            g = share * partial[k, j] + l2[j] * theta[k, j]
            partial[k, j] = 0.0
            _step(theta, slots, k, j, g, optimizer, eta, bias1, bias2)
        if fit_intercept:
            g = share * partial[k, features]
            _step(theta, slots, k, features, g, optimizer, eta, bias1, bias2)
        partial[k, features] = 0.0


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
    outputs = len(theta)
    weighted = len(weight) > 0
    single = batch_size == 1 and optimizer == SGD
    z = np.empty(outputs)
    r = np.empty(outputs)
    filled, updates, seen = counters[0], counters[1], counters[2]
    loss_sum, weight_sum = sums[0], sums[1]
    bad = -1
    tile = np.empty((_TILE, len(mean)))
    for position in range(len(order)):
        t = position % _TILE
        if t == 0:
            count = min(_TILE, len(order) - position)
            _scale_rows(X, order, position, count, mean, inv_scale, tile)
        i = order[position]
        w = weight[i] if weighted else 1.0
        for k in range(outputs):
            z[k] = _dot(tile, t, theta, k)
        value = w * _loss(loss, y, i, z, r)
        if not np.isfinite(value):
            bad = position
            break
        loss_sum += value
        weight_sum += w
        seen += 1
        if single:
            eta = _rate(schedule, eta0, horizon, updates)
            for k in range(outputs):
                _row_update(tile, t, w * r[k], theta, k, l2, eta, fit_intercept)
            updates += 1
        else:
            for k in range(outputs):
                _add_row(tile, t, w * r[k], partial, k)
            filled += 1
        if filled == batch_size:
            eta = _rate(schedule, eta0, horizon, updates)
            _batch_update(theta, slots, partial, l2, filled, eta, optimizer, updates, fit_intercept)
            updates += 1
            filled = 0
    if flush and bad < 0 and filled > 0:
        eta = _rate(schedule, eta0, horizon, updates)
        _batch_update(theta, slots, partial, l2, filled, eta, optimizer, updates, fit_intercept)
        updates += 1
        filled = 0
    counters[0], counters[1], counters[2] = filled, updates, seen
    sums[0], sums[1] = loss_sum, weight_sum
    return bad


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


def aligned(array: Array) -> Array:
    """Copy to a multiple of 64 bytes, so that a vector of the first row never straddles two lines.

    NumPy aligns to 16 bytes; `scan` takes a fifth longer on such parameters.
    """
    room = np.empty(array.size + 8)
    start = -room.ctypes.data % 64 // 8
    copy = room[start : start + array.size].reshape(array.shape)
    copy[...] = array
    return copy


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
        (
            scan,
            (
                *(X, read(2), read(1), read(1, integer), read(1), read(1)),
                *(write(2), write(3), write(2), write(1, integer), write(1), read(1)),
                *(integer, integer, integer, integer, real, real, flag, flag),
            ),
        ),
        (shuffle, (types.uint64, write(1, integer))),
    ]
    for kernel, signature in signatures:
        kernel.disable_compile(False)
        kernel.compile(signature)
        kernel.disable_compile()
