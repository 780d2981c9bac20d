"""Executors run the calls of a pass. This one runs them in the calling thread."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
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
class Inline:
    """Runs calls one after another in the calling thread."""

    def run(
        self,
        function: Callable[..., Any],
        calls: Iterable[tuple[Any, ...]],
        window: int,
        name: str,
        shared: tuple[Any, ...] = (),
        results_per_fetch: int = RESULTS_PER_FETCH,
    ) -> Iterator[Any]:
        """Yield the result of each call, in order."""
        del window, name, results_per_fetch
        for call in calls:
            call = tuple(
                argument.compute(scheduler="synchronous")
                if isinstance(argument, Delayed)
                else argument
                for argument in call
            )
            yield function(*shared, *call)

    def release(self) -> None:
        """Do nothing: calls use the arrays of the caller."""
