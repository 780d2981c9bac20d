"""Kernels as functions of arrays and numbers: checked arguments, packed into words.

`load` makes kernels ready before memory is measured. A kernel that was not loaded is loaded by its
first call.
"""

import ctypes
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.forks import after_fork
from ooc_train.kernels import known_arrays
from ooc_train.kernels.machine_code import link
from ooc_train.kernels.machine_code import missing as missing_code
from ooc_train.kernels.plain import PLAIN
from ooc_train.kernels.specs import KernelSpec, Parameter

_READ, _WRITTEN = 0x101, 0x501
"""NumPy's flags of arrays to read (C-contiguous and aligned), and to write (also writeable)."""

_DTYPES = {"real": np.dtype(np.float64), "whole": np.dtype(np.int64)}
_FORMATS = {"real": "d", "whole": "q", "bits": "Q"}
_RETURNS = {"real": ctypes.c_double, "whole": ctypes.c_int64, None: None}


class _Kernel:
    """A kernel as a function of its arguments, which are checked.

    `run` is machine code, which takes the arguments as one string of words. If `plain`, it is a
    function of NumPy's plain route, which takes the arguments themselves.
    """

    def __init__(self, spec: KernelSpec, dtype: np.dtype[Any], run: Any, *, plain: bool) -> None:
        self._spec = spec
        self._arrays = [_array(parameter, dtype) for parameter in spec.parameters]
        self._formats = "".join(
            _FORMATS[parameter.values] if array is None else "P"
            for parameter, array in zip(spec.parameters, self._arrays, strict=True)
        )
        self._packing: dict[tuple[int, int], struct.Struct] = {}
        self._run = run
        self._plain = plain

    def __call__(self, *arguments: Any) -> Any:
        words = self._packed(arguments, 0)
        return self._run(*arguments) if self._plain else self._run(words)

    def followed_by(self, *arguments: Any) -> Callable[..., Any]:
        """Return a function of the kernel's first arguments; the last ones are given here."""
        first = len(self._arrays) - len(arguments)
        rest = self._packed(arguments, first)

        def call(*leading: Any) -> Any:
            words = self._packed(leading, 0)
            if self._plain:
                return self._run(*leading, *arguments)
            return self._run(words + rest)

        return call

    def _packed(self, arguments: tuple[Any, ...], first: int) -> bytes:
        """Check arguments from number `first` on, and return them packed as machine words."""
        words = []
        for at, argument in enumerate(arguments, first):
            array = self._arrays[at]
            if array is None:
                words.append(argument)
                continue
            dtype, dimensions, flags = array
            if (
                (argument.dtype is not dtype and argument.dtype != dtype)
                or argument.ndim != dimensions
                or argument.flags.num & flags != flags
            ):
                raise TypeError(self._refusal(argument, at, array))
            words.append(id(argument))
        last = first + len(arguments)
        packing = self._packing.get((first, last))
        if packing is None:
            packing = struct.Struct("@" + self._formats[first:last])
            self._packing[first, last] = packing
        return packing.pack(*words)

    def _refusal(self, found: NDArray[Any], at: int, due: tuple[np.dtype[Any], int, int]) -> str:
        dtype, dimensions, flags = due
        return (
            f"{self._spec.kernel}: {self._spec.parameters[at].name} (argument {at + 1}) is "
            f"{found.dtype} of {found.ndim} dimensions"
            f"{'' if found.flags.c_contiguous else ', not C-contiguous'}"
            f"{'' if found.flags.writeable else ', read-only'}; it takes {dtype} of {dimensions}, "
            f"C-contiguous{', which it writes to' if flags == _WRITTEN else ''}"
        )


def _array(parameter: Parameter, dtype: np.dtype[Any]) -> tuple[np.dtype[Any], int, int] | None:
    """Return type, dimensions, and the flags that an array must have, or None for a number."""
    if parameter.dimensions == 0:
        return None
    flags = _WRITTEN if parameter.written else _READ
    return _DTYPES.get(parameter.values, dtype), parameter.dimensions, flags


_lock = threading.Lock()
_loaded: dict[tuple[KernelSpec, np.dtype[Any]], _Kernel] = {}
_owners: list[object] = []


@after_fork
def _unlock() -> None:
    """Give a forked process a new lock: a thread of its parent may have held the old one."""
    global _lock
    _lock = threading.Lock()


def load(dtype: np.typing.DTypeLike, specs: Iterable[KernelSpec]) -> str:
    """Load kernels for X of `dtype`; new kernels are compiled, which takes some seconds.

    Each kernel is called on small known arrays. If a result is not NumPy's, plain NumPy replaces
    that kernel from then on.

    Returns
    -------
    str
        What compiling took, and which kernels are not compiled and why; "" as a rule.

    Raises
    ------
    RuntimeError
        If kernels could not be compiled.
    """
    kind = _kind(dtype)
    with _lock:
        specs = _not_loaded(specs, kind)
        return _load(specs, kind) if specs else ""


def missing(dtype: np.typing.DTypeLike, specs: Iterable[KernelSpec]) -> dict[KernelSpec, bool]:
    """Return the kernels that `load` would compile, and whether later runs would find the code."""
    kind = _kind(dtype)
    specs = _not_loaded(specs, kind)
    if not specs or known_arrays.convention() is not None:
        return {}
    return missing_code(specs, kind.name)


def _kind(dtype: np.typing.DTypeLike) -> np.dtype[Any]:
    return np.dtype(np.float32 if np.dtype(dtype) == np.float32 else np.float64)


def _not_loaded(specs: Iterable[KernelSpec], kind: np.dtype[Any]) -> list[KernelSpec]:
    return [spec for spec in dict.fromkeys(specs) if (spec, kind) not in _loaded]


def _load(specs: Sequence[KernelSpec], kind: np.dtype[Any]) -> str:
    """Load kernels that are not loaded yet; return notes on compiling and on plain NumPy."""
    if (why := known_arrays.convention()) is not None:
        for spec in specs:
            _loaded[spec, kind] = _plain_kernel(spec, kind)
        return f"plain NumPy runs instead of compiled kernels: {why}"
    linked = link(specs, kind.name)
    notes, wrong = [linked.note] if linked.note else [], []
    _owners.extend(linked.owners)
    for spec, address in linked.addresses.items():
        returns = _RETURNS[spec.signature.returns]
        run = ctypes.CFUNCTYPE(returns, ctypes.c_char_p)(address)
        compiled = _Kernel(spec, kind, run, plain=False)
        plain = _plain_kernel(spec, kind)
        right = known_arrays.agree(spec, kind, compiled, plain)
        _loaded[spec, kind] = compiled if right else plain
        wrong += [] if right else [str(spec)]
    if wrong:
        notes.append(
            f"plain NumPy runs instead of compiled kernels, whose results on known arrays are not "
            f"NumPy's: {', '.join(wrong)}"
        )
    return "; ".join(notes)


def _plain_kernel(spec: KernelSpec, kind: np.dtype[Any]) -> _Kernel:
    return _Kernel(spec, kind, PLAIN[spec.kernel](spec), plain=True)


def kernel_of(spec: KernelSpec, dtype: np.dtype[Any]) -> _Kernel:
    """Return a kernel for X of `dtype`, loaded if necessary."""
    kernel = _loaded.get((spec, dtype))
    if kernel is None:
        load(dtype, [spec])
        kernel = _loaded.get((spec, dtype))
        if kernel is None:
            raise TypeError(f"{spec.kernel} takes X as float32 or float64, not {dtype}")
    return kernel


def any_kernel_of(spec: KernelSpec) -> _Kernel:
    """Return a kernel that does not depend on X, for a type of X that is loaded if there is one."""
    for dtype in (np.dtype(np.float32), np.dtype(np.float64)):
        if (spec, dtype) in _loaded:
            return _loaded[spec, dtype]
    return kernel_of(spec, np.dtype(np.float32))
