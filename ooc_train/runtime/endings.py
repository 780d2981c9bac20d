"""How workers ended, as far as it is known: by which signal or status, and whether for memory."""

import signal
import threading
from collections import Counter

from ooc_train.memory.system import out_of_memory_kills

_UNKNOWN = 255
"""What distributed calls the status of a process that another part of this one has waited for."""


class Endings:
    """The workers of a cluster of this process's that ended unasked.

    Attributes
    ----------
    statuses : list of int
        How they ended, first to last, as `multiprocessing` says it: an exit status, or a
        signal as a number less than 0.
    """

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self._kills = out_of_memory_kills()
        self._lock = threading.Lock()

    def add(self, status: int) -> None:
        """Take note of how a worker ended."""
        with self._lock:
            self.statuses.append(status)

    def __len__(self) -> int:
        return len(self.statuses)

    @property
    def killed(self) -> bool:
        """Whether the last one was ended by a signal."""
        return bool(self.statuses) and self.statuses[-1] < 0

    @property
    def for_memory(self) -> int:
        """Processes that the kernel has ended for want of memory since the cluster was made."""
        return max(0, out_of_memory_kills() - self._kills)

    @property
    def told(self) -> str:
        """How they ended, in words: "2 workers were ended by SIGKILL, ..."."""
        return self.told_since(0)

    def told_since(self, first: int) -> str:
        """Say it of those from the first given on."""
        parts = []
        for status, n in Counter(self.statuses[first:]).items():
            who = "a worker was" if n == 1 else f"{n} workers were"
            if status == _UNKNOWN:
                parts.append(f"{who} lost")
            elif status < 0:
                parts.append(f"{who} ended by {_name(-status)}")
            else:
                who = "a worker" if n == 1 else f"{n} workers"
                parts.append(f"{who} ended with exit status {status}")
        if -signal.SIGKILL in self.statuses[first:]:
            parts.append(f"the kernel counts {self.for_memory or 'none'} ended for want of memory")
        return ", ".join(parts)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
