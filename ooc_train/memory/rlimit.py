"""The operating system's limit on what a process may allocate: behind the plan, for what it missed.

The pool and the plan keep a run under its ceiling. Where something allocates more than it said, the
limit makes that a `MemoryError` in the task that does it, and not the end of a process or of the
machine.

`RLIMIT_DATA` counts addresses that may be written to, taken or not, so that it is set above what a
process has when a job begins. Set too tightly it was seen to hang the starts of threads and to end
event loops: hence `SLACK`, and one job's limit is never below another's.
"""

import resource
import sys
import threading

from ooc_train.core.units import approximate_bytes

__all__ = ["SLACK", "allow", "lift"]

SLACK = 64 * 2**20
"""Bytes that a process may take beyond what was planned, before it is refused: threads take 8 MiB
of addresses each for their stacks, and allocators theirs in large pieces."""

_lock = threading.Lock()
_allowed: dict[str, int] = {}
_before: tuple[int, int, int] | None = None
"""Addresses taken when the first job began, or one was allowed anew, and the limits before."""


def allow(job: str, growth: int) -> str:
    """Let this process take so many bytes more for a job, and return the limit as text.

    It returns "" where there is no such limit: elsewhere than on Linux. A job that is allowed anew
    may take as much more than the process has by now: allocators reserve addresses meanwhile, such
    as Arrow's 1 GiB, that are no memory, and a limit below them would refuse every byte.
    """
    global _before
    if not sys.platform.startswith("linux"):
        return ""
    with _lock:
        if _before is None:
            _before = (_taken(), *resource.getrlimit(resource.RLIMIT_DATA))
        elif job in _allowed:
            taken, soft, hard = _before
            _before = (max(taken, _taken()), soft, hard)
        _allowed[job] = growth
        return approximate_bytes(_set())


def lift(job: str) -> None:
    """Take a job's limit away; with the last one, the process has again the limits that it had."""
    global _before
    with _lock:
        if _allowed.pop(job, None) is None or _before is None:
            return
        if _allowed:
            _set()
            return
        _, soft, hard = _before
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
        _before = None


def _set() -> int:
    """Set the limit for all jobs that are on, and return it."""
    if _before is None:
        raise RuntimeError("a limit is set by `allow` only")
    taken, soft, hard = _before
    limit = taken + sum(_allowed.values()) + SLACK
    if soft != resource.RLIM_INFINITY:
        limit = min(limit, soft)  # whoever set a lower one meant it
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    return limit


def _taken() -> int:
    """Return the bytes of addresses that count."""
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmData")
