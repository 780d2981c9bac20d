"""A nanny that restarts worker processes which are killed while they start."""

from time import monotonic
from typing import Any

import distributed
from distributed.core import Status

from ooc_train.runtime.endings import Endings

_MOST_TRIES = 5
"""Largest number of starts of a process that is killed while it starts."""

_ENDING = (Status.closing, Status.closed, Status.closing_gracefully)


class PatientNanny(distributed.Nanny):  # type: ignore[misc] # untyped base
    """A nanny that restarts a worker process killed at its start, and records exit statuses.

    distributed restarts a process only once it has worked: one that is killed earlier fails the
    cluster.

    Parameters
    ----------
    args, kwargs
        As for `distributed.Nanny`.
    endings : Endings
        Records the exit statuses.
    patience : float
        Seconds within which processes are restarted.
    """

    def __init__(self, *args: Any, endings: Endings, patience: float, **kwargs: Any) -> None:
        self._endings = endings
        self._patience = patience
        self._last = 0
        super().__init__(*args, **kwargs)

    async def instantiate(self) -> Any:
        """Start the process, again if it was killed at its start; return its status."""
        first = self.status in (Status.init, Status.starting)
        until = monotonic() + self._patience
        status = await super().instantiate()
        # After its first work, distributed restarts it itself.
        for _ in range(_MOST_TRIES - 1):
            if not first or status == Status.running or not self._killed or monotonic() > until:
                break
            status = await super().instantiate()
        return status

    @property
    def _killed(self) -> bool:
        """Whether a signal ended the last process, other than for lack of memory."""
        return self._last < 0 and not self._endings.for_memory

    def _on_worker_exit_sync(self, exitcode: int) -> None:
        """Record the exit status; distributed calls this in the event loop's thread."""
        if self.status not in _ENDING:
            self._last = exitcode
            self._endings.add(exitcode)
        super()._on_worker_exit_sync(exitcode)
