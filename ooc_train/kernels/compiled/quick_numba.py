"""Numba without machine code for parts, in a process that runs none of them.

numba would emit machine code for calls of each part from Python, which never come. That took a
fifth of the time to compile a kernel. `entries` makes the machine code of kernels, the same bytes.
"""

from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.cpu import CPUContext


def emit_nothing() -> None:
    """Turn off machine code in numba; no compiled function can be called from then on."""

    def executable(context: Any, library: Any, *_: Any, **__: Any) -> Any:  # noqa: ARG001
        library._ensure_finalized()  # noqa: SLF001
        return [].append  # numba knows each function by a built-in one of its own

    def address(library: Any, name: str) -> int:  # noqa: ARG001
        library._ensure_finalized()  # noqa: SLF001
        return 0

    CPUContext.get_executable = executable
    JITCodeLibrary.get_pointer_to_function = address
    JITCodeLibrary._finalize_specific = lambda library: None  # noqa: ARG005, SLF001
