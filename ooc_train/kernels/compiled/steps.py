"""Steps of one output: the gradient of a batch becomes new parameters and slots.

If gradients are clipped, `squared_norm` adds up an output's part of the norm before any step.
"""

from typing import Any

from ooc_train.core.sums import Array
from ooc_train.kernels.compiled.groups import shift_of
from ooc_train.kernels.compiled.loop_parts import OptimizerParts, shrink
from ooc_train.kernels.compiled.parts import strict_part
from ooc_train.kernels.compiled.vectors import load, shrink_vector, store, total, zeros
from ooc_train.kernels.layout import (
    EACH,
    INV_SCALE,
    L1,
    L2,
    LANES,
    MEAN,
    OUTPUTS,
    PARTIAL,
    THETA,
    W,
)


@strict_part
def _gradient(
    partial: Any, share: float, total_slope: float, mean: Any, scale: Any, l2: Any, theta: Any
) -> Any:
    """Gradient of the mean objective by a scaled parameter, or a vector of them."""
    g = share * (partial - total_slope * mean) * scale
    return g + l2 * theta


@strict_part
def squared_norm(room: Array, k: int, share: float, total_slope: float) -> Any:
    """Sum of the squares of the gradient of an output's mean objective, without the intercept."""
    at, square = OUTPUTS + EACH * k, zeros()
    for j in range(0, room.shape[1], LANES):
        mean, scale, l2 = load(room, MEAN, j), load(room, INV_SCALE, j), load(room, L2, j)
        partial, theta = load(room, at + PARTIAL, j), load(room, at + THETA, j)
        g = _gradient(partial, share, total_slope, mean, scale, l2, theta)
        square += g * g
    return total(square)


def step_of_vector(optimizer: OptimizerParts, *, l1: bool) -> Any:
    """Return a part that takes the step of eight weights, given their gradient without `l2`.

    The part stores the slots, and returns the weights after the step, and after the proximal step
    if `l1`.
    """
    step_of, proximal_rate = optimizer.step, optimizer.proximal_rate
    load_slots, store_slots = optimizer.load_vectors, optimizer.store_vectors

    @strict_part
    def step(
        arguments: Any,
        k: int,
        j: int,
        theta: Any,
        g: Any,
        clip: float,
        share_left: float,
        eta: float,
        scalars: Any,
    ) -> Any:
        room, slots = arguments.room, arguments.slots
        g = clip * (g + load(room, L2, j) * theta)
        kept, left = load_slots(slots, k, j), share_left * theta
        stepped = step_of(arguments.optimizer, left, g, eta, scalars, *kept)
        store_slots(slots, k, j, stepped)
        moved = stepped[0]
        if l1:
            kept = stepped[1:]
            rate = proximal_rate(arguments.optimizer, eta, scalars, *kept)
            moved = shrink_vector(moved, rate * load(room, L1, j))
        return moved

    return step


def step_in_vectors(optimizer: OptimizerParts, *, l1: bool) -> Any:
    """Return a part that takes the step of one output, and a proximal step, in vectors."""
    step_of, retained = step_of_vector(optimizer, l1=l1), optimizer.retained

    @strict_part
    def step(
        arguments: Any,
        k: int,
        share: float,
        total_slope: float,
        clip: float,
        eta: float,
        scalars: Any,
    ) -> Any:
        room, at = arguments.room, OUTPUTS + EACH * k
        share_left, shift = retained(arguments.optimizer, eta), zeros()
        for j in range(0, room.shape[1], LANES):
            theta, mean = load(room, at + THETA, j), load(room, MEAN, j)
            scale, partial = load(room, INV_SCALE, j), load(room, at + PARTIAL, j)
            g = share * (partial - total_slope * mean) * scale
            moved = step_of(arguments, k, j, theta, g, clip, share_left, eta, scalars)
            w = moved * scale
            shift += w * mean
            store(room, at + THETA, j, moved)
            store(room, at + W, j, w)
            store(room, at + PARTIAL, j, zeros())
        return total(shift)

    return step


def step_by_number(optimizer: OptimizerParts, *, l1: bool) -> Any:
    """Return a part that takes the step of one output, and a proximal step, for any optimizer."""
    step_of, load_slots, store_slots = optimizer.step, optimizer.load, optimizer.store
    retained, proximal_rate = optimizer.retained, optimizer.proximal_rate

    @strict_part
    def step(
        arguments: Any,
        k: int,
        share: float,
        total_slope: float,
        clip: float,
        eta: float,
        scalars: Any,
    ) -> Any:
        room, slots, at = arguments.room, arguments.slots, OUTPUTS + EACH * k
        share_left = retained(arguments.optimizer, eta)
        for j in range(arguments.theta.shape[1] - 1):
            theta, scale = room[at + THETA, j], room[INV_SCALE, j]
            mean, l2, partial = room[MEAN, j], room[L2, j], room[at + PARTIAL, j]
            g = clip * _gradient(partial, share, total_slope, mean, scale, l2, theta)
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


def step_of_constant(optimizer: OptimizerParts) -> Any:
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
