"""Control groups that are made up, of files as the kernel shows them, for machines without any."""

from pathlib import Path

_FILES = {
    "v1": ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.oom_control"),
    "v2": ("memory.max", "memory.current", "memory.events"),
}


def _write(path: Path, text: str) -> None:
    """Write a file at once: whoever reads it meanwhile finds what it held before, or holds now."""
    aside = path.with_name(f"{path.name}.new")
    aside.write_text(text)
    aside.replace(path)


class Groups:
    """A made-up /proc of a machine of 64 MiB, 48 of them free, and its control groups.

    Attributes
    ----------
    proc : the folder that stands for /proc
    """

    def __init__(self, folder: Path) -> None:
        self.proc = folder / "proc"
        self.mount = folder / "mount"
        (self.proc / "self").mkdir(parents=True)
        self.mount.mkdir()
        self.machine(2**26, 3 * 2**24)

    def machine(self, total: int, available: int, kills: int = 0) -> None:
        """Say what the machine has, in bytes, and how many processes it has ended for memory."""
        _write(
            self.proc / "meminfo",
            f"MemTotal: {total // 1024} kB\nMemAvailable: {available // 1024} kB\n",
        )
        _write(self.proc / "vmstat", f"pgfault 5\noom_kill {kills}\n")

    def mount_as(self, version: str, path: str, root: str = "/") -> None:
        """Say that this process is in the group of a path."""
        lines = {"v1": f"4:cpu:/\n7:memory:{path}\n", "v2": f"0::{path}\n"}
        kinds = {"v1": "cgroup cgroup rw,memory", "v2": "cgroup2 cgroup2 rw"}
        _write(self.proc / "self" / "cgroup", lines[version])
        _write(
            self.proc / "self" / "mountinfo",
            "21 1 0:20 / / rw - ext4 /dev/sda rw\n"
            f"22 1 0:21 {root} {self.mount} rw,nosuid shared:3 - {kinds[version]}\n",
        )

    def add(
        self,
        version: str,
        path: str,
        limit: int | str,
        usage: int,
        cached: int = 0,
        kills: int | None = None,
    ) -> None:
        """Make a group, or say what it has now: limit and usage in bytes."""
        limits, usages, counts = _FILES[version]
        cache = "total_inactive_file" if version == "v1" else "inactive_file"
        folder = self.mount / path
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / limits, f"{limit}\n")
        _write(folder / usages, f"{usage}\n")
        _write(folder / "memory.stat", f"anon 1\n{cache} {cached}\n")
        if kills is not None:
            _write(folder / counts, f"under_oom 0\noom_kill {kills}\n")
