"""Compiled updates by batches, in groups of rows.

Rows are scaled on the fly. The parameters are those of scaled columns. Predictors use parameters in
the data's units, which each step updates. The values of the losses are computed afterwards in
vectors, since no row waits for them.

X is float32 or float64; everything else is float64. All arrays are C-contiguous. No result's bits
depend on where an array lies in memory, nor on where a pass is cut into calls.
"""

from typing import Any

import numpy as np

from ooc_train.core.sums import Array
from ooc_train.kernels.compiled.groups import (
    add_four,
    add_one,
    finite_rows,
    predict_four,
    predict_one,
    shift_of,
)
from ooc_train.kernels.compiled.loop_parts import (
    LossParts,
    OptimizerParts,
    compiled_source,
    own_class_factor,
    target_of,
)
from ooc_train.kernels.compiled.parts import FAR, part, prefetch, rate_after, strict_part
from ooc_train.kernels.compiled.steps import (
    squared_norm,
    step_by_number,
    step_in_vectors,
    step_of_constant,
)
from ooc_train.kernels.compiled.upkeep import average_with
from ooc_train.kernels.layout import (
    AGE,
    EACH,
    GROUP,
    LANES,
    OUTPUTS,
    WEIGHT,
    Integers,
)
from ooc_train.optimizers.optimizer import clip_factor


def scan_groups_of(loss: LossParts, optimizer: OptimizerParts, *, l1: bool, clipped: bool) -> Any:
    """Return the kernel `scan_groups`, which takes a step for each batch.

    Slopes are computed in whole vectors: a group of too few rows is filled with its last row, whose
    further slopes are not used. A row that is not finite ends the scan before that row. The step of
    an incomplete batch is in proportion to its rows. An optimizer with slots takes no step for a
    batch without weight, since its slots alone would move the parameters.
    """
    group_slopes, add_up = _slopes_of(loss), add_up_of(loss)
    prepare, slots = optimizer.prepare, optimizer.slots
    step = (step_in_vectors if optimizer.in_vectors else step_by_number)(optimizer, l1=l1)
    step_constant = step_of_constant(optimizer)
    factor = _clip_of(clipped=clipped)

    @strict_part
    def batches(arguments: Any) -> Any:
        X, order, theta, room = arguments.X, arguments.order, arguments.theta, arguments.room
        partial, counters, clock = arguments.partial, arguments.counters, arguments.clock
        group, each, places = arguments.group, arguments.each, arguments.places
        weight, rates, batch_size = arguments.weight, arguments.rates, arguments.batch_size
        outputs, features, stop = len(theta), X.shape[1], len(order)
        filled, updates, heft = counters[0], counters[1], clock[WEIGHT]
        z, r, w = group[:outputs], group[outputs : 2 * outputs], group[2 * outputs + 1]
        constant = each[2]
        for i in range(GROUP):
            for k in range(len(group)):
                group[k, i] = 0.0
            w[i] = 1.0
        for k in range(outputs):
            constant[k] = theta[k, features] - shift_of(room, OUTPUTS + EACH * k)
        taken, stopped, ended = 0, False, False
        while not ended:
            count = min(GROUP, batch_size - filled, stop - taken)
            in_vectors = -(-count // LANES) * LANES
            for i in range(in_vectors):
                places[i] = order[taken + min(i, count - 1)]
            in_fours = count // 4 * 4
            for i in range(0, in_fours, 4):
                for ahead in range(taken + i + FAR, taken + i + FAR + 4):
                    prefetch(X, order[min(ahead, stop - 1)])
                for k in range(outputs):
                    predict_four(X, places, i, room, OUTPUTS + EACH * k, constant[k], k, z)
            for i in range(in_fours, count):
                prefetch(X, order[min(taken + i + FAR, stop - 1)])
                for k in range(outputs):
                    predict_one(X, places, i, room, OUTPUTS + EACH * k, constant[k], k, z)
            if len(weight):
                for i in range(in_vectors):
                    w[i] = weight[places[i]]
            group_slopes(arguments, taken, count, in_vectors, z, w, r)
            check = 0.0
            for k in range(outputs):
                for i in range(count):
                    check += z[k, i] + r[k, i]
            if not np.isfinite(check):
                stopped = True
                count = finite_rows(z, r, count)
            for k in range(outputs):
                at = OUTPUTS + EACH * k
                for i in range(0, count // 4 * 4, 4):
                    add_four(X, places, i, r, k, room, at)
                for i in range(count // 4 * 4, count):
                    add_one(X, places, i, r, k, room, at)
                for i in range(count):
                    partial[k, features] += r[k, i]
            if slots > 0:
                for i in range(count):
                    heft += w[i]
            taken += count
            filled += count
            ended = stopped or taken == stop
            flushed = arguments.flush != 0 and ended and not stopped and filled > 0
            if filled == batch_size or flushed:
                if slots == 0 or heft > 0.0:
                    part_of_batch, share = filled / batch_size, 1.0 / filled
                    eta = part_of_batch * rate_after(rates, updates)
                    updates += 1
                    if slots > 0:
                        clock[AGE] += part_of_batch
                    scalars = prepare(arguments.optimizer, clock[AGE], part_of_batch)
                    clip = factor(arguments, share)
                    for k in range(outputs):
                        total_slope = partial[k, features]
                        shift = step(arguments, k, share, total_slope, clip, eta, scalars)
                        if arguments.fit_intercept != 0:
                            g = clip * (share * total_slope)
                            step_constant(arguments, k, g, eta, scalars)
                        partial[k, features] = 0.0
                        constant[k] = theta[k, features] - shift
                    if updates % arguments.every == 0:
                        average_with(arguments.average, clock, theta, room)
                filled, heft = 0, 0.0
        counters[0], counters[1], clock[WEIGHT] = filled, updates, heft
        return taken

    @part
    def scan_groups(arguments: Any) -> Any:
        rows = len(arguments.order)
        taken = batches(arguments)
        arguments.counters[2] += taken
        add_up(arguments, taken)
        return -1 if taken == rows else taken

    return scan_groups


def _clip_of(*, clipped: bool) -> Any:
    """Return a part that computes the factor of the gradient of an update, 1 if none is clipped."""
    if not clipped:

        @strict_part
        def one(arguments: Any, share: float) -> Any:  # noqa: ARG001 (numba takes no `del`)
            return 1.0

        return one
    factor = compiled_source(clip_factor, strict_part)

    @strict_part
    def of_all(arguments: Any, share: float) -> Any:
        partial, square = arguments.partial, 0.0
        for k in range(len(partial)):
            total_slope = partial[k, partial.shape[1] - 1]
            square += squared_norm(arguments.room, k, share, total_slope)
            if arguments.fit_intercept != 0:
                square += (share * total_slope) ** 2
        return factor(arguments.optimizer.clip_norm, square)

    return of_all


def _slopes_of(loss: LossParts) -> Any:
    """Return a part that writes the slopes of a group's rows to `r`, and the inputs of `add_up`."""
    if loss.rowwise:
        row = loss.row

        @strict_part
        def of_rows(
            arguments: Any,
            taken: int,
            count: int,
            in_vectors: int,  # noqa: ARG001 (numba takes no `del`)
            z: Array,
            w: Array,
            r: Array,
        ) -> None:
            z_row, r_row = arguments.each[0], arguments.each[1]
            for i in range(count):
                for k in range(len(z)):
                    z_row[k] = z[k, i]
                place = arguments.places[i]
                arguments.Z[taken + i, 0] = row(arguments.loss, arguments.y, place, z_row, r_row)
                for k in range(len(z)):
                    r[k, i] = w[i] * r_row[k]

        return of_rows
    slope = loss.slope

    @strict_part
    def in_whole_vectors(
        h: Any, due: Array, z: Array, w: Array, k: int, rows: int, r: Array
    ) -> None:
        for i in range(rows):
            r[k, i] = w[i] * slope(h, due[i], z[k, i])

    @strict_part
    def of_outputs(
        arguments: Any, taken: int, count: int, in_vectors: int, z: Array, w: Array, r: Array
    ) -> None:
        due = arguments.group[2 * len(z)]
        y, Y, Z, places = arguments.y, arguments.Y, arguments.Z, arguments.places
        for k in range(len(z)):
            for i in range(count):
                due[i] = Y[taken + i, k] = target_of(y, places[i], k, len(z))
                Z[taken + i, k] = z[k, i]
            in_whole_vectors(arguments.loss, due, z, w, k, in_vectors, r)
            for i in range(count):
                r[k, i] *= own_class_factor(y, arguments.own, places[i], k)

    return of_outputs


def add_up_of(loss: LossParts) -> Any:
    """Return a part that adds the losses and weights of rows to `sums`."""
    rowwise, value = loss.rowwise, loss.value

    @part
    def values(h: Any, Y: Array, Z: Array, rows: int, k: int, of_own: float) -> None:
        """Replace predictors of output `k` by the losses there, in vectors."""
        for t in range(rows):
            Z[t, k] = (of_own if Y[t, k] == 1.0 else 1.0) * value(h, Y[t, k], Z[t, k])

    @strict_part
    def add(Z: Array, weight: Array, order: Integers, rows: int, sums: Array) -> None:
        """Add losses and weights to `sums`, one after another."""
        columns = 1 if rowwise else Z.shape[1]
        total_loss, total_weight = sums[0], sums[1]
        for t in range(rows):
            w = weight[order[t]] if len(weight) else 1.0
            total_weight += w
            for k in range(columns):
                total_loss += w * Z[t, k]
        sums[0], sums[1] = total_loss, total_weight

    if rowwise:

        @part
        def add_up(arguments: Any, rows: int) -> None:
            add(arguments.Z, arguments.weight, arguments.order, rows, arguments.sums)

        return add_up

    @part
    def add_up_columns(arguments: Any, rows: int) -> None:
        own = arguments.own
        is_coded = arguments.y.shape[1] < len(own)
        for k in range(arguments.Z.shape[1]):
            of_own = own[k] if is_coded else 1.0
            values(arguments.loss, arguments.Y, arguments.Z, rows, k, of_own)
        add(arguments.Z, arguments.weight, arguments.order, rows, arguments.sums)

    return add_up_columns
