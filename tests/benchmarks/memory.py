"""Memory of every job on data many times the ceiling: the plan, the report, and from outside.

``python -m tests.benchmarks.memory [--rows 20M] [--ceiling 1GiB] [--store PATH] [--json FILE]``;
``--rows 1M,10M,40M`` says by how much the peak grows with the rows.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ooc_train.store.made import make_data
from ooc_train.units import approximate_bytes, parse_bytes
from tests.watch import watch

_GROWS = 0.02
"""The peak of the most rows is at most so much above that of the fewest."""

TRAINED = {
    "logistic, full batch, Newton": ("--model", "logistic"),
    "logistic, full batch, L-BFGS": ("--model", "logistic", "--solver", "lbfgs"),
    "logistic, chunk": ("--model", "logistic", "--batch-size", "chunk", "--max-iter", "1"),
    "logistic, 256": ("--model", "logistic", "--batch-size", "256", "--max-iter", "1"),
    "logistic, 1": ("--model", "logistic", "--batch-size", "1", "--max-iter", "1"),
    "ridge, Gram matrix": ("--model", "ridge"),
}


def jobs(store: str, folder: str, workers: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Give each job's name and command, in an order in which each finds what it needs."""
    address = ("--dashboard-address", "127.0.0.1:0", "--workers", workers)
    run = f"{folder}/saved.run"
    for name, settings in TRAINED.items():
        kept = ("--out", run, "--overwrite") if name.startswith("ridge") else ()
        yield name, ("train", store, *settings, *kept, *address)
    yield "evaluate", ("evaluate", run, store, *address)
    yield "predict", ("predict", run, store, f"{folder}/predicted.zarr", "--overwrite", *address)
    yield "shuffle", ("shuffle", store, f"{folder}/shuffled.zarr", "--overwrite")
    yield "make-data", ("make-data", f"{folder}/again.zarr", "--rows", "2M", "--overwrite")


def main() -> None:
    """Print a row for each job, and what each process holds; a figure out of order is marked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", default="20M", help="of the store, or of several: 1M,10M,40M")
    parser.add_argument("--ceiling", default="1GiB")
    parser.add_argument("--workers", default="2")
    parser.add_argument("--store", help="made data that lie somewhere already")
    parser.add_argument("--only", action="append", help="a job's name, or its beginning")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    for rows in options.rows.split(","):
        with tempfile.TemporaryDirectory() as folder:
            store = options.store or f"{folder}/made.zarr"
            if options.store is None:
                make_data(store, rows=rows, features=100, random_state=0)
            print(
                f"{rows} rows{'':24} {'ceiling':>9} {'projected':>9} {'measured':>9} {'outside':>9}"
            )
            for name, command in jobs(store, folder, options.workers):
                if options.only and not name.startswith(tuple(options.only)):
                    continue
                found.append(run(name, command, options.ceiling) | {"rows": rows})
    for name in {row["job"]: None for row in found}:
        peaks = [row["measured"] for row in found if row["job"] == name]
        if len(peaks) > 1:
            grown = peaks[-1] / peaks[0] - 1
            word = "reached" if grown <= _GROWS else "MISSED"
            print(f"{name}: the peak grows by {grown:+.1%}, at most {_GROWS:.0%} {word}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2), encoding="utf-8")


def run(name: str, command: tuple[str, ...], ceiling: str) -> dict[str, Any]:
    """Run a job, print its figures, and return them."""
    watched = watch(*command, "--memory-ceiling", ceiling)
    memory = watched.report["memory"]
    figures = [memory["ceiling"], memory["projected"], memory["measured"], watched.peak]
    kept = figures[2] <= figures[1] <= parse_bytes(ceiling) and figures[3] <= figures[1]
    sizes = " ".join(f"{approximate_bytes(size):>9}" for size in figures)
    held = ", ".join(f"{p['name']} {approximate_bytes(p['peak'])}" for p in memory["processes"])
    print(f"{name:30} {sizes}{'' if kept else '  NOT KEPT'}  {held}", flush=True)
    return {"job": name, "outside": watched.peak, **memory, "kept": kept}


if __name__ == "__main__":
    main()
