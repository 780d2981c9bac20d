"""Have numba make no machine code of parts, in a process that runs none of them.

numba would emit machine code for each part, for a call from Python that never comes: a fifth of the
time to compile a kernel. Kernels become machine code in `entries`, the same bytes.
"""

from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.cpu import CPUContext


def emit_nothing() -> None:
    """Have numba leave out machine code from now on: no compiled function can be called."""

    def executable(context: Any, library: Any, *_: Any, **__: Any) -> Any:  # noqa: ARG001
        library._ensure_finalized()  # noqa: SLF001
        return [].append  # numba knows each function by a built-in one of its own

    def address(library: Any, name: str) -> int:  # noqa: ARG001
        library._ensure_finalized()  # noqa: SLF001
        return 0

    CPUContext.get_executable = executable
    JITCodeLibrary.get_pointer_to_function = address
    JITCodeLibrary._finalize_specific = lambda library: None  # noqa: ARG005, SLF001
