"""What this process does to files, as Python's audit events tell it: root is told of too."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LOOKS = {"os.listdir", "os.scandir"}
_CHANGES = {
    "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir",
    "os.setxattr", "os.symlink", "os.truncate", "os.utime", "shutil.move", "shutil.rmtree",
}  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_heard: list[list[tuple[str, str, bool]]] = []
"""The lists of those who listen: (event, path, whether it changes a file)."""


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _heard or not (event == "open" or event in _LOOKS or event in _CHANGES):
        return
    path, changes = arguments[0], event in _CHANGES
    if event == "open":
        changes = bool(arguments[2] & _WRITING)
    if not isinstance(path, int | None):  # a file that is open already was told of
        for found in _heard:
            found.append((event, os.path.abspath(os.fsdecode(path)), changes))


sys.addaudithook(_hook)  # once: none can be taken away


@contextmanager
def accesses() -> Iterator[list[tuple[str, str, bool]]]:
    """Give the list that every file opened, folder listed or path changed meanwhile is put in.

    Each is (audit event, absolute path, whether the file or folder may change by it), of all
    threads of this process.
    """
    found: list[tuple[str, str, bool]] = []
    _heard.append(found)
    try:
        yield found
    finally:
        _heard.remove(found)
