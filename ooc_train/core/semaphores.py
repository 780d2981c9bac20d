"""Semaphores of processes that were killed: named for whoever made them, so that they can be told.

Python gives a semaphore that a new process is to find a name, `/dev/shm/sem.mp-...`. Its resource
tracker removes names that are left when a process ends, but not if it was killed with it, as it is
where the whole process group, or a container, is.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from secrets import token_hex
from typing import Any

__all__ = ["named_semaphores", "remove_dead_semaphores"]

_FOLDER = "/dev/shm"  # noqa: S108 (where Linux has them)
_NAME = re.compile(r"sem\.ooc_train-(\d+)-(\d+)-(\d+)-")

_depth = 0
_before: Any = None
"""How Python names semaphores, while `named_semaphores` does."""


def _namespace() -> int:
    """Return what numbers of processes mean something in: containers may share semaphores alone."""
    return os.stat("/proc/self/ns/pid").st_ino


def _started(pid: int) -> int | None:
    """Return when a process started, in ticks since the machine did; None where there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # After the name, which is in parentheses and may hold any others.
            return int(file.read().rpartition(b")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return None


@contextmanager
def named_semaphores() -> Iterator[None]:
    """Have semaphores named for this process, for `remove_dead_semaphores` to find.

    Those that other threads make meanwhile are named so too, to no effect while this process lives.
    """
    # Most commands do without. joblib names semaphores in the same way, for itself.
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
    """Remove the semaphores of this user's that processes left which have ended."""
    with suppress(OSError):  # a system without, or one that can't be looked at
        namespace = _namespace()
        for name in os.listdir(_FOLDER):
            found = _NAME.match(name)
            if found is None:
                continue
            of, pid, started = map(int, found.groups())
            if of == namespace and _started(pid) != started:
                with suppress(OSError):  # another user's, or another command was quicker
                    os.unlink(os.path.join(_FOLDER, name))
