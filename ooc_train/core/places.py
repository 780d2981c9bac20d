"""Safe places on disk: local paths for output, and the folder for temporary data.

A place is safe if no other user can replace what lies in it. Each folder on the way belongs to the
user or to root. Where others may write, the sticky bit protects the folders in it.
"""

import grp
import os
import pwd
import re
import stat

from ooc_train.errors import UnsafePlace

__all__ = ["local_path", "may_tell_secret", "temporary_place", "why_unsafe"]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""The start of a URL; `pathlib` turns two slashes into one."""

_OVERFLOW = 65534
"""User `nobody`: the apparent owner of files whose owner a user namespace does not map."""


def may_tell_secret(place: str) -> bool:
    """Return whether a URL may hold a password or a token, which no file of ours keeps."""
    return "://" in place and any(sign in place for sign in "@?#")


def temporary_place() -> str:
    """Return the folder for temporary folders: an absolute path without links.

    `TMPDIR` is used if it is set and writable. Otherwise the first safe one of three is used.
    /var/tmp is first, since /tmp is in memory on many systems. ~/.cache is last, for containers
    whose /tmp has no sticky bit.

    Raises
    ------
    UnsafePlace
        If other users could replace what lies in `TMPDIR`, or in all other candidates.
    """
    setting = os.environ.get("TMPDIR", "")
    if setting and _can_write(setting):
        place = os.path.realpath(setting)
        why = why_unsafe(place)
        if why is not None:
            raise UnsafePlace(
                f"TMPDIR is {setting}, and {why}: other users could replace temporary files; "
                "set TMPDIR to a folder of your own, or set the sticky bit (chmod +t)"
            )
        return place
    reasons = []
    # The loop checks what ruff's rule warns of.
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
    """Return why other users could replace what lies in a folder; None if they can't.

    Every folder from the root to the path is checked, with links resolved: a user who may rename
    one of them can put another folder there. Folders that don't exist yet are skipped.

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
    """Return the users who may own a folder on the way: this user and root.

    In a user namespace the outer root has no number, so that its folders seem to be `nobody`'s.
    """
    trusted = {0, os.geteuid()}
    if os.lstat("/").st_uid == _OVERFLOW:
        trusted.add(_OVERFLOW)
    return trusted


def _is_own_group(group: int) -> bool:
    """Return whether this user is the only member of a group, as on many systems."""
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


def local_path(path: str | os.PathLike[str]) -> str:
    """Return the absolute path for an output.

    Raises
    ------
    ValueError
        If the path is a URL, which would otherwise become a local folder such as ``s3:``.
    """
    place = os.fspath(path)
    if _URL.match(place):
        raise ValueError(
            f"{place} is a URL, and output is written to local files and folders only; write it to "
            "a local path, and copy it from there"
        )
    return os.path.abspath(place)
