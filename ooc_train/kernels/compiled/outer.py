"""Compiled sums of weighted outer products of rows: Hessians and Gram matrices.

The sums are ``sum_i c_i t_i t_i.T`` in float64 from the first row, where t_i is the scaled row i, a
1, and the row of y. BLAS would need all rows scaled and weighted in memory first, and an array for
each product before it is added up, which on 1,000 columns took as long as the product. Here a panel
of rows at a time, those whose c is not zero, is scaled into strips of 16 columns. A strip stays in
the nearest cache while vector registers hold a block of the sum (Goto and van de Geijn 2008,
"Anatomy of High-Performance Matrix Multiplication"). Blocks that follow one another lie next to one
another, see `core.packing`.
"""

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ooc_train.core.packing import STRIP
from ooc_train.kernels.compiled.parts import part, strict_part

_HIGH, _LANES = (4, 8) if llvm.get_host_cpu_features().get("avx512f") else (2, 4)
"""Rows of a block of the sum, and numbers of a vector, a register. Each sum adds up the same
products in the same order, whatever they are."""

_WIDE = STRIP // _LANES
"""Vectors in a row of a block of the sum. The eight of a block hide the delay of additions, and fit
the registers."""


@intrinsic  # type: ignore[untyped-decorator]
def _add_block(
    typing_context: Any,  # noqa: ARG001 (numba's protocol)
    T: Any,
    W: Any,
    sums: Any,
    rows: Any,  # noqa: ARG001
    of_T: Any,  # noqa: ARG001
    of_W: Any,  # noqa: ARG001
    lane: Any,  # noqa: ARG001
    at: Any,  # noqa: ARG001
) -> Any:
    """Add ``W[of_W :][:rows, lane : lane + _HIGH].T @ T[of_T :][:rows]`` to ``sums[at :]``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word, number = ir.IntType(64), ir.DoubleType()
        vector = ir.VectorType(number, _LANES)
        data = [
            builder.bitcast(
                context.make_array(kind)(context, builder, argument).data, number.as_pointer()
            )
            for kind, argument in zip(signature.args[:3], arguments[:3], strict=True)
        ]
        of_T, of_W, of_sums = data
        count, first_T, first_W, first_lane, first_sum = arguments[3:]

        def at(array: Any, start: Any, offset: int) -> Any:
            return builder.gep(array, [builder.add(start, word(offset))])

        def vector_at(array: Any, start: Any, offset: int) -> Any:
            return builder.bitcast(at(array, start, offset), vector.as_pointer())

        def load(pointer: Any) -> Any:
            loaded = builder.load(pointer)
            loaded.align = 8
            return loaded

        multiply_add = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{_LANES}f64"
        )
        undefined = ir.Constant(vector, ir.Undefined)
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), _LANES), [0] * _LANES)
        block = [
            (i, lane, cgutils.alloca_once(builder, vector))
            for i in range(_HIGH)
            for lane in range(_WIDE)
        ]
        for i, lane, room in block:
            builder.store(load(vector_at(of_sums, first_sum, i * STRIP + lane * _LANES)), room)
        with cgutils.for_range(builder, count) as loop:
            row_of_T = builder.mul(builder.add(first_T, loop.index), word(STRIP))
            row_of_W = builder.mul(builder.add(first_W, loop.index), word(STRIP))
            row_of_W = builder.add(row_of_W, first_lane)
            parts = [load(vector_at(of_T, row_of_T, lane * _LANES)) for lane in range(_WIDE)]
            weights = []
            for i in range(_HIGH):
                one = builder.load(at(of_W, row_of_W, i))
                single = builder.insert_element(undefined, one, ir.Constant(ir.IntType(32), 0))
                weights.append(builder.shuffle_vector(single, undefined, everywhere))
            for i, lane, room in block:
                total = builder.call(multiply_add, [weights[i], parts[lane], builder.load(room)])
                builder.store(total, room)
        for i, lane, room in block:
            to = vector_at(of_sums, first_sum, i * STRIP + lane * _LANES)
            builder.store(builder.load(room), to).align = 8
        return context.get_dummy_value()

    return types.void(T, W, sums, *[types.int64] * 5), generate


@part
def _panel_end(c: Any, first: int, panel: int) -> tuple[int, int]:
    """Return where the panel of rows from the first on ends, and how many it has: c not zero."""
    stop, count = first, 0
    while stop < len(c) and count < panel:
        if c[stop] != 0.0:
            count += 1
        stop += 1
    return stop, count


@strict_part
def _fill(arguments: Any, first: int, stop: int, panel: int) -> None:
    """Write the panel's rows, as strips of 16 columns, to `T`, and weighted ones to `W`.

    Row r of strip s is row ``s * panel + r`` of both.
    """
    X, y, c, T, W = arguments.X, arguments.y, arguments.c, arguments.T, arguments.W
    mean, inv_scale = arguments.mean, arguments.inv_scale
    features, whole = X.shape[1], X.shape[1] // STRIP
    for strip in range(whole):
        at = strip * panel
        for row in range(first, stop):
            if c[row] != 0.0:
                for lane in range(STRIP):
                    j = strip * STRIP + lane
                    scaled = (X[row, j] - mean[j]) * inv_scale[j]
                    T[at, lane] = scaled
                    W[at, lane] = c[row] * scaled
                at += 1
    for j in range(whole * STRIP, features + 1 + y.shape[1]):
        at, lane = j // STRIP * panel, j % STRIP
        for row in range(first, stop):
            if c[row] != 0.0:
                if j < features:
                    value = (X[row, j] - mean[j]) * inv_scale[j]
                elif j == features:
                    value = 1.0
                else:
                    value = y[row, j - features - 1]
                T[at, lane] = value
                W[at, lane] = c[row] * value
                at += 1


@part
def add_outer_products(arguments: Any) -> None:
    """Run the kernel, see `add_outer_products` in `kernels.api`."""
    c, T, W, sums = arguments.c, arguments.T, arguments.W, arguments.sums
    rows, columns = arguments.X.shape[0], arguments.X.shape[1] + 1 + arguments.y.shape[1]
    strips = (columns + STRIP - 1) // STRIP
    panel, height = len(T) // strips, strips * STRIP
    for r in range((strips - 1) * panel, strips * panel):
        for lane in range(columns - (strips - 1) * STRIP, STRIP):
            T[r, lane] = W[r, lane] = 0.0
    first = 0
    while first < rows:  # a range of a step that may be zero could raise
        (stop, count), at = _panel_end(c, first, panel), 0
        _fill(arguments, first, stop, panel)
        for strip in range(strips):
            for j in range(strip * STRIP, height, _HIGH):
                of_W, lane = j // STRIP * panel, j % STRIP
                _add_block(T, W, sums, count, strip * panel, of_W, lane, at)
                at += _HIGH * STRIP
        first = stop
