"""Numba without what only callers of its functions need, in a process that calls none of them.

numba would make machine code of each part, and a function by which Python calls the part. It would
tell listeners how long each step took. And Python's garbage collector would look for cycles among
objects that live until the process ends. All that took two fifths of the time to compile a kernel.
`entries` makes the machine code of kernels, the same instructions.
"""

import gc
from typing import Any

from numba.core import event
from numba.core.codegen import JITCodeLibrary
from numba.core.cpu import CPUContext

_NEW_OBJECTS = 50_000
"""Number of new objects between collections of garbage; Python's default is 700."""


def only_translate() -> None:
    """Have numba translate to LLVM's language only; no compiled function can be called then."""

    def executable(context: Any, library: Any, *_: Any, **__: Any) -> Any:  # noqa: ARG001
        library._ensure_finalized()  # noqa: SLF001
        return [].append  # numba knows each function by a built-in one of its own

    def address(library: Any, name: str) -> int:  # noqa: ARG001
        library._ensure_finalized()  # noqa: SLF001
        return 0

    CPUContext.get_executable = executable
    CPUContext.create_cpython_wrapper = lambda *_, **__: None
    JITCodeLibrary.get_pointer_to_function = address
    JITCodeLibrary._finalize_specific = lambda library: None  # noqa: ARG005, SLF001
    event.broadcast = lambda event: None  # noqa: ARG005
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 20, 1000)
