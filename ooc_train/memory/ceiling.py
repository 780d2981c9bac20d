"""How much memory a run may hold, is expected to hold, and did hold.

Three figures, printed side by side. The `Ceiling` is what the user allows. A `Projection` adds up
named terms to what the plan expects. The peak meter (`measure`, `reset_peak`, `process_tree`)
reads what the operating system saw.

On Linux a process is charged with its own pages at their peak (VmHWM less the pages that others
can share) and with its proportional share of the shared ones, so that ten workers which map the
same library pay for it once between them. Elsewhere only `ru_maxrss` of this process is known.
"""

import os
import resource
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self

from ooc_train.core.schema import list_of, mapping_of, or_none, record, text, texts, whole
from ooc_train.core.units import approximate_bytes, parse_bytes
from ooc_train.memory.timeline import TIMELINE_SCHEMA, MemoryTimeline
from ooc_train.plotting import plots

HALF = "half of what is available"
"""Where a ceiling is from that nobody gave."""

SHARE = 0.8
"""What a job may take of the memory that is available in a container, where half is too little: it
is nobody else's there, and what is left is for files that are read and the kernel's own books."""

START_BYTES = 4 * 2**20
"""By so much what a process holds before any data differs from one start to the next, at most: 2
MiB were seen among 40 starts."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The most bytes that a run may hold, and who said so.

    Parameters
    ----------
    limit : int
        Bytes, more than zero.
    source : str
        Where the figure is from; it is printed beside it: "given", "the cluster's", ...
    whole : bool
        Whether all that the calling process holds counts (the command line), or only what it grows
        by (a call from Python).
    available : int
        Bytes that were available, where a job that needs more than the limit may take of them; else
        0. See `taken`.

    Raises
    ------
    ValueError
        The limit is zero or less.

    Examples
    --------
    >>> print(Ceiling.of("1 MiB"))
    1 MiB (given)
    """

    limit: int
    source: str
    whole: bool = field(default=False, repr=False)
    available: int = field(default=0, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.limit <= 0:
            raise ValueError(
                f"memory_ceiling={self.limit} leaves no memory at all; "
                "give bytes such as '512MiB', or leave it out for half of what is available"
            )

    @classmethod
    def of(cls, value: "str | float | Ceiling | None", *, whole: bool = False) -> "Ceiling":
        """Make the ceiling that a user asked for; one that was made stays as it is.

        None is half of what is available now, to be decided once, before a job starts anything. In
        a container, a job that needs more takes up to 80 % of it.

        Raises
        ------
        ValueError
            The text is not a number of bytes, or is zero, or is more than the machine (or the
            control group that this process lives in) has.
        """
        if isinstance(value, Ceiling):
            return value
        if value is None:
            # What this process holds is a part of the ceiling, and not of what is available.
            available = available_memory() + (measure().current if whole else 0)
            return cls(available // 2, HALF, whole, available if in_container() else 0)
        try:
            limit = parse_bytes(value)
        except ValueError as error:
            raise ValueError(f"memory_ceiling={error}") from None
        ceiling = cls(limit, "given", whole)
        machine = machine_memory()
        if ceiling.limit > machine:
            raise ValueError(
                f"memory_ceiling={value!r} is {approximate_bytes(ceiling.limit)}, but this machine "
                f"(or its control group) has {approximate_bytes(machine)}; give at most that"
            )
        return ceiling

    @property
    def most(self) -> int:
        """The most bytes that a job may take which needs more than the limit."""
        return max(self.limit, int(SHARE * self.available))

    def taken(self, need: int) -> "Ceiling":
        """Return the ceiling of a job that needs so many bytes, which may be too many for it too.

        Examples
        --------
        >>> ceiling = Ceiling(400 * 2**20, HALF, available=800 * 2**20)
        >>> for need in (300 * 2**20, 500 * 2**20, 700 * 2**20):
        ...     print(ceiling.taken(need))
        400 MiB (half of what is available)
        500 MiB (what the job needs, 62 % of what is available)
        640 MiB (80 % of what is available)
        """
        if need <= self.limit or self.most == self.limit:
            return self
        if need <= self.most:
            share = f"what the job needs, {100 * need / self.available:.0f} % of what is available"
            return replace(self, limit=need, source=share)
        return replace(self, limit=self.most, source=f"{100 * SHARE:.0f} % of what is available")

    def __str__(self) -> str:
        return f"{approximate_bytes(self.limit)} ({self.source})"


@dataclass(frozen=True, slots=True)
class Term:
    """One named part of a projection.

    Parameters
    ----------
    name : str
        What holds the memory: "reserved", "buffers", ...
    bytes : int
        How much, zero or more.
    why : str
        The arithmetic in words: "2 workers x 4 buffers of 1 MiB".
    """

    name: str
    bytes: int
    why: str

    def __post_init__(self) -> None:
        if self.bytes < 0:
            raise ValueError(f"the term {self.name!r} has {self.bytes} bytes; give zero or more")


@dataclass(frozen=True, slots=True)
class Projection:
    """What a plan expects the peak to be: the sum of its terms.

    Parameters
    ----------
    terms : tuple of Term
    started : int
        Processes among whose terms is what they held before any data, as it was measured. The next
        start of the same command measures again, so that the ceiling that is told has room for
        `START_BYTES` more of each.

    Examples
    --------
    >>> projection = Projection(
    ...     (
    ...         Term("reserved", 2 * 90 * 1024**2, "2 workers of 90 MiB"),
    ...         Term("buffers", 8 * 1024**2, "2 workers x 4 chunks of 1 MiB"),
    ...     )
    ... )
    >>> for row in projection.table():
    ...     print(row)
    ('reserved', '180 MiB', '2 workers of 90 MiB')
    ('buffers', '8 MiB', '2 workers x 4 chunks of 1 MiB')
    ('projected', '188 MiB', '')
    """

    terms: tuple[Term, ...]
    started: int = 0

    @property
    def total(self) -> int:
        """The projected peak in bytes."""
        return sum(term.bytes for term in self.terms)

    @property
    def smallest_ceiling(self) -> int:
        """The smallest ceiling to tell a user, in bytes, a multiple of 1 MiB.

        A job that has these terms at its smallest runs under it, also when it is started anew.
        """
        return -(-(self.total + self.started * START_BYTES) // 2**20) * 2**20

    @property
    def smallest(self) -> str:
        """The same as text to paste."""
        return f"{self.smallest_ceiling // 2**20}MiB"

    def table(self) -> list[tuple[str, str, str]]:
        """Give a row for each term, and one for their sum: name, size, reason."""
        rows = [(term.name, approximate_bytes(term.bytes), term.why) for term in self.terms]
        return [*rows, ("projected", approximate_bytes(self.total), "")]

    def rows(self, ceiling: Ceiling, *, alone: bool = False) -> list[tuple[str, str, str]]:
        """Give the rows of `table`, and the ceiling and the room that is left.

        Parameters
        ----------
        ceiling : Ceiling
        alone : bool
            Whether a job's beginning is all that it adds up, so that the job may need more.
        """
        left = ceiling.limit - self.total
        rows = [*self.table(), ("ceiling", approximate_bytes(ceiling.limit), ceiling.source)]
        told = "needed at least" if alone else "smallest ceiling"
        rows.append(
            ("left", approximate_bytes(left), "")
            if left >= 0
            else ("missing", approximate_bytes(-left), f"{told}: {self.smallest}")
        )
        return rows

    def explain(self, ceiling: Ceiling, *, alone: bool = False) -> str:
        """Give the rows of `rows`, as a table in plain text."""
        rows = self.rows(ceiling, alone=alone)
        widths = [max(len(row[i]) for row in rows) for i in range(2)]
        return "\n".join(f"{n:<{widths[0]}}  {b:>{widths[1]}}  {w}".rstrip() for n, b, w in rows)


def machine_memory(proc: str = "/proc") -> int:
    """Bytes of memory that this process could ever have: the machine's, or its control group's."""
    return min([_meminfo(proc, "MemTotal"), *(limit for limit, _ in _control_groups(proc))])


def in_container(proc: str = "/proc") -> bool:
    """Return whether a control group limits this process to less than the machine has."""
    return machine_memory(proc) < _meminfo(proc, "MemTotal")


def available_memory(proc: str = "/proc") -> int:
    """Bytes of memory that this process could have now without taking any from another.

    Control groups are respected: every ancestor's limit less its usage counts.
    """
    free = (max(limit - usage, 0) for limit, usage in _control_groups(proc))
    return min([_meminfo(proc, "MemAvailable"), *free])


def out_of_memory_kills(proc: str = "/proc") -> int:
    """Return how many processes the kernel has ended for want of memory; 0 where it does not say.

    Those of this process's control group, or of the machine where there is none.
    """
    counts = [
        f"{folder}/{'memory.events' if is_v2 else 'memory.oom_control'}"
        for folder, is_v2 in _group_folders(proc)
    ]
    for path in [*counts, f"{proc}/vmstat"]:
        try:
            lines = [line.split() for line in _read(path).splitlines()]
        except OSError:
            continue
        for words in lines:
            if words[:1] == ["oom_kill"] and len(words) == 2:
                return int(words[1])
    return 0


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """The memory of one process, as the operating system saw it.

    Parameters
    ----------
    pid : int
        The process.
    name : str
        What it is: its command, or its role among the processes of Python's multiprocessing.
    peak : int
        The most bytes that it held, since it started or since `reset_peak`.
    current : int
        The bytes that it holds now.
    mapped : int
        The bytes of files, libraries above all, that it has in memory now, whoever shares them.
    share : int
        Its proportional share of those, which `peak` and `current` count.
    note : str
        What the reader of the figures has to know; mostly empty.
    """

    pid: int
    name: str
    peak: int
    current: int
    mapped: int = 0
    share: int = 0
    note: str = ""


_PROCESS_SCHEMA = record(
    {"pid": whole(0), "name": text, "peak": whole(0), "current": whole(0)},
    optional={"mapped": whole(0), "share": whole(0), "note": text},
    others=False,
)
MEMORY_SCHEMA = record(
    {"ceiling": whole(0), "reserved": whole(0), "projected": whole(0), "measured": whole(0)},
    optional={
        "processes": list_of(_PROCESS_SCHEMA),
        "terms": mapping_of(whole(0)),
        "ceiling_source": text,
        "notes": texts(),
        "timeline": or_none(TIMELINE_SCHEMA),
    },
)
"""What `MemoryReport.from_json` takes."""


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """The three figures of the memory contract, in bytes.

    Attributes
    ----------
    ceiling : the most that the run was allowed to hold
    reserved : what its processes held before any data
    projected : what the plan said the peak would be
    measured : the sum of the peaks that the operating system saw, or None where nothing was run
    processes : the peak of each process
    terms : what the projection is the sum of
    ceiling_source : who set the ceiling
    notes : what a reader of the figures has to know
    timeline : what each process held while the job ran, sampled; empty where it was not
    """

    ceiling: int
    reserved: int
    projected: int
    measured: int
    processes: tuple[ProcessMemory, ...] = ()
    terms: Mapping[str, int] = field(default_factory=dict)
    ceiling_source: str = "given"
    notes: tuple[str, ...] = ()
    timeline: MemoryTimeline = field(default_factory=MemoryTimeline, repr=False)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the report whose fields these are; a release before may have written fewer."""
        names = {each.name for each in fields(cls)}
        kept = {name: value for name, value in values.items() if name in names}
        processes = kept.get("processes", ())
        kept["processes"] = tuple(ProcessMemory(**process) for process in processes)
        kept["notes"] = tuple(kept.get("notes", ()))
        kept["timeline"] = MemoryTimeline.from_json(
            kept.get("timeline") or {"seconds": (), "processes": {}}
        )
        return cls(**kept)

    def plot(self, ax: Any = None) -> Any:
        """Draw what each process held over time, against projection and ceiling.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None
            Where to draw; None makes one.

        Returns
        -------
        matplotlib.axes.Axes
        """
        return plots.memory(self, ax)

    def __str__(self) -> str:
        return (
            f"ceiling {approximate_bytes(self.ceiling)}, projected "
            f"{approximate_bytes(self.projected)}, measured {approximate_bytes(self.measured)}"
        )


def measure(pid: int | Literal["self"] = "self") -> ProcessMemory:
    """Read what a process holds and the most that it held.

    The kernel tells how much was resident at the peak but not how much of that was shareable, so
    what is shareable now is taken off. Shareable pages that came after the peak thus hide as many
    bytes of it: load libraries before the work that is measured, and never memory-map data.

    Raises
    ------
    ProcessLookupError
        There is no such process, or it has ended and holds nothing any more.
    """
    number = os.getpid() if pid == "self" else pid
    if not sys.platform.startswith("linux"):
        return _measure_lifetime(number)
    status = _kilobytes(_read_of(number, "status"))
    if "VmHWM" not in status:
        raise ProcessLookupError(f"process {number} has ended, or has no memory of its own")
    shareable = status.get("RssFile", 0) + status.get("RssShmem", 0)
    share, note = shareable, ""
    try:
        rollup = _kilobytes(_read(f"/proc/{number}/smaps_rollup"))
        share = rollup["Pss_File"] + rollup.get("Pss_Shmem", 0)
    except (OSError, KeyError):
        note = "its share of the shared pages could not be read, so all of them are counted"
    current = status["VmRSS"] - shareable + share
    # The kernel counts pages in per-core batches, so that VmHWM can lag a little behind VmRSS.
    peak = max(status["VmHWM"] - shareable + share, current)
    return ProcessMemory(number, _role(number), peak, current, shareable, share, note)


def held_by(pid: int, share: int) -> int:
    """Return the bytes that a process holds now, as `measure` does, but quickly.

    Parameters
    ----------
    pid : int
        The process.
    share : int
        Its share of the pages of files, as `measure` found it: to read it anew means to walk
        through all pages, which takes ten times as long.

    Raises
    ------
    ProcessLookupError
        There is no such process, or it has ended and holds nothing any more.
    """
    status = _kilobytes(_read_of(pid, "status"))
    if "VmRSS" not in status:
        raise ProcessLookupError(f"process {pid} has ended, or has no memory of its own")
    return status["VmRSS"] - status.get("RssFile", 0) - status.get("RssShmem", 0) + share


def pid_space() -> str:
    """Return what names the machine, or container, in which numbers of processes mean the same."""
    try:
        return _read("/proc/sys/kernel/random/boot_id").strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return f"{os.uname().nodename}"


def measure_tree(pid: int | Literal["self"] = "self") -> list[ProcessMemory]:
    """Measure a process and everything that it started, skipping what ends meanwhile.

    The sum of the peaks is an upper bound of the peak of the sum: the processes need not have
    peaked at the same time.
    """
    found = []
    for number in process_tree(pid):
        try:
            found.append(measure(number))
        except ProcessLookupError:
            continue
    return found


def reset_peak() -> bool:
    """Let the peak of this process start again from what it holds now; say whether that worked."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        return False
    return True


def process_tree(pid: int | Literal["self"] = "self") -> list[int]:
    """List a process and all its descendants, parents first; elsewhere than Linux only itself."""
    root = os.getpid() if pid == "self" else pid
    children: dict[int, list[int]] = {}
    for child, parent in _parents():
        children.setdefault(parent, []).append(child)
    tree = [root]
    for number in tree:  # grows while it is walked: breadth first
        tree += sorted(children.get(number, ()))
    return tree


def _parents() -> Iterator[tuple[int, int]]:
    """Give (process, its parent) for every process that can be seen."""
    try:
        entries = os.listdir("/proc")
    except OSError:
        return
    for entry in filter(str.isdigit, entries):
        try:
            stat = _read(f"/proc/{entry}/stat")
        except OSError:
            continue
        # The second field is the command in brackets, which may hold spaces and brackets itself.
        yield int(entry), int(stat.rpartition(")")[2].split()[1])


def _role(pid: int) -> str:
    """Say what a process is for; Python's helpers are all called "python" otherwise."""
    command = _read_of(pid, "cmdline")
    if "multiprocessing.resource_tracker" in command:
        return "resource tracker"
    if "multiprocessing.spawn" in command or "multiprocessing.forkserver" in command:
        return "worker"
    return _read_of(pid, "comm").strip()


def _measure_lifetime(pid: int) -> ProcessMemory:
    """Measure with `ru_maxrss`, which is all that there is elsewhere than on Linux."""
    if pid != os.getpid():
        raise ProcessLookupError(f"process {pid}: only this process can be measured here")
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    note = "ru_maxrss, the peak of the whole life of the process; what it holds now is not known"
    return ProcessMemory(pid, os.path.basename(sys.executable), peak, peak, note=note)


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def _read_of(pid: int, name: str) -> str:
    """Read a file of a process, whose absence means that the process is gone."""
    try:
        return _read(f"/proc/{pid}/{name}")
    except FileNotFoundError:
        raise ProcessLookupError(f"there is no process {pid}") from None


def _kilobytes(text: str) -> dict[str, int]:
    """Pick the lines "Name:  123 kB" out of a file of /proc, in bytes."""
    lines = (line.split() for line in text.splitlines())
    return {
        words[0].rstrip(":"): int(words[1]) * 1024
        for words in lines
        if len(words) == 3 and words[2] == "kB"
    }


def _meminfo(proc: str, name: str) -> int:
    try:
        return _kilobytes(_read(f"{proc}/meminfo"))[name]
    except (OSError, KeyError):
        # Elsewhere than Linux: what is installed, for want of what is free.
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _control_groups(proc: str) -> Iterator[tuple[int, int]]:
    """Give (limit, usage) of this process's control group and of each of its ancestors, in bytes.

    Both versions: in v1 the memory controller has a hierarchy of its own, in v2 there is one for
    all. A container may see its own group as the root of the mount, so paths are taken relative to
    what is mounted. Pages that cache files are not counted as used, for the kernel gives them back
    under pressure; a run that has just read a large store would find no memory at all otherwise.
    """
    for folder, is_v2 in _group_folders(proc):
        limit_name, usage_name = (
            ("memory.max", "memory.current")
            if is_v2
            else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        )
        try:
            limit = int(_read(f"{folder}/{limit_name}"))
            usage = int(_read(f"{folder}/{usage_name}"))
            stat = dict(line.split() for line in _read(f"{folder}/memory.stat").splitlines())
        except (OSError, ValueError):
            continue  # the root has no files, and "max" is no limit
        prefix = "" if is_v2 else "total_"
        cached = sum(int(stat.get(f"{prefix}{kind}_file", 0)) for kind in ("inactive", "active"))
        yield limit, max(usage - cached, 0)


def _group_folders(proc: str) -> Iterator[tuple[str, bool]]:
    """Give (folder, is it v2) of this process's memory control groups, up to what is mounted."""
    try:
        groups = [line.split(":", 2) for line in _read(f"{proc}/self/cgroup").splitlines()]
        mounts = [line.split() for line in _read(f"{proc}/self/mountinfo").splitlines()]
    except OSError:
        return
    v1 = next((path for _, kinds, path in groups if "memory" in kinds.split(",")), None)
    v2 = next((path for number, kinds, path in groups if number == "0" and not kinds), None)
    for words in mounts:
        root, mount_point = words[3], words[4]
        kind, _, options = words[words.index("-") + 1 :]
        is_v2 = kind == "cgroup2"
        path = v2 if is_v2 else v1
        if path is None or not (is_v2 or (kind == "cgroup" and "memory" in options.split(","))):
            continue
        inside = os.path.relpath(path, root)
        folder = mount_point if inside.startswith("..") else os.path.join(mount_point, inside)
        folder = os.path.normpath(folder)
        while folder != mount_point:
            yield folder, is_v2
            folder = os.path.dirname(folder)
        yield mount_point, is_v2
