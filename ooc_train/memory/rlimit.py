"""The operating system's limit on what a process may allocate, set behind the plan.

The plan keeps a run under its ceiling. Where code allocates more than planned, the limit raises a
`MemoryError` in that task. Without the limit, the kernel would kill a process.

`RLIMIT_DATA` counts writable addresses, whether pages back them or not. So the limit is set above
what a process has when a job begins. Too tight a limit hangs the start of threads and ends event
loops. Hence `SLACK`, and the limit is the sum over all jobs of the process.
"""

import resource
import sys
import threading

from ooc_train.core.units import approximate_bytes

__all__ = ["SLACK", "allow", "lift"]

SLACK = 64 * 2**20
"""Bytes beyond the plan that a process may take before the system refuses.

The stack of a thread takes 8 MiB of addresses, and allocators take addresses in large pieces.
"""

_lock = threading.Lock()
_allowed: dict[str, int] = {}
_before: tuple[int, int, int] | None = None
"""Addresses in use at the last `allow` of a job, and the soft and hard limit before the first."""


def allow(job: str, nbytes: int) -> str:
    """Limit this process to `nbytes` more bytes for a job, and return the limit as text.

    A second call for a job counts from what the process has by then. Allocators such as Arrow's
    reserve 1 GiB of addresses that hold no memory; a limit below that would refuse every byte.

    Returns
    -------
    str
        The limit, or "" where there is no such limit: on systems other than Linux.
    """
    global _before
    if not sys.platform.startswith("linux"):
        return ""
    with _lock:
        if _before is None:
            _before = (_addresses(), *resource.getrlimit(resource.RLIMIT_DATA))
        elif job in _allowed:
            used, soft, hard = _before
            _before = (max(used, _addresses()), soft, hard)
        _allowed[job] = nbytes
        return approximate_bytes(_set())


def lift(job: str) -> None:
    """Remove the limit of a job; after the last job the process has its earlier limits again."""
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
    """Set the limit of this process for all its jobs, and return it in bytes."""
    if _before is None:
        raise RuntimeError("a limit is set by `allow` only")
    used, soft, hard = _before
    limit = used + sum(_allowed.values()) + SLACK
    if soft != resource.RLIM_INFINITY:
        limit = min(limit, soft)  # a lower limit of the user stays
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    return limit


def _addresses() -> int:
    """Return the bytes of addresses that `RLIMIT_DATA` counts now."""
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmData")
