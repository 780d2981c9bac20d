"""Shuffling a store: the same rows, each of them once, in an order that only the seed decides."""

import errno
import itertools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import zarr

from ooc_train.errors import (
    CeilingExceeded,
    CorruptChunk,
    NonFiniteData,
    OutputExists,
    StoreNotFound,
)
from ooc_train.store.dataset import Store
from ooc_train.store.jobs.shuffle import shuffle_store
from ooc_train.store.jobs.shuffle_keys import row_keys
from ooc_train.store.jobs.synthetic import make_data
from ooc_train.store.opening.opener import open_store
from ooc_train.store.writing.writer import StoreWriter
from tests.test_writer import contents, rows_of

N = 5000
RNG = np.random.default_rng(0)
X = RNG.normal(1e3, 2, (N, 4)).astype("f4")
CLASS = RNG.integers(0, 3, N)
WEIGHT = RNG.random(N)
ID = RNG.permutation(10 * N)[:N] - N


def write(path, *, y=None, weighted=False, ids=False, **settings_of_writer):
    with StoreWriter(
        path,
        n_features=4,
        chunk_rows=64,
        shard_rows=640,
        sample_weight=weighted,
        row_id=ids,
        **settings_of_writer,
    ) as writer:
        writer.write(X, y, WEIGHT if weighted else None, ID if ids else None)
        return writer.commit()


def source_rows(shuffled, ids=None):
    """Where each row of a shuffled store came from, by its id."""
    assert shuffled.row_id is not None
    found = rows_of(shuffled.row_id)
    if ids is None:
        return found
    sorter = np.argsort(ids)
    return sorter[np.searchsorted(ids, found, sorter=sorter)]


def order_of(seed):
    return row_keys(np.arange(N), seed).argsort()


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_every_row_comes_once_with_all_that_belongs_to_it(tmp_path, codec, ids):
    source = write(
        tmp_path / "a",
        y=CLASS,
        classes=["x", "y", "z"],
        weighted=True,
        ids=ids,
        codec=codec,
        feature_names="abcd",
        attributes={"from": "here"},
        recipe={"columns": ["a"]},
    )
    shuffled, _ = shuffle_store(source, tmp_path / "b", random_state=7)
    order = source_rows(shuffled, ID if ids else None)
    assert order.tolist() == order_of(7).tolist()
    for role, values in {"X": X, "y": CLASS, "sample_weight": WEIGHT}.items():
        layout = getattr(shuffled, role)
        assert layout.dtype == getattr(source, role).dtype
        np.testing.assert_array_equal(rows_of(layout), values[order])
        assert (layout.chunk_rows, layout.shard_rows, layout.codec) == (64, 640, source.X.codec)
    assert (shuffled.feature_names, shuffled.classes) == (("a", "b", "c", "d"), ("x", "y", "z"))
    assert shuffled.class_counts == source.class_counts
    assert shuffled.statistics is not None
    assert source.statistics is not None
    assert shuffled.statistics.to_json() == source.statistics.to_json()
    assert dict(shuffled.attributes) == {"from": "here"}
    assert shuffled.recipe == {"columns": ["a"]}
    assert (shuffled.shuffled, source.shuffled) == (7, None)
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("y", [None, X[:, 0] * 2, X[:, :1] * 2, X[:, :3] * 3, CLASS - 1])
def test_y_of_any_shape_follows_its_row(tmp_path, y):
    outputs = y.shape[1] if y is not None and y.ndim == 2 else None
    source = write(tmp_path / "a", y=y, outputs=outputs)
    shuffled, _ = shuffle_store(source, tmp_path / "b")
    if y is None:
        assert shuffled.y is None
    else:
        assert shuffled.y is not None
        assert shuffled.y.shape == y.shape
        np.testing.assert_array_equal(rows_of(shuffled.y), y[source_rows(shuffled)])


@pytest.mark.usefixtures("one_id")
def test_the_bytes_are_a_function_of_rows_and_seed_and_of_no_ceiling(tmp_path):
    path = tmp_path / "a"
    make_data(path, rows=100_000, features=20, chunk_rows=1000)
    for name, ceiling in {"b": None, "c": "24MiB", "d": "20 MiB"}.items():
        shuffle_store(path, tmp_path / name, random_state=3, memory_ceiling=ceiling)
    assert contents(tmp_path / "b") == contents(tmp_path / "c") == contents(tmp_path / "d")
    other, _ = shuffle_store(path, tmp_path / "e", random_state=4)
    rows = source_rows(other), source_rows(open_store(tmp_path / "b"))
    assert abs(np.corrcoef(*rows)[0, 1]) < 4 / np.sqrt(100_000)


def test_what_was_shuffled_can_be_shuffled_again_and_keeps_its_ids(tmp_path):
    once, _ = shuffle_store(write(tmp_path / "a", ids=True), tmp_path / "b", random_state=1)
    twice, _ = shuffle_store(once, tmp_path / "c", random_state=2)
    assert twice.shuffled == 2
    order = source_rows(twice, ID)
    assert order.tolist() == order_of(1)[order_of(2)].tolist()
    np.testing.assert_array_equal(rows_of(twice.X), X[order])


def plain_zarr(path, *, zarr_format):
    """A store of another writer: X and y of different chunks, weights of another type."""
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    for name, values, chunks in (
        ("X", X.astype(">f8"), (700, 3)),
        ("y", CLASS.astype("i2"), (90,)),
        ("sample_weight", WEIGHT.astype("f4"), (N,)),
    ):
        array = group.create_array(name, shape=values.shape, chunks=chunks, dtype=values.dtype)
        array[...] = values


def test_arrays_that_are_read_in_parts(tmp_path):
    group = zarr.open_group(tmp_path / "a", mode="w")
    for name, values in {"X": X, "y": CLASS, "sample_weight": WEIGHT}.items():
        group.create_array(name, data=values, chunks=values.shape, compressors=None)
    shuffled, memory = shuffle_store(tmp_path / "a", tmp_path / "b")
    order = source_rows(shuffled)
    for role, values in {"X": X, "y": CLASS, "sample_weight": WEIGHT}.items():
        np.testing.assert_array_equal(rows_of(getattr(shuffled, role)), values[order])
    # Two pieces of records, and one of each array.
    assert memory.terms["reading"] < 4 * 2**20


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_stores_of_other_writers(tmp_path, zarr_format):
    plain_zarr(tmp_path / "a", zarr_format=zarr_format)
    shuffled, _ = shuffle_store(tmp_path / "a", tmp_path / "b")
    order = source_rows(shuffled)
    assert order.tolist() == order_of(0).tolist()
    assert shuffled.y is not None
    assert shuffled.sample_weight is not None
    np.testing.assert_array_equal(rows_of(shuffled.X), X[order])
    np.testing.assert_array_equal(rows_of(shuffled.y), CLASS[order])
    np.testing.assert_array_equal(rows_of(shuffled.sample_weight), WEIGHT.astype("f4")[order])
    assert (shuffled.X.dtype, shuffled.y.dtype, shuffled.X.codec) == ("<f8", "<i2", "raw")
    assert shuffled.statistics is not None
    np.testing.assert_allclose(
        shuffled.statistics.mean, np.average(X.astype("f8"), axis=0, weights=WEIGHT), rtol=1e-7
    )


def test_weights_that_are_left_out_take_their_statistics_along(tmp_path):
    write(tmp_path / "a", weighted=True, y=CLASS, classes=range(3))
    source = open_store(tmp_path / "a", sample_weight=None, y=None)
    shuffled, _ = shuffle_store(source, tmp_path / "b")
    assert (shuffled.sample_weight, shuffled.y, shuffled.classes) == (None, None, None)
    assert shuffled.statistics is not None
    assert not shuffled.statistics.weighted
    np.testing.assert_allclose(shuffled.statistics.mean, X.astype("f8").mean(axis=0), rtol=1e-12)


def test_progress_counts_every_row_twice(tmp_path):
    heard: list[tuple[str, int, float]] = []
    shuffle_store(write(tmp_path / "a"), tmp_path / "b", progress=lambda *at: heard.append(at))
    for stage in ("reading", "writing"):
        at = [(rows, share) for name, rows, share in heard if name == stage]
        assert at == sorted(at)
        assert (at[0], at[-1]) == ((0, 0.0), (N, 1.0))


def test_an_output_that_exists_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    source = write(tmp_path / "a")
    write(tmp_path / "b", ids=True)
    before = contents(tmp_path / "b")
    (tmp_path / "a" / "X" / "c" / "0" / "0").write_bytes(b"")
    with pytest.raises(OutputExists, match="choose another name, or replace it by overwrite=True"):
        shuffle_store(source, tmp_path / "b")
    with pytest.raises(CorruptChunk):
        shuffle_store(source, tmp_path / "b", overwrite=True)
    assert contents(tmp_path / "b") == before
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_an_output_is_replaced(tmp_path):
    source = write(tmp_path / "a")
    for seed in (0, 1):
        shuffle_store(source, tmp_path / "b", random_state=seed, overwrite=True)
        assert source_rows(open_store(tmp_path / "b")).tolist() == order_of(seed).tolist()
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("out", ["a", "../{}/a", "link", "."])
def test_a_store_is_not_shuffled_onto_itself(tmp_path, out):
    source = write(tmp_path / "a")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    where = tmp_path / out.format(tmp_path.name)
    with pytest.raises(ValueError, match="the store that is read; write to another place"):
        shuffle_store(source, where, overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["a", "link"]


@pytest.mark.parametrize("seed", [-1, 0.5, "0"])
def test_a_seed_that_can_not_be_used(tmp_path, seed):
    source = write(tmp_path / "a")
    with pytest.raises((ValueError, TypeError)):
        shuffle_store(source, tmp_path / "b", random_state=seed)
    assert os.listdir(tmp_path) == ["a"]


def test_a_ceiling_that_is_too_small_is_refused_before_anything_is_read(tmp_path):
    source = write(tmp_path / "a")
    (tmp_path / "a" / "X" / "c" / "0" / "0").write_bytes(b"")
    with pytest.raises(CeilingExceeded, match=r"raise the memory ceiling to \d+MiB") as no:
        shuffle_store(source, tmp_path / "b", memory_ceiling="17MiB")
    assert "shuffling" in str(no.value)
    assert os.listdir(tmp_path) == ["a"]


def test_what_is_not_finite_stops_it_and_leaves_nothing(tmp_path):
    group = zarr.open_group(tmp_path / "a", mode="w")
    values = X.copy()
    values[4321, 2] = np.nan
    group.create_array("X", shape=values.shape, chunks=(100, 4), dtype="f4")[...] = values
    with pytest.raises(NonFiniteData, match="X has nan in row"):
        shuffle_store(tmp_path / "a", tmp_path / "b")
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_disk_that_fills_up_leaves_what_was_there(tmp_path, monkeypatch, after):
    source, _ = write(tmp_path / "a"), write(tmp_path / "b", ids=True)
    before, calls, real = contents(tmp_path / "b"), itertools.count(), os.write

    def full(fd, data):
        if next(calls) >= after:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data[:9999])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="disk is full: free some room") as caught:
        shuffle_store(source, tmp_path / "b", overwrite=True)
    assert caught.value.errno == errno.ENOSPC
    assert contents(tmp_path / "b") == before
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


# Three arrays of 8 shards each, then the metadata.
@pytest.mark.parametrize("failing", [0, 7, 21, 22, 23, 24, 27])
def test_a_shard_that_does_not_reach_the_disk_stops_it(tmp_path, monkeypatch, failing):
    source, calls, real = write(tmp_path / "a", y=CLASS), itertools.count(), os.fsync

    def fail(fd):
        if next(calls) == failing:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        real(fd)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"quota is used up.*nothing of it was committed"):
        shuffle_store(source, tmp_path / "b")
    assert os.listdir(tmp_path) == ["a"]


def test_statistics_of_other_rows_are_refused(tmp_path):
    known = write(tmp_path / "a", weighted=True).statistics
    for features, weighted in ((4, False), (3, True)):
        with pytest.raises(ValueError, match=r"statistics are of 4 columns, weighted=True"):
            StoreWriter(
                tmp_path / "b", n_features=features, sample_weight=weighted, statistics=known
            )


SHUFFLE = """
import sys
from ooc_train.store.jobs.shuffle import shuffle_store
source, out, seed = sys.argv[1:]
print("begins", flush=True)
shuffle_store(source, out, random_state=int(seed), overwrite=True, memory_ceiling="64MiB")
"""


def start(source, out, seed):
    process = subprocess.Popen(
        [sys.executable, "-c", SHUFFLE, str(source), str(out), str(seed)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"begins\n"
    return process


@pytest.mark.slow
@pytest.mark.parametrize("replaced", [False, True])
# Where the last kill came in the midst of writing, the shuffle after it tells of what it removes.
@pytest.mark.filterwarnings("ignore::ooc_train.errors.LeftoversRemoved")
def test_a_kill_at_any_moment_leaves_a_whole_store_or_none(tmp_path, replaced):
    source, out = tmp_path / "a", tmp_path / "b"
    make_data(source, rows=400_000, features=20)
    if replaced:
        shuffle_store(source, out, random_state=100)
    began = time.perf_counter()
    start(source, tmp_path / "c", 0).communicate()
    lasts = time.perf_counter() - began
    killed = 0
    for seed, moment in enumerate(np.random.default_rng(0).random(10)):
        process = start(source, out, seed)
        time.sleep(moment * lasts / 2)
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        try:
            left: Store | None = open_store(out)
        except StoreNotFound:
            left = None
            assert not replaced or (tmp_path / ".b.replaced").exists()
        if left is not None:
            assert np.sort(source_rows(left)).tolist() == list(range(400_000))
        assert set(os.listdir(tmp_path)) <= {"a", "b", "c", ".b.partial", ".b.replaced"}
    assert killed > 3
    shuffle_store(source, out, overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c"]
    np.testing.assert_array_equal(
        source_rows(open_store(out)), source_rows(open_store(tmp_path / "c"))
    )


MEMORY = """
import sys
from ooc_train.store.jobs.shuffle import shuffle_store
source, out, ceiling = sys.argv[1:]
_, report = shuffle_store(source, out, memory_ceiling=ceiling)
print(report.ceiling, report.projected, report.measured)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak can't be reset")
@pytest.mark.parametrize(("features", "codec"), [(100, "none"), (3, "lz4")])
def test_what_is_held_stays_under_the_ceiling(tmp_path, features, codec):
    # Of the ceiling, 16 MiB are the interpreter's: the data are 6 to 16 times what is left.
    make_data(tmp_path / "a", rows=min(2**22, 2**26 // features), features=features, codec=codec)
    arguments = [str(tmp_path / "a"), str(tmp_path / "b"), "32MiB"]
    result = subprocess.run(
        [sys.executable, "-c", MEMORY, *arguments], capture_output=True, text=True, check=True
    )
    ceiling, projected, measured = (int(value) for value in result.stdout.split())
    assert measured <= projected <= ceiling == 2**25
