"""Pixels scaled on the fly: the fit of scaled floats, and a model that predicts from raw pixels."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from typer.testing import CliRunner

from ooc_train import (
    MLPClassifierModel,
    Shift,
    StoreWriter,
    TorchClassifierModel,
    Training,
    evaluate,
    predict,
    train,
)
from ooc_train.cli import app
from ooc_train.estimators import (
    Lasso,
    LogisticRegression,
    MLPClassifier,
    Ridge,
    SGDClassifier,
    TorchClassifier,
)
from ooc_train.models.column_moments import ColumnMoments
from ooc_train.models.network import RowScaling
from ooc_train.objective.penalty import Penalty
from ooc_train.objective.scaling import Scaling
from ooc_train.runs.run_loading import load_fitted
from tests.test_images import FLAT, IMAGES, LABELS, ROWS, SHAPE, Y, written

UNIT = IMAGES.astype("f4") / np.float32(255)
CLASSES = {"classes": ("no", "yes")}


@pytest.fixture
def stores(tmp_path):
    """The same images, raw and as floats from 0 to 1."""
    return (
        written(tmp_path / "raw.zarr", IMAGES, LABELS, **CLASSES),
        written(tmp_path / "unit.zarr", UNIT, LABELS, **CLASSES),
    )


@pytest.mark.parametrize(
    "training",
    [
        Training(batch_size=16, max_iter=3, random_state=1),
        Training(batch_size="full", solver="lbfgs", max_iter=5, random_state=1),
        Training(batch_size=32, max_iter=3, random_state=1, validation_fraction=0.3),
    ],
    ids=["batches", "full", "validation"],
)
def test_a_network_learns_raw_pixels_as_scaled_floats(stores, tmp_path, training):
    raw, unit = stores
    model = MLPClassifierModel(hidden_layer_sizes=(6,), scale=1 / 255)
    fitted, report = train(model, raw, training)
    other, expected = train(replace(model, scale=1.0), unit, training)
    # x / 255 of pixels are the very floats that the other store holds.
    assert [step.loss for step in report.history] == [step.loss for step in expected.history]
    assert report.loss == expected.loss
    fitted.save(tmp_path / "run")
    loaded = load_fitted(tmp_path / "run")
    z = predict(loaded, IMAGES, "decision")
    assert np.allclose(z, predict(other, UNIT, "decision"), rtol=1e-6, atol=1e-6)
    assert np.array_equal(z, predict(fitted, raw, "decision"))
    assert evaluate(loaded, raw)[0]["loss"] == pytest.approx(
        evaluate(other, unit)[0]["loss"], rel=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize("augment", [None, Shift(1)])
def test_a_module_learns_raw_pixels_as_scaled_floats(stores, tmp_path, augment):
    pytest.importorskip("torch")
    from tests.torch_nets import PixelNet

    raw, unit = stores
    training = Training(batch_size=16, max_iter=3, random_state=1)
    model = TorchClassifierModel(PixelNet, scale=1 / 255, augment=augment)
    fitted, report = train(model, raw, training)
    other, expected = train(replace(model, scale=1.0), unit, training)
    assert [step.loss for step in report.history] == [step.loss for step in expected.history]
    fitted.save(tmp_path / "run")
    z = predict(load_fitted(tmp_path / "run", module=PixelNet), IMAGES, "decision")
    assert np.array_equal(z, predict(other, UNIT, "decision"))
    assert np.array_equal(z, predict(fitted, raw, "decision"))
    estimator = TorchClassifier(PixelNet, scale=1 / 255, batch_size=16, max_iter=3, random_state=1)
    if augment is None:
        with pytest.warns(ConvergenceWarning):
            shares = estimator.fit(raw).predict_proba(IMAGES)
        assert np.array_equal(shares, predict(fitted, IMAGES, "probability"))
    with pytest.raises(ValueError, match="scale=-1 is not"):
        TorchClassifierModel(PixelNet, scale=-1)


def test_partial_fit_scales_each_block():
    fits = []
    for X, scale in ((FLAT.astype("f4"), 1 / 255), (UNIT.reshape(ROWS, -1), 1.0)):
        estimator = MLPClassifier((5,), batch_size=20, random_state=0, scale=scale)
        for start in range(0, ROWS, 100):
            rows = slice(start, start + 100)
            estimator.partial_fit(X[rows], LABELS[rows], classes=[0, 1])
        fits.append(estimator.predict_proba(X))
    one, other = fits
    assert np.allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize(
    "estimator",
    [
        Ridge(alpha=20.0),
        Ridge(alpha=20.0, fit_intercept=False),
        Ridge(alpha=20.0, batch_size="full", solver="lbfgs", tol=1e-10),
        Lasso(alpha=0.005, tol=1e-9),
        LogisticRegression(C=0.5, tol=1e-9),
        LogisticRegression(C=0.5, l1_ratio=1.0, tol=1e-8, max_iter=500),
        SGDClassifier(alpha=0.01, random_state=0, max_iter=5, tol=None),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_the_penalty_of_linear_models_is_on_scaled_columns(estimator):
    y = LABELS if hasattr(estimator, "predict_proba") or "SGD" in repr(estimator) else Y
    scaled = estimator.set_params(scale=1 / 255).fit(FLAT.astype(float), y)
    coef, intercept, predicted = scaled.coef_, scaled.intercept_, scaled.predict(FLAT)
    plain = estimator.set_params(scale=1.0).fit(FLAT / 255, y)
    tolerance = {"rtol": 1e-4, "atol": 1e-5 * np.abs(plain.coef_).max()}
    assert np.allclose(255 * coef, plain.coef_, **tolerance)
    assert np.allclose(intercept, plain.intercept_, rtol=1e-4, atol=1e-4)
    assert np.allclose(predicted, plain.predict(FLAT / 255), rtol=1e-4, atol=1e-4)
    other = estimator.fit(FLAT.astype(float), y)
    assert not np.allclose(other.coef_, coef, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("shape", [SHAPE, SHAPE[:2]])
def test_channels_are_standardised_by_their_own_moments(tmp_path, shape):
    X = IMAGES.copy() if len(shape) > 2 else IMAGES[..., 0]
    if len(shape) > 2:
        X[..., 1] //= 3
        X[:, :2] //= 2  # columns of a channel differ
    raw = written(tmp_path / "raw.zarr", X, LABELS, **CLASSES)
    axes = (0, 1, 2)
    floats = ((X - X.mean(axis=axes)) / X.std(axis=axes)).astype("f4")
    by_hand = written(tmp_path / "floats.zarr", floats, LABELS, **CLASSES)
    model = MLPClassifierModel(hidden_layer_sizes=(6,), scale="channel")
    training = Training(batch_size=16, max_iter=3, random_state=1)
    fitted, report = train(model, raw, training)
    other, expected = train(replace(model, scale=1.0), by_hand, training)
    assert report.loss == pytest.approx(expected.loss, rel=1e-4)
    assert np.allclose(
        predict(fitted, X, "decision"), predict(other, floats, "decision"), rtol=1e-3, atol=1e-4
    )
    from_arrays, _ = train(model, X, training, y=LABELS)  # without statistics of a store
    assert np.allclose(
        predict(from_arrays, X, "decision"),
        predict(
            train(replace(model, scale=1.0), floats, training, y=LABELS)[0], floats, "decision"
        ),
        rtol=1e-3,
        atol=1e-3,
    )


def test_moments_of_channels_are_those_of_training_rows(stores):
    model = MLPClassifierModel(hidden_layer_sizes=(4,), scale="channel")
    how = Training(batch_size=16, max_iter=2, random_state=1, validation_fraction=0.3)
    _, report = train(model, stores[0], how)
    _, of_all = train(model, stores[0], replace(how, validation_fraction=None))
    assert np.isfinite(report.loss)
    assert report.loss != of_all.loss


def test_moments_of_channels():
    X = IMAGES.astype(float)
    flat = X.reshape(ROWS, -1)
    moments = ColumnMoments(ROWS, flat.mean(axis=0), flat.var(axis=0)).by_channel(3)
    assert np.allclose(moments.mean[:3], X.mean(axis=(0, 1, 2)))
    assert np.allclose(moments.variance[:3], X.var(axis=(0, 1, 2)))
    assert np.array_equal(moments.mean.reshape(-1, 3), np.tile(moments.mean[:3], (20, 1)))


def test_rows_are_divided_by_one_number():
    pixels = np.arange(256, dtype="f4")[None]
    out = np.empty_like(pixels)
    scaled = RowScaling(Scaling.constant(1 / 255, 256), np.dtype("f4"))(pixels, out)
    assert scaled is out
    assert np.array_equal(scaled, pixels / np.float32(255))


def test_penalties_of_scaled_columns():
    penalty = Penalty(3.0, 2.0, positive=True, l2_of_each=(2.0, 4.0))
    assert penalty.of_scaled(0.5) == Penalty(6.0, 8.0, positive=True, l2_of_each=(8.0, 16.0))
    assert penalty.of_scaled(1.0) == penalty


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": 0.0}, "scale=0.0 is not 'channel' or a number above 0"),
        ({"scale": "columns"}, "scale='columns' is not"),
        ({"scale": 1 / 255, "standardize": True}, "no effect on columns that standardize=True"),
        ({"scale": "channel", "standardize": True}, "no effect on columns that standardize=True"),
    ],
)
def test_scales_that_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MLPClassifierModel(**settings)


def test_channels_need_images():
    model = MLPClassifierModel(scale="channel", hidden_layer_sizes=())
    with pytest.raises(ValueError, match="for images, rows of shape"):
        train(model, FLAT, y=LABELS)
    many = np.repeat(np.moveaxis(IMAGES, 3, 1), 2, axis=3)
    with pytest.raises(ValueError, match="seem to have channels first"):
        train(model, many, y=LABELS)
    with pytest.raises(ValueError, match="scale='channel' of mlp-classifier need the moments"):
        MLPClassifier(scale="channel").partial_fit(FLAT, LABELS, classes=[0, 1])
    with pytest.raises(ValueError, match="no effect"):
        Ridge(scale=0.5, standardize=True).fit(FLAT, Y)


@pytest.mark.slow
def test_the_command_line_takes_a_fraction(stores, tmp_path):
    def here(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    run = tmp_path / "a.run"
    made = here(
        "train", stores[0].path, "--model", "mlp-classifier", "--hidden-layer-sizes", "6",
        "--scale", "1/255", "--max-iter", "2", "--out", run, "--quiet", "--json", "--workers", "1",
        "--dashboard-address", "127.0.0.1:0",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    settings = json.loads((run / "model.json").read_text())
    assert settings["model"]["scale"] == 1 / 255
    assert settings["row_shape"] == list(SHAPE)
    failed = here("train", stores[0].path, "--scale", "1/0", "--out", tmp_path / "b.run")
    assert failed.exit_code != 0
    # A terminal of few columns breaks the line within a frame.
    assert "number above 0" in " ".join(failed.stderr.replace("│", " ").split())


LEARNS = """
import sys
from ooc_train import MLPClassifierModel, TorchClassifierModel, Training, train

kind, path, ceiling = sys.argv[1:]
if kind == "perceptron":
    model = MLPClassifierModel(hidden_layer_sizes=(8,), scale=1 / 255)
else:
    from tests.torch_nets import Strided

    model = TorchClassifierModel(Strided, scale=1 / 255)
how = Training(batch_size=128, max_iter=1, random_state=0)
memory = train(model, path, how, memory_ceiling=ceiling)[1].memory
print(memory.measured, memory.projected, memory.ceiling)
"""
"""A process of its own, since libraries that other tests loaded count too."""


@pytest.mark.slow
def test_images_of_eight_times_the_ceiling(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5_000, 56, 56), np.uint8)
    with StoreWriter(
        tmp_path / "a.zarr", row_shape=(56, 56), dtype="u1", classes=range(10), shuffled=0
    ) as writer:
        for _ in range(112):
            writer.write(images, np.arange(len(images)) % 10)
        store = writer.commit()
    for kind in ("perceptron", "module"):
        if kind == "module":
            pytest.importorskip("torch")
        command = [sys.executable, "-c", LEARNS, kind, str(store.path), "208MiB"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        measured, projected, ceiling = map(int, done.stdout.split())
        assert measured <= projected <= ceiling
        assert store.total_bytes > 8 * ceiling
