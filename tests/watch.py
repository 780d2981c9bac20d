"""Memory from outside: what the operating system says of a command and all that it starts."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ooc_train.memory.processes import process_tree
from tests.groups import Groups


@dataclass(frozen=True)
class Watched:
    """A command that has ended, and the most that it and its children held at one time.

    Attributes
    ----------
    report : the object that it printed, with --json
    peak : bytes: the largest sum of proportional set sizes (PSS) that was seen
    seconds : from start to end
    """

    report: dict[str, Any]
    peak: int
    seconds: float


def pss(pid: int) -> int:
    """Return the proportional set size of a process in bytes, 0 where it has ended."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            return sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
    except (FileNotFoundError, ProcessLookupError):
        return 0


def tree(pid: int) -> list[int]:
    """Return a process and all that descend from it, as far as they live.

    Without a look at all other processes of the machine, where the kernel lists children.
    """
    if not _CHILDREN_ARE_LISTED:
        return process_tree(pid)
    found = [pid]
    for parent in found:
        with suppress(OSError):
            for task in os.listdir(f"/proc/{parent}/task"):
                text = Path(f"/proc/{parent}/task/{task}/children").read_text(encoding="ascii")
                found += map(int, text.split())
    return found


_REST = 4
"""How many times longer than a look the time until the next one is, at least."""

_GROUPS = Path("/sys/fs/cgroup/memory")
"""Where the memory control group that we are in is mounted (version 1)."""


_CHILDREN_ARE_LISTED = os.path.exists(f"/proc/self/task/{threading.get_native_id()}/children")


class ControlGroup:
    """A memory control group of the kernel's, that ends processes which need more than its limit.

    Files that they read and write are in memory on its account, until others need the room.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def look(self, pid: int, held: int) -> None:
        """Do nothing: the kernel looks."""

    def command(self, *words: str) -> tuple[str, ...]:
        """Return a command that is run, with all that it starts, in the group."""
        # The shell enters it, and becomes the command.
        return "/bin/sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(self.path), *words

    @property
    def peak(self) -> int:
        """The most bytes that it ever had, of files too."""
        return int((self.path / "memory.max_usage_in_bytes").read_text())

    @property
    def killed(self) -> int:
        """Processes of it that the kernel has ended for want of memory."""
        lines = (self.path / "memory.oom_control").read_text().splitlines()
        return {name: int(value) for name, value in map(str.split, lines)}["oom_kill"]


class Warden:
    """Ends commands that hold more than a limit, as a control group does, where none can be made.

    It looks now and then, and counts no files. A made-up /proc tells the commands of the limit.

    Attributes
    ----------
    peak : the most bytes that it saw
    killed : commands that it has ended
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._groups, self._limit = Groups(folder), limit
        self._groups.machine(2**40, 2**40)
        self._groups.mount_as("v2", "/job")
        self.peak = self.killed = 0
        self._tell(0)

    def _tell(self, held: int) -> None:
        self._groups.add("v2", "job", self._limit, held, kills=self.killed)

    def command(self, *words: str) -> tuple[str, ...]:
        """Return a command that is told of the limit, where it is one of ours."""
        if words[1:3] != ("-m", "ooc_train"):
            return words
        return (words[0], "-m", "tests.contained", str(self._groups.proc), *words[3:])

    def look(self, pid: int, held: int) -> None:
        """End a command, and what it started, where they hold more bytes than the limit."""
        self.peak = max(self.peak, held)
        if held > self._limit:
            self.killed += 1
            for process in reversed(tree(pid)):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        self._tell(held)


@contextmanager
def warden(limit: int) -> Iterator[Warden]:
    """Make one with a made-up /proc of its own."""
    with TemporaryDirectory() as folder:
        yield Warden(Path(folder), limit)


Judge = ControlGroup | Warden


def groups_can_be_made() -> bool:
    """Return whether control groups can be made here."""
    return os.access(_GROUPS, os.W_OK) and (_GROUPS / "memory.limit_in_bytes").exists()


def judge(limit: int) -> AbstractContextManager[Judge]:
    """Make a control group, or a warden where none can be made."""
    return control_group(limit) if groups_can_be_made() else warden(limit)


@contextmanager
def control_group(limit: int) -> Iterator[ControlGroup]:
    """Make a control group that has no more than so many bytes, and no swap.

    Raises
    ------
    PermissionError
        where none can be made here.
    """
    if not groups_can_be_made():
        raise PermissionError("no memory control group (version 1) can be made here")
    path = _GROUPS / f"ooc_train-{os.getpid()}"
    path.mkdir()
    try:
        (path / "memory.limit_in_bytes").write_text(str(limit))
        # Where swap is counted too: none.
        if (path / "memory.memsw.limit_in_bytes").exists():
            (path / "memory.memsw.limit_in_bytes").write_text(str(limit))
        yield ControlGroup(path)
    finally:
        _leave(path)


def _leave(group: Path) -> None:
    """Remove a control group once its last process is gone, which may end after the command."""
    for _ in range(300):
        try:
            return group.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            time.sleep(0.1)
    left = (group / "cgroup.procs").read_text().split()
    raise TimeoutError(f"processes {left} outlived the command by half a minute")


def watch(*arguments: str, interval: float = 0.05, group: Judge | None = None) -> Watched:
    """Run `ooc-train` with the arguments and --json, looking at its whole tree meanwhile.

    Raises
    ------
    RuntimeError
        where it ends with another status than 0.
    """
    started = time.perf_counter()
    command = (sys.executable, "-m", "ooc_train", *arguments, "--json")
    done, peak = look_at(*command, interval=interval, group=group)
    if done.returncode:
        raise RuntimeError(f"exit status {done.returncode}: {done.stderr}")
    return Watched(json.loads(done.stdout), peak, time.perf_counter() - started)


def look_at(
    *command: str, interval: float = 0.05, group: Judge | None = None
) -> tuple[subprocess.CompletedProcess[str], int]:
    """Run a command, and return how it ended, and the most bytes that its whole tree held."""
    process = subprocess.Popen(
        command if group is None else group.command(*command),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    peak = 0
    ended = threading.Event()

    def look() -> None:
        nonlocal peak
        while not ended.is_set():
            begun = time.perf_counter()
            held = sum(map(pss, tree(process.pid)))
            peak = max(peak, held)
            if group is not None:
                group.look(process.pid, held)
            # The kernel walks through all pages: the longer that takes, the less often, for the
            # command waits meanwhile.
            ended.wait(max(interval, _REST * (time.perf_counter() - begun)))

    looking = threading.Thread(target=look)
    looking.start()
    output, errors = process.communicate()
    ended.set()
    looking.join()
    return subprocess.CompletedProcess(command, process.returncode, output, errors), peak


def write_csv(path: str, size: int) -> int:
    """Write numbers as CSV, the same 50,000 rows again and again, and return its bytes.

    Parameters
    ----------
    path : where it will lie
    size : bytes that it has at least
    """
    rng = np.random.default_rng(0)
    rows = [",".join(f"{x:.6g}" for x in row) for row in rng.normal(size=(50_000, 20))]
    labels = rng.integers(2, size=len(rows))
    block = "".join(f"{row},{y}\n" for row, y in zip(rows, labels, strict=True)).encode()
    header = ",".join([*(f"x{i}" for i in range(20)), "y"]) + "\n"
    with open(path, "wb") as file:
        file.write(header.encode())
        while file.tell() < size:
            file.write(block)
        return file.tell()
