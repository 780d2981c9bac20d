"""One BLAS thread while we compute: a limit of the process, counted, and taken back at the end.

A Cholesky factor differs in its last bits between one thread and two, and so do products; and
workers that each start as many BLAS threads as there are cores are slower than one thread each.
"""

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
"""How many times each thread is inside: of a forked process, only one of them goes on."""
_limiter: Any = None


@after_fork
def _alone() -> None:
    """Have a forked process count its one thread, and lift the limit that others had set."""
    global _lock
    _lock = threading.Lock()
    for thread in set(_inside) - {threading.get_ident()}:
        del _inside[thread]
    _lift_if_last()


@cache
def _controller() -> ThreadpoolController:
    # Looking for the loaded libraries takes milliseconds, so it is done once a process.
    return ThreadpoolController()


def _take_control() -> None:
    """Let this thread set limits, whichever thread set the last ones.

    threadpoolctl 3.8 ignores, without a word, limits from any but the first thread to set one.
    """
    for library in _controller().lib_controllers:
        if hasattr(library, "clear_controlling_thread"):
            library.clear_controlling_thread(force=True)


def load_blas() -> None:
    """Have BLAS allocate its own buffers, as it does with the first product of matrices."""
    import numpy as np

    with one_blas_thread():
        np.ones((64, 64)) @ np.ones((64, 64))


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS to one thread in this process until the last of all users has left."""
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
            _lift_if_last()


def _lift_if_last() -> None:
    """Give BLAS back its threads where nobody is inside."""
    global _limiter
    if not _inside and _limiter is not None:
        _take_control()
        _limiter.restore_original_limits()
        _limiter = None
