"""Memory of every job on data many times the ceiling: the plan, the report, and from outside.

``python -m tests.benchmarks.memory [--rows 20M] [--ceiling 1GiB] [--store PATH] [--json FILE]``;
``--rows 1M,10M,40M`` says by how much the peak grows with the rows, and ``--only group`` has jobs
run where the kernel ends whatever needs more than the ceiling: in a control group, which pays for
the files that it reads and writes too.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ooc_train.core.units import approximate_bytes, parse_bytes
from ooc_train.store.jobs.synthetic import make_data
from tests.watch import control_group, watch, write_csv

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

GROUPED = ("logistic, full batch, Newton", "logistic, 256", "ridge, Gram matrix", "predict")
"""Jobs that are done in a control group too."""

RAW_BYTES = 4 * 2**30
"""Of the CSV that is ingested in one."""


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


def grouped(store: str, folder: str, workers: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Give the name and command of each job for a control group, with nothing of it in memory."""
    for name, command in jobs(store, folder, workers):
        if name in GROUPED:
            forget(store)
            yield f"group: {name}", command
    raw = f"{folder}/raw.csv"
    write_csv(raw, RAW_BYTES)
    forget(raw)
    yield "group: ingest", ("ingest", raw, f"{folder}/raw.zarr", "--target", "y", "--overwrite")


def forget(path: str) -> None:
    """Have the system drop files from memory, where they are on the account of who wrote them."""
    files = [path] if os.path.isfile(path) else [p for p in Path(path).rglob("*") if p.is_file()]
    for file in files:
        with open(file, "rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


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
                f"{rows} rows{'':28} {'ceiling':>9} {'projected':>9} {'measured':>9} {'outside':>9}"
            )
            for name, command in jobs(store, folder, options.workers):
                if options.only and not name.startswith(tuple(options.only)):
                    continue
                found.append(run(name, command, options.ceiling) | {"rows": rows})
            if options.only and not any(name.startswith("group") for name in options.only):
                continue
            for name, command in grouped(store, folder, options.workers):
                found.append(run(name, command, options.ceiling, group=True) | {"rows": rows})
    for name in {row["job"]: None for row in found}:
        peaks = [row["measured"] for row in found if row["job"] == name and "measured" in row]
        if len(peaks) > 1:
            grown = peaks[-1] / peaks[0] - 1
            word = "reached" if grown <= _GROWS else "MISSED"
            print(f"{name}: the peak grows by {grown:+.1%}, at most {_GROWS:.0%} {word}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2), encoding="utf-8")


def run(
    name: str, command: tuple[str, ...], ceiling: str, *, group: bool = False
) -> dict[str, Any]:
    """Run a job, in a control group or not, print its figures, and return them."""
    figures: dict[str, Any] = {"job": name}
    with ExitStack() as stack:
        try:
            judge = stack.enter_context(control_group(parse_bytes(ceiling))) if group else None
            watched = watch(*command, "--memory-ceiling", ceiling, group=judge)
            if any("kernels were compiled" in note for note in watched.report.get("notes", ())):
                # Once on a machine, by processes of their own: the job alone is measured here.
                watched = watch(*command, "--memory-ceiling", ceiling, group=judge)
        except (PermissionError, RuntimeError) as error:
            print(f"{name:34} NOT KEPT: {error}", flush=True)
            return figures | {"kept": False}
        if judge is not None:
            figures |= {"group": judge.peak, "killed": judge.killed}
    memory = watched.report["memory"]
    sizes = [memory["ceiling"], memory["projected"], memory["measured"], watched.peak]
    kept = sizes[2] <= sizes[1] <= parse_bytes(ceiling) and sizes[3] <= sizes[1]
    kept = kept and not figures.get("killed")
    text = " ".join(f"{approximate_bytes(size):>9}" for size in sizes)
    if group:
        held = f"the group's peak {approximate_bytes(figures['group'])}, {figures['killed']} killed"
    else:
        processes = memory["processes"]
        held = ", ".join(f"{p['name']} {approximate_bytes(p['peak'])}" for p in processes)
    print(f"{name:34} {text}{'' if kept else '  NOT KEPT'}  {held}", flush=True)
    return figures | {"outside": watched.peak, **memory, "kept": kept}


if __name__ == "__main__":
    main()
