"""What the first run on a machine waits for: its kernels are compiled, and found by the next.

Each run is a process of its own, with a cache folder of its own: empty, then as the first run left
it. The wait is that of `train`, from its call to its first pass, less that of the run after it.
Seconds of the cores, in the processes that compile, are less disturbed by other work.

``python -m tests.benchmarks.compiling [--rows 40k] [--rounds N] [--json FILE]``
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from itertools import product
from time import perf_counter
from typing import Any

from ooc_train import Compiling, LogisticModel, Started, Training, make_data, train
from ooc_train.core.units import parse_rows
from tests.benchmarks.tools import Figure, arguments, report, table

TARGETS: dict[str, float] = {"full": 6.0, "256": 6.0, "1": 12.0}
"""Most seconds to wait on two free cores, by the batch size."""

FEATURES = 500
"""So many that the Hessian of a full batch is added up by compiled kernels."""


def fit(batch_size: str, store: str) -> dict[str, Any]:
    """Fit once; return what this process waited for before the first pass, and what it compiled."""
    kernels: list[str] = []
    started: list[float] = []

    def listen(event: object) -> None:
        if isinstance(event, Compiling):
            kernels.extend(event.kernels)
        elif isinstance(event, Started):
            started.append(perf_counter())

    rows_per_update = batch_size if batch_size == "full" else int(batch_size)
    training = Training(batch_size=rows_per_update, max_iter=1)
    begun = perf_counter()
    train(LogisticModel(), store, training, callbacks=[listen])
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "wait": started[0] - begun,
        "cores": children.ru_utime + children.ru_stime,
        "kernels": kernels,
    }


def in_a_process(batch_size: str, store: str, cache: str) -> dict[str, Any]:
    """Fit once in a new process that keeps its kernels in a folder."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", __spec__.name, "--fit", batch_size, store],
        env=os.environ | {"OOC_TRAIN_CACHE_DIR": cache},
        check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Let batch sizes take turns, each without kernels and with them."""
    options = arguments(__doc__.partition("\n")[0], rows="40k").parse_args()
    rows = parse_rows(options.rows)
    waits: dict[str, list[float]] = {size: [] for size in TARGETS}
    cores: dict[str, list[float]] = {size: [] for size in TARGETS}
    cached: dict[str, list[float]] = {size: [] for size in TARGETS}
    names: dict[str, list[str]] = {}
    loads = []
    with tempfile.TemporaryDirectory() as folder:
        store = make_data(f"{folder}/a.zarr", rows=rows, features=FEATURES, random_state=0).path
        for turn, size in product(range(options.rounds), TARGETS):
            loads.append(os.getloadavg()[0])
            cache = f"{folder}/{turn}-{size}"
            first, second = (in_a_process(size, store, cache) for _ in range(2))
            if not first["kernels"] or second["kernels"]:
                raise RuntimeError(f"compiled {first['kernels']}, then {second['kernels']}")
            waits[size].append(first["wait"] - second["wait"])
            cores[size].append(first["cores"])
            cached[size].append(second["wait"])
            names[size] = first["kernels"]
    lines, figures = [], {}
    for size, target in TARGETS.items():
        wait = Figure.of(waits[size])
        figures[size] = {
            "wait": wait,
            "cores": Figure.of(cores[size]),
            "cached": Figure.of(cached[size]),
            "kernels": names[size],
            "target": target,
        }
        ratio = wait.median / target
        word = "reached" if ratio <= 1 else "MISSED"
        lines.append(
            (
                f"batches of {size}",
                f"{wait} s",
                f"{target:g} s",
                f"{ratio:.2f} {word}",
                f"{Figure.of(cores[size])} s",
                f"{Figure.of(cached[size])} s",
            )
        )
    header = ("", "wait to compile", "target", "over it", "of the cores", "before a pass, cached")
    listed = "\n".join(f"batches of {size}: {', '.join(names[size])}" for size in TARGETS)
    load = Figure.of(loads)
    text = f"{table(header, lines)}\n{listed}\nload of the machine: {load}"
    report(text, figures | {"load": load}, options.json)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--fit"]:
        print(json.dumps(fit(sys.argv[2], sys.argv[3])))
    else:
        main()
