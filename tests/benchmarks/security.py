"""What it costs that nobody else can connect: clusters with a key and TLS, over those without.

Seconds, and seconds of the cores in all processes together, which other work disturbs less.

``python -m tests.benchmarks.security [--rows 2M] [--rounds N] [--json FILE]``
"""

import os
import resource
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from ooc_train.core.units import parse_rows
from ooc_train.memory.processes import process_tree
from ooc_train.models.classification_models import LogisticModel
from ooc_train.runtime.cluster import LocalCluster
from ooc_train.solvers.training_settings import Training
from ooc_train.store.jobs.synthetic import make_data
from ooc_train.store.writing.writer import StoreWriter
from ooc_train.stream.inputs import read_inputs
from ooc_train.training.loop import train
from tests.benchmarks.tools import Figure, arguments, interleave, report, table

WAYS = {"TLS": True, "insecure": False}
LIMITED = 20
"""Iterations of the fits whose passes are short."""


def start(*, security: bool) -> LocalCluster:
    return LocalCluster(n_workers=2, dashboard_address="127.0.0.1:0", security=security)


def cores() -> float:
    """Return the seconds that this process and its children have had of the cores."""
    ended = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    total = sum(each.ru_utime + each.ru_stime for each in ended)
    for pid in process_tree()[1:]:
        with suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def started(security: bool) -> Callable[[], float]:
    """Return what starts a cluster, and returns the seconds until a task has been run."""

    def run() -> float:
        begun = perf_counter()
        with start(security=security) as cluster, cluster.get_client() as client:
            client.submit(int, "7").result()
            return perf_counter() - begun

    return run


def tasks(client: Any, count: int = 300) -> Callable[[], float]:
    """Return what runs tasks that do nothing, one after another, and returns seconds for one."""

    def run() -> float:
        begun = perf_counter()
        for number in range(count):
            client.submit(int, number, pure=False).result()
        return (perf_counter() - begun) / count

    return run


def fitted(client: Any, store: Any, training: Training, most: list[Any]) -> Callable[[], float]:
    """Return what fits, notes the memory, and returns the seconds of a pass."""
    inputs = read_inputs(store, classifier=True)

    def run() -> float:
        _, done = train(LogisticModel(), inputs, training, client=client)
        most.append(done.memory)
        return done.seconds / done.passes

    return run


def many_classes(path: str, rows: int, features: int = 10_000, classes: int = 100) -> Any:
    """Write rows whose model has a million parameters: 8 MB that each task is given and returns."""
    rng = np.random.default_rng(0)
    with StoreWriter(
        path, n_features=features, dtype=np.dtype(np.float32), classes=range(classes), chunk_rows=64
    ) as writer:
        for _ in range(0, rows, 1000):
            X = rng.standard_normal((1000, features), dtype=np.float32)
            writer.write(X, rng.integers(classes, size=1000))
        return writer.commit()


def main() -> None:
    """Let both kinds of clusters take turns."""
    options = arguments(__doc__.partition("\n")[0], rows="2M").parse_args()
    lines, figures = [], {}

    def compare(name: str, unit: str, runs: dict[str, Callable[[], float]], rounds: int) -> None:
        had: dict[str, list[float]] = {key: [] for key in runs}

        def counted(key: str) -> Callable[[], float]:
            def run() -> float:
                before = cores()
                seconds = runs[key]()
                had[key].append(cores() - before)
                return seconds

            return run

        each = interleave({key: counted(key) for key in runs}, rounds)
        taken = {key: np.array(seconds) for key, seconds in each.items()}
        scale = {"s": 1.0, "ms": 1e3}[unit]
        ratio = Figure.of(taken["TLS"] / taken["insecure"])
        of_cores = Figure.of(np.array(had["TLS"][1:]) / np.array(had["insecure"][1:]))
        figures[name] = {"seconds": ratio, "cores": of_cores}
        shown = [str(Figure.of(scale * taken[key])) + f" {unit}" for key in WAYS]
        lines.append((name, *shown, str(ratio), str(of_cores)))
        print(*lines[-1], sep="  ", flush=True)

    compare(
        "start, and one task",
        "s",
        {key: started(security) for key, security in WAYS.items()},
        options.rounds,
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        start(security=True) as guarded,
        start(security=False) as open_to_all,
        guarded.get_client() as first,
        open_to_all.get_client() as second,
    ):
        clients = {"TLS": first, "insecure": second}
        compare(
            "a task that does nothing",
            "ms",
            {k: tasks(c) for k, c in clients.items()},
            options.rounds,
        )
        rows = parse_rows(options.rows)
        lbfgs = Training(solver="lbfgs", max_iter=LIMITED, tol=1e-14)
        small = make_data(f"{folder}/small.zarr", rows=20_000, features=20, random_state=0)
        made = make_data(f"{folder}/made.zarr", rows=rows, features=100, random_state=0)
        wide = make_data(f"{folder}/wide.zarr", rows=100_000, features=1000, random_state=0)
        large = many_classes(f"{folder}/large.zarr", 1000)
        for name, store, training in (
            ("a pass over 20,000 rows x 20", small, lbfgs),
            (f"a pass over {rows:,} rows x 100", made, lbfgs),
            ("a pass over 100,000 rows x 1,000", wide, lbfgs),
            (
                "a pass, 10,000 features x 100 classes",
                large,
                Training(solver="lbfgs", max_iter=4, tol=1e-14),
            ),
        ):
            memory: dict[str, list[Any]] = {key: [] for key in WAYS}
            runs = {key: fitted(c, store, training, memory[key]) for key, c in clients.items()}
            compare(name, "ms", runs, options.rounds)
            for key, held in memory.items():
                peak = max(each.measured for each in held)
                print(f"  {key}: projected {held[-1].projected:,} bytes, measured {peak:,}")
    report(table(("", *WAYS, "TLS over insecure", "of the cores"), lines), figures, options.json)


if __name__ == "__main__":
    main()
