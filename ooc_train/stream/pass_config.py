"""How a plan cuts passes into tasks."""

from dataclasses import dataclass

from ooc_train.stream.executors import RESULTS_PER_FETCH


@dataclass(frozen=True, slots=True)
class PassConfig:
    """Sizes of tasks, windows and pools. No setting changes what is learned.

    Attributes
    ----------
    task_groups : int
        Partition groups of the first reduce tasks of a pass, a power of two.
    window : int
        Tasks in flight.
    replicas : int
        Replicas of a scan that run at a time.
    pipeline_threads : int
        Threads of each replica: one updates, while the others read.
    slots : int
        Prefetches that each replica holds at a time.
    prefetch_groups : int
        Shuffle groups of a prefetch, which one thread reads at a time.
    pool_bytes : int
        Most bytes of buffers in one process.
    min_task_groups : int
        Partition groups of the last reduce tasks of a pass, a power of two.
    threads : int
        Tasks that run at a time.
    update_threads : int
        Threads of a replica that may share the work of a batch.
    results_per_fetch : int
        Results that the driver fetches at a time.
    kept_bytes : int or None
        Most bytes of idle buffers in one process when a task ends; None keeps all.
    """

    task_groups: int
    window: int
    replicas: int
    pipeline_threads: int
    slots: int
    prefetch_groups: int
    pool_bytes: int
    min_task_groups: int = 1
    threads: int = 1
    update_threads: int = 1
    results_per_fetch: int = RESULTS_PER_FETCH
    kept_bytes: int | None = None
