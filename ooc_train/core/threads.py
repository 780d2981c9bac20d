"""One BLAS thread while this package computes: a limit of the process, removed by the last user.

The last bits of a Cholesky factor or a product depend on the number of threads. Workers that each
start one BLAS thread per core are also slower than workers of one thread.
"""

import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController

from ooc_train.core.forks import after_fork

_lock = threading.Lock()
_inside: Counter[int] = Counter()
"""Number of uses by thread. A forked process keeps only one of the threads."""
_limiter: Any = None


@after_fork
def _keep_own_use() -> None:
    """In a forked process, count only the thread that was kept, and lift others' limit."""
    global _lock
    _lock = threading.Lock()
    for thread in set(_inside) - {threading.get_ident()}:
        del _inside[thread]
    _lift_if_unused()


@cache
def _controller() -> ThreadpoolController:
    # The search for loaded libraries takes milliseconds: once a process.
    return ThreadpoolController()


def blas_libraries() -> list[Any]:
    """Return threadpoolctl's controllers of the BLAS libraries that are loaded."""
    found = _controller().lib_controllers
    return [library for library in found if library.user_api == "blas"]


def _take_control() -> None:
    """Let this thread set limits, even if another thread set the last ones.

    threadpoolctl 3.8 silently ignores limits from all threads but the first one that set a limit.
    """
    for library in _controller().lib_controllers:
        if hasattr(library, "clear_controlling_thread"):
            library.clear_controlling_thread(force=True)


def usable_cores() -> int:
    """Return the number of cores that this process may use; macOS tells those of the machine."""
    found = getattr(os, "sched_getaffinity", None)
    return len(found(0)) if found is not None else os.cpu_count() or 1


def load_blas() -> None:
    """Make BLAS allocate its buffers now, as the first product of matrices would."""
    import numpy as np

    with one_blas_thread():
        np.ones((64, 64)) @ np.ones((64, 64))


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread in this process until the last user has left."""
    global _limiter
    thread = threading.get_ident()
    with _lock:
        _inside[thread] += 1
        if _limiter is None:
            _take_control()
            _limiter = _controller().limit(limits=1, user_api="blas")
    try:
        yield
    finally:
        with _lock:
            _inside[thread] -= 1
            if not _inside[thread]:
                del _inside[thread]
            _lift_if_unused()


def _lift_if_unused() -> None:
    """Restore the number of BLAS threads if no thread uses the limit."""
    global _limiter
    if not _inside and _limiter is not None:
        _take_control()
        _limiter.restore_original_limits()
        _limiter = None
