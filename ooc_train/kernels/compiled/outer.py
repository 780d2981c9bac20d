"""Compiled sums of weighted outer products of rows, the parts of a Hessian.

The sums are ``sum_i c_i t_i t_i.T`` over scaled rows t, in float64 from the first row. BLAS would
need all rows scaled and weighted in memory first, and OpenBLAS treats unknown processors as old
ones. Here a few rows at a time are scaled into a near cache, and vector registers hold a block of
the sum (Goto and van de Geijn 2008, "Anatomy of High-Performance Matrix Multiplication"). On 100
columns a row took 200 ns; the product alone took BLAS 310.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ooc_train.core.sums import Array
from ooc_train.kernels.compiled.parts import part, strict_part
from ooc_train.kernels.layout import LANES, Rows

_HIGH, _WIDE = 4, 2
"""A block of the sum: rows, and vectors a row. Its eight vectors hide the delay of additions, and
fit the registers."""

_STRIP = _WIDE * LANES


@intrinsic  # type: ignore[untyped-decorator]
def _add_block(
    typing_context: Any,  # noqa: ARG001 (numba's protocol)
    T: Any,
    W: Any,
    products: Any,
    rows: Any,  # noqa: ARG001
    j: Any,  # noqa: ARG001
    k: Any,  # noqa: ARG001
) -> Any:
    """Add ``W[:rows, j : j + 4].T @ T[:rows, k : k + 16]`` to that block of `products`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word, number = ir.IntType(64), ir.DoubleType()
        vector = ir.VectorType(number, LANES)
        arrays = [
            context.make_array(kind)(context, builder, argument)
            for kind, argument in zip(signature.args[:3], arguments[:3], strict=True)
        ]
        data = [builder.bitcast(array.data, number.as_pointer()) for array in arrays]
        widths = [
            builder.udiv(cgutils.unpack_tuple(builder, array.strides)[0], word(8))
            for array in arrays
        ]
        of_T, of_W, of_products = range(3)
        count, first_row, first_column = arguments[3:]

        def place(array: int, row: Any, column: Any) -> Any:
            start = builder.mul(row, widths[array])
            return builder.gep(data[array], [builder.add(start, column)])

        def vector_at(array: int, row: Any, lane: int) -> Any:
            column = builder.add(first_column, word(lane * LANES))
            return builder.bitcast(place(array, row, column), vector.as_pointer())

        def load(pointer: Any) -> Any:
            loaded = builder.load(pointer)
            loaded.align = 8
            return loaded

        multiply_add = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{LANES}f64"
        )
        undefined = ir.Constant(vector, ir.Undefined)
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        block = [
            (i, lane, builder.add(first_row, word(i)), cgutils.alloca_once(builder, vector))
            for i in range(_HIGH)
            for lane in range(_WIDE)
        ]
        for _, lane, row, room in block:
            builder.store(load(vector_at(of_products, row, lane)), room)
        with cgutils.for_range(builder, count) as loop:
            parts = [load(vector_at(of_T, loop.index, lane)) for lane in range(_WIDE)]
            weights = []
            for i in range(_HIGH):
                one = builder.load(place(of_W, loop.index, builder.add(first_row, word(i))))
                single = builder.insert_element(undefined, one, ir.Constant(ir.IntType(32), 0))
                weights.append(builder.shuffle_vector(single, undefined, everywhere))
            for i, lane, _, room in block:
                total = builder.call(multiply_add, [weights[i], parts[lane], builder.load(room)])
                builder.store(total, room)
        for _, lane, row, room in block:
            builder.store(builder.load(room), vector_at(of_products, row, lane)).align = 8
        return context.get_dummy_value()

    return types.void(T, W, products, types.int64, types.int64, types.int64), generate


@strict_part
def _fill(
    X: Rows, first: int, rows: int, c: Array, mean: Array, inv_scale: Array, T: Array, W: Array
) -> None:
    """Write scaled rows, each followed by a 1, to `T`, and weighted ones to `W`."""
    features = X.shape[1]
    for r in range(rows):
        i = first + r
        for j in range(features):
            scaled = (X[i, j] - mean[j]) * inv_scale[j]
            T[r, j] = scaled
            W[r, j] = c[i] * scaled
        T[r, features] = 1.0
        W[r, features] = c[i]


@part
def add_outer_products(arguments: Any) -> None:
    """Run the kernel, see `add_outer_products` in `kernels.api`."""
    T, W, products, sums = arguments.T, arguments.W, arguments.products, arguments.sums
    rows, columns = arguments.X.shape[0], arguments.X.shape[1] + 1
    for r in range(len(T)):
        for j in range(columns, T.shape[1]):
            T[r, j] = W[r, j] = 0.0
    for i in range(len(products)):
        for j in range(len(products)):
            products[i, j] = 0.0
    first = 0
    while first < rows:  # a range of a step that may be zero could raise
        count = min(len(T), rows - first)
        _fill(arguments.X, first, count, arguments.c, arguments.mean, arguments.inv_scale, T, W)
        # The lower triangle suffices.
        for j in range(0, columns, _HIGH):
            for k in range(0, j + _HIGH, _STRIP):
                _add_block(T, W, products, count, j, k)
        first += count
    down, right = arguments.a * columns, arguments.b * columns
    for i in range(columns):
        for j in range(i + 1):
            product = products[i, j]
            sums[down + i, right + j] += product
            if i != j:
                sums[down + j, right + i] += product
            if arguments.a != arguments.b:
                sums[right + j, down + i] += product
                if i != j:
                    sums[right + i, down + j] += product
