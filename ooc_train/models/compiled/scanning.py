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

from ooc_train.models.compiled.parts import (
    LOGISTIC,
    MULTINOMIAL,
    SQUARED,
    Integers,
    Rows,
    hinge_slope,
    hinge_value,
    logistic_slope,
    logistic_slope_of_one,
    logistic_value,
    part,
    prefetch,
    softmax_slope,
    squared_slope,
    squared_value,
    strict_part,
)
from ooc_train.models.compiled.vectors import LANES, load, load_row, store, total, zeros
from ooc_train.models.kernels import GROUP, ROOM_ROWS, ROOM_ROWS_OF_OUTPUT
from ooc_train.models.losses import Array
from ooc_train.models.rules import BETA1, BETA2, EPSILON, OPTIMIZERS, SCHEDULES

__all__ = ["scan", "shuffle"]

_SGD, _ADAM = OPTIMIZERS["sgd"], OPTIMIZERS["adam"]
_LINEAR, _INVERSE_SQRT = SCHEDULES["linear"], SCHEDULES["inverse_sqrt"]

_MEAN, _INV_SCALE, _L2, _ROWS, _OUTPUTS = 0, 1, 2, 3, ROOM_ROWS
"""Rows of the room that updates work in: at `_ROWS` begin two quads of rows of X, scaled, and at
`_OUTPUTS`, which is `ROOM_ROWS`, what there is of each output."""

_THETA, _PARTIAL, _W, _EACH = 0, 1, 2, ROOM_ROWS_OF_OUTPUT
"""Of each output: parameters of the scaled columns, the sum of a batch's gradients, and parameters
that predict from rows as they lie."""

_RATES, _DECAYS, _BETWEEN, _PRODUCTS, _OF_QUAD = range(5)
"""What there is to know of a quad: of each row, how far a slope goes, how much of `_L2` to lose
before its step, and before its predictor; and products of its rows."""

_SHORT = 4
"""Rows of the largest batches that are taken in quads of whole ones."""

_FAR = 8
"""Rows by which `scan` asks for a row ahead of learning from it."""


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
    """Put all that updates go through side by side, in whole vectors."""
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
def _predict_by(room: Array, outputs: int) -> None:
    """Bring the parameters that predict from rows as they lie up to date."""
    for k in range(outputs):
        at = _OUTPUTS + _EACH * k
        for j in range(room.shape[1]):
            room[at + _W, j] = room[at + _THETA, j] * room[_INV_SCALE, j]


@strict_part
def _leave_room(room: Array, theta: Array, partial: Array) -> None:
    """Take parameters and gradients back."""
    for k in range(len(theta)):
        at = _OUTPUTS + _EACH * k
        for j in range(theta.shape[1] - 1):
            theta[k, j], partial[k, j] = room[at + _THETA, j], room[at + _PARTIAL, j]


@strict_part
def _make_quad(
    X: Rows,
    order: Integers,
    first: int,
    last: int,
    room: Array,
    row: int,
    quad: Array,
    at: int,
    batch_size: int,
    intercept: float,
) -> None:
    """Write four rows of X, scaled, and, where batches end within a quad, products of each two.

    They are those at `first` of the order, and that at `last` again. What a step loses by the
    penalty of those between it and a row, their product does: there are such steps between single
    rows alone.
    """
    a, b = order[first], order[min(first + 1, last)]
    c, d = order[min(first + 2, last)], order[min(first + 3, last)]
    lost2 = lost3 = 0.0
    if batch_size == 1:
        lost2, lost3 = quad[at + _BETWEEN, 2], quad[at + _BETWEEN, 3]
    p10 = p20 = p21 = p30 = p31 = p32 = zeros()
    for j in range(0, room.shape[1], LANES):
        mean, inv_scale = load(room, _MEAN, j), load(room, _INV_SCALE, j)
        x0 = (load_row(X, a, j) - mean) * inv_scale
        x1 = (load_row(X, b, j) - mean) * inv_scale
        x2 = (load_row(X, c, j) - mean) * inv_scale
        x3 = (load_row(X, d, j) - mean) * inv_scale
        store(room, row, j, x0)
        store(room, row + 1, j, x1)
        store(room, row + 2, j, x2)
        store(room, row + 3, j, x3)
        if batch_size < 3:
            l2 = load(room, _L2, j)
            p10 += x0 * x1
            x0 *= 1.0 - lost2 * l2
            p20 += x0 * x2
            p21 += x1 * x2
            p32 += x2 * x3
            x3 *= 1.0 - lost3 * l2
            p30 += x0 * x3
            p31 += x1 * x3
    if batch_size < 3:
        # A step comes at the end of its batch, and takes the intercept along.
        within = batch_size == 2
        quad[at + _PRODUCTS, 0] = 0.0 if within else total(p10) + intercept
        quad[at + _PRODUCTS, 1] = total(p20) + intercept
        quad[at + _PRODUCTS, 2] = total(p21) + intercept
        quad[at + _PRODUCTS, 3] = total(p30) + intercept
        quad[at + _PRODUCTS, 4] = total(p31) + intercept
        quad[at + _PRODUCTS, 5] = 0.0 if within else total(p32) + intercept


@strict_part
def _step_and_predict_quad(
    room: Array,
    row: int,
    next_row: int,
    at: int,
    k: int,
    base: Array,
    steps: Array,
    quad: Array,
    now: int,
    following: int,
    batch_size: int,
) -> None:
    """Take the steps of four scaled rows, and write what the parameters say of the next four.

    Parameters
    ----------
    base, steps : what they say, and for each of the rows how far down it to go
    quad, now, following : where in `quad` there is what is known of both
    """
    c0, c1, c2, c3 = steps[k, 0], steps[k, 1], steps[k, 2], steps[k, 3]
    e0, e1 = quad[now + _DECAYS, 0], quad[now + _DECAYS, 1]
    e2, e3 = quad[now + _DECAYS, 2], quad[now + _DECAYS, 3]
    f1, f2 = quad[following + _BETWEEN, 1], quad[following + _BETWEEN, 2]
    f3 = quad[following + _BETWEEN, 3]
    z0 = z1 = z2 = z3 = zeros()
    for j in range(0, room.shape[1], LANES):
        theta, l2 = load(room, at + _THETA, j), load(room, _L2, j)
        theta = theta * (1.0 - e0 * l2) - c0 * load(room, row, j)
        if batch_size == 1:
            theta *= 1.0 - e1 * l2
        theta -= c1 * load(room, row + 1, j)
        if batch_size < 3:
            theta *= 1.0 - e2 * l2
        theta -= c2 * load(room, row + 2, j)
        if batch_size == 1:
            theta *= 1.0 - e3 * l2
        theta -= c3 * load(room, row + 3, j)
        store(room, at + _THETA, j, theta)
        z0 += theta * load(room, next_row, j)
        if batch_size == 1:
            theta *= 1.0 - f1 * l2
        z1 += theta * load(room, next_row + 1, j)
        if batch_size < 3:
            theta *= 1.0 - f2 * l2
        z2 += theta * load(room, next_row + 2, j)
        if batch_size == 1:
            theta *= 1.0 - f3 * l2
        z3 += theta * load(room, next_row + 3, j)
    base[k, 0], base[k, 1] = total(z0), total(z1)
    base[k, 2], base[k, 3] = total(z2), total(z3)


@strict_part
def _shift(room: Array, at: int) -> Any:
    """Product of the means with the parameters that predict from rows as they lie."""
    shift = zeros()
    for j in range(0, room.shape[1], LANES):
        shift += load(room, at + _W, j) * load(room, _MEAN, j)
    return total(shift)


@strict_part
def _predict_four(
    X: Rows, places: Integers, first: int, room: Array, at: int, constant: float, k: int, z: Array
) -> None:
    """Write the predictors by output `k` of four rows, which share each load of a parameter."""
    a, b, c, d = places[first], places[first + 1], places[first + 2], places[first + 3]
    z0 = z1 = z2 = z3 = zeros()
    for j in range(0, room.shape[1], LANES):
        w = load(room, at + _W, j)
        z0 += w * load_row(X, a, j)
        z1 += w * load_row(X, b, j)
        z2 += w * load_row(X, c, j)
        z3 += w * load_row(X, d, j)
    z[k, first], z[k, first + 1] = total(z0) + constant, total(z1) + constant
    z[k, first + 2], z[k, first + 3] = total(z2) + constant, total(z3) + constant


@strict_part
def _slopes(loss: int, due: Array, z: Array, w: Array, k: int, rows: int, r: Array) -> None:
    """Write the derivatives of a pointwise loss by the predictors of a group, in whole vectors."""
    if loss == SQUARED:
        for i in range(rows):
            r[k, i] = w[i] * squared_slope(due[i], z[k, i])
    elif loss == LOGISTIC:
        for i in range(rows):
            r[k, i] = w[i] * logistic_slope(due[i], z[k, i])
    else:
        for i in range(rows):
            r[k, i] = w[i] * hinge_slope(due[i], z[k, i])


@strict_part
def _add_four(
    X: Rows, places: Integers, first: int, r: Array, k: int, room: Array, at: int
) -> None:
    """Add the gradients of four rows by output `k`, one after another."""
    a, b, c, d = places[first], places[first + 1], places[first + 2], places[first + 3]
    r0, r1, r2, r3 = r[k, first], r[k, first + 1], r[k, first + 2], r[k, first + 3]
    for j in range(0, room.shape[1], LANES):
        s = load(room, at + _PARTIAL, j) + r0 * load_row(X, a, j)
        s += r1 * load_row(X, b, j)
        s += r2 * load_row(X, c, j)
        s += r3 * load_row(X, d, j)
        store(room, at + _PARTIAL, j, s)


@strict_part
def _step(room: Array, at: int, share: float, total_slope: float, eta: float) -> Any:
    """Take a step down the mean gradient of a batch, and return `_shift` after it.

    `_PARTIAL` is zero for the next.
    """
    shift = zeros()
    for j in range(0, room.shape[1], LANES):
        theta, mean = load(room, at + _THETA, j), load(room, _MEAN, j)
        scale = load(room, _INV_SCALE, j)
        g = share * (load(room, at + _PARTIAL, j) - total_slope * mean) * scale
        theta -= eta * (g + load(room, _L2, j) * theta)
        w = theta * scale
        shift += w * mean
        store(room, at + _THETA, j, theta)
        store(room, at + _W, j, w)
        store(room, at + _PARTIAL, j, zeros())
    return total(shift)


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
    total_slope: float,
    eta: float,
    slots: Array,
    k: int,
    bias1: float,
    bias2: float,
) -> None:
    """As `_step`, by Adam."""
    for j in range(slots.shape[2] - 1):
        theta, scale = room[at + _THETA, j], room[_INV_SCALE, j]
        g = share * (room[at + _PARTIAL, j] - total_slope * room[_MEAN, j]) * scale
        moved = theta - eta * _adam(slots, k, j, g + room[_L2, j] * theta, bias1, bias2)
        room[at + _THETA, j] = moved
        room[at + _W, j] = moved * scale
        room[at + _PARTIAL, j] = 0.0


@strict_part
def _slopes_of_row(
    y: Array,
    i: int,
    w: float,
    loss: int,
    theta: Array,
    outputs: int,
    base: Array,
    steps: Array,
    quad: Array,
    now: int,
    m: int,
    chained: bool,
    each: Array,
    Z: Array,
    Y: Array,
    t: int,
) -> Any:
    """Write the steps down row `m` of a quad; return what isn't finite where one of them isn't."""
    features, pair, rate = theta.shape[1] - 1, m * (m - 1) // 2, w * quad[now + _RATES, m]
    check = 0.0
    for k in range(outputs):
        z = theta[k, features] + base[k, m]
        if chained:
            if m > 0:
                z -= steps[k, 0] * quad[now + _PRODUCTS, pair]
            if m > 1:
                z -= steps[k, 1] * quad[now + _PRODUCTS, pair + 1]
            if m > 2:
                z -= steps[k, 2] * quad[now + _PRODUCTS, pair + 2]
        if loss == MULTINOMIAL:
            each[0, k] = z
            continue
        due = y[i, k]
        if loss == SQUARED:
            slope = squared_slope(due, z)
        elif loss == LOGISTIC:
            slope = logistic_slope_of_one(due, z)
        else:
            slope = hinge_slope(due, z)
        steps[k, m] = rate * slope
        Z[t, k], Y[t, k] = z, due
        check += z + w * slope
    if loss == MULTINOMIAL:
        check = Z[t, 0] = softmax_slope(y, i, each[0], each[1])
        for k in range(outputs):
            steps[k, m] = rate * each[1, k]
            check += each[0, k] + w * each[1, k]
    return check


@strict_part
def _scan_short_batches(
    X: Rows,
    y: Array,
    weight: Array,
    order: Integers,
    first: int,
    stop: int,
    outputs: int,
    Z: Array,
    Y: Array,
    room: Array,
    each: Array,
    group: Array,
    theta: Array,
    counters: Integers,
    loss: int,
    batch_size: int,
    schedule: int,
    eta0: float,
    horizon: float,
    fit_intercept: bool,
) -> Any:
    """Take a step for each batch of at most four rows; return how far that came.

    They are taken in quads of whole batches. What a row's predictor owes to the steps within its
    quad comes of the products of their rows, so that only slopes have to wait for one another: the
    parameters are gone through once a quad. What isn't finite ends it before its quad. Of `theta`,
    only the intercepts are looked at.
    """
    features = X.shape[1]
    base, steps, quad = group[:outputs], group[outputs : 2 * outputs], group[2 * outputs :]
    for i in range(GROUP):
        for k in range(len(group)):
            group[k, i] = 0.0
    size, chained, updates = 4 // batch_size * batch_size, batch_size < 3, counters[1]
    intercept = 1.0 if fit_intercept else 0.0
    row, next_row, now, following = _ROWS, _ROWS + 4, 0, _OF_QUAD
    start, taken, ended = first - size, first, first >= stop
    while not ended:
        next_start = start + size
        for m in range(4):
            begins = m < size and m % batch_size == 0
            rate = _rate(schedule, eta0, horizon, updates + m // batch_size)
            quad[following + _RATES, m] = rate / batch_size
            quad[following + _DECAYS, m] = rate if begins else 0.0
            quad[following + _BETWEEN, m] = 0.0
            if begins and m > 0:
                quad[following + _BETWEEN, m] = batch_size * quad[following + _RATES, m - 1]
        good = count = min(size, stop - start) if start >= first else 0
        for m in range(4):
            if m < count:
                i = order[start + m]
                w = weight[i] if len(weight) else 1.0
                check = _slopes_of_row(
                    y,
                    i,
                    w,
                    loss,
                    theta,
                    outputs,
                    base,
                    steps,
                    quad,
                    now,
                    m,
                    chained,
                    each,
                    Z,
                    Y,
                    start + m,
                )
                if not np.isfinite(check):
                    good = min(good, m)
            prefetch(X, order[min(next_start + _FAR + m, stop - 1)])
        if start >= first:
            good = good // batch_size * batch_size
            taken = start + good
            ended = taken == stop or good < count
            for m in range(good, size):  # there are none, but at the end
                quad[now + _DECAYS, m] = 0.0
                for k in range(outputs):
                    steps[k, m] = 0.0
                for j in range(room.shape[1]):
                    room[row + m, j] = 0.0
        last = min(next_start + size, stop) - 1
        _make_quad(
            X,
            order,
            min(next_start, last),
            last,
            room,
            next_row,
            quad,
            following,
            batch_size,
            intercept,
        )
        for k in range(outputs):
            at = _OUTPUTS + _EACH * k
            _step_and_predict_quad(
                room, row, next_row, at, k, base, steps, quad, now, following, batch_size
            )
            if fit_intercept:
                theta[k, features] -= (steps[k, 0] + steps[k, 1]) + (steps[k, 2] + steps[k, 3])
        start, updates = next_start, updates + size // batch_size
        row, next_row, now, following = next_row, row, following, now
    counters[1] += (taken - first) // batch_size
    return taken


@strict_part
def _scan_batches(
    X: Rows,
    y: Array,
    weight: Array,
    order: Integers,
    first: int,
    stop: int,
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
    """Take a step for each batch, in groups of rows; return how far that came.

    What a group has too few of is its last row again, with a slope of nothing. A row that isn't
    finite ends it before that.
    """
    outputs, features = len(theta), X.shape[1]
    filled, updates = counters[0], counters[1]
    z, r = group[:outputs], group[outputs : 2 * outputs]
    due, w = group[2 * outputs], group[2 * outputs + 1]
    z_row, r_row, constant = each[0], each[1], each[2]
    for i in range(GROUP):
        for k in range(len(group)):
            group[k, i] = 0.0
        w[i] = 1.0
    for k in range(outputs):
        constant[k] = theta[k, features] - _shift(room, _OUTPUTS + _EACH * k)
    bias1 = bias2 = 1.0
    taken, stopped, ended = first, False, False
    while not ended:
        count = min(GROUP, batch_size - filled, stop - taken)
        in_vectors = -(-count // LANES) * LANES
        for i in range(in_vectors):
            places[i] = order[taken + min(i, count - 1)]
        for i in range(0, count, 4):
            for ahead in range(taken + i + _FAR, taken + i + _FAR + 4):
                prefetch(X, order[min(ahead, stop - 1)])
            for k in range(outputs):
                _predict_four(X, places, i, room, _OUTPUTS + _EACH * k, constant[k], k, z)
        if len(weight):
            for i in range(in_vectors):
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
                _slopes(loss, due, z, w, k, in_vectors, r)
        check = 0.0
        for k in range(outputs):
            for i in range(count):
                check += z[k, i] + r[k, i]
        if not np.isfinite(check):
            stopped = True
            count = _finite_rows(z, r, count)
            for i in range(count, in_vectors if count else 0):
                places[i] = places[count - 1]
        for k in range(outputs):
            for i in range(count, in_vectors):
                r[k, i] = 0.0
            at = _OUTPUTS + _EACH * k
            for i in range(0, count, 4):
                _add_four(X, places, i, r, k, room, at)
            for i in range(count):
                partial[k, features] += r[k, i]
        taken += count
        filled += count
        ended = stopped or taken == stop
        if filled == batch_size or (flush and ended and not stopped and filled > 0):
            eta, share = _rate(schedule, eta0, horizon, updates), 1.0 / filled
            updates += 1
            if optimizer == _ADAM:  # a power costs as much as a row
                t = float(updates)
                bias1, bias2 = 1.0 / (1.0 - BETA1**t), 1.0 / (1.0 - BETA2**t)
            for k in range(outputs):
                at, total_slope = _OUTPUTS + _EACH * k, partial[k, features]
                g = share * total_slope
                if optimizer == _ADAM:
                    _adam_step(room, at, share, total_slope, eta, slots, k, bias1, bias2)
                    shift = _shift(room, at)
                    if fit_intercept:
                        g = _adam(slots, k, features, g, bias1, bias2)
                else:
                    shift = _step(room, at, share, total_slope, eta)
                if fit_intercept:
                    theta[k, features] -= eta * g
                partial[k, features] = 0.0
                constant[k] = theta[k, features] - shift
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
    total_loss, total_weight = sums[0], sums[1]
    for t in range(rows):
        w = weight[order[t]] if len(weight) else 1.0
        total_weight += w
        for k in range(columns):
            total_loss += w * Z[t, k]
    sums[0], sums[1] = total_loss, total_weight


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
    """As `kernels.Scan`."""
    _fill_room(room, theta, partial, mean, inv_scale, l2)
    rows, taken = len(order), 0
    short = batch_size <= _SHORT and optimizer == _SGD
    # What an earlier call left of a batch is first of all.
    begun = -counters[0] % batch_size if short else 0
    for phase in range(3):
        if phase == 1:
            if short and taken == begun:
                whole = taken + (rows - taken) // batch_size * batch_size
                if len(theta) == 1 and loss != MULTINOMIAL:
                    taken = _scan_short_batches(
                        X,
                        y,
                        weight,
                        order,
                        taken,
                        whole,
                        1,
                        Z,
                        Y,
                        room,
                        each,
                        group,
                        theta,
                        counters,
                        loss,
                        batch_size,
                        schedule,
                        eta0,
                        horizon,
                        fit_intercept,
                    )
                else:
                    taken = _scan_short_batches(
                        X,
                        y,
                        weight,
                        order,
                        taken,
                        whole,
                        len(theta),
                        Z,
                        Y,
                        room,
                        each,
                        group,
                        theta,
                        counters,
                        loss,
                        batch_size,
                        schedule,
                        eta0,
                        horizon,
                        fit_intercept,
                    )
                _predict_by(room, len(theta))
        elif begun > 0 if phase == 0 else taken < rows or flush:
            stop = min(begun, rows) if phase == 0 else rows
            taken = _scan_batches(
                X,
                y,
                weight,
                order,
                taken,
                stop,
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
                flush and phase == 2,
            )
    _leave_room(room, theta, partial)
    counters[2] += taken
    for k in range(Z.shape[1]):
        _values(loss, Y, Z, taken, k)
    _add_up(loss, Z, weight, order, taken, sums)
    return -1 if taken == rows else taken
