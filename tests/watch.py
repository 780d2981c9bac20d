"""Memory from outside: what the operating system says of a command and all that it starts."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

from ooc_train.memory import process_tree


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


def watch(*arguments: str, interval: float = 0.05) -> Watched:
    """Run `ooc-train` with the arguments and --json, looking at its whole tree meanwhile."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "ooc_train", *arguments, "--json"],
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
