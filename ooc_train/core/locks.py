"""Locks of files and folders, which end with the process that holds them."""

import fcntl
import os


def lock(descriptor: int) -> None:
    """Lock an open file or folder, or fail at once.

    Raises
    ------
    BlockingIOError
        If another process holds the lock.
    OSError
        If the file system has no locks.
    """
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_open_at(descriptor: int, path: str) -> bool:
    """Return whether an open file still lies at a path.

    Ask this after a lock: its last holder may have renamed or removed the file.
    """
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False
