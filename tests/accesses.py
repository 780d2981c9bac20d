"""What this process does to files, as Python's audit events tell it: root is told of too."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LOOKS = {"os.listdir", "os.scandir"}
_CHANGES = {
    "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir",
    "os.setxattr", "os.symlink", "os.truncate", "os.utime", "shutil.move", "shutil.rmtree",
}  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_heard: list[tuple[int | None, list[tuple[str, str, bool]]]] = []
"""Those who listen: the thread whose accesses count, or None for all, and the list of them."""


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _heard or not (event == "open" or event in _LOOKS or event in _CHANGES):
        return
    path, changes = arguments[0], event in _CHANGES
    if event == "open":
        changes = bool(arguments[2] & _WRITING)
    if not isinstance(path, int | None):  # a file that is open already was told of
        for thread, found in _heard:
            if thread in (None, threading.get_ident()):
                found.append((event, os.path.abspath(os.fsdecode(path)), changes))


sys.addaudithook(_hook)  # once: none can be taken away


@contextmanager
def accesses(*, this_thread: bool = False) -> Iterator[list[tuple[str, str, bool]]]:
    """Give the list that every file opened, folder listed or path changed meanwhile is put in.

    Each is (audit event, absolute path, whether the file or folder may change by it). They are of
    all threads of this process, so those of a Dask cluster that another test has left open are
    among them, or of this thread alone.
    """
    found: list[tuple[str, str, bool]] = []
    listener = (threading.get_ident() if this_thread else None, found)
    _heard.append(listener)
    try:
        yield found
    finally:
        # Another listener's pair may be equal.
        _heard[:] = [other for other in _heard if other is not listener]
