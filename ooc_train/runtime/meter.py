"""A meter of the memory of a job's processes, before and during the job, and its limits."""

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import dask

from ooc_train.core.text import counted
from ooc_train.core.threads import load_blas
from ooc_train.kernels.calling import load as load_kernels
from ooc_train.kernels.calling import missing as missing_kernels
from ooc_train.kernels.machine_code import folder, use_folder
from ooc_train.kernels.specs import KernelSpec
from ooc_train.memory import rlimit
from ooc_train.memory.ceiling import HALF, Ceiling
from ooc_train.memory.processes import ProcessMemory, held_by, measure, measure_tree, pid_namespace
from ooc_train.monitoring.dashboard.run_series import WORKER_METRIC, process_name
from ooc_train.runtime.cluster import LocalCluster
from ooc_train.runtime.guarded_cluster import SHOWN_LIMIT
from ooc_train.stream.baseline import Processes
from ooc_train.stream.cluster_waits import ask_workers, wait_for_all_workers
from ooc_train.stream.dask_executor import DaskExecutor
from ooc_train.stream.executors import Executor, LocalExecutor

_SAMPLES_TO_REFRESH = 64
"""Every so many samples, the shared pages are measured anew: 10 ms for each process."""

_SAMPLES_TO_FIND = 16
"""Every so many samples, the successor of an ended worker is searched."""

_HEARTBEAT_SECONDS = 1.0
"""Least time between measurements of a worker, which take 2 ms."""


Needs = Mapping[str, Sequence[KernelSpec]]
"""Compiled kernels that tasks call, by the type of X."""

OnCompile = Callable[[tuple[str, ...], bool], None]
"""Receives the names of kernels before they are compiled, and whether later runs find them."""


def default_ceiling(executor: Executor, memory_ceiling: str | int | Ceiling | None) -> Ceiling:
    """Return a job's ceiling: the given one, its cluster's, or half of the available memory.

    A `Ceiling` was decided before anything started. For a cluster of others, the ceiling is the sum
    of the workers' limits, if all have one.
    """
    decided = Ceiling.of(memory_ceiling)
    if decided.source == HALF and not decided.whole_process and isinstance(executor, DaskExecutor):
        ceiling = getattr(executor.client.cluster, "memory_ceiling", None)
        if ceiling is not None:
            return Ceiling.of(replace(ceiling, source="the cluster's"))
        client = executor.client
        limits = ask_workers(client, lambda: client.run(_own_limit)).values()
        if limits and all(limits):
            return Ceiling(sum(limits), "its workers' limits")
    return decided


def _own_limit(dask_worker: Any) -> int:
    """Return the bytes at which Dask itself pauses or ends a worker; 0 without a limit.

    A worker inside this process is under this process's ceiling. A worker of our own clusters has a
    limit that is only shown: its share of the ceiling.
    """
    if dask.config.get(SHOWN_LIMIT, False):
        return 0
    memory = getattr(dask_worker, "memory_manager", None)
    limit = getattr(memory, "memory_limit", None)
    if not limit or dask_worker.nanny is None:
        return 0
    # Dask's limit for spilling is irrelevant: it can't spill anything of a run.
    share = getattr(memory, "memory_pause_fraction", None) or 1.0
    return int(share * limit)


class _Heartbeat:
    """A worker's metric that reports the memory of its process with each heartbeat."""

    def __init__(self) -> None:
        self._reported, self._at = ("", 0, 0), 0.0

    def __call__(self, worker: object) -> tuple[str, int, int]:
        """Return the process, its current bytes and its peak bytes."""
        del worker
        if perf_counter() - self._at > _HEARTBEAT_SECONDS:
            memory = measure()
            self._reported = process_name(memory.pid), memory.current, memory.peak
            self._at = perf_counter()
        return self._reported


class _Prepared(NamedTuple):
    """A prepared process: its memory, its pid namespace, Dask's limit for it, and notes."""

    memory: ProcessMemory
    namespace: str
    limit: int
    notes: tuple[str, ...]


def _missing(needs: Needs, code: str) -> dict[str, bool]:
    """Return the kernels that `_prepare` would compile here, and whether later runs find them."""
    use_folder(code)
    found = [missing_kernels(dtype, specs) for dtype, specs in needs.items()]
    return {str(spec): kept for each in found for spec, kept in each.items()}


def _announce(missing: Sequence[Mapping[str, bool]], on_compile: OnCompile) -> None:
    """Call `on_compile` with the kernels that some process is about to compile, each once."""
    if any(missing):
        names = dict.fromkeys(name for each in missing for name in each)
        on_compile(tuple(names), all(kept for each in missing for kept in each.values()))


def _prepare(
    needs: Needs, code: str | None, loads: Sequence[Callable[[], None]], dask_worker: Any = None
) -> _Prepared:
    """Load what tasks will need; kernels come from the folder `code`, if it is not None.

    Dask passes the worker that runs this. From then on its heartbeats report its memory.
    """
    if dask_worker is not None:
        dask_worker.metrics.setdefault(WORKER_METRIC, _Heartbeat())
    notes: tuple[str, ...] = ()
    if code is not None:
        use_folder(code)
        notes = tuple(filter(None, (load_kernels(dtype, specs) for dtype, specs in needs.items())))
    for load in loads:
        load()
    load_blas()
    limit = 0 if dask_worker is None else _own_limit(dask_worker)
    return _Prepared(measure(), pid_namespace(), limit, notes)


class Meter:
    """The meter of a job's processes: measures and limits their memory.

    Parameters
    ----------
    executor : Executor
        Executor of the passes.
    whole : bool
        Whether the whole calling process counts with its children, or only its growth.
    before : int
        Bytes that the calling process held when the job began.

    Attributes
    ----------
    notes : list of str
        Remarks on the figures.
    """

    def __init__(self, executor: Executor, *, whole: bool, before: int) -> None:
        self._client = executor.client if isinstance(executor, DaskExecutor) else None
        self._threads = executor.threads if isinstance(executor, LocalExecutor) else 1
        self._direct = executor.direct if isinstance(executor, DaskExecutor) else True
        self._whole = whole
        self._at_start = self._before = before
        self._watched: dict[int, tuple[str, int]] = {}
        self._ended: list[str] = []
        self._samples = 0
        self._others = 0
        self.notes: list[str] = []
        self._job = secrets.token_hex(8)
        # Processes of other clusters may have other tasks and limits: leave them alone.
        ours = self._client is not None and isinstance(self._client.cluster, LocalCluster)
        self._limited = self._client if ours else None

    def count(self, copies: int) -> None:
        """Count bytes as the job's that the calling process held for it when it began."""
        self._before = self._at_start - copies

    def limit(self, growth: int) -> None:
        """Set limits on our workers, so that the system refuses much more than their growth."""
        if self._limited is not None:
            client = self._limited
            ask_workers(client, lambda: client.run(rlimit.allow, self._job, growth))

    def lift(self) -> None:
        """Restore the earlier limits of the workers."""
        if self._limited is not None and self._limited.status == "running":
            self._limited.run(rlimit.lift, self._job, on_error="ignore")

    def prepare(
        self,
        needs: Needs,
        on_compile: OnCompile = lambda *_: None,
        loads: Sequence[Callable[[], None]] = (),
    ) -> Processes:
        """Load what tasks need in every process; return the memory that all processes hold."""
        code = folder() if any(needs.values()) else None
        if self._client is None:
            if code is not None:
                _announce([_missing(needs, code)], on_compile)
            self._add_notes(_prepare(needs, code, loads))
            calling = self._calling([])
            self._watch(calling, [])
            return Processes(calling.peak, (), self._threads)
        client = self._client
        wait_for_all_workers(client)

        def ask() -> tuple[Mapping[str, int], Mapping[str, _Prepared], Mapping[str, _Prepared]]:
            # Not `scheduler_info`: its smaller answer to a heartbeat may replace this one.
            threads = client.nthreads()
            if not threads:
                raise OSError("the last worker was lost")
            first: Mapping[str, _Prepared] = {}
            missing = {} if code is None else client.run(_missing, needs, code)
            # On each machine one first: it compiles, and the others find the code in the cache.
            if first_at := {urlsplit(at).hostname: at for at, each in missing.items() if each}:
                _announce(list(missing.values()), on_compile)
                first = client.run(_prepare, needs, code, loads, workers=list(first_at.values()))
            return threads, first, client.run(_prepare, needs, code, loads)

        threads, first, prepared = ask_workers(client, ask)
        self._add_notes(*first.values(), *prepared.values())
        held = {at: found.memory for at, found in prepared.items()}
        calling = self._calling([memory.pid for memory in held.values()])
        here = pid_namespace()
        self._watch(
            calling,
            [found.memory if found.namespace == here else None for found in prepared.values()],
        )
        apart = [at for at, memory in held.items() if memory.pid != os.getpid()]
        if apart and self._limited is None:
            self.notes.append(
                "the workers belong to another cluster: their memory is planned and measured, but "
                "not limited by the operating system"
            )
        known = [calling, *(m for m in held.values() if m.pid != os.getpid())]
        return Processes(
            calling.peak,
            tuple((held[at].peak, threads.get(at, 1)) for at in apart),
            sum(threads.values()),
            # All processes map the same libraries; the largest mapping has nearly all of them.
            max(0, max(m.mapped for m in known) - sum(m.share for m in known)),
            tuple(prepared[at].limit for at in apart),
            self._direct,
        )

    def _add_notes(self, *prepared: _Prepared) -> None:
        # All processes say the same of kernels that plain NumPy replaces.
        notes = dict.fromkeys(note for found in prepared for note in found.notes)
        self.notes += [note for note in notes if note not in self.notes]

    def measured(self) -> list[ProcessMemory]:
        """Return the memory of every process with its peak, the calling process first."""
        found: list[ProcessMemory] = []
        if self._client is not None:
            client = self._client
            measured = ask_workers(client, lambda: client.run(measure))
            found = [m for m in measured.values() if m.pid != os.getpid()]
        workers = [replace(memory, name=f"worker {i}") for i, memory in enumerate(found)]
        return [self._calling([memory.pid for memory in found]), *workers]

    def _watch(self, own: ProcessMemory, workers: Sequence[ProcessMemory | None]) -> None:
        """Register the processes that `now` measures; None is a worker on another machine."""
        self._watched = {own.pid: ("driver", own.share)}
        apart = [memory for memory in workers if memory is None or memory.pid != own.pid]
        for i, memory in enumerate(apart):
            if memory is not None:
                self._watched[memory.pid] = (f"worker {i}", memory.share)
        if hidden := apart.count(None):
            self.notes.append(
                f"the timeline covers this machine only, without {hidden} of "
                f"{counted(len(apart), 'worker')}"
            )
        if self._whole:
            self._find()

    def _find(self) -> None:
        """Measure new children of this process too, such as the successor of an ended worker."""
        for memory in measure_tree():
            if memory.pid in self._watched:
                continue
            if memory.name == "worker" and self._ended:
                self._watched[memory.pid] = (self._ended.pop(0), memory.share)
            elif self._whole and memory.name != "worker":
                self._watched[memory.pid] = ("driver", memory.share)

    def now(self) -> dict[str, int]:
        """Return the current bytes of each process on this machine, by its name in `measured`."""
        # A single process has just been measured.
        refresh = self._samples % _SAMPLES_TO_REFRESH == 0 and len(self._watched) > 1
        self._samples += 1
        if self._ended and self._samples % _SAMPLES_TO_FIND == 0:
            self._find()
        found: dict[str, int] = {}
        for pid, (name, share) in list(self._watched.items()):
            try:
                if refresh:
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
        """Return the memory of the calling process and of its children other than `apart`."""
        own = replace(measure(), name="driver")
        if not self._whole:
            return replace(own, peak=max(0, own.peak - self._before))
        others = [m for m in measure_tree() if m.pid not in (own.pid, *apart)]
        self._others = sum(memory.peak for memory in others)
        return replace(own, peak=own.peak + self._others)

    def calling(self) -> ProcessMemory:
        """Return the memory of the calling process; children count as in `prepare`."""
        own = replace(measure(), name="driver")
        less = -self._others if self._whole else self._before
        return replace(own, current=max(0, own.current - less), peak=max(0, own.peak - less))
