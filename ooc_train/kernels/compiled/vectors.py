"""Vectors of eight numbers, for the loops over columns that take most of the time.

A compiler vectorises a plain loop only after three proofs. Arrays must not overlap, sums must be
free to be reordered, and there must be enough columns. The compiled code checks that before each
row, which takes longer than a row of a hundred columns. A loop over explicit vectors needs no
check.

A `Vector` can be added to another vector, subtracted from it, and multiplied or divided by it. A
number stands for eight equal ones. Products that are added are fused, as in the other kernels.
"""

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from ooc_train.core.sums import Array
from ooc_train.kernels.compiled.parts import strict_part
from ooc_train.kernels.layout import LANES, Rows

_WIDE, _LANE = ir.VectorType(ir.DoubleType(), LANES), ir.IntType(32)
_FLAGS = ("contract",)


class _Vector(types.Type):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(f"vector of {LANES} float64")


_VECTOR, _NUMBER, _INDEX = _Vector(), types.float64, types.int64


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, of: Any) -> None:
        super().__init__(manager, of, _WIDE)


def _spread(builder: Any, number: Any) -> Any:
    """Return a vector of eight copies of a number."""
    undefined = ir.Constant(ir.VectorType(number.type, LANES), ir.Undefined)
    first = builder.insert_element(undefined, number, _LANE(0))
    everywhere = ir.Constant(ir.VectorType(_LANE, LANES), [0] * LANES)
    return builder.shuffle_vector(first, undefined, everywhere)


def _define(operators: tuple[Any, Any], instruction: str) -> None:
    """Define an operator of two vectors, and of a vector and a number, by an instruction."""
    kinds = [(_VECTOR, _VECTOR), (_VECTOR, _NUMBER), (_NUMBER, _VECTOR)]

    def lower(context: Any, builder: Any, typed: Any, given: Any) -> Any:  # noqa: ARG001
        sides = [
            value if kind == _VECTOR else _spread(builder, value)
            for kind, value in zip(typed.args, given, strict=True)
        ]
        return getattr(builder, instruction)(*sides, flags=_FLAGS)

    for name in operators:
        cases = [signature(_VECTOR, *kind) for kind in kinds]
        infer_global(name)(type("_Combined", (ConcreteTemplate,), {"cases": cases}))
        for kind in kinds:
            lower_builtin(name, *kind)(lower)


_define((operator.add, operator.iadd), "fadd")
_define((operator.sub, operator.isub), "fsub")
_define((operator.mul, operator.imul), "fmul")
_define((operator.truediv, operator.itruediv), "fdiv")


def _place(context: Any, builder: Any, kind: Any, array: Any, i: Any, j: Any) -> Any:
    """Return the address of column `j` of row `i` of an array, whose last axis is the columns."""
    found = context.make_array(kind)(context, builder, array)
    width = builder.extract_value(found.shape, kind.ndim - 1)
    return builder.gep(found.data, [builder.add(builder.mul(i, width), j)])


def _element(kind: Any) -> tuple[Any, int]:
    """Return the type of an array's numbers, and its size in bytes."""
    return (ir.FloatType(), 4) if kind.dtype == types.float32 else (ir.DoubleType(), 8)


def _widened(builder: Any, value: Any) -> Any:
    return value if value.type == _WIDE else builder.fpext(value, _WIDE)


@intrinsic  # type: ignore[untyped-decorator]
def zeros(typing_context: Any) -> Any:  # noqa: ARG001 (numba's protocol)
    """Return a vector of zeros."""
    return _VECTOR(), lambda *_: ir.Constant(_WIDE, [0.0] * LANES)


@intrinsic  # type: ignore[untyped-decorator]
def load(typing_context: Any, array: Any, i: Any, j: Any) -> Any:  # noqa: ARG001 (numba's protocol)
    """Return eight numbers of row `i` of a matrix, from column `j`."""

    def generate(context: Any, builder: Any, typed: Any, given: Any) -> Any:
        number, size = _element(typed.args[0])
        place = _place(context, builder, typed.args[0], *given)
        narrow = ir.VectorType(number, LANES).as_pointer()
        return _widened(builder, builder.load(builder.bitcast(place, narrow), align=size))

    return _VECTOR(array, _INDEX, _INDEX), generate


def _first(builder: Any, count: Any) -> Any:
    """Return a mask of the first `count` of a vector's numbers."""
    numbers = ir.Constant(ir.VectorType(_LANE, LANES), list(range(LANES)))
    return builder.icmp_signed("<", numbers, _spread(builder, builder.trunc(count, _LANE)))


@intrinsic  # type: ignore[untyped-decorator]
def _load_first(typing_context: Any, array: Any, i: Any, j: Any, count: Any) -> Any:  # noqa: ARG001
    """Return `count` numbers of row `i` of a matrix, from column `j`, followed by zeros."""

    def generate(context: Any, builder: Any, typed: Any, given: Any) -> Any:
        number, size = _element(typed.args[0])
        narrow = ir.VectorType(number, LANES)
        place = _place(context, builder, typed.args[0], *given[:3])
        place = builder.bitcast(place, narrow.as_pointer())
        mask = _first(builder, given[3])
        kind = ir.FunctionType(narrow, [place.type, _LANE, mask.type, narrow])
        name = f"llvm.masked.load.v{LANES}f{8 * size}.p0"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        nothing = ir.Constant(narrow, [0.0] * LANES)
        return _widened(builder, builder.call(function, [place, _LANE(size), mask, nothing]))

    return _VECTOR(array, _INDEX, _INDEX, _INDEX), generate


@intrinsic  # type: ignore[untyped-decorator]
def _store_first(typing_context: Any, array: Any, i: Any, j: Any, count: Any, vector: Any) -> Any:  # noqa: ARG001
    """Write the first `count` of a vector's numbers to row `i` of a matrix, from column `j`."""

    def generate(context: Any, builder: Any, typed: Any, given: Any) -> Any:
        place = _place(context, builder, typed.args[0], *given[:3])
        place = builder.bitcast(place, _WIDE.as_pointer())
        mask = _first(builder, given[3])
        kind = ir.FunctionType(ir.VoidType(), [_WIDE, place.type, _LANE, mask.type])
        name = f"llvm.masked.store.v{LANES}f64.p0"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        builder.call(function, [given[4], place, _LANE(8), mask])
        return context.get_dummy_value()

    return types.void(array, _INDEX, _INDEX, _INDEX, _VECTOR), generate


@intrinsic  # type: ignore[untyped-decorator]
def store(typing_context: Any, array: Any, i: Any, j: Any, vector: Any) -> Any:  # noqa: ARG001
    """Write a vector to row `i` of a matrix of float64, from column `j`."""

    def generate(context: Any, builder: Any, typed: Any, given: Any) -> Any:
        place = _place(context, builder, typed.args[0], *given[:3])
        builder.store(given[3], builder.bitcast(place, _WIDE.as_pointer()), align=8)
        return context.get_dummy_value()

    return types.void(array, _INDEX, _INDEX, _VECTOR), generate


@intrinsic  # type: ignore[untyped-decorator]
def total(typing_context: Any, vector: Any) -> Any:  # noqa: ARG001 (numba's protocol)
    """Return the sum of a vector's numbers: the halves are added, then their halves, and so on."""

    def generate(context: Any, builder: Any, typed: Any, given: Any) -> Any:  # noqa: ARG001
        (value,) = given
        width = LANES
        while width > 1:
            width //= 2
            halves = [
                builder.shuffle_vector(
                    value,
                    ir.Constant(value.type, ir.Undefined),
                    ir.Constant(ir.VectorType(_LANE, width), list(range(first, first + width))),
                )
                for first in (0, width)
            ]
            value = builder.fadd(*halves)
        return builder.extract_element(value, _LANE(0))

    return _NUMBER(_VECTOR), generate


@intrinsic  # type: ignore[untyped-decorator]
def sqrt(typing_context: Any, value: Any) -> Any:  # noqa: ARG001 (numba's protocol)
    """Return the square root of a number, or of each number of a vector."""
    kind = value if value in (_VECTOR, types.float32) else _NUMBER
    names = {_VECTOR: f"v{LANES}f64", types.float32: "f32", _NUMBER: "f64"}
    name = f"llvm.sqrt.{names[kind]}"

    def generate(context: Any, builder: Any, typed: Any, given: Any) -> Any:  # noqa: ARG001
        (operand,) = given
        function = ir.FunctionType(operand.type, [operand.type])
        return builder.call(cgutils.get_or_insert_function(builder.module, function, name), given)

    return kind(kind), generate


@intrinsic  # type: ignore[untyped-decorator]
def shrink_vector(typing_context: Any, vector: Any, threshold: Any) -> Any:  # noqa: ARG001
    """Return a vector shrunk towards zero by another one, as `soft_threshold` shrinks arrays."""

    def generate(context: Any, builder: Any, typed: Any, given: Any) -> Any:  # noqa: ARG001
        nothing = ir.Constant(_WIDE, [0.0] * LANES)
        above, below = builder.fsub(*given), builder.fadd(*given)
        # NaN is in no order, and stays.
        above = builder.select(builder.fcmp_ordered("<", above, nothing), nothing, above)
        below = builder.select(builder.fcmp_ordered(">", below, nothing), nothing, below)
        return builder.fadd(above, below)

    return _VECTOR(_VECTOR, _VECTOR), generate


@strict_part
def load_columns(array: Rows, i: int, j: int, columns: int) -> Any:
    """Return eight numbers of row `i` from column `j`; those beyond the first `columns` are 0."""
    if j + LANES <= columns:
        return load(array, i, j)
    return _load_first(array, i, j, columns - j)


@strict_part
def load_row(X: Rows, i: int, j: int) -> Any:
    """Return eight numbers of row `i` from column `j`; absent columns are zero."""
    return load_columns(X, i, j, X.shape[1])


@strict_part
def store_row(array: Array, i: int, j: int, columns: int, vector: Any) -> None:
    """Write a vector to row `i` from column `j`, but not beyond the first `columns`."""
    if j + LANES <= columns:
        store(array, i, j, vector)
    else:
        _store_first(array, i, j, columns - j, vector)
