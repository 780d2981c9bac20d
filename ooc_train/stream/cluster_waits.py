"""Waits for a cluster: for lost workers to return, and no longer than `worker_timeout`."""

from collections.abc import Callable
from contextlib import suppress
from time import perf_counter, sleep
from typing import TypeVar

import dask
from distributed import Client, LocalCluster

from ooc_train.core.units import parse_duration
from ooc_train.errors import ClusterError

T = TypeVar("T")

WORKER_TIMEOUT = "ooc_train.worker_timeout"
"""Key in Dask's configuration: the time that a cluster may be without a worker."""

_DEFAULT_TIMEOUT_SECONDS = 60.0

RESTART_SECONDS = 5.0
"""Interval at which our own cluster is asked to restart missing workers."""

_RECONNECT_SECONDS = 3.0
"""Time in which a client may find its lost scheduler again."""

_RETRY_SECONDS = 0.2


def worker_timeout(client: Client) -> float:
    """Return the seconds that a cluster may be without a worker before a run fails.

    The setting of its `LocalCluster` comes first, then Dask's configuration, then 60 s.
    """
    own = getattr(client.cluster, "worker_timeout", None)
    value = dask.config.get(WORKER_TIMEOUT, None) if own is None else own
    return _DEFAULT_TIMEOUT_SECONDS if value is None else parse_timeout(value)


def parse_timeout(value: str | float) -> float:
    """Return a number of seconds, or text such as "90s", in seconds."""
    try:
        return parse_duration(value)
    except ValueError as error:
        raise ValueError(f"worker_timeout={error}") from None


def require_scheduler(client: Client) -> None:
    """Raise `ClusterError` if a client is closed, or has had no scheduler for some seconds.

    Dask would wait half a minute for the scheduler.
    """
    if client.status in ("closing", "closed"):
        raise ClusterError(
            f"the client of the cluster{_place(client)} is closed; connect a new client, "
            "to a new cluster if that one is gone, and run again"
        )
    until = perf_counter() + _RECONNECT_SECONDS
    while client.status == "connecting" and perf_counter() < until:
        sleep(0.02)
    if client.status != "running":
        raise scheduler_gone(client)


def ask_workers(client: Client, ask: Callable[[], T]) -> T:
    """Return the result of `ask`, which is called again if a worker is lost during the call.

    `ClusterError` is raised if no worker was left for `worker_timeout`.
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
            sleep(_RETRY_SECONDS)  # the scheduler may not have noticed the loss yet
            if set(client.nthreads()) == before:
                raise
        try:
            restart_workers(client)
            client.wait_for_workers(1, timeout=max(0.1, until - perf_counter()))
        except TimeoutError:
            raise no_workers(client) from None


def wait_for_all_workers(client: Client) -> None:
    """Wait until our own cluster has all its workers, since a plan counts on them.

    After `worker_timeout` the run goes on with the workers that are there.
    """
    if getattr(client.cluster, "restart_missing_workers", None) is None:
        return
    wanted, until = len(client.cluster.worker_spec), perf_counter() + worker_timeout(client)
    while len(client.nthreads()) < wanted and perf_counter() < until:
        restart_workers(client)
        with suppress(TimeoutError):
            client.wait_for_workers(wanted, timeout=min(RESTART_SECONDS, until - perf_counter()))


def restart_workers(client: Client) -> None:
    """Ask our own cluster to start the workers that it lacks."""
    start = getattr(client.cluster, "restart_missing_workers", None)
    if start is not None and client.status == "running":
        start()


def no_workers(client: Client, causes: str = "") -> ClusterError:
    """Return the error of a cluster without a worker; `causes` says how its workers ended."""
    seconds, causes = f"{worker_timeout(client):g} s", f" ({causes})" if causes else ""
    if isinstance(client.cluster, LocalCluster):
        return ClusterError(
            f"no worker was left, and none came back within {seconds}{causes}; run again, or set a "
            "longer worker_timeout"
        )
    return ClusterError(
        f"the cluster{_place(client)} has had no worker for {seconds}{causes}; start workers "
        "and run again, or set a longer worker_timeout"
    )


def scheduler_gone(client: Client) -> ClusterError:
    """Return the error of a client whose scheduler is gone."""
    return ClusterError(
        f"the scheduler{_place(client)} is gone; start a cluster, connect a new client and "
        "run again"
    )


def _place(client: Client) -> str:
    """Return the address of a client's scheduler as text; a closed client may have none."""
    address = getattr(client.scheduler, "address", None)
    return f" at {address}" if address else ""
