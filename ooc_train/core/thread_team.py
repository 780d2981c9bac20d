"""A team of threads that compute the parts of one thing, again and again.

Parts that take a tenth of a millisecond are worth a thread only if handing them over is quicker
still. So the threads wait at queues of C, and each one takes the same parts every time.
"""

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Self

Work = Callable[[int], None]


class ThreadTeam:
    """The calling thread and its helpers; a context manager, at whose end the helpers end.

    Parameters
    ----------
    threads : int
        Number of threads, with the calling one. The helpers start when they first have work.
    """

    def __init__(self, threads: int) -> None:
        self._given: list[SimpleQueue[tuple[Work, range] | None]] = []
        self._ended: SimpleQueue[BaseException | None] = SimpleQueue()
        self._helpers: list[Thread] = []
        self._most = threads - 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for queue in self._given:
            queue.put(None)
        for helper in self._helpers:
            helper.join()

    def run(self, work: Work, parts: int) -> None:
        """Call ``work(part)`` for the parts 0 to `parts` - 1, and return when all have ended.

        If some fail, the error of one of them is raised, once no part runs any more.
        """
        helpers = min(self._most, parts - 1)
        if helpers < 1:
            for part in range(parts):
                work(part)
            return
        while len(self._helpers) < helpers:
            self._start()
        for first in range(helpers):
            self._given[first].put((work, range(first + 1, parts, helpers + 1)))
        errors = [_error(work, range(0, parts, helpers + 1))]
        errors += [self._ended.get() for _ in range(helpers)]
        for error in errors:
            if error is not None:
                raise error

    def _start(self) -> None:
        given: SimpleQueue[tuple[Work, range] | None] = SimpleQueue()

        def help_out() -> None:
            while (due := given.get()) is not None:
                self._ended.put(_error(*due))

        self._given.append(given)
        self._helpers.append(Thread(target=help_out, name="ooc_train-team", daemon=True))
        self._helpers[-1].start()


def _error(work: Work, parts: range) -> BaseException | None:
    """Call `work` for some parts; return the error that ended it, or None."""
    try:
        for part in parts:
            work(part)
    except BaseException as error:  # noqa: BLE001 (raised again by the calling thread)
        return error
    return None
