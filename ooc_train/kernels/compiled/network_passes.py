"""Kernels of networks: rows forward through the layers, and derivatives backward.

BLAS computes the products. Arrays of several layers are flat: that of the rows of one layer follows
that of the layer before. So a share of the rows of a batch is one call, without Python's lock.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ooc_train.core.sums import Array
from ooc_train.kernels.compiled.loop_parts import ActivationParts
from ooc_train.kernels.compiled.parts import part

_ROW_MAJOR, _AS_IS, _TRANSPOSED = 101, 111, 112
"""Arguments of CBLAS: CblasRowMajor, CblasNoTrans, CblasTrans."""


@intrinsic  # type: ignore[untyped-decorator]
def multiply(
    typing_context: Any,  # noqa: ARG001 (numba's protocol)
    gemm: Any,  # noqa: ARG001
    turned: Any,  # noqa: ARG001
    m: Any,  # noqa: ARG001
    n: Any,  # noqa: ARG001
    k: Any,  # noqa: ARG001
    a: Any,
    a_start: Any,  # noqa: ARG001
    b: Any,
    b_start: Any,  # noqa: ARG001
    c: Any,
    c_start: Any,  # noqa: ARG001
) -> Any:
    """Write the product of A (m, k) and B (k, n) to C (m, n), by the function at `gemm`.

    Matrices lie in arrays from an element on, row by row. `turned` is 1 if A lies there as its
    transpose, (k, m), and 2 if B does, (n, k).
    """

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        address, turned, m, n, k, *operands = given
        word, enum = ir.IntType(64), ir.IntType(32)
        number = ir.FloatType() if c.dtype == types.float32 else ir.DoubleType()
        pointer = number.as_pointer()
        pairs = zip(operands[::2], operands[1::2], signature.args[5::2], strict=True)
        places = [
            builder.gep(context.make_array(kind)(context, builder, array).data, [start])
            for array, start, kind in pairs
        ]
        a_turned = builder.icmp_signed("==", turned, word(1))
        b_turned = builder.icmp_signed("==", turned, word(2))
        # Whole numbers of 64 bits: a library with those of 32 reads the lower half of each.
        kind = ir.FunctionType(
            ir.VoidType(),
            [enum] * 3 + [word] * 3 + [number, *([pointer, word] * 2), number, pointer, word],
        )
        function = builder.inttoptr(address, kind.as_pointer())
        arguments = [
            enum(_ROW_MAJOR),
            builder.select(a_turned, enum(_TRANSPOSED), enum(_AS_IS)),
            builder.select(b_turned, enum(_TRANSPOSED), enum(_AS_IS)),
            m,
            n,
            k,
            number(1.0),
            places[0],
            builder.select(a_turned, m, k),
            places[1],
            builder.select(b_turned, k, n),
            number(0.0),
            places[2],
            n,
        ]
        builder.call(function, arguments)
        return context.get_dummy_value()

    index = types.int64
    return types.void(
        types.uint64, index, index, index, index, a, index, b, index, c, index
    ), generate


def network_forward_of(activation: ActivationParts) -> Any:
    """Return the kernel `network_forward` for an activation."""
    value_of = activation.value

    @part
    def activate(
        arguments: Any, rows: int, units: int, at: int, first: int, mark_rows: bool
    ) -> None:
        params, inputs, values = arguments.params, arguments.inputs, arguments.values
        for i in range(rows):
            start, mark = first + i * units, 0.0
            if len(inputs):
                for j in range(units):
                    z = inputs[start + j] + params[at + j]
                    inputs[start + j] = z
                    values[start + j] = value_of(arguments.loss, z)
                    mark += z - z
            else:
                for j in range(units):
                    z = values[start + j] + params[at + j]
                    values[start + j] = value_of(arguments.loss, z)
                    mark += z - z
            # An activation may make a finite value of an infinite one.
            if mark_rows:
                arguments.marks[i] = mark

    @part
    def network_forward(arguments: Any) -> None:
        X, params, sizes, gemm = arguments.X, arguments.params, arguments.sizes, arguments.gemm
        masks, values, left = arguments.masks, arguments.values, arguments.left
        P, Z, marks = arguments.P, arguments.Z, arguments.marks
        made = arguments.inputs if len(arguments.inputs) else values
        hidden = left if len(masks) else values
        rows, last, at, first, below = len(X), len(sizes) - 2, 0, 0, 0
        for i in range(rows):
            marks[i] = 0.0
        for layer in range(last):
            before, units = sizes[layer], sizes[layer + 1]
            if layer == 0:
                multiply(gemm, 0, rows, units, before, X, 0, params, at, made, 0)
            else:
                multiply(gemm, 0, rows, units, before, hidden, below, params, at, made, first)
            at += before * units
            activate(arguments, rows, units, at, first, layer == 0)
            if len(masks):
                for j in range(first, first + rows * units):
                    left[j] = values[j] * masks[j]
            at += units
            below, first = first, first + rows * units
        before, outputs = sizes[last], sizes[last + 1]
        if last == 0:
            multiply(gemm, 0, rows, outputs, before, X, 0, params, at, P, 0)
        else:
            multiply(gemm, 0, rows, outputs, before, hidden, below, params, at, P, 0)
        at += before * outputs
        for i in range(rows):
            for j in range(outputs):
                Z[i, j] = (P[i, j] + params[at + j]) + marks[i]

    return network_forward


def network_backward_of(activation: ActivationParts) -> Any:
    """Return the kernel `network_backward` for an activation."""
    slope_of = activation.slope

    @part
    def sum_rows(slopes: Array, side: int, rows: int, units: int, out: Array, at: int) -> None:
        for j in range(units):
            out[at + j] = slopes[side, j]
        for i in range(1, rows):
            for j in range(units):
                out[at + j] += slopes[side, i * units + j]

    @part
    def network_backward(arguments: Any) -> None:
        X, params, sizes = arguments.X, arguments.params, arguments.sizes
        masks, values, R, slopes = arguments.masks, arguments.values, arguments.R, arguments.slopes
        gradient, gemm = arguments.gradient, arguments.gemm
        inputs = arguments.inputs if len(arguments.inputs) else values
        hidden = arguments.left if len(masks) else values
        rows, last, width = len(X), len(sizes) - 2, slopes.shape[1]
        at, first, side = len(params), 0, 0
        for layer in range(last):
            first += rows * sizes[layer + 1]
        outputs = sizes[last + 1]
        for i in range(rows):
            for j in range(outputs):
                slopes[0, i * outputs + j] = R[i, j]
        for layer in range(last, -1, -1):
            before, units = sizes[layer], sizes[layer + 1]
            at -= units
            sum_rows(slopes, side, rows, units, gradient, at)
            at -= before * units
            above = side * width
            if layer == 0:
                multiply(gemm, 1, before, units, rows, X, 0, slopes, above, gradient, at)
                break
            first -= rows * before
            multiply(gemm, 1, before, units, rows, hidden, first, slopes, above, gradient, at)
            side = 1 - side
            multiply(gemm, 2, rows, before, units, slopes, above, params, at, slopes, side * width)
            for j in range(rows * before):
                slope = slope_of(arguments.loss, inputs[first + j], values[first + j])
                slopes[side, j] *= slope
            if len(masks):
                for j in range(rows * before):
                    slopes[side, j] *= masks[first + j]

    return network_backward
