"""What runs the calls of a pass: this thread, or the workers of a Dask cluster."""

import itertools
import pickle
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from time import perf_counter, sleep
from typing import Any, Protocol, TypeVar

import dask
from dask.delayed import Delayed, delayed
from distributed import CancelledError, Client, Future, LocalCluster, wait
from distributed.scheduler import KilledWorker

from ooc_train.core.units import approximate_bytes, parse_duration
from ooc_train.errors import CeilingExceeded, ClusterError
from ooc_train.stream.shared import SHARED, Raw, Scattered, apart, sealed

T = TypeVar("T")

WORKER_TIMEOUT = "ooc_train.worker_timeout"
"""The setting of Dask's configuration that says how long a cluster may be without a worker."""

_TIMEOUT_SECONDS = 60.0
"""And what it is where nobody set it."""

_ALLOWED_LOSSES, _ALLOWED_FOR_MEMORY = 11, 3
"""Times that a call may lose its worker; and where that took too much memory, as it would again.
Dask gives a task up after the latter number, and it is then sent anew."""

_NEAR = 0.9
"""The share of its ceiling at which a run that loses workers probably lost them for memory."""

_MENDING_SECONDS = 5.0
"""So often our own cluster is asked to start the workers that it lacks."""

RESULTS_PER_FETCH = 64
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
        results_per_fetch: int = RESULTS_PER_FETCH,
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


def worker_timeout(client: Client) -> float:
    """Return the seconds that a cluster may be without a worker before a run on it is given up.

    As its `LocalCluster` was told, else as Dask's configuration says, else 60.

    Raises
    ------
    ValueError
        where that is no duration, or less than 0.
    """
    own = getattr(client.cluster, "worker_timeout", None)
    value = dask.config.get(WORKER_TIMEOUT, None) if own is None else own
    return _TIMEOUT_SECONDS if value is None else parse_timeout(value)


def parse_timeout(value: str | float) -> float:
    """Return a number of seconds, or text such as "90s", in seconds.

    Raises
    ------
    ValueError
        where it is no duration.
    """
    try:
        return parse_duration(value)
    except ValueError as error:
        raise ValueError(f"worker_timeout={error}") from None


def require_scheduler(client: Client) -> None:
    """Refuse a client whose scheduler is gone, where Dask would wait for it for half a minute.

    Raises
    ------
    ClusterError
        where the client is closed, or has been without a connection for some seconds.
    """
    if client.status in ("closing", "closed"):
        raise ClusterError(
            f"the client of the cluster at {_address(client)} is closed; hand over one that is open"
        )
    until = perf_counter() + _RECONNECT_SECONDS
    while client.status == "connecting" and perf_counter() < until:
        sleep(0.02)
    if client.status != "running":
        raise _gone(client)


def patiently(client: Client, ask: Callable[[], T]) -> T:
    """Return what the workers of a cluster answer, of those that are there if some are lost.

    Parameters
    ----------
    client : of the cluster
    ask : has a function run in each worker; it is called again where one was lost meanwhile

    Raises
    ------
    ClusterError
        where the scheduler is gone, or no worker was left for as long as `worker_timeout` says.
    """
    until = perf_counter() + worker_timeout(client)
    while True:
        require_scheduler(client)
        before = set(client.nthreads())
        try:
            if before:
                return ask()
        except OSError:
            require_scheduler(client)
            sleep(_SOON_SECONDS)  # the scheduler may not have missed it yet
            if set(client.nthreads()) == before:
                raise
        try:
            mend(client)
            client.wait_for_workers(1, timeout=max(0.1, until - perf_counter()))
        except TimeoutError:
            raise without_workers(client) from None


def wait_for_all(client: Client) -> None:
    """Wait until our own cluster has the workers that it is to have: a plan counts on them.

    No longer than `worker_timeout` says: then those that are there will do.
    """
    if getattr(client.cluster, "restart_missing_workers", None) is None:
        return
    wanted, until = len(client.cluster.worker_spec), perf_counter() + worker_timeout(client)
    while len(client.nthreads()) < wanted and perf_counter() < until:
        mend(client)
        with suppress(TimeoutError):
            client.wait_for_workers(wanted, timeout=min(_MENDING_SECONDS, until - perf_counter()))


def mend(client: Client) -> None:
    """Have our own cluster start the workers that it lacks, if it does not do so already."""
    start = getattr(client.cluster, "restart_missing_workers", None)
    if start is not None and client.status == "running":
        start()


def without_workers(client: Client, known: str = "") -> ClusterError:
    """Return the error of a cluster that has had no worker for too long.

    Parameters
    ----------
    client : of the cluster
    known : what is known of how they ended, in words
    """
    seconds, known = f"{worker_timeout(client):g} s", f" ({known})" if known else ""
    if isinstance(client.cluster, LocalCluster):
        return ClusterError(
            f"no worker was left, and none came back within {seconds}{known}; run again, or set a "
            "longer worker_timeout"
        )
    return ClusterError(
        f"the cluster at {_address(client)} has had no worker for {seconds}{known}; start workers "
        "and run again, or set a longer worker_timeout"
    )


def _address(client: Client) -> str:
    return getattr(client.scheduler, "address", None) or "its address"


def _gone(client: Client) -> ClusterError:
    return ClusterError(
        f"the scheduler at {_address(client)} is gone; start a cluster, connect a new client and "
        "run again"
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
        # What is known of workers that ended: of those of our own clusters alone.
        self._endings = getattr(client.cluster, "endings", None)
        self._ended = len(self._endings) if self._endings is not None else 0
        self.held: Callable[[], tuple[int, int]] | None = None
        """Returns the most bytes that the run's processes were seen to hold, and its ceiling."""

    def run(
        self,
        function: Callable[..., Any],
        calls: Iterable[tuple[Any, ...]],
        window: int,
        name: str,
        shared: tuple[Any, ...] = (),
        results_per_fetch: int = RESULTS_PER_FETCH,
    ) -> Iterator[Any]:
        """Yield the result of each call as it comes in.

        Large arrays that calls share stay in the workers until `release`.

        Raises
        ------
        CeilingExceeded
            where one task lost its worker again and again, and memory seems to be why.
        ClusterError
            where it did for another reason, or no worker was left for as long as
            `worker_timeout` says.
        """
        waiting, again = iter(calls), list[_Call]()
        pending: dict[Future, _Call] = {}
        large = apart(shared)
        scatters = sum(raw.nbytes for raw in large) >= SHARED
        try:
            while True:
                room = window - len(pending) - len(again)
                batch = [*again, *map(_Call, itertools.islice(waiting, room))]
                if batch:
                    require_scheduler(self.client)
                if batch and scatters and not self._scattered.hold(large):
                    self._send(large)
                futures = self._submit(function, shared, [call.arguments for call in batch], name)
                pending |= zip(futures, batch, strict=True)
                if not pending:
                    return
                # Half a window is submitted, and gathered, at a time: each costs a way to the
                # scheduler and one to the workers, however many it is for.
                enough = window // 2 if batch else 0
                done, again = list(self._wait(set(pending), enough)), []
                while done:
                    some, done = done[:results_per_fetch], done[results_per_fetch:]
                    results, lost = self._results(some)
                    again += [pending[future].lost(times) for future, times in lost.items()]
                    for future in some:
                        del pending[future]
                    # A future that is kept keeps its result in the worker.
                    del some, future, lost
                    yield from results
                    del results
                if again:
                    self._require_hope(max(call.losses for call in again))
                    self._scattered.forget()
        finally:
            if pending and self.client.status == "running":
                self.client.cancel(list(pending), force=True)

    def release(self) -> None:
        """Have the workers give up what calls shared, and wait until they have."""
        self._scattered.release()

    def _send(self, large: list[Raw]) -> None:
        """Scatter what calls share, to whichever workers there are within the time-out."""
        until = perf_counter() + worker_timeout(self.client)
        while True:
            mend(self.client)
            try:
                seconds = min(_MENDING_SECONDS, until - perf_counter())
                self.client.wait_for_workers(1, timeout=max(0.1, seconds))
                return self._scattered.send(large, self.direct)
            except OSError:  # of which one is a TimeoutError
                # Lost meanwhile, as may be one that the scheduler has not missed yet.
                if perf_counter() > until:
                    raise without_workers(self.client, self._known()) from None
                sleep(0.1)

    def _submit(
        self,
        function: Callable[..., Any],
        shared: tuple[Any, ...],
        calls: list[tuple[Any, ...]],
        name: str,
    ) -> list[Future]:
        """Submit calls, and return the future of each."""
        keys = [f"ooc_train-{name}-{next(self._serial)}-{self._token}" for _ in calls]
        if not calls:
            return []
        if any(isinstance(argument, Delayed) for call in calls for argument in call):
            tasks = [self._around_a_block(function, (*shared, *call)) for call in calls]
            tasks = [make(dask_key_name=key) for make, key in zip(tasks, keys, strict=True)]
            return list(self.client.compute(tasks))
        pickles, arrays = zip(*(sealed(function, (*shared, *call)) for call in calls), strict=True)
        if not any(arrays):
            return list(self.client.map(pickle.loads, pickles, key=keys, pure=False))
        # Dask warns of tasks of more than 10 MiB, and these are as large as the plan has room for.
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"}):
            return [
                self.client.submit(
                    pickle.loads,
                    pickled,
                    buffers=[self._scattered.of(raw) for raw in raws],
                    key=key,
                    pure=False,
                )
                for key, pickled, raws in zip(keys, pickles, arrays, strict=True)
            ]

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
        limit = worker_timeout(self.client)
        look = min(_MENDING_SECONDS, max(0.1, limit / 4))
        until = perf_counter() + _SOON_SECONDS
        done: set[Future] = set()
        while True:
            try:
                with self.client.as_current():
                    done |= wait(pending - done, timeout=look, return_when="FIRST_COMPLETED").done
            except CancelledError:
                done |= {future for future in pending if future.status != "pending"}
                return done
            except TimeoutError:
                mend(self.client)
                if self.client.nthreads():
                    lost_since = None
                    continue
                lost_since = lost_since or perf_counter()
                if perf_counter() - lost_since > limit:
                    raise without_workers(self.client, self._known()) from None
            else:
                if len(pending) - len(done) <= enough or perf_counter() > until:
                    return done

    @property
    def ended(self) -> str:
        """How workers of our own cluster ended since this was made, in words; "" where none did."""
        if self._endings is None or len(self._endings) == self._ended:
            return ""
        return str(self._endings.summary_since(self._ended))

    def _known(self) -> str:
        """Return what is known of workers that ended, and of the run's memory, in words."""
        parts = [self.ended] if self.ended else []
        if self.held is not None:
            held, ceiling = self.held()
            if held:
                parts.append(
                    f"the run was last seen to hold {approximate_bytes(held)} of its ceiling of "
                    f"{approximate_bytes(ceiling)}"
                )
        return "; ".join(parts)

    def _for_memory(self) -> bool:
        """Whether memory seems to be why workers were lost."""
        if self._endings is not None and self._endings.for_memory:
            return True
        if self.held is None:
            return False
        held, ceiling = self.held()
        return held >= _NEAR * ceiling

    def _require_hope(self, losses: int) -> None:
        """Give up a call that has lost its worker too many times."""
        for_memory = self._for_memory()
        if losses <= (_ALLOWED_FOR_MEMORY if for_memory else _ALLOWED_LOSSES):
            return
        known = self._known()
        told = f"a task lost its worker {losses} times over{f' ({known})' if known else ''}"
        if for_memory:
            raise CeilingExceeded(
                f"{told}, as happens where the operating system ends a process that takes more "
                "memory than there is; give the run a smaller memory ceiling or fewer workers"
            )
        raise ClusterError(
            f"{told}; find out what ends them: the log of the cluster or of the system may say it"
        )

    def _results(self, done: list[Future]) -> tuple[list[Any], dict[Future, int]]:
        """Return the results of futures all at once: each time is a way to the worker and back.

        And of the futures that have none, how many workers their tasks have lost: what they shared
        was lost with the last worker, or Dask has given them up.
        """
        try:
            return self.client.gather(done, direct=self.direct), {}
        except CancelledError as error:
            if self.client.status != "running" or _CONNECTION_LOST in str(error):
                raise _gone(self.client) from error
            lost = {future: 1 for future in done if future.status != "finished"}
            if not lost or not self._scattered:
                raise
        except KilledWorker as error:
            lost = {
                future: error.allowed_failures + 1
                for future in done
                if future.status == "error" and isinstance(future.exception(), KilledWorker)
            }
            if not lost:
                raise
        results, others = self._results([future for future in done if future not in lost])
        return results, lost | others


@dataclass(frozen=True, slots=True)
class _Call:
    """The arguments of a call, and how many workers were lost that made it."""

    arguments: tuple[Any, ...]
    losses: int = 0

    def lost(self, times: int) -> "_Call":
        """Return the call after it has lost so many workers more."""
        return _Call(self.arguments, self.losses + times)
