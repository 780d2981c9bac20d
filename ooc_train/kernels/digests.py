"""Digests of code: what a cached kernel was compiled from.

The digest of a class covers the code of its functions and the globals that they use. It covers
neither line numbers nor names of files, so a loss that is defined in a notebook has a digest too.
"""

import hashlib
from dataclasses import fields
from types import CodeType, FunctionType
from typing import Any

import numpy as np

_SOURCES = ("value", "slope", "row", "prepare", "retained", "step", "proximal_rate")
"""Methods that kernels are made of."""

_ATTRIBUTES = ("kind", "linear", "in_vectors", "slot_powers")
"""Attributes of classes that choose how kernels are made."""


def code_digest(*kinds: Any) -> str:
    """Return a digest of the code of losses, optimizers and functions, as hexadecimal digits."""
    found: list[str] = []
    seen: set[int] = set()
    for kind in kinds:
        if isinstance(kind, type):
            _add_class(kind, found, seen)
        else:
            _add(kind, found, seen)
    return hashlib.sha256("\n".join(found).encode()).hexdigest()


def _add_class(kind: type[Any], found: list[str], seen: set[int]) -> None:
    found.append(f"class {kind.__name__} {[field.name for field in fields(kind)]}")
    found.append(repr([getattr(kind, name, None) for name in _ATTRIBUTES]))
    for name in _SOURCES:
        _add(getattr(kind, name, None), found, seen)


def _add(value: Any, found: list[str], seen: set[int]) -> None:
    """Append text that distinguishes a value from any other value."""
    if isinstance(value, FunctionType):
        if id(value) not in seen:
            seen.add(id(value))
            _add_function(value, found, seen)
    elif isinstance(value, CodeType):
        found.append(f"{value.co_code.hex()} {value.co_names} {value.co_varnames}")
        for const in value.co_consts:
            _add(const, found, seen)
    elif isinstance(value, np.ndarray):
        found.append(f"{value.dtype} {value.shape} {value.tobytes().hex()}")
    elif isinstance(value, (bool, int, float, str, bytes, tuple, type(None), np.ufunc, np.generic)):
        found.append(repr(value))
    else:
        found.append(f"{type(value).__qualname__} {getattr(value, '__name__', '')}")


def _add_function(function: FunctionType, found: list[str], seen: set[int]) -> None:
    _add(function.__code__, found, seen)
    _add(function.__defaults__, found, seen)
    for cell in function.__closure__ or ():
        _add(cell.cell_contents, found, seen)
    for name in _names(function.__code__):
        if name in function.__globals__:
            found.append(name)
            _add(function.__globals__[name], found, seen)


def _names(code: CodeType) -> list[str]:
    """Return the names that a code object and its inner code objects look up."""
    inner = [const for const in code.co_consts if isinstance(const, CodeType)]
    return sorted({*code.co_names, *(name for each in inner for name in _names(each))})
