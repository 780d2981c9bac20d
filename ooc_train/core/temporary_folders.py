"""Temporary folders of mode 700, in a place where no other user can replace them.

The process that made a folder holds a lock on it. The next process that makes one removes the
folders whose process was killed.
"""

import os
import shutil
import stat
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ooc_train.core.forks import after_fork
from ooc_train.core.locks import is_open_at, lock
from ooc_train.core.places import temporary_place
from ooc_train.errors import UnsafePlace

__all__ = [
    "close_folder",
    "in_scratch",
    "open_folder",
    "own_folders",
    "remove_dead_folders",
    "scratch_folder",
    "temporary_folder",
]

_PREFIX = "ooc_train."
_SCRATCH = "arrays"

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
"""Flags that open a folder to lock it, and refuse a link."""

_locks: dict[str, int] = {}
"""Descriptors that hold the locks of this process's folders, by path."""


def open_folder(kind: str) -> str:
    """Make a temporary folder of mode 700, and return its path; `close_folder` removes it.

    After this process has ended, the next call by any process of this user removes it too.

    Parameters
    ----------
    kind : str
        A word of the folder's name, such as "cluster".

    Raises
    ------
    UnsafePlace
        If there is no safe place.
    OSError
        If the folder can't be made, such as on a full disk.
    """
    place = temporary_place()
    remove_dead_folders(place)
    while True:
        folder = tempfile.mkdtemp(prefix=f"{_PREFIX}{kind}-", dir=place)
        descriptor = _locked(folder)
        if descriptor is not None:
            _locks[folder] = descriptor
            return folder


def close_folder(folder: str) -> None:
    """Remove a folder that `open_folder` made in this process; others are left alone."""
    descriptor = _locks.pop(folder, None)
    if descriptor is not None:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


@after_fork
def _forget_locks() -> None:
    """In a forked process, forget the folders and locks that belong to the parent."""
    for descriptor in _locks.values():
        os.close(descriptor)
    _locks.clear()


def _locked(folder: str) -> int | None:
    """Open and lock a folder; return the descriptor, unlocked on file systems without locks.

    Return None where another process has removed the folder, or is about to.
    """
    try:
        descriptor = os.open(folder, _FOLDER)
    except FileNotFoundError:
        return None
    try:
        lock(descriptor)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        return descriptor  # other processes can't lock the folder either, and so never remove it
    if is_open_at(descriptor, folder):
        return descriptor
    os.close(descriptor)
    return None


def remove_dead_folders(place: str | None = None) -> None:
    """Remove the temporary folders of this user whose processes were killed.

    Parameters
    ----------
    place : str, optional
        The folder above them; otherwise `temporary_place`, if there is one.
    """
    if place is None:
        try:
            place = temporary_place()
        except UnsafePlace:
            return
    for folder in _ours(place, ""):
        with suppress(OSError):
            descriptor = os.open(folder, _FOLDER)
            try:
                lock(descriptor)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)


def own_folders(kind: str) -> list[str]:
    """Return the temporary folders of one kind of this user, made by any process."""
    return _ours(temporary_place(), f"{kind}-")


def _ours(place: str, kind: str) -> list[str]:
    """Return this user's temporary folders in `place` whose names start with `kind`; no links."""
    found = []
    for name in os.listdir(place):
        folder = os.path.join(place, name)
        if name.startswith(_PREFIX + kind):
            with suppress(OSError):
                status = os.lstat(folder)
                if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
                    found.append(folder)
    return found


@contextmanager
def temporary_folder(kind: str) -> Iterator[str]:
    """Make a temporary folder, and remove it at the end. Raises as `open_folder` does."""
    folder = open_folder(kind)
    try:
        yield folder
    finally:
        close_folder(folder)


def scratch_folder(owner: object) -> str:
    """Return a new folder for arrays, removed with `owner` or when the process ends."""
    folder = open_folder(_SCRATCH)
    weakref.finalize(owner, close_folder, folder)
    return folder


def in_scratch(path: str) -> bool:
    """Return whether a path lies in a folder that `scratch_folder` made."""
    return any(part.startswith(f"{_PREFIX}{_SCRATCH}-") for part in path.split(os.sep))
