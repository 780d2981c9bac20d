"""What runs the calls of a pass: this thread, or the workers of a Dask cluster."""

import itertools
import pickle
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from time import perf_counter, sleep
from typing import Any, Protocol

import dask
from dask.delayed import Delayed, delayed
from distributed import CancelledError, Client, Future, LocalCluster, wait
from distributed.scheduler import KilledWorker

from ooc_train.errors import CeilingExceeded, ClusterError
from ooc_train.stream.shared import SHARED, Raw, Scattered, apart, sealed

_LOST_SECONDS = 60.0
"""A cluster without a single worker for so long is given up."""


_ALLOWED_LOSSES = 3
"""Times that all workers which hold what calls share may be lost: as often as Dask lets a task."""

TOGETHER = 64
"""Results that are fetched at a time, if they are small: each time is a way to the workers."""

_CONNECTION_LOST = "scheduler-connection-lost"
"""Why Dask cancels the futures of a client that has lost its scheduler, found again or not."""

_RECONNECT_SECONDS = 3.0
"""A client that has lost its scheduler may find it again within so long."""

_SOON_SECONDS = 0.2
"""Results may wait so long in their workers for others, to be gathered together."""


class Executor(Protocol):
    """Runs calls, in any order, and yields what they return."""

    def run(
        self,
        function: Callable[..., Any],
        calls: Iterable[tuple[Any, ...]],
        window: int,
        name: str,
        shared: tuple[Any, ...] = (),
        gathered: int = TOGETHER,
    ) -> Iterator[Any]:
        """Yield the result of each call as it comes in.

        Parameters
        ----------
        function : what is called
        calls : the arguments of each call
        window : calls in flight at a time
        name : of the calls, for those who watch
        shared : arguments that come before those of each call
        gathered : the most results that are fetched at a time
        """
        ...

    def release(self) -> None:
        """Give up what calls have shared so far."""
        ...


@dataclass(frozen=True)
class Inline:
    """Runs calls one after another in this thread."""

    def run(
        self,
        function: Callable[..., Any],
        calls: Iterable[tuple[Any, ...]],
        window: int,
        name: str,
        shared: tuple[Any, ...] = (),
        gathered: int = TOGETHER,
    ) -> Iterator[Any]:
        """Yield the result of each call, in order."""
        del window, name, gathered
        for call in calls:
            call = tuple(
                argument.compute(scheduler="synchronous")
                if isinstance(argument, Delayed)
                else argument
                for argument in call
            )
            yield function(*shared, *call)

    def release(self) -> None:
        """Do nothing: all that calls have is the caller's."""


def _parts(*parts: Any) -> tuple[Any, ...]:
    return parts


def _call_given(
    open_parts: Callable[..., Any], pickled: bytes, buffers: list[Any], given: Any
) -> Any:
    """Make the call that was sealed without one of its arguments, which is given.

    Dask would hand over other arrays as parts of a message, in which they may lie askew, and
    compiled loops take none that do.
    """
    function, before, after = open_parts(pickled, buffers=buffers)
    return function(*before, given, *after)


def require_scheduler(client: Client) -> None:
    """Refuse a client whose scheduler is gone, where Dask would wait for it for half a minute.

    Raises
    ------
    ClusterError
        where the client is closed, or has been without a connection for some seconds.
    """
    until = perf_counter() + _RECONNECT_SECONDS
    while client.status == "connecting" and perf_counter() < until:
        sleep(0.02)
    if client.status != "running":
        raise _gone(client)


def _gone(client: Client) -> ClusterError:
    address = getattr(client.scheduler, "address", "its address")
    return ClusterError(
        f"the scheduler at {address} is gone; start a cluster, connect a new client and run again"
    )


def computed(tasks: Iterable[Delayed]) -> tuple[Any, ...]:
    """Return what Dask makes of tasks, on the active client or in threads.

    Raises
    ------
    ClusterError
        where the scheduler of the active client is gone.
    """
    try:
        client = Client.current()
    except ValueError:
        return tuple(dask.compute(*tasks))
    require_scheduler(client)
    try:
        return tuple(dask.compute(*tasks))
    except CancelledError as error:
        raise _gone(client) from error


class OnDask:
    """Runs calls as tasks of a Dask cluster, a window of them at a time.

    Root tasks that are all submitted at once outrun what consumes them (dask-ml issue 765), so the
    driver keeps the window.
    """

    _serial = itertools.count()

    def __init__(self, client: Client) -> None:
        self.client = client
        # The workers of such a cluster can be reached from here; else the scheduler passes on.
        self.direct = isinstance(client.cluster, LocalCluster)
        self._scattered = Scattered(client)
        # Other drivers of the same scheduler count from 0 too, and it runs tasks of one key once.
        self._token = secrets.token_hex(4)

    def run(
        self,
        function: Callable[..., Any],
        calls: Iterable[tuple[Any, ...]],
        window: int,
        name: str,
        shared: tuple[Any, ...] = (),
        gathered: int = TOGETHER,
    ) -> Iterator[Any]:
        """Yield the result of each call as it comes in.

        Large arrays that calls share stay in the workers until `release`.

        Raises
        ------
        CeilingExceeded
            where one task lost its worker again and again: what a kernel does to a process that
            takes more memory than there is.
        ClusterError
            where no worker was left for a minute.
        """
        waiting, again, losses = iter(calls), list[tuple[Any, ...]](), 0
        pending: dict[Future, tuple[Any, ...]] = {}
        large = apart(shared)
        scatters = sum(raw.nbytes for raw in large) >= SHARED
        try:
            while True:
                room = window - len(pending) - len(again)
                batch = [*again, *itertools.islice(waiting, room)]
                if batch:
                    require_scheduler(self.client)
                if batch and scatters and not self._scattered.hold(large):
                    self._send(large)
                pending |= self._submit(function, shared, batch, name)
                if not pending:
                    return
                # Half a window is submitted, and gathered, at a time: each costs a way to the
                # scheduler and one to the workers, however many it is for.
                enough = window // 2 if batch else 0
                done, again = list(self._wait(set(pending), enough)), []
                while done:
                    some, done = done[:gathered], done[gathered:]
                    results, lost = self._results(some)
                    again += [pending[future] for future in lost]
                    for future in some:
                        del pending[future]
                    # A future that is kept keeps its result in the worker.
                    del some, future
                    yield from results
                    del results
                if again:
                    losses += 1
                    if losses > _ALLOWED_LOSSES:
                        raise _lost(losses)
                    self._scattered.forget()
        finally:
            if pending and self.client.status == "running":
                self.client.cancel(list(pending), force=True)

    def release(self) -> None:
        """Have the workers give up what calls shared, and wait until they have."""
        self._scattered.release()

    def _send(self, large: list[Raw]) -> None:
        """Scatter what calls share, to whichever workers there are within a minute."""
        until = perf_counter() + _LOST_SECONDS
        while True:
            try:
                self.client.wait_for_workers(1, timeout=max(0.1, until - perf_counter()))
                return self._scattered.send(large, self.direct)
            except TimeoutError:
                raise self._no_worker() from None
            except OSError:
                # Lost meanwhile, as may be one that the scheduler has not missed yet.
                if perf_counter() > until:
                    raise self._no_worker() from None
                sleep(0.1)

    def _submit(
        self,
        function: Callable[..., Any],
        shared: tuple[Any, ...],
        calls: list[tuple[Any, ...]],
        name: str,
    ) -> dict[Future, tuple[Any, ...]]:
        """Submit calls, and return the future of each."""
        keys = [f"ooc_train-{name}-{next(self._serial)}-{self._token}" for _ in calls]
        if not calls:
            return {}
        if any(isinstance(argument, Delayed) for call in calls for argument in call):
            tasks = [self._around_a_block(function, (*shared, *call)) for call in calls]
            tasks = [make(dask_key_name=key) for make, key in zip(tasks, keys, strict=True)]
            return dict(zip(self.client.compute(tasks), calls, strict=True))
        pickles, arrays = zip(*(sealed(function, (*shared, *call)) for call in calls), strict=True)
        if not any(arrays):
            found = self.client.map(pickle.loads, pickles, key=keys, pure=False)
            return dict(zip(found, calls, strict=True))
        # Dask warns of tasks of more than 10 MiB, and these are as large as the plan has room for.
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"}):
            return {
                self.client.submit(
                    pickle.loads,
                    pickled,
                    buffers=[self._scattered.of(raw) for raw in raws],
                    key=key,
                    pure=False,
                ): call
                for key, pickled, raws, call in zip(keys, pickles, arrays, calls, strict=True)
            }

    def _around_a_block(
        self, function: Callable[..., Any], call: tuple[Any, ...]
    ) -> Callable[..., Delayed]:
        """Return what makes a task of a call one of whose arguments is made by Dask."""
        (at,) = (i for i, argument in enumerate(call) if isinstance(argument, Delayed))
        pickled, raws = sealed(_parts, (function, call[:at], call[at + 1 :]))
        buffers = [self._scattered.of(raw) for raw in raws]
        make = delayed(_call_given, pure=False)
        return partial(make, pickle.loads, pickled, buffers, call[at])

    def _wait(self, pending: set[Future], enough: int) -> set[Future]:
        """Return the futures that are done: at least one, and soon no fewer than leave `enough`."""
        lost_since: float | None = None
        until = perf_counter() + _SOON_SECONDS
        done: set[Future] = set()
        while True:
            try:
                with self.client.as_current():
                    done |= wait(pending - done, timeout=5.0, return_when="FIRST_COMPLETED").done
            except CancelledError:
                done |= {future for future in pending if future.status != "pending"}
                return done
            except TimeoutError:
                if self.client.nthreads():
                    lost_since = None
                    continue
                lost_since = lost_since or perf_counter()
                if perf_counter() - lost_since > _LOST_SECONDS:
                    raise self._no_worker() from None
            else:
                if len(pending) - len(done) <= enough or perf_counter() > until:
                    return done

    def _no_worker(self) -> ClusterError:
        return ClusterError(
            f"the cluster at {self.client.scheduler.address} has had no worker for "
            f"{_LOST_SECONDS:.0f} s; start workers and run again"
        )

    def _results(self, done: list[Future]) -> tuple[list[Any], set[Future]]:
        """Return the results of futures all at once: each time is a way to the worker and back.

        And the futures that have none: what their tasks shared was lost with the last worker.
        """
        try:
            return self.client.gather(done, direct=self.direct), set()
        except CancelledError as error:
            if self.client.status != "running" or _CONNECTION_LOST in str(error):
                raise _gone(self.client) from error
            lost = {future for future in done if future.status != "finished"}
            if not lost or not self._scattered:
                raise
            results, others = self._results([future for future in done if future not in lost])
            return results, lost | others
        except KilledWorker as error:
            raise _lost(error.allowed_failures + 1) from error


def _lost(times: int) -> CeilingExceeded:
    return CeilingExceeded(
        f"a task lost its worker {times} times over, as happens where the operating system ends a "
        "process that takes more memory than there is; give the run a smaller memory ceiling or "
        "fewer workers"
    )
