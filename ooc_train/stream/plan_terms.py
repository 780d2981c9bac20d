"""The terms of a plan: the bytes that passes hold, each with its reason."""

from itertools import accumulate
from math import log2

from ooc_train.core.sums import ArraySpec, total_bytes
from ooc_train.core.units import approximate_bytes
from ooc_train.memory.ceiling import Term
from ooc_train.stream.baseline import Processes
from ooc_train.stream.pass_config import PassConfig
from ooc_train.stream.requirements import Requirements
from ooc_train.stream.shared import SHARED
from ooc_train.stream.sources import Source

_MIB = 2**20

_COLUMN_COPIES = 6
"""Numbers that the driver holds for each column: mean, scale, inverse scale, penalty, and two
scratch numbers."""

_PICKLED, _OPENED = 6, 2
"""Copies of small arguments: of each task on its way, in the client, the scheduler and their
messages; and of each task that runs, pickled and opened."""

_STATE_COPIES = 3
"""Copies of a replica's state in a worker: the argument, the state, and the previous result."""

_WORKER_HEADROOM = 8 * _MIB
_DRIVER_HEADROOM = 24 * _MIB
"""Growth of an interpreter while tasks run; in the driver, that of the scheduler and the dashboard
too. Measured: 1 to 10 MiB each, with four pages of the dashboard open."""

FIXED_TERMS = ("baseline", "headroom", "shared libraries")
"""Terms that no change to the job makes smaller."""


def reduce_bytes(requirements: Requirements) -> int:
    """Return the bytes of buffers of one reduce task."""
    return requirements.partition + requirements.workspace


def prefetch_bytes(source: Source, requirements: Requirements, groups: int) -> int:
    """Return the bytes of rows in a prefetch of so many shuffle groups."""
    return total_bytes(source.buffers(groups * requirements.shuffle_chunks))


def scan_bytes(source: Source, requirements: Requirements, slots: int, prefetch_groups: int) -> int:
    """Return the bytes of buffers of one replica of a scan, 0 without a scan."""
    if not requirements.shuffle_chunks:
        return 0
    rows = prefetch_groups * source.partition_rows * requirements.shuffle_chunks
    order = ArraySpec((rows,), "<i8")
    prefetch = prefetch_bytes(source, requirements, prefetch_groups)
    return slots * (prefetch + order.nbytes) + requirements.updates


def group_count(source: Source) -> int:
    """Return the number of partition groups."""
    return -(-source.n_partitions // source.group_partitions)


def power_of_two(n: int) -> int:
    """Return the largest power of two up to n, at least 1."""
    return 1 << (max(n, 1).bit_length() - 1)


def _levels(groups: int) -> int:
    """Return the most sums that a tree over so many partition groups holds."""
    return 2 + int(log2(max(groups, 1)))


def _task_levels(source: Source, config: PassConfig) -> int:
    """Return the most sums that a reduce task holds."""
    groups = group_count(source)
    # The partition groups of the first task, as `task_ranges` cuts them.
    first = power_of_two(2 * groups // (3 * config.threads))
    run = min(config.task_groups, max(config.min_task_groups, first))
    return min(_levels(groups), 2 + int(log2(run)))


def _argument_bytes(requirements: Requirements, processes: Processes, config: PassConfig) -> int:
    """Return the bytes of arguments of tasks, on their way and where tasks run."""
    threads, window, replicas = config.threads, config.window, config.replicas
    opened = threads * requirements.opened
    if not processes.workers:
        # Tasks of this process use its arrays, and copy only the state of a replica.
        return opened + replicas * requirements.state
    # A message through the scheduler may bring arrays misaligned, and each thread copies those.
    misaligned = 0 if processes.direct else threads
    if requirements.shared >= SHARED:
        shared = requirements.shared * (len(processes.workers) + misaligned)
    else:
        shared = requirements.shared * (_PICKLED * window + _OPENED * threads)
    # The scheduler, mostly in this process, holds a task's state too.
    states = replicas * requirements.state * (_STATE_COPIES + 1 + min(misaligned, 1))
    return opened + shared + states


def _thread_bytes(
    source: Source, requirements: Requirements, processes: Processes, config: PassConfig
) -> int:
    """Return the bytes of a worker's thread, apart from buffers of the pool."""
    arguments = _argument_bytes(requirements, processes, config) // config.threads
    sums = requirements.sums * _task_levels(source, config)
    return sums + arguments + source.hidden_bytes


def pool_within_limits(
    source: Source, requirements: Requirements, processes: Processes, config: PassConfig
) -> tuple[int, tuple[int, int, int] | None]:
    """Return the bytes of a pool that fits every worker's limit, and the first overrun or None.

    An overrun is a worker whose limit is too small for one task: its number, its limit, and its
    need in bytes.
    """
    pool, overrun = config.pool_bytes, None
    if not processes.limits:
        return pool, overrun
    scan = scan_bytes(source, requirements, config.slots, config.prefetch_groups)
    least = max(reduce_bytes(requirements), scan)
    per_thread = _thread_bytes(source, requirements, processes, config)
    for i, limit in enumerate(processes.limits):
        held, threads = processes.workers[i]
        outside_pool = held + _WORKER_HEADROOM + threads * per_thread
        if limit and limit < outside_pool + least:
            overrun = overrun or (i, limit, outside_pool + least)
        elif limit:
            pool = min(pool, limit - outside_pool)
    return pool, overrun


def _sum_bytes(
    source: Source, requirements: Requirements, processes: Processes, config: PassConfig
) -> int:
    """Return the bytes of sums and results: in tasks, on their way, and in the driver."""
    # Within one process, the driver takes the very result of a task.
    on_the_way = config.window if processes.workers else 1
    levels, task_levels = _levels(group_count(source)), _task_levels(source, config)
    sums = requirements.sums * (config.threads * task_levels + on_the_way + levels)
    algebra = max(0, requirements.algebra - levels * requirements.sums)
    return sums + algebra + requirements.result * (2 * config.threads + on_the_way + 2)


def _buffer_bytes(reduce: int, scan: int, processes: Processes, config: PassConfig) -> int:
    """Return the bytes that the pools of all processes come to, each at its peak.

    Replicas of a scan have a worker each. Other tasks, if fewer than the threads at a time, go to
    as few workers as have threads for them.
    """
    workers = sorted(threads for _, threads in processes.workers) or [config.threads]
    reached = list(accumulate(workers, initial=0))[:-1]  # by the workers before each
    per_process = min(config.threads, workers[-1])
    kept = config.pool_bytes if config.kept_bytes is None else config.kept_bytes
    total = 0
    for i, before in enumerate(reached):
        tasks = per_process if before < config.window else 0
        replicas = len(range(i, config.replicas, len(workers)))
        busy = max(reduce * tasks, scan * replicas)
        total += min(config.pool_bytes, busy + kept) if busy else 0
    return total


def plan_terms(
    source: Source, requirements: Requirements, processes: Processes, config: PassConfig
) -> tuple[Term, ...]:
    """Return the terms of the memory that a run is projected to hold."""
    threads, scans = config.threads, config.slots * config.replicas
    reduce = reduce_bytes(requirements)
    scan = scan_bytes(source, requirements, config.slots, config.prefetch_groups)
    if scan * config.replicas >= reduce * threads:
        slot = approximate_bytes(scan / config.slots)
        text = f"{scans} x {slot}: chunks, and the work on them"
    else:
        text = f"{threads} x {approximate_bytes(reduce)}: a chunk, and the work on it"
    buffers = _buffer_bytes(reduce, scan, processes, config)
    others = buffers - max(reduce * threads, scan * config.replicas)
    if others > 0:
        text += f"; {approximate_bytes(others)} at other times"
    terms = [
        Term("baseline", processes.baseline, processes.baseline_text),
        Term(
            "headroom",
            _DRIVER_HEADROOM + len(processes.workers) * _WORKER_HEADROOM,
            "growth of interpreters, scheduler and dashboard",
        ),
        Term("shared libraries", processes.libraries, "shared with processes that may end"),
        Term("buffers", buffers, text),
        Term(
            "decoding",
            source.hidden_bytes * threads,
            "by zarr-python, and of a y in other chunks than X",
        ),
        Term(
            "sums",
            _sum_bytes(source, requirements, processes, config),
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
            _argument_bytes(requirements, processes, config),
            f"{approximate_bytes(requirements.shared + requirements.state)} of arguments, and what "
            "tasks make of them",
        ),
    ]
    if requirements.results:
        terms.append(Term("results", requirements.results, "what is returned to the caller"))
    if requirements.sample:
        terms.append(Term("sample", requirements.sample, "rows for metrics within a pass"))
    return tuple(terms)
