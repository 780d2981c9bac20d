"""The Dask client of a job: a given one, else the active one, else that of a private cluster.

The private cluster is inside this process. It starts at the first need and stays until exit: a
start takes half a second, and distributed never frees a scheduler. Inside a Dask task or a child
process a job runs inline, since waiting there for the own cluster was seen to deadlock.
"""

import atexit
import multiprocessing
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import dask
import distributed
from distributed import Client, get_worker

from ooc_train.core.forks import after_fork, is_forked
from ooc_train.errors import ClusterError
from ooc_train.memory.processes import measure
from ooc_train.runtime.guarded_cluster import LEAN, GuardedCluster, inherited_clusters
from ooc_train.runtime.security import security_for
from ooc_train.runtime.starting import require_inside
from ooc_train.stream.array_source import ArraySource
from ooc_train.stream.cluster_waits import WORKER_TIMEOUT, require_scheduler, worker_timeout
from ooc_train.stream.dask_executor import DaskExecutor
from ooc_train.stream.executors import Executor, LocalExecutor
from ooc_train.stream.sources import Source

_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 3.0

_lock = threading.Lock()
_private: tuple[distributed.LocalCluster, Client] | None = None
_inherited: list[Any] = []
"""Clients of the process that this one was forked from. They are kept so that they are never closed
here, and never used: their threads do not exist in this process."""


@after_fork
def _start_without_clients() -> None:
    """Let a forked process begin without a client."""
    global _lock, _private
    _lock = threading.Lock()
    _inherited.extend(each for each in (_private, _active_client()) if each is not None)
    _private = None


@contextmanager
def waiting_for_workers(seconds: float | None) -> Iterator[None]:
    """Within the context, runs without workers wait `seconds` for one; None changes nothing."""
    with dask.config.set({} if seconds is None else {WORKER_TIMEOUT: seconds}):
        yield


def connect(address: str) -> Client:
    """Return a client of a running cluster.

    Raises
    ------
    ClusterError
        If no scheduler answers at the address.
    """
    client = Client.__new__(Client)
    try:
        Client.__init__(client, address, security=security_for(address), timeout=_CONNECT_SECONDS)
    except (OSError, ValueError, TypeError) as error:
        # distributed leaves this client open, as Dask's default, after some errors. If Python
        # frees it while another client starts, its end waits forever for that start.
        if getattr(client, "status", None) == "connecting":
            client.close()
        tls = address.startswith("tls://")
        raise ClusterError(
            f"no cluster answers at {address} ({error}); give the address of a Dask scheduler, "
            + (
                "and its certificates in Dask's settings distributed.comm.tls (ca-file, "
                "client.cert, client.key)"
                if tls
                else "such as tcp://127.0.0.1:8786"
            )
        ) from None
    return client


def private_client() -> Client:
    """Return the client of the private cluster; the first call starts it."""
    global _private
    with _lock:
        if _private is None:
            require_inside()
            with dask.config.set(LEAN):
                cluster = GuardedCluster(
                    security=True,
                    processes=False,
                    n_workers=1,
                    threads_per_worker=dask.system.CPU_COUNT,
                    dashboard_address="127.0.0.1:0",
                    # Shown by Dask alone: what the machine, or its container, has.
                    memory_limit="auto",
                )
            _private = cluster, Client(cluster, set_as_default=False)
            atexit.register(_close_private)
        return _private[1]


def _close_private() -> None:
    if _private is not None:
        cluster, client = _private
        client.close()
        cluster.close()


def inside_another_job() -> bool:
    """Return whether this is a Dask task or a child process of multiprocessing."""
    if multiprocessing.parent_process() is not None:
        return True
    try:
        get_worker()
    except ValueError:
        return False
    return True


def _active_client() -> Client | None:
    """Return the current client of Dask, or None.

    Clients of a parent process before a fork don't count.
    """
    try:
        client: Client = Client.current()
    except ValueError:
        return None
    return None if any(client is each for each in _inherited) else client


def _require_own_process(client: Client) -> None:
    """Refuse a client whose threads are in the process that forked this one."""
    if not is_forked():
        return
    answered = threading.Event()
    client.loop.add_callback(answered.set)
    if not answered.wait(_ANSWER_SECONDS):
        raise ClusterError(
            "the client belongs to the process that this one was forked from; connect one here: "
            f"Client({client.scheduler.address!r})"
        )


def _synchronous_client(client: Client | None) -> Client:
    """Return the given, the active or the private client; refuse an asynchronous one."""
    client = client or _active_client() or private_client()
    _require_own_process(client)
    if client.asynchronous:
        raise ClusterError(
            "the client is asynchronous; use a synchronous one, such as Client(address)"
        )
    return client


def choose_executor(
    source: Source, client: Client | None = None, *, local: bool = False
) -> Executor:
    """Return the executor that runs the passes over a source; of threads alone if it is `local`.

    Raises
    ------
    ClusterError
        If the client is asynchronous or closed, or has no scheduler or no workers.
    """
    if local:
        return LocalExecutor(dask.system.CPU_COUNT)
    if client is None and inside_another_job():
        return LocalExecutor()
    if client is None and isinstance(source, ArraySource):
        return LocalExecutor(dask.system.CPU_COUNT)
    if client is None and (_inherited or inherited_clusters) and _active_client() is None:
        # Dask's thread pools lost their threads in the fork: a cluster would hang.
        return LocalExecutor()
    client = _synchronous_client(client)
    if isinstance(source, ArraySource):
        return LocalExecutor(dask.system.CPU_COUNT)
    require_scheduler(client)
    seconds = worker_timeout(client)
    try:
        client.wait_for_workers(1, timeout=seconds)
    except TimeoutError:
        raise ClusterError(
            f"the cluster at {client.scheduler.address} has no workers, and none joined within "
            f"{seconds:g} s; start some and run again, or set a longer worker_timeout"
        ) from None
    return DaskExecutor(client)


def dashboard_link(executor: Executor) -> str | None:
    """Return the address of an executor's dashboard; None if it has none."""
    if isinstance(executor, DaskExecutor):
        link: str | None = executor.client.dashboard_link
        if link and executor.client.scheduler.address.startswith("inproc://"):
            # distributed gives the machine's address, where this cluster does not listen.
            parts = urlsplit(link)
            return f"http://127.0.0.1:{parts.port}{parts.path}"
        return link
    return None


def training_link(client: Client | None = None) -> str | None:
    """Return the address of a cluster's Training page, and install the page if needed.

    Parameters
    ----------
    client : distributed.Client or None
        Client of the cluster. None is the active client, else the private one.

    Returns
    -------
    str or None
        None if the scheduler has no dashboard, or does not answer.

    Raises
    ------
    ClusterError
        If the client is asynchronous.
    """
    # Workers import this file too, and need no page.
    from ooc_train.monitoring.driver import TrainingPage

    client = _synchronous_client(client)
    with TrainingPage(client, dashboard_link(DaskExecutor(client)), measure) as page:
        return page.link
