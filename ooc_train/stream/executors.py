"""What runs the calls of a pass: this thread, or the workers of a Dask cluster."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

from dask.delayed import Delayed, delayed
from distributed import Client, Future, wait
from distributed.scheduler import KilledWorker

from ooc_train.errors import CeilingExceeded, ClusterError

_LOST_SECONDS = 60.0
"""A cluster without a single worker for so long is given up."""


class Executor(Protocol):
    """Runs calls, in any order, and yields what they return."""

    def run(
        self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]], window: int, name: str
    ) -> Iterator[Any]:
        """Yield the result of each call as it comes in."""
        ...


@dataclass(frozen=True)
class Inline:
    """Runs calls one after another in this thread."""

    def run(
        self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]], window: int, name: str
    ) -> Iterator[Any]:
        """Yield the result of each call, in order."""
        del window, name
        for call in calls:
            call = tuple(
                argument.compute(scheduler="synchronous")
                if isinstance(argument, Delayed)
                else argument
                for argument in call
            )
            yield function(*call)


class OnDask:
    """Runs calls as tasks of a Dask cluster, a window of them at a time.

    Root tasks that are all submitted at once outrun what consumes them (dask-ml issue 765), so the
    driver keeps the window.
    """

    _serial = itertools.count()

    def __init__(self, client: Client) -> None:
        self.client = client

    def run(
        self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]], window: int, name: str
    ) -> Iterator[Any]:
        """Yield the result of each call as it comes in.

        Raises
        ------
        CeilingExceeded
            where one task lost its worker again and again: what a kernel does to a process that
            takes more memory than there is.
        ClusterError
            where no worker was left for a minute.
        """
        waiting = iter(calls)
        pending: set[Future] = set()
        try:
            while True:
                for call in itertools.islice(waiting, window - len(pending)):
                    pending.add(self._submit(function, call, name))
                if not pending:
                    return
                done = self._wait(pending)
                pending -= done
                yield from self._results(list(done))
        finally:
            if pending:
                self.client.cancel(list(pending), force=True)

    def _submit(self, function: Callable[..., Any], call: tuple[Any, ...], name: str) -> Future:
        key = f"ooc_train-{name}-{next(self._serial)}"
        if any(isinstance(argument, Delayed) for argument in call):
            return self.client.compute(delayed(function, pure=False)(*call, dask_key_name=key))
        return self.client.submit(function, *call, key=key, pure=False)

    def _wait(self, pending: set[Future]) -> set[Future]:
        """Return the futures that are done, of which there is at least one."""
        lost_since: float | None = None
        while True:
            try:
                with self.client.as_current():
                    return set(wait(pending, timeout=5.0, return_when="FIRST_COMPLETED").done)
            except TimeoutError:
                if self.client.nthreads():
                    lost_since = None
                    continue
                lost_since = lost_since or perf_counter()
                if perf_counter() - lost_since > _LOST_SECONDS:
                    raise ClusterError(
                        f"the cluster at {self.client.scheduler.address} has had no worker for "
                        f"{_LOST_SECONDS:.0f} s; start workers and run again"
                    ) from None

    def _results(self, done: list[Future]) -> list[Any]:
        """Return the results of futures all at once: each time is a way to the worker and back."""
        try:
            results: list[Any] = self.client.gather(done)
        except KilledWorker as error:
            raise CeilingExceeded(
                f"a task lost its worker {error.allowed_failures + 1} times over, as happens where "
                "the operating system ends a process that takes more memory than there is; give "
                "the run a smaller memory ceiling or fewer workers"
            ) from error
        return results
