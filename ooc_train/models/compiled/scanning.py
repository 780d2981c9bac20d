"""Compiled updates: parameters carried through rows, at any batch size.

`shuffle` makes the order in which the rows of a chunk are learned from; `scan` learns from them
where they lie. Rows are scaled on the fly: parameters are of the scaled columns, predictors are of
those in the data's units, which are brought up to date with each step.

A batch of one row is a chain: the next predictor waits for the step, the step for the loss, the
loss for the predictor. So what nothing waits for is kept out of it: the next row is scaled before,
and the values of the losses are computed afterwards, in vectors. Larger batches go in groups of
rows.

X is float32 or float64; everything else is float64. All arrays are C-contiguous. No result's bits
depend on where an array lies in memory, nor on where a pass is cut into calls.
"""

from typing import Any

import numpy as np

from ooc_train.models import losses
from ooc_train.models.compiled.parts import (
    LOGISTIC,
    MULTINOMIAL,
    SQUARED,
    Integers,
    Rows,
    hinge_slope,
    hinge_value,
    logistic_slope,
    logistic_value,
    part,
    prefetch,
    softmax_slope,
    squared_slope,
    squared_value,
    strict_part,
)
from ooc_train.models.kernels import GROUP, ROOM_ROWS, ROOM_ROWS_OF_OUTPUT
from ooc_train.models.losses import Array
from ooc_train.models.rules import BETA1, BETA2, EPSILON, OPTIMIZERS, SCHEDULES

__all__ = ["scan", "shuffle"]

_SGD, _ADAM = OPTIMIZERS["sgd"], OPTIMIZERS["adam"]
_LINEAR, _INVERSE_SQRT = SCHEDULES["linear"], SCHEDULES["inverse_sqrt"]

_MEAN, _INV_SCALE, _L2, _ROWS, _OUTPUTS = 0, 1, 2, 3, ROOM_ROWS
"""Rows of the room that updates work in: at `_ROWS` begin two rows of X, scaled, and at `_OUTPUTS`,
which is `ROOM_ROWS`, what there is of each output."""

_THETA, _PARTIAL, _W, _EACH = 0, 1, 2, ROOM_ROWS_OF_OUTPUT
"""Of each output: parameters of the scaled columns, the sum of a batch's gradients, and parameters
that predict from rows as they lie."""

_FAR = 8
"""Rows by which `scan` asks for a row ahead of learning from it."""

# Of a single row, which is waited for, the C library's exponential is the faster one.
_logistic_slope_of_one = part(losses.LOGISTIC.gradient)


@part
def shuffle(seed: np.uint64, order: Integers) -> None:
    """As `kernels.shuffle`."""
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
    if schedule == _LINEAR:
        return eta0 * (1.0 - updates / horizon)
    if schedule == _INVERSE_SQRT:
        return eta0 / float(np.sqrt(1.0 + updates / horizon))
    return eta0


@strict_part
def _fill_room(
    room: Array, theta: Array, partial: Array, mean: Array, inv_scale: Array, l2: Array
) -> None:
    """Put all that updates go through side by side, far enough apart and in whole vectors.

    Where arrays lie close to one another, or end in the midst of a vector, loops are run without
    vectors.
    """
    outputs, features = len(theta), len(mean)
    for i in range(len(room)):
        for j in range(room.shape[1]):
            room[i, j] = 0.0
    for j in range(features):
        room[_MEAN, j], room[_INV_SCALE, j], room[_L2, j] = mean[j], inv_scale[j], l2[j]
    for k in range(outputs):
        at = _OUTPUTS + _EACH * k
        for j in range(features):
            room[at + _THETA, j], room[at + _PARTIAL, j] = theta[k, j], partial[k, j]
            room[at + _W, j] = theta[k, j] * inv_scale[j]


@strict_part
def _leave_room(room: Array, theta: Array, partial: Array) -> None:
    """Take parameters and gradients back."""
    for k in range(len(theta)):
        at = _OUTPUTS + _EACH * k
        for j in range(theta.shape[1] - 1):
            theta[k, j], partial[k, j] = room[at + _THETA, j], room[at + _PARTIAL, j]


@strict_part
def _scale(X: Rows, i: int, room: Array, to: int) -> None:
    """Write row `i` of X, scaled."""
    for j in range(X.shape[1]):
        room[to, j] = (X[i, j] - room[_MEAN, j]) * room[_INV_SCALE, j]


@part
def _step_and_predict(
    room: Array, row: int, next_row: int, at: int, step: float, eta: float
) -> Any:
    """Take a step down the gradient of a scaled row; return the next one's product with theta."""
    z = 0.0
    for j in range(room.shape[1]):
        theta = room[at + _THETA, j]
        moved = theta - (step * room[row, j] + eta * room[_L2, j] * theta)
        room[at + _THETA, j] = moved
        z += moved * room[next_row, j]
    return z


@part
def _shift(room: Array, at: int) -> Any:
    """Product of the means with the parameters that predict from rows as they lie."""
    total = 0.0
    for j in range(room.shape[1]):
        total += room[at + _W, j] * room[_MEAN, j]
    return total


@part
def _predict_four(
    X: Rows, places: Integers, first: int, room: Array, at: int, constant: float, k: int, z: Array
) -> None:
    """Write the predictors by output `k` of four rows, which share each load of a parameter."""
    a, b, c, d = places[first], places[first + 1], places[first + 2], places[first + 3]
    s0 = s1 = s2 = s3 = 0.0
    for j in range(X.shape[1]):
        w = room[at + _W, j]
        s0 += w * X[a, j]
        s1 += w * X[b, j]
        s2 += w * X[c, j]
        s3 += w * X[d, j]
    z[k, first] = s0 + constant
    z[k, first + 1] = s1 + constant
    z[k, first + 2] = s2 + constant
    z[k, first + 3] = s3 + constant


@strict_part
def _slopes(loss: int, due: Array, z: Array, w: Array, k: int, r: Array) -> None:
    """Write the derivatives of a pointwise loss by the predictors of a group, in one vector."""
    if loss == SQUARED:
        for i in range(GROUP):
            r[k, i] = w[i] * squared_slope(due[i], z[k, i])
    elif loss == LOGISTIC:
        for i in range(GROUP):
            r[k, i] = w[i] * logistic_slope(due[i], z[k, i])
    else:
        for i in range(GROUP):
            r[k, i] = w[i] * hinge_slope(due[i], z[k, i])


@strict_part
def _add_four(
    X: Rows, places: Integers, first: int, r: Array, k: int, room: Array, at: int
) -> None:
    """Add the gradients of four rows by output `k`, one after another."""
    a, b, c, d = places[first], places[first + 1], places[first + 2], places[first + 3]
    r0, r1, r2, r3 = r[k, first], r[k, first + 1], r[k, first + 2], r[k, first + 3]
    for j in range(X.shape[1]):
        s = room[at + _PARTIAL, j] + r0 * X[a, j]
        s += r1 * X[b, j]
        s += r2 * X[c, j]
        s += r3 * X[d, j]
        room[at + _PARTIAL, j] = s


@strict_part
def _step(room: Array, at: int, share: float, total: float, eta: float) -> None:
    """Take a step down the mean gradient of a batch; `_PARTIAL` is zero for the next."""
    for j in range(room.shape[1]):
        theta, scale = room[at + _THETA, j], room[_INV_SCALE, j]
        g = share * (room[at + _PARTIAL, j] - total * room[_MEAN, j]) * scale
        moved = theta - eta * (g + room[_L2, j] * theta)
        room[at + _THETA, j] = moved
        room[at + _W, j] = moved * scale
        room[at + _PARTIAL, j] = 0.0


@strict_part
def _adam(slots: Array, k: int, j: int, g: float, bias1: float, bias2: float) -> Any:
    """Take a slope into Adam's moments, and return the step for a learning rate of 1."""
    slots[0, k, j] += (1.0 - BETA1) * (g - slots[0, k, j])
    slots[1, k, j] += (1.0 - BETA2) * (g * g - slots[1, k, j])
    return bias1 * slots[0, k, j] / (np.sqrt(bias2 * slots[1, k, j]) + EPSILON)


@strict_part
def _adam_step(
    room: Array,
    at: int,
    share: float,
    total: float,
    eta: float,
    slots: Array,
    k: int,
    bias1: float,
    bias2: float,
) -> None:
    """As `_step`, by Adam."""
    for j in range(slots.shape[2] - 1):
        theta, scale = room[at + _THETA, j], room[_INV_SCALE, j]
        g = share * (room[at + _PARTIAL, j] - total * room[_MEAN, j]) * scale
        moved = theta - eta * _adam(slots, k, j, g + room[_L2, j] * theta, bias1, bias2)
        room[at + _THETA, j] = moved
        room[at + _W, j] = moved * scale
        room[at + _PARTIAL, j] = 0.0


@strict_part
def _scan_single_rows(
    X: Rows,
    y: Array,
    weight: Array,
    order: Integers,
    Z: Array,
    Y: Array,
    room: Array,
    each: Array,
    theta: Array,
    counters: Integers,
    loss: int,
    schedule: int,
    eta0: float,
    horizon: float,
    fit_intercept: bool,
) -> Any:
    """Take a step for each row; return how many were taken, and leave in `Z` and `Y` what they say.

    A row that isn't finite ends it before its step. Of `theta`, only the intercepts are looked at.
    """
    rows, outputs, features = len(order), len(theta), X.shape[1]
    if rows == 0:
        return 0
    updates, eta = counters[1], 0.0
    z, r = each[0], each[1]
    for k in range(outputs):
        z[k] = r[k] = 0.0
    taken, row, next_row = rows, _ROWS, _ROWS + 1
    for t in range(-1, rows):  # at first, a step of nothing
        prefetch(X, order[min(t + _FAR, rows - 1)])
        # Before the slope, which is waited for and doesn't wait for this.
        _scale(X, order[min(t + 1, rows - 1)], room, next_row)
        if t >= 0:
            i = order[t]
            w = weight[i] if len(weight) else 1.0
            check = 0.0
            if loss == MULTINOMIAL:
                check = softmax_slope(y, i, z, r)
                Z[t, 0] = check
            for k in range(outputs):
                if loss == SQUARED:
                    r[k] = squared_slope(y[i, k], z[k])
                elif loss == LOGISTIC:
                    r[k] = _logistic_slope_of_one(y[i, k], z[k])
                elif loss != MULTINOMIAL:
                    r[k] = hinge_slope(y[i, k], z[k])
                if loss != MULTINOMIAL:
                    Z[t, k], Y[t, k] = z[k], y[i, k]
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
            at = _OUTPUTS + _EACH * k
            z[k] = theta[k, features] + _step_and_predict(room, row, next_row, at, step, eta)
        row, next_row = next_row, row
    counters[1] = updates
    return taken


@strict_part
def _scan_batches(
    X: Rows,
    y: Array,
    weight: Array,
    order: Integers,
    Z: Array,
    Y: Array,
    room: Array,
    each: Array,
    group: Array,
    places: Integers,
    theta: Array,
    slots: Array,
    partial: Array,
    counters: Integers,
    loss: int,
    batch_size: int,
    optimizer: int,
    schedule: int,
    eta0: float,
    horizon: float,
    fit_intercept: bool,
    flush: bool,
) -> Any:
    """As `_scan_single_rows`, a step for each batch, in groups of rows.

    What a group has too few of is its last row again, with a slope of nothing.
    """
    rows, outputs, features = len(order), len(theta), X.shape[1]
    filled, updates = counters[0], counters[1]
    z, r, due, w = group[:outputs], group[outputs:-2], group[-2], group[-1]
    z_row, r_row, constant = each[0], each[1], each[2]
    for i in range(GROUP):
        for k in range(len(group)):
            group[k, i] = 0.0
        w[i] = 1.0
    for k in range(outputs):
        constant[k] = theta[k, features] - _shift(room, _OUTPUTS + _EACH * k)
    bias1 = bias2 = 1.0
    taken, stopped, ended = 0, False, False
    while not ended:
        count = min(GROUP, batch_size - filled, rows - taken)
        for i in range(GROUP if count else 0):
            places[i] = order[taken + min(i, count - 1)]
        for i in range(count):
            prefetch(X, order[min(taken + i + _FAR, rows - 1)])
        for k in range(outputs):
            at = _OUTPUTS + _EACH * k
            for i in range(0, count, 4):
                _predict_four(X, places, i, room, at, constant[k], k, z)
        if len(weight) and count:
            for i in range(GROUP):
                w[i] = weight[places[i]]
        if loss == MULTINOMIAL:
            for i in range(count):
                for k in range(outputs):
                    z_row[k] = z[k, i]
                Z[taken + i, 0] = softmax_slope(y, places[i], z_row, r_row)
                for k in range(outputs):
                    r[k, i] = w[i] * r_row[k]
        else:
            for k in range(outputs):
                for i in range(count):
                    due[i] = Y[taken + i, k] = y[places[i], k]
                    Z[taken + i, k] = z[k, i]
                _slopes(loss, due, z, w, k, r)
        check = 0.0
        for k in range(outputs):
            for i in range(count):
                check += z[k, i] + r[k, i]
        if not np.isfinite(check):
            stopped = True
            count = _finite_rows(z, r, count)
            for i in range(count, GROUP if count else 0):
                places[i] = places[count - 1]
        for k in range(outputs):
            for i in range(count, GROUP):
                r[k, i] = 0.0
            at = _OUTPUTS + _EACH * k
            for i in range(0, count, 4):
                _add_four(X, places, i, r, k, room, at)
            for i in range(count):
                partial[k, features] += r[k, i]
        taken += count
        filled += count
        ended = stopped or taken == rows
        if filled == batch_size or (flush and ended and not stopped and filled > 0):
            eta, share = _rate(schedule, eta0, horizon, updates), 1.0 / filled
            updates += 1
            if optimizer == _ADAM:  # a power costs as much as a row
                t = float(updates)
                bias1, bias2 = 1.0 / (1.0 - BETA1**t), 1.0 / (1.0 - BETA2**t)
            for k in range(outputs):
                at, total = _OUTPUTS + _EACH * k, partial[k, features]
                g = share * total
                if optimizer == _ADAM:
                    _adam_step(room, at, share, total, eta, slots, k, bias1, bias2)
                    if fit_intercept:
                        g = _adam(slots, k, features, g, bias1, bias2)
                else:
                    _step(room, at, share, total, eta)
                if fit_intercept:
                    theta[k, features] -= eta * g
                partial[k, features] = 0.0
                constant[k] = theta[k, features] - _shift(room, at)
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
def _values(loss: int, Y: Array, Z: Array, rows: int, k: int) -> None:
    """Replace predictors of output `k` by the losses there, in vectors."""
    if loss == SQUARED:
        for t in range(rows):
            Z[t, k] = squared_value(Y[t, k], Z[t, k])
    elif loss == LOGISTIC:
        for t in range(rows):
            Z[t, k] = logistic_value(Y[t, k], Z[t, k])
    elif loss != MULTINOMIAL:
        for t in range(rows):
            Z[t, k] = hinge_value(Y[t, k], Z[t, k])


@strict_part
def _add_up(loss: int, Z: Array, weight: Array, order: Integers, rows: int, sums: Array) -> None:
    """Add losses and weights to `sums`, one after another."""
    columns = 1 if loss == MULTINOMIAL else Z.shape[1]
    total, total_weight = sums[0], sums[1]
    for t in range(rows):
        w = weight[order[t]] if len(weight) else 1.0
        total_weight += w
        for k in range(columns):
            total += w * Z[t, k]
    sums[0], sums[1] = total, total_weight


@part
def scan(
    X: Rows,
    y: Array,
    weight: Array,
    order: Integers,
    mean: Array,
    inv_scale: Array,
    l2: Array,
    theta: Array,
    slots: Array,
    partial: Array,
    counters: Integers,
    sums: Array,
    Z: Array,
    Y: Array,
    room: Array,
    each: Array,
    group: Array,
    places: Integers,
    loss: int,
    batch_size: int,
    optimizer: int,
    schedule: int,
    eta0: float,
    horizon: float,
    fit_intercept: bool,
    flush: bool,
) -> Any:
    """As `kernels.scan`."""
    _fill_room(room, theta, partial, mean, inv_scale, l2)
    if batch_size == 1 and optimizer == _SGD:
        taken = _scan_single_rows(
            X,
            y,
            weight,
            order,
            Z,
            Y,
            room,
            each,
            theta,
            counters,
            loss,
            schedule,
            eta0,
            horizon,
            fit_intercept,
        )
    else:
        taken = _scan_batches(
            X,
            y,
            weight,
            order,
            Z,
            Y,
            room,
            each,
            group,
            places,
            theta,
            slots,
            partial,
            counters,
            loss,
            batch_size,
            optimizer,
            schedule,
            eta0,
            horizon,
            fit_intercept,
            flush,
        )
    _leave_room(room, theta, partial)
    counters[2] += taken
    for k in range(Z.shape[1]):
        _values(loss, Y, Z, taken, k)
    _add_up(loss, Z, weight, order, taken, sums)
    return -1 if taken == len(order) else taken
