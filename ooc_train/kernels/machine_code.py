"""The machine code of kernels: its content, its files, and its way into this process.

numba compiles a kernel (`compiled`) in a process of its own. That happens once for each type of X,
kind of processor and version of the sources. llvmlite links it here. Linking takes a hundredth of a
second and llvmlite 7 MB, beside a library of 40 MB that processes share. numba and its first
function would take 0.8 s and 140 MB in every process.

The files lie in a folder of the user's, ``$OOC_TRAIN_CACHE_DIR`` or ``~/.cache/ooc_train``. A file
is used only if it is complete, belongs to the user, and nobody else may write it. If no such folder
can be written, each run compiles into a temporary folder of the driver. The workers are told of
that folder, and it is removed when the driver ends.
"""

import atexit
import ctypes
import hashlib
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from ooc_train.core.cache_files import replace_file
from ooc_train.core.files import FileKind, read_bytes, reading
from ooc_train.core.places import why_unsafe
from ooc_train.core.temporary_folders import close_folder, open_folder
from ooc_train.core.units import approximate_bytes
from ooc_train.errors import ClusterError
from ooc_train.kernels.digests import code_digest
from ooc_train.kernels.specs import KernelSpec
from ooc_train.objective.penalty import soft_threshold
from ooc_train.optimizers.optimizer import clip_factor

C_FUNCTIONS = frozenset(
    {"memcpy", "memmove", "memset", "exp", "exp2", "expm1", "log", "log1p", "log2", "log10", "pow"}
    | {"sqrt", "sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh"}
    | {"hypot", "erf", "erfc", "lgamma", "tgamma", "floor", "ceil", "trunc", "fmod"}
)
"""Functions that the machine code may call."""


_FUNCTIONS = (soft_threshold, clip_factor)
"""Functions of other rooms that kernels are compiled from."""


@cache
def target_machine() -> Any:
    """Return LLVM's code generator for this processor."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=3,
        codemodel="jitdefault",
        jit=True,
    )


class Linked(NamedTuple):
    """Kernels that are linked into this process.

    Attributes
    ----------
    addresses : dict of int
        The address of each kernel, by its spec.
    owners : tuple of object
        Objects that must live as long as the kernels.
    note : str
        How long compiling took, in words; "" if nothing was compiled.
    """

    addresses: dict[KernelSpec, int]
    owners: tuple[object, ...]
    note: str


def link(specs: Sequence[KernelSpec], dtype: str) -> Linked:
    """Bring kernels for X into memory; compile new ones, or raise `ClusterError` if that fails."""
    import llvmlite.binding as llvm

    paths = {spec: _path(spec, dtype) for spec in specs}
    code, note = {spec: _read(path) for spec, path in paths.items()}, ""
    if missing := {spec: paths[spec] for spec, found in code.items() if found is None}:
        compiled, note = _compiled(missing, dtype)
        code |= compiled
    c_library = ctypes.CDLL(None)
    for name in C_FUNCTIONS:
        llvm.add_symbol(name, _address(c_library, name))
    addresses, owners = {}, []
    for spec, data in code.items():
        # One engine for each kernel: two kernels of one name have one symbol.
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target_machine())
        engine.add_object_file(llvm.ObjectFileRef.from_data(data))
        engine.finalize_object()
        addresses[spec] = engine.get_function_address(spec.kernel)
        owners.append(engine)
    return Linked(addresses, tuple(owners), note)


def missing(specs: Iterable[KernelSpec], dtype: str) -> dict[KernelSpec, bool]:
    """Return the kernels that `link` would compile, and whether their code would last."""
    paths = {spec: _path(spec, dtype) for spec in specs}
    lasting = _lasting()
    return {
        spec: os.path.dirname(path) == lasting
        for spec, path in paths.items()
        if _read(path) is None
    }


def _address(library: ctypes.CDLL, name: str) -> int:
    function = getattr(library, name, None) or getattr(ctypes.CDLL("libm.so.6"), name)
    address: int | None = ctypes.cast(function, ctypes.c_void_p).value
    if address is None:
        raise RuntimeError(f"the C library has no {name}")
    return address


@cache
def _made_by() -> bytes:
    """Return a digest of the versions, the processor and the sources that all kernels share."""
    import llvmlite
    import llvmlite.binding as llvm

    folder = Path(__file__).parent
    sources = [*sorted((folder / "compiled").glob("*.py")), Path(__file__)]
    sources += [folder / "specs.py", folder / "layout.py"]
    sources += [folder.parent / "optimizers" / "averaging.py"]
    made_for = f"{llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}"
    made_by = f"numba {version('numba')} llvmlite {llvmlite.__version__} {sys.version}"
    parts = [read_bytes(path, _SOURCE) for path in sources] + [made_for.encode(), made_by.encode()]
    return hashlib.sha256(b"".join(parts)).digest()


@cache
def _digest(spec: KernelSpec) -> str:
    """Return a digest of everything that a kernel's machine code depends on."""
    parts = f"{spec} {code_digest(*spec.parts, *_FUNCTIONS)}".encode()
    return hashlib.sha256(_made_by() + parts).hexdigest()[:24]


_SOURCE = FileKind("a source of this package", 2**24, ClusterError, "install the package anew")
_CODE = FileKind("the kernels' machine code", 2**26, ClusterError, "remove it")

_told = ""
"""The folder that the driver of the last job named."""


def use_folder(path: str) -> None:
    """Use the folder of another process of this user's, if no lasting folder can be written."""
    global _told
    _told = path


def folder() -> str:
    """Return the lasting folder, or else the driver's, or else one of this process."""
    return _lasting() or (_told if _is_private(_told) else _temporary())


def _place() -> str:
    """Return the path of the lasting folder, whether or not it exists."""
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    path = os.environ.get("OOC_TRAIN_CACHE_DIR") or os.path.join(caches, "ooc_train")
    return os.path.realpath(os.path.expanduser(path))


@cache
def _lasting() -> str | None:
    """Return the lasting folder; None if it can't be written, or another user could write it."""
    path = _place()
    if why_unsafe(path) is not None:
        return None  # before a folder is made inside another user's
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        if _is_ours(os.lstat(path)) and os.access(path, os.W_OK):
            return path
    except OSError:
        pass  # a run is possible without a home that can be written to
    return None


@cache
def _temporary() -> str:
    """Make a folder that is removed when this process ends."""
    path = open_folder("kernels")
    atexit.register(close_folder, path)
    return path


def _is_private(path: str) -> bool:
    """Return whether a path is a folder of this user's, not a link, and closed to other users."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    private = stat.S_IMODE(status.st_mode) & 0o077 == 0
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and private


def _is_ours(status: os.stat_result) -> bool:
    """Return whether only this user can have written a file or folder."""
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _path(spec: KernelSpec, dtype: str) -> str:
    name = f"{spec.kernel}-{dtype}-{_digest(spec)}"
    path = os.path.join(folder(), name)
    try:
        usable = stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        usable = not os.path.lexists(path)
    except OSError:
        usable = False
    # Another kind of file at the path is not ours to remove: the code goes elsewhere.
    return path if usable else os.path.join(_temporary(), name)


def write(path: str, code: bytes) -> None:
    """Write the machine code of a kernel, whole or not at all."""
    replace_file(path, hashlib.sha256(code).hexdigest().encode() + b"\n" + code)


def _read(path: str) -> bytes | None:
    """Return what `write` wrote; None if it is absent, incomplete, or not from this user."""
    try:
        with reading(path, _CODE) as file:
            if not _is_ours(os.fstat(file.fileno())):
                return None
            digest, _, code = file.read(_CODE.limit).partition(b"\n")
    except (OSError, ClusterError):
        return None
    return code if hashlib.sha256(code).hexdigest().encode() == digest else None


def _reason(said: str) -> str:
    """Return the line of a traceback that says what was wrong.

    numba puts the stages that failed before it, and the functions on the way behind it.
    """
    lines = said.strip().splitlines() or ["it said nothing"]
    errors = [i for i, line in enumerate(lines) if re.match(r"[\w.]+(Error|Exception): ", line)]
    if not errors:
        return lines[-1]
    lines[errors[-1]] = lines[errors[-1]].partition(": ")[2]
    told = [line.strip() for line in lines[errors[-1] :]]
    reasons = [line.rstrip(":") for line in told if line and not line.startswith("Failed in ")]
    return reasons[0] if reasons else lines[-1]


def _compiled(paths: Mapping[KernelSpec, str], dtype: str) -> tuple[dict[KernelSpec, bytes], str]:
    """Compile kernels for X of `dtype` in a process of its own; return their code, and a note."""
    begun = perf_counter()
    # The package of this process, and no module of the current folder.
    package = os.fspath(Path(__file__).parents[2])
    modules = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    # `entries` optimizes functions, once.
    environment = os.environ | {"PYTHONPATH": modules, "NUMBA_OPT": "0"}
    command = [sys.executable, "-P", "-m", "ooc_train.kernels.compiled", dtype]
    done = subprocess.run(  # noqa: S603 (this Python, and files in a folder of the user's)
        command, env=environment, input=_by_value(paths), capture_output=True, check=False
    )
    code = {spec: _read(path) for spec, path in paths.items()}
    found = {spec: data for spec, data in code.items() if data is not None}
    if done.returncode or len(found) < len(code):
        reason = _reason(done.stderr.decode(errors="replace"))
        owned = [each for spec in paths for each in spec.parts]
        own = [each.__name__ for each in owned if not each.__module__.startswith("ooc_train.")]
        if own:
            raise ValueError(
                f"{own[0]} could not be compiled: {reason}; its functions are made of NumPy's "
                "ufuncs, operators, functions of such, and fields of the class (self.NAME) alone"
            )
        raise ClusterError(
            f"{_listed(paths)} could not be compiled by {' '.join(command)}, which ended with "
            f"{done.returncode}: {reason}"
        )
    often = "on this machine"
    if _lasting() is None:
        why = why_unsafe(_place()) or f"{_place()} can't be written to"
        often = f"a run, for want of a folder to keep them in ({why})"
    return found, (
        f"kernels were compiled, once {often}, before any data: {_listed(paths)}; "
        f"{perf_counter() - begun:.1f} s and {approximate_bytes(int(done.stdout))} of processes of "
        "their own, which the memory figures leave out"
    )


def _listed(specs: Iterable[KernelSpec]) -> str:
    return ", ".join(map(str, specs))


def _by_value(paths: Mapping[KernelSpec, str]) -> bytes:
    """Return specs and paths pickled, with the losses and optimizers of the user by value.

    Their classes may be in a script or a notebook, which the compiling process cannot import.
    """
    import cloudpickle

    foreign = {
        module
        for spec in paths
        for kind in spec.parts
        for base in kind.__mro__
        if (module := sys.modules.get(base.__module__)) is not None
        and module.__name__.partition(".")[0] not in ("ooc_train", "builtins", "__main__")
    }
    for module in foreign:
        cloudpickle.register_pickle_by_value(module)
    try:
        found: bytes = cloudpickle.dumps(list(paths.items()))
    finally:
        for module in foreign:
            cloudpickle.unregister_pickle_by_value(module)
    return found
