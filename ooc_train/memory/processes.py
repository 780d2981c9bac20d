"""Memory of processes: what each holds now, and its peak.

On Linux a process counts with its private pages, and with its proportional share of the pages that
it shares. So ten workers that map the same library pay for the library once between them. On other
systems psutil tells the resident pages of each process, shared ones included, and `ru_maxrss` the
peak of the whole life of this process.
"""

import os
import resource
import sys
from dataclasses import dataclass
from time import monotonic
from typing import Literal

from ooc_train.core.schema import integer, record, text
from ooc_train.memory.system import parse_kilobytes, read_text

_SHARE_SECONDS = 1.0
"""Age up to which a share is used again. The kernel walks through all pages of the process to find
it, some 20 ms a GB, and a small fit measures five times."""

_RESIDENT = (
    "this system reports only the resident memory of processes, shared pages included, and peaks "
    "of their whole life: a run may have held less than was measured"
)

_last_share: tuple[int, int, float, int] = (0, 0, 0.0, 0)
"""Process, shareable bytes, time and share of the last walk through the pages of this process."""


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """The memory of one process, as the operating system reports it.

    Parameters
    ----------
    pid : int
        The number of the process.
    name : str
        The command, or the role among the processes of Python's multiprocessing.
    peak : int
        The most bytes that the process held since its start, or since `reset_peak`.
    current : int
        The bytes that the process holds now.
    mapped : int
        Bytes of shareable pages in memory now, mostly libraries. `peak` and `current` count only
        `share` of them.
    share : int
        The proportional share of `mapped`, in bytes.
    note : str
        A limit of the figures that the reader has to know; mostly empty.
    """

    pid: int
    name: str
    peak: int
    current: int
    mapped: int = 0
    share: int = 0
    note: str = ""


PROCESS_SCHEMA = record(
    {"pid": integer(0), "name": text, "peak": integer(0), "current": integer(0)},
    optional={"mapped": integer(0), "share": integer(0), "note": text},
    others=False,
)
"""The fields of a `ProcessMemory` in JSON."""


def measure(pid: int | Literal["self"] = "self") -> ProcessMemory:
    """Return what a process holds now, and its peak.

    The kernel reports the resident pages at the peak, but not how many of those were shareable. So
    the pages that are shareable now are subtracted. Pages that became shareable after the peak hide
    as many bytes of it: load libraries before measuring, and never memory-map data.

    Raises
    ------
    ProcessLookupError
        If the process does not exist, or has ended.
    """
    number = os.getpid() if pid == "self" else pid
    if not sys.platform.startswith("linux"):
        return _measure_resident(number)
    status = parse_kilobytes(_read_of(number, "status"))
    if "VmHWM" not in status:
        raise ProcessLookupError(f"process {number} has ended, or has no memory of its own")
    shareable = status.get("RssFile", 0) + status.get("RssShmem", 0)
    share, note = shareable, ""
    try:
        share = _own_share(number, shareable) if pid == "self" else _read_share(number)
    except (OSError, KeyError):
        note = "the share of the shared pages could not be read, so all of these pages are counted"
    current = status["VmRSS"] - shareable + share
    # The kernel counts pages in batches per core, so VmHWM can be a little less than VmRSS.
    peak = max(status["VmHWM"] - shareable + share, current)
    return ProcessMemory(number, _role(number), peak, current, shareable, share, note)


def _read_share(number: int) -> int:
    """Return the proportional share of a process in its shareable pages, in bytes."""
    rollup = parse_kilobytes(read_text(f"/proc/{number}/smaps_rollup"))
    return rollup["Pss_File"] + rollup.get("Pss_Shmem", 0)


def _own_share(number: int, shareable: int) -> int:
    """Return the share of this process, read anew after a second, or if its pages have changed."""
    global _last_share
    now, last = monotonic(), _last_share
    if last[:2] != (number, shareable) or now - last[2] > _SHARE_SECONDS:
        last = _last_share = (number, shareable, now, _read_share(number))
    return last[3]


def held_by(pid: int, share: int) -> int:
    """Return the bytes that a process holds now, in a tenth of the time that `measure` takes.

    Parameters
    ----------
    pid : int
        The number of the process.
    share : int
        The field `share` of an earlier `measure`. The kernel walks through all pages to find it.

    Raises
    ------
    ProcessLookupError
        If the process does not exist, or has ended.
    """
    if not sys.platform.startswith("linux"):
        return _resident(pid)
    status = parse_kilobytes(_read_of(pid, "status"))
    if "VmRSS" not in status:
        raise ProcessLookupError(f"process {pid} has ended, or has no memory of its own")
    return status["VmRSS"] - status.get("RssFile", 0) - status.get("RssShmem", 0) + share


def pid_namespace() -> str:
    """Return text that identifies the scope of process numbers: this machine or container."""
    try:
        boot = read_text("/proc/sys/kernel/random/boot_id").strip()
        return boot + os.readlink("/proc/self/ns/pid")
    except OSError:
        return os.uname().nodename


def measure_tree(pid: int | Literal["self"] = "self") -> list[ProcessMemory]:
    """Measure a process and its descendants; processes that end meanwhile are left out.

    The sum of the peaks is an upper bound of the peak of the sum, since processes may have had
    their peaks at different times.
    """
    found = []
    for number in process_tree(pid):
        try:
            found.append(measure(number))
        except ProcessLookupError:
            continue
    return found


def reset_peak() -> bool:
    """Set the peak of this process to what it holds now; return whether that worked."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        return False
    return True


def process_tree(pid: int | Literal["self"] = "self") -> list[int]:
    """Return the numbers of a process and of all its descendants, parents before children.

    The list is empty if the process does not exist.
    """
    # Workers load this file and don't need the library, which takes 1.2 MiB.
    import psutil

    try:
        root = psutil.Process(None if pid == "self" else pid)
        return [root.pid, *(child.pid for child in root.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def _role(pid: int) -> str:
    """Return the role of a helper of multiprocessing, or the command of any other process."""
    command = _read_of(pid, "cmdline")
    if "multiprocessing.resource_tracker" in command:
        return "resource tracker"
    if "multiprocessing.spawn" in command or "multiprocessing.forkserver" in command:
        return "worker"
    return _read_of(pid, "comm").strip()


def _measure_resident(pid: int) -> ProcessMemory:
    """Measure a process by its resident pages, on systems other than Linux."""
    held = peak = _resident(pid)
    if pid == os.getpid():
        unit = 1 if sys.platform == "darwin" else 1024
        peak = max(held, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
    return ProcessMemory(pid, os.path.basename(sys.executable), peak, held, note=_RESIDENT)


def _resident(pid: int) -> int:
    """Return the bytes of the resident pages of a process, as psutil tells them."""
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        raise ProcessLookupError(f"process {pid} has ended, or is another user's") from None


def _read_of(pid: int, name: str) -> str:
    """Return the content of a process's file in /proc, or raise if the process has ended."""
    try:
        return read_text(f"/proc/{pid}/{name}")
    except FileNotFoundError:
        raise ProcessLookupError(f"there is no process {pid}") from None
