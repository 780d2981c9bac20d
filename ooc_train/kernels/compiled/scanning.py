"""Compiled updates: parameters carried through rows, at any batch size.

`shuffle` makes the order in which the rows of a chunk are learned from; `scan` learns from them
where they lie. Rows are scaled on the fly: parameters are of the scaled columns, predictors are of
those in the data's units, which are brought up to date with each step. What nothing waits for, the
values of the losses, is computed afterwards, in vectors.

Batches go in groups of rows, those of at most four in `quads`.

X is float32 or float64; everything else is float64. All arrays are C-contiguous. No result's bits
depend on where an array lies in memory, nor, but for quads, on where a pass is cut into calls.
"""

from typing import Any

import numpy as np

from ooc_train.core.sums import Array
from ooc_train.kernels.api import AGE, GROUP, WEIGHT
from ooc_train.kernels.compiled.parts import (
    FAR,
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
    rate_after,
    softmax_slope,
    squared_slope,
    squared_value,
    strict_part,
)
from ooc_train.kernels.compiled.unrolled import SHORT, scan_short_batches
from ooc_train.kernels.compiled.vectors import LANES, load, load_row, store, total, zeros
from ooc_train.kernels.compiled.workspace import (
    EACH,
    INV_SCALE,
    L2,
    MEAN,
    OUTPUTS,
    PARTIAL,
    THETA,
    W,
    average_with,
    fill,
    leave,
    predict_by_theta,
)
from ooc_train.optimizers.adam import Adam
from ooc_train.optimizers.schedules import RATE_UPDATES

__all__ = ["scan", "shuffle"]

_SGD, _ADAM = 0, 1
BETA1, BETA2, EPSILON = Adam.beta1, Adam.beta2, Adam.epsilon


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
def _shift(room: Array, at: int) -> Any:
    """Product of the means with the parameters that predict from rows as they lie."""
    shift = zeros()
    for j in range(0, room.shape[1], LANES):
        shift += load(room, at + W, j) * load(room, MEAN, j)
    return total(shift)


@strict_part
def _predict_four(
    X: Rows, places: Integers, first: int, room: Array, at: int, constant: float, k: int, z: Array
) -> None:
    """Write the predictors by output `k` of four rows, which share each load of a parameter."""
    a, b, c, d = places[first], places[first + 1], places[first + 2], places[first + 3]
    z0 = z1 = z2 = z3 = zeros()
    for j in range(0, room.shape[1], LANES):
        w = load(room, at + W, j)
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
        s = load(room, at + PARTIAL, j) + r0 * load_row(X, a, j)
        s += r1 * load_row(X, b, j)
        s += r2 * load_row(X, c, j)
        s += r3 * load_row(X, d, j)
        store(room, at + PARTIAL, j, s)


@strict_part
def _step(room: Array, at: int, share: float, total_slope: float, eta: float) -> Any:
    """Take a step down the mean gradient of a batch, and return `_shift` after it.

    `PARTIAL` is zero for the next.
    """
    shift = zeros()
    for j in range(0, room.shape[1], LANES):
        theta, mean = load(room, at + THETA, j), load(room, MEAN, j)
        scale = load(room, INV_SCALE, j)
        g = share * (load(room, at + PARTIAL, j) - total_slope * mean) * scale
        theta -= eta * (g + load(room, L2, j) * theta)
        w = theta * scale
        shift += w * mean
        store(room, at + THETA, j, theta)
        store(room, at + W, j, w)
        store(room, at + PARTIAL, j, zeros())
    return total(shift)


@strict_part
def _adam(
    slots: Array,
    k: int,
    j: int,
    g: float,
    gain1: float,
    gain2: float,
    bias1: float,
    bias2: float,
) -> Any:
    """Take a slope into Adam's moments, and return the step for a learning rate of 1."""
    slots[0, k, j] += gain1 * (g - slots[0, k, j])
    slots[1, k, j] += gain2 * (g * g - slots[1, k, j])
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
    gain1: float,
    gain2: float,
    bias1: float,
    bias2: float,
) -> None:
    """As `_step`, by Adam."""
    for j in range(slots.shape[2] - 1):
        theta, scale = room[at + THETA, j], room[INV_SCALE, j]
        g = share * (room[at + PARTIAL, j] - total_slope * room[MEAN, j]) * scale
        g += room[L2, j] * theta
        moved = theta - eta * _adam(slots, k, j, g, gain1, gain2, bias1, bias2)
        room[at + THETA, j] = moved
        room[at + W, j] = moved * scale
        room[at + PARTIAL, j] = 0.0


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
    average: Array,
    clock: Array,
    loss: int,
    batch_size: int,
    optimizer: int,
    every: int,
    rates: Array,
    fit_intercept: bool,
    flush: bool,
) -> Any:
    """Take a step for each batch, in groups of rows; return how far that came.

    What a group has too few of is its last row again, with a slope of nothing. A row that isn't
    finite ends it before that. The step of an incomplete batch is in proportion to its rows. Adam
    takes none for a batch without weight: the moments alone would move the parameters.
    """
    outputs, features = len(theta), X.shape[1]
    filled, updates, heft = counters[0], counters[1], clock[WEIGHT]
    z, r = group[:outputs], group[outputs : 2 * outputs]
    due, w = group[2 * outputs], group[2 * outputs + 1]
    z_row, r_row, constant = each[0], each[1], each[2]
    for i in range(GROUP):
        for k in range(len(group)):
            group[k, i] = 0.0
        w[i] = 1.0
    for k in range(outputs):
        constant[k] = theta[k, features] - _shift(room, OUTPUTS + EACH * k)
    gain1, gain2, bias1, bias2 = 1.0, 1.0, 1.0, 1.0
    rate = rate_after(rates, updates)
    taken, stopped, ended = first, False, False
    while not ended:
        count = min(GROUP, batch_size - filled, stop - taken)
        in_vectors = -(-count // LANES) * LANES
        for i in range(in_vectors):
            places[i] = order[taken + min(i, count - 1)]
        for i in range(0, count, 4):
            for ahead in range(taken + i + FAR, taken + i + FAR + 4):
                prefetch(X, order[min(ahead, stop - 1)])
            for k in range(outputs):
                _predict_four(X, places, i, room, OUTPUTS + EACH * k, constant[k], k, z)
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
            at = OUTPUTS + EACH * k
            for i in range(0, count, 4):
                _add_four(X, places, i, r, k, room, at)
            for i in range(count):
                partial[k, features] += r[k, i]
        if optimizer == _ADAM:
            for i in range(count):
                heft += w[i]
        taken += count
        filled += count
        ended = stopped or taken == stop
        if filled == batch_size or (flush and ended and not stopped and filled > 0):
            if optimizer == _SGD or heft > 0.0:
                part_of_batch, share = filled / batch_size, 1.0 / filled
                if updates % RATE_UPDATES == 0:
                    rate = rate_after(rates, updates)
                eta = part_of_batch * rate
                updates += 1
                if optimizer == _ADAM:  # a power costs as much as a row
                    clock[AGE] += part_of_batch
                    gain1, gain2 = 1.0 - BETA1, 1.0 - BETA2
                    if filled < batch_size:
                        gain1, gain2 = 1.0 - BETA1**part_of_batch, 1.0 - BETA2**part_of_batch
                    bias1 = 1.0 / (1.0 - BETA1 ** clock[AGE])
                    bias2 = 1.0 / (1.0 - BETA2 ** clock[AGE])
                for k in range(outputs):
                    at, total_slope = OUTPUTS + EACH * k, partial[k, features]
                    g = share * total_slope
                    if optimizer == _ADAM:
                        _adam_step(
                            room,
                            at,
                            share,
                            total_slope,
                            eta,
                            slots,
                            k,
                            gain1,
                            gain2,
                            bias1,
                            bias2,
                        )
                        shift = _shift(room, at)
                        if fit_intercept:
                            g = _adam(slots, k, features, g, gain1, gain2, bias1, bias2)
                    else:
                        shift = _step(room, at, share, total_slope, eta)
                    if fit_intercept:
                        theta[k, features] -= eta * g
                    partial[k, features] = 0.0
                    constant[k] = theta[k, features] - shift
                if updates % every == 0:
                    average_with(average, clock, theta, room)
            filled, heft = 0, 0.0
    counters[0], counters[1], clock[WEIGHT] = filled, updates, heft
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
    average: Array,
    clock: Array,
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
    every: int,
    rates: Array,
    fit_intercept: bool,
    flush: bool,
) -> Any:
    """As `kernels.Scan`."""
    fill(room, theta, partial, mean, inv_scale, l2)
    rows, taken = len(order), 0
    short = batch_size <= SHORT and optimizer == _SGD
    begun = -counters[0] % batch_size if short else 0
    # What an earlier call left of a short batch, then whole ones, then the rest.
    for phase in range(3):
        if phase == 1:
            if short and taken == begun:
                whole = taken + (rows - taken) // batch_size * batch_size
                taken = scan_short_batches(
                    X,
                    y,
                    weight,
                    order,
                    taken,
                    whole,
                    Z,
                    Y,
                    room,
                    each,
                    group,
                    theta,
                    counters,
                    average,
                    clock,
                    loss,
                    batch_size,
                    every,
                    rates,
                    fit_intercept,
                )
                predict_by_theta(room, len(theta))
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
                average,
                clock,
                loss,
                batch_size,
                optimizer,
                every,
                rates,
                fit_intercept,
                flush and phase == 2,
            )
    leave(room, theta, partial)
    counters[2] += taken
    for k in range(Z.shape[1]):
        _values(loss, Y, Z, taken, k)
    _add_up(loss, Z, weight, order, taken, sums)
    return -1 if taken == rows else taken
