"""The three passes over rows: `reduce` adds up sums, `scan` carries a state, `map` writes rows.

A pass is a list of calls; an executor runs them, in this thread or as Dask tasks. Data never cross
a process: each task reads its own partitions, small arguments travel out, sums travel back.

Adding up in a fixed order
    Partitions are added one after another into the sums of their partition group. Partition groups
    are the leaves of a binary tree aligned on powers of two; a task that covers a run of
    partition groups returns the aligned nodes that it completes, and the driver completes the
    rest. So the bits of a total are a function of the layout, and grouping, workers and order of
    arrival cannot change them.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.partitions import partitions_within, rounds
from ooc_train.core.requests import Answer, Reduce, Request, Scan
from ooc_train.core.sums import Arrays, ArraySpec, Block, Reduction, Sums, Workspace, add_into
from ooc_train.core.threads import one_blas_thread
from ooc_train.errors import OocTrainError
from ooc_train.stream import order
from ooc_train.stream.buffers import KEPT_BYTES, pool_of
from ooc_train.stream.dask_arrays import DaskSource, Given, GivenReader
from ooc_train.stream.executors import TOGETHER, Executor
from ooc_train.stream.pipeline import in_turns
from ooc_train.stream.sources import Reader, Source, StoreSource

_SEGMENT_SECONDS = 1.0
"""A scan comes back to the driver, its retry point, about so often."""

_FIRST_SEGMENT_ROWS = 2**19
"""Rows of a scan's first segment, before its speed is known."""

_FAR_PARTITIONS = 16
"""Partitions that a scan asks a disk for ahead: with as many on their way, random chunks came as
fast as a file read from end to end."""

_COLD = 0.7e-9
"""Seconds a byte beyond which a read is taken for one of a disk: ten times that of memory."""

Node = tuple[int, int]
"""Level and index of a node of the tree: it covers the partition groups `index * 2**level` and
following."""


@dataclass(frozen=True, slots=True)
class Timings:
    """What passes took: rows, and seconds of all threads that they ran on together.

    Attributes
    ----------
    rows : rows that were read
    reading : reading and checking them
    decoding : decompressing them
    computing : adding up, learning, or predicting
    waiting : waiting, within a task, for what other threads read or learn from
    dask : without a task: on its way, or at the end of a pass while others had theirs
    evaluating : all of this, of passes that evaluate the model of an epoch of updates
    """

    rows: int = 0
    reading: float = 0.0
    decoding: float = 0.0
    computing: float = 0.0
    waiting: float = 0.0
    dask: float = 0.0
    evaluating: float = 0.0

    def __add__(self, other: "Timings") -> "Timings":
        # By name: `astuple` copies deeply, which took as long as a tenth of learning from a chunk.
        return Timings(
            self.rows + other.rows,
            self.reading + other.reading,
            self.decoding + other.decoding,
            self.computing + other.computing,
            self.waiting + other.waiting,
            self.dask + other.dask,
            self.evaluating + other.evaluating,
        )

    @property
    def profile(self) -> dict[str, float]:
        """Return the seconds by what they were spent on."""
        timings = {name: getattr(self, name) for name in self.__slots__ if name != "rows"}
        if not self.evaluating:
            del timings["evaluating"]
        return timings

    def as_evaluating(self) -> "Timings":
        """Return the same rows and seconds, as those of a pass that evaluates a model."""
        return Timings(self.rows, evaluating=sum(self.profile.values()))


@dataclass(frozen=True, slots=True)
class PassConfig:
    """How a plan cuts a pass: none of it changes what is learned.

    Attributes
    ----------
    task_groups, least_groups : partition groups that one reduce task covers at first, and at the
        end of a pass: powers of two
    window : tasks that the driver keeps in flight
    replicas : replicas of a scan that learn at a time
    turns : threads of each, of which one learns while the others read
    places : lots that each replica holds
    lot : groups of partitions of one, which is read, and learned from, at a time
    pool_bytes : the most that buffers in one process may hold
    threads : tasks that run at a time
    gathered : results that the driver fetches at a time
    """

    task_groups: int
    window: int
    replicas: int
    turns: int
    places: int
    lot: int
    pool_bytes: int
    least_groups: int = 1
    threads: int = 1
    gathered: int = TOGETHER


class RowMap(Protocol):
    """What a map makes of a run of rows: a value that travels to the workers."""

    def workspace(self, rows: int) -> Workspace:
        """Return the arrays that `run` works in, for blocks of at most `rows` rows."""
        ...

    def run(self, blocks: Iterator[Block], workspace: Arrays) -> Any:
        """Take the blocks of a run of rows, in order, and return what travels to the driver."""
        ...


class Stream:
    """The passes over one source, on one executor, under one plan.

    Attributes
    ----------
    timings : what all tasks so far did
    on_rows : called with the number of rows after each task
    stopped : asked between the segments of a scan whether it should end there
    """

    def __init__(
        self,
        source: Source,
        executor: Executor,
        config: PassConfig,
        on_rows: Callable[[int], None] = lambda _: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.source = source
        self.timings = Timings()
        self._executor = executor
        self._config = config
        self._on_rows = on_rows
        self._stopped = stopped
        self._segment_rows = float(_FIRST_SEGMENT_ROWS)

    def _run(
        self,
        function: Callable[..., Any],
        reduction: Any,
        calls: Iterable[tuple[Any, ...]],
        name: str,
        threads: int,
        window: int,
        *,
        counted: bool = True,
    ) -> Iterator[Any]:
        """Yield what the calls return, and count what they and the way to them took."""
        started, before = perf_counter(), sum(self.timings.profile.values())
        source = None if isinstance(self.source, DaskSource) else self.source
        shared = (function, source, reduction, self._config)
        for outcome in self._executor.run(
            _attempt, calls, window, name, shared, self._config.gathered
        ):
            if isinstance(outcome, Exception):
                raise outcome
            result, timings = outcome
            self.timings += timings if counted else timings.as_evaluating()
            self._on_rows(timings.rows if counted else 0)
            yield result
        busy = sum(self.timings.profile.values()) - before
        rest = Timings(dask=max(0.0, threads * (perf_counter() - started) - busy))
        self.timings += rest if counted else rest.as_evaluating()

    @contextmanager
    def _sharing(self) -> Iterator[None]:
        """Have what tasks share lie in the workers for a pass, and no longer."""
        try:
            yield
        finally:
            self._executor.release()

    def _given(self, partitions: Sequence[int]) -> Any:
        """Return partitions that a task can't read for itself, or None where it can."""
        if not isinstance(self.source, DaskSource):
            return None
        return self.source.given(partitions)

    def run(self, request: Request) -> Answer:
        """Return the answer to a solver's request."""
        if isinstance(request, tuple):
            return self.sums(request)
        if isinstance(request, Reduce):
            return self.sums([request])[0]
        return self.scan(
            request.scan,
            request.states,
            seed=request.seed,
            epoch=request.number,
            shuffle_chunks=request.shuffle_chunks,
        )

    def sums(self, requests: Iterable[Reduce]) -> list[Sums]:
        """Return the answers to requests for sums."""
        return [
            self.reduce(each.reduction, each.partitions, counted=each.counted) for each in requests
        ]

    def reduce(
        self, reduction: Reduction, partitions: Sequence[int] | None = None, *, counted: bool = True
    ) -> Sums:
        """Return the sums that `reduction` adds up over all rows, or over the partitions given.

        The bits are those of the layout: no plan, worker or order of arrival changes them. Of rows
        that are not counted, `on_rows` is told none.
        """
        partitions = range(self.source.n_partitions) if partitions is None else partitions
        per_group = self.source.group_partitions
        groups = -(-len(partitions) // per_group)

        def calls() -> Iterator[tuple[Any, ...]]:
            for first, last in _shares(groups, self._config):
                run = partitions[first * per_group : last * per_group]
                yield self._given(run), run, first, per_group

        tree, config = SumTree(), self._config
        with self._sharing():
            passed = self._run(
                _reduce_task,
                reduction,
                calls(),
                "reduce",
                config.threads,
                config.window,
                counted=counted,
            )
            for nodes in passed:
                while nodes:
                    tree.put(*nodes.popitem())
        return tree.total() or reduction.zeros()

    def scan(
        self,
        scan: Scan,
        states: Sequence[Sums],
        *,
        seed: int | None,
        epoch: int,
        shuffle_chunks: int,
    ) -> list[Sums]:
        """Return the states of all replicas after a pass, in the random order of (seed, epoch).

        Without a seed, rows are taken in the order in which they lie.

        One replica learns from all rows. Several, no more than there are groups of partitions,
        share the rows of each round, and are averaged at its end; rounds are a function of the
        layout.

        The driver gets the states back about once a second: where a worker dies, only that segment
        is done again, from the state that the driver holds; so the bits do not change. A run that
        is to stop ends a pass there too.
        """
        whole = order.EpochOrder(self.source.n_partitions, shuffle_chunks, seed, epoch)
        groups = whole.groups()
        rows = self.source.partition_rows * len(groups[0])
        states = list(states)
        with self._sharing():
            for cuts in self._rounds(len(groups), rows, len(states)):
                last = cuts[-1][1] == len(groups)
                calls = [
                    (
                        self._given(
                            [partition for group in groups[start:stop] for partition in group]
                        ),
                        replica,
                        states[replica],
                        whole,
                        start,
                        stop,
                        last,
                    )
                    for replica, (start, stop) in enumerate(cuts)
                ]
                replicas, threads = (
                    self._config.replicas,
                    self._config.replicas * self._config.turns,
                )
                learned = dict(self._run(_scan_task, scan, calls, "scan", threads, replicas))
                before, states = states, [learned[replica] for replica in range(len(states))]
                if len(states) > 1:
                    scan.average(before, states)
                if self._stopped():
                    break
        return states

    def _rounds(self, groups: int, rows: int, replicas: int) -> Iterator[Sequence[tuple[int, int]]]:
        """Yield which groups, of so many rows, each replica takes until the states come back.

        To one replica it makes no difference: it comes back about once a second.
        """
        if replicas > 1:
            yield from rounds(groups, rows * self.source.row_bytes, replicas)
            return
        at = 0
        while at < groups:
            segment = max(1, int(self._segment_rows / rows))
            # What is less than half a segment is none of its own.
            end = groups if 2 * (groups - at) < 3 * segment else at + segment
            started = perf_counter()
            yield [(at, end)]
            speed = (end - at) * rows / (perf_counter() - started)
            # At most fourfold a time: the first segment may have loaded kernels.
            self._segment_rows = min(4 * self._segment_rows, _SEGMENT_SECONDS * speed)
            at = end

    def map(self, function: RowMap, runs: Iterable[tuple[int, int]]) -> Iterator[Any]:
        """Yield what `function` returns for each run of rows, as they come in.

        A run is a first row and the one after the last. Partitions that reach beyond are cut, and
        so a partition in which a run ends and the next begins is read twice.
        """

        def calls() -> Iterator[tuple[Any, ...]]:
            for start, stop in runs:
                partitions = partitions_within(self.source, start, stop)
                yield self._given(partitions), partitions, start, stop

        config = self._config
        with self._sharing():
            yield from self._run(_map_task, function, calls(), "map", config.threads, config.window)


def _shares(groups: int, config: PassConfig) -> Iterator[tuple[int, int]]:
    """Cut partition groups into tasks, smaller towards the end, so that all finish at one time.

    Guided self-scheduling (Polychronopoulos and Kuck 1987), by powers of two: so a task begins
    where a node of its size does.
    """
    first, size, least = 0, config.task_groups, config.least_groups
    while first < groups:
        left = groups - first
        while size > least and 3 * size * config.threads > 2 * left:
            size //= 2
        # What is less than the smallest task is no task of its own.
        last = groups if left < size + least else first + size
        yield first, last
        first = last


class SumTree:
    """Nodes of sums, completed as they come in: aligned siblings are added."""

    def __init__(self) -> None:
        self.nodes: dict[Node, Sums] = {}

    def put(self, node: Node, sums: Sums) -> None:
        """Take in a node, whose sums the tree may change from then on."""
        level, index = node
        while (level, index ^ 1) in self.nodes:
            # Which of the two comes first changes no bit; which two are added does.
            sums = add_into(self.nodes.pop((level, index ^ 1)), sums)
            level, index = level + 1, index >> 1
        self.nodes[level, index] = sums

    def total(self) -> Sums | None:
        """Return the sum of all nodes, the smallest first, or None where there is none.

        What is left when all partition groups are in follows from their number alone.
        """
        total: Sums | None = None
        for _, sums in sorted(self.nodes.items(), key=lambda item: item[0][0]):
            total = sums if total is None else add_into(sums, total)
        return total


def _attempt(function: Callable[..., Any], *call: Any) -> Any:
    """Return what the call returns, or what it raises on purpose.

    Rows that were read count only if their store is still the one that was opened.

    An error that is returned reaches the driver as it is, and once; one that is raised in a task is
    logged by every process that it passes.
    """
    try:
        # Rows that are not finite and losses that overflow are told of by errors of ours.
        with np.errstate(over="ignore", invalid="ignore"):
            result = function(*call)
        if isinstance(call[0], StoreSource):
            call[0].require_same()
    except (OocTrainError, OSError, MemoryError, ValueError) as error:
        return error.with_traceback(None)
    return result


_local = threading.local()


def _reader(source: Source | None, given: Given | None) -> Reader:
    """Return a reader for this thread, the one of its last task where that had the same source."""
    if given is not None:
        return GivenReader(given)
    if source is None:
        raise TypeError("a task was given neither a source nor partitions")
    if not isinstance(source, StoreSource):
        return source.reader()
    # A reader keeps shard indices and open files, which a pass of many tasks wants to find again.
    if getattr(_local, "source", None) != source:
        _local.reader, _local.source = source.reader(), source
    reader: Reader = _local.reader
    return reader


def _largest(source: Source | None, given: Given | None) -> int:
    """Return the rows of the largest partition."""
    if given is not None:
        return given.largest
    return 0 if source is None else source.partition_rows


def _buffers(source: Source | None, partitions: int = 1) -> Workspace:
    return {} if source is None else source.buffers(partitions)


def _reduce_task(
    source: Source | None,
    reduction: Reduction,
    config: PassConfig,
    given: Given | None,
    partitions: Sequence[int],
    first_group: int,
    group_partitions: int,
) -> tuple[dict[Node, Sums], Timings]:
    """Return the aligned nodes over the partition groups of `partitions`, and what it took."""
    reader, tree = _reader(source, given), SumTree()
    rows, reading, computing, decoded = 0, 0.0, 0.0, reader.decoding
    reduction_workspace = reduction.workspace(_largest(source, given))
    with (
        one_blas_thread(),
        pool_of(config.pool_bytes) as pool,
        pool.take(_buffers(source), reduction_workspace) as (arrays, workspace),
    ):
        for group, first in enumerate(range(0, len(partitions), group_partitions), first_group):
            sums = reduction.zeros()
            started = perf_counter()
            for block in reader.run(partitions[first : first + group_partitions], arrays):
                read = perf_counter()
                reduction.add(sums, block, workspace)
                rows += block.n_rows
                reading, started = reading + read - started, perf_counter()
                computing += started - read
            tree.put((0, group), sums)
    decoding = reader.decoding - decoded
    return tree.nodes, Timings(rows, reading - decoding, decoding, computing)


class _ColdReads:
    """Asks the operating system for groups some way ahead, while reads are slow as a disk's are.

    It knows nothing of the order of a scan, and would wait for each chunk. To ask for what is in
    memory takes a third of the time that reading it does.
    """

    def __init__(self, groups: Sequence[tuple[int, ...]]) -> None:
        self._groups = groups
        self._far = max(1, _FAR_PARTITIONS // len(groups[0]))
        self._asked = self._until = 0
        self._lock = threading.Lock()

    def after(self, i: int, seconds: float, nbytes: int, reader: Reader) -> None:
        """Take note of how long group `i` took, and ask for others if it is time."""
        far = i + 1 + self._far
        with self._lock:
            if seconds > _COLD * nbytes:
                self._until = i + 4 * self._far
            first = max(self._asked, i + 1)
            if i >= self._until or first >= far:
                return
            self._asked = far
        for partitions in self._groups[first:far]:
            reader.prefetch(partitions)


def _scan_task(
    source: Source | None,
    scan: Scan,
    config: PassConfig,
    given: Given | None,
    replica: int,
    state: Sums,
    whole: order.EpochOrder,
    start: int,
    stop: int,
    last: bool,
) -> tuple[tuple[int, Sums], Timings]:
    """Return a replica and its state after the groups `start` to `stop`, and what it took."""
    groups = whole.groups()[start:stop]
    state = {name: array.copy() for name, array in state.items()}
    shuffle_chunks = len(groups[0])
    lots = [range(i, min(i + config.lot, len(groups))) for i in range(0, len(groups), config.lot)]
    rows = _largest(source, given) * shuffle_chunks
    needed = (
        _buffers(source, shuffle_chunks * len(lots[0])),
        {"order": ArraySpec((rows * len(lots[0]),), "<i8")},
    )
    cold = _ColdReads(groups)
    timings_of_tasks: list[Timings] = []
    blocks: list[list[tuple[Block, NDArray[np.int64]]]] = [[] for _ in range(config.places)]

    def read(lot: int, place: int) -> None:
        started, at = perf_counter(), 0
        reader = _reader(source, given)
        decoded = reader.decoding
        arrays, numbers = lent[2 * place : 2 * place + 2]
        blocks[place].clear()
        for i in lots[lot]:
            began = perf_counter()
            block = reader.gather(groups[i], arrays, at)
            cold.after(i, perf_counter() - began, block.X.nbytes, reader)
            in_order = numbers["order"][at : at + block.n_rows]
            whole.fill(in_order, start + i)
            blocks[place].append((block, in_order))
            at += block.n_rows
        decoding = reader.decoding - decoded
        timings_of_tasks.append(Timings(at, perf_counter() - started - decoding, decoding))

    def learn(place: int) -> None:
        started = perf_counter()
        for block, in_order in blocks[place]:
            learn_from(block, in_order)
        timings_of_tasks.append(Timings(computing=perf_counter() - started))

    # All at once: a thread that waited for room would keep the others waiting.
    with (
        one_blas_thread(),
        pool_of(config.pool_bytes) as pool,
        pool.take(*config.places * needed, scan.workspace(rows), most_kept=KEPT_BYTES) as (
            *lent,
            workspace,
        ),
    ):
        learn_from = scan.learner(state, workspace)
        waited = in_turns(read, learn, len(lots), min(config.turns, len(lots)), config.places)
        if last:
            scan.finish(state, workspace)
    timings = sum(timings_of_tasks, Timings(waiting=waited))
    return (replica, state), timings


def _map_task(
    source: Source | None,
    function: RowMap,
    config: PassConfig,
    given: Given | None,
    partitions: Sequence[int],
    start: int,
    stop: int,
) -> tuple[Any, Timings]:
    """Return what `function` makes of the rows from `start` to `stop`, and what it took."""
    reader = _reader(source, given)
    rows, reading, decoded, started = 0, 0.0, reader.decoding, perf_counter()

    def blocks() -> Iterator[Block]:
        nonlocal rows, reading
        began = perf_counter()
        for block in reader.run(partitions, arrays):
            reading += perf_counter() - began
            rows += block.n_rows
            yield block.within(start, stop)
            began = perf_counter()

    reduction_workspace = function.workspace(_largest(source, given))
    with (
        one_blas_thread(),
        pool_of(config.pool_bytes) as pool,
        pool.take(_buffers(source), reduction_workspace) as (arrays, workspace),
    ):
        result = function.run(blocks(), workspace)
    decoding = reader.decoding - decoded
    computing = perf_counter() - started - reading
    return result, Timings(rows, reading - decoding, decoding, computing)
