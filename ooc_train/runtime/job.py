"""A job on rows, whatever it is for: what runs it, what it may hold, and what it held.

Training, evaluation and prediction all go the same way: choose what runs the passes, let every
process load what it needs, ask it what it holds, plan, refuse what cannot be kept, and only then
read.
"""

import os
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any, Self

from ooc_train.core.temporary_folders import in_scratch
from ooc_train.core.units import approximate_bytes
from ooc_train.errors import CeilingExceeded
from ooc_train.memory.budget import PeakWatch
from ooc_train.memory.ceiling import Ceiling
from ooc_train.memory.measured import MemoryReport
from ooc_train.memory.processes import ProcessMemory
from ooc_train.memory.rlimit import SLACK
from ooc_train.memory.timeline import MemoryTimeline, Sampler
from ooc_train.runtime.cluster import LocalCluster, choose_executor, dashboard_link
from ooc_train.runtime.meter import Meter, default_ceiling
from ooc_train.stream.dask_arrays import DaskSource
from ooc_train.stream.executors import Inline, OnDask, patiently
from ooc_train.stream.passes import Stream
from ooc_train.stream.plan import Plan, Processes, Requirements, make_plan
from ooc_train.stream.sources import ArraySource, Source, StoreSource


class Job:
    """One job, from planning to the measured peak; a context manager.

    `client` is the Dask client that it runs on, or None, and `dashboard` that one's address.

    Parameters
    ----------
    source : Source
        The rows.
    client : object
        The Dask client to run on, or None for the active one, or our own.
    memory_ceiling : str or int or Ceiling or None
        Bytes, text, a `Ceiling`, or None: the cluster's, else half of what is available.
    kernels : bool
        Whether tasks need the compiled kernels.

    Raises
    ------
    ClusterError
        where there is no cluster to run on.
    ValueError
        where the ceiling is no number of bytes, or more than the machine has.
    """

    def __init__(
        self,
        source: Source,
        *,
        client: Any = None,
        memory_ceiling: str | int | Ceiling | None = None,
        kernels: bool = False,
    ) -> None:
        self._begun = perf_counter()
        self._sampler: Sampler | None = None
        self.source = source
        self._kernels = kernels
        # Before anything is started, which takes of what is available.
        memory_ceiling = Ceiling.of(memory_ceiling)
        self._executor = choose_executor(source, client)
        self.ceiling = default_ceiling(self._executor, memory_ceiling)
        self.dashboard = dashboard_link(self._executor)
        self.client = self._executor.client if isinstance(self._executor, OnDask) else None
        self._watch = PeakWatch(whole_process=self.ceiling.whole_process)
        self._runs: Plan | None = None
        self._spared = 0

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
        plan, self._runs = self._runs, None
        if plan is None:
            return
        self._meter.lift()
        if isinstance(error, MemoryError) and not isinstance(error, CeilingExceeded):
            raise CeilingExceeded(
                f"a process was refused memory ({error}), beyond what the plan has room for and "
                f"{approximate_bytes(SLACK)} of slack; a model or source of your own has to state "
                f"all that it takes in `rooms`, otherwise this is a fault of ooc_train\n"
                f"{plan.explain()}"
            ) from error

    def plan(
        self, requirements: Requirements, beside: tuple[Source, Requirements] | None = None
    ) -> Plan:
        """Return the plan for requirements, and for one on other rows beside; nothing is read.

        What processes hold is asked of them, after they have loaded what the job needs. Where the
        plan does not fit, a cluster that chose its number of workers itself ends some of them.
        """
        processes = self._processes(beside)
        plan = make_plan(self.source, requirements, self.ceiling, processes, beside)
        while not plan.fits and (most := self._spare(0)):
            fewer = [
                make_plan(self.source, requirements, self.ceiling, processes.without(n), beside)
                for n in range(1, most + 1)
            ]
            fits = [each.fits for each in fewer]
            if True not in fits:
                return fewer[-1]
            ended = fits.index(True) + 1
            self._spare(ended)
            self._spared += ended
            processes = self._processes(beside)
            plan = make_plan(self.source, requirements, self.ceiling, processes, beside)
        return plan

    def _spare(self, n: int) -> int:
        """End workers of our own cluster; return how many it can do without after that."""
        cluster = getattr(self.client, "cluster", None)
        if not isinstance(cluster, LocalCluster):
            return 0
        return cluster.spare(n)

    def _processes(self, beside: tuple[Source, Requirements] | None) -> Processes:
        """Return what the processes hold that there are, with what the job needs loaded."""
        sources = [self.source] if beside is None else [self.source, beside[0]]
        dtypes = dict.fromkeys(source.dtype for source in sources)
        processes = self._meter.prepare(*dtypes, kernels=self._kernels)
        for source in sources:
            self._require_reach(source)
        if any(isinstance(source, DaskSource) for source in sources):
            note = (
                "the memory of the Dask arrays' own graph is outside the ceiling; write them to a "
                "store to have it counted"
            )
            self._watch.notes += [] if note in self._watch.notes else [note]
        return processes

    def _require_reach(self, source: Source) -> None:
        """Refuse temporary arrays of this machine that a worker does not see."""
        if self.client is None or not isinstance(source, StoreSource):
            return
        for layout in (source.y, source.weight):
            if layout is None or not in_scratch(layout.path):
                continue
            client, path = self.client, layout.path
            if not all(patiently(client, partial(client.run, os.path.isdir, path)).values()):
                raise ValueError(
                    f"{layout.name} was handed over in memory and is written to a temporary folder "
                    f"of this machine, {layout.path}, which not all workers see; write it where X "
                    "lies, and give its path"
                )

    def stream(
        self,
        plan: Plan,
        on_rows: Callable[[int], None] = lambda _: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Stream:
        """Return the passes over the rows, under a plan.

        Raises
        ------
        CeilingExceeded
            where the plan does not fit.
        """
        plan.validate()
        if self._runs is None:
            self._meter.limit(plan.growth)
            self._runs = plan
            self._sampler = sampler = Sampler(self._meter.now, self._begun)
            if isinstance(self._executor, OnDask):
                self._executor.held = lambda: (sampler.most, plan.ceiling.limit)
            self._sampler.start()
        return Stream(self.source, self._executor, plan.config, on_rows, stopped)

    def beside(self, source: Source, plan: Plan, on_rows: Callable[[int], None]) -> Stream:
        """Return the passes over the other rows that the plan is for, which read nothing yet.

        Raises
        ------
        ValueError
            where the plan is for none.
        """
        if plan.beside is None:
            raise ValueError("the plan is for the job's own rows alone")
        # Arrays of this process go to no other.
        executor = Inline() if isinstance(source, ArraySource) else self._executor
        return Stream(source, executor, plan.beside, on_rows)

    def calling(self) -> ProcessMemory:
        """Return what counts of the calling process now."""
        return self._meter.calling()

    def memory(self, plan: Plan) -> MemoryReport:
        """Return ceiling, projection and measurement, side by side."""
        # Before the measurement, so that the timeline is the job's alone.
        timeline = MemoryTimeline() if self._sampler is None else self._sampler.stop()
        processes = tuple(self._meter.measured())
        notes = [*self._watch.notes, *self._meter.notes]
        if self._spared:
            workers = "a worker was" if self._spared == 1 else f"{self._spared} workers were"
            notes.append(
                f"{workers} ended before the run: there was no room for more than are left"
            )
        if isinstance(self._executor, OnDask) and self._executor.ended:
            notes.append(
                f"{self._executor.ended}; others took over, and what those held that ended is not "
                "in what was measured"
            )
        notes += {process.note for process in processes if process.note}
        return MemoryReport(
            ceiling=plan.ceiling.limit,
            baseline=plan.processes.reserved,
            projected=plan.projected,
            measured=sum(process.peak for process in processes),
            processes=processes,
            terms={term.name: term.bytes for term in plan.projection.terms},
            ceiling_source=plan.ceiling.source,
            notes=tuple(notes),
            timeline=timeline,
        )
