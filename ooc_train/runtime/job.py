"""A job on rows: its executor, its plan, and its measured memory.

Training, evaluation and prediction share these steps: choose an executor, let all processes load
what they need, measure them, plan, refuse a plan that does not fit, and only then read.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any, Self

from ooc_train.core.temporary_folders import in_scratch
from ooc_train.core.units import approximate_bytes
from ooc_train.errors import CeilingExceeded
from ooc_train.kernels.specs import KernelSpec
from ooc_train.memory.budget import PeakWatch
from ooc_train.memory.ceiling import Ceiling
from ooc_train.memory.measured import MemoryReport
from ooc_train.memory.processes import ProcessMemory
from ooc_train.memory.rlimit import SLACK
from ooc_train.memory.timeline import MemoryTimeline, Sampler
from ooc_train.runtime.clients import choose_executor, dashboard_link
from ooc_train.runtime.cluster import LocalCluster
from ooc_train.runtime.meter import Meter, OnCompile, default_ceiling
from ooc_train.stream.array_source import ArraySource
from ooc_train.stream.baseline import Processes
from ooc_train.stream.cluster_waits import ask_workers
from ooc_train.stream.dask_executor import DaskExecutor
from ooc_train.stream.dask_source import DaskSource
from ooc_train.stream.executors import LocalExecutor
from ooc_train.stream.passes import Stream
from ooc_train.stream.plan import Plan
from ooc_train.stream.plan_choices import make_plan
from ooc_train.stream.requirements import Requirements
from ooc_train.stream.sources import Source
from ooc_train.stream.store_source import StoreSource


class Job:
    """A context manager of one job, from planning to the measured peak memory.

    Parameters
    ----------
    source : Source
        The rows.
    client : distributed.Client or None
        The Dask client to use; None is the active client, else the private one.
    memory_ceiling : str, int, Ceiling or None
        The ceiling; None is the cluster's ceiling, else half of the available memory.
    local : bool
        Whether threads of this process do all work, whatever client there is.

    Attributes
    ----------
    client : distributed.Client or None
        Client of the job.
    dashboard : str or None
        Address of its dashboard.

    Raises
    ------
    ClusterError
        If there is no usable cluster.
    ValueError
        If the ceiling is no number of bytes, or exceeds the machine's memory.
    """

    def __init__(
        self,
        source: Source,
        *,
        client: Any = None,
        memory_ceiling: str | int | Ceiling | None = None,
        local: bool = False,
    ) -> None:
        self._begun = perf_counter()
        self._sampler: Sampler | None = None
        self.source = source
        # Before a cluster starts and takes available memory.
        memory_ceiling = Ceiling.of(memory_ceiling)
        self._executor = choose_executor(source, client, local=local)
        self.ceiling = default_ceiling(self._executor, memory_ceiling)
        self.dashboard = dashboard_link(self._executor)
        self.client = self._executor.client if isinstance(self._executor, DaskExecutor) else None
        self._watch = PeakWatch(whole_process=self.ceiling.whole_process)
        self._is_limited = True
        self._running_plan: Plan | None = None
        self._released = 0

    def __enter__(self) -> Self:
        self._watch.__enter__()
        self._meter = Meter(
            self._executor, whole=self.ceiling.whole_process, before=self._watch.before
        )
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self._sampler is not None:
            self._sampler.stop()
        self._watch.__exit__()
        plan, self._running_plan = self._running_plan, None
        if plan is None:
            return
        self._meter.lift()
        if isinstance(error, MemoryError) and not isinstance(error, CeilingExceeded):
            raise CeilingExceeded(
                f"a process was refused memory ({error}), beyond the plan and "
                f"{approximate_bytes(SLACK)} of slack; a model or source of your own has to state "
                f"all its memory in `workspace`, otherwise this is a fault of ooc_train\n"
                f"{plan.explain()}"
            ) from error

    def plan(
        self,
        requirements: Requirements,
        validation: tuple[Source, Requirements] | None = None,
        on_compile: OnCompile = lambda *_: None,
    ) -> Plan:
        """Return the memory plan of passes with these requirements; no row is read.

        The memory of the processes is measured after they have loaded what the job needs. If the
        plan does not fit, a cluster that chose its number of workers ends some of them.
        `on_compile` is called before kernels are compiled; it is not called if every process finds
        them in its cache.
        """
        processes = self._processes(requirements, validation, on_compile)
        ceiling = self.ceiling.with_copies(processes.copies)
        plan = make_plan(self.source, requirements, ceiling, processes, validation)
        while not plan.fits and (most := self._release_workers(0)):
            fewer = [
                make_plan(self.source, requirements, ceiling, processes.without(n), validation)
                for n in range(1, most + 1)
            ]
            fits = [each.fits for each in fewer]
            if True not in fits:
                return fewer[-1]
            ended = fits.index(True) + 1
            self._release_workers(ended)
            self._released += ended
            processes = self._processes(requirements, validation, on_compile)
            plan = make_plan(self.source, requirements, ceiling, processes, validation)
        return plan

    def _release_workers(self, n: int) -> int:
        """End `n` workers of our own cluster; return how many more could end."""
        cluster = getattr(self.client, "cluster", None)
        if not isinstance(cluster, LocalCluster):
            return 0
        return cluster.release_workers(n)

    def _processes(
        self,
        requirements: Requirements,
        validation: tuple[Source, Requirements] | None,
        on_compile: OnCompile,
    ) -> Processes:
        """Let the processes load what the job needs; return the memory that they hold."""
        jobs = [(self.source, requirements), *([] if validation is None else [validation])]
        sources = [source for source, _ in jobs]
        needs: dict[str, tuple[KernelSpec, ...]] = {}
        for source, required in jobs:
            needs[source.dtype] = (*needs.get(source.dtype, ()), *required.needs)
        loads = tuple(dict.fromkeys(load for _, required in jobs for load in required.loads))
        copies = sum(source.copied for source in sources if isinstance(source, ArraySource))
        self._meter.count(copies)
        processes = replace(self._meter.prepare(needs, on_compile, loads), copies=copies)
        for source in sources:
            self._require_reach(source)
        if any(isinstance(source, DaskSource) for source in sources):
            # Their own graph is not planned: a limit would refuse what it needs, with much left
            # under the ceiling, and Dask would wait for ever for blocks that it could not fetch.
            self._is_limited = False
            note = (
                "the ceiling excludes the memory of the Dask arrays' own graph; write them to a "
                "store to include it"
            )
            self._watch.notes += [] if note in self._watch.notes else [note]
        return processes

    def _require_reach(self, source: Source) -> None:
        """Refuse temporary arrays on this machine that some worker can't read."""
        if self.client is None or not isinstance(source, StoreSource):
            return
        for layout in (source.y, source.weight):
            if layout is None or not in_scratch(layout.path):
                continue
            client, path = self.client, layout.path
            if not all(ask_workers(client, partial(client.run, os.path.isdir, path)).values()):
                raise ValueError(
                    f"{layout.name} was passed in memory and lies in a temporary folder of this "
                    f"machine, {layout.path}, which not all workers can read; write it next to X "
                    "and pass its path"
                )

    def stream(
        self,
        plan: Plan,
        on_rows: Callable[[int], None] = lambda _: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Stream:
        """Return the stream that runs passes over the rows under a plan.

        Raises
        ------
        CeilingExceeded
            If the plan does not fit.
        """
        plan.validate()
        if self._running_plan is None:
            if self._is_limited:
                self._meter.limit(plan.growth)
            self._running_plan = plan
            self._sampler = sampler = Sampler(self._meter.now, self._begun)
            if isinstance(self._executor, DaskExecutor):
                self._executor.held = lambda: (sampler.most, plan.ceiling.limit)
            self._sampler.start()
        return Stream(self.source, self._executor, plan.config, on_rows, stopped)

    def validation_stream(
        self, source: Source, plan: Plan, on_rows: Callable[[int], None]
    ) -> Stream:
        """Return the stream that runs passes over the validation rows of a plan.

        Raises
        ------
        ValueError
            If the plan has none.
        """
        if plan.validation is None:
            raise ValueError("the plan has no validation rows")
        # Arrays of this process go to no other.
        config, executor = plan.validation, self._executor
        if isinstance(source, ArraySource):
            executor = LocalExecutor(config.threads)
        return Stream(source, executor, config, on_rows)

    def calling(self) -> ProcessMemory:
        """Return the memory of the calling process, as far as it counts."""
        return self._meter.calling()

    def memory(self, plan: Plan, *, ended: bool = True) -> MemoryReport:
        """Return the memory report: ceiling, projected bytes and measured peaks.

        The timeline is that of a job that has ended.
        """
        # Stop first: the timeline is that of the job alone.
        sampler = self._sampler if ended else None
        timeline = MemoryTimeline() if sampler is None else sampler.stop()
        processes = tuple(self._meter.measured())
        notes = [*self._watch.notes, *self._meter.notes]
        if self._released:
            workers = "a worker was" if self._released == 1 else f"{self._released} workers were"
            notes.append(
                f"{workers} ended before the run, because the ceiling is too small for them"
            )
        if isinstance(self._executor, DaskExecutor) and self._executor.ended:
            notes.append(
                f"{self._executor.ended}; other workers took over; the measured memory excludes "
                "those that ended"
            )
        notes += {process.note for process in processes if process.note}
        return MemoryReport(
            ceiling=plan.ceiling.limit,
            baseline=plan.processes.baseline,
            projected=plan.projected,
            measured=sum(process.peak for process in processes),
            processes=processes,
            terms={term.name: term.bytes for term in plan.projection.terms},
            ceiling_source=plan.ceiling.source,
            notes=tuple(notes),
            timeline=timeline,
        )
