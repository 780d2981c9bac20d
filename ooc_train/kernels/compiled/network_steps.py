"""Kernels of networks: the slopes of losses, and steps of all parameters in the type of X."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ooc_train.core.sums import Array
from ooc_train.kernels.compiled.full_batch import slope_of
from ooc_train.kernels.compiled.loop_parts import LossParts, OptimizerParts, slot_storer
from ooc_train.kernels.compiled.parts import part, strict_part

_TINY = 1e-37
"""Slots below it in size become 0: processors take a hundred times as long for numbers that float32
holds with fewer digits. Running means get there where a unit no longer learns."""


_BLOCK = 2048
"""Parameters that go through the loops of a step at a time: their arrays stay in the nearest
cache."""


@intrinsic  # type: ignore[untyped-decorator]
def _in_type_of(typing_context: Any, array: Any, values: Any) -> Any:  # noqa: ARG001 (numba's protocol)
    """Return float64 numbers, one or a tuple of them, in the type of an array's numbers."""
    kind, result = array.dtype, array.dtype
    is_tuple = isinstance(values, types.BaseTuple)
    if is_tuple:
        result = types.BaseTuple.from_types(
            (kind,) * len(values), getattr(values, "instance_class", None)
        )

    def narrow(builder: Any, value: Any) -> Any:
        return builder.fptrunc(value, ir.FloatType()) if kind == types.float32 else value

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        if not is_tuple:
            return narrow(builder, given[1])
        numbers = [narrow(builder, builder.extract_value(given[1], i)) for i in range(len(values))]
        return context.make_tuple(builder, signature.return_type, numbers)

    return result(array, values), generate


@strict_part
def _store_normal(slots: Array, slot: int, k: int, j: int, value: float) -> None:
    slots[slot, k, j] = (
        value if abs(value) >= _in_type_of(slots, _TINY) else _in_type_of(slots, 0.0)
    )


def loss_slopes_of(loss: LossParts) -> Any:
    """Return the kernel `loss_slopes` for a loss."""
    slope = slope_of(loss)

    @part
    def loss_slopes(arguments: Any) -> None:
        slope(
            arguments.loss,
            arguments.y,
            arguments.own,
            arguments.Z,
            arguments.weight,
            arguments.R,
            arguments.sums,
            arguments.cells,
        )

    return loss_slopes


def network_step_of(optimizer: OptimizerParts) -> Any:
    """Return the kernel `network_step` for an optimizer."""
    step_of, prepare, retained = optimizer.step, optimizer.prepare, optimizer.retained
    load_slots, store_slots = optimizer.load, slot_storer(optimizer.slots, _store_normal)

    @strict_part
    def add_others(g: Array, others: Array, start: Any, count: Any) -> None:
        for k in range(len(others)):
            for i in range(count):
                g[start + np.uint64(i)] += others[k, start + np.uint64(i)]

    @strict_part
    def average_with(average: Array, theta: Array, share: float, start: Any, count: Any) -> None:
        for i in range(count):
            j = start + np.uint64(i)
            average[j] += share * (theta[j] - average[j])

    @strict_part
    def network_step(arguments: Any) -> None:
        theta, g, slots, ends = arguments.theta, arguments.g, arguments.slots, arguments.ends
        numbers = _in_type_of(theta, arguments.optimizer)
        due = prepare(arguments.optimizer, arguments.age, arguments.part)
        scalars = _in_type_of(theta, due)
        eta, scale = _in_type_of(theta, arguments.eta), _in_type_of(theta, arguments.scale)
        for s in range(len(ends) - 1):
            decay, kept = _in_type_of(theta, 0.0), _in_type_of(theta, 1.0)
            if s % 2 == 0:
                decay = _in_type_of(theta, arguments.decay)
                kept = _in_type_of(theta, retained(arguments.optimizer, arguments.eta))
            for first in range(ends[s], ends[s + 1], _BLOCK):
                start = np.uint64(first)  # an index without a sign is never counted from the end
                count = np.uint64(min(_BLOCK, ends[s + 1] - first))
                add_others(g, arguments.others, start, count)
                for i in range(count):
                    j = start + np.uint64(i)
                    slope = scale * g[j] + decay * theta[j]
                    before = load_slots(slots, 0, j)
                    stepped = step_of(numbers, kept * theta[j], slope, eta, scalars, *before)
                    store_slots(slots, 0, j, stepped)
                    theta[j] = stepped[0]
                if arguments.share > 0.0:
                    average_with(arguments.average, theta, arguments.share, start, count)

    return network_step
