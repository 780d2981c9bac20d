"""Memory from outside: what the operating system says of a command and all that it starts."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ooc_train.memory.ceiling import process_tree


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


_GROUPS = Path("/sys/fs/cgroup/memory")
"""Where the memory control group that we are in is mounted (version 1)."""


class ControlGroup:
    """A memory control group of the kernel's, that ends processes which need more than its limit.

    Files that they read and write are in memory on its account, until others need the room.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

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


@contextmanager
def control_group(limit: int) -> Iterator[ControlGroup]:
    """Make a control group that has no more than so many bytes, and no swap.

    Raises
    ------
    PermissionError
        where none can be made here.
    """
    if not os.access(_GROUPS, os.W_OK) or not (_GROUPS / "memory.limit_in_bytes").exists():
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


def watch(*arguments: str, interval: float = 0.05, group: ControlGroup | None = None) -> Watched:
    """Run `ooc-train` with the arguments and --json, looking at its whole tree meanwhile.

    Raises
    ------
    RuntimeError
        where it ends with another status than 0.
    """
    started = time.perf_counter()
    command = (sys.executable, "-m", "ooc_train", *arguments, "--json")
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
            peak = max(peak, sum(pss(pid) for pid in process_tree(process.pid)))
            ended.wait(interval)

    looking = threading.Thread(target=look)
    looking.start()
    output, errors = process.communicate()
    ended.set()
    looking.join()
    if process.returncode:
        raise RuntimeError(f"exit status {process.returncode}: {errors}")
    return Watched(json.loads(output), peak, time.perf_counter() - started)


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
