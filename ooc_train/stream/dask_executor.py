"""The executor that runs calls as tasks of a Dask cluster, and repeats those of lost workers."""

import itertools
import pickle
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from time import perf_counter, sleep
from typing import Any

import dask
from dask.delayed import Delayed, delayed
from distributed import CancelledError, Client, Future, LocalCluster
from distributed.client import _wait
from distributed.scheduler import KilledWorker

from ooc_train.core.units import approximate_bytes
from ooc_train.errors import CeilingExceeded, ClusterError
from ooc_train.stream.cluster_waits import (
    RESTART_SECONDS,
    no_workers,
    require_scheduler,
    restart_workers,
    scheduler_gone,
    worker_timeout,
)
from ooc_train.stream.executors import RESULTS_PER_FETCH
from ooc_train.stream.shared import SHARED, Raw, Scattered, apart, sealed

_ALLOWED_LOSSES, _ALLOWED_LOSSES_BY_MEMORY = 11, 3
"""Times that a call may lose its worker, in general and where memory seems to be the cause. Dask
gives up a task after three losses; the call is then submitted again."""

_NEARLY_FULL = 0.9
"""Share of its ceiling at which a run probably lost workers for lack of memory."""

_CONNECTION_LOST = "scheduler-connection-lost"
"""Reason that Dask gives for cancelled futures of a client that has lost its scheduler."""

_COLLECT_SECONDS = 0.2
"""Longest time that a result waits in its worker for others to be gathered with it."""


def _arguments(*arguments: Any) -> tuple[Any, ...]:
    return arguments


def _call_with_block(
    open_parts: Callable[..., Any], pickled: bytes, buffers: list[Any], block: Any
) -> Any:
    """Call a pickled function with its pickled arguments and `block`, which Dask has computed.

    Large arrays travel as buffers of the pickle. As plain arguments, Dask would hand them over
    within a message, misaligned, and compiled loops refuse misaligned arrays.
    """
    function, before, after = open_parts(pickled, buffers=buffers)
    return function(*before, block, *after)


class DaskExecutor:
    """Runs calls as tasks of a Dask cluster, a window of them at a time.

    The driver keeps the window: tasks submitted all at once would outrun the consumption of their
    results (dask-ml issue 765).

    Attributes
    ----------
    direct : bool
        Whether the driver reaches workers directly, and not through the scheduler.
    held : callable, or None
        Returns the most bytes that the run was seen to hold, and its ceiling.
    """

    _serial = itertools.count()

    def __init__(self, client: Client) -> None:
        self.client = client
        self.direct = isinstance(client.cluster, LocalCluster)
        self._scattered = Scattered(client)
        # Drivers of one scheduler all count from 0, and Dask runs each key once.
        self._token = secrets.token_hex(4)
        # Only our own clusters record how workers ended.
        self._endings = getattr(client.cluster, "endings", None)
        self._ended = len(self._endings) if self._endings is not None else 0
        self.held: Callable[[], tuple[int, int]] | None = None
        self._placed: set[str] = set()

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

        Large arrays that calls share stay in the workers until `release`. If one task lost its
        worker many times, `CeilingExceeded` is raised if memory seems to be the cause, else
        `ClusterError`. `ClusterError` is also raised if no worker was left for `worker_timeout`.
        """
        waiting, again = iter(calls), list[_Call]()
        pending: dict[Future, _Call] = {}
        self._placed.clear()
        places: list[dict[str, Any]] | None = None
        large = apart(shared)
        scatters = sum(raw.nbytes for raw in large) >= SHARED
        try:
            while True:
                further = window - len(pending) - len(again)
                batch = [*again, *map(_Call, itertools.islice(waiting, further))]
                if batch:
                    require_scheduler(self.client)
                if batch and (places is None or again):  # a round trip, which lost workers renew
                    places = self._places(name, window)
                if batch and scatters and not self._scattered.hold(large):
                    self._send(large)
                calls_due = [call.arguments for call in batch]
                futures = self._submit(function, shared, calls_due, name, places or [{}])
                pending |= zip(futures, batch, strict=True)
                if not pending:
                    return
                # Half a window is submitted and gathered at a time: each batch costs a round trip.
                enough = window // 2 if batch else 0
                done, again = list(self._wait(set(pending), enough)), []
                while done:
                    some, done = done[:results_per_fetch], done[results_per_fetch:]
                    results, lost = self._results(some)
                    again += [pending[future].lost(times) for future, times in lost.items()]
                    for future in some:
                        del pending[future]
                    # A reference to a future would keep its result in the worker.
                    del some, future, lost
                    yield from results
                    del results
                if again:
                    self._limit_losses(max(call.losses for call in again))
                    self._scattered.forget()
        finally:
            if pending and self.client.status == "running":
                self.client.cancel(list(pending), force=True)

    def release(self) -> None:
        """Free the shared arrays in the workers, and wait until no worker holds them."""
        self._scattered.release()

    def _send(self, large: list[Raw]) -> None:
        """Scatter shared arrays to all workers, and wait up to `worker_timeout` for a first one."""
        until = perf_counter() + worker_timeout(self.client)
        while True:
            restart_workers(self.client)
            try:
                seconds = min(RESTART_SECONDS, until - perf_counter())
                self.client.wait_for_workers(1, timeout=max(0.1, seconds))
                return self._scattered.send(large, self.direct)
            except OSError:  # a TimeoutError, or a worker lost meanwhile
                if perf_counter() > until:
                    raise no_workers(self.client, self._causes()) from None
                sleep(0.1)

    def _submit(
        self,
        function: Callable[..., Any],
        shared: tuple[Any, ...],
        calls: list[tuple[Any, ...]],
        name: str,
        chosen: list[dict[str, Any]],
    ) -> list[Future]:
        """Submit calls to the chosen workers in turn, and return the future of each."""
        keys = [f"ooc_train-{name}-{next(self._serial)}-{self._token}" for _ in calls]
        if not calls:
            return []
        if any(isinstance(argument, Delayed) for call in calls for argument in call):
            tasks = [self._delayed_call(function, (*shared, *call)) for call in calls]
            tasks = [make(dask_key_name=key) for make, key in zip(tasks, keys, strict=True)]
            return list(self.client.compute(tasks))
        pickles, arrays = zip(*(sealed(function, (*shared, *call)) for call in calls), strict=True)
        places = list(itertools.islice(itertools.cycle(chosen), len(calls)))
        self._placed |= {key for key, place in zip(keys, places, strict=True) if place}
        if not any(arrays) and not any(places):
            return list(self.client.map(pickle.loads, pickles, key=keys, pure=False))
        # Dask warns of tasks above 10 MiB; the plan accounts for these.
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"}):
            return [
                self.client.submit(
                    pickle.loads,
                    pickled,
                    buffers=[self._scattered.of(raw) for raw in raws],
                    key=key,
                    pure=False,
                    **place,
                )
                for key, pickled, raws, place in zip(keys, pickles, arrays, places, strict=True)
            ]

    def _places(self, name: str, window: int) -> list[dict[str, Any]]:
        """Return the workers that tasks go to in turn, as arguments of `submit`.

        Segments of a replica go on in one worker. Other tasks, if a window has fewer of them than
        there are threads, go to as few workers as have threads for them. Each further worker that
        took a turn would have held buffers, which the plan does not count. If the workers are lost,
        any other ones take over.
        """
        try:
            threads = self.client.nthreads()
        except OSError as error:
            raise scheduler_gone(self.client) from error
        workers = sorted(threads)
        if len(workers) < 2:
            return [{}]
        first = int(self._token, 16) % len(workers)  # drivers of one scheduler begin elsewhere
        workers = workers[first:] + workers[:first]
        chosen = [[each] for each in workers]
        if name != "scan":
            reached = itertools.accumulate((threads[each] for each in workers), initial=0)
            chosen = [
                [each for each, before in zip(workers, reached, strict=False) if before < window]
            ]
            if len(chosen[0]) == len(workers):
                return [{}]
        return [{"workers": each, "allow_other_workers": True} for each in chosen]

    def _delayed_call(
        self, function: Callable[..., Any], call: tuple[Any, ...]
    ) -> Callable[..., Delayed]:
        """Return a function that makes a task of a call with one delayed argument."""
        (at,) = (i for i, argument in enumerate(call) if isinstance(argument, Delayed))
        pickled, raws = sealed(_arguments, (function, call[:at], call[at + 1 :]))
        buffers = [self._scattered.of(raw) for raw in raws]
        make = delayed(_call_with_block, pure=False)
        return partial(make, pickle.loads, pickled, buffers, call[at])

    def _wait(self, pending: set[Future], enough: int) -> set[Future]:
        """Return the futures that are done, at least one.

        For up to 0.2 s, the driver waits until no more than `enough` futures are pending.
        """
        lost_since: float | None = None
        waiting: set[Future] = set()
        limit = worker_timeout(self.client)
        look = min(RESTART_SECONDS, max(0.1, limit / 4))
        until = perf_counter() + _COLLECT_SECONDS
        done: set[Future] = set()
        while True:
            try:
                # Not `distributed.wait` within `as_current`, which sets a setting of Dask for all
                # threads: when two of them leave it in turn, Dask stays without a scheduler.
                left = pending - done
                done |= self.client.sync(
                    _wait, left, timeout=look, return_when="FIRST_COMPLETED"
                ).done
            except CancelledError:
                done |= {future for future in pending if future.status != "pending"}
                return done
            except TimeoutError:
                restart_workers(self.client)
                if self.client.nthreads():
                    lost_since = None
                    waiting = self._cancel_stuck(left, waiting)
                    continue
                lost_since = lost_since or perf_counter()
                if perf_counter() - lost_since > limit:
                    raise no_workers(self.client, self._causes()) from None
            else:
                if len(pending) - len(done) <= enough or perf_counter() > until:
                    return done

    def _cancel_stuck(self, pending: set[Future], before: set[Future]) -> set[Future]:
        """Cancel tasks that wait for a lost worker, to be submitted anew; return those that wait.

        Dask gives a task with a place to another worker when that worker is lost. If there is none
        then, it gives the task to none that joins later. `before` are those that waited before.
        """
        if not self._placed:
            return set()
        running = {key for keys in self.client.processing().values() for key in keys}
        waiting = {each for each in pending if each.key in self._placed - running}
        if stuck := waiting & before:
            self.client.cancel(list(stuck))
        return waiting

    @property
    def ended(self) -> str:
        """How workers of our own cluster have ended during this run, in words; "" if none did."""
        if self._endings is None or len(self._endings) == self._ended:
            return ""
        return str(self._endings.summary_since(self._ended))

    def _causes(self) -> str:
        """Return how workers ended, and how much memory the run held, in words."""
        parts = [self.ended] if self.ended else []
        if self.held is not None:
            held, ceiling = self.held()
            if held:
                parts.append(
                    f"the run was last seen to hold {approximate_bytes(held)} of its ceiling of "
                    f"{approximate_bytes(ceiling)}"
                )
        return "; ".join(parts)

    def _lost_by_memory(self) -> bool:
        """Return whether memory seems to be the cause of lost workers."""
        if self._endings is not None and self._endings.for_memory:
            return True
        if self.held is None:
            return False
        held, ceiling = self.held()
        return held >= _NEARLY_FULL * ceiling

    def _limit_losses(self, losses: int) -> None:
        """Raise an error if a call has lost its worker too many times."""
        by_memory = self._lost_by_memory()
        if losses <= (_ALLOWED_LOSSES_BY_MEMORY if by_memory else _ALLOWED_LOSSES):
            return
        causes = self._causes()
        known = f" ({causes})" if causes else ""
        lost = f"a task lost its worker {losses} times over{known}"
        if by_memory:
            raise CeilingExceeded(
                f"{lost}, as happens where the operating system ends a process that takes more "
                "memory than there is; give the run a smaller memory ceiling or fewer workers"
            )
        raise ClusterError(
            f"{lost}; find out what ends them: the log of the cluster or of the system may say it"
        )

    def _results(self, done: list[Future]) -> tuple[list[Any], dict[Future, int]]:
        """Return the results of futures, and the lost workers of each future without a result.

        One round trip fetches all. Dask has given up the tasks of the other futures, or has
        cancelled them because the last worker with shared arrays was lost; or they had a place at a
        worker that was lost.
        """
        try:
            return self.client.gather(done, direct=self.direct), {}
        except CancelledError as error:
            if self.client.status != "running" or _CONNECTION_LOST in str(error):
                raise scheduler_gone(self.client) from error
            lost = {future: 1 for future in done if future.status != "finished"}
            if not lost or not (self._scattered or self._placed):
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
    """The arguments of a call, and how many times its worker was lost."""

    arguments: tuple[Any, ...]
    losses: int = 0

    def lost(self, times: int) -> "_Call":
        """Return the call with its number of losses raised by `times`."""
        return _Call(self.arguments, self.losses + times)
