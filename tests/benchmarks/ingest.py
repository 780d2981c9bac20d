"""Ingest and shuffle against what the machine does at best; and much CSV under a small ceiling.

``python -m tests.benchmarks.ingest [--rows 3M] [--rounds 5] [--json FILE]``, and with ``--size
10GB [--ceiling 512MiB]`` the second part alone. It needs about five times its data on the disk.
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from ooc_train.core.units import approximate_bytes, parse_bytes, parse_rows
from ooc_train.store.jobs.ingest import ingest
from ooc_train.store.jobs.shuffle import shuffle_store
from ooc_train.store.opening.opener import open_store
from ooc_train.store.reading.chunks import ChunkReader
from tests.benchmarks.tools import Figure, arguments, interleave, report, table, verdict
from tests.watch import watch

_BATCH_ROWS = 50_000
_CEILING = "512MiB"
_SHARE = 0.2


def mixed(start: int, rows: int) -> pa.Table:
    """Give rows as people have them: numbers of several lengths, days, categories, and a label."""
    rng = np.random.default_rng(start)
    columns: dict[str, Any] = {"row": np.arange(start, start + rows)}
    columns |= {f"x{i}": rng.standard_normal(rows).astype("f4") for i in range(10)}
    columns |= {f"n{i}": rng.integers(0, 10 ** (i + 1), rows) for i in range(4)}
    columns["day"] = (np.datetime64("2013-01-01") + rng.integers(0, 365, rows)).astype("M8[D]")
    columns["carrier"] = np.array(["AA", "UA", "DL", "B6"])[rng.integers(0, 4, rows)]
    columns["label"] = rng.integers(0, 2, rows)
    return pa.table(columns)


def floats(start: int, rows: int) -> pa.Table:
    """Give rows of 100 columns of float32."""
    rng = np.random.default_rng(start)
    return pa.table({f"x{i}": rng.standard_normal(rows).astype("f4") for i in range(100)})


def write(path: str, rows: Iterator[pa.Table]) -> int:
    """Write tables one after another as the path says, and return the bytes of the file."""
    first = next(rows)
    kind = pyarrow.csv.CSVWriter if path.endswith("csv") else pq.ParquetWriter
    with kind(path, first.schema) as writer:
        writer.write_table(first)
        for more in rows:
            writer.write_table(more)
    return os.path.getsize(path)


def tables(make: Callable[[int, int], pa.Table], rows: int) -> Iterator[pa.Table]:
    """Give so many rows in tables of some."""
    for start in range(0, rows, _BATCH_ROWS):
        yield make(start, min(_BATCH_ROWS, rows - start))


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that some work takes."""
    started = perf_counter()
    work()
    return perf_counter() - started


def read_streaming(path: str) -> None:
    """Read CSV by pyarrow's streaming reader, keeping nothing."""
    for _ in pyarrow.csv.open_csv(path):
        pass


def write_plainly(path: str, n_bytes: int) -> float:
    """Return the seconds that it takes to bring so many bytes to the disk."""
    data = np.random.default_rng(0).integers(0, 256, 2**20, np.uint8).tobytes()
    started = perf_counter()
    with open(path, "wb", buffering=0) as file:
        for start in range(0, n_bytes, len(data)):
            file.write(data[: n_bytes - start])
        os.fsync(file.fileno())
    seconds = perf_counter() - started
    os.unlink(path)
    return seconds


def copy(source: str, out: str) -> None:
    """Copy a store as `cp -r` does, and bring it to the disk, as a shuffle does."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(source, out)
    for folder, _, files in os.walk(out):
        for name in files:
            with open(os.path.join(folder, name), "rb") as file:
                os.fsync(file.fileno())


def contests(folder: str, rows: int, rounds: int) -> dict[str, tuple[Figure, float, str]]:
    """Return ratios by name, with the target of each, and what they are of."""
    csv, parquet, store = (f"{folder}/{name}" for name in ("a.csv", "a.parquet", "a.zarr"))
    csv_bytes = write(csv, tables(mixed, rows))
    write(parquet, tables(floats, rows // 3))
    settings: dict[str, Any] = {"memory_ceiling": _CEILING, "overwrite": True}
    of_csv: dict[str, Any] = {"target": "label", "task": "classification", "id_column": "row"}
    ours = partial(ingest, csv, store, categorical=["carrier"], **of_csv, **settings)
    seconds = interleave(
        {
            "read_csv": lambda: timed(partial(pyarrow.csv.read_csv, csv)),
            "open_csv": lambda: timed(partial(read_streaming, csv)),
            "ingest": lambda: timed(ours),
        },
        rounds,
    )
    taken = {name: np.array(of_rounds) for name, of_rounds in seconds.items()}
    speed = csv_bytes / 1e6 / np.median(taken["ingest"])
    found = {
        f"CSV ingest over pyarrow's {name}": (
            Figure.of(taken[name] / taken["ingest"]),
            0.5,
            f"{speed:.0f} MB/s of {csv_bytes / 1e6:.0f} MB",
        )
        for name in ("read_csv", "open_csv")
    }
    written = ingest(parquet, store, **settings).store.total_bytes
    seconds = interleave(
        {
            "disk": lambda: write_plainly(f"{folder}/plain", written),
            "ingest": lambda: timed(partial(ingest, parquet, store, **settings)),
            "copy": lambda: timed(partial(copy, store, f"{folder}/copy.zarr")),
            "shuffle": lambda: timed(
                partial(shuffle_store, store, f"{folder}/shuffled.zarr", **settings)
            ),
        },
        rounds,
    )
    taken = {name: np.array(of_rounds) for name, of_rounds in seconds.items()}
    speeds = {name: written / 1e6 / np.median(taken[name]) for name in taken}
    of = f"MB/s of {written / 1e6:.0f} MB"
    found["Parquet ingest over the disk's writing"] = (
        Figure.of(taken["disk"] / taken["ingest"]),
        0.5,
        f"{speeds['ingest']:.0f} of {speeds['disk']:.0f} {of}",
    )
    found["a copy over shuffling"] = (
        Figure.of(taken["copy"] / taken["shuffle"]),
        1 / 3,
        f"{speeds['shuffle']:.0f} of {speeds['copy']:.0f} {of}",
    )
    return found


def sums(X: Any, ids: Any) -> Any:
    """Add up what tells rows apart: each value by a factor of its row's own, in whole numbers."""
    bits = np.ascontiguousarray(X, "f4").view("u4").astype(np.uint64)
    factor = (ids.astype(np.uint64)[:, np.newaxis] * np.uint64(2) + np.uint64(1)) % np.uint64(2**31)
    return (bits * factor).sum(axis=0)


def stored(path: str, seen: Any, n_features: int) -> Any:
    """Count each row of a store by its id, and return the sums of its numbers."""
    store = open_store(path)
    if store.row_id is None:
        raise ValueError(f"{path} has no ids")
    total = np.zeros(n_features, np.uint64)
    with ChunkReader(store.X) as X_reader, ChunkReader(store.row_id) as id_reader:
        for start in range(0, store.n_rows, _BATCH_ROWS):
            stop = min(start + _BATCH_ROWS, store.n_rows)
            X = np.empty((stop - start, store.n_features), "f4")
            ids = np.empty(stop - start, "i8")
            X_reader.read_rows(start, stop, X)
            id_reader.read_rows(start, stop, ids)
            seen[ids] += 1
            total += sums(X[:, :n_features], ids)
    return total


def large(folder: str, size: int, ceiling: str) -> tuple[str, dict[str, Any]]:
    """Ingest much CSV under a ceiling, and check that every row came once and whole."""
    path, out = f"{folder}/a.csv", f"{folder}/a.zarr"
    sample = write(path, tables(mixed, _BATCH_ROWS))
    rows = -(-size * _BATCH_ROWS // sample)
    names = [f"x{i}" for i in range(10)] + [f"n{i}" for i in range(4)]
    expected = np.zeros(len(names), np.uint64)

    def noted() -> Iterator[pa.Table]:
        for made in tables(mixed, rows):
            X = np.column_stack([made[name].to_numpy() for name in names])
            expected[...] += sums(X, made["row"].to_numpy())
            yield made

    n_bytes = write(path, noted())
    watched = watch(
        "ingest", path, out, "--target", "label", "--task", "classification", "--categorical",
        "carrier", "--id", "row", "--test-size", str(_SHARE), "--memory-ceiling", ceiling,
    )  # fmt: skip
    seen = np.zeros(rows, np.uint8)
    found = sum(stored(store, seen, len(names)) for store in (out, f"{folder}/a.test.zarr"))
    n_test = open_store(f"{folder}/a.test.zarr").n_rows
    memory = watched.report["memory"]
    kept = memory["measured"] <= memory["projected"] <= parse_bytes(ceiling)
    kept = kept and watched.peak <= parse_bytes(ceiling)
    once, same = bool((seen == 1).all()), bool((found == expected).all())
    held = [memory[name] for name in ("ceiling", "projected", "measured")]
    text = (
        f"{approximate_bytes(n_bytes)} of CSV, {rows:,} rows, in {watched.seconds:.0f} s "
        f"({n_bytes / 1e6 / watched.seconds:.0f} MB/s); {n_test:,} rows for testing\n"
        f"memory: ceiling, projected, measured {', '.join(map(approximate_bytes, held))}; "
        f"from outside {approximate_bytes(watched.peak)}: {'kept' if kept else 'NOT KEPT'}\n"
        f"every row is there {'once' if once else 'NOT ONCE'}, its numbers "
        f"{'the same' if same else 'NOT THE SAME'}"
    )
    figures = {"bytes": n_bytes, "rows": rows, "n_test": n_test, "seconds": watched.seconds}
    return text, figures | {
        "outside": watched.peak,
        "kept": kept,
        "once": once,
        "same": same,
        **memory,
    }


def main() -> None:
    """Print the ratios, or what much CSV took."""
    parser = arguments(__doc__.partition("\n")[0], rows="3M")
    parser.set_defaults(rounds=5)
    parser.add_argument("--size", help="of CSV, such as 10GB: then only that is ingested")
    parser.add_argument("--ceiling", default=_CEILING, help="for --size (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where the data go (the temporary folder)")
    options: argparse.Namespace = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if options.size is not None:
            report(*large(folder, parse_bytes(options.size), options.ceiling), options.json)
            return
        found = contests(folder, parse_rows(options.rows), options.rounds)
    lines = [verdict(name, figure, target) for name, (figure, target, _) in found.items()]
    speeds = [(name, of) for name, (_, _, of) in found.items()]
    figures = {name: figure for name, (figure, _, _) in found.items()}
    report("\n".join([table(("ratio", "speeds"), speeds), *lines]), figures, options.json)


if __name__ == "__main__":
    main()
