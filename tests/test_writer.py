"""Writing stores: the rows and nothing but the rows, all of them or none."""

import errno
import itertools
import os
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from ooc_train.errors import (
    InvalidStore,
    LeftoversRemoved,
    NonFiniteData,
    OutputExists,
    StoreNotFound,
)
from ooc_train.store.opening.opener import open_store
from ooc_train.store.reading.chunks import ChunkReader
from ooc_train.store.writing import shard_writer
from ooc_train.store.writing.output import OutputStore
from ooc_train.store.writing.shard_writer import ShardWriter
from ooc_train.store.writing.writer import StoreWriter

RNG = np.random.default_rng(0)
X = RNG.normal(1e4, 2, (50, 3))
Y = RNG.integers(0, 3, 50)
WEIGHT = RNG.random(50)


def write(path, cuts=(), **settings_of_writer):
    """Write X, Y and WEIGHT in pieces that end at `cuts`."""
    with StoreWriter(
        path,
        n_features=3,
        classes=("a", "b", "c"),
        chunk_rows=4,
        shard_rows=12,
        sample_weight=True,
        **settings_of_writer,
    ) as writer:
        ends = [0, *sorted(cuts), 50]
        for start, stop in itertools.pairwise(ends):
            writer.write(X[start:stop], Y[start:stop], WEIGHT[start:stop])
        return writer.commit()


def contents(folder):
    """Every file under a folder and its bytes."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def rows_of(layout):
    out = np.empty(layout.shape, layout.dtype)
    with ChunkReader(layout) as reader:
        reader.read_rows(0, layout.n_rows, out)
    return out


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 50), max_size=6), codec=st.sampled_from(["none", "lz4"]))
def test_cutting_the_rows_into_calls_changes_no_byte(tmp_path_factory, cuts, codec):
    folder = tmp_path_factory.mktemp("cuts")
    with mock.patch("ooc_train.store.writing.output.new_store_id", return_value="5e" * 16):
        write(folder / "whole", codec=codec)
        write(folder / "cut", cuts, codec=codec)
    assert contents(folder / "whole") == contents(folder / "cut")
    assert sorted(os.listdir(folder)) == ["cut", "whole"]


def test_statistics_are_those_of_the_rows(tmp_path):
    store = write(tmp_path / "a", dtype="f8")
    statistics = store.statistics
    assert statistics is not None
    mean = np.average(X, axis=0, weights=WEIGHT)
    scale = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=WEIGHT))
    np.testing.assert_allclose(statistics.mean, mean, rtol=1e-14)
    np.testing.assert_allclose(statistics.scale, scale, rtol=1e-12)
    np.testing.assert_array_equal(statistics.minimum, X.min(axis=0))
    np.testing.assert_array_equal(statistics.maximum, X.max(axis=0))
    assert statistics.weighted
    assert statistics.weight == pytest.approx(WEIGHT.sum(), rel=1e-14)
    assert store.class_counts == tuple(np.bincount(Y))


def test_statistics_are_of_what_is_stored_not_of_what_was_given(tmp_path):
    statistics = write(tmp_path / "a", dtype="f4").statistics
    assert statistics is not None
    np.testing.assert_array_equal(statistics.minimum, X.astype("f4").min(axis=0))


def test_statistics_that_overflow_can_be_written(tmp_path):
    with StoreWriter(tmp_path / "a", n_features=2, dtype="f8", chunk_rows=2) as writer:
        writer.write([[1e200, 1], [-1e200, 3], [1e300, 5], [1e308, 7]])
        statistics = writer.commit().statistics
    assert statistics is not None
    assert statistics.scale[0] == np.finfo("f8").max
    assert (statistics.mean[1], statistics.scale[1]) == (4, np.sqrt(5))


def test_a_class_is_what_json_can_hold(tmp_path):
    with pytest.raises(TypeError, match="classes are str, int, float or bool, not tuple"):
        StoreWriter(tmp_path / "a", n_features=3, classes=((1, 2),))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["f4", "u1"])
def test_rows_without_weight_do_not_count(tmp_path, dtype):
    data = np.arange(20).reshape(10, 2)
    weight = np.r_[np.zeros(8), 1, 3]
    with StoreWriter(
        tmp_path / "a", n_features=2, dtype=dtype, chunk_rows=4, shard_rows=4, sample_weight=True
    ) as writer:
        writer.write(data, sample_weight=weight)
        statistics = writer.commit().statistics
    assert statistics is not None
    np.testing.assert_array_equal(statistics.mean, [17.5, 18.5])
    np.testing.assert_allclose(statistics.scale, np.sqrt([0.75, 0.75]))
    np.testing.assert_array_equal(statistics.minimum, [0, 1])


@pytest.mark.parametrize(
    ("y", "settings", "expected"),
    [
        (np.arange(4), {}, "<i8"),
        (np.arange(4) > 1, {}, "|b1"),
        (np.arange(4) / 3, {}, "<f4"),
        (np.arange(4) / 3, {"dtype": "f8"}, "<f8"),
        (np.arange(4) / 3, {"dtype": "u1"}, "<f4"),
        (np.arange(4), {"y_dtype": ">f8"}, "<f8"),
        (np.arange(4), {"classes": range(4)}, "|u1"),
        (np.arange(4), {"classes": np.arange(300)}, "<u2"),
    ],
)
def test_the_dtype_of_y(tmp_path, y, settings, expected):
    with StoreWriter(tmp_path / "a", n_features=1, **settings) as writer:
        writer.write(np.ones((4, 1)), y)
        store = writer.commit()
    assert store.y is not None
    assert store.y.dtype == expected
    np.testing.assert_array_equal(rows_of(store.y), y.astype(expected))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_what_is_not_finite_is_refused_where_it_is(tmp_path, value):
    bad = X.copy()
    bad[41:, 2] = value
    bad[45, 0] = value
    with StoreWriter(tmp_path / "a", n_features=3, chunk_rows=4, shard_rows=8) as writer:
        writer.write(bad[:30])
        with pytest.raises(NonFiniteData, match=r"X has .* in row 41, column 2"):
            writer.write(bad[30:])
    assert os.listdir(tmp_path) == []


def test_y_and_weights_that_are_not_finite(tmp_path):
    bad = np.where(np.arange(50) == 7, np.nan, 1)
    for name in ("y", "sample_weight"):
        with (
            pytest.raises(NonFiniteData, match=f"^{name} has nan in row 7,"),
            StoreWriter(tmp_path / "a", n_features=3, sample_weight=name != "y") as writer,
        ):
            writer.write(X, **{name: bad})


@pytest.mark.parametrize(
    ("settings_of_writer", "rows", "message"),
    [
        ({}, {"X": X[:, :2]}, r"X has shape \(50, 2\), it should be \(50, 3\)"),
        ({}, {"X": X, "y": Y[:9]}, r"y has shape \(9,\), it should be \(50,\)"),
        ({}, {"X": X.astype("S9")}, "numbers are needed"),
        ({}, {"X": X, "sample_weight": WEIGHT}, "takes X; this one has X, sample_weight"),
        ({"outputs": 2}, {"X": X}, "takes X, y; this one has X"),
        ({"sample_weight": True}, {"X": X, "sample_weight": WEIGHT - 0.5}, "negative"),
        ({"classes": "ab"}, {"X": X, "y": Y}, "from 0 to 2, with 2 classes"),
        ({"classes": "abc"}, {"X": X, "y": Y - 1}, "can't hold"),
        ({"classes": "abc", "y_dtype": "f4"}, {"X": X, "y": Y + 0.5}, "with 3 classes"),
        ({"dtype": "u1"}, {"X": X}, "X has .* in row 0, which uint8 can't hold"),
        ({"dtype": "i4"}, {"X": X * np.nan}, "is no finite int32"),
    ],
)
def test_rows_that_do_not_fit(tmp_path, settings_of_writer, rows, message):
    with (
        pytest.raises(ValueError, match=message),
        StoreWriter(tmp_path / "a", n_features=3, **settings_of_writer) as writer,
    ):
        writer.write(**rows)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("settings_of_writer", "message"),
    [
        ({"n_features": 0}, "n_features=0"),
        ({"codec": "gzip"}, "'gzip' is none of none, lz4, zstd"),
        ({"feature_names": ["a"]}, "1 feature_names for n_features=3"),
        ({"classes": "ab", "outputs": 2}, "leave outputs out"),
        ({"chunk_rows": 5, "shard_rows": 12}, "no multiple of chunk_rows=5"),
        ({"chunk_rows": -1}, "chunk_rows=-1"),
        ({"dtype": "c8"}, "X can't be stored as complex64"),
        ({"attributes": {"loss": np.nan}}, "JSON"),
    ],
)
def test_settings_that_do_not_fit(tmp_path, settings_of_writer, message):
    with pytest.raises(ValueError, match=message):
        StoreWriter(tmp_path / "a", **{"n_features": 3, **settings_of_writer})
    assert os.listdir(tmp_path) == []


def test_a_write_that_failed_can_not_be_committed(tmp_path):
    with StoreWriter(tmp_path / "a", n_features=3) as writer:
        writer.write(X)
        with pytest.raises(NonFiniteData):
            writer.write(X * np.nan)
        with pytest.raises(ValueError, match="closed"):
            writer.write(X)
        with pytest.raises(ValueError, match="closed"):
            writer.commit()
    assert os.listdir(tmp_path) == []


def test_a_store_without_rows_is_not_committed(tmp_path):
    with StoreWriter(tmp_path / "a", n_features=3) as writer:
        writer.write(X[:0])
        with pytest.raises(ValueError, match="no row was written"):
            writer.commit()


def test_an_output_that_exists_stays_until_it_is_replaced(tmp_path):
    path = tmp_path / "a"
    write(path)
    with pytest.raises(OutputExists, match="choose another name, or replace it by overwrite=True"):
        StoreWriter(path, n_features=3)
    with StoreWriter(path, n_features=3, overwrite=True) as writer:
        writer.write(X[:5])
        assert open_store(path).n_rows == 50
    assert open_store(path).n_rows == 50
    with StoreWriter(path, n_features=3, overwrite=True) as writer:
        writer.write(X[:5])
        writer.commit()
    assert open_store(path).n_rows == 5
    assert os.listdir(tmp_path) == ["a"]


def test_what_is_no_zarr_is_never_replaced(tmp_path):
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.tex").write_text("ten years")
    with pytest.raises(OutputExists, match="is no Zarr, so it is not written over"):
        StoreWriter(tmp_path / "papers", n_features=3, overwrite=True)
    assert os.listdir(tmp_path / "papers") == ["thesis.tex"]


def test_two_writers_of_one_path(tmp_path):
    with StoreWriter(tmp_path / "a", n_features=3) as writer:
        writer.write(X)
        with pytest.raises(OutputExists, match="another process is writing"):
            StoreWriter(tmp_path / "a", n_features=3)
        writer.commit()
    assert open_store(tmp_path / "a").n_rows == 50


def test_a_writer_that_is_killed_leaves_nothing_that_opens(tmp_path):
    code = (
        "import os, numpy as np\n"
        "from ooc_train.store.writing.writer import StoreWriter\n"
        f"writer = StoreWriter({str(tmp_path / 'a')!r}, n_features=3, chunk_rows=4, shard_rows=8)\n"
        "writer.write(np.ones((30, 3)))\n"
        "os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert os.listdir(tmp_path) == [".a.partial"]
    with pytest.raises(StoreNotFound):
        open_store(tmp_path / "a")
    with pytest.raises(InvalidStore):
        open_store(tmp_path / ".a.partial")
    (tmp_path / ".a.partial" / "junk").write_text("of the killed run")
    with pytest.warns(LeftoversRemoved):
        write(tmp_path / "a")
    assert os.listdir(tmp_path) == ["a"]
    assert not (tmp_path / "a" / "junk").exists()


def test_a_disk_that_fills_up(tmp_path, monkeypatch):
    write_all, calls = shard_writer._write_all, []

    def full_after_nine(file, data):
        calls.append(data)
        if len(calls) > 9:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_all(file, data)

    monkeypatch.setattr(shard_writer, "_write_all", full_after_nine)
    with pytest.raises(OSError, match=r"disk is full.*nothing of it was committed") as caught:
        write(tmp_path / "a")
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == []


def test_a_directory_that_can_not_be_written(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    # Tests may run as root, whom permissions don't stop.
    monkeypatch.setattr(os, "makedirs", refuse)
    with pytest.raises(PermissionError, match="you may not write there: write elsewhere"):
        StoreWriter(tmp_path / "a", n_features=3)


def test_a_write_that_takes_fewer_bytes():
    class Slow:
        taken = b""

        def write(self, data):
            self.taken += bytes(data[:3])
            return min(3, len(data))

    slow = Slow()
    shard_writer._write_all(slow, memoryview(b"more than three"))
    assert slow.taken == b"more than three"


def test_arrays_that_processes_write_shard_by_shard(tmp_path):
    prediction = RNG.random(22)
    with OutputStore(tmp_path / "p") as made:
        layout = made.add_array(
            "prediction",
            row_shape=(),
            dtype="f8",
            chunk_rows=4,
            shard_rows=8,
            dimension_names=("sample",),
        )
        for shard in (2, 0, 1):
            with ShardWriter(layout, shard) as writer:
                for start in range(shard * 8, min(22, shard * 8 + 8), 4):
                    chunk = np.full(4, 77.0)
                    rows = min(4, 22 - start)
                    chunk[:rows] = prediction[start : start + rows]
                    writer.write(chunk, rows)
                writer.commit()
        with ShardWriter(layout, 1) as abandoned:
            abandoned.write(np.zeros(4))
            with pytest.raises(ValueError, match=r"<f8 \(4,\), this one float32 \(4,\)"):
                abandoned.write(np.zeros(4, "f4"))
        (tmp_path / ".p.partial/prediction/c/9.1.tmp").write_text("of a killed worker")
        made.commit(22, {"note": "mine"})
    assert sorted(contents(tmp_path / "p")) == [
        "prediction/c/0",
        "prediction/c/1",
        "prediction/c/2",
        "prediction/zarr.json",
        "zarr.json",
    ]
    # Two chunks of 32 bytes and their checksums; the last is filled up with zeros.
    last = contents(tmp_path / "p")["prediction/c/2"][36:68]
    np.testing.assert_array_equal(np.frombuffer(last), [*prediction[20:], 0, 0])
    group = zarr.open_group(tmp_path / "p", mode="r")
    assert set(group.attrs) == {"note", "store_id", "checksums"}
    assert group.attrs["note"] == "mine"
    np.testing.assert_array_equal(np.asarray(group["prediction"]), prediction)


def test_a_shard_takes_no_more_chunks_than_it_has(tmp_path):
    with OutputStore(tmp_path / "p") as made:
        layout = made.add_array(
            "a", row_shape=(), dtype="f8", chunk_rows=4, shard_rows=4, dimension_names=("sample",)
        )
        with ShardWriter(layout, 0) as writer:
            writer.write(np.zeros(4))
            with pytest.raises(ValueError, match="all of its 1 chunks"):
                writer.write(np.zeros(4))
