"""The hidden paths beside an output, and what replacing an output leaves there."""

import hashlib
import os
from time import monotonic, sleep

from ooc_train.core.locks import lock
from ooc_train.core.renames import remove_open, rename_exclusive
from ooc_train.errors import OutputExists

_LOCK_SECONDS = 5.0
"""How long to wait for another process that changes what is to be replaced."""

_LONGEST_NAME = 255
"""Bytes of a file's name on Linux's file systems."""


def undo_replacement(path: str) -> None:
    """Move an output back to its path, after a process was killed while it replaced the output.

    Only file systems that can't exchange two folders need two renames.

    Raises
    ------
    OSError
        If the rename fails.
    """
    partial_path, replaced_path = hidden_paths(path, "partial", "replaced")
    if os.path.lexists(path) or not os.path.lexists(replaced_path):
        return
    fd = os.open(partial_path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        lock(fd)
        rename_exclusive(replaced_path, path)
    finally:
        os.close(fd)


def hidden_paths(path: str, *endings: str) -> list[str]:
    """Return the hidden paths beside `path` with the given endings; a long name is hashed."""
    folder, name = os.path.split(path)
    longest = max(map(len, endings))
    if len(os.fsencode(name)) + longest + 2 > _LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return [os.path.join(folder, f".{name}.{ending}") for ending in endings]


def partial_path_of(path: str) -> str:
    """Return the path at which the output for `path` is written."""
    return hidden_paths(path, "partial")[0]


def open_and_lock(path: str) -> int:
    """Open and lock an output that will be replaced: no process removes it, or adds to it.

    Another process that adds rows to a store holds its lock. This one waits a moment for it.

    Returns
    -------
    int
        The descriptor, -1 for a link. File systems without locks open it without one.

    Raises
    ------
    OutputExists
        If another process keeps the lock.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return -1
    until = monotonic() + _LOCK_SECONDS
    while True:
        try:
            lock(fd)
        except BlockingIOError:
            if monotonic() < until:
                sleep(_LOCK_SECONDS / 100)
                continue
            os.close(fd)
            raise OutputExists(
                f"another process is changing {path}, and so it is not replaced; run again when "
                "that process has ended, or write to another place"
            ) from None
        except OSError:
            pass
        return fd


def remove_replaced(fd: int, path: str) -> None:
    """Remove a replaced output by its descriptor from `open_and_lock`; a link if that is -1."""
    if fd >= 0:
        remove_open(fd, path)
    elif os.path.islink(path):
        os.unlink(path)
