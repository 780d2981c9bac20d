"""Places on disk: for output, which never goes to a URL, and for what is temporary.

Temporary data lie in folders of mode 700 that no other user can take away or replace: each folder
on the way there belongs to the user or to root, and where others may write, the sticky bit keeps
them from what is not theirs. The process that made a folder holds a lock on it. Whoever makes the
next folder removes those whose process was killed.
"""

import grp
import os
import pwd
import re
import shutil
import stat
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ooc_train.core.forks import after_fork
from ooc_train.core.locks import is_open_at, lock
from ooc_train.errors import UnsafePlace

__all__ = [
    "close_folder",
    "in_scratch",
    "local_path",
    "open_folder",
    "own_folders",
    "remove_dead_folders",
    "scratch_folder",
    "temporary_folder",
    "temporary_place",
    "why_unsafe",
]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""The start of a URL. `pathlib` makes one slash of two, and a drive of Windows has one letter."""

_PREFIX = "ooc_train."
_SCRATCH = "given"

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
"""How a folder is opened to be locked: no link to one."""

_OVERFLOW = 65534
"""Whom the files of users without a name in a user namespace seem to belong to (`nobody`)."""


def temporary_place() -> str:
    """Return the folder that temporary folders are made in: an absolute path without links.

    `TMPDIR` where it is set and can be written to. Else /var/tmp, since /tmp lies in memory on many
    systems; only then /tmp; and at last ~/.cache, as in containers whose /tmp has no sticky bit.

    Raises
    ------
    UnsafePlace
        where other users could replace what lies in `TMPDIR`, or in all of these.
    """
    given = os.environ.get("TMPDIR", "")
    if given and _can_write(given):
        place = os.path.realpath(given)
        why = why_unsafe(place)
        if why is not None:
            raise UnsafePlace(
                f"TMPDIR is {given}, and {why}, so that other users could replace temporary files; "
                "set TMPDIR to a folder of your own, or set the sticky bit (chmod +t)"
            )
        return place
    reasons = []
    # What the rule warns of is checked here.
    for candidate in ("/var/tmp", "/tmp", os.path.expanduser("~/.cache")):  # noqa: S108
        place = os.path.realpath(candidate)
        why = why_unsafe(place) if _can_write(place) else f"{place} can't be written to"
        if why is None:
            return place
        reasons.append(why)
    raise UnsafePlace(
        f"there is no folder for temporary files: {'; '.join(reasons)}; set TMPDIR to a folder "
        "of your own"
    )


def _can_write(folder: str) -> bool:
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)


def why_unsafe(path: str) -> str | None:
    """Return why other users could replace what lies in a folder, None where they can't.

    Every folder from the root to the path counts, links resolved: whoever may rename one of them
    may put another in its place. What does not exist yet is left out.

    Parameters
    ----------
    path : str
        A folder, which need not exist.
    """
    folder = os.path.realpath(path)
    while True:
        why = _why_unsafe_itself(folder)
        if why is not None:
            return why
        parent = os.path.dirname(folder)
        if parent == folder:
            return None
        folder = parent


def _why_unsafe_itself(folder: str) -> str | None:
    try:
        status = os.lstat(folder)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return f"{folder} can't be looked at ({error.strerror})"
    if not stat.S_ISDIR(status.st_mode):
        return f"{folder} is not a folder"
    if status.st_uid not in _trusted():
        return f"{folder} belongs to {_user(status.st_uid)}"
    mode = stat.S_IMODE(status.st_mode)
    if mode & stat.S_ISVTX:
        return None
    if mode & stat.S_IWOTH:
        return f"anyone may write to {folder} (mode {mode:04o}, no sticky bit)"
    if mode & stat.S_IWGRP and not _is_own_group(status.st_gid):
        return f"the group {_group(status.st_gid)} may write to {folder} (mode {mode:04o})"
    return None


def _trusted() -> set[int]:
    """Return the users who may own a folder on the way: this one and root.

    In a user namespace root outside has no number: what belongs to root, the root folder first of
    all, is shown as `nobody`'s.
    """
    trusted = {0, os.geteuid()}
    if os.lstat("/").st_uid == _OVERFLOW:
        trusted.add(_OVERFLOW)
    return trusted


def _is_own_group(group: int) -> bool:
    """Return whether a group is this user's alone, as many systems give one to each user."""
    if group == 0:
        return True
    try:
        user, entry = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
    except KeyError:
        return False
    own = entry.gr_name == user.pw_name and user.pw_gid == group
    return own and not set(entry.gr_mem) - {user.pw_name}


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


_locks: dict[str, int] = {}
"""The file descriptor that holds the lock of each temporary folder of this process."""


def open_folder(kind: str) -> str:
    """Make a temporary folder of mode 700, and return its path; `close_folder` removes it.

    The next call, by any process of this user, removes it as well once this process has ended.

    Parameters
    ----------
    kind : str
        A word of its name, such as "cluster".

    Raises
    ------
    UnsafePlace
        where there is no place that other users can't tamper with.
    OSError
        where none can be made there, such as on a full disk.
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
    """Remove a folder that `open_folder` made, unless another process did: a child keeps off."""
    descriptor = _locks.pop(folder, None)
    if descriptor is not None:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


@after_fork
def _forget_locks() -> None:
    """Have a child that was forked leave its parent's folders, and their locks, alone."""
    for descriptor in _locks.values():
        os.close(descriptor)
    _locks.clear()


def _locked(folder: str) -> int | None:
    """Return a file descriptor that locks a folder, as far as the file system has locks.

    None where another process removed the folder, or is about to.
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
        return descriptor  # nor can another process lock it, and without that none removes it
    # It may have been removed before it was locked.
    if is_open_at(descriptor, folder):
        return descriptor
    os.close(descriptor)
    return None


def remove_dead_folders(place: str | None = None) -> None:
    """Remove the temporary folders of this user's whose processes were killed.

    Parameters
    ----------
    place : str, optional
        Where they lie; else `temporary_place`, if there is one.
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
    """Return the temporary folders of this user's of a kind, whichever process made them."""
    return _ours(temporary_place(), f"{kind}-")


def _ours(place: str, kind: str) -> list[str]:
    """Return the folders that were made here by this user, whose names begin so: no links."""
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
    """Give a temporary folder, gone afterwards. Raises as `open_folder` does."""
    folder = open_folder(kind)
    try:
        yield folder
    finally:
        close_folder(folder)


def scratch_folder(owner: object) -> str:
    """Return a new folder for arrays that are gone with `owner`, or when the process ends."""
    folder = open_folder(_SCRATCH)
    weakref.finalize(owner, close_folder, folder)
    return folder


def in_scratch(path: str) -> bool:
    """Return whether a path lies in a folder that `scratch_folder` made."""
    return any(part.startswith(f"{_PREFIX}{_SCRATCH}-") for part in path.split(os.sep))


def local_path(path: str | os.PathLike[str]) -> str:
    """Return the absolute path of a place to write to.

    Raises
    ------
    ValueError
        If it is a URL, which would otherwise become a local folder such as ``s3:``.
    """
    place = os.fspath(path)
    if _URL.match(place):
        raise ValueError(
            f"{place} is a URL, and output is written to local files and folders only; write it to "
            "a local path, and copy it from there"
        )
    return os.path.abspath(place)
