"""How passes are cut and what they hold, from a job, its processes and a ceiling.

Planning is pure: it reads nothing and raises nothing. `Plan.explain` is the table that users see,
`Plan.validate` refuses what cannot be kept, and only then is anything read.

None of what a plan decides changes what is learned: not the partitions, not the order of rows, not
the solver. It decides how many tasks run at a time, how far reading runs ahead, and how coarse
tasks are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log2
from typing import Self

from ooc_train.core.requests import Scan
from ooc_train.core.sums import ArraySpec, Reduction, array_bytes, nbytes, total_bytes
from ooc_train.core.text import html_escaped, html_table
from ooc_train.core.units import approximate_bytes
from ooc_train.errors import CeilingExceeded
from ooc_train.memory.ceiling import Ceiling, Projection, Term
from ooc_train.store.jobs.rewriting_commands import rechunk_command, shuffle_command
from ooc_train.stream.dask_arrays import DaskSource
from ooc_train.stream.executors import RESULTS_PER_FETCH
from ooc_train.stream.pass_config import PassConfig
from ooc_train.stream.shared import SHARED
from ooc_train.stream.sources import Source, StoreSource

_MIB = 2**20

_TASK_BYTES, _LEAST_TASK_BYTES = 1024 * _MIB, 64 * _MIB
"""A reduce task covers at most so many bytes, and at the end of a pass fewer: each costs Dask's
processes some 10 ms of work together."""

_LEAST_TASKS = 4
"""But no fewer tasks than so many a thread, so that all finish at about the same time."""

_WAITING, _SMALL_SUMS = 3, 256 * 2**10
"""Tasks that wait for each thread, and bytes of sums beyond which only one does."""

_TURNS, _LOT_BYTES = 2, 3 * _MIB
"""Threads of a scan, of which one learns while the other reads: to learn from a row takes about as
long as to read it, so that two share the work. They read so many bytes at a time: fewer, and taking
them costs more than their being still in cache saves."""

_COLUMN_COPIES = 6
"""Numbers for each column that the driver holds: mean, scale and its inverse, the penalty, and two
while they are worked out."""

_PICKLED, _OPENED = 6, 2
"""Copies of small arguments: of each task on its way, in the client, in the scheduler and in what
goes between them; and of each that runs, packed and opened."""

_STATE_COPIES = 3
"""Of a replica's state in a worker: as it came, as it is learned, and the result before it."""

_GIVEN = ("baseline", "headroom", "shared libraries")
"""Terms that no change to the job makes smaller."""

_WORKER_GROWTH = 8 * _MIB
_DRIVER_GROWTH = 24 * _MIB
"""What an interpreter grows by while tasks come and go, the scheduler's and the dashboard's books
included: 1 to 10 MiB each were seen, with four of the dashboard's pages open too."""


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes of a run, and what they hold before any data.

    Attributes
    ----------
    driver : bytes that count of the calling process: all it holds, or 0 where only its growth does
    workers : of each worker process its bytes and its threads; none where the driver does the work
    threads : tasks that run at a time
    libraries : bytes of libraries that processes which are not the run's share with it now, and
        that would fall to the run if they ended
    limits : of each worker the bytes that it may hold by its own cluster, 0 where it has no limit;
        empty where none has
    direct : whether workers are reached from here, and not by a scheduler elsewhere
    """

    driver: int
    workers: tuple[tuple[int, int], ...]
    threads: int
    libraries: int = 0
    limits: tuple[int, ...] = ()
    direct: bool = True

    @property
    def reserved(self) -> int:
        """Bytes that all processes hold before any data."""
        return self.driver + sum(held for held, _ in self.workers)

    def without(self, n: int) -> "Processes":
        """Return what there would be without the last of the workers, so many of them."""
        left = len(self.workers) - n
        return replace(
            self,
            workers=self.workers[:left],
            threads=self.threads - sum(threads for _, threads in self.workers[left:]),
            limits=self.limits[:left],
        )

    @property
    def started(self) -> int:
        """How many of them count with what they held before any data."""
        return bool(self.driver) + len(self.workers)


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a job needs room for.

    Attributes
    ----------
    partition : bytes to read a partition into
    workspace : bytes of the arrays that the work on a partition needs
    sums : bytes of the sums that a pass adds up
    parameters : bytes of a set of parameters
    slots : sets of parameters that the driver holds
    columns : bytes of a number for each column, of which the driver holds some too
    shared : bytes of the arrays that the tasks of a pass share
    opened : bytes that a task makes of them, and others beside its buffers
    state : bytes of what a replica of a scan carries
    algebra : bytes that the driver makes of sums, beside them
    shuffle_chunks : chunks mixed row by row in a scan, 0 for jobs without a scan
    replicas : replicas of a scan
    updates : bytes of the arrays that learning from rows needs
    result : bytes that a task of a map returns
    results : bytes that the driver keeps for its caller
    """

    partition: int
    workspace: int
    sums: int = 0
    parameters: int = 0
    slots: int = 0
    columns: int = 0
    shared: int = 0
    opened: int = 0
    state: int = 0
    algebra: int = 0
    shuffle_chunks: int = 0
    replicas: int = 1
    updates: int = 0
    result: int = 0
    results: int = 0

    @classmethod
    def of(
        cls,
        source: Source,
        reductions: Sequence[Reduction],
        *,
        parameters: int = 0,
        sets: int = 1,
        columns: int = 0,
        algebra: int = 0,
    ) -> Self:
        """Return what passes that add up these sums over a source need.

        Parameters
        ----------
        source : Source
            The rows.
        reductions : sequence of Reduction
            The largest of each kind that passes add up.
        parameters, sets : int
            Bytes of a set of parameters, and how many the driver holds.
        columns, algebra : int
            As the attributes.
        """
        rows = source.partition_rows
        return cls(
            partition=total_bytes(source.buffers(1)),
            workspace=max(total_bytes(each.workspace(rows)) for each in reductions),
            sums=max(nbytes(each.zeros()) for each in reductions),
            parameters=parameters,
            slots=sets,
            columns=columns,
            shared=max(array_bytes(each) for each in reductions),
            opened=max(each.made_bytes(rows) for each in reductions),
            algebra=algebra,
        )

    def with_updates(
        self, source: Source, scan: Scan, *, carried: int, replicas: int, shuffle_chunks: int
    ) -> Self:
        """Return what these passes and epochs of updates need.

        Parameters
        ----------
        scan : Scan
            What an epoch does with rows.
        carried : int
            Sets of parameters that a replica carries.
        replicas, shuffle_chunks : int
            As the attributes.
        """
        return replace(
            self,
            shared=max(self.shared, array_bytes(scan)),
            opened=max(self.opened, 4 * self.columns),
            state=self.parameters * carried,
            shuffle_chunks=shuffle_chunks,
            replicas=replicas,
            updates=total_bytes(scan.workspace(source.partition_rows * shuffle_chunks)),
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """How a job will run, and what it is projected to hold.

    Attributes
    ----------
    ceiling : the most bytes that the run may hold; where nobody gave one, in a container, what it
        needs, up to the share of `Ceiling.taken`
    projection : the terms of what it will
    config : how passes are cut
    threads : tasks that run at a time
    processes : what the run started from
    advice : what to do where reading takes too much, or nothing
    partition_rows, partition_bytes : of the pieces that rows are read in
    overrun : of the worker that could not keep its own limit, its number, that limit, and what it
        would need; or None
    smallest_ceiling : bytes that would do for this many processes, with one task at a time, as
        `Projection.smallest_ceiling` has them
    validation : how passes over validation rows are cut, which alternate with these; or None
    """

    ceiling: Ceiling
    projection: Projection
    config: PassConfig
    threads: int
    processes: Processes
    advice: str = ""
    partition_rows: int = 0
    partition_bytes: int = 0
    overrun: tuple[int, int, int] | None = None
    smallest_ceiling: int = 0
    validation: PassConfig | None = None

    @property
    def fits(self) -> bool:
        """Whether the ceiling and all workers' own limits can be kept."""
        return self.projected <= self.ceiling.limit and self.overrun is None

    @property
    def projected(self) -> int:
        """The projected peak in bytes."""
        return self.projection.total

    @property
    def growth(self) -> int:
        """The most bytes that one process is projected to take beyond what it held before."""
        held = self.processes.reserved + self.processes.libraries
        return self.projected - held

    def explain(self) -> str:
        """Return the terms, the ceiling and the room that is left, as a table in plain text."""
        return self.projection.explain(self.ceiling)

    @property
    def reads(self) -> str:
        """How rows are read, in a sentence."""
        size = f"{self.partition_rows:,} rows ({approximate_bytes(self.partition_bytes)})"
        replicas, turns = self.config.replicas, self.config.pipeline_threads
        if replicas * turns > 1:
            each = f"for each of {replicas} replicas, " if replicas > 1 else ""
            lot = (
                "a piece"
                if self.config.prefetch_groups == 1
                else f"{self.config.prefetch_groups:,} pieces"
            )
            if turns == 1:
                return f"{each}a thread reads {lot} of {size} at a time"
            return f"{each}{turns} threads of a worker read {lot} of {size} at a time, one learns"
        tasks = "1 task" if self.threads == 1 else f"{self.threads} tasks"
        return f"{tasks} at a time read pieces of {size}, {self.config.window} are on their way"

    @property
    def smallest(self) -> str:
        """The smallest ceiling that this many processes could keep, as text to paste."""
        return f"{self.smallest_ceiling // 2**20}MiB"

    @property
    def verdict(self) -> str:
        """Whether it fits, and the smallest ceiling that would do, in a sentence."""
        n = len(self.processes.workers)
        workers = f" with {n} worker{'s' if n > 1 else ''}" if n else ""
        fewer = ", with fewer less" if n > 1 and not self.fits else ""
        return (
            f"{'it fits' if self.fits else 'it does not fit'}: the smallest ceiling that would do"
            f"{workers} is {self.smallest}{fewer}"
        )

    @property
    def _told(self) -> list[str]:
        """What there is to say beside the table of terms."""
        ways = [] if self.fits else [f"or {way}" for way in self.ways_out()]
        return [self.reads, self.verdict, *ways]

    def __str__(self) -> str:
        return "\n".join([self.explain(), *self._told])

    def __repr__(self) -> str:
        size = approximate_bytes(self.projected)
        return f"<Plan: {size} projected, the ceiling is {self.ceiling}; {self.verdict}>"

    def _repr_html_(self) -> str:
        """Return what `str` does, the terms as a table, which notebooks show."""
        told = "<br>".join(map(html_escaped, self._told))
        return f"{html_table(self.projection.rows(self.ceiling))}<p>{told}</p>"

    def to_json(self) -> Mapping[str, object]:
        """Return the plan as values that JSON can hold, sizes in bytes."""
        return {
            "ceiling": self.ceiling.limit,
            "ceiling_source": self.ceiling.source,
            "projected": self.projected,
            "fits": self.fits,
            "threads": self.threads,
            "partition_rows": self.partition_rows,
            "partition_bytes": self.partition_bytes,
            "smallest_ceiling": self.smallest_ceiling,
            "terms": {term.name: term.bytes for term in self.projection.terms},
        }

    def joined(self, other: Self) -> Self:
        """Return the plan of a job whose passes take turns with those of another plan."""
        larger = max(self, other, key=lambda plan: plan.projected)
        theirs = {term.name: term for term in other.projection.terms}
        terms = (
            max(term, theirs[term.name], key=lambda term: term.bytes)
            for term in self.projection.terms
        )
        return replace(
            self,
            projection=replace(self.projection, terms=tuple(terms)),
            advice=larger.advice,
            overrun=self.overrun or other.overrun,
            validation=other.config,
        )

    def validate(self) -> None:
        """Refuse a plan that does not fit.

        Raises
        ------
        CeilingExceeded
            with what is needed, the ceiling, and what could be changed.
        """
        if self.fits:
            return
        if self.overrun is not None:
            worker, limit, need = self.overrun
            raise CeilingExceeded(
                f"worker {worker} may hold {approximate_bytes(limit)} by its cluster's limit, and "
                f"would need {approximate_bytes(need)}; "
                + ", or ".join(["give it more memory or fewer threads", *self._smaller()])
            )
        advice = [f"raise the memory ceiling to at least {self.smallest}", *self.ways_out()]
        raise CeilingExceeded(
            f"the run needs {approximate_bytes(self.projected)} and its memory ceiling is "
            f"{self.ceiling}; {', or '.join(advice)}\n{self.explain()}"
        )

    def ways_out(self) -> list[str]:
        """Say what would make the projection smaller, as far as the plan can tell."""
        ways = []
        if len(self.processes.workers) > 1:
            held = approximate_bytes(max(held for held, _ in self.processes.workers))
            ways.append(f"use fewer workers (each holds {held} before any data)")
        return ways + self._smaller()

    def _smaller(self) -> list[str]:
        """Say how the largest term that can be changed could be, where that is what is missing."""
        largest = max(
            (term for term in self.projection.terms if term.name not in _GIVEN),
            key=lambda term: term.bytes,
        )
        if self.overrun is None and 2 * largest.bytes < self.projected - self.ceiling.limit:
            return []
        if largest.name in ("buffers", "decoding"):
            return [self.advice] if self.advice else []
        if largest.name in ("parameters", "shared", "sums"):
            return ["learn from fewer columns, or by a solver that holds less, such as sgd"]
        return []


def make_plan(
    source: Source,
    requirements: Requirements,
    ceiling: Ceiling,
    processes: Processes,
    validation: tuple[Source, Requirements] | None = None,
) -> Plan:
    """Return the plan that makes best use of the ceiling, or the smallest if none fits.

    Parameters
    ----------
    source, requirements : the rows, and what passes over them need
    ceiling, processes : what they may hold, and what they start from
    validation : validation rows, and what reduce passes over them need; passes alternate
    """

    def of(threads: int, turns: int, lot: int) -> Plan:
        plan = _plan(source, requirements, ceiling, processes, threads, turns, lot)
        if validation is None:
            return plan
        return plan.joined(_plan(*validation, ceiling, processes, threads, 1, 1))

    # From the best to the least, none better in anything than one before: so a larger ceiling never
    # takes away. Where there is a scan, it is most of the work, and comes before further threads.
    scans = [(1, 1)]
    if requirements.shuffle_chunks:
        group = requirements.shuffle_chunks * source.partition_rows * max(source.row_bytes, 1)
        # Where replicas keep all threads busy, they need not take turns.
        if requirements.replicas * _TURNS <= max(processes.threads, _TURNS):
            share = -(
                -source.n_partitions
                // (requirements.shuffle_chunks * requirements.replicas * _TURNS)
            )
            scans = [(_TURNS, max(1, min(share, _LOT_BYTES // group))), (_TURNS, 1), (1, 1)]
    choices = [(threads, *scans[0]) for threads in range(processes.threads, 1, -1)]
    choices += [(1, *scan) for scan in scans]
    for choice in choices:
        plan = of(*choice)
        if plan.fits:
            break
    # Where none fits, the least takes what it needs, if the ceiling allows: so a larger one never
    # takes away here either.
    return replace(
        plan,
        ceiling=ceiling.raised_to(plan.projected),
        smallest_ceiling=of(*choices[-1]).projection.smallest_ceiling,
    )


def _plan(
    source: Source,
    requirements: Requirements,
    ceiling: Ceiling,
    processes: Processes,
    threads: int,
    turns: int,
    lot: int,
) -> Plan:
    group_bytes = source.group_partitions * source.partition_rows * max(source.row_bytes, 1)
    groups = -(-source.n_partitions // source.group_partitions)
    # The blocks of a Dask array come as arguments of a task, all of its blocks at once.
    given = isinstance(source, DaskSource)
    # Runs of a power of two are whole nodes of the tree, of which a task then returns only one.
    task_groups = _power((_LEAST_TASK_BYTES if given else _TASK_BYTES) // group_bytes)
    least_groups = _power(min(_LEAST_TASK_BYTES // group_bytes, groups // (_LEAST_TASKS * threads)))
    # Tasks in waiting hide the way to the driver and back, of some 20 ms. But where there is no
    # room for all threads, one more task would be run by a thread that has no room.
    large = max(requirements.sums, requirements.shared, requirements.result) > _SMALL_SUMS
    waiting = 1 if given or large else _WAITING
    window = (1 + waiting) * threads if threads == processes.threads else threads
    levels = 2 + int(log2(max(groups, 1)))

    reduce_bytes = requirements.partition + requirements.workspace
    replicas = min(requirements.replicas, threads)
    scan_bytes, places = 0, turns
    if requirements.shuffle_chunks:
        rows = total_bytes(source.buffers(lot * requirements.shuffle_chunks))
        if turns > 1 and rows <= 2 * _LOT_BYTES:
            places += 1  # so that threads seldom wait; for large ones it is not worth the room
        order = ArraySpec((lot * source.partition_rows * requirements.shuffle_chunks,), "<i8")
        scan_bytes = places * (rows + order.nbytes) + requirements.updates
    per_process = max((n for _, n in processes.workers), default=threads)
    pool = max(reduce_bytes * min(per_process, threads), scan_bytes * min(per_process, replicas))
    buffers = max(reduce_bytes * threads, scan_bytes * replicas)
    passed = _passed(requirements, processes, threads, window, replicas)
    # Of a task, whose run of partition groups (the first one, as `_shares` cuts them) becomes a
    # node.
    run = min(task_groups, max(least_groups, _power(2 * groups // (3 * threads))))
    of_task = min(levels, 2 + int(log2(run)))
    each = requirements.sums * of_task + passed // threads + source.hidden_bytes
    pool, overrun = _within_limits(processes, pool, max(reduce_bytes, scan_bytes), each)
    # In one process, what a task returns is what the driver takes.
    on_the_way = window if processes.workers else 1
    held = requirements.sums * (threads * of_task + on_the_way + levels) + max(
        0, requirements.algebra - levels * requirements.sums
    )
    held += requirements.result * (2 * threads + on_the_way + 2)
    n_workers = len(processes.workers)
    terms = [
        Term("baseline", processes.reserved, _reserved(processes)),
        Term(
            "headroom",
            _DRIVER_GROWTH + n_workers * _WORKER_GROWTH,
            "interpreters, the scheduler's books and the dashboard's",
        ),
        Term("shared libraries", processes.libraries, "shared with processes that may end"),
        Term(
            "buffers",
            buffers,
            f"{places * replicas} x {approximate_bytes(scan_bytes / places)}: "
            "chunks, and the work on them"
            if scan_bytes * replicas >= reduce_bytes * threads
            else f"{threads} x {approximate_bytes(reduce_bytes)}: a chunk, and the work on it",
        ),
        Term(
            "decoding",
            source.hidden_bytes * threads,
            "by zarr-python, and of a y in other chunks than X",
        ),
        Term(
            "sums",
            held,
            f"{approximate_bytes(requirements.sums)} in flight and in the tree of sums",
        ),
        Term(
            "parameters",
            requirements.parameters * requirements.slots + _COLUMN_COPIES * requirements.columns,
            f"{requirements.slots} x {approximate_bytes(requirements.parameters)} that the driver "
            "holds",
        ),
        Term(
            "shared",
            passed,
            f"{approximate_bytes(requirements.shared + requirements.state)} that tasks "
            "are given, and what they make of it",
        ),
    ]
    if requirements.results:
        terms.append(Term("results", requirements.results, "what is returned to the caller"))
    return Plan(
        ceiling,
        Projection(tuple(terms), started=processes.started),
        PassConfig(
            task_groups,
            window,
            replicas,
            turns,
            places,
            lot,
            pool,
            least_groups,
            threads,
            1
            if max(requirements.sums, requirements.state, requirements.result) > _SMALL_SUMS
            else RESULTS_PER_FETCH,
        ),
        threads,
        processes,
        _advice(source, requirements),
        source.partition_rows,
        source.partition_rows * source.row_bytes,
        overrun,
    )


def _passed(
    requirements: Requirements, processes: Processes, threads: int, window: int, replicas: int
) -> int:
    """Return the bytes of what tasks are given, on its way and where they run."""
    opened = threads * requirements.opened
    if not processes.workers:
        # Tasks of this process are given what it has; they copy a replica's state.
        return opened + replicas * requirements.state
    askew = 0 if processes.direct else threads
    if requirements.shared >= SHARED:
        shared = requirements.shared * (len(processes.workers) + askew)
    else:
        shared = requirements.shared * (_PICKLED * window + _OPENED * threads)
    # That of a task is in the scheduler too, which is mostly in this process.
    return opened + shared + replicas * requirements.state * (_STATE_COPIES + 1 + min(askew, 1))


def _within_limits(
    processes: Processes, pool: int, least: int, each: int
) -> tuple[int, tuple[int, int, int] | None]:
    """Return the pool that all workers have room for, and the one that has none for the least.

    Parameters
    ----------
    processes : of which some may have limits of their own
    pool, least : bytes of buffers in a process: so that no thread waits for room, and for one task
    each : bytes that a thread takes beside them
    """
    overrun = None
    for i, limit in enumerate(processes.limits):
        held, threads = processes.workers[i]
        beside = held + _WORKER_GROWTH + threads * each
        if limit and limit < beside + least:
            overrun = overrun or (i, limit, beside + least)
        elif limit:
            pool = min(pool, limit - beside)
    return pool, overrun


def _advice(source: Source, requirements: Requirements) -> str:
    """Say how the rows of a store could take less room, or nothing where they could not."""
    if not isinstance(source, StoreSource):
        return ""
    layouts = {"X": source.X, "y": source.y, "sample_weight": source.weight}
    found = {role: layout for role, layout in layouts.items() if layout is not None}
    if source.oversized:
        largest = max(found.values(), key=lambda layout: layout.chunk_bytes)
        size = approximate_bytes(largest.chunk_bytes)
        return (
            f"rewrite the store, whose chunks of {largest.name} take {size} each, in smaller ones: "
            f"{rechunk_command(source.path, found)}"
        )
    if requirements.shuffle_chunks > 1 and not source.shuffled:
        return (
            f"put the rows in random order once, so that {requirements.shuffle_chunks} chunks "
            f"need not be mixed: {shuffle_command(source.path, found)}"
        )
    if requirements.shuffle_chunks > 1:
        return "use a smaller shuffle_chunks"
    if source.partition_rows == 1:
        return f"learn from fewer columns: a row alone takes {approximate_bytes(source.row_bytes)}"
    return ""


def _power(n: int) -> int:
    """Return the largest power of two that is no more than n, or 1."""
    return 1 << (max(n, 1).bit_length() - 1)


def _reserved(processes: Processes) -> str:
    parts = [f"driver {approximate_bytes(processes.driver)}"] if processes.driver else []
    parts += [f"worker {approximate_bytes(held)}" for held, _ in processes.workers]
    return " + ".join(parts) or "only what the calling process grows by counts"
