"""Rows added to a store: all or none, for readers of before and after, whatever happens."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from ooc_train import LogisticModel, Training, append, cli, ingest, open_store, train
from ooc_train.core import locks, replacements
from ooc_train.errors import (
    CeilingExceeded,
    InvalidStore,
    NonFiniteData,
    OocTrainError,
    OutputExists,
    StoreChanged,
)
from ooc_train.store.jobs.verify import verify_store
from ooc_train.store.writing.appender import StoreAppender
from ooc_train.store.writing.writer import StoreWriter
from tests.streams import write_store

RNG = np.random.default_rng(0)
ROWS, FEATURES, CHUNK = 500, 3, 8
X = RNG.normal(size=(ROWS, FEATURES)).astype("f4")
Y = (X[:, 0] > 0).astype(np.uint8)
WEIGHT = RNG.uniform(0.5, 2, ROWS)


def written(path, rows, **settings):
    """A store of the first rows, with all roles."""
    writer = StoreWriter(
        path, n_features=FEATURES, classes=["no", "yes"], chunk_rows=CHUNK, shard_rows=4 * CHUNK,
        sample_weight=True, row_id=True, feature_names=["a", "b", "c"], shuffled=3, **settings,
    )  # fmt: skip
    with writer:
        add(writer, 0, rows)
        return writer.commit()


def add(writer, start, stop):
    rows = slice(start, stop)
    writer.write(X[rows], Y[rows], WEIGHT[rows], np.arange(start, stop))


def grow(path, start, stop):
    with StoreAppender(path) as appender:
        add(appender, start, stop)
        return appender.commit()


def assert_has(path, rows):
    store = open_store(path)
    assert store.n_rows == rows
    assert np.array_equal(store.read("X"), X[:rows])
    assert np.array_equal(store.read("y"), Y[:rows])
    assert np.array_equal(store.read("sample_weight"), WEIGHT[:rows])
    assert np.array_equal(store.read("row_id"), np.arange(rows))
    assert store.class_counts == tuple(np.bincount(Y[:rows], minlength=2))
    statistics = store.statistics
    assert statistics is not None
    mean = np.average(X[:rows].astype(float), axis=0, weights=WEIGHT[:rows])
    np.testing.assert_allclose(statistics.mean, mean, rtol=1e-9, atol=1e-12)
    deviation = np.sqrt(np.average((X[:rows] - mean) ** 2, axis=0, weights=WEIGHT[:rows]))
    np.testing.assert_allclose(statistics.scale, deviation, rtol=1e-9)
    assert np.array_equal(statistics.minimum, X[:rows].min(axis=0))
    assert statistics.weight == pytest.approx(WEIGHT[:rows].sum())
    assert not verify_store(open_store(path)).damages
    # Other programs read the same.
    theirs: Any = zarr.open_array(str(path), path="X", mode="r")
    assert np.array_equal(theirs[:], X[:rows])
    assert not [name for _, _, files in os.walk(path) for name in files if name.endswith(".tmp")]
    return store


@pytest.mark.parametrize(
    ("first", "codec"), [(1, "zstd"), (8, "lz4"), (31, "none"), (32, "lz4"), (100, "none")]
)
def test_a_store_grows_by_any_number_of_rows(tmp_path, first, codec):
    path, stop = tmp_path / "a.zarr", first
    before = written(path, first, codec=codec)
    for i, more in enumerate((1, 0, 7, 24, 32, 101)):
        with StoreAppender(path) as appender:
            for start in range(stop, stop + more, 10):
                add(appender, start, min(start + 10, stop + more))
            store = appender.commit()
        stop += more
        assert store.n_rows == stop
        assert store.generation == i + 2 - (i > 0)
    store = assert_has(path, stop)
    assert (store.store_id, store.classes) == (before.store_id, before.classes)
    assert store.feature_names == ("a", "b", "c")
    assert store.shuffled is None


@pytest.mark.slow
def test_rows_one_by_one(tmp_path):
    path = tmp_path / "a.zarr"
    written(path, 1)
    for row in range(1, 70):
        with StoreAppender(path) as appender:
            add(appender, row, row + 1)
            appender.commit()
    assert assert_has(path, 70).generation == 70


@pytest.mark.slow
def test_readers_of_before_read_on(tmp_path):
    path = tmp_path / "a.zarr"
    before = written(path, 150, codec="lz4")
    model, how = LogisticModel(), Training(batch_size=16, max_iter=6, random_state=0)
    due, _ = train(model, before, how)
    added: list[Any] = []

    def append(event):
        with StoreAppender(path) as appender:
            add(appender, 150 + len(added), 151 + len(added))
            appender.commit()
        added.append(event)

    found, report = train(model, before, how, callbacks=[append])
    assert len(added) > 5
    assert report.n_rows == 150
    assert np.array_equal(found.coef, due.coef)
    assert np.array_equal(before.read("X"), X[:150])
    assert_has(path, 150 + len(added))


def test_what_is_left_without_a_commit_counts_for_nothing(tmp_path):
    path = tmp_path / "a.zarr"
    written(path, 90)
    with StoreAppender(path) as appender:
        add(appender, 90, 400)
    assert_has(path, 90)
    with pytest.raises(NonFiniteData, match="row 91"), StoreAppender(path) as appender:
        appender.write(np.full((2, 3), [[1.0], [np.nan]]), [0, 1], [1, 1], [90, 91])
    with pytest.raises(ValueError, match="closed"):
        add(appender, 90, 91)
    with pytest.raises(ValueError, match="closed"):
        appender.commit()
    with StoreAppender(path) as appender, pytest.raises(ValueError, match="with 2 classes it"):
        appender.write(X[:1], [2], [1.0], [0])
    assert_has(path, 90)


@pytest.mark.parametrize("step", range(15))
def test_a_crash_between_any_two_renames_leaves_the_rows_of_before(tmp_path, monkeypatch, step):
    path, rename = tmp_path / "a.zarr", os.rename
    done: list[Any] = []
    written(path, 90)

    def failing(source, target):
        if len(done) == step:
            raise KeyboardInterrupt
        done.append(target)
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", failing)
        with contextlib.suppress(KeyboardInterrupt), StoreAppender(path) as appender:
            add(appender, 90, 110)
            appender.commit()
    # Two shards of each array, the manifest, the metadata of the arrays, and the manifest again.
    rows = 110 if step == 4 * 2 + 1 + 4 + 1 else 90
    assert len(done) == step
    assert open_store(path).n_rows == rows
    assert np.array_equal(open_store(path).read("X"), X[:rows])
    grow(path, rows, 230)
    assert_has(path, 230)


_KILLED = """
import sys
import threading
from tests.test_append import grow
path, start = sys.argv[1], int(sys.argv[2])
print("go", flush=True)
for stop in range(start + 1, 500):
    grow(path, stop - 1, stop)
    print(stop, flush=True)
"""


@pytest.mark.slow
def test_a_killed_process_loses_no_row_that_was_committed(tmp_path):
    path, rows = tmp_path / "a.zarr", 20
    written(path, rows)
    for i in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", _KILLED, str(path), str(rows)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.02 + 0.017 * i)
            process.send_signal(signal.SIGKILL)
            told = [int(line) for line in process.stdout.read().split()]
        now = open_store(path).n_rows
        # The last commit may not have been told.
        assert now - (told[-1] if told else rows) in (0, 1)
        rows = now
        assert np.array_equal(open_store(path).read("X"), X[:rows])
    assert rows > 20
    grow(path, rows, rows + 1)
    assert_has(path, rows + 1)


def test_what_a_killed_process_left_is_removed(tmp_path):
    path = tmp_path / "a.zarr"
    written(path, 90)
    left = [path / "X/c/2/0.77.tmp", path / "X/c/7/0", path / "y/c/2.77.tmp", path / "y/c/7"]
    for file in left:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"half")
    (path / "X/c/7/0.77.tmp").write_bytes(b"half")
    assert np.array_equal(open_store(path).read("X"), X[:90])
    grow(path, 90, 91)
    assert not any(file.exists() for file in left)
    assert not (path / "X/c/7").exists()
    assert_has(path, 91)


@pytest.mark.parametrize("what", ["_write_all", "sync_file"])
def test_a_full_disk_leaves_the_store_as_it_was(tmp_path, monkeypatch, what):
    path, module = tmp_path / "a.zarr", "shard_writer" if what == "_write_all" else "appender"
    written(path, 90)

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(f"ooc_train.store.writing.{module}.{what}", full)
        with pytest.raises(OSError, match="the disk is full"):
            grow(path, 90, 170)
    assert np.array_equal(open_store(path).read("X"), X[:90])
    grow(path, 90, 120)
    assert_has(path, 120)


def test_one_process_at_a_time_appends(tmp_path):
    path = tmp_path / "a.zarr"
    written(path, 20)
    with StoreAppender(path), pytest.raises(BlockingIOError, match="another process is adding"):
        StoreAppender(path)
    grow(path, 20, 21)
    assert_has(path, 21)


def test_stores_that_cannot_grow_are_refused(tmp_path):
    theirs = zarr.open_group(str(tmp_path / "theirs.zarr"), mode="w")
    theirs.create_array("X", data=X)
    theirs.create_array("y", data=Y)
    with pytest.raises(InvalidStore, match="written by another program"):
        StoreAppender(tmp_path / "theirs.zarr")
    with pytest.raises(InvalidStore, match="is a URL"):
        StoreAppender("s3://bucket/a.zarr")
    with pytest.raises(FileNotFoundError):
        StoreAppender(tmp_path / "nothing.zarr")
    write_store(tmp_path / "plain.zarr", X, Y.astype(int), None, chunk_rows=CHUNK)
    with StoreAppender(tmp_path / "plain.zarr") as appender:
        with pytest.raises(ValueError, match="every write to this store takes X, y"):
            appender.write(X[:2])
        with pytest.raises(ValueError, match=r"X has shape \(2, 2\)"):
            appender.write(X[:2, :2], [0, 1])


# Raw files


HEAD = "dep,carrier,delay,late\n"


def table(path, start, stop, carriers="ABA"):
    lines = (
        f"{row * 7 % 100},{carriers[row % 3]},{'' if row % 11 == 3 else row / 4},"
        f"{'yes' if row % 5 < 2 else 'no'}"
        for row in range(start, stop)
    )
    path.write_text(HEAD + "\n".join(lines) + "\n")
    return path


def ingested(path, *files, **settings):
    return ingest(
        list(files), path, target="late", categorical=["carrier"], missing="mean", shuffle=False,
        **settings,
    ).store  # fmt: skip


def test_raw_files_are_added_as_the_recipe_says(tmp_path):
    first, second = table(tmp_path / "1.csv", 0, 300), table(tmp_path / "2.csv", 300, 420)
    store = ingested(tmp_path / "a.zarr", first)
    lines = second.read_text().splitlines()
    # Columns are found by their names.
    other_order = tmp_path / "3.csv"
    other_order.write_text("\n".join(",".join(line.split(",")[::-1]) for line in lines) + "\n")
    seen: list[Any] = []
    added = append(tmp_path / "a.zarr", other_order, progress=lambda *told: seen.append(told))
    assert (added.n_rows, added.store.n_rows, added.store.generation) == (120, 420, 2)
    assert seen[-1] == ("appending", 120, 1.0)
    assert added.memory.measured <= added.memory.projected
    assert added.store.feature_names == store.feature_names
    assert np.array_equal(added.store.read("row_id"), np.arange(420))
    both = added.store.read("X"), added.store.read("y")
    # Means are those of the rows that were ingested.
    expected = ingested(tmp_path / "b.zarr", first, second)
    known = np.arange(420) % 11 != 3
    assert np.array_equal(both[0][known], expected.read("X")[known])
    assert np.array_equal(both[1], expected.read("y"))
    assert added.store.class_counts == expected.class_counts
    assert not verify_store(added.store).damages
    assert repr(added).startswith("<Appended: 120 rows to <Store")
    assert "rows added" in added._repr_html_()


def test_raw_files_that_do_not_fit_change_nothing(tmp_path):
    path = tmp_path / "a.zarr"
    ingested(path, table(tmp_path / "1.csv", 0, 50))
    before = open_store(path)
    other = table(tmp_path / "2.csv", 0, 50, carriers="ABZ")
    with pytest.raises(OocTrainError, match="Z"):
        append(path, other)
    assert append(path, other, unseen="ignore").n_rows == 50
    bad = tmp_path / "3.csv"
    for text, said in (
        ("dep,carrier,delay\n1,A,2\n", "late"),
        (HEAD + "1,A,2,perhaps\n", "perhaps"),
        (HEAD + "1,A,x,no\n", "x"),
    ):
        bad.write_text(text)
        with pytest.raises(OocTrainError, match=said):
            append(path, bad)
        assert open_store(path).n_rows == before.n_rows + 50
    written(tmp_path / "b.zarr", 20)
    with pytest.raises(InvalidStore, match="no recipe"):
        append(tmp_path / "b.zarr", bad)
    with pytest.raises(CeilingExceeded):
        append(path, bad, memory_ceiling="1MiB")


def test_the_command_appends(tmp_path):
    path = tmp_path / "a.zarr"
    ingested(path, table(tmp_path / "1.csv", 0, 50))
    more = table(tmp_path / "2.csv", 50, 90)
    result = CliRunner().invoke(cli.app, ["append", str(path), str(more), "--quiet"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("40 rows added, 90 now | memory: ceiling ")
    result = CliRunner().invoke(cli.app, ["append", str(path), str(more), "--json", "--quiet"])
    found = json.loads(result.stdout)
    assert (found["added"], found["n_rows"]) == (40, 130)
    failed = CliRunner().invoke(cli.app, ["append", str(path), str(tmp_path / "no.csv")])
    assert failed.exit_code == 1
    assert "error: " in failed.stderr


def test_a_store_to_which_rows_are_added_is_not_overwritten(tmp_path, monkeypatch):
    path = tmp_path / "a.zarr"
    written(path, 100)
    monkeypatch.setattr(replacements, "_LOCK_SECONDS", 0.1)
    with StoreAppender(path) as appender:
        add(appender, 100, 120)
        with pytest.raises(OutputExists, match="another process is changing"):
            written(path, 50, overwrite=True)
        appender.commit()
    assert_has(path, 120)
    assert os.listdir(tmp_path) == ["a.zarr"]
    written(path, 50, overwrite=True)
    assert_has(path, 50)


def test_rows_never_go_to_a_store_that_took_the_place(tmp_path, monkeypatch):
    path = tmp_path / "a.zarr"
    written(path, 100)
    with StoreAppender(path) as appender:
        add(appender, 100, 120)
        os.rename(path, tmp_path / "b.zarr")
        written(path, 50)
        with pytest.raises(StoreChanged, match="they are in no store"):
            appender.commit()
    assert_has(path, 50)
    assert open_store(tmp_path / "b.zarr").n_rows == 100
    # The store is replaced after the appender has opened its folder, and before it has the lock.
    replaced: list[Any] = []

    def late(descriptor):
        if not replaced:
            replaced.append(written(path, 60, overwrite=True))
        locks.lock(descriptor)

    monkeypatch.setattr("ooc_train.store.writing.appender.lock", late)
    assert grow(path, 60, 80).n_rows == 80
    assert_has(path, 80)


def test_overwriting_waits_for_an_appender_that_ends(tmp_path):
    path = tmp_path / "a.zarr"
    written(path, 100)
    appender = StoreAppender(path)
    writer = threading.Timer(0.2, appender.discard)
    writer.start()
    written(path, 50, overwrite=True)
    writer.join()
    assert_has(path, 50)
