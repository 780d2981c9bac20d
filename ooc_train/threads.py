"""One BLAS thread while we compute: a limit of the process, counted, and taken back at the end.

A Cholesky factor differs in its last bits between one thread and two, and so do products; and
workers that each start as many BLAS threads as there are cores are slower than one thread each.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController

_lock = threading.Lock()
_inside = 0
_limiter: Any = None


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
    global _inside, _limiter
    with _lock:
        _inside += 1
        if _inside == 1:
            _take_control()
            _limiter = _controller().limit(limits=1, user_api="blas")
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _take_control()
                _limiter.restore_original_limits()
                _limiter = None
