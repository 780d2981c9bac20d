"""How workers ended: by a signal, with an exit status, or for lack of memory."""

import signal
import threading
from collections import Counter

from ooc_train.memory.system import out_of_memory_kills

_UNKNOWN = 255
"""distributed's status of a process that was waited for elsewhere."""


class Endings:
    """A record of a cluster's worker processes that ended unexpectedly.

    Attributes
    ----------
    statuses : list of int
        Exit statuses in order; a signal is a negative number, as in `multiprocessing`.
    """

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self._kills = out_of_memory_kills()
        self._lock = threading.Lock()

    def add(self, status: int) -> None:
        """Record the exit status of a worker."""
        with self._lock:
            self.statuses.append(status)

    def __len__(self) -> int:
        return len(self.statuses)

    @property
    def killed(self) -> bool:
        """Whether the worker process that ended last was ended by a signal."""
        return bool(self.statuses) and self.statuses[-1] < 0

    @property
    def for_memory(self) -> int:
        """Number of processes that the kernel killed for lack of memory since the start."""
        return max(0, out_of_memory_kills() - self._kills)

    @property
    def summary(self) -> str:
        """The endings as text: "2 workers were ended by SIGKILL, ..."."""
        return self.summary_since(0)

    def summary_since(self, first: int) -> str:
        """Return the text of `summary` without the first `first` endings of workers."""
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
            parts.append(f"the kernel counts {self.for_memory or 'none'} ended for lack of memory")
        return ", ".join(parts)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
