"""Kernels as functions without Python: from the words of a call to machine code.

`kernels.calling` packs the arguments of a call into words, and a kernel takes their address. The
word of a number has its bits, and the word of an array has the address of its object. In the object
the kernel finds data and shape, as C extensions do (the fields of NumPy's `PyArrayObject`). numba
compiles a kernel to LLVM's language. LLVM makes machine code of it here, after a check that it
calls no function but those of the C library's mathematics.
"""

from collections import namedtuple
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import cfunc, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from ooc_train.kernels.compiled.clipped_rows import add_clipped_of, network_clipped_of
from ooc_train.kernels.compiled.full_batch import add_rows_of, predictor
from ooc_train.kernels.compiled.loop_parts import activation_parts, loss_parts, optimizer_parts
from ooc_train.kernels.compiled.network_batches import network_batch_of
from ooc_train.kernels.compiled.network_passes import network_backward_of, network_forward_of
from ooc_train.kernels.compiled.network_steps import loss_slopes_of, network_step_of
from ooc_train.kernels.compiled.outer import add_outer_products
from ooc_train.kernels.compiled.scanning import scan_groups_of
from ooc_train.kernels.compiled.shuffling import shuffle
from ooc_train.kernels.compiled.single_rows import scan_single_of
from ooc_train.kernels.compiled.unrolled import scan_unrolled_of
from ooc_train.kernels.machine_code import C_FUNCTIONS, target_machine
from ooc_train.kernels.specs import KernelSpec, Parameter, hyperparameters

SOURCES: dict[str, Callable[[Any], Any]] = {
    "add_clipped": lambda spec: add_clipped_of(loss_parts(spec.loss)),
    "add_outer_products": lambda spec: add_outer_products,  # noqa: ARG005
    "add_rows": lambda spec: add_rows_of(loss_parts(spec.loss)),
    "loss_slopes": lambda spec: loss_slopes_of(loss_parts(spec.loss)),
    "network_backward": lambda spec: network_backward_of(activation_parts(spec.activation)),
    "network_clipped": lambda spec: network_clipped_of(activation_parts(spec.activation)),
    "network_batch": lambda spec: network_batch_of(
        loss_parts(spec.loss), activation_parts(spec.activation)
    ),
    "network_forward": lambda spec: network_forward_of(activation_parts(spec.activation)),
    "network_step": lambda spec: network_step_of(optimizer_parts(spec.optimizer)),
    "predictor": lambda spec: predictor,  # noqa: ARG005
    "scan_groups": lambda spec: scan_groups_of(
        loss_parts(spec.loss), optimizer_parts(spec.optimizer), l1=spec.l1, clipped=spec.clipped
    ),
    "scan_single": lambda spec: scan_single_of(
        loss_parts(spec.loss), optimizer_parts(spec.optimizer), l1=spec.l1
    ),
    "scan_unrolled": lambda spec: scan_unrolled_of(loss_parts(spec.loss), single=spec.single),
    "shuffle": lambda spec: shuffle,  # noqa: ARG005
}
"""Functions from the spec of a kernel to its source."""

_DATA = object.__basicsize__
_SHAPE = _DATA + 16
"""Offsets in an array's object of the addresses of data and shape: its first field, and its third
one, after the number of dimensions."""

_OF_LOOPS = "network_step"
"""A kernel whose loop becomes one of vectors only if no instructions in it were paired before."""

_OPTIONS: Any = {"fastmath": {"reassoc", "contract"}, "error_model": "numpy"}


def compile_kernel(spec: KernelSpec, dtype: str) -> bytes:
    """Return a kernel for X of `dtype` as an object file; one that would call Python is refused."""
    return machine_code_of(spec, SOURCES[spec.kernel](spec), dtype)


def machine_code_of(spec: KernelSpec, source: Any, dtype: str) -> bytes:
    """Return the machine code of a source that takes one tuple of all arguments."""
    arguments = _unpacking(spec, types.float32 if dtype == "float32" else types.float64)
    returns = {"real": types.float64, "whole": types.int64, None: types.void}
    result = returns[spec.signature.returns]

    def entry(words: Any) -> Any:
        return source(arguments(words))

    compiled = cfunc(result(types.CPointer(types.int64)), **_OPTIONS)(entry)
    module = llvm.parse_assembly(compiled.inspect_llvm())
    function = module.get_function(compiled.native_name)
    function.name = spec.kernel
    _optimize(module, spec.kernel)
    return bytes(target_machine().emit_object(module))


def _type(parameter: Parameter, of_X: Any) -> Any:
    """Return the numba type of a parameter."""
    values = {"X": of_X, "real": types.float64, "whole": types.int64, "bits": types.uint64}
    value = values[parameter.values]
    if parameter.dimensions == 0:
        return value
    return types.Array(value, parameter.dimensions, "C", readonly=not parameter.written)


def _tuple_type(name: str, fields: dict[str, Any]) -> Any:
    """Return the numba type of a named tuple; of one without fields, the empty tuple."""
    if not fields:
        return types.Tuple(())
    made = namedtuple(name, fields)  # type: ignore[misc]  # noqa: PYI024 (its fields are data)
    return types.BaseTuple.from_types(tuple(fields.values()), made)


def _unpacking(spec: KernelSpec, of_X: Any) -> Callable[[Any], Any]:
    """Return a function from the words of a call to one tuple: parameters, `loss`, `optimizer`."""
    kinds = {parameter.name: _type(parameter, of_X) for parameter in spec.signature.parameters}
    of_owners = {
        owner: _tuple_type(owner, dict.fromkeys(hyperparameters(kind), types.float64))
        for owner, kind in (("loss", spec.loss), ("optimizer", spec.optimizer))
    }
    whole = _tuple_type("Arguments", kinds | of_owners)

    @intrinsic  # type: ignore[untyped-decorator]
    def arguments(typing_context: Any, words: Any) -> Any:  # noqa: ARG001 (numba's protocol)
        def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
            def word(i: int) -> Any:
                return builder.load(builder.gep(given[0], [ir.IntType(32)(i)]))

            values = [
                _value(context, builder, kind, word(i)) for i, kind in enumerate(kinds.values())
            ]
            at = len(values)
            for kind in of_owners.values():
                reals = [builder.bitcast(word(at + i), ir.DoubleType()) for i in range(len(kind))]
                values.append(context.make_tuple(builder, kind, reals))
                at += len(reals)
            return context.make_tuple(builder, signature.return_type, values)

        return whole(words), generate

    unpacking: Callable[[Any], Any] = arguments
    return unpacking


def _value(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """Return the value of a word: the number with these bits, or the array at this address."""
    if not isinstance(kind, types.Array):
        return builder.bitcast(value, ir.DoubleType()) if kind is types.float64 else value
    word = ir.IntType(64)

    def at(address: Any, offset: int) -> Any:
        place = builder.inttoptr(builder.add(address, word(offset)), word.as_pointer())
        return builder.load(place)

    array = context.make_array(kind)(context, builder)
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
    return array._getvalue()  # noqa: SLF001 (numba's protocol)


def _optimize(module: Any, name: str) -> None:
    """Optimize a function, remove unused code, and refuse functions of Python.

    numba would optimize each part, and again each function that calls the part. So `machine_code`
    turns that off in numba, and the whole kernel is optimized here once.
    """
    for function in module.functions:
        if not function.is_declaration and function.name != name:
            function.linkage = llvm.Linkage.internal
    for variable in module.global_variables:
        if not variable.is_declaration:
            variable.linkage = llvm.Linkage.internal
    for level in (2, 3):
        options = llvm.create_pipeline_tuning_options(speed_level=level)
        options.loop_vectorization = True
        options.slp_vectorization = name != _OF_LOOPS
        builder = llvm.create_pass_builder(target_machine(), options)
        passes = builder.getModulePassManager()
        passes.add_refprune_pass()  # counts of references prevent other optimizations
        passes.run(module, builder)
    declared = (*module.functions, *module.global_variables)
    needed = {
        item.name for item in declared if item.is_declaration and not item.name.startswith("llvm.")
    }
    if foreign := sorted(needed - C_FUNCTIONS):
        raise RuntimeError(f"the kernel {name} needs {', '.join(foreign)}: let nothing in it raise")
