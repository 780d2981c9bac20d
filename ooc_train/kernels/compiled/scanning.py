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
from ooc_train.kernels.compiled.groups import add_four, finite_rows, predict_four, shift_of
from ooc_train.kernels.compiled.loop_parts import LossParts, OptimizerParts, shrink
from ooc_train.kernels.compiled.parts import FAR, part, prefetch, rate_after, strict_part
from ooc_train.kernels.compiled.upkeep import average_with
from ooc_train.kernels.compiled.vectors import load, store, total, zeros
from ooc_train.kernels.layout import (
    AGE,
    EACH,
    GROUP,
    INV_SCALE,
    L1,
    L2,
    LANES,
    MEAN,
    OUTPUTS,
    PARTIAL,
    THETA,
    WEIGHT,
    Integers,
    W,
)


def scan_groups_of(loss: LossParts, optimizer: OptimizerParts, *, l1: bool) -> Any:
    """Return the kernel `scan_groups`, which takes a step for each batch.

    A group of too few rows is filled with its last row, with slope 0. A row that is not finite ends
    the scan before that row. The step of an incomplete batch is in proportion to its rows. An
    optimizer with slots takes no step for a batch without weight, since its slots alone would move
    the parameters.
    """
    group_slopes, add_up = _slopes_of(loss), add_up_of(loss)
    prepare, slots = optimizer.prepare, optimizer.slots
    step = _step_of(optimizer) if optimizer.linear and not l1 else _step_by_number(optimizer, l1=l1)
    step_constant = _step_of_constant(optimizer)

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
            for i in range(0, count, 4):
                for ahead in range(taken + i + FAR, taken + i + FAR + 4):
                    prefetch(X, order[min(ahead, stop - 1)])
                for k in range(outputs):
                    predict_four(X, places, i, room, OUTPUTS + EACH * k, constant[k], k, z)
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
                for i in range(count, in_vectors if count else 0):
                    places[i] = places[count - 1]
            for k in range(outputs):
                for i in range(count, in_vectors):
                    r[k, i] = 0.0
                at = OUTPUTS + EACH * k
                for i in range(0, count, 4):
                    add_four(X, places, i, r, k, room, at)
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
                    for k in range(outputs):
                        total_slope = partial[k, features]
                        shift = step(arguments, k, share, total_slope, eta, scalars)
                        if arguments.fit_intercept != 0:
                            step_constant(arguments, k, share * total_slope, eta, scalars)
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
                due[i] = Y[taken + i, k] = y[places[i], k]
                Z[taken + i, k] = z[k, i]
            in_whole_vectors(arguments.loss, due, z, w, k, in_vectors, r)

    return of_outputs


def _step_of(optimizer: OptimizerParts) -> Any:
    """Return a part that takes a linear optimizer's step of one output, in vectors."""
    step_of = optimizer.step

    @strict_part
    def step(
        arguments: Any, k: int, share: float, total_slope: float, eta: float, scalars: Any
    ) -> Any:
        room, at = arguments.room, OUTPUTS + EACH * k
        shift = zeros()
        for j in range(0, room.shape[1], LANES):
            theta, mean = load(room, at + THETA, j), load(room, MEAN, j)
            scale = load(room, INV_SCALE, j)
            g = share * (load(room, at + PARTIAL, j) - total_slope * mean) * scale
            g += load(room, L2, j) * theta
            moved = step_of(arguments.optimizer, theta, g, eta, scalars)[0]
            w = moved * scale
            shift += w * mean
            store(room, at + THETA, j, moved)
            store(room, at + W, j, w)
            store(room, at + PARTIAL, j, zeros())
        return total(shift)

    return step


def _step_by_number(optimizer: OptimizerParts, *, l1: bool) -> Any:
    """Return a part that takes any optimizer's step of one output, and a proximal step."""
    step_of, load_slots, store_slots = optimizer.step, optimizer.load, optimizer.store
    retained, proximal_rate = optimizer.retained, optimizer.proximal_rate

    @strict_part
    def step(
        arguments: Any, k: int, share: float, total_slope: float, eta: float, scalars: Any
    ) -> Any:
        room, slots, at = arguments.room, arguments.slots, OUTPUTS + EACH * k
        share_left = retained(arguments.optimizer, eta)
        for j in range(arguments.theta.shape[1] - 1):
            theta, scale = room[at + THETA, j], room[INV_SCALE, j]
            g = share * (room[at + PARTIAL, j] - total_slope * room[MEAN, j]) * scale
            g += room[L2, j] * theta
            kept = load_slots(slots, k, j)
            left = share_left * theta
            stepped = step_of(arguments.optimizer, left, g, eta, scalars, *kept)
            store_slots(slots, k, j, stepped)
            moved = stepped[0]
            if l1:
                kept = load_slots(slots, k, j)
                rate = proximal_rate(arguments.optimizer, eta, scalars, *kept)
                moved = shrink(moved, rate * room[L1, j])
            room[at + THETA, j] = moved
            room[at + W, j] = moved * scale
            room[at + PARTIAL, j] = 0.0
        return shift_of(room, at)

    return step


def _step_of_constant(optimizer: OptimizerParts) -> Any:
    """Return a part that takes the step of an output's intercept, which is not penalised."""
    step_of, load_slots, store_slots = optimizer.step, optimizer.load, optimizer.store

    @strict_part
    def step(arguments: Any, k: int, g: float, eta: float, scalars: Any) -> None:
        theta, slots, j = arguments.theta, arguments.slots, arguments.theta.shape[1] - 1
        kept = load_slots(slots, k, j)
        stepped = step_of(arguments.optimizer, theta[k, j], g, eta, scalars, *kept)
        store_slots(slots, k, j, stepped)
        theta[k, j] = stepped[0]

    return step


def add_up_of(loss: LossParts) -> Any:
    """Return a part that adds the losses and weights of rows to `sums`."""
    rowwise, value = loss.rowwise, loss.value

    @part
    def values(h: Any, Y: Array, Z: Array, rows: int, k: int) -> None:
        """Replace predictors of output `k` by the losses there, in vectors."""
        for t in range(rows):
            Z[t, k] = value(h, Y[t, k], Z[t, k])

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
        for k in range(arguments.Z.shape[1]):
            values(arguments.loss, arguments.Y, arguments.Z, rows, k)
        add(arguments.Z, arguments.weight, arguments.order, rows, arguments.sums)

    return add_up_columns
