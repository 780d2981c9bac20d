"""Threads that take turns: each does on its own what it can, and in its turn what is in order."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from threading import Lock
from typing import TypeVar

Result = TypeVar("Result")
Turn = Callable[[], AbstractContextManager[None]]


class _NoMoreTurnsError(Exception):
    """Another thread has failed, so that the turn of this one will not come."""


class _Turns:
    def __init__(self, threads: int) -> None:
        self._failed = False
        # The lock of a thread is free when it is its turn.
        self._locks = [Lock() for _ in range(threads)]
        for lock in self._locks[1:]:
            lock.acquire()

    @contextmanager
    def turn(self, thread: int) -> Iterator[None]:
        """Wait for the turn of a thread; when it is left, it is that of the next."""
        self._locks[thread].acquire()
        if self._failed:
            raise _NoMoreTurnsError
        yield
        self._free(self._locks[(thread + 1) % len(self._locks)])

    def fail(self) -> None:
        """End the waiting of all."""
        self._failed = True
        for lock in self._locks:
            self._free(lock)

    @staticmethod
    def _free(lock: Lock) -> None:
        with suppress(RuntimeError):  # another thread has failed, and freed it
            lock.release()


def in_turns(
    work: Callable[[Turn, Sequence[int]], Result], count: int, threads: int
) -> list[Result]:
    """Share out the numbers below `count` among threads, and return what each returns.

    Parameters
    ----------
    work : callable
        ``work(turn, numbers)`` goes through its numbers, and enters ``turn()`` once for each. The
        turns of all threads come in the order of the numbers.
    count : int
    threads : int
        One is the calling thread; more are others, which it waits for.

    Raises
    ------
    Exception
        what the first thread to fail raised.
    """
    if threads == 1:
        return [work(nullcontext, range(count))]
    turns = _Turns(threads)

    def share(thread: int) -> Result:
        try:
            return work(partial(turns.turn, thread), range(thread, count, threads))
        except BaseException:
            turns.fail()
            raise

    with ThreadPoolExecutor(threads, "ooc_train-turn") as pool:
        shares = [pool.submit(share, thread) for thread in range(threads)]
        for done in shares:
            error = done.exception()
            if error is not None and not isinstance(error, _NoMoreTurnsError):
                raise error
    return [done.result() for done in shares]
