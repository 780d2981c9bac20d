"""Kernels as functions that need nothing of Python: from the words of a call to machine code.

A kernel is called with the address of the words that `kernels` packs: of a number its bits, of an
array where its object lies, in which data and shape are found as every C extension finds them (the
fields of NumPy's `PyArrayObject`). numba compiles that to LLVM's language, which is made machine
code here once more, so that it can be seen to call nothing but the C library's mathematics.
"""

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import cfunc, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from ooc_train.kernels.compiled.full_batch import add_rows, predictor
from ooc_train.kernels.compiled.outer import add_outer_products
from ooc_train.kernels.compiled.scanning import scan, shuffle
from ooc_train.kernels.machine_code import C_FUNCTIONS, KERNELS, Parameter, target_machine

__all__ = ["compile_kernels"]

_SOURCES: dict[str, Any] = {
    "add_outer_products": add_outer_products,
    "add_rows": add_rows,
    "predictor": predictor,
    "scan": scan,
    "shuffle": shuffle,
}

_DATA = object.__basicsize__
_SHAPE = _DATA + 16
"""Where the address of the data, and that of the shape, lie in an array's object: first among its
fields, and third, behind the number of dimensions."""

_OPTIONS: Any = {"fastmath": {"reassoc", "contract"}, "error_model": "numpy"}


def compile_kernels(dtype: str) -> dict[str, bytes]:
    """Return the machine code of each kernel, for X of `dtype`, as an object file."""
    of_X = types.float32 if dtype == "float32" else types.float64
    return {name: _machine_code(name, source, of_X) for name, source in _SOURCES.items()}


def _machine_code(name: str, source: Any, of_X: Any) -> bytes:
    parameters, returns = KERNELS[name]
    arguments = _unpacking([_type(parameter, of_X) for parameter in parameters])
    result = {"real": types.float64, "whole": types.int64, None: types.void}[returns]

    def entry(words: Any) -> Any:
        return source(*arguments(words))

    compiled = cfunc(result(types.CPointer(types.int64)), **_OPTIONS)(entry)
    module = llvm.parse_assembly(compiled.inspect_llvm())
    function = module.get_function(compiled.native_name)
    function.name = name
    _optimize(module, name)
    return bytes(target_machine().emit_object(module))


def _type(parameter: Parameter, of_X: Any) -> Any:
    """Return what numba knows a parameter by."""
    values = {"X": of_X, "real": types.float64, "whole": types.int64, "bits": types.uint64}
    value = values[parameter.values]
    if parameter.dimensions == 0:
        return value
    return types.Array(value, parameter.dimensions, "C", readonly=not parameter.written)


def _unpacking(kinds: list[Any]) -> Callable[[Any], Any]:
    """Return what makes arguments of the words of a call."""

    @intrinsic  # type: ignore[untyped-decorator]
    def arguments(typing_context: Any, words: Any) -> Any:  # noqa: ARG001 (numba's protocol)
        def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
            word = ir.IntType(64)

            def at(address: Any, offset: int) -> Any:
                place = builder.inttoptr(builder.add(address, word(offset)), word.as_pointer())
                return builder.load(place)

            values = []
            for i, kind in enumerate(kinds):
                value = builder.load(builder.gep(given[0], [ir.IntType(32)(i)]))
                if not isinstance(kind, types.Array):
                    as_real = kind is types.float64
                    values.append(builder.bitcast(value, ir.DoubleType()) if as_real else value)
                    continue
                of_array = context.make_array(kind)
                array = of_array(context, builder)
                pointer = context.get_data_type(kind.dtype).as_pointer()
                data = builder.inttoptr(at(value, _DATA), pointer)
                lengths = at(value, _SHAPE)
                shape = [at(lengths, 8 * axis) for axis in range(kind.ndim)]
                itemsize = context.get_constant(types.intp, kind.dtype.bitwidth // 8)
                strides = [itemsize]
                for length in shape[:0:-1]:
                    strides.insert(0, builder.mul(strides[0], length))
                populate_array(
                    array,
                    data=data,
                    shape=cgutils.pack_array(builder, shape),
                    strides=cgutils.pack_array(builder, strides),
                    itemsize=itemsize,
                    meminfo=None,
                )
                values.append(array._getvalue())  # noqa: SLF001 (numba's protocol)
            return context.make_tuple(builder, signature.return_type, values)

        return types.Tuple(kinds)(words), generate

    unpacking: Callable[[Any], Any] = arguments
    return unpacking


def _optimize(module: Any, name: str) -> None:
    """Make a function fast, drop what it doesn't use, and refuse what it would need of Python.

    That is done here, once, and not by numba, which would do it for each part and again for
    whatever that is put into: `machine_code` tells it so.
    """
    for function in module.functions:
        if not function.is_declaration and function.name != name:
            function.linkage = llvm.Linkage.internal
    for variable in module.global_variables:
        if not variable.is_declaration:
            variable.linkage = llvm.Linkage.internal
    for level in (2, 3):
        options = llvm.create_pipeline_tuning_options(speed_level=level)
        options.loop_vectorization = options.slp_vectorization = True
        builder = llvm.create_pass_builder(target_machine(), options)
        passes = builder.getModulePassManager()
        passes.add_refprune_pass()  # counts of references stand in the way of all else
        passes.run(module, builder)
    declared = (*module.functions, *module.global_variables)
    needed = {
        item.name for item in declared if item.is_declaration and not item.name.startswith("llvm.")
    }
    if foreign := sorted(needed - C_FUNCTIONS):
        raise RuntimeError(f"the kernel {name} needs {', '.join(foreign)}: let nothing in it raise")
