"""The tasks of passes: each reads its own partitions, in a worker or in the driver.

A task takes small arguments and returns sums, a state or a value, with its timings.
"""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.requests import Scan
from ooc_train.core.sums import Arrays, ArraySpec, Block, Reduction, Sums, Workspace
from ooc_train.core.threads import one_blas_thread
from ooc_train.errors import OocTrainError
from ooc_train.stream.buffers import pool_of
from ooc_train.stream.dask_source import TaskBlocks, TaskBlocksReader
from ooc_train.stream.order import EpochOrder
from ooc_train.stream.pass_config import PassConfig
from ooc_train.stream.pipeline import run_pipeline
from ooc_train.stream.read_ahead import ReadAhead
from ooc_train.stream.sources import Reader, Source
from ooc_train.stream.store_source import StoreSource
from ooc_train.stream.sum_tree import Node, SumTree
from ooc_train.stream.timings import Timings

_PIECE_SECONDS, _FIRST_PIECE_ROWS = 0.5, 2**16
"""Approximate time between two looks at updates within a task, and rows before the first."""

_LOOP_ROWS = 12
"""Calls of unrolled loops begin at multiples of this number of rows."""


@dataclass(frozen=True)
class UpdateWatch:
    """Cuts updates by one block of rows into pieces, and is told what each of them has done.

    Pieces have whole batches, and whole groups of rows of the compiled loops: they change no bit.

    Attributes
    ----------
    batch_size : int
        Rows per update.
    told : callable
        Called after each piece but the last, with its rows and the state of the replica.
    """

    batch_size: int
    told: Callable[[int, Sums], None]

    def learn(
        self,
        update_by: Callable[[Block, NDArray[np.int64]], None],
        block: Block,
        order: NDArray[np.int64],
        state: Sums,
    ) -> None:
        """Update a state by rows of a block, in pieces of about half a second."""
        unit, at, rows = math.lcm(self.batch_size, _LOOP_ROWS), 0, float(_FIRST_PIECE_ROWS)
        while True:
            piece = max(unit, int(rows) // unit * unit)
            # A rest of less than half a piece joins the last piece.
            end = len(order) if 2 * (len(order) - at) < 3 * piece else at + piece
            started = perf_counter()
            update_by(block, order[at:end])
            if end == len(order):
                return
            self.told(end - at, state)
            speed = (end - at) / max(perf_counter() - started, 1e-9)
            at, rows = end, min(4.0 * piece, _PIECE_SECONDS * speed)


class RowMap(Protocol):
    """The function of a map pass, as a value that is sent to the workers."""

    def workspace(self, rows: int) -> Workspace:
        """Return the scratch arrays of `run`, for blocks of at most `rows` rows."""

    def run(self, blocks: Iterator[Block], workspace: Arrays) -> Any:
        """Return the value of a run of rows, whose blocks come in order."""


def attempt(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of a task, or its error as a value.

    A raised error would be logged by every process on its way; a returned one reaches the driver
    once. A result counts only if the store is still the one that was opened.
    """
    try:
        # Later checks report values that are not finite, and losses that overflow.
        with np.errstate(over="ignore", invalid="ignore"):
            result = function(*arguments)
        if isinstance(arguments[0], StoreSource):
            arguments[0].require_same()
    except (OocTrainError, OSError, MemoryError, ValueError) as error:
        return error.with_traceback(None)
    return result


_local = threading.local()


def _reader(source: Source | None, task_blocks: TaskBlocks | None) -> Reader:
    """Return the reader of this thread: that of its previous task, if the source is the same."""
    if task_blocks is not None:
        return TaskBlocksReader(task_blocks)
    if source is None:
        raise TypeError("a task needs a source or blocks")
    if not isinstance(source, StoreSource):
        return source.reader()
    # A reader keeps shard indices and open files, which the next task needs again.
    if getattr(_local, "source", None) != source:
        _local.reader, _local.source = source.reader(), source
    reader: Reader = _local.reader
    return reader


def _largest(source: Source | None, task_blocks: TaskBlocks | None) -> int:
    """Return the rows of the largest partition."""
    if task_blocks is not None:
        return task_blocks.largest
    return 0 if source is None else source.partition_rows


def _buffers(source: Source | None, partitions: int = 1) -> Workspace:
    return {} if source is None else source.buffers(partitions)


def reduce_task(
    source: Source | None,
    reduction: Reduction,
    config: PassConfig,
    task_blocks: TaskBlocks | None,
    partitions: Sequence[int],
    first_group: int,
    group_partitions: int,
) -> tuple[dict[Node, Sums], Timings]:
    """Return the tree nodes over the partition groups of `partitions`, and the timings."""
    reader, tree = _reader(source, task_blocks), SumTree()
    rows, reading, computing, decoded = 0, 0.0, 0.0, reader.decoding
    reduction_workspace = reduction.workspace(_largest(source, task_blocks))
    with (
        one_blas_thread(),
        pool_of(config.pool_bytes) as pool,
        pool.take(_buffers(source), reduction_workspace, most_kept=config.kept_bytes) as (
            arrays,
            workspace,
        ),
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


def scan_task(
    source: Source | None,
    scan: Scan,
    config: PassConfig,
    task_blocks: TaskBlocks | None,
    replica: int,
    state: Sums,
    epoch_order: EpochOrder,
    start: int,
    stop: int,
    last: bool,
    watch: UpdateWatch | None = None,
) -> tuple[tuple[int, Sums], Timings]:
    """Return a replica and its state after the groups `start` to `stop`, and the timings.

    Threads of a pipeline read prefetches of some groups each, and update by them in order. With a
    `watch`, whose task runs in the calling process, a group is cut into pieces.
    """
    groups = epoch_order.groups()[start:stop]
    state = {name: array.copy() for name, array in state.items()}
    shuffle_chunks, size = len(groups[0]), config.prefetch_groups
    prefetches = [range(i, min(i + size, len(groups))) for i in range(0, len(groups), size)]
    rows = _largest(source, task_blocks) * shuffle_chunks
    slot_arrays = (
        _buffers(source, shuffle_chunks * len(prefetches[0])),
        {"order": ArraySpec((rows * len(prefetches[0]),), "<i8")},
    )
    read_ahead = ReadAhead(groups)
    timings: list[Timings] = []
    loaded: list[list[tuple[Block, NDArray[np.int64]]]] = [[] for _ in range(config.slots)]

    def read(prefetch: int, slot: int) -> None:
        started, at = perf_counter(), 0
        reader = _reader(source, task_blocks)
        decoded = reader.decoding
        arrays, numbers = lent[2 * slot : 2 * slot + 2]
        loaded[slot].clear()
        for i in prefetches[prefetch]:
            began = perf_counter()
            block = reader.gather(groups[i], arrays, at)
            read_ahead.after(i, perf_counter() - began, block.X.nbytes, reader)
            in_order = numbers["order"][at : at + block.n_rows]
            epoch_order.fill(in_order, start + i)
            loaded[slot].append((block, in_order))
            at += block.n_rows
        decoding = reader.decoding - decoded
        timings.append(Timings(at, perf_counter() - started - decoding, decoding))

    def update(slot: int) -> None:
        started = perf_counter()
        for block, in_order in loaded[slot]:
            if watch is None:
                update_by(block, in_order)
            else:
                watch.learn(update_by, block, in_order, state)
        timings.append(Timings(computing=perf_counter() - started))

    # All buffers at once: a thread that waited for memory would keep the others waiting.
    with (
        one_blas_thread(),
        pool_of(config.pool_bytes) as pool,
        pool.take(
            *config.slots * slot_arrays, scan.workspace(rows), most_kept=config.kept_bytes
        ) as (
            *lent,
            workspace,
        ),
    ):
        threads = min(config.pipeline_threads, len(prefetches))
        with scan.learner(state, workspace, config.update_threads) as update_by:
            waited = run_pipeline(read, update, len(prefetches), threads, config.slots)
        if last:
            scan.finish(state, workspace)
    return (replica, state), sum(timings, Timings(waiting=waited))


def map_task(
    source: Source | None,
    function: RowMap,
    config: PassConfig,
    task_blocks: TaskBlocks | None,
    partitions: Sequence[int],
    start: int,
    stop: int,
) -> tuple[Any, Timings]:
    """Return the value of `function` for some rows of consecutive partitions, and the timings.

    The rows from `start` to `stop` are counted from the first of the partitions.
    """
    reader = _reader(source, task_blocks)
    rows, reading, decoded, started = 0, 0.0, reader.decoding, perf_counter()

    def blocks() -> Iterator[Block]:
        nonlocal rows, reading
        began = perf_counter()
        for block in reader.run(partitions, arrays):
            reading += perf_counter() - began
            before, rows = rows, rows + block.n_rows
            yield block.within(start - before, stop - before)
            began = perf_counter()

    map_workspace = function.workspace(_largest(source, task_blocks))
    with (
        one_blas_thread(),
        pool_of(config.pool_bytes) as pool,
        pool.take(_buffers(source), map_workspace, most_kept=config.kept_bytes) as (
            arrays,
            workspace,
        ),
    ):
        result = function.run(blocks(), workspace)
    decoding = reader.decoding - decoded
    computing = perf_counter() - started - reading
    return result, Timings(rows, reading - decoding, decoding, computing)
