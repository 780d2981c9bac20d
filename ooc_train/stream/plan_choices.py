"""The choice of a plan: the most threads and the longest prefetches that fit a ceiling.

A plan decides how many tasks run at a time, how far reading runs ahead, and how large tasks are. It
doesn't change what is learned: partitions, the order of rows and the solver are no part of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ooc_train.core.text import counted
from ooc_train.core.units import approximate_bytes
from ooc_train.memory.ceiling import Ceiling, Projection
from ooc_train.store.jobs.rewriting_commands import rechunk_command, shuffle_command
from ooc_train.stream.baseline import Processes
from ooc_train.stream.dask_source import DaskSource
from ooc_train.stream.executors import RESULTS_PER_FETCH
from ooc_train.stream.pass_config import PassConfig
from ooc_train.stream.plan import Plan
from ooc_train.stream.plan_terms import (
    group_count,
    plan_terms,
    pool_within_limits,
    power_of_two,
    prefetch_bytes,
    reduce_bytes,
    scan_bytes,
)
from ooc_train.stream.requirements import Requirements
from ooc_train.stream.sources import Source
from ooc_train.stream.store_source import StoreSource

_MIB = 2**20

_TASK_BYTES, _MIN_TASK_BYTES = 1024 * _MIB, 64 * _MIB
"""Bytes of rows of a reduce task, at first and at the end of a pass: each task costs the processes
of Dask about 10 ms."""

_MIN_TASKS = 4
"""Tasks for each thread, at least, so that all threads finish at about the same time."""

_WAITING, _SMALL_SUMS = 3, 256 * 2**10
"""Tasks that wait for each thread, and bytes of sums from which on only one task waits."""

_PIPELINE_THREADS, _PREFETCH_BYTES = 2, 3 * _MIB
"""Threads of a scan: an update takes about as long as a read, so two share the work. Bytes of a
prefetch: the overhead of smaller ones exceeds the gain of rows that are still in cache."""

_KEPT_BYTES = 8 * _MIB
"""Idle buffers that a process keeps in a run with scans, which do not run in every process."""


@dataclass(frozen=True, slots=True)
class _Choice:
    """Threads of a plan, and threads and prefetches of a scan as in `PassConfig`."""

    threads: int
    pipeline_threads: int = 1
    prefetch_groups: int = 1


def make_plan(
    source: Source,
    requirements: Requirements,
    ceiling: Ceiling,
    processes: Processes,
    validation: tuple[Source, Requirements] | None = None,
) -> Plan:
    """Return the best plan that fits the ceiling, or the smallest plan if none fits.

    Parameters
    ----------
    validation : tuple of (Source, Requirements), optional
        Validation rows, and what reduce passes over them need; both kinds of passes alternate.
    """

    def plan_of(choice: _Choice) -> Plan:
        plan = _plan(source, requirements, ceiling, processes, choice)
        if validation is None:
            return plan
        return plan.joined(_plan(*validation, ceiling, processes, _Choice(choice.threads)))

    choices = list(_choices(source, requirements, processes))
    for choice in choices:
        plan = plan_of(choice)
        if plan.fits:
            break
    # If none fits, an automatic ceiling rises to the smallest plan.
    return replace(
        plan,
        ceiling=ceiling.raised_to(plan.projected),
        smallest_ceiling=plan_of(choices[-1]).projection.smallest_ceiling,
    )


def _choices(source: Source, requirements: Requirements, processes: Processes) -> Iterator[_Choice]:
    """Yield choices in decreasing order of resources.

    The first that fits is chosen, so a larger ceiling never yields a worse plan. The pipeline of a
    scan, which is most of the work, is given up after further threads.
    """
    scans = [(1, 1)]
    if requirements.shuffle_chunks:
        group = requirements.shuffle_chunks * source.partition_rows * max(source.row_bytes, 1)
        # No pipelines if replicas alone keep all threads busy.
        if requirements.replicas * _PIPELINE_THREADS <= max(processes.threads, _PIPELINE_THREADS):
            share = -(
                -source.n_partitions
                // (requirements.shuffle_chunks * requirements.replicas * _PIPELINE_THREADS)
            )
            most = max(1, min(share, _PREFETCH_BYTES // group))
            scans = [(_PIPELINE_THREADS, most), (_PIPELINE_THREADS, 1), (1, 1)]
    for threads in range(processes.threads, 1, -1):
        yield _Choice(threads, *scans[0])
    for scan in scans:
        yield _Choice(1, *scan)


def _config(
    source: Source, requirements: Requirements, processes: Processes, choice: _Choice
) -> PassConfig:
    """Return how passes are cut, with a pool in which no thread waits for memory."""
    threads = choice.threads
    group_bytes = source.group_partitions * source.partition_rows * max(source.row_bytes, 1)
    # A task receives all its blocks of a Dask array at once, as arguments.
    is_dask = isinstance(source, DaskSource)
    task_bytes = _MIN_TASK_BYTES if is_dask else _TASK_BYTES
    # Waiting tasks hide the way to the driver and back, of some 20 ms. If the ceiling doesn't allow
    # all threads, a further task would run on a thread without memory.
    large = max(requirements.sums, requirements.shared, requirements.result) > _SMALL_SUMS
    waiting = 1 if is_dask or large else _WAITING
    slots, groups = choice.pipeline_threads, choice.prefetch_groups
    if (
        requirements.shuffle_chunks
        and slots > 1
        and prefetch_bytes(source, requirements, groups) <= 2 * _PREFETCH_BYTES
    ):
        slots += 1  # so that threads seldom wait; a large slot isn't worth its memory
    replicas = min(requirements.replicas, threads)
    per_process = max((n for _, n in processes.workers), default=threads)
    result_bytes = max(requirements.sums, requirements.state, requirements.result)
    return PassConfig(
        # Powers of two: such a task returns a single node of the tree of sums.
        task_groups=power_of_two(task_bytes // group_bytes),
        window=(1 + waiting) * threads if threads == processes.threads else threads,
        replicas=replicas,
        pipeline_threads=choice.pipeline_threads,
        slots=slots,
        prefetch_groups=groups,
        pool_bytes=max(
            reduce_bytes(requirements) * min(per_process, threads),
            scan_bytes(source, requirements, slots, groups) * min(per_process, replicas),
        ),
        min_task_groups=power_of_two(
            min(_MIN_TASK_BYTES // group_bytes, group_count(source) // (_MIN_TASKS * threads))
        ),
        threads=threads,
        update_threads=max(1, threads // replicas),
        results_per_fetch=1 if result_bytes > _SMALL_SUMS else RESULTS_PER_FETCH,
        kept_bytes=_KEPT_BYTES if requirements.shuffle_chunks else None,
    )


def _plan(
    source: Source,
    requirements: Requirements,
    ceiling: Ceiling,
    processes: Processes,
    choice: _Choice,
) -> Plan:
    """Return the plan of one choice, whether or not it fits."""
    config = _config(source, requirements, processes, choice)
    pool, overrun = pool_within_limits(source, requirements, processes, config)
    terms = plan_terms(source, requirements, processes, config)
    return Plan(
        ceiling,
        Projection(terms, started=processes.started),
        replace(config, pool_bytes=pool),
        choice.threads,
        processes,
        advice_on(source, requirements.shuffle_chunks),
        source.partition_rows,
        source.partition_rows * source.row_bytes,
        overrun,
        way_out=requirements.way_out,
    )


def advice_on(source: Source, shuffle_chunks: int) -> str:
    """Say how the rows of a store could take less memory, "" if they could not."""
    if not isinstance(source, StoreSource):
        return ""
    found = source.layouts
    if source.oversized:
        largest = max(found.values(), key=lambda layout: layout.chunk_bytes)
        size = approximate_bytes(largest.chunk_bytes)
        return (
            f"rewrite the store, whose chunks of {largest.name} take {size} each, in smaller ones: "
            f"{rechunk_command(source.path, found)}"
        )
    if shuffle_chunks > 1 and not source.shuffled:
        return (
            f"put the rows in random order once, so that {counted(shuffle_chunks, 'chunk')} "
            f"need not be mixed: {shuffle_command(source.path, found)}"
        )
    if shuffle_chunks > 1:
        return "use a smaller shuffle_chunks"
    if source.partition_rows == 1:
        return f"learn from fewer columns: a row alone takes {approximate_bytes(source.row_bytes)}"
    return ""
