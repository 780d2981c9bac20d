"""Executors run the calls of a pass. These run them in this process, by one thread or several."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Protocol

from dask.delayed import Delayed

RESULTS_PER_FETCH = 64
"""Small results fetched at a time: each fetch is a round trip to the workers."""


class Executor(Protocol):
    """Runs calls, in any order, and yields their results."""

    def run(
        self,
        function: Callable[..., Any],
        calls: Iterable[tuple[Any, ...]],
        window: int,
        name: str,
        shared: tuple[Any, ...] = (),
        results_per_fetch: int = RESULTS_PER_FETCH,
    ) -> Iterator[Any]:
        """Yield the result of each call, in the order of completion.

        Parameters
        ----------
        function : callable
            The function of all calls.
        calls : iterable of tuples
            The arguments of each call.
        window : int
            Calls in flight at a time.
        name : str
            Name of the calls on the dashboard.
        shared : tuple
            Arguments of all calls, before those of each call.
        results_per_fetch : int
            Most results that are fetched at a time.
        """

    def release(self) -> None:
        """Free the arrays that calls have shared so far."""


@dataclass(frozen=True)
class LocalExecutor:
    """Runs calls in this process: in the calling thread, or in several threads.

    Attributes
    ----------
    threads : int
        Most calls that run at a time.
    """

    threads: int = 1

    def run(
        self,
        function: Callable[..., Any],
        calls: Iterable[tuple[Any, ...]],
        window: int,
        name: str,
        shared: tuple[Any, ...] = (),
        results_per_fetch: int = RESULTS_PER_FETCH,
    ) -> Iterator[Any]:
        """Yield the result of each call, in the order of completion.

        A single call runs in the calling thread, so that small data start no other.
        """
        del results_per_fetch
        calls = iter(calls)
        first, threads = list(islice(calls, 2)), min(self.threads, window)
        calls = chain(first, calls)
        if len(first) < 2 or threads < 2:
            for call in calls:
                yield _result(function, shared, call)
            return
        running: set[Future[Any]] = set()
        with ThreadPoolExecutor(threads, f"ooc_train-{name}") as pool:
            try:
                for call in calls:
                    running.add(pool.submit(_result, function, shared, call))
                    if len(running) == window:
                        done, running = wait(running, return_when=FIRST_COMPLETED)
                        yield from (future.result() for future in done)
                while running:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            finally:
                # Of a pass that is given up, only the calls that run now end.
                pool.shutdown(wait=False, cancel_futures=True)

    def release(self) -> None:
        """Do nothing: calls use the arrays of the caller."""


def _result(function: Callable[..., Any], shared: tuple[Any, ...], call: tuple[Any, ...]) -> Any:
    """Return the result of a call, after what it takes of Dask arrays was computed."""
    computed = (
        argument.compute(scheduler="synchronous") if isinstance(argument, Delayed) else argument
        for argument in call
    )
    return function(*shared, *computed)
