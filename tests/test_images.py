"""Rows of several axes, such as images: models take their values as columns, in C order."""

import json
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr

from ooc_train import (
    StoreWriter,
    Training,
    evaluate,
    open_store,
    predict,
    rechunk_store,
    shuffle_store,
    train,
)
from ooc_train.cli.describe import describe_store, store_text
from ooc_train.errors import CorruptChunk, InvalidRun, InvalidStore
from ooc_train.estimators import LogisticRegression, MLPClassifier, Ridge
from ooc_train.models.model_registry import MODELS
from ooc_train.monitoring.run_page import run_page
from ooc_train.runs.run_loading import load_fitted
from tests.sealing import edit

ROWS, SHAPE = 300, (4, 5, 3)
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (ROWS, *SHAPE), np.uint8)
FLAT = IMAGES.reshape(ROWS, -1)
WEIGHTS = RANDOM.normal(0, 1, FLAT.shape[1])
Y = (FLAT @ WEIGHTS - 128 * WEIGHTS.sum()) / 500
LABELS = (Y > 0).astype(int)
EXACT = Training(tol=1e-9, max_iter=200)


def written(path, X, y, **settings):
    """Return a store of rows, in chunks of 64."""
    shape = {"row_shape": X.shape[1:]} if X.ndim > 2 else {"n_features": X.shape[1]}
    with StoreWriter(path, dtype=X.dtype, chunk_rows=64, **shape, **settings) as writer:
        for start in range(0, len(X), 90):
            writer.write(X[start : start + 90], y[start : start + 90])
        return writer.commit()


@pytest.fixture
def stores(tmp_path):
    """The same rows as images and as columns."""
    classes = {"classes": ("no", "yes")}
    return (
        written(tmp_path / "images.zarr", IMAGES, LABELS, **classes),
        written(tmp_path / "flat.zarr", FLAT, LABELS, **classes),
    )


def model_of(name):
    """Return a model with few settings."""
    network = {"hidden_layer_sizes": (4,)} if name.startswith("mlp") else {}
    return MODELS[name](**network)


def test_a_store_of_images_knows_its_shape(stores):
    images, flat = stores
    assert images.X.shape == (ROWS, *SHAPE)
    assert (images.row_shape, flat.row_shape) == (SHAPE, None)
    assert images.n_features == flat.n_features == 60
    assert (images.row_bytes, images.chunk_bytes) == (flat.row_bytes, flat.chunk_bytes)
    assert np.array_equal(images.read("X"), IMAGES)
    assert np.array_equal(images.read("X", 70, 75), IMAGES[70:75])
    assert images.statistics is not None
    assert flat.statistics is not None
    assert images.statistics.to_json() == flat.statistics.to_json()
    assert "300 x 4 x 5 x 3 uint8" in repr(images)
    axes = json.loads((Path(images.path) / "X" / "zarr.json").read_text())["dimension_names"]
    assert axes == ["sample", "height", "width", "channel"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["logistic", "mlp-classifier", "ridge", "linear-svc", "huber"])
def test_models_learn_the_columns_of_images(stores, tmp_path, name):
    model = model_of(name)
    if not model.is_classifier:
        stores = (
            written(tmp_path / "images.n.zarr", IMAGES, Y),
            written(tmp_path / "flat.n.zarr", FLAT, Y),
        )
    training = Training(max_iter=3, random_state=0)
    fits = [train(model, store, training)[0] for store in stores]
    for one, other in zip(*(fit.predictor.arrays.values() for fit in fits), strict=True):
        assert np.array_equal(one, other)
    assert (fits[0].row_shape, fits[1].row_shape) == (SHAPE, None)
    metrics = [evaluate(fit, store)[0] for fit, store in zip(fits, stores, strict=True)]
    assert metrics[0]["loss"] == metrics[1]["loss"]
    one, other = (predict(fit, store, "decision") for fit, store in zip(fits, stores, strict=True))
    assert np.array_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [16, "full"])
def test_arrays_of_images_are_learned_as_their_columns(batch_size):
    training = Training(batch_size=batch_size, max_iter=2, random_state=0)
    model = model_of("logistic")
    flat = FLAT.astype("f4")
    plain, _ = train(model, flat, training, y=LABELS)
    images, _ = train(model, IMAGES, training, y=LABELS)
    assert np.array_equal(images.coef, plain.coef)
    assert np.array_equal(predict(images, IMAGES, "decision"), predict(plain, flat, "decision"))
    blocks = da.from_array(IMAGES, chunks=(100, 2, 5, 1))
    cut, _ = train(model, blocks, training, y=LABELS)
    other, _ = train(model, da.from_array(flat, chunks=(100, 60)), training, y=LABELS)
    assert np.array_equal(cut.coef, other.coef)
    assert cut.row_shape == images.row_shape == SHAPE
    assert np.array_equal(predict(cut, blocks), predict(cut, IMAGES))


def test_rows_of_another_shape_are_refused(stores, tmp_path):
    images, flat = stores
    fitted, _ = train(model_of("logistic"), images)
    channels_first = np.moveaxis(IMAGES, 3, 1)
    with pytest.raises(InvalidRun, match=r"has the shape \(3, 4, 5\), and one of the model \(4, 5"):
        predict(fitted, channels_first)
    other = written(tmp_path / "other.zarr", channels_first, LABELS, classes=("no", "yes"))
    with pytest.raises(InvalidRun, match="channels come last"):
        evaluate(fitted, other)
    with pytest.raises(ValueError, match="validation data has the shape"):
        train(model_of("logistic"), images, validation=other)
    with pytest.raises(ValueError, match="the model to start from"):
        train(model_of("logistic"), other, start=fitted)
    assert np.array_equal(predict(fitted, flat), predict(fitted, FLAT))
    classifier = LogisticRegression().fit(images)
    for call in (classifier.predict, classifier.score):
        with pytest.raises(ValueError, match="has the shape"):
            call(other)
    with pytest.raises(ValueError, match="has the shape"):
        MLPClassifier((3,), batch_size=50).partial_fit(images, classes=["no", "yes"]).partial_fit(
            other
        )


def test_a_saved_model_knows_the_shape(stores, tmp_path):
    fitted, _ = train(model_of("logistic"), stores[0])
    fitted.save(tmp_path / "run")
    assert load_fitted(tmp_path / "run").row_shape == SHAPE
    estimator = LogisticRegression().fit(stores[0])
    assert estimator.to_fitted().row_shape == SHAPE
    assert LogisticRegression().fit(FLAT, LABELS).to_fitted().row_shape is None


def test_estimators_take_images_in_memory_as_a_store_of_them(stores):
    of_arrays, of_store = (
        LogisticRegression().fit(*data) for data in ((IMAGES, LABELS), stores[:1])
    )
    assert of_arrays.to_fitted().row_shape == SHAPE
    assert of_arrays.n_features_in_ == FLAT.shape[1]
    assert np.allclose(of_arrays.coef_, of_store.coef_, rtol=1e-4, atol=1e-6)
    for each in (of_arrays, of_store):
        assert np.array_equal(each.predict(IMAGES), each.predict(FLAT))
        with pytest.raises(ValueError, match=r"a row of X has the shape \(4, 4, 3\)"):
            each.predict(IMAGES[:, :, :4])
    assert of_arrays.score(IMAGES, LABELS) == of_arrays.score(FLAT, LABELS)


def test_dask_arrays_of_images_are_refused_with_what_to_do():
    fitted = Ridge().fit(FLAT, Y)
    for call in (lambda X: Ridge().fit(X, Y), fitted.predict):
        with pytest.raises(ValueError, match=r"Found array with dim 4.*pass X.reshape"):
            call(da.from_array(IMAGES))


def test_rechunk_and_shuffle_keep_the_shape(stores, tmp_path):
    images, flat = stores
    rechunked, _ = rechunk_store(images, tmp_path / "rechunked.zarr", chunk_rows=50, codec="lz4")
    assert np.array_equal(rechunked.read("X"), IMAGES)
    assert images.statistics is not None
    assert rechunked.statistics is not None
    assert rechunked.statistics.to_json() == images.statistics.to_json()
    floats, _ = rechunk_store(images, tmp_path / "floats.zarr", dtype="float32")
    assert (floats.row_shape, floats.dtype) == (SHAPE, np.dtype("f4"))
    assert np.array_equal(floats.read("X"), IMAGES)
    shuffled, _ = shuffle_store(images, tmp_path / "shuffled.zarr")
    assert shuffled.row_shape == SHAPE
    order = shuffled.read("row_id")
    assert not np.array_equal(order, np.sort(order))
    assert np.array_equal(shuffled.read("X"), IMAGES[order])
    same, _ = shuffle_store(flat, tmp_path / "same.zarr")
    assert np.array_equal(same.read("X"), FLAT[order])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chunks", "shards"),
    [((64, *SHAPE), None), ((50, 2, 5, 2), None), ((25, 2, 5, 2), (50, 4, 5, 4))],
)
def test_images_of_other_writers(tmp_path, chunks, shards):
    group = zarr.create_group(tmp_path / "theirs.zarr")
    X = group.create_array("X", shape=IMAGES.shape, dtype="u1", chunks=chunks, shards=shards)
    X[...] = IMAGES
    group.create_array("y", data=LABELS)
    store = open_store(tmp_path / "theirs.zarr")
    assert np.array_equal(store.read("X", 40, 130), IMAGES[40:130])
    fitted, _ = train(model_of("logistic"), store, EXACT)
    expected, _ = train(model_of("logistic"), FLAT.astype("f4"), EXACT, y=LABELS)
    assert np.allclose(fitted.coef, expected.coef, rtol=1e-4, atol=1e-7)


def test_an_unwritten_part_of_images_is_found(tmp_path):
    group = zarr.create_group(tmp_path / "theirs.zarr")
    shards, chunks = (50, 4, 5, 4), (25, 2, 5, 2)
    X = group.create_array("X", shape=IMAGES.shape, dtype="u1", chunks=chunks, shards=shards)
    X[...] = np.maximum(IMAGES, 1)
    X[25:50, 2:4, :, 0:2] = 0  # zarr-python drops a chunk of fill values
    group.create_array("y", data=LABELS)
    with pytest.raises(CorruptChunk, match="missing from its shard"):
        open_store(tmp_path / "theirs.zarr").read("X")
    filled = open_store(tmp_path / "theirs.zarr", fill_missing=True).read("X")
    assert not filled[25:50, 2:4, :, 0:2].any()


@pytest.mark.parametrize("axes", [("height", "width", "sample"), ("y", "x", "image")])
def test_images_with_rows_last_are_refused(tmp_path, axes):
    group = zarr.create_group(tmp_path / "theirs.zarr")
    group.create_array("X", data=IMAGES[..., 0].T, dimension_names=axes)
    group.create_array("y", data=LABELS[:5], dimension_names=axes[-1:])
    with pytest.raises(InvalidStore, match=rf"transpose\('{axes[-1]}', '{axes[0]}', '{axes[1]}'\)"):
        open_store(tmp_path / "theirs.zarr")


def test_a_manifest_fits_the_values_of_a_row(stores):
    images, _ = stores
    assert images.statistics is not None
    short = {**images.statistics.to_json(), "mean": [0.0] * 4}
    edit(images.path, statistics=short)
    with pytest.raises(InvalidStore, match=r"statistics of .* columns, and X has 60"):
        open_store(images.path)
    edit(images.path, statistics=images.statistics.to_json(), feature_names=["a", "b", "c", "d"])
    with pytest.raises(InvalidStore, match="names 4 columns, and X has 60"):
        open_store(images.path)


def test_weights_of_images(tmp_path):
    weight = RANDOM.random(ROWS)
    with StoreWriter(
        tmp_path / "a.zarr", row_shape=SHAPE, dtype="u1", sample_weight=True, chunk_rows=64
    ) as writer:
        writer.write(IMAGES, Y, weight)
        store = writer.commit()
    assert store.statistics is not None
    assert np.allclose(store.statistics.mean, np.average(FLAT, axis=0, weights=weight))
    fitted, _ = train(model_of("ridge"), store, EXACT)
    expected, _ = train(model_of("ridge"), FLAT.astype("f4"), EXACT, y=Y, sample_weight=weight)
    assert np.allclose(fitted.coef, expected.coef, rtol=1e-6)


def test_info_names_pixels(stores):
    images, flat = stores
    text = store_text(images, 20)
    assert "60 (4 x 5 x 3) of uint8" in text
    assert "pixel 1,0,2 " in text
    assert describe_store(images, 60)["columns"][-1]["name"] == "pixel 3,4,2"
    assert describe_store(images, 1)["row_shape"] == SHAPE
    assert describe_store(flat, 1)["columns"][0]["name"] is None


@pytest.mark.slow
def test_the_page_of_a_run_names_pixels(stores):
    fitted, _ = train(model_of("logistic"), stores[0], EXACT)
    largest = int(np.argmax(np.abs(fitted.coef[0])))
    place = ",".join(map(str, np.unravel_index(largest, SHAPE)))
    assert f"pixel {place}" in run_page(fitted, "a")


def test_the_writer_takes_one_of_two_sizes(tmp_path):
    both: dict[str, Any] = {"n_features": 4, "row_shape": (2, 2)}
    for settings in ({}, both):
        with pytest.raises(ValueError, match="n_features, or row_shape"):
            StoreWriter(tmp_path / "a.zarr", **settings)
    with pytest.raises(ValueError, match="X needs at least one column"):
        StoreWriter(tmp_path / "a.zarr", row_shape=(2, 0))
    with pytest.raises(ValueError, match="feature_names are for rows of one axis"):
        StoreWriter(tmp_path / "a.zarr", row_shape=(2, 1), feature_names=["a", "b"])
    with StoreWriter(tmp_path / "a.zarr", row_shape=(2, 2), dtype="u1") as writer:
        with pytest.raises(ValueError, match=r"should be \(3, 2, 2\)"):
            writer.write(np.zeros((3, 4)))
        with pytest.raises(ValueError, match="300"):
            writer.write(np.full((1, 2, 2), 300))
