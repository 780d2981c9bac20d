"""The processes of a run, and the memory that each holds before any data."""

from dataclasses import dataclass, replace

from ooc_train.core.units import approximate_bytes

_TOLD_COPIES = 2**20
"""Least bytes of copies that the table of terms tells of."""


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes of a run, with sizes in bytes.

    Attributes
    ----------
    driver : int
        Memory of the calling process; 0 if only its growth counts.
    workers : tuple of (int, int)
        Memory and threads of each worker process; empty if the driver runs all tasks.
    threads : int
        Tasks that can run at a time.
    libraries : int
        Libraries that other processes share with the run now. The run would hold these bytes alone
        if those processes ended.
    limits : tuple of int
        Memory limit of each worker by its own cluster, 0 for none; empty if no worker has a limit.
    direct : bool
        Whether the driver reaches workers directly, and not through a scheduler elsewhere.
    copies : int
        Memory of the calling process that is copies of arrays of the caller's.
    """

    driver: int
    workers: tuple[tuple[int, int], ...]
    threads: int
    libraries: int = 0
    limits: tuple[int, ...] = ()
    direct: bool = True
    copies: int = 0

    @property
    def baseline(self) -> int:
        """Bytes that all processes hold before any data."""
        return self.driver + sum(held for held, _ in self.workers)

    @property
    def baseline_text(self) -> str:
        """The baseline by process, for the table of terms."""
        parts = [f"driver {approximate_bytes(self.driver)}"] if self.driver else []
        if parts and self.copies >= _TOLD_COPIES:
            parts[0] += f", with copies of arrays of {approximate_bytes(self.copies)}"
        parts += [f"worker {approximate_bytes(held)}" for held, _ in self.workers]
        return " + ".join(parts) or "only the growth of the calling process counts"

    def without(self, n: int) -> "Processes":
        """Return the processes without the last `n` workers."""
        left = len(self.workers) - n
        return replace(
            self,
            workers=self.workers[:left],
            threads=self.threads - sum(threads for _, threads in self.workers[left:]),
            limits=self.limits[:left],
        )

    @property
    def started(self) -> int:
        """Number of processes whose baseline counts."""
        return bool(self.driver) + len(self.workers)
