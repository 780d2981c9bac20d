"""Memory of the machine and of its control groups: what this process can have, and has now.

On systems other than Linux psutil tells the memory of the machine; there are no control groups.
Functions take the path of `/proc`, so that tests read made-up files.
"""

import os
from collections.abc import Iterator

__all__ = ["available_memory", "in_container", "machine_memory", "out_of_memory_kills"]


def machine_memory(proc: str = "/proc") -> int:
    """Return the bytes of memory of the machine, or of its control group where that has less."""
    return min([_meminfo(proc, "MemTotal"), *(limit for limit, _ in _control_groups(proc))])


def in_container(proc: str = "/proc") -> bool:
    """Return whether a control group limits this process to less than the machine has."""
    return machine_memory(proc) < _meminfo(proc, "MemTotal")


def available_memory(proc: str = "/proc") -> int:
    """Return the bytes of memory that this process could take now from free memory.

    The limit of each ancestor of the control group, less its usage, is a bound.
    """
    free = (max(limit - usage, 0) for limit, usage in _control_groups(proc))
    return min([_meminfo(proc, "MemAvailable"), *free])


def out_of_memory_kills(proc: str = "/proc") -> int:
    """Return how many processes the kernel has killed because memory ran out.

    The figure is that of this process's control group. Without a group it is that of the machine,
    and 0 where the kernel reports none.
    """
    counts = [
        f"{folder}/{'memory.events' if is_v2 else 'memory.oom_control'}"
        for folder, is_v2 in _group_folders(proc)
    ]
    for path in [*counts, f"{proc}/vmstat"]:
        try:
            lines = [line.split() for line in read_text(path).splitlines()]
        except OSError:
            continue
        for words in lines:
            if words[:1] == ["oom_kill"] and len(words) == 2:
                return int(words[1])
    return 0


def read_text(path: str) -> str:
    """Return the content of a file that the kernel writes.

    Raises
    ------
    OSError
        If the file can't be read.
    """
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def parse_kilobytes(text: str) -> dict[str, int]:
    """Return the values of the lines "Name:  123 kB" of a `/proc` file, in bytes by name."""
    lines = (line.split() for line in text.splitlines())
    return {
        words[0].rstrip(":"): int(words[1]) * 1024
        for words in lines
        if len(words) == 3 and words[2] == "kB"
    }


def _meminfo(proc: str, name: str) -> int:
    try:
        return parse_kilobytes(read_text(f"{proc}/meminfo"))[name]
    except (OSError, KeyError):
        # Systems other than Linux. The library is imported where it is needed: it takes 1.2 MiB.
        import psutil

        found = psutil.virtual_memory()
        return int(found.total if name == "MemTotal" else found.available)


def _control_groups(proc: str) -> Iterator[tuple[int, int]]:
    """Yield (limit, usage) of this process's control group and of each ancestor, in bytes.

    Pages that cache files are not counted as used: the kernel frees them when memory is short.
    Otherwise a run that has just read a large store would find no memory available.
    """
    for folder, is_v2 in _group_folders(proc):
        limit_name, usage_name = (
            ("memory.max", "memory.current")
            if is_v2
            else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        )
        try:
            limit = int(read_text(f"{folder}/{limit_name}"))
            usage = int(read_text(f"{folder}/{usage_name}"))
            stat = dict(line.split() for line in read_text(f"{folder}/memory.stat").splitlines())
        except (OSError, ValueError):
            continue  # the root group has no files, and "max" is no limit
        prefix = "" if is_v2 else "total_"
        cached = sum(int(stat.get(f"{prefix}{kind}_file", 0)) for kind in ("inactive", "active"))
        yield limit, max(usage - cached, 0)


def _group_folders(proc: str) -> Iterator[tuple[str, bool]]:
    """Yield (folder, whether it is version 2) of the memory control groups, ancestors last.

    In version 1 the memory controller has a hierarchy of its own; version 2 has one for all. A
    container may see its own group as the root of the mount, so paths are relative to the mount.
    """
    try:
        groups = [line.split(":", 2) for line in read_text(f"{proc}/self/cgroup").splitlines()]
        mounts = [line.split() for line in read_text(f"{proc}/self/mountinfo").splitlines()]
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
