"""Raw files of many columns: the ceiling that is told, the memory that is held, and seconds.

``python -m tests.benchmarks.wide_files [--columns 100,2000,10000,50000] [--bytes 20MB]
[--only csv|parquet|ingest|evaluate|predict] [--json FILE]``

Each command is refused first, under 20 MiB, and then run in a control group of exactly the ceiling
that it told of, where the kernel ends what needs more. Files have numbers, categories of text in
every tenth column, and missing values in every fifth. pandas and pyarrow read the same CSV alone.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from ooc_train.core.units import approximate_bytes, parse_bytes
from tests.watch import judge, watch

TOLD = re.compile(r"raise the memory ceiling to (\d+MiB)")

ALONE = {
    "pandas": "import pandas as p; f = p.read_csv",
    "pyarrow": "import pyarrow.csv as p; f = p.read_csv",
}
"""How others read CSV into memory."""


def write(path: str, form: str, *, columns: int, rows: int) -> str:
    """Write a file of numbers, text and missing values, and return its path.

    Parameters
    ----------
    path : str
        Without its ending.
    form : {"csv", "parquet"}
    columns, rows : int
        The target among the columns.
    """
    rng = np.random.default_rng(columns)
    arrays, names = [], [*(f"c{i}" for i in range(columns - 1)), "y"]
    for i in range(columns - 1):
        if i % 10 == 3:
            codes = pa.array(rng.integers(4, size=rows), pa.int32())
            values = pa.array(["red", "green", "blue", "dark grey"])
            arrays.append(pa.DictionaryArray.from_arrays(codes, values).dictionary_decode())
        else:
            missing = rng.random(rows) < (0.1 if i % 5 == 1 else 0)
            # The first two rows have a value of every column.
            missing[:2] = False
            arrays.append(pa.array(rng.normal(size=rows).round(4), mask=missing))
    arrays.append(pa.array(np.arange(rows) % 2))
    table = pa.table(arrays, names=names)
    path = f"{path}.{form}"
    if form == "csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pq.write_table(table, path)
    return path


def categories(columns: int) -> str:
    """Name the columns of text, as an option."""
    return ",".join(f"c{i}" for i in range(3, columns - 1, 10))


def ways(columns: int) -> tuple[str, ...]:
    """Return the options of `ingest` for a file of so many columns."""
    return (
        "--target", "y", "--task", "classification", "--missing", "mean", "--unseen", "ignore",
        "--categorical", categories(columns), "--overwrite",
    )  # fmt: skip


def commands(raw: str, folder: str, columns: int) -> dict[str, tuple[str, ...]]:
    """Return the commands that read a raw file, in an order in which each finds what it needs."""
    store, run = f"{folder}/raw.zarr", f"{folder}/raw.run"
    return {
        "ingest": ("ingest", raw, store, *ways(columns)),
        "evaluate": ("evaluate", run, raw),
        "predict": ("predict", run, raw, f"{folder}/out.csv", "--overwrite"),
    }


def trained(store: str, run: str) -> None:
    """Train a model on a store, and save it."""
    cluster = ("--workers", "1", "--dashboard-address", "127.0.0.1:0", "--overwrite")
    settings = ("--model", "logistic", "--batch-size", "16", "--max-iter", "1")
    watch("train", store, *settings, *cluster, "--out", run)


def under_what_is_told(*command: str) -> dict[str, Any]:
    """Run a command, judged by the ceiling that it tells of, and return the figures.

    Raises
    ------
    RuntimeError
        The command fails, or tells of no ceiling.
    """
    told = None
    try:
        watch(*command, "--memory-ceiling", "20MiB")
    except RuntimeError as error:
        told = TOLD.search(str(error))
        if told is None:
            raise
    if told is None:
        raise RuntimeError("it was not refused under 20 MiB")
    with judge(parse_bytes(told[1])) as group:
        watched = watch(*command, "--memory-ceiling", told[1], group=group)
        killed = group.killed
    memory = watched.report["memory"]
    return {
        "told": parse_bytes(told[1]),
        "projected": memory["projected"],
        "measured": memory["measured"],
        "outside": watched.peak,
        "killed": killed,
        "seconds": watched.seconds,
        "terms": memory["terms"],
    }


def alone(code: str, path: str) -> float:
    """Return the seconds that others take to read a file, once they are imported."""
    timed = (
        f"import time; {code}; t = time.perf_counter(); f({path!r}); print(time.perf_counter() - t)"
    )
    found = subprocess.run(
        [sys.executable, "-c", timed], check=True, capture_output=True, text=True
    )
    return float(found.stdout)


def main() -> None:
    """Print a row for each command and file; one whose ceiling isn't kept is marked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--columns", default="100,2000,10000,50000")
    parser.add_argument("--bytes", default="20MB", help="of each file, about")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    only = set(options.only)
    forms = [form for form in ("csv", "parquet") if form in only or not only & {"csv", "parquet"}]
    jobs = ["ingest", "evaluate", "predict"]
    jobs = [job for job in jobs if job in only or not only & set(jobs)]
    found: list[dict[str, Any]] = []
    print(
        f"{'':26} {'told':>8} {'projected':>9} {'measured':>9} {'outside':>9} {'ratio':>5} {'s':>6}"
    )
    for columns in map(int, options.columns.split(",")):
        rows = max(20, parse_bytes(options.bytes) // (8 * columns))
        for form in forms:
            with tempfile.TemporaryDirectory() as folder:
                raw = write(f"{folder}/raw", form, columns=columns, rows=rows)
                of = commands(raw, folder, columns)
                if "ingest" not in jobs:
                    watch(*of["ingest"])
                    trained(f"{folder}/raw.zarr", f"{folder}/raw.run")
                for job, command in of.items():
                    if job not in jobs:
                        continue
                    name = f"{job} {columns:,} {form}"
                    found.append(row(name, *command) | {"columns": columns, "form": form})
                    if job == "ingest":
                        trained(f"{folder}/raw.zarr", f"{folder}/raw.run")
                for name, code in ALONE.items() if form == "csv" else ():
                    seconds = alone(code, raw)
                    print(f"{f'{name} alone {columns:,}':71} {seconds:6.1f}", flush=True)
                    found.append({"job": name, "columns": columns, "seconds": seconds})
    if options.json:
        options.json.write_text(json.dumps(found, indent=2), encoding="utf-8")


def row(name: str, *command: str) -> dict[str, Any]:
    """Run a command, print its figures, and return them."""
    try:
        figures = under_what_is_told(*command)
    except RuntimeError as error:
        print(f"{name:26} NOT KEPT: {str(error)[:300]}", flush=True)
        return {"job": name, "kept": False}
    sizes = [figures[key] for key in ("told", "projected", "measured", "outside")]
    kept = sizes[2] <= sizes[1] <= sizes[0] and sizes[3] <= sizes[0] and not figures["killed"]
    text = " ".join(f"{approximate_bytes(size):>9}" for size in sizes)
    ratio, seconds = sizes[2] / sizes[1], figures["seconds"]
    print(f"{name:25} {text} {ratio:5.2f} {seconds:6.1f}{'' if kept else '  NOT KEPT'}", flush=True)
    return figures | {"job": name, "kept": kept}


if __name__ == "__main__":
    main()
