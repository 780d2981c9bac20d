"""What runs the calls of a pass: this thread, or the workers of a Dask cluster."""

import itertools
import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

from dask.delayed import Delayed, delayed
from distributed import Client, Future, wait
from distributed.protocol.pickle import dumps
from distributed.scheduler import KilledWorker

from ooc_train.errors import CeilingExceeded, ClusterError

_LOST_SECONDS = 60.0
"""A cluster without a single worker for so long is given up."""


_SOON_SECONDS = 0.2
"""Results may wait so long in their workers for others, to be gathered together."""


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


class _Call:
    """A call that is made where it is unpickled.

    The scheduler opens whatever a task is made of, bytes apart: so it needs none of our package.
    """

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._made = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._made


def _sealed_around(function: Callable[..., Any], call: tuple[Any, ...]) -> tuple[bytes, Delayed]:
    """Return a call as bytes, without the one argument that Dask makes, and that argument.

    Dask would hand over other arrays as parts of a message, in which they may lie askew, and
    compiled loops take none that do.
    """
    (at,) = (i for i, argument in enumerate(call) if isinstance(argument, Delayed))
    return dumps((function, call[:at], call[at + 1 :])), call[at]


def _call_given(open_call: Callable[[bytes], Any], sealed: bytes, given: Any) -> Any:
    """Make the call that `_sealed_around` made bytes of, with the argument that it lacks."""
    function, before, after = open_call(sealed)
    return function(*before, given, *after)


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
                batch = list(itertools.islice(waiting, window - len(pending)))
                pending |= self._submit(function, batch, name)
                if not pending:
                    return
                # Half a window is submitted, and gathered, at a time: each costs a way to the
                # scheduler and one to the workers, however many it is for.
                enough = window // 2 if batch else 0
                done = self._wait(pending, enough)
                pending -= done
                yield from self._results(list(done))
        finally:
            if pending:
                self.client.cancel(list(pending), force=True)

    def _submit(
        self, function: Callable[..., Any], calls: list[tuple[Any, ...]], name: str
    ) -> set[Future]:
        keys = [f"ooc_train-{name}-{next(self._serial)}" for _ in calls]
        if any(isinstance(argument, Delayed) for call in calls for argument in call):
            make = delayed(_call_given, pure=False)
            tasks = [
                make(pickle.loads, *_sealed_around(function, call), dask_key_name=key)
                for call, key in zip(calls, keys, strict=True)
            ]
            return set(self.client.compute(tasks))
        if not calls:
            return set()
        sealed = [dumps(_Call(function, call)) for call in calls]
        return set(self.client.map(pickle.loads, sealed, key=keys, pure=False))

    def _wait(self, pending: set[Future], enough: int) -> set[Future]:
        """Return the futures that are done: at least one, and soon no fewer than leave `enough`."""
        lost_since: float | None = None
        until = perf_counter() + _SOON_SECONDS
        done: set[Future] = set()
        while True:
            try:
                with self.client.as_current():
                    done |= wait(pending - done, timeout=5.0, return_when="FIRST_COMPLETED").done
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
            else:
                if len(pending) - len(done) <= enough or perf_counter() > until:
                    return done

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
