"""Renames that replace nothing or exchange two names, and removal that tolerates other processes.

Linux's `renameat2` does both kinds of rename in one step. Elsewhere, and on file systems that
lack its flags, a link or a second rename does the same.
"""

import contextlib
import ctypes
import errno
import os
import shutil
import sys
from typing import IO, Any

from ooc_train.core.locks import is_open_at

UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY}
"""Error numbers of file systems that lack locks, or the flag of a rename."""

_ATTEMPTS = 20
"""How often a folder is removed into which a worker may still write."""

_AT_FDCWD = -100
_NOREPLACE, _EXCHANGE = 1, 2  # of linux/fs.h


def rename_exclusive(source: str, target: str) -> None:
    """Rename a file or folder, but replace nothing at the target.

    Raises
    ------
    FileExistsError
        If something lies at the target.
    OSError
        If the rename fails.
    """
    if _rename_with_flag(source, target, _NOREPLACE):
        return
    audit_rename(source, target)
    if os.path.isdir(source) and not os.path.islink(source):
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
        try:
            # Of what appears at the target only now, an empty folder alone is replaced.
            os.rename(source, target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from None
        return
    os.link(source, target, follow_symlinks=False)
    os.unlink(source)


def exchange(first: str, second: str) -> bool:
    """Exchange two names in one step; return False where the system can't.

    Raises
    ------
    OSError
        If the exchange fails.
    """
    return _rename_with_flag(first, second, _EXCHANGE)


def _rename_with_flag(source: str, target: str, flag: int) -> bool:
    """Call Linux's `renameat2`; return whether the system and file system know the flag."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    audit_rename(source, target)
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flag) == 0:
        return True
    number = ctypes.get_errno()
    if number in UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), source, None, target)


def audit_rename(source: str, target: str) -> None:
    """Raise an audit event for a rename, since `renameat2` bypasses those of Python's `os`."""
    sys.audit("ooc_train.rename", source, target)


def remove(path: str) -> None:
    """Remove a file, a link, or a folder with its content; a missing path is no error."""
    for _ in range(_ATTEMPTS):
        if not os.path.lexists(path):
            return
        _remove_once(path)


def remove_open(fd: int, path: str) -> None:
    """Remove the file or folder that this process holds open and locked, if it is still at `path`.

    Another process may make a new one at the same path afterwards; that one is not removed.
    """
    for _ in range(_ATTEMPTS):
        if not is_open_at(fd, path):
            return
        _remove_once(path)


def _remove_once(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)


def sync_file(file: IO[Any]) -> None:
    """Flush the content of an open file to the disk (fsync)."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: str) -> None:
    """Flush the directory entries of a folder to the disk (fsync)."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
