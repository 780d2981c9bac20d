"""The three passes over rows: `reduce` adds up sums, `scan` updates a state, `map` returns values.

A pass is a list of calls. An executor runs the calls, in this thread or as Dask tasks. Rows never
travel between processes: each task reads its own partitions. Small arguments travel to the
workers, and sums travel back.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import Any

from ooc_train.core.partitions import partitions_within, rounds, rows_of
from ooc_train.core.requests import Answer, Reduce, Request, Scan
from ooc_train.core.sums import Reduction, Sums
from ooc_train.errors import NonFiniteData
from ooc_train.stream.array_source import ArraySource
from ooc_train.stream.dask_source import DaskSource
from ooc_train.stream.executors import Executor
from ooc_train.stream.order import EpochOrder
from ooc_train.stream.partial_pass import PartialPass
from ooc_train.stream.pass_config import PassConfig
from ooc_train.stream.sources import Source
from ooc_train.stream.store_source import StoreSource
from ooc_train.stream.sum_tree import SumTree
from ooc_train.stream.tasks import (
    RowMap,
    UpdateWatch,
    attempt,
    map_task,
    reduce_task,
    scan_task,
)
from ooc_train.stream.timings import Timings

_SEGMENT_SECONDS = 1.0
"""Approximate time between two returns of a scan's state to the driver, its retry point."""

_FIRST_SEGMENT_ROWS = 2**16
"""Rows of a scan's first segment, while its speed is unknown."""


class Stream:
    """The passes over one source, on one executor, under one plan.

    Parameters
    ----------
    on_rows : callable
        Called with the number of rows of each finished task.
    stopped : callable
        Called after each segment of a scan; True ends the scan there.

    Attributes
    ----------
    begun : PartialPass or None
        What is done of the next request already, by a process that was ended.
    on_progress : callable
        Called within the passes of requests, with a function that returns the `PartialPass`.
    on_updates : callable or None
        Called as `on_progress` within a task of updates, which has all rows of arrays in memory.
    timings : Timings
        Rows and seconds of all tasks so far.
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
        self.begun: PartialPass | None = None
        self.on_progress: Callable[[Callable[[], PartialPass]], None] = lambda _: None
        self.on_updates: Callable[[Callable[[], PartialPass]], None] | None = None
        self._executor = executor
        self._config = config
        self._on_rows = on_rows
        self._stopped = stopped
        self._segment_rows = float(_FIRST_SEGMENT_ROWS)
        self._told_rows = 0

    def _run(
        self,
        task: Callable[..., Any],
        value: Any,
        calls: Iterable[tuple[Any, ...]],
        name: str,
        threads: int,
        window: int,
        *,
        counted: bool = True,
    ) -> Iterator[Any]:
        """Yield the results of tasks, and count their rows and seconds.

        `counted` rows count as rows of training, and others as rows of an evaluation.
        """
        started, before = perf_counter(), sum(self.timings.profile.values())
        source = None if isinstance(self.source, DaskSource) else self.source
        shared = (task, source, value, self._config)
        for outcome in self._executor.run(
            attempt, calls, window, name, shared, self._config.results_per_fetch
        ):
            if isinstance(outcome, NonFiniteData) and isinstance(self.source, StoreSource):
                raise outcome.with_command(self.source.rechunk_command)
            if isinstance(outcome, Exception):
                raise outcome
            result, timings = outcome
            self.timings += timings if counted else timings.as_evaluating()
            self._on_rows(timings.rows - self._told_rows if counted else 0)
            self._told_rows = 0
            yield result
        busy = sum(self.timings.profile.values()) - before
        rest = Timings(dask=max(0.0, threads * (perf_counter() - started) - busy))
        self.timings += rest if counted else rest.as_evaluating()

    @contextmanager
    def _sharing(self) -> Iterator[None]:
        """Free the arrays that tasks share in the workers at the end of a pass."""
        try:
            yield
        finally:
            self._executor.release()

    def _task_blocks(self, partitions: Sequence[int]) -> Any:
        """Return the blocks of a Dask array as a delayed argument, None for other sources."""
        if not isinstance(self.source, DaskSource):
            return None
        return self.source.task_blocks(partitions)

    def run(self, request: Request) -> Answer:
        """Return the sums or states that a solver's request asks for; go on from `begun`."""
        begun, self.begun = self.begun, None
        if isinstance(request, tuple):
            return self._sums(request, begun)
        if isinstance(request, Reduce):
            return self._sums((request,), begun)[0]
        return self.scan(
            request.scan,
            request.states,
            seed=request.seed,
            epoch=request.number,
            shuffle_chunks=request.shuffle_chunks,
            begun=begun,
        )

    def sums(self, requests: Iterable[Reduce]) -> list[Sums]:
        """Return the sums that each request asks for, by one reduce pass each."""
        return self._sums(tuple(requests), None)

    def _sums(self, requests: tuple[Reduce, ...], begun: PartialPass | None) -> list[Sums]:
        done = [] if begun is None else list(begun.sums)

        def progress(request: Reduce, tree: SumTree) -> PartialPass:
            groups, nodes = tree.complete()
            partitions = self._partitions(request.partitions)
            read = partitions[: groups * self.source.group_partitions]
            passes = [*((each, each.partitions) for each in requests[: len(done)]), (request, read)]
            rows = sum(
                rows_of(self.source, self._partitions(run)) for each, run in passes if each.counted
            )
            return PartialPass(groups, rows, tuple(done), nodes, added=tree.nodes)

        for request in requests[len(done) :]:
            tree = SumTree(None if begun is None else begun.nodes)
            begun = None
            sums = self.reduce(
                request.reduction,
                request.partitions,
                counted=request.counted,
                tree=tree,
                on_task=partial(self.on_progress, partial(progress, request, tree)),
            )
            done.append(sums)
            del tree
        return done

    def _partitions(self, partitions: Sequence[int] | None) -> Sequence[int]:
        return range(self.source.n_partitions) if partitions is None else partitions

    def reduce(
        self,
        reduction: Reduction,
        partitions: Sequence[int] | None = None,
        *,
        counted: bool = True,
        tree: SumTree | None = None,
        on_task: Callable[[], None] = lambda: None,
    ) -> Sums:
        """Return the sums of a reduction over some partitions, or over all.

        The bits depend on the layout of the data alone: no plan, worker or order of arrival changes
        them (see `sum_tree`). `on_rows` is called with the number of rows if they are `counted`,
        and `on_task` after each task but the last, whose sums are in the `tree` then; it may hold
        some already.
        """
        tree, partitions = tree or SumTree(), self._partitions(partitions)
        per_group = self.source.group_partitions
        groups, (done, _) = -(-len(partitions) // per_group), tree.complete()

        def calls() -> Iterator[tuple[Any, ...]]:
            for first, last in task_ranges(groups, self._config, done):
                run = partitions[first * per_group : last * per_group]
                yield self._task_blocks(run), run, first, per_group

        config = self._config
        with self._sharing():
            results = self._run(
                reduce_task,
                reduction,
                calls(),
                "reduce",
                config.threads,
                config.window,
                counted=counted,
            )
            for nodes in results:
                while nodes:
                    tree.put(*nodes.popitem())
                if tree.complete()[0] < groups:
                    on_task()
        return tree.total() or reduction.zeros()

    def scan(
        self,
        scan: Scan,
        states: Sequence[Sums],
        *,
        seed: int | None,
        epoch: int,
        shuffle_chunks: int,
        begun: PartialPass | None = None,
    ) -> list[Sums]:
        """Return the states of all replicas after one epoch.

        One replica processes all rows. Several replicas share the rows of each round, and their
        states are averaged at its end. Rounds depend on the layout of the data alone.

        The states return to the driver about once a second. If a worker dies, that segment runs
        again from the states that the driver holds, so no bit changes.

        Parameters
        ----------
        states : sequence of dict of arrays
            The state of each replica, at most one for each shuffle group.
        seed, epoch : int
            Determine the order of rows. Without a seed, rows keep the order of the data.
        shuffle_chunks : int
            Chunks whose rows are shuffled together.
        begun : PartialPass or None
            What is done of the epoch already.
        """
        epoch_order = EpochOrder(self.source.n_partitions, shuffle_chunks, seed, epoch)
        groups = epoch_order.groups()
        rows = self.source.partition_rows * len(groups[0])
        config, states = self._config, list(states if begun is None else begun.states)
        done = 0 if begun is None else begun.position

        def progress() -> PartialPass:
            read = [partition for group in groups[:done] for partition in group]
            return PartialPass(done, rows_of(self.source, read), states=tuple(states))

        threads, watch = config.replicas * config.pipeline_threads, self._watch(scan, len(groups))
        with self._sharing():
            for cuts in self._rounds(len(groups), rows, len(states), done):
                last = cuts[-1][1] == len(groups)
                calls = [
                    (
                        self._task_blocks(
                            [partition for group in groups[start:stop] for partition in group]
                        ),
                        replica,
                        states[replica],
                        epoch_order,
                        start,
                        stop,
                        last,
                        watch,
                    )
                    for replica, (start, stop) in enumerate(cuts)
                ]
                results = self._run(scan_task, scan, calls, "scan", threads, config.replicas)
                updated = dict(results)
                before, states = states, [updated[replica] for replica in range(len(states))]
                if len(states) > 1:
                    scan.average(before, states)
                done = cuts[-1][1]
                if done < len(groups):
                    self.on_progress(progress)
                if self._stopped():
                    break
        return states

    def _watch(self, scan: Scan, groups: int) -> UpdateWatch | None:
        """Return what tells of updates within a task; None if tasks end often enough.

        The only task of an epoch over arrays runs in the calling thread.
        """
        batch_size, call = getattr(scan, "batch_size", None), self.on_updates
        if call is None or batch_size is None or groups > 1:
            return None
        if not isinstance(self.source, ArraySource):
            return None

        def told(rows: int, state: Sums) -> None:
            self._told_rows += rows
            self._on_rows(rows)
            call(lambda: PartialPass(0, self._told_rows, states=(state,), in_task=True))

        return UpdateWatch(batch_size, told)

    def _rounds(
        self, groups: int, rows: int, replicas: int, done: int
    ) -> Iterator[Sequence[tuple[int, int]]]:
        """Yield the range of shuffle groups of each replica, for one round or segment at a time.

        Several replicas run in rounds. A single one runs in segments of about a second, which
        change no bit. `rows` is the size of a group, and `done` groups need no round.
        """
        if replicas > 1:
            for cuts in rounds(groups, rows * self.source.row_bytes, replicas):
                if cuts[-1][1] > done:
                    yield cuts
            return
        at = done
        while at < groups:
            segment = max(1, int(self._segment_rows / rows))
            # A rest of less than half a segment joins the last segment.
            end = groups if 2 * (groups - at) < 3 * segment else at + segment
            started = perf_counter()
            yield [(at, end)]
            speed = (end - at) * rows / (perf_counter() - started)
            # At most fourfold growth: the first segment may have loaded kernels.
            self._segment_rows = min(4 * self._segment_rows, _SEGMENT_SECONDS * speed)
            at = end

    def map(
        self, function: RowMap, runs: Iterable[tuple[int, int]], *, counted: bool = True
    ) -> Iterator[Any]:
        """Yield the value of `function` for each run of rows, in the order of completion.

        A run is its first row, and the row after its last. A partition that two runs share is read
        twice.
        """

        def calls() -> Iterator[tuple[Any, ...]]:
            for start, stop in runs:
                partitions = partitions_within(self.source, start, stop)
                first = self.source.first_row(partitions.start)
                yield self._task_blocks(partitions), partitions, start - first, stop - first

        config = self._config
        with self._sharing():
            yield from self._run(
                map_task,
                function,
                calls(),
                "map",
                config.threads,
                config.window,
                counted=counted,
            )


def task_ranges(groups: int, config: PassConfig, done: int = 0) -> Iterator[tuple[int, int]]:
    """Yield ranges of partition groups, one for each task, smaller towards the end of a pass.

    So all threads finish at about the same time (guided self-scheduling, Polychronopoulos and Kuck
    1987). Sizes are powers of two, so each task begins at a tree node of its size. The first `done`
    groups need no task; behind them, tasks grow up to the next such node.
    """
    first, size, least = done, config.task_groups, config.min_task_groups
    while first < groups:
        left = groups - first
        while size > least and 3 * size * config.threads > 2 * left:
            size //= 2
        run = size
        while first % run:
            run //= 2
        # A rest of less than the smallest task joins the last task.
        last = groups if left < run + least else first + run
        yield first, last
        first = last
