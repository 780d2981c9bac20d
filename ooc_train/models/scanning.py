"""Compiled updates: parameters carried through rows, at any batch size.

`gather` scales rows and lays them side by side in the order in which they are learned from;
`shuffle` makes that order; `scan` learns. So a reading thread does all that can be done before the
parameters are known, and `scan` takes rows one after another from a near cache.

A batch of one row is a chain: the next predictor waits for the step, the step for the loss, the
loss for the predictor. So there one loop takes the step and predicts the next row, and the values
of the losses, which nothing waits for, are computed afterwards in vectors. Larger batches go four
rows at a time.

Rows are float32 or float64 as X is; everything else is float64. All arrays are C-contiguous.
No result's bits depend on where an array lies in memory, nor on where a pass is cut into calls.
"""

from typing import Any

import numpy as np

from ooc_train.models import losses
from ooc_train.models.compiled import Integers, Rows, kernel, part, strict_part, vector_part
from ooc_train.models.losses import HINGE, LOGISTIC, MULTINOMIAL, SQUARED, Array
from ooc_train.models.rules import BETA1, BETA2, EPSILON

__all__ = [
    "ADAM",
    "CONSTANT",
    "INVERSE_SQRT",
    "LINEAR",
    "SGD",
    "gather",
    "scan",
    "shuffle",
    "softmax_slope",
]

SGD, ADAM = 0, 1
CONSTANT, LINEAR, INVERSE_SQRT = 0, 1, 2

_GROUP = 4
"""Rows of a batch that are taken at a time: they share each load of a parameter."""

_SQUARED, _LOGISTIC, _MULTINOMIAL = SQUARED.code, LOGISTIC.code, MULTINOMIAL.code

# Scalars go in and come out here, where the sources are annotated with arrays. Of a single row,
# which is waited for, the C library's exponential is the faster one.
_squared_value = vector_part(SQUARED.value)
_squared_slope = vector_part(SQUARED.gradient)
_logistic_value = vector_part(LOGISTIC.value)
_logistic_slope = vector_part(LOGISTIC.gradient)
_logistic_slope_of_one = part(LOGISTIC.gradient)
_hinge_value = vector_part(HINGE.value)
_hinge_slope = vector_part(HINGE.gradient)
_softmax = vector_part(losses.softmax)


@kernel
def gather(
    X: Rows,
    y: Array,
    weight: Array,
    order: Integers,
    mean: Array,
    inv_scale: Array,
    T: Rows,
    y_out: Array,
    weight_out: Array,
) -> None:
    """Write rows, scaled, side by side: ``T[t] = (X[order[t]] - mean) * inv_scale``.

    Parameters
    ----------
    X : (rows, features) array, float32 or float64
    y : (rows, outputs) array
    weight : (rows,) array
        Or of length 0, and then `weight_out` is left alone.
    order : (n,) array of int64
        Which rows of `X`. Not checked against them.
    mean, inv_scale : (features,) array
        The scaling: in the data's units, and one over them.
    T : (n, features) array of X's type
        The result, like the next two.
    y_out : (n, outputs) array
    weight_out : (n,) array
    """
    for t in range(len(order)):
        i = order[t]
        for j in range(len(mean)):
            T[t, j] = (X[i, j] - mean[j]) * inv_scale[j]
        for k in range(y.shape[1]):
            y_out[t, k] = y[i, k]
    if len(weight):
        for t in range(len(order)):
            weight_out[t] = weight[order[t]]


@kernel
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


@strict_part
def _rate(schedule: int, eta0: float, horizon: float, updates: int) -> Any:
    """Learning rate after `updates` updates."""
    if schedule == LINEAR:
        return eta0 * (1.0 - updates / horizon)
    if schedule == INVERSE_SQRT:
        return eta0 / float(np.sqrt(1.0 + updates / horizon))
    return eta0


@strict_part
def softmax_slope(y: Array, t: int, z: Array, r: Array) -> Any:
    """Multinomial loss of row `t` at predictors `z`, with its derivative written to `r`."""
    if not 0.0 <= y[t, 0] < len(z):  # true for NaN too
        r[0] = np.nan
        return np.nan
    code = int(y[t, 0])
    value = _softmax(z, r) - z[code]
    r[code] -= 1.0
    return value


@part
def _step_and_predict(
    T: Rows, t: int, step: float, eta: float, l2: Array, theta: Array, k: int, U: Rows, u: int
) -> Any:
    """Take a step down the gradient of row `t` of T, and return the predictor of row `u` of U."""
    features = T.shape[1]
    z = theta[k, features]
    for j in range(features):
        moved = theta[k, j] - (step * T[t, j] + eta * l2[j] * theta[k, j])
        theta[k, j] = moved
        z += moved * U[u, j]
    return z


@part
def _predict_group(T: Rows, a: int, b: int, c: int, d: int, theta: Array, k: int, z: Array) -> None:
    """Write the predictors of four rows by output `k`."""
    features = T.shape[1]
    s0 = s1 = s2 = s3 = 0.0
    for j in range(features):
        w = theta[k, j]
        s0 += w * T[a, j]
        s1 += w * T[b, j]
        s2 += w * T[c, j]
        s3 += w * T[d, j]
    constant = theta[k, features]
    z[k, 0] = s0 + constant
    z[k, 1] = s1 + constant
    z[k, 2] = s2 + constant
    z[k, 3] = s3 + constant


@strict_part
def _sum_of_group(
    T: Rows, a: int, b: int, c: int, d: int, r: Array, k: int, j: int, start: float
) -> Any:
    """`start`, and the gradients of four rows by one parameter added one after another."""
    s = start + r[k, 0] * T[a, j]
    s += r[k, 1] * T[b, j]
    s += r[k, 2] * T[c, j]
    s += r[k, 3] * T[d, j]
    return s


@strict_part
def _moved(
    theta: Array,
    slots: Array,
    k: int,
    j: int,
    g: float,
    optimizer: int,
    eta: float,
    bias1: float,
    bias2: float,
) -> Any:
    """One parameter after a step down its slope `g`."""
    if optimizer == ADAM:
        slots[0, k, j] += (1.0 - BETA1) * (g - slots[0, k, j])
        slots[1, k, j] += (1.0 - BETA2) * (g * g - slots[1, k, j])
        size = np.sqrt(bias2 * slots[1, k, j]) + EPSILON
        return theta[k, j] - eta * bias1 * slots[0, k, j] / size
    return theta[k, j] - eta * g


@strict_part
def _update(
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
            theta[k, j] = _moved(theta, slots, k, j, g, optimizer, eta, bias1, bias2)
        if fit_intercept:
            g = share * partial[k, features]
            theta[k, features] = _moved(theta, slots, k, features, g, optimizer, eta, bias1, bias2)
        partial[k, features] = 0.0


@strict_part
def _scan_single_rows(
    T: Rows,
    y: Array,
    weight: Array,
    Z: Array,
    theta: Array,
    counters: Integers,
    l2: Array,
    loss: int,
    schedule: int,
    eta0: float,
    horizon: float,
    fit_intercept: bool,
) -> Any:
    """Take a step for each row; return how many were taken, and leave in `Z` what `_add_up` needs.

    A row that isn't finite ends it before its step.
    """
    rows, features = T.shape
    outputs = len(theta)
    updates = counters[1]
    z, r = np.empty(outputs), np.empty(outputs)
    nothing = np.zeros((1, features), T.dtype)
    if rows:
        for k in range(outputs):
            z[k] = _step_and_predict(nothing, 0, 0.0, 0.0, l2, theta, k, T, 0)
    taken = rows
    for t in range(rows):
        w = weight[t] if len(weight) else 1.0
        check = 0.0
        if loss == _MULTINOMIAL:
            value = softmax_slope(y, t, z, r)
            check = value
            Z[t, 0] = value
        for k in range(outputs):
            if loss == _SQUARED:
                r[k] = _squared_slope(y[t, k], z[k])
            elif loss == _LOGISTIC:
                r[k] = _logistic_slope_of_one(y[t, k], z[k])
            elif loss != _MULTINOMIAL:
                r[k] = _hinge_slope(y[t, k], z[k])
            if loss != _MULTINOMIAL:
                Z[t, k] = z[k]
            r[k] *= w
            check += z[k] + r[k]
        if not np.isfinite(check):
            taken = t
            break
        eta = _rate(schedule, eta0, horizon, updates)
        updates += 1
        for k in range(outputs):
            step = eta * r[k]
            if fit_intercept:
                theta[k, features] -= step
            if t + 1 < rows:
                z[k] = _step_and_predict(T, t, step, eta, l2, theta, k, T, t + 1)
            else:
                _step_and_predict(T, t, step, eta, l2, theta, k, nothing, 0)
    counters[1] = updates
    return taken


@strict_part
def _scan_batches(
    T: Rows,
    y: Array,
    weight: Array,
    Z: Array,
    theta: Array,
    slots: Array,
    partial: Array,
    counters: Integers,
    l2: Array,
    loss: int,
    batch_size: int,
    optimizer: int,
    schedule: int,
    eta0: float,
    horizon: float,
    fit_intercept: bool,
) -> Any:
    """As `_scan_single_rows`, a step for each batch, in groups of four rows.

    What a group has too few of is its last row again, with a slope of nothing.
    """
    rows, features = T.shape
    outputs = len(theta)
    filled, updates = counters[0], counters[1]
    z, r = np.empty((outputs, _GROUP)), np.empty((outputs, _GROUP))
    z_row, r_row = np.empty(outputs), np.empty(outputs)
    due, w = np.empty(_GROUP), np.ones(_GROUP)
    taken, stopped = 0, False
    while taken < rows and not stopped:
        count = min(_GROUP, batch_size - filled, rows - taken)
        last = taken + count - 1
        a, b, c, d = taken, min(taken + 1, last), min(taken + 2, last), min(taken + 3, last)
        for k in range(outputs):
            _predict_group(T, a, b, c, d, theta, k, z)
        if len(weight):
            w[0], w[1], w[2], w[3] = weight[a], weight[b], weight[c], weight[d]
        if loss == _MULTINOMIAL:
            for i in range(count):
                for k in range(outputs):
                    z_row[k] = z[k, i]
                Z[taken + i, 0] = softmax_slope(y, taken + i, z_row, r_row)
                for k in range(outputs):
                    r[k, i] = w[i] * r_row[k]
        else:
            for k in range(outputs):
                due[0], due[1], due[2], due[3] = y[a, k], y[b, k], y[c, k], y[d, k]
                if loss == _SQUARED:
                    for i in range(_GROUP):
                        r[k, i] = w[i] * _squared_slope(due[i], z[k, i])
                elif loss == _LOGISTIC:
                    for i in range(_GROUP):
                        r[k, i] = w[i] * _logistic_slope(due[i], z[k, i])
                else:
                    for i in range(_GROUP):
                        r[k, i] = w[i] * _hinge_slope(due[i], z[k, i])
                for i in range(count):
                    Z[taken + i, k] = z[k, i]
        check = 0.0
        for k in range(outputs):
            for i in range(count):
                check += z[k, i] + r[k, i]
        if not np.isfinite(check):
            stopped = True
            count = _finite_rows(z, r, count)
            if count == 0:
                break
            last = taken + count - 1
            b, c, d = min(taken + 1, last), min(taken + 2, last), min(taken + 3, last)
        for k in range(outputs):
            for i in range(count, _GROUP):
                r[k, i] = 0.0
            for j in range(features):
                partial[k, j] = _sum_of_group(T, a, b, c, d, r, k, j, partial[k, j])
            for i in range(count):
                partial[k, features] += r[k, i]
        taken += count
        filled += count
        if filled == batch_size:
            eta = _rate(schedule, eta0, horizon, updates)
            _update(theta, slots, partial, l2, filled, eta, optimizer, updates, fit_intercept)
            updates += 1
            filled = 0
    counters[0], counters[1] = filled, updates
    return taken


@strict_part
def _finite_rows(z: Array, r: Array, count: int) -> Any:
    """Rows of a group before the first that isn't finite."""
    for i in range(count):
        check = 0.0
        for k in range(len(z)):
            check += z[k, i] + r[k, i]
        if not np.isfinite(check):
            return i
    return count


@part
def _values(loss: int, y: Array, Z: Array, rows: int, k: int) -> None:
    """Replace predictors of output `k` by the losses there, in vectors."""
    if loss == _SQUARED:
        for t in range(rows):
            Z[t, k] = _squared_value(y[t, k], Z[t, k])
    elif loss == _LOGISTIC:
        for t in range(rows):
            Z[t, k] = _logistic_value(y[t, k], Z[t, k])
    elif loss != _MULTINOMIAL:
        for t in range(rows):
            Z[t, k] = _hinge_value(y[t, k], Z[t, k])


@strict_part
def _add_up(loss: int, Z: Array, weight: Array, rows: int, sums: Array) -> None:
    """Add losses and weights to `sums`, one after another."""
    columns = 1 if loss == _MULTINOMIAL else Z.shape[1]
    total, total_weight = sums[0], sums[1]
    for t in range(rows):
        w = weight[t] if len(weight) else 1.0
        total_weight += w
        for k in range(columns):
            total += w * Z[t, k]
    sums[0], sums[1] = total, total_weight


@kernel
def scan(
    T: Rows,
    y: Array,
    weight: Array,
    Z: Array,
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

    With ``z = theta[:, :-1] @ T[t] + theta[:, -1]``, an update follows the mean over the batch of
    ``weight * gradient(y, z) * (T[t], 1)`` plus ``l2 * theta``. A batch that the rows of this call
    don't fill stays in `partial` and `counters` for the next call.

    Parameters
    ----------
    T : (rows, features) array, float32 or float64
        Scaled rows, in the order in which they are learned from.
    y : (rows, outputs) array
        For the multinomial loss (rows, 1): codes of the classes.
    weight : (rows,) array
        Multiplies a row's loss; of mean 1 over the data. Of length 0: every row weighs 1.
    Z : (rows, outputs) array
        To work in.
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
        -1; or the number of the first row whose predictor or slope isn't finite (or whose class
        isn't one), with everything left as it was before that row.
    """
    rows = len(T)
    if batch_size == 1 and optimizer == SGD:
        taken = _scan_single_rows(
            T, y, weight, Z, theta, counters, l2, loss, schedule, eta0, horizon, fit_intercept
        )
    else:
        taken = _scan_batches(
            T,
            y,
            weight,
            Z,
            theta,
            slots,
            partial,
            counters,
            l2,
            loss,
            batch_size,
            optimizer,
            schedule,
            eta0,
            horizon,
            fit_intercept,
        )
    counters[2] += taken
    for k in range(Z.shape[1]):
        _values(loss, y, Z, taken, k)
    _add_up(loss, Z, weight, taken, sums)
    if flush and taken == rows and counters[0] > 0:
        updates = counters[1]
        eta = _rate(schedule, eta0, horizon, updates)
        _update(theta, slots, partial, l2, counters[0], eta, optimizer, updates, fit_intercept)
        counters[0], counters[1] = 0, updates + 1
    return -1 if taken == rows else taken
