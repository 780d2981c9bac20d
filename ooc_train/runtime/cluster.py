"""The processes that a job runs on: a local cluster with a ceiling, or a client that exists.

A job takes the client it is given, else the active one, else one private cluster inside this
process, which is started at need and kept until exit: starting one costs half a second, and
distributed never frees a scheduler, so one a fit would leak. Inside a Dask task or a child process
a job runs inline: waiting there for the cluster that runs us was seen to deadlock.
"""

import atexit
import logging
import multiprocessing
import os
import signal
import threading
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from numbers import Integral
from typing import Any
from urllib.parse import urlsplit

import dask
import distributed
from distributed import Client, Security, get_worker

from ooc_train.core.forks import after_fork, is_forked
from ooc_train.core.schema import shown
from ooc_train.core.units import MOST_WORKERS, approximate_bytes
from ooc_train.errors import CeilingExceeded, ClusterError, OocTrainError
from ooc_train.memory.ceiling import Ceiling
from ooc_train.memory.processes import measure
from ooc_train.runtime.endings import Endings
from ooc_train.runtime.security import GuardedCluster, require_security, security_for
from ooc_train.runtime.starting import (
    NO_GUARD_EXIT,
    require_inside,
    require_startable,
    why_not_started,
)
from ooc_train.runtime.worker_output import overheard, quiet
from ooc_train.stream.executors import (
    WORKER_TIMEOUT,
    Executor,
    Inline,
    OnDask,
    parse_timeout,
    require_scheduler,
    worker_timeout,
)
from ooc_train.stream.sources import ArraySource, Source

DASHBOARD = "127.0.0.1:8787"
"""Where the dashboard listens unless told otherwise: this machine only."""

_DRIVER_BYTES, _GROWTH_BYTES = 130 * 2**20, 56 * 2**20
_WORKER_BYTES, _KERNEL_WORKER_BYTES = 64 * 2**20, 104 * 2**20
"""What the command line, or the growth of another process, and a worker without and with compiled
kernels, come to with their buffers (measured by plans for 1 and 2 workers; the first holds more, by
libraries that the others share, which is in the driver's figure)."""

_START_SECONDS = 60.0
_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 3.0

_FEW_WORKERS = 8

_KEPT_FREE = 4 * 2**20
"""Bytes that the allocator of a worker may keep to hand out again."""

# The plan keeps to the ceiling; Dask's own reactions to memory would spill, pause and kill.
_LEAN = {
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    "distributed.comm.timeouts.connect": f"{_START_SECONDS:.0f}s",
    # The keys of a pass differ only in their number; profiles of them all would only pile up.
    "distributed.worker.profile.enabled": False,
    # Each connection keeps its last messages, 1,000 unless told otherwise, and so as many sets of
    # parameters: 255 KiB a task at 10,000 features.
    "distributed.admin.low-level-log-length": 10,
    # Dask has workers give back what is free above 64 KiB, and glibc then maps anew whatever is
    # larger than 128: blosc, which asks for its room with every chunk, decoded at a quarter of its
    # speed.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": _KEPT_FREE,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": _KEPT_FREE,
}


class LocalCluster(GuardedCluster):
    """A Dask cluster of lean processes on this machine, with a memory ceiling for what runs on it.

    Parameters
    ----------
    memory_ceiling : str or int or Ceiling or None
        Bytes or text such as "1GiB", or None for half of what is available What workers,
        scheduler and the growth of this process may hold together. In a container, a job
        that needs more than half takes up to 80 %.
    n_workers : int or None
        Processes, or None for one a core None is fewer where the ceiling has no room for as
        many, and may become fewer with a job that needs more.
    threads_per_worker : int
        One, unless given: threads of one process wait for each other.
    dashboard_address : str
        Where the dashboard listens; this machine's port 8787 unless it is taken.
    security : bool or Security
        Bool or distributed.Security Who may connect, and so run code. True: only who has a
        key that is made for this cluster (`cluster.get_client()` and `Client(cluster)` do),
        and the dashboard opens by its link alone. False: every user of this machine. Or
        Dask's settings for TLS, with a key of yours.
    worker_timeout : str or float or None
        Seconds, or text such as "90s", or None A run on it that has no worker left goes on
        if one comes back within that time. None is what Dask's configuration says as
        ``ooc_train.worker_timeout``, else a minute.

    Attributes
    ----------
    endings : how its workers ended, where they did unasked
    chooses : whether it chooses its number of workers

    Raises
    ------
    MissingMainGuard
        where the script that starts it lacks ``if __name__ == "__main__":``.
    ClusterError
        where the workers could not be started: it says what is missing, or how they ended; or where
        no key could be made.
    UnsafePlace
        where there is no place for temporary files that other users can't tamper with.
    """

    def __init__(
        self,
        *,
        memory_ceiling: str | int | Ceiling | None = None,
        n_workers: int | None = None,
        threads_per_worker: int = 1,
        dashboard_address: str = DASHBOARD,
        security: bool | Security = True,
        worker_timeout: str | float | None = None,
    ) -> None:
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            # This is a worker importing the script that starts it. Say nothing: its parent will.
            os._exit(NO_GUARD_EXIT)
        # Before anything is started, which takes of what is available.
        self.memory_ceiling = Ceiling.of(memory_ceiling)
        self.chooses = n_workers is None
        if n_workers is not None:
            _require_few("n_workers", n_workers)
            _require_room(n_workers, self.memory_ceiling)
        _require_few("threads_per_worker", threads_per_worker)
        n_workers = n_workers or workers_within(self.memory_ceiling, kernels=True)
        require_security(security)
        require_startable(n_workers)
        self.endings = Endings()
        self.worker_timeout = None if worker_timeout is None else parse_timeout(worker_timeout)
        with (
            dask.config.set(_LEAN),
            warnings.catch_warnings(),
            quiet(),
            _without_interrupt(),
            overheard() as said,
        ):
            warnings.filterwarnings("ignore", message="Port .* is already in use")
            try:
                super().__init__(
                    n_workers=n_workers,
                    threads_per_worker=threads_per_worker,
                    processes=True,
                    host="127.0.0.1",
                    dashboard_address=dashboard_address,
                    security=security,
                    endings=self.endings,
                    patience=_START_SECONDS,
                    memory_limit=0,
                    # Our errors reach the driver as values; what is left to log is of processes
                    # that end while others still talk to them, at Ctrl-C and at every close.
                    silence_logs=logging.CRITICAL,
                )
            except OocTrainError:
                raise
            except Exception as error:  # noqa: BLE001 (distributed raises whatever there was)
                said.failed, why = True, error
        _made.add(self)
        if said.failed:
            raise why_not_started(why, self.endings, said.last_line) from None

    def get_client(self) -> Client:
        """Return a client, as lean as the processes."""
        with dask.config.set(_LEAN):
            return super().get_client()

    def spare(self, n: int) -> int:
        """End workers, and return how many more could be; 0 where their number was given."""
        if not self.chooses:
            return 0
        if n > 0:
            self.sync(self.scale_down, list(self.worker_spec)[-n:])
        return len(self.worker_spec) - 1

    def mend(self) -> None:
        """Start the workers that are missing, which distributed has given up."""
        if len(self.workers) < len(self.worker_spec):
            self.scale(len(self.worker_spec))

    @property
    def training_link(self) -> str | None:
        """The address of the Training page, which is there before any run; None without one."""
        with dask.config.set(_LEAN), Client(self, set_as_default=False) as client:
            return training_link(client)


def _require_few(name: str, value: object) -> None:
    """Refuse a number of processes, or of their threads, that no machine starts."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or not 1 <= int(value) <= MOST_WORKERS:  # type: ignore[call-overload]
        raise ValueError(f"{name}={shown(value)} is not a whole number from 1 to {MOST_WORKERS:,}")


def _require_room(n_workers: int, ceiling: Ceiling) -> None:
    """Refuse many workers that alone hold more than the ceiling, before any is started.

    Of a few, the plan says it with all its terms.
    """
    least, most = n_workers * _WORKER_BYTES, max(1, ceiling.limit // _WORKER_BYTES)
    if n_workers > _FEW_WORKERS and least > ceiling.limit:
        raise CeilingExceeded(
            f"n_workers={n_workers} hold {approximate_bytes(least)} before any data, and the "
            f"memory ceiling is {ceiling}; start at most {most:,}, or raise it"
        )


def workers_within(ceiling: Ceiling, *, kernels: bool, other_bytes: int = 0) -> int:
    """Return how many workers to start where nobody says: one a core, if the ceiling has the room.

    A rule of thumb, so that none are started for nothing on a machine of many cores; the plan then
    says how many stay. It changes no result.

    Parameters
    ----------
    ceiling : Ceiling
        Of the command line and all that it starts.
    kernels : bool
        Whether workers load the compiled kernels.
    other_bytes : int
        Bytes that the calling process holds for other purposes than training.
    """
    each = _KERNEL_WORKER_BYTES if kernels else _WORKER_BYTES
    room = ceiling.most - (_DRIVER_BYTES if ceiling.whole_process else _GROWTH_BYTES) - other_bytes
    cores: int = dask.system.CPU_COUNT
    return max(1, min(cores, room // each))


@contextmanager
def waiting_for_workers(seconds: float | None) -> Iterator[None]:
    """Have runs within wait so long for a cluster that has no worker; None is as it was."""
    with dask.config.set({} if seconds is None else {WORKER_TIMEOUT: seconds}):
        yield


def connect(address: str) -> Client:
    """Return a client of a cluster that runs already.

    Raises
    ------
    ClusterError
        where none answers at the address.
    """
    before = dask.config.get("scheduler", None)
    try:
        return Client(address, security=security_for(address), timeout=_CONNECT_SECONDS)
    except (OSError, ValueError, TypeError) as error:
        if before is None:
            # A client that fails as it is made has told Dask to run everything on it all the same.
            dask.config.config.pop("scheduler", None)
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


@contextmanager
def _without_interrupt() -> Iterator[None]:
    """Have what is started here not interrupted: threads and processes inherit what is blocked.

    Ctrl-C reaches every process of the terminal, and so does its end. Both are for the calling one,
    which ends the others, perhaps after a step that they are still needed for; workers would each
    print where they were. What comes meanwhile waits.
    """
    # Its first start unblocks the signal again in the thread that happens to start it.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_lock = threading.Lock()
_private: tuple[distributed.LocalCluster, Client] | None = None
_made: "weakref.WeakSet[distributed.LocalCluster]" = weakref.WeakSet()
_inherited: list[Any] = []
"""Clusters and clients of the process that this one was forked from: kept, so that nothing here
closes what is the other's, and never used. Their threads are not here, and to ask them would hang.
"""


@after_fork
def _leave_to_the_parent() -> None:
    """Have a forked process begin without a cluster."""
    global _lock, _private
    _lock = threading.Lock()
    _inherited.extend(each for each in (_private, _active_client()) if each is not None)
    _private = None
    for cluster in list(_made):  # which distributed would close at exit, and wait for
        cluster.shutdown_on_close = False
        _inherited.append(cluster)
        # Folders and processes that are the other's to remove.
        for server in (cluster.scheduler, *cluster.workers.values()):
            process = getattr(getattr(server, "process", None), "process", None)
            for owner, name in (
                (getattr(server, "_workdir", None), "_finalizer"),
                (process, "_proc_finalizer"),
            ):
                if (finalizer := getattr(owner, name, None)) is not None:
                    finalizer.detach()


def private_client() -> Client:
    """Return the client of the cluster inside this process, which is started by the first call."""
    global _private
    with _lock:
        if _private is None:
            require_inside()
            with dask.config.set(_LEAN), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Port .* is already in use")
                cluster = GuardedCluster(
                    security=True,
                    processes=False,
                    n_workers=1,
                    threads_per_worker=dask.system.CPU_COUNT,
                    dashboard_address="127.0.0.1:0",
                    memory_limit=0,
                )
            _made.add(cluster)
            _private = cluster, Client(cluster, set_as_default=False)
            atexit.register(_close_private)
        return _private[1]


def _close_private() -> None:
    if _private is not None:
        cluster, client = _private
        client.close()
        cluster.close()


def inside_another_job() -> bool:
    """Return whether this is a Dask task, or a process that another started to work for it."""
    if multiprocessing.parent_process() is not None:
        return True
    try:
        get_worker()
    except ValueError:
        return False
    return True


def _active_client() -> Client | None:
    """Return the client of ``with client.as_current()``, else the one that was made last.

    But none that this process was forked with.
    """
    try:
        client: Client = Client.current()
    except ValueError:
        return None
    return None if any(client is each for each in _inherited) else client


def _require_here(client: Client) -> None:
    """Refuse a client whose threads are in the process that this one was forked from."""
    if not is_forked():
        return
    answered = threading.Event()
    client.loop.add_callback(answered.set)
    if not answered.wait(_ANSWER_SECONDS):
        raise ClusterError(
            "the client belongs to the process that this one was forked from; connect one here: "
            f"Client({client.scheduler.address!r})"
        )


def _waiting_client(client: Client | None) -> Client:
    """Return the client, else the active one, else that of our own cluster; never one to await."""
    client = client or _active_client() or private_client()
    _require_here(client)
    if client.asynchronous:
        raise ClusterError(
            "the client is asynchronous, and a fit waits; give it a synchronous one, as "
            "Client(address) makes"
        )
    return client


def choose_executor(source: Source, client: Client | None = None) -> Executor:
    """Return what runs the passes over a source.

    Raises
    ------
    ClusterError
        where the client is asynchronous, closed, or has no workers, or its scheduler is gone.
    """
    if client is None and (isinstance(source, ArraySource) or inside_another_job()):
        return Inline()
    if client is None and _inherited and _active_client() is None:
        # Dask's pools of threads were forked too, without the threads: a cluster would hang.
        return Inline()
    client = _waiting_client(client)
    if isinstance(source, ArraySource):
        return Inline()
    require_scheduler(client)
    seconds = worker_timeout(client)
    try:
        client.wait_for_workers(1, timeout=seconds)
    except TimeoutError:
        raise ClusterError(
            f"the cluster at {client.scheduler.address} has no workers, and none came within "
            f"{seconds:g} s; start some and run again, or set a longer worker_timeout"
        ) from None
    return OnDask(client)


def dashboard_link(executor: Executor) -> str | None:
    """Return the address of the dashboard on which the passes can be watched, if there is one."""
    if isinstance(executor, OnDask):
        link: str | None = executor.client.dashboard_link
        if link and executor.client.scheduler.address.startswith("inproc://"):
            # distributed names the machine's own address, where our cluster does not listen.
            parts = urlsplit(link)
            return f"http://127.0.0.1:{parts.port}{parts.path}"
        return link
    return None


def training_link(client: Client | None = None) -> str | None:
    """Return the address of a cluster's Training page, which is there from now on.

    Parameters
    ----------
    client : Client or None
        The Dask client of the cluster, or None for the active one, or our own.

    Returns
    -------
    str or None
        None where the scheduler serves no dashboard, or does not answer.

    Raises
    ------
    ClusterError
        where the client is asynchronous.
    """
    # Workers import this file too, and show no page.
    from ooc_train.monitoring.driver import TrainingPage

    client = _waiting_client(client)
    with TrainingPage(client, dashboard_link(OnDask(client)), measure) as page:
        return page.link
