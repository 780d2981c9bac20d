"""Points of a process: just before it renames, removes, makes, links or opens a file to write.

Python tells of them by audit events, and `ooc_train.core` raises one of its own where it calls the
operating system without Python. A hook can't be taken out again: it is for forked processes.
"""

import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

_PATHS = {
    # By event: which arguments are paths, and the folders' descriptors that they are relative to.
    "os.rename": ((0, 2), (1, 3)),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.mkdir": ((0, 2),),
    "os.link": ((0, 2), (1, 3)),
    "os.symlink": ((1, 2),),
    "os.truncate": ((0, None),),
    "open": ((0, None),),
}
_OURS = "ooc_train."
"""What our own events begin with: each counts, whatever its arguments."""

_OF_TEMPFILE = re.compile("[a-z0-9_]{8}")
"""What Python's tempfile writes and removes at once, to see that it may write to a folder."""

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

Act = Callable[[int, str, str], None]
"""What is done before a point: called with its number from 0 on, the event, and the path."""


def install(folder: str, act: Act) -> None:
    """Have `act` called before each point of this process beneath `folder`."""
    busy = threading.local()
    beneath = os.path.abspath(folder) + os.sep
    count = 0
    lock = threading.RLock()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if getattr(busy, "now", False):
            return
        if event not in _PATHS and not event.startswith(_OURS):
            return
        busy.now = True
        try:
            path = _path(event, arguments, beneath)
            if path is not None:
                with lock:
                    number, count = count, count + 1
                act(number, event, path)
        finally:
            busy.now = False

    sys.addaudithook(hook)


def _path(event: str, arguments: tuple[Any, ...], beneath: str) -> str | None:
    """Return the path that an event is about, where it lies beneath a folder; else None."""
    if event.startswith(_OURS):
        return " ".join(map(str, arguments))
    if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _WRITING):
        return None
    for place, folder in _PATHS[event]:
        path = arguments[place]
        if isinstance(path, int) or path is None:
            continue
        path = os.fsdecode(path)
        descriptor = -1 if folder is None else arguments[folder]
        if isinstance(descriptor, int) and descriptor >= 0 and not os.path.isabs(path):
            path = os.path.join(os.readlink(f"/proc/self/fd/{descriptor}"), path)
        path = os.path.abspath(path)
        if path.startswith(beneath) and not _OF_TEMPFILE.fullmatch(os.path.basename(path)):
            return path
    return None


def killed_at(point: int) -> Act:
    """Return what kills this process before a point."""

    def act(number: int, event: str, path: str) -> None:
        if number == point:
            os.kill(os.getpid(), signal.SIGKILL)

    return act


def stopped_at(point: int, told: str) -> Act:
    """Return what stops this process before a point, until it is continued (SIGCONT).

    Parameters
    ----------
    told : path of a file that is there from then on
    """

    def act(number: int, event: str, path: str) -> None:
        if number == point:
            with open(told, "w", encoding="ascii"):
                pass
            os.kill(os.getpid(), signal.SIGSTOP)

    return act


def listed_in(file: str) -> Act:
    """Return what writes each point as a line of a file."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def act(number: int, event: str, path: str) -> None:
        os.write(descriptor, f"{event}\t{path}\n".encode())

    return act


def from_environment() -> None:
    """Do what the variable FAULTS_HOOK asks for, in this process and none that it starts."""
    asked = os.environ.pop("FAULTS_HOOK", None)
    if asked is None:
        return
    hook = json.loads(asked)
    acts: dict[str, Callable[[Any], Act]] = {"kill": killed_at, "list": listed_in}
    install(hook["folder"], acts[hook["act"]](hook["argument"]))
