"""Functions that run in a forked process, which may be killed at a moment of its work."""

import os
import signal
import time
import traceback
from collections.abc import Callable
from typing import Any

_POLL = 0.002


def run_forked(function: Callable[..., Any], *given: Any, kill_after: float | None = None) -> bool:
    """Run a function in a fork; return whether it was killed, and fail if it failed.

    Parameters
    ----------
    function : callable
        What runs; nothing that it returns is kept.
    kill_after : float or None
        Seconds after which SIGKILL ends the fork, and the processes that it started, if it still
        runs.
    """
    started = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setpgid(0, 0)
            function(*given)
            code = 0
        except BaseException:  # noqa: BLE001 (the status tells the parent)
            traceback.print_exc()
        finally:
            os._exit(code)
    try:
        return _watched(pid, function, given, started, kill_after)
    except KeyboardInterrupt:
        _kill(pid)
        os.waitpid(pid, 0)
        raise


def _watched(
    pid: int,
    function: Callable[..., Any],
    given: tuple[Any, ...],
    started: float,
    kill_after: float | None,
) -> bool:
    """Wait for a fork; return whether it was killed."""
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            killed = os.WIFSIGNALED(status)
            assert killed or os.WEXITSTATUS(status) == 0, (function, given)
            return killed
        if kill_after is not None and time.perf_counter() - started >= kill_after:
            _kill(pid)
            kill_after = None
        time.sleep(_POLL)


def _kill(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:  # it has no group of its own yet
        os.kill(pid, signal.SIGKILL)
