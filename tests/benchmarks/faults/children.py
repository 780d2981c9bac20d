"""Children: a command, or a check, in a process of its own that is forked, watched and ended.

The benchmark's process imports what commands import and runs nothing itself, so it has one thread
and may fork: a command costs some 0.1 s in place of 1. What a process does at its end it does here
too (threads are joined, exit handlers run).
"""

import atexit
import contextlib
import json
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.watch import tree

MIB = 2**20
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Limits:
    """What a child may take.

    Attributes
    ----------
    seconds : until it is ended, and counts as one that hangs
    memory : bytes that it and all that it started may hold
    """

    seconds: float = 60.0
    memory: int = 450 * MIB


@dataclass(frozen=True)
class Ended:
    """A child that has ended.

    Attributes
    ----------
    status : the exit status, less than 0 for a signal; None where it had to be ended
    out, err : what it wrote
    seconds : that it took
    peak : bytes: the most that it and all that it started were seen to hold
    too_large : whether that was more than its limit
    value : what a check returned
    """

    status: int | None
    out: str
    err: str
    seconds: float
    peak: int
    too_large: bool
    value: Any = None

    @property
    def refusal(self) -> list[str]:
        """The lines of stderr from `error:` on."""
        lines = [line for line in self.err.splitlines() if line.strip()]
        starts = [i for i, line in enumerate(lines) if line.startswith("error: ")]
        return lines[starts[-1] :] if starts else []


class Child:
    """A function that runs in a forked process, with its output in files.

    Parameters
    ----------
    function : called without arguments; what it returns must pickle
    folder : the process's working directory
    environment : variables that are set on top of this process's
    limits : Limits
    """

    def __init__(
        self,
        function: Callable[[], Any],
        *,
        folder: str,
        environment: Mapping[str, str],
        limits: Limits,
    ) -> None:
        self._limits = limits
        self._files = tempfile.mkdtemp(prefix="child-", dir=os.environ["FAULTS_FOLDER"])
        sys.stdout.flush()
        sys.stderr.flush()
        self._begun = time.perf_counter()
        self.pid = os.fork()
        if self.pid == 0:
            _become(function, self._files, folder, environment)
        self._peak = 0
        self._ended: tuple[int, Any] | None = None

    def poll(self) -> bool:
        """Return whether it has ended."""
        if self._ended is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self._ended = status, usage
        return self._ended is not None

    def wait(self, kill_after: float | None = None) -> Ended:
        """Wait for its end, and end it and all that it started where it takes too much.

        Parameters
        ----------
        kill_after : seconds after its start at which it alone is killed, or None
        """
        step, looked, hangs, too_large = 0.001, 0.0, False, False
        while not self.poll():
            now = time.perf_counter() - self._begun
            if kill_after is not None and now >= kill_after:
                os.kill(self.pid, signal.SIGKILL)
                kill_after = None
            if now - looked > 0.05:
                looked = now
                self._peak = max(self._peak, sum(map(_resident, tree(self.pid))))
                too_large = self._peak > self._limits.memory
            if now > self._limits.seconds or too_large:
                hangs = not too_large
                for pid in tree(self.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            time.sleep(step)
            step = min(0.01, step * 1.3)
        return self._tell(hangs, too_large)

    def _tell(self, hangs: bool, too_large: bool) -> Ended:
        assert self._ended is not None
        status, usage = self._ended
        peak = max(self._peak, usage.ru_maxrss * 1024)
        value = None
        with contextlib.suppress(FileNotFoundError), open(f"{self._files}/value", "rb") as file:
            value = pickle.load(file)
        texts = [
            Path(f"{self._files}/{name}").read_text(errors="replace") for name in ("out", "err")
        ]
        for name in os.listdir(self._files):
            os.unlink(f"{self._files}/{name}")
        os.rmdir(self._files)
        return Ended(
            None if hangs else os.waitstatus_to_exitcode(status),
            texts[0],
            texts[1],
            time.perf_counter() - self._begun,
            peak,
            too_large or peak > self._limits.memory,
            value,
        )


def _become(
    function: Callable[[], Any], files: str, folder: str, environment: Mapping[str, str]
) -> None:
    """Run the function in this process, which was forked for it, and end."""
    status: Any = 1
    try:
        os.setsid()
        for number, name in ((1, "out"), (2, "err")):
            file = os.open(f"{files}/{name}", os.O_WRONLY | os.O_CREAT)
            os.dup2(file, number)
            os.close(file)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.chdir(folder)
        os.environ.update(environment)
        tempfile.tempdir = None
        value = function()
        if value is not None:
            with open(f"{files}/value", "wb") as result:
                pickle.dump(value, result)
        status = 0
    except SystemExit as end:
        status = end.code
    except BaseException:  # noqa: BLE001 - whatever it is, a user would see it
        traceback.print_exc()
    try:
        # As an interpreter does that ends.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status if isinstance(status, int) else 0 if status is None else 1)


def command(*words: str) -> Callable[[], None]:
    """Return a function that runs `ooc-train` with these words in a process that was forked."""

    def run() -> None:
        from ooc_train.cli import main

        sys.argv = ["ooc-train", *words]
        main()

    return run


def program(*words: str, hook: Mapping[str, Any] | None = None) -> Callable[[], None]:
    """Return a function that becomes `python -m ooc_train` with these words: a process from anew.

    Parameters
    ----------
    hook : what `hooks.from_environment` is to do in it, or None
    """

    def run() -> None:
        here = os.path.dirname(os.path.abspath(__file__))
        root = os.path.abspath(os.path.join(here, "..", "..", ".."))
        paths = [os.path.join(here, "hook"), root] if hook is not None else [root]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        if hook is not None:
            environment["FAULTS_HOOK"] = json.dumps(hook)
        arguments = [sys.executable, "-m", "ooc_train", *words]
        os.execve(sys.executable, arguments, environment)

    return run


def _resident(pid: int) -> int:
    """Return the bytes that a process holds in memory, 0 where it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0
