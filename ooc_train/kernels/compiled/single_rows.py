"""Updates by single rows with an optimizer or a penalty that `unrolled` cannot take together.

A step with slots is no product of a number and a row, so that steps do not combine. Each row waits
for the parameters of the row before it. What can be saved are the loops over the columns: one loop
computes the gradient of a row from the row as scaled before, takes the step, scales the next row,
and multiplies it with the new parameters.
"""

from typing import Any

import numpy as np

from ooc_train.kernels.compiled.loop_parts import LossParts, OptimizerParts
from ooc_train.kernels.compiled.parts import FAR, part, prefetch, rate_after, strict_part
from ooc_train.kernels.compiled.scanning import add_up_of
from ooc_train.kernels.compiled.steps import step_of_constant, step_of_vector
from ooc_train.kernels.compiled.upkeep import average_with, predict_by_theta
from ooc_train.kernels.compiled.vectors import load, load_row, store, total, zeros
from ooc_train.kernels.layout import (
    AGE,
    INV_SCALE,
    LANES,
    MEAN,
    OUTPUTS,
    ROWS,
    THETA,
    Rows,
)


@strict_part
def _scale_and_predict(X: Rows, i: int, room: Any, row: int) -> Any:
    """Write row `i` of X, scaled, to `row` of the room; return its product with the parameters."""
    z = zeros()
    for j in range(0, room.shape[1], LANES):
        x = (load_row(X, i, j) - load(room, MEAN, j)) * load(room, INV_SCALE, j)
        store(room, row, j, x)
        z += load(room, OUTPUTS + THETA, j) * x
    return total(z)


def scan_single_of(loss: LossParts, optimizer: OptimizerParts, *, l1: bool) -> Any:
    """Return the kernel `scan_single`, which takes a step of one output for each row.

    A row that is not finite ends the scan before that row. An optimizer with slots takes no step
    for a row without weight, since its slots alone would move the parameters.
    """
    slope_of, add_up = loss.quick_slope, add_up_of(loss)
    prepare, slots = optimizer.prepare, optimizer.slots
    retained = optimizer.retained
    step, step_constant = step_of_vector(optimizer, l1=l1), step_of_constant(optimizer)

    @strict_part
    def step_and_predict(
        arguments: Any, r: float, eta: float, scalars: Any, row: int, following: int, after: int
    ) -> Any:
        """Take the step of the scaled row at `row`; as `_scale_and_predict` for row `following`."""
        X, room = arguments.X, arguments.room
        share_left, z = retained(arguments.optimizer, eta), zeros()
        for j in range(0, room.shape[1], LANES):
            theta = load(room, OUTPUTS + THETA, j)
            scale = load(room, INV_SCALE, j)
            x = (load_row(X, following, j) - load(room, MEAN, j)) * scale
            g = r * load(room, row, j)
            moved = step(arguments, 0, j, theta, g, 1.0, share_left, eta, scalars)
            store(room, OUTPUTS + THETA, j, moved)
            store(room, after, j, x)
            z += moved * x
        return total(z)

    @strict_part
    def rows(arguments: Any) -> Any:
        X, order, theta, room = arguments.X, arguments.order, arguments.theta, arguments.room
        y, weight, rates, clock = arguments.y, arguments.weight, arguments.rates, arguments.clock
        Z, Y, counters, every = arguments.Z, arguments.Y, arguments.counters, arguments.every
        stop, last, features = len(order), len(order) - 1, X.shape[1]
        if stop == 0:
            return 0
        updates, age, row, after = counters[1], clock[AGE], ROWS, ROWS + 1
        base = _scale_and_predict(X, order[0], room, row)
        taken = 0
        while taken < stop:
            i, following = order[taken], order[min(taken + 1, last)]
            prefetch(X, order[min(taken + FAR, last)])
            w = weight[i] if len(weight) else 1.0
            due, z = y[i, 0], theta[0, features] + base
            r = w * slope_of(arguments.loss, due, z)
            if not np.isfinite(z + r):
                break
            Z[taken, 0], Y[taken, 0] = z, due
            if slots == 0 or w > 0.0:
                eta = rate_after(rates, updates)
                updates += 1
                if slots > 0:
                    age += 1.0
                scalars = prepare(arguments.optimizer, age, 1.0)
                base = step_and_predict(arguments, r, eta, scalars, row, following, after)
                if arguments.fit_intercept != 0:
                    step_constant(arguments, 0, r, eta, scalars)
                if updates % every == 0:
                    average_with(arguments.average, clock, theta, room)
            else:
                base = _scale_and_predict(X, following, room, after)
            row, after = after, row
            taken += 1
        counters[1], clock[AGE] = updates, age
        return taken

    @part
    def scan_single(arguments: Any) -> Any:
        taken = rows(arguments)
        predict_by_theta(arguments.room, len(arguments.theta))
        arguments.counters[2] += taken
        add_up(arguments, taken)
        return -1 if taken == len(arguments.order) else taken

    return scan_single
