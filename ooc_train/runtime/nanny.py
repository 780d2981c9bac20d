"""The nanny of a worker: it starts its process again where that is killed, from the start on."""

from time import monotonic
from typing import Any

import distributed
from distributed.core import Status

from ooc_train.runtime.endings import Endings

_MOST_TRIES = 5
"""Times that a process is started which is killed again and again while it starts."""

_ENDING = (Status.closing, Status.closed, Status.closing_gracefully)


class PatientNanny(distributed.Nanny):  # type: ignore[misc] # untyped base
    """Starts a worker process, again where it is killed, and notes how it ended.

    distributed's own starts a process again only once it has worked: one that is killed before
    fails the whole cluster.

    Parameters
    ----------
    args, kwargs : object
        As for `distributed.Nanny`.
    endings : Endings
        Where to note how processes ended.
    patience : float
        Seconds within which processes that are killed while they start are started again.
    """

    def __init__(self, *args: Any, endings: Endings, patience: float, **kwargs: Any) -> None:
        self._endings = endings
        self._patience = patience
        self._last = 0
        super().__init__(*args, **kwargs)

    async def instantiate(self) -> Any:
        """Start the process, and return what became of it."""
        first = self.status in (Status.init, Status.starting)
        until = monotonic() + self._patience
        status = await super().instantiate()
        # Once it has worked, distributed starts the next one itself.
        for _ in range(_MOST_TRIES - 1):
            if not first or status == Status.running or not self._killed or monotonic() > until:
                break
            status = await super().instantiate()
        return status

    @property
    def _killed(self) -> bool:
        """Whether the last process was killed, and not by the kernel for want of memory."""
        return self._last < 0 and not self._endings.for_memory

    def _on_worker_exit_sync(self, exitcode: int) -> None:
        """Note how the process ended: distributed calls it in the thread of the event loop."""
        if self.status not in _ENDING:
            self._last = exitcode
            self._endings.add(exitcode)
        super()._on_worker_exit_sync(exitcode)
