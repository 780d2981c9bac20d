"""Whether much costs as much a piece as little: gigabytes of data, and tasks of a pass.

``python -m tests.benchmarks.scaling [--sizes 1GB,4GB,16GB,32GB] [--tasks 1k,10k,100k] [--rounds N]
[--only PART] [--json FILE]``; the largest size is the disk that it takes in the temporary folder.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
from distributed import Client

from ooc_train.core.units import approximate_bytes, format_rows, parse_bytes, parse_rows
from ooc_train.memory.processes import measure
from ooc_train.memory.system import machine_memory
from ooc_train.models.classification_models import LogisticModel
from ooc_train.runtime.cluster import LocalCluster
from ooc_train.runtime.job import Job
from ooc_train.solvers.training_settings import Training
from ooc_train.store.dataset import Store
from ooc_train.store.jobs.synthetic import make_data
from ooc_train.stream.input_data import Inputs
from ooc_train.stream.inputs import read_inputs
from ooc_train.stream.store_source import StoreSource
from ooc_train.stream.timings import Timings
from ooc_train.training.task import Task
from tests.benchmarks.stream import OurPass, Section, after_forgetting
from tests.benchmarks.tools import Figure, interleave, report, table

_APART = 1.05
"""The seconds per GB of the slowest size are at most so many times those of the fastest."""

_WARM_ROUNDS = 4
"""Rounds in memory for each from the disk: passes of a tenth of a second are short and unsteady."""

_TIMES = 1.2
"""A task of the most takes at most so many times what one of the next fewer does."""

_LEFT = 16
"""And leaves at most so many bytes in this process: those of the smallest object of Python."""

_LOOKS = 10
"""How often this process's memory is looked at during a pass of tiny tasks."""

_FEATURES = 100


class Prefixes:
    """Full-batch passes over the first bytes of a store, of several sizes, in turns.

    The first rows of a made store are those of a shorter one, so that one store has all sizes.
    """

    def __init__(self, store: Store, sizes: Sequence[str], client: Client, jobs: ExitStack) -> None:
        truth = store.attributes["made"]
        self._at = 0.5 * np.array(truth["coef"]), 0.5 * np.array(truth["intercept"])
        self._files = [str(file) for file in sorted(Path(store.path).rglob("*")) if file.is_file()]
        self._passes: dict[str, tuple[OurPass, float]] = {}
        self._timings: dict[str, Timings] = {}
        inputs, whole = read_inputs(store, classifier=True), StoreSource.of(store)
        for size in sizes:
            chunks = max(1, parse_bytes(size) // (whole.partition_rows * whole.row_bytes))
            source = replace(whole, n_rows=min(chunks * whole.partition_rows, whole.n_rows))
            job = jobs.enter_context(Job(source, client=client))
            one_pass = OurPass(store, job, logistic(replace(inputs, source=source)))
            self._passes[size] = one_pass, source.n_rows * source.row_bytes / 1e9

    def costs(
        self, sizes: Sequence[str], rounds: int, *, cold: bool
    ) -> dict[str, tuple[Figure, float]]:
        """Return of each size its seconds per GB, and the share of them that was Dask's."""
        runs: dict[str, Callable[[], float]] = {size: partial(self._run, size) for size in sizes}
        if cold:
            runs = {size: partial(after_forgetting, self._files, run) for size, run in runs.items()}
        self._timings.clear()
        # What making the store left in memory may not be written yet. A first round, which doesn't
        # count, brings back what lies in memory from then on.
        after_forgetting(self._files, float)
        seconds = interleave(runs, rounds)
        return {size: (Figure.of(seconds[size]), self._of_dask(size)) for size in sizes}

    def _run(self, size: str) -> float:
        """Return the seconds that a pass takes for each GB."""
        one_pass, gigabytes = self._passes[size]
        seconds, _, timings = one_pass(*self._at)
        self._timings[size] = self._timings.get(size, Timings()) + timings
        return seconds / gigabytes

    def _of_dask(self, size: str) -> float:
        profile = self._timings[size].profile
        return profile["dask"] / sum(profile.values())


def logistic(inputs: Inputs) -> Task:
    """Return the task of a logistic regression by full batches."""
    return Task.of(LogisticModel(), inputs, Training(solver="lbfgs"))


def passes(folder: str, client: Client, sizes: Sequence[str], rounds: int) -> Section:
    """Return what a GB costs in passes over more and more of them, warm and cold."""
    memory = machine_memory()
    warm = [size for size in sizes if 2 * parse_bytes(size) <= memory]
    # Rows have a y too, so that these are a few more than the largest size takes.
    rows = max(map(parse_bytes, sizes)) // (4 * _FEATURES)
    store = make_data(f"{folder}/made.zarr", rows=rows, features=_FEATURES, condition=100.0)
    with ExitStack() as jobs:
        prefixes = Prefixes(store, sizes, client, jobs)
        costs = {
            "warm": prefixes.costs(warm, _WARM_ROUNDS * rounds, cold=False) if warm else {},
            "cold": prefixes.costs(sizes, rounds, cold=True),
        }
    lines, figures = [repr(store)], {}
    for name, of in costs.items():
        cells = [(size, str(figure), f"{dask:.1%}") for size, (figure, dask) in of.items()]
        lines.append(table((name, "s per GB, median (quartiles)", "of it Dask"), cells))
        if name == "warm" and len(warm) < len(sizes):
            left_out = ", ".join(size for size in sizes if size not in warm)
            lines.append(f"left out: {left_out}, more than half of {approximate_bytes(memory)}")
        if len(of) > 1:
            medians = [figure.median for figure, _ in of.values()]
            apart = max(medians) / min(medians)
            lines.append(at_most(f"{name}, the slowest size over the fastest", apart, _APART))
        by_size = {size: {"s_per_gb": figure, "dask": dask} for size, (figure, dask) in of.items()}
        figures[name] = {"sizes": by_size, "target": _APART}
    return "\n".join(lines), figures


class TinySource(StoreSource):
    """The rows of a store with a chunk for a partition group, so that a task can be as small as a
    chunk.

    A task of a plan is a partition group of 8 MiB at least: 100,000 of them would be 800 GB.
    """

    @property
    def group_partitions(self) -> int:
        """One."""
        return 1


@dataclass(frozen=True)
class TinyTasks:
    """What a pass of tiny tasks took.

    Attributes
    ----------
    count : tasks
    seconds, cores : of the wall, and of all threads of this process, in which the scheduler is
    held : bytes that this process held before, and at each tenth of the pass
    """

    count: int
    seconds: float
    cores: float
    held: tuple[int, ...]

    @property
    def milliseconds(self) -> float:
        """Milliseconds of a task."""
        return 1e3 * self.seconds / self.count

    def left(self, since: int = 0) -> float:
        """Return the bytes that a task left behind, of those from a look at the memory on."""
        return (self.held[-1] - self.held[since]) / (self.count * (1 - since / _LOOKS))

    def row(self) -> tuple[str, ...]:
        """Return the cells of a table: memory is that of 1,000 tasks."""
        cores = 1e3 * self.cores / self.count
        left = (f"{1e3 * self.left(since) / 2**10:.3g}" for since in (0, _LOOKS // 2))
        return format_rows(self.count), f"{self.milliseconds:.3g}", f"{cores:.3g}", *left


def tasks(folder: str, client: Client, counts: Sequence[int]) -> Section:
    """Return what a task with next to nothing to do costs in passes of more and more of them.

    Each reads a chunk of its own. The fewer come before and after the most, so that a machine that
    drifts does so for all.
    """
    store = make_data(f"{folder}/tiny.zarr", rows=4 * max(counts), features=8, chunk_rows=4)
    source = TinySource.of(store)
    task = logistic(replace(read_inputs(store, classifier=True), source=source))
    work = task.problem.reduction(task.problem.initial()[None])
    with Job(source, client=client) as job:
        plan = job.plan(task.requirements())
        plan = replace(plan, config=replace(plan.config, task_groups=1, min_task_groups=1))

        def run(count: int) -> TinyTasks:
            held, done = [measure().current], 0

            def look(_: int) -> None:
                nonlocal done
                done += 1
                if done * _LOOKS // count > len(held) - 1:
                    held.append(measure().current)

            stream, started, cores = job.stream(plan, look), perf_counter(), process_time()
            stream.reduce(work, range(count))
            return TinyTasks(count, perf_counter() - started, process_time() - cores, tuple(held))

        run(min(counts))
        found = [run(count) for count in (*counts, *reversed(counts[:-1]))]
    header = ("tasks", "ms each", "of this process", "KiB left per 1,000", "in the second half")
    lines = [table(header, [of.row() for of in found])]
    fewer, most = counts[-2:]
    taken = {n: np.mean([of.milliseconds for of in found if of.count == n]) for n in counts}
    times, left = float(taken[most] / taken[fewer]), found[len(counts) - 1].left(_LOOKS // 2)
    lines += [
        at_most(f"ms of a task of {most:,} over those of one of {fewer:,}", times, _TIMES),
        at_most(f"bytes that a task of the second half of {most:,} leaves behind", left, _LEFT),
    ]
    return "\n".join(lines), {"passes": found, "times": times, "left": left}


def at_most(name: str, value: float, most: float) -> str:
    """Return whether a figure kept to what is its most, as a line."""
    return f"{name}: {value:.3g}, at most {most:g} {'reached' if value <= most else 'MISSED'}"


def main() -> None:
    """Run passes over more and more bytes, and of more and more tasks, and say what each costs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", default="1GB,4GB,16GB,32GB", help="of data (%(default)s)")
    parser.add_argument("--tasks", default="1k,10k,100k", help="of a pass, ascending (%(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="over each size (%(default)s)")
    parser.add_argument("--only", choices=("passes", "tasks"))
    parser.add_argument("--json", type=Path, metavar="FILE", help="to write the figures to")
    options = parser.parse_args()
    sizes = options.sizes.split(",")
    counts = [parse_rows(count) for count in options.tasks.split(",")]
    if len(counts) < 2 or counts != sorted(counts) or counts[0] < _LOOKS:
        parser.error(f"--tasks {options.tasks}: give two numbers or more, ascending from {_LOOKS}")
    texts: list[str] = []
    figures: dict[str, Any] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(n_workers=2, dashboard_address="127.0.0.1:0") as cluster,
        cluster.get_client() as client,
    ):
        parts: dict[str, Callable[[], Section]] = {
            "passes": lambda: passes(folder, client, sizes, options.rounds),
            "tasks": lambda: tasks(folder, client, counts),
        }
        for name in [options.only] if options.only else parts:
            text, figures[name] = parts[name]()
            texts.append(text)
    report("\n\n".join(texts), figures, options.json)


if __name__ == "__main__":
    # By its name: a source of `__main__` would have its class written out for every task.
    from tests.benchmarks import scaling

    scaling.main()
