"""Memory of training on data many times the ceiling: the plan, the report, and from outside.

``python -m tests.benchmarks.memory [--rows 20M] [--ceiling 1GiB] [--store PATH] [--json FILE]``
"""

import argparse
import json
import tempfile
from pathlib import Path

from ooc_train.store.made import make_data
from ooc_train.units import approximate_bytes, parse_bytes
from tests.watch import watch

JOBS = {
    "logistic, full batch, Newton": ("--model", "logistic"),
    "logistic, full batch, L-BFGS": ("--model", "logistic", "--solver", "lbfgs"),
    "logistic, chunk": ("--model", "logistic", "--batch-size", "chunk", "--max-iter", "1"),
    "logistic, 256": ("--model", "logistic", "--batch-size", "256", "--max-iter", "1"),
    "logistic, 1": ("--model", "logistic", "--batch-size", "1", "--max-iter", "1"),
    "ridge, Gram matrix": ("--model", "ridge"),
}


def main() -> None:
    """Print a row for each job; a figure out of order is marked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", default="20M")
    parser.add_argument("--ceiling", default="1GiB")
    parser.add_argument("--workers", default="2")
    parser.add_argument("--store", help="made data that lie somewhere already")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        store = options.store or f"{folder}/made.zarr"
        if options.store is None:
            make_data(store, rows=options.rows, features=100, random_state=0)
        print(f"{'job':30} {'ceiling':>9} {'projected':>9} {'measured':>9} {'outside':>9}  seconds")
        for name, settings in JOBS.items():
            watched = watch(
                "train", store, *settings, "--memory-ceiling", options.ceiling,
                "--workers", options.workers, "--dashboard-address", "127.0.0.1:0",
            )  # fmt: skip
            memory = watched.report["memory"]
            figures = [memory["ceiling"], memory["projected"], memory["measured"], watched.peak]
            kept = figures[2] <= figures[1] <= parse_bytes(options.ceiling)
            kept = kept and figures[3] <= figures[1]
            rows.append({"job": name, "outside": watched.peak, **memory, "kept": kept})
            sizes = " ".join(f"{approximate_bytes(size):>9}" for size in figures)
            seconds = watched.report["seconds"]
            print(f"{name:30} {sizes}  {seconds:7.1f}{'' if kept else '  NOT KEPT'}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
