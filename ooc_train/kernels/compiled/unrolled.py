"""Updates by batches of at most four rows, unrolled: one loop over the parameters for four rows.

In batches of one row, each predictor waits for a step, the step for a loss, and the loss for a
predictor. But a step changes a predictor by the step times the product of two rows. No row waits
for that product. So the predictors of four rows (a "quad") follow from the parameters before the
first row, and from the products of the rows. Only slopes wait for one another. One loop over the
parameters then takes the four steps, and multiplies the next four rows with the result. Up to
rounding, the result is that of one step after another.
"""

from typing import Any

import numpy as np

from ooc_train.core.sums import Array
from ooc_train.kernels.compiled.loop_parts import LossParts, own_class_factor, target_of
from ooc_train.kernels.compiled.parts import FAR, part, prefetch, rate_after, strict_part
from ooc_train.kernels.compiled.scanning import add_up_of
from ooc_train.kernels.compiled.upkeep import average_with, predict_by_theta
from ooc_train.kernels.compiled.vectors import load, load_row, store, total, zeros
from ooc_train.kernels.layout import (
    EACH,
    GROUP,
    INV_SCALE,
    L2,
    LANES,
    MEAN,
    OUTPUTS,
    ROWS,
    THETA,
    Integers,
    Rows,
)

_RATES, _DECAYS, _BETWEEN, _PRODUCTS, _OF_QUAD = range(5)
"""Rows of the array "quad", with one entry for each of its rows of X: the rate by the batch size,
the rate of the penalty's decay before the row's step, and the one before its predictor. `_PRODUCTS`
is the row of products of rows of X, and `_OF_QUAD` the number of rows."""


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
    """Write four scaled rows of X and, if batches end within a quad, the products of each two.

    The rows are at `first` of the order and after; row `last` is repeated for absent rows. A step
    shrinks by the penalty of the steps between it and a later row, and so does the product of the
    two. Such steps exist between single rows only.
    """
    a, b = order[first], order[min(first + 1, last)]
    c, d = order[min(first + 2, last)], order[min(first + 3, last)]
    lost2 = lost3 = 0.0
    if batch_size == 1:
        lost2, lost3 = quad[at + _BETWEEN, 2], quad[at + _BETWEEN, 3]
    p10 = p20 = p21 = p30 = p31 = p32 = zeros()
    for j in range(0, room.shape[1], LANES):
        mean, inv_scale = load(room, MEAN, j), load(room, INV_SCALE, j)
        x0 = (load_row(X, a, j) - mean) * inv_scale
        x1 = (load_row(X, b, j) - mean) * inv_scale
        x2 = (load_row(X, c, j) - mean) * inv_scale
        x3 = (load_row(X, d, j) - mean) * inv_scale
        store(room, row, j, x0)
        store(room, row + 1, j, x1)
        store(room, row + 2, j, x2)
        store(room, row + 3, j, x3)
        if batch_size < 3:
            l2 = load(room, L2, j)
            p10 += x0 * x1
            x0 *= 1.0 - lost2 * l2
            p20 += x0 * x2
            p21 += x1 * x2
            p32 += x2 * x3
            x3 *= 1.0 - lost3 * l2
            p30 += x0 * x3
            p31 += x1 * x3
    if batch_size < 3:
        # Rows of one batch have a step together, which also moves the intercept.
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
    """Take the steps of four scaled rows, and write predictors of the next four to `base`.

    `steps` has the step along each row. `now` and `following` are the rows of `quad` that describe
    the quad at `row` and the one at `next_row`.
    """
    c0, c1, c2, c3 = steps[k, 0], steps[k, 1], steps[k, 2], steps[k, 3]
    e0, e1 = quad[now + _DECAYS, 0], quad[now + _DECAYS, 1]
    e2, e3 = quad[now + _DECAYS, 2], quad[now + _DECAYS, 3]
    f1, f2 = quad[following + _BETWEEN, 1], quad[following + _BETWEEN, 2]
    f3 = quad[following + _BETWEEN, 3]
    z0 = z1 = z2 = z3 = zeros()
    for j in range(0, room.shape[1], LANES):
        theta, l2 = load(room, at + THETA, j), load(room, L2, j)
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
        store(room, at + THETA, j, theta)
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


def _slopes_of(loss: LossParts, *, single: bool) -> Any:
    """Return a part that writes the steps along one row of a quad.

    The part returns a number that is not finite if a predictor or a slope is not. If `single`,
    there is one output, whose y is never the code of a class: the next row waits for nothing that
    a code would need.
    """
    rowwise, row_of, slope_of = loss.rowwise, loss.row, loss.quick_slope

    @strict_part
    def predict(
        arguments: Any, k: int, m: int, base: Array, steps: Array, quad: Array, now: int
    ) -> Any:
        theta, pair = arguments.theta, m * (m - 1) // 2
        z = theta[k, theta.shape[1] - 1] + base[k, m]
        if arguments.batch_size < 3:
            if m > 0:
                z -= steps[k, 0] * quad[now + _PRODUCTS, pair]
            if m > 1:
                z -= steps[k, 1] * quad[now + _PRODUCTS, pair + 1]
            if m > 2:
                z -= steps[k, 2] * quad[now + _PRODUCTS, pair + 2]
        return z

    if rowwise:

        @strict_part
        def of_row(
            arguments: Any,
            outputs: int,
            t: int,
            m: int,
            base: Array,
            steps: Array,
            quad: Array,
            now: int,
        ) -> Any:
            i, each = arguments.order[t], arguments.each
            w = arguments.weight[i] if len(arguments.weight) else 1.0
            rate = w * quad[now + _RATES, m]
            for k in range(outputs):
                each[0, k] = predict(arguments, k, m, base, steps, quad, now)
            check = arguments.Z[t, 0] = row_of(arguments.loss, arguments.y, i, each[0], each[1])
            for k in range(outputs):
                steps[k, m] = rate * each[1, k]
                check += each[0, k] + w * each[1, k]
            return check

        return of_row

    @strict_part
    def of_outputs(
        arguments: Any,
        outputs: int,
        t: int,
        m: int,
        base: Array,
        steps: Array,
        quad: Array,
        now: int,
    ) -> Any:
        i, Z, Y = arguments.order[t], arguments.Z, arguments.Y
        w = arguments.weight[i] if len(arguments.weight) else 1.0
        rate = w * quad[now + _RATES, m]
        check = 0.0
        for k in range(outputs):
            z = predict(arguments, k, m, base, steps, quad, now)
            due = arguments.y[i, 0] if single else target_of(arguments.y, i, k, outputs)
            slope = slope_of(arguments.loss, due, z)
            if not single:
                slope *= own_class_factor(arguments.y, arguments.own, i, k)
            steps[k, m] = rate * slope
            Z[t, k], Y[t, k] = z, due
            check += z + w * slope
        return check

    return of_outputs


def scan_unrolled_of(loss: LossParts, *, single: bool) -> Any:
    """Return the kernel `scan_unrolled`, which takes a step for each batch of at most four rows.

    A batch with a row that is not finite ends the scan before that batch. Of `theta`, only the
    intercepts are used. If `single`, there is one output: the compiler removes loops over outputs,
    which saves half of the time.
    """
    slopes_of_row, add_up = _slopes_of(loss, single=single), add_up_of(loss)

    @strict_part
    def batches(arguments: Any) -> Any:
        X, order, theta, room = arguments.X, arguments.order, arguments.theta, arguments.room
        group, counters, rates = arguments.group, arguments.counters, arguments.rates
        batch_size, stop = arguments.batch_size, len(order)
        outputs = 1 if single else len(theta)
        features = X.shape[1]
        base, steps, quad = group[:outputs], group[outputs : 2 * outputs], group[2 * outputs :]
        for i in range(GROUP):
            for k in range(len(group)):
                group[k, i] = 0.0
        size, updates = 4 // batch_size * batch_size, counters[1]
        intercept = 1.0 if arguments.fit_intercept != 0 else 0.0
        rate = rate_after(rates, updates)
        row, next_row, now, following = ROWS, ROWS + 4, 0, _OF_QUAD
        start, taken, ended = -size, 0, stop <= 0
        while not ended:
            next_start, begun = start + size, updates
            for m in range(4):
                begins = m < size and m % batch_size == 0
                if begins:
                    rate = rate_after(rates, begun)
                    begun += 1
                quad[following + _RATES, m] = rate / batch_size
                quad[following + _DECAYS, m] = rate if begins else 0.0
                quad[following + _BETWEEN, m] = 0.0
                if begins and m > 0:
                    quad[following + _BETWEEN, m] = quad[following + _DECAYS, m - batch_size]
            good = count = min(size, stop - start) if start >= 0 else 0
            for m in range(4):
                if m < count:
                    check = slopes_of_row(arguments, outputs, start + m, m, base, steps, quad, now)
                    if not np.isfinite(check):
                        good = min(good, m)
                prefetch(X, order[min(next_start + FAR + m, stop - 1)])
            if start >= 0:
                good = good // batch_size * batch_size
                taken = start + good
                ended = taken == stop or good < count
                for m in range(good, size):  # only at the end
                    quad[now + _DECAYS, m] = 0.0
                    for k in range(outputs):
                        steps[k, m] = 0.0
                    for j in range(room.shape[1]):
                        room[row + m, j] = 0.0
            last = min(next_start + size, stop) - 1
            first = min(next_start, last)
            _make_quad(
                X, order, first, last, room, next_row, quad, following, batch_size, intercept
            )
            for k in range(outputs):
                at = OUTPUTS + EACH * k
                _step_and_predict_quad(
                    room, row, next_row, at, k, base, steps, quad, now, following, batch_size
                )
                if arguments.fit_intercept != 0:
                    theta[k, features] -= (steps[k, 0] + steps[k, 1]) + (steps[k, 2] + steps[k, 3])
            if good > 0:
                # `every` is a power of two. A multiple lies in these steps if the last bits say so.
                done, steps_taken = counters[1] + taken // batch_size, good // batch_size
                if done & (arguments.every - 1) < steps_taken:
                    average_with(arguments.average, arguments.clock, theta, room)
            start, updates = next_start, updates + size // batch_size
            row, next_row, now, following = next_row, row, following, now
        counters[1] += taken // batch_size
        return taken

    @part
    def scan_unrolled(arguments: Any) -> Any:
        rows = len(arguments.order)
        taken = batches(arguments)
        predict_by_theta(arguments.room, len(arguments.theta))
        arguments.counters[2] += taken
        add_up(arguments, taken)
        return -1 if taken == rows else taken

    return scan_unrolled
