"""Commands in processes that are forked from one that has imported what commands import.

A command that starts a cluster spends half of its processor time on imports, and a fork has them.
It does what ``python -m ooc_train`` does, but for memory, as it shares pages with that process.
Tests of memory start interpreters of their own, and so do some of each command.
"""

import atexit
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_ROOT = Path(__file__).parent.parent
_ASKED = 2**20
"""Bytes of a request, at most."""


class Server:
    """The process that commands are forked from, which starts with the first and ends with ours."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="ooc_train-commands-")
        self.address = os.path.join(self._folder, "socket")
        words = [sys.executable, "-m", "tests.commands", self.address]
        self._process = subprocess.Popen(words, cwd=_ROOT, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError("the process that commands are forked from did not start")
        atexit.register(self.close)

    def close(self) -> None:
        """End it; commands that run go on."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        os.unlink(self.address)
        os.rmdir(self._folder)


_servers: dict[int, Server] = {}


def address() -> str:
    """Return the address of this process's server, which is started if there is none."""
    if os.getpid() not in _servers:
        _servers[os.getpid()] = Server()
    return _servers[os.getpid()].address


class Command:
    """A command in a forked process, in our folder and with our environment.

    Parameters
    ----------
    words : its arguments
    files : numbers of its stdin, stdout and stderr
    place : address of a server, by default of this process's

    Attributes
    ----------
    pid : of its process
    returncode : its exit status, less than 0 for a signal; None until it is known
    """

    def __init__(self, words: Sequence[object], files: Sequence[int], place: str = "") -> None:
        self.returncode: int | None = None
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._line.connect(place or address())
        asked = {"words": [*map(str, words)], "folder": os.getcwd(), "environment": {**os.environ}}
        socket.send_fds(self._line, [json.dumps(asked).encode()], files)
        self.pid = int(self._line.recv(100))

    def wait(self, seconds: float | None = None) -> int:
        """Return its exit status once it has ended, within so many seconds.

        Raises
        ------
        TimeoutError
            where it has not ended by then.
        """
        if self.returncode is None:
            self._line.settimeout(seconds)
            self.returncode = int(self._line.recv(100))
            self._line.close()
        return self.returncode

    def poll(self) -> int | None:
        """Return its exit status, or None where it has not ended."""
        with suppress(BlockingIOError):
            self.wait(0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill its process alone."""
        self.send_signal(signal.SIGKILL)


def start(*words: object) -> Command:
    """Start a command that writes where we write."""
    with open(os.devnull, "rb") as nothing:
        return Command(words, [nothing.fileno(), 1, 2])


def run(*words: object) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, and return what it said."""
    with (
        open(os.devnull, "rb") as nothing,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
    ):
        files = [nothing, out, err]
        status = Command(words, [file.fileno() for file in files]).wait(250)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read())
    return subprocess.CompletedProcess([*map(str, words)], status, *texts)


def _serve(place: str) -> None:
    """Fork a command for each request, for ever."""
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    import distributed.dashboard.scheduler  # noqa: F401

    from tests.benchmarks.faults import preload  # noqa: F401

    assert threading.active_count() == 1, threading.enumerate()
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(place)
    listening.listen()
    print("ready", flush=True)
    while True:
        line, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            os._exit(_answer(line))
        line.close()


def _answer(line: socket.socket) -> int:
    """Fork the command that is asked for, and tell its number, and its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    asked, files, _, _ = socket.recv_fds(line, _ASKED, 3)
    pid = os.fork()
    if pid == 0:
        line.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        _become(**json.loads(asked))
    for file in files:
        os.close(file)
    line.send(str(pid).encode())
    _, status = os.waitpid(pid, 0)
    line.send(str(os.waitstatus_to_exitcode(status)).encode())
    return 0


def _become(words: list[str], folder: str, environment: dict[str, str]) -> None:
    """Be the command, to the end of the process."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    sys.argv = ["ooc-train", *words]
    status: object = 1
    try:
        runpy.run_module("ooc_train", run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code
    # As an interpreter ends.
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status if isinstance(status, int) else 0 if status is None else 1)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        _serve(sys.argv[1])
    # `--at ADDRESS WORDS` stands for `ooc-train WORDS` in a shell.
    sys.exit(Command(sys.argv[3:], (0, 1, 2), sys.argv[2]).wait())
