"""Ingest at its limits: killed at any moment, and data many times what memory it may hold."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from ooc_train.core.units import parse_bytes
from ooc_train.errors import StoreNotFound
from ooc_train.store.jobs.ingest import ingest
from ooc_train.store.opening.opener import open_store
from tests.test_writer import rows_of
from tests.watch import watch

pytestmark = pytest.mark.slow

N = 60_000
KILLS = 30


def run(folder, seed, begun):
    """Ingest in a process of its own, which says when it begins."""
    begun.set()
    ingest(
        f"{folder}/a.csv",
        f"{folder}/b.zarr",
        test_size=0.25,
        random_state=seed,
        chunk_rows=64,
        shard_rows=640,
        overwrite=True,
    )


def start(folder, seed):
    # One that has imported everything forks the others.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    begun = context.Event()
    process = context.Process(target=run, args=(str(folder), seed, begun))
    process.start()
    assert begun.wait(60)
    return process


def rows_left(path):
    """Seed and rows of a store, which are whole; None where there is none."""
    try:
        store = open_store(path)
    except StoreNotFound:
        return None
    assert store.row_id is not None
    ids = rows_of(store.row_id)
    # The file's own columns tell which row each is.
    np.testing.assert_array_equal(rows_of(store.X), np.column_stack([ids, -ids]).astype("f4"))
    return store.shuffled, ids


@pytest.mark.parametrize("replaced", [False, True])
def test_a_kill_at_any_moment_leaves_whole_stores_or_none(tmp_path, replaced):
    ids = np.arange(N)
    pyarrow.csv.write_csv(pa.table({"a": ids, "b": -ids}), tmp_path / "a.csv")
    start(tmp_path, 100).join()
    began = time.perf_counter()
    start(tmp_path, 100).join()
    lasts = time.perf_counter() - began
    stores = ("b.zarr", "b.test.zarr")
    whole = [rows_left(tmp_path / name) for name in stores]
    if not replaced:
        for name in stores:
            os.rename(tmp_path / name, tmp_path.parent / f"{tmp_path.name}-{name}")
    killed, rng = 0, np.random.default_rng(0)
    while killed < KILLS // 2:
        process = start(tmp_path, killed)
        time.sleep(rng.random() * lasts)
        process.kill()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            killed += 1
        else:
            # It was faster than the one that was timed: a busy machine may have slowed that one.
            lasts *= 0.8
        # Opening one of the two gives the other its name, where a kill fell between both.
        train, test = (rows_left(tmp_path / name) for name in stores)
        assert (train is None) == (test is None)
        if train is not None and test is not None:
            assert train[0] == test[0]
            assert np.sort(np.concatenate([train[1], test[1]])).tolist() == ids.tolist()
        hidden = {f".{name}.{end}" for name in stores for end in ("partial", "replaced")}
        assert set(os.listdir(tmp_path)) <= {"a.csv", *stores, *hidden}
    start(tmp_path, 100).join()
    for name, before in zip(stores, whole, strict=True):
        found = rows_left(tmp_path / name)
        assert before is not None
        assert found is not None
        assert found[0] == before[0]
        np.testing.assert_array_equal(found[1], before[1])
    assert set(os.listdir(tmp_path)) == {"a.csv", *stores}


def big(path, ceiling):
    """Raw data of at least 8 times the room that a ceiling leaves for them."""
    rng, rows = np.random.default_rng(0), 20_000
    size = 8 * (parse_bytes(ceiling) - 130 * 2**20)
    writer = None
    with open(path, "wb") as file:
        while file.tell() < size:
            columns = {f"x{i}": rng.standard_normal(rows).astype("f4") for i in range(12)}
            columns |= {"c": rng.integers(0, 20, rows).astype(str), "y": rng.integers(0, 2, rows)}
            table = pa.table(columns)
            if writer is None:
                kind = pyarrow.csv.CSVWriter if str(path).endswith("csv") else pq.ParquetWriter
                writer = kind(file, table.schema)
            writer.write_table(table)
        assert writer is not None
        writer.close()
    return size


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_what_is_held_stays_under_the_ceiling(tmp_path, name):
    ceiling = "172MiB"
    size = big(tmp_path / name, ceiling)
    assert os.path.getsize(tmp_path / name) >= size
    watched = watch(
        "ingest", str(tmp_path / name), str(tmp_path / "a.zarr"), "--target", "y",
        "--task", "classification", "--categorical", "c", "--test-size", "0.2",
        "--memory-ceiling", ceiling,
    )  # fmt: skip
    memory = watched.report["memory"]
    assert memory["measured"] <= memory["projected"] <= memory["ceiling"] == parse_bytes(ceiling)
    assert watched.peak <= memory["projected"]
