"""The kernels' machine code: what is in it, where it is kept, and how it becomes functions.

numba compiles it (`compiled`) in a process that ends with that, once for each type of X, kind of
processor and version of whatever it is made of; llvmlite links it here. Linking takes a
hundredth of a second and llvmlite 7 MB, beside a library of 40 MB that processes share; numba and
its first function would take 0.8 s and 140 MB in every process.

The file lies in a folder of the user's alone, ``$OOC_TRAIN_CACHE_DIR`` or ``~/.cache/ooc_train``,
and is used only if it belongs to the user, nobody else may write it, and it is whole. Where none
can be written, it is compiled once a run: into a temporary folder of the driver's, gone when that
ends, of which workers are told.
"""

import atexit
import ctypes
import hashlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, NamedTuple

from ooc_train.core.cache_files import replace_file
from ooc_train.core.files import FileKind, parse_json, read_bytes, reading
from ooc_train.core.places import why_unsafe
from ooc_train.core.schema import integer, mapping_of
from ooc_train.core.temporary_folders import close_folder, open_folder
from ooc_train.core.units import approximate_bytes
from ooc_train.errors import ClusterError
from ooc_train.objective import losses
from ooc_train.optimizers import adam, averaging, schedules

__all__ = [
    "C_FUNCTIONS",
    "KERNELS",
    "Parameter",
    "folder",
    "link",
    "target_machine",
    "use_folder",
    "write",
]

Values = Literal["X", "real", "whole", "bits"]


class Parameter(NamedTuple):
    """What a kernel is given: an array of so many dimensions, or a number, which has none."""

    values: Values
    dimensions: int = 0
    written: bool = False


def _parameters(text: str) -> tuple[Parameter, ...]:
    """Parse "X2 real1 real2! whole": arrays with their dimensions, "!" where they are written."""
    found = []
    for word in text.split():
        values = word.rstrip("!123")
        dimensions = word[len(values) :].rstrip("!")
        found.append(Parameter(values, int(dimensions or 0), word.endswith("!")))  # type: ignore[arg-type]
    return tuple(found)


Returns = Literal["real", "whole"]

KERNELS: Mapping[str, tuple[tuple[Parameter, ...], Returns | None]] = {
    "predictor": (_parameters("X2 real2 real1 real2!"), None),
    "add_rows": (
        _parameters("X2 real2 real1 real2 real1 whole real2! real2! real2! real1! real2!"),
        "real",
    ),
    "add_outer_products": (
        _parameters("X2 real1 real1 real1 real2! real2! real2! real2! whole whole"),
        None,
    ),
    "scan": (
        _parameters(
            "X2 real2 real1 whole1 real1 real1 real1 "
            "real2! real3! real2! whole1! real2! real1! real1! "
            "real2! real2! real2! real2! real2! whole1! "
            "whole whole whole whole real1 whole whole"
        ),
        "whole",
    ),
    "shuffle": (_parameters("bits whole1!"), None),
}
"""What each kernel takes, in the order of its source's arguments, and returns."""

C_FUNCTIONS = frozenset({"exp", "log", "memcpy", "memmove", "memset", "pow", "sqrt"})
"""What the machine code may call."""


@cache
def target_machine() -> Any:
    """Return what makes machine code for this processor."""
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


def link(dtype: str) -> tuple[dict[str, int], object, str]:
    """Return the address of each kernel for X of `dtype`, and what has to live as long as they do.

    And what compiling them took, in words, where it was done for this.

    Raises
    ------
    ClusterError
        (a RuntimeError) where they could not be compiled.
    """
    import llvmlite.binding as llvm

    code, took = _read(_path(dtype)), ""
    if code is None:
        code, took = _compiled(dtype)
    c_library = ctypes.CDLL(None)
    for name in C_FUNCTIONS:
        llvm.add_symbol(name, _address(c_library, name))
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target_machine())
    for data in code.values():
        engine.add_object_file(llvm.ObjectFileRef.from_data(data))
    engine.finalize_object()
    return {name: engine.get_function_address(name) for name in code}, engine, took


def _address(library: ctypes.CDLL, name: str) -> int:
    function = getattr(library, name, None) or getattr(ctypes.CDLL("libm.so.6"), name)
    address: int | None = ctypes.cast(function, ctypes.c_void_p).value
    if address is None:
        raise RuntimeError(f"the C library has no {name}")
    return address


@cache
def _digest() -> str:
    """Return a digest of all that the machine code is made of and for."""
    import llvmlite
    import llvmlite.binding as llvm

    folder = Path(__file__).parent
    sources = [*sorted((folder / "compiled").glob("*.py")), Path(__file__), folder / "api.py"]
    sources += [
        *sorted(Path(losses.__file__).parent.glob("*.py")),
        Path(adam.__file__),
        Path(averaging.__file__),
    ]
    sources += [Path(schedules.__file__)]
    made_for = f"{llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}"
    made_by = f"numba {version('numba')} llvmlite {llvmlite.__version__} {sys.version}"
    parts = [read_bytes(path, _SOURCE) for path in sources] + [made_for.encode(), made_by.encode()]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:24]


_SOURCE = FileKind("a source of this package", 2**24, ClusterError, "install the package anew")
_CODE = FileKind("the kernels' machine code", 2**26, ClusterError, "remove it")

_told = ""
"""The folder of the driver of this process's last job."""


def use_folder(path: str) -> None:
    """Have code kept where another process of this user's keeps it, if there is none that lasts."""
    global _told
    _told = path


def folder() -> str:
    """Return a folder of the user's alone: one that lasts, the driver's, or one of this process."""
    return _lasting() or (_told if _is_private(_told) else _temporary())


def _place() -> str:
    """Return where the folder that lasts is, or would be."""
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    path = os.environ.get("OOC_TRAIN_CACHE_DIR") or os.path.join(caches, "ooc_train")
    return os.path.realpath(os.path.expanduser(path))


@cache
def _lasting() -> str | None:
    """Return the folder that lasts, or None where it can't be written to or isn't ours alone."""
    path = _place()
    if why_unsafe(path) is not None:
        return None  # before anything is made, in another user's folder
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        if _is_ours(os.lstat(path)) and os.access(path, os.W_OK):
            return path
    except OSError:
        pass  # a home that can't be written to is no reason not to run
    return None


@cache
def _temporary() -> str:
    """Make a folder that is gone when this process has ended."""
    path = open_folder("kernels")
    atexit.register(close_folder, path)
    return path


def _is_private(path: str) -> bool:
    """Return whether a folder, and no link to one, is this user's, and open to nobody else."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    private = stat.S_IMODE(status.st_mode) & 0o077 == 0
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and private


def _is_ours(status: os.stat_result) -> bool:
    """Return whether only this user can have written what lies there."""
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _path(dtype: str) -> str:
    name = f"kernels-{dtype}-{_digest()}"
    path = os.path.join(folder(), name)
    try:
        usable = stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        usable = not os.path.lexists(path)
    except OSError:
        usable = False
    # Something else in its place is not ours to remove: the code goes where there is nothing.
    return path if usable else os.path.join(_temporary(), name)


def write(path: str, code: Mapping[str, bytes]) -> None:
    """Write machine code by the kernels' names, all of it or nothing."""
    lengths = json.dumps({name: len(data) for name, data in code.items()}).encode()
    content = lengths + b"\n" + b"".join(code.values())
    replace_file(path, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


def _read(path: str) -> dict[str, bytes] | None:
    """Return what `write` wrote, or None where it isn't there, isn't whole, or isn't ours."""
    try:
        with reading(path, _CODE) as file:
            if not _is_ours(os.fstat(file.fileno())):
                return None
            digest, _, content = file.read(_CODE.limit).partition(b"\n")
    except (OSError, ClusterError):
        return None
    if hashlib.sha256(content).hexdigest().encode() != digest:
        return None
    lengths, _, data = content.partition(b"\n")
    try:
        found = parse_json(lengths)
        mapping_of(integer(0))(found, "lengths")
    except ValueError:
        return None
    if sum(found.values()) != len(data):
        return None
    code, start = {}, 0
    for name, length in found.items():
        code[name] = data[start : start + length]
        start += length
    return code


def _compiled(dtype: str) -> tuple[dict[str, bytes], str]:
    """Compile the kernels for X of `dtype` in a process of its own; return code, and a note."""
    path, begun = _path(dtype), perf_counter()
    # The package as it was found here, and nothing of the folder that the user happens to be in.
    package = os.fspath(Path(__file__).parents[2])
    given = os.environ.get("PYTHONPATH")
    modules = os.pathsep.join(filter(None, (package, given)))
    environment = os.environ | {"PYTHONPATH": modules, "NUMBA_OPT": "0"}  # `entries` does that
    command = [sys.executable, "-P", "-m", "ooc_train.kernels.compiled", dtype, path]
    done = subprocess.run(  # noqa: S603 (this Python, and a file in a folder of the user's)
        command, env=environment, capture_output=True, text=True, check=False
    )
    code = _read(path)
    if done.returncode or code is None:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ClusterError(
            f"the kernels could not be compiled by {' '.join(command)}, which ended with "
            f"{done.returncode}: {last}; run that command to see all that it says"
        )
    often = "on this machine"
    if _lasting() is None:
        why = why_unsafe(_place()) or f"{_place()} can't be written to"
        often = f"a run, for want of a folder to keep them in ({why})"
    return code, (
        f"kernels were compiled, once {often}, before any data: "
        f"{perf_counter() - begun:.1f} s and {approximate_bytes(int(done.stdout))} of a process of "
        "its own, which the memory figures leave out"
    )
