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
import secrets
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import resource_tracker
from time import perf_counter
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import dask
import distributed
from distributed import Client, get_worker

from ooc_train import backstop
from ooc_train.errors import ClusterError, MissingMainGuard
from ooc_train.memory import Ceiling, ProcessMemory, held_by, measure, measure_tree, pid_space
from ooc_train.models.kernels import load as load_kernels
from ooc_train.models.machine_code import folder, use_folder
from ooc_train.stream.executors import Executor, Inline, OnDask
from ooc_train.stream.plan import Processes
from ooc_train.stream.sources import ArraySource, Source
from ooc_train.threads import load_blas
from ooc_train.watching.dashboard.runs import WORKER_METRIC, process_name

DASHBOARD = "127.0.0.1:8787"
"""Where the dashboard listens unless told otherwise: this machine only."""

_DRIVER_BYTES = 140 * 2**20
_WORKER_BYTES = 80 * 2**20
_KERNEL_WORKER_BYTES = 112 * 2**20
"""What the command line, and a worker without and with compiled kernels, come to with their buffers
(measured by plans for 1 to 8 workers; the first holds more, by libraries that the others share,
which is in the driver's figure)."""

_NO_GUARD_EXIT = 78
"""Exit status of a worker that found itself importing the script that is starting it."""

_START_SECONDS = 60.0
_CONNECT_SECONDS = 10.0

_LOOKS_TO_SEARCH = 64
"""One in so many looks at the memory is thorough: it walks through all pages of each process, which
takes some 10 ms each."""

_LOOKS_TO_FIND = 16
"""And so often the successor of a worker that has ended is looked for."""

_HEARTBEAT_SECONDS = 1.0
"""So often a worker measures itself, which takes 2 ms."""

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


class LocalCluster(distributed.LocalCluster):  # type: ignore[misc] # untyped base
    """A Dask cluster of lean processes on this machine, with a memory ceiling for what runs on it.

    Parameters
    ----------
    memory_ceiling : bytes or text such as "1GiB", or None for half of what is available
        What workers, scheduler and the growth of this process may hold together.
    n_workers : processes; the number of cores unless given
    threads_per_worker : one, unless given: threads of one process wait for each other
    dashboard_address : where the dashboard listens; this machine's port 8787 unless it is taken

    Raises
    ------
    MissingMainGuard
        where the script that starts it lacks ``if __name__ == "__main__":``.
    ClusterError
        where the workers could not be started.
    """

    def __init__(
        self,
        *,
        memory_ceiling: str | int | Ceiling | None = None,
        n_workers: int | None = None,
        threads_per_worker: int = 1,
        dashboard_address: str = DASHBOARD,
    ) -> None:
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            # This is a worker importing the script that starts it. Say nothing: its parent will.
            os._exit(_NO_GUARD_EXIT)
        if not isinstance(memory_ceiling, Ceiling):
            memory_ceiling = Ceiling.of(memory_ceiling)
        self.memory_ceiling = memory_ceiling
        with dask.config.set(_LEAN), warnings.catch_warnings(), _quiet(), _without_interrupt():
            warnings.filterwarnings("ignore", message="Port .* is already in use")
            try:
                super().__init__(
                    n_workers=n_workers or dask.system.CPU_COUNT,
                    threads_per_worker=threads_per_worker,
                    processes=True,
                    host="127.0.0.1",
                    dashboard_address=dashboard_address,
                    worker_dashboard_address="127.0.0.1:0",
                    memory_limit=0,
                    # Our errors reach the driver as values; what is left to log is of processes
                    # that end while others still talk to them, at Ctrl-C and at every close.
                    silence_logs=logging.CRITICAL,
                )
            except RuntimeError as error:
                raise _why_not_started(error) from None

    def get_client(self) -> Client:
        """Return a client, as lean as the processes."""
        with dask.config.set(_LEAN):
            return super().get_client()

    @property
    def training_link(self) -> str | None:
        """The address of the Training page, which is there before any run; None without one."""
        with dask.config.set(_LEAN), Client(self, set_as_default=False) as client:
            return training_link(client)


def workers_within(ceiling: Ceiling, *, kernels: bool, beside: int = 0) -> int:
    """Return how many workers to start where nobody says: one a core, if the ceiling has the room.

    A rule of thumb, so that a small ceiling does not fail on a machine of many cores; whether it is
    kept is the plan's to say. It changes no result.

    Parameters
    ----------
    ceiling : Ceiling
        Of the command line and all that it starts.
    kernels : bool
        Whether workers load the compiled kernels.
    beside : int
        Bytes that the calling process holds beside what training needs.
    """
    each = _KERNEL_WORKER_BYTES if kernels else _WORKER_BYTES
    room = ceiling.limit - _DRIVER_BYTES - beside
    cores: int = dask.system.CPU_COUNT
    return max(1, min(cores, room // each))


def _why_not_started(error: RuntimeError) -> ClusterError:
    main = sys.modules["__main__"]
    script = getattr(main, "__file__", None)
    if script is not None and getattr(main, "__spec__", None) is None:
        return MissingMainGuard(
            f"{os.path.basename(script)} starts processes: put what it does under "
            'if __name__ == "__main__": (the workers could not be started)'
        )
    return ClusterError(f"the workers could not be started: {error}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what distributed logs of processes that end while they start."""
    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def connect(address: str) -> Client:
    """Return a client of a cluster that runs already.

    Raises
    ------
    ClusterError
        where none answers at the address.
    """
    try:
        return Client(address, timeout=_CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"no cluster answers at {address} ({error}); give the address of a Dask scheduler, "
            "such as tcp://127.0.0.1:8786"
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


def private_client() -> Client:
    """Return the client of the cluster inside this process, which is started by the first call."""
    global _private
    with _lock:
        if _private is None:
            with dask.config.set(_LEAN), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Port .* is already in use")
                cluster = distributed.LocalCluster(
                    n_workers=1,
                    threads_per_worker=dask.system.CPU_COUNT,
                    processes=False,
                    dashboard_address="127.0.0.1:0",
                    worker_dashboard_address="127.0.0.1:0",
                    memory_limit=0,
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
    """Return whether this is a Dask task, or a process that another started to work for it."""
    if multiprocessing.parent_process() is not None:
        return True
    try:
        get_worker()
    except ValueError:
        return False
    return True


def _active_client() -> Client | None:
    """Return the client of ``with client.as_current()``, else the one that was made last."""
    try:
        return Client.current()
    except ValueError:
        return None


def _waiting_client(client: Client | None) -> Client:
    """Return the client, else the active one, else that of our own cluster; never one to await."""
    client = client or _active_client() or private_client()
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
        where the client is asynchronous, closed, or has no workers.
    """
    if client is None and (isinstance(source, ArraySource) or inside_another_job()):
        return Inline()
    client = _waiting_client(client)
    if isinstance(source, ArraySource):
        return Inline()
    try:
        client.wait_for_workers(1, timeout=_START_SECONDS)
    except TimeoutError:
        raise ClusterError(
            f"the cluster at {client.scheduler.address} has no workers; start some and run again"
        ) from None
    return OnDask(client)


def default_ceiling(executor: Executor, memory_ceiling: str | int | Ceiling | None) -> Ceiling:
    """Return the ceiling of a job: as given, else its cluster's, else half of what is available.

    That of a cluster which others started is what its workers may hold, if all have limits.
    """
    if isinstance(memory_ceiling, Ceiling):
        return memory_ceiling
    if memory_ceiling is None and isinstance(executor, OnDask):
        ceiling = getattr(executor.client.cluster, "memory_ceiling", None)
        if ceiling is not None:
            return Ceiling(ceiling.limit, "the cluster's", ceiling.whole)
        limits = executor.client.run(_own_limit).values()
        if limits and all(limits):
            return Ceiling(sum(limits), "its workers' limits")
    return Ceiling.of(memory_ceiling)


def _own_limit(dask_worker: Any) -> int:
    """Return the bytes that a worker may hold before Dask pauses or ends it, 0 for no limit.

    One that lives in this process is under this process's ceiling.
    """
    memory = getattr(dask_worker, "memory_manager", None)
    limit = getattr(memory, "memory_limit", None)
    if not limit or dask_worker.nanny is None:
        return 0
    # Spilling is no business of ours: nothing of a run's is what Dask could spill.
    share = getattr(memory, "memory_pause_fraction", None) or 1.0
    return int(share * limit)


def dashboard_link(executor: Executor) -> str | None:
    """Return the address of the dashboard on which the passes can be watched, if there is one."""
    if isinstance(executor, OnDask):
        link: str | None = executor.client.dashboard_link
        if link and executor.client.scheduler.address.startswith("inproc://"):
            # distributed names the machine's own address, where our cluster does not listen.
            return f"http://127.0.0.1:{urlsplit(link).port}/status"
        return link
    return None


def training_link(client: Client | None = None) -> str | None:
    """Return the address of a cluster's Training page, which is there from now on.

    Parameters
    ----------
    client : the Dask client of the cluster, or None for the active one, or our own

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
    from ooc_train.watching.driver import TrainingPage

    client = _waiting_client(client)
    with TrainingPage(client, dashboard_link(OnDask(client)), measure) as page:
        return page.link


class _Heartbeat:
    """Tells with the heartbeats of a worker what its process holds, measured now and then."""

    def __init__(self) -> None:
        self._told, self._at = ("", 0, 0), 0.0

    def __call__(self, worker: object) -> tuple[str, int, int]:
        """Return the process, the bytes that it holds, and the most that it held."""
        del worker
        if perf_counter() - self._at > _HEARTBEAT_SECONDS:
            memory = measure()
            self._told = process_name(memory.pid), memory.current, memory.peak
            self._at = perf_counter()
        return self._told


class _Prepared(NamedTuple):
    """What a process holds, where it lives, its own limit, and what it has to tell of."""

    memory: ProcessMemory
    space: str
    limit: int
    notes: tuple[str, ...]


def _prepare(*dtypes: str, code: str | None, dask_worker: Any = None) -> _Prepared:
    """Load what tasks will need: the kernels too, where it is said in which folder they may lie.

    Dask hands over the worker that it is run on; from then on that one tells what it holds.
    """
    if dask_worker is not None:
        dask_worker.metrics.setdefault(WORKER_METRIC, _Heartbeat())
    notes: tuple[str, ...] = ()
    if code is not None:
        use_folder(code)
        notes = tuple(filter(None, map(load_kernels, dtypes)))
    load_blas()
    limit = 0 if dask_worker is None else _own_limit(dask_worker)
    return _Prepared(measure(), pid_space(), limit, notes)


class Meter:
    """What the processes of a job hold, before and after.

    Parameters
    ----------
    executor : what runs the passes
    whole : whether all that the calling process and its children hold counts, or what it grew by
    before : bytes that the calling process held when the job began

    Attributes
    ----------
    notes : what a reader of the figures has to know
    """

    def __init__(self, executor: Executor, *, whole: bool, before: int) -> None:
        self._client = executor.client if isinstance(executor, OnDask) else None
        self._whole = whole
        self._before = before
        self._watched: dict[int, tuple[str, int]] = {}
        self._ended: list[str] = []
        self._looks = 0
        self._others = 0
        self.notes: list[str] = []
        self._job = secrets.token_hex(8)
        # Whoever started other processes knows what else runs there, and what limits they have.
        ours = self._client is not None and isinstance(self._client.cluster, LocalCluster)
        self._limited = self._client if ours else None

    def limit(self, growth: int) -> None:
        """Have the operating system refuse our workers much more than they are to grow by."""
        if self._limited is not None:
            self._limited.run(backstop.allow, self._job, growth)

    def lift(self) -> None:
        """Give workers back the limits that they had."""
        if self._limited is not None and self._limited.status == "running":
            self._limited.run(backstop.lift, self._job, on_error="ignore")

    def prepare(self, *dtypes: str, kernels: bool) -> Processes:
        """Load what tasks on these types need in every process; return what all then hold."""
        code = folder() if kernels else None
        if self._client is None:
            self._tell(_prepare(*dtypes, code=code))
            calling = self._calling([])
            self._watch(calling, [])
            return Processes(calling.peak, (), 1)
        # Not `scheduler_info`: a heartbeat's smaller answer may take the place of ours.
        threads: Mapping[str, int] = self._client.nthreads()
        if not threads:
            raise ClusterError(
                f"the cluster at {self._client.scheduler.address} has lost its workers; start some "
                "and run again"
            )
        # One first: where kernels have to be compiled, the others then find them in the cache.
        first = self._client.run(_prepare, *dtypes, code=code, workers=[next(iter(threads))])
        prepared: Mapping[str, _Prepared] = self._client.run(_prepare, *dtypes, code=code)
        self._tell(*first.values(), *prepared.values())
        held = {at: found.memory for at, found in prepared.items()}
        calling = self._calling([memory.pid for memory in held.values()])
        here = pid_space()
        self._watch(
            calling,
            [found.memory if found.space == here else None for found in prepared.values()],
        )
        apart = [at for at, memory in held.items() if memory.pid != os.getpid()]
        if apart and self._limited is None:
            self.notes.append(
                "the workers are others' to limit: what they hold is planned and measured, but the "
                "operating system was not asked to refuse them more"
            )
        known = [calling, *(m for m in held.values() if m.pid != os.getpid())]
        return Processes(
            calling.peak,
            tuple((held[at].peak, threads.get(at, 1)) for at in apart),
            sum(threads.values()),
            # All of our processes map the same libraries, so that the largest maps nearly all.
            max(0, max(m.mapped for m in known) - sum(m.share for m in known)),
            tuple(prepared[at].limit for at in apart),
        )

    def _tell(self, *prepared: _Prepared) -> None:
        self.notes += [note for found in prepared for note in found.notes]

    def measured(self) -> list[ProcessMemory]:
        """Return the peak of every process, the calling one's first, as what counts of it."""
        found: list[ProcessMemory] = []
        if self._client is not None:
            found = [m for m in self._client.run(measure).values() if m.pid != os.getpid()]
        workers = [replace(memory, name=f"worker {i}") for i, memory in enumerate(found)]
        return [self._calling([memory.pid for memory in found]), *workers]

    def _watch(self, own: ProcessMemory, workers: Sequence[ProcessMemory | None]) -> None:
        """Note the processes for `now`; None stands for a worker that is out of sight."""
        self._watched = {own.pid: ("driver", own.share)}
        apart = [memory for memory in workers if memory is None or memory.pid != own.pid]
        for i, memory in enumerate(apart):
            if memory is not None:
                self._watched[memory.pid] = (f"worker {i}", memory.share)
        if hidden := apart.count(None):
            self.notes.append(
                f"the timeline is of this machine: it leaves out {hidden} of {len(apart)} workers"
            )
        if self._whole:
            self._find()

    def _find(self) -> None:
        """Note the children of this process that are not known: a new worker after an old one."""
        for memory in measure_tree():
            if memory.pid in self._watched:
                continue
            if memory.name == "worker" and self._ended:
                self._watched[memory.pid] = (self._ended.pop(0), memory.share)
            elif self._whole and memory.name != "worker":
                self._watched[memory.pid] = ("driver", memory.share)

    def now(self) -> dict[str, int]:
        """Return the bytes that each process on this machine holds, by its name in `measured`."""
        # This process alone has just been looked at.
        thorough = self._looks % _LOOKS_TO_SEARCH == 0 and len(self._watched) > 1
        self._looks += 1
        if self._ended and self._looks % _LOOKS_TO_FIND == 0:
            self._find()
        found: dict[str, int] = {}
        for pid, (name, share) in list(self._watched.items()):
            try:
                if thorough:
                    share = measure(pid).share
                    self._watched[pid] = (name, share)
                now = held_by(pid, share)
            except OSError:
                del self._watched[pid]
                self._ended += [name] if name != "driver" else []
                continue
            if pid == os.getpid() and not self._whole:
                now = max(0, now - self._before)
            found[name] = found.get(name, 0) + now
        return found

    def _calling(self, apart: Sequence[int]) -> ProcessMemory:
        """Return what counts of the calling process, and of its children but those told apart."""
        own = replace(measure(), name="driver")
        if not self._whole:
            return replace(own, peak=max(0, own.peak - self._before))
        others = [m for m in measure_tree() if m.pid not in (own.pid, *apart)]
        self._others = sum(memory.peak for memory in others)
        return replace(own, peak=own.peak + self._others)

    def calling(self) -> ProcessMemory:
        """Return what counts of the calling process now; of its children, what they held before."""
        own = replace(measure(), name="driver")
        less = -self._others if self._whole else self._before
        return replace(own, current=max(0, own.current - less), peak=max(0, own.peak - less))
