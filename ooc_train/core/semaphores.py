"""Removal of semaphores of killed processes: their names contain the process that made them.

Python gives a semaphore for a new process a name, `/dev/shm/sem.mp-...`. Python's resource tracker
removes the names that a process leaves. Where the whole process group is killed, the tracker is
killed too, and the names stay.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from secrets import token_hex
from typing import Any

__all__ = ["named_semaphores", "remove_dead_semaphores"]

_FOLDER = "/dev/shm"  # noqa: S108 (where Linux has them)
_PID_NAMESPACE = "/proc/self/ns/pid"
_NAME = re.compile(r"sem\.ooc_train-(\d+)-(\d+)-(\d+)-")

_depth = 0
_before: Any = None
"""Python's function that names semaphores, while `named_semaphores` replaces it."""


def _namespace() -> int:
    """Return the number of this process's pid namespace: containers may share semaphores."""
    return os.stat(_PID_NAMESPACE).st_ino


def _started(pid: int) -> int | None:
    """Return the start time of a process in clock ticks since boot; None if there is no process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name, in parentheses, may hold parentheses itself.
            return int(file.read().rpartition(b")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return None


@contextmanager
def named_semaphores() -> Iterator[None]:
    """Put this process into the names of new semaphores, for `remove_dead_semaphores`.

    Semaphores of other threads get such names too, which is harmless while this process lives.
    Systems without `/proc` have no list of semaphores, and keep Python's names.
    """
    if not os.path.exists(_PID_NAMESPACE):
        yield
        return
    # Imported here, since most commands do without. joblib replaces the same function.
    from multiprocessing.synchronize import SemLock

    global _depth, _before
    if not _depth:
        prefix = f"/ooc_train-{_namespace()}-{os.getpid()}-{_started(os.getpid())}-"
        _before = SemLock.__dict__["_make_name"]
        SemLock._make_name = staticmethod(lambda: prefix + token_hex(4))  # type: ignore[attr-defined] # noqa: SLF001
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if not _depth:
            SemLock._make_name = _before  # type: ignore[attr-defined] # noqa: SLF001


def remove_dead_semaphores() -> None:
    """Remove the semaphores of this user whose processes have ended."""
    with suppress(OSError):  # no such folder, or no permission
        namespace = _namespace()
        for name in os.listdir(_FOLDER):
            found = _NAME.match(name)
            if found is None:
                continue
            owner, pid, started = map(int, found.groups())
            if owner == namespace and _started(pid) != started:
                with suppress(OSError):  # another user's, or removed by another command
                    os.unlink(os.path.join(_FOLDER, name))
