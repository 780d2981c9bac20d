"""Opening stores: ours, other people's, and what is none."""

import json
import pickle
import shutil
import warnings

import numpy as np
import pytest
import zarr

from ooc_train.errors import InvalidStore, StoreNotFound
from ooc_train.store.format.chunk_sizes import default_chunk_rows, default_shard_rows
from ooc_train.store.format.statistics import ColumnStatistics
from ooc_train.store.opening.opener import open_store
from ooc_train.store.writing.writer import StoreWriter
from tests.sealing import checksums_off, edit

X = np.random.default_rng(0).normal(3, 2, (30, 4)).astype("f4")
Y = np.arange(30) % 3


@pytest.fixture
def path(tmp_path):
    """A store of ours with everything in it."""
    with StoreWriter(
        tmp_path / "a.zarr",
        n_features=4,
        feature_names=("a", "b", "c", "d"),
        classes=("low", "mid", "high"),
        chunk_rows=4,
        shard_rows=8,
        sample_weight=True,
        row_id=True,
        shuffled=7,
        attributes={"truth": [1.5, None]},
    ) as writer:
        writer.write(X, Y, sample_weight=1 + Y, row_id=100 - np.arange(30))
        writer.commit()
    return str(tmp_path / "a.zarr")


def group(folder, **arrays):
    """A plain group of another writer."""
    made = zarr.create_group(folder / "b.zarr")
    for name, values in arrays.items():
        made.create_array(name, data=values)
    return str(folder / "b.zarr")


def test_a_store_knows_what_was_written(path):
    store = open_store(path)
    assert store.path == path
    assert (store.n_rows, store.n_features, store.n_outputs) == (30, 4, 1)
    assert (store.X.dtype, store.chunk_rows, store.shard_rows, store.n_chunks) == ("<f4", 4, 8, 8)
    assert (store.chunk_bytes, store.row_bytes, store.total_bytes) == (64, 16 + 1 + 8, 30 * 25)
    assert store.feature_names == ("a", "b", "c", "d")
    assert store.classes == ("low", "mid", "high")
    assert store.class_counts == (10, 10, 10)
    assert (store.shuffled, store.generation) == (7, 1)
    assert store.attributes == {"truth": [1.5, None]}
    assert store.y is not None
    assert store.y.dtype == "|u1"
    assert store.row_id is not None
    assert store.row_id.dtype == "<i8"
    assert store.distinct_labels().tolist() == [0, 1, 2]
    assert "30 x 4 float32, y uint8, 3 classes, weighted, shuffled with seed 7" in repr(store)
    assert pickle.loads(pickle.dumps(store)).X == store.X
    assert len(pickle.dumps(store.X)) < 500


def test_weights_can_be_turned_off(path):
    assert open_store(path).sample_weight is not None
    assert open_store(path, sample_weight=None).sample_weight is None
    assert open_store(path, y=None).y is None


def test_statistics_survive_json():
    a, b, c, d = np.random.default_rng(1).normal(size=(4, 3))
    statistics = ColumnStatistics(a, b, c, d, weight=0.1, weighted=True)
    again = ColumnStatistics.from_json(json.loads(json.dumps(statistics.to_json())))
    for name in ("mean", "scale", "minimum", "maximum"):
        np.testing.assert_array_equal(getattr(again, name), getattr(statistics, name))
    assert (again.weight, again.weighted) == (0.1, True)


def test_the_manifest_rules_over_the_shapes_of_arrays(path):
    edit(path, n_rows=18)
    store = open_store(path)
    assert (store.n_rows, store.n_chunks, store.X.shape) == (18, 5, (18, 4))
    edit(path, n_rows=31)
    with pytest.raises(InvalidStore, match="X has 30 rows, the manifest counts 31"):
        open_store(path)


def test_a_manifest_that_counts_no_rows(path):
    edit(path, n_rows=None)
    with pytest.raises(InvalidStore, match=r"zarr.json: attributes.n_rows is None, which is no"):
        open_store(path)


def test_labels_beyond_the_limit_are_not_classes(path):
    with pytest.raises(InvalidStore, match="more than 2 distinct values"):
        open_store(path).distinct_labels(limit=2)
    with pytest.raises(InvalidStore, match="this one is None"):
        open_store(path, y=None).distinct_labels()


def test_numpy_does_not_load_it_by_accident(path):
    with pytest.raises(TypeError, match=r"would be loaded whole .* store.read\('X', 0, 1000\)"):
        np.asarray(open_store(path))


def test_rows_are_read_on_purpose(path, monkeypatch):
    store = open_store(path)
    assert np.array_equal(store.read("y"), Y)
    assert store.read("y").dtype == "u1"
    assert np.array_equal(store.read("X", 3, 11), X[3:11])
    assert np.array_equal(store.read("sample_weight", start=29), [3])
    assert np.array_equal(store.read("row_id", stop=2), [100, 99])
    assert store.read("X", 5, 5).shape == (0, 4)
    for start, stop in ((0, 31), (-1, 4), (5, 4)):
        with pytest.raises(IndexError, match=r"rows .* of 30 of"):
            store.read("X", start, stop)
    with pytest.raises(InvalidStore, match="has no array 'z'"):
        store.read("z")
    with pytest.raises(InvalidStore, match="has no array 'y'"):
        open_store(path, y=None).read("y")
    monkeypatch.setattr("ooc_train.store.dataset.available_memory", lambda: 400)
    assert len(store.read("X", 0, 25)) == 25
    with pytest.raises(MemoryError, match=r"26 rows of X take 416 B, and 400 B are available"):
        store.read("X", 0, 26)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_group_of_another_writer(tmp_path, zarr_format):
    made = zarr.create_group(tmp_path / "b", zarr_format=zarr_format)
    made.create_array("X", data=X, chunks=(7, 4))
    made.create_array("y", data=X[:, :2].astype("f8"), chunks=(5, 2))
    for place in (tmp_path / "b", str(tmp_path / "b"), f"file://{tmp_path}/b", made):
        store = open_store(place)
        assert (store.n_rows, store.chunk_rows, store.n_outputs) == (30, 7, 2)
        assert store.X.direct == (zarr_format == 3)
        assert store.path == str(tmp_path / "b")
        assert (store.generation, store.statistics, store.classes) == (0, None, None)


def test_stale_consolidated_metadata_is_not_trusted(tmp_path):
    for zarr_format in (2, 3):
        made = zarr.create_group(tmp_path / f"b{zarr_format}", zarr_format=zarr_format)
        array = made.create_array("X", data=X)
        with warnings.catch_warnings():
            # Consolidated metadata is not (yet) part of format 3, says zarr-python.
            warnings.simplefilter("ignore")
            zarr.consolidate_metadata(made.store)
        array.append(X)
        assert open_store(tmp_path / f"b{zarr_format}").n_rows == 60


def test_a_bare_array_is_taken_as_features(tmp_path):
    array = zarr.create_array(tmp_path / "x", data=X)
    for place in (tmp_path / "x", array):
        store = open_store(place)
        assert (store.n_rows, store.y) == (30, None)


def test_arrays_by_other_names(tmp_path):
    path = group(tmp_path, data=X, target=Y, y=X)
    store = open_store(path, X="data", y="target")
    assert store.y is not None
    assert store.y.shape == (30,)
    with pytest.raises(InvalidStore, match="no array 'X'"):
        open_store(path)
    with pytest.raises(InvalidStore, match="no array 'weights'"):
        open_store(path, X="data", sample_weight="weights")


def test_without_y_and_weights(tmp_path):
    store = open_store(group(tmp_path, X=X))
    assert (store.y, store.sample_weight, store.n_outputs) == (None, None, 0)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": X, "y": Y[:20]}, "y has 20 rows, X has 30"),
        ({"X": X[:, 0]}, r"X has shape \(30,\)"),
        ({"X": X[:, 0]}, r"should be \(sample, feature\), or \(sample, height, width\)"),
        ({"X": X, "y": Y.reshape(30, 1, 1)}, r"should be \(sample,\) or"),
        ({"X": X, "sample_weight": X}, r"sample_weight has shape \(30, 4\)"),
        ({"X": X, "sample_weight": X[:9, 0]}, "sample_weight has 9 rows"),
        ({"X": X[:0]}, "it is empty"),
        ({"X": X[:, :0]}, "it is empty"),
        ({"X": X.astype("c8")}, "X needs numbers"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, arrays, message):
    with pytest.raises(InvalidStore, match=message):
        open_store(group(tmp_path, **arrays))


def test_packed_values_are_refused(tmp_path):
    path = group(tmp_path, X=X)
    zarr.open_group(path)["X"].attrs["scale_factor"] = 0.1
    with pytest.raises(InvalidStore, match="scale_factor"):
        open_store(path)


def test_what_is_no_store(tmp_path, path):
    with pytest.raises(StoreNotFound, match="there is nothing at"):
        open_store(tmp_path / "nowhere")
    with pytest.raises(StoreNotFound, match="memory://nowhere"):
        open_store("memory://nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidStore, match="ooc-train ingest"):
        open_store(tmp_path / "empty")
    (tmp_path / "rows.csv").write_text("1,2")
    with pytest.raises(InvalidStore, match="ooc-train ingest"):
        open_store(tmp_path / "rows.csv")
    with pytest.raises(InvalidStore, match="memory of this process"):
        open_store(zarr.create_group({}))
    with pytest.raises(TypeError, match="not ndarray"):
        open_store(X)  # type: ignore[arg-type]
    edit(path, format_version=3)
    with pytest.raises(InvalidStore, match=r"version 3.*update ooc_train"):
        open_store(path)


def test_metadata_that_is_damaged(path):
    with open(f"{path}/X/zarr.json", "r+") as file:
        file.truncate(100)
    with pytest.raises(InvalidStore, match=r"X/zarr.json is not valid JSON"):
        open_store(path)
    with open(f"{path}/X/zarr.json", "w") as file:
        json.dump({"zarr_format": 3, "node_type": "array", "shape": [3, 2]}, file)
    with pytest.raises(InvalidStore, match=r"X/zarr.json: data_type is missing"):
        open_store(path)
    checksums_off(path)
    shutil.rmtree(f"{path}/X")
    with pytest.raises(InvalidStore, match="no array 'X'"):
        open_store(path)
    with open(f"{path}/zarr.json", "w") as file:
        json.dump([], file)
    with pytest.raises(InvalidStore, match="no JSON object"):
        open_store(path)


@pytest.mark.parametrize(
    ("n_features", "n_rows", "rows"),
    [(10, 1, 32), (10, 300, 32), (10, 3_000, 160), (20, 100_000, 6_240), (3_000, 2_000, 69)],
)
def test_few_rows_have_smaller_default_chunks(n_features, n_rows, rows):
    assert default_chunk_rows(n_features, "f4", n_rows) == rows
    assert n_rows < 16 * rows or rows == 32 or -(-n_rows // rows) >= 16


@pytest.mark.parametrize("n_features", [1, 24, 784, 10_000])
def test_many_rows_have_the_default_chunks(n_features):
    rows = default_chunk_rows(n_features, "f4")
    for n_rows in (16 * rows, 16 * rows + 1, 10**9):
        assert default_chunk_rows(n_features, "f4", n_rows) == rows


@pytest.mark.parametrize("dtype", ["u1", "f4", "f8"])
@pytest.mark.parametrize("n_features", [1, 24, 100, 784, 10_000, 3_000_000])
def test_default_sizes(n_features, dtype):
    rows = default_chunk_rows(n_features, dtype)
    size = rows * n_features * np.dtype(dtype).itemsize
    assert rows % 256 == 0 or rows < 256
    assert rows == 1 or 0.4 < size / 2**20 < 1.25
    shard_rows = default_shard_rows(n_features, dtype)
    assert shard_rows % rows == 0
    assert shard_rows == rows or 56 < shard_rows * size / rows / 2**20 < 72
    assert default_shard_rows(n_features, dtype, chunk_rows=7) % 7 == 0
    assert default_shard_rows(1, dtype, chunk_rows=7) == 7 * 4096
    assert default_shard_rows(1, dtype, chunk_rows=7, n_rows=100) == 7 * 256
    assert default_shard_rows(1, dtype, chunk_rows=7, n_rows=7 * 3_000) == 7 * 3_000
    assert default_shard_rows(1, dtype, chunk_rows=7, n_rows=10**9) == 7 * 4096
    assert default_shard_rows(n_features, dtype, n_rows=10**9) == shard_rows
