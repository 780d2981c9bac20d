"""Images standardised by channel on the fly: the fit of images that were standardised by hand."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from typer.testing import CliRunner

from ooc_train import (
    DifferentiallyPrivate,
    LogisticModel,
    Noise,
    RidgeModel,
    Shift,
    TorchClassifierModel,
    Training,
    evaluate,
    export,
    predict,
    summary,
    train,
)
from ooc_train.cli import app
from ooc_train.core.settings import settings_of
from ooc_train.errors import InvalidRun
from ooc_train.estimators import (
    HuberRegressor,
    Lasso,
    LinearRegression,
    LinearSVC,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    SGDClassifier,
    TorchClassifier,
)
from ooc_train.models.linear_model import LinearModel
from ooc_train.models.model import DataFigures
from ooc_train.models.model_registry import MODELS
from ooc_train.models.scale_setting import SCALES
from ooc_train.objective.losses.logistic import Logistic
from ooc_train.runs.run_loading import load_fitted
from tests.test_images import IMAGES, LABELS, ROWS, SHAPE, Y, written

COUNTS = np.random.default_rng(1).poisson(np.exp(Y - Y.min()) % 7)
CLASSES = {"classes": ("no", "yes")}
FEW = Training(batch_size=16, max_iter=3, random_state=1)


def uneven(images=IMAGES):
    """Return images whose channels differ, and whose columns of a channel differ too."""
    X = images.copy()
    X[..., 1] //= 3
    X[:, :2] //= 2
    X[:, 1, 2] = 7  # columns that never vary
    return X


RAW = uneven()
AXES = (0, 1, 2)
MEAN, DEVIATION = RAW.mean(axis=AXES), RAW.std(axis=AXES)
BY_HAND = (RAW - MEAN) / DEVIATION


@pytest.fixture
def stores(tmp_path):
    """The same images, raw and standardised by hand."""
    return (
        written(tmp_path / "raw.zarr", RAW, LABELS, **CLASSES),
        written(tmp_path / "floats.zarr", BY_HAND.astype("f4"), LABELS, **CLASSES),
    )


ESTIMATORS = [
    (Ridge(alpha=20.0), Y),
    (Ridge(alpha=20.0, fit_intercept=False), Y),
    (Ridge(alpha=20.0, batch_size="full", solver="lbfgs", tol=1e-10), Y),
    (Ridge(alpha=[20.0, 2.0]), np.column_stack([Y, -(Y**2)])),
    (Lasso(alpha=0.01, tol=1e-10), Y),
    (HuberRegressor(alpha=2.0, tol=1e-8), Y),
    (PoissonRegressor(alpha=0.5, tol=1e-8), COUNTS),
    (LogisticRegression(C=0.05, tol=1e-9), LABELS),
    (LogisticRegression(C=0.05, tol=1e-9, fit_intercept=False), LABELS),
    (LogisticRegression(C=0.05, tol=1e-9), np.arange(ROWS) % 3),
    (LogisticRegression(C=0.1, l1_ratio=1.0, tol=1e-9, max_iter=500), LABELS),
    (LinearSVC(C=0.01, tol=1e-9), LABELS),
    (SGDClassifier(alpha=0.01, random_state=0, max_iter=3, tol=None), LABELS),
]


@pytest.mark.parametrize(("estimator", "y"), ESTIMATORS, ids=lambda each: type(each).__name__[:12])
def test_linear_models_of_channels_are_those_of_standardised_images(estimator, y):
    scaled = clone(estimator).set_params(scale="channel").fit(RAW, y)
    plain = clone(estimator).fit(BY_HAND, y)
    coef = scaled.coef_ * np.tile(DEVIATION, 20)
    tolerance = {"rtol": 1e-4, "atol": 1e-5 * np.abs(plain.coef_).max()}
    assert np.allclose(coef, plain.coef_, **tolerance)
    intercept = np.ravel(scaled.intercept_) + np.atleast_2d(scaled.coef_) @ np.tile(MEAN, 20)
    assert np.allclose(intercept, plain.intercept_, rtol=1e-4, atol=1e-5)
    assert np.allclose(scaled.predict(RAW), plain.predict(BY_HAND), rtol=1e-4, atol=1e-5)
    by_column = clone(estimator).set_params(standardize=True).fit(RAW, y)
    assert not np.allclose(by_column.coef_, scaled.coef_, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("training", [Training(tol=1e-9), FEW], ids=["full", "batches"])
def test_stores_of_images_are_scaled_by_their_statistics(stores, tmp_path, training):
    raw, floats = stores
    fitted, report = train(LogisticModel(C=0.05, scale="channel"), raw, training)
    other, expected = train(LogisticModel(C=0.05), floats, training)
    assert report.loss == pytest.approx(expected.loss, rel=1e-4)
    fitted.save(tmp_path / "run")
    loaded = load_fitted(tmp_path / "run")
    z = predict(loaded, RAW, "decision")
    assert np.array_equal(z, predict(fitted, raw, "decision"))
    assert loaded.model == fitted.model
    assert np.allclose(z, predict(other, BY_HAND, "decision"), rtol=1e-4, atol=1e-4)
    loss = evaluate(other, floats)[0]["loss"]
    assert evaluate(loaded, raw)[0]["loss"] == pytest.approx(loss, rel=1e-4)


def test_partial_fit_of_a_linear_model_follows_the_moments():
    fits = []
    for X, scale in ((RAW, "channel"), (BY_HAND, 1.0)):
        estimator = SGDClassifier(alpha=0.1, random_state=0, scale=scale)
        fits.append(estimator.partial_fit(X, LABELS, classes=[0, 1]).predict(X))
        first = estimator.coef_.copy()
        estimator.partial_fit(X[:100] // 2 if scale == "channel" else X[:100], LABELS[:100])
        assert not np.array_equal(first, estimator.coef_)
    assert np.array_equal(*fits)


@pytest.mark.slow
@pytest.mark.parametrize("augment", [None, Shift(1), Noise(0.1)])
def test_a_module_learns_channels_as_standardised_images(stores, tmp_path, augment):
    pytest.importorskip("torch")
    from tests.torch_nets import PixelNet

    raw, floats = stores
    model = TorchClassifierModel(PixelNet, scale="channel", augment=augment)
    fitted, report = train(model, raw, FEW)
    fitted.save(tmp_path / "run")
    loaded = load_fitted(tmp_path / "run", module=PixelNet)
    z = predict(loaded, RAW, "decision")
    assert np.array_equal(z, predict(fitted, raw, "decision"))
    assert evaluate(loaded, raw)[0]["loss"] == evaluate(fitted, raw)[0]["loss"]
    if isinstance(augment, Shift):  # pixels without a source are 0 in units of the data
        return
    other, expected = train(replace(model, scale=1.0), floats, FEW)
    assert report.loss == pytest.approx(expected.loss, rel=1e-4)
    assert np.allclose(z, predict(other, BY_HAND, "decision"), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "training",
    [Training(solver="lbfgs", max_iter=4, random_state=1), replace(FEW, solver="adam")],
    ids=["lbfgs", "adam"],
)
def test_a_module_by_solvers_of_ooc_train(stores, training):
    pytest.importorskip("torch")
    from tests.torch_nets import PixelNet

    raw, floats = stores
    model = TorchClassifierModel(PixelNet, scale="channel")
    _, report = train(model, raw, training)
    _, expected = train(replace(model, scale=1.0), floats, training)
    assert report.loss == pytest.approx(expected.loss, rel=1e-4)


def test_moments_are_those_of_rows_that_are_learned_from(stores, tmp_path):
    pytest.importorskip("torch")
    from tests.torch_nets import PixelNet

    training = replace(FEW, validation_fraction=0.3)
    model = TorchClassifierModel(PixelNet, scale="channel")
    fitted, report = train(model, stores[0], training)
    predictor: Any = fitted.predictor
    mean, deviation = predictor.spec.channel_mean, predictor.spec.channel_scale
    assert not np.allclose(mean, MEAN, rtol=1e-3)
    floats = ((RAW - mean) / deviation).astype("f4")
    other = written(tmp_path / "other.zarr", floats, LABELS, **CLASSES)
    _, expected = train(replace(model, scale=1.0), other, training)
    assert report.loss == pytest.approx(expected.loss, rel=1e-4)
    assert report.history[-1].validation_loss == pytest.approx(
        expected.history[-1].validation_loss, rel=1e-4
    )


def test_an_estimator_of_a_module_tells_the_moments(stores, tmp_path):
    torch = pytest.importorskip("torch")
    from tests.torch_nets import PixelNet

    estimator = TorchClassifier(
        PixelNet, scale="channel", batch_size=16, max_iter=2, random_state=1
    )
    with pytest.warns(ConvergenceWarning):
        estimator.fit(RAW, LABELS)
    assert np.allclose(estimator.channel_mean_, MEAN)
    assert np.allclose(estimator.channel_scale_, DEVIATION)
    rows = (RAW - estimator.channel_mean_) / estimator.channel_scale_
    with torch.no_grad():
        z = estimator.module_(torch.from_numpy(rows.astype("f4"))).numpy()
    shares = 1 / (1 + np.exp(z[:, 0] - z[:, 1]))
    assert np.allclose(estimator.predict_proba(RAW)[:, 1], shares, atol=1e-5)
    with pytest.raises(ValueError, match="scale='channel' of torch-classifier need the moments"):
        estimator.partial_fit(RAW, LABELS)
    with pytest.raises(ValueError, match=r"less model\.channel_mean_, over"):
        export(estimator, tmp_path / "a.onnx")
    with pytest.raises(ValueError, match="for images, rows of shape"):
        estimator.fit(RAW.reshape(ROWS, -1), LABELS)


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (None, "moments of no channels, and its model \\(3, 3\\)"),
        ({"mean": [0.0], "scale": [1.0]}, "moments of \\(1, 1\\) channels"),
        ({"mean": [0.0] * 3, "scale": [1.0, 0.0, 1.0]}, "not finite numbers above 0"),
        ({"mean": [0.0] * 3, "scale": ["a", 0.0, 1.0]}, "scale"),
    ],
)
def test_saved_moments_that_do_not_fit(stores, tmp_path, saved, message):
    pytest.importorskip("torch")
    from ooc_train.models.pytorch.torch_predictor import TorchPredictor
    from tests.torch_nets import PixelNet

    fitted, _ = train(TorchClassifierModel(PixelNet, scale="channel"), stores[0], FEW)
    predictor: Any = fitted.predictor
    tensors, texts = predictor.to_file()
    figures = json.loads(texts["ooc_train"])
    assert len(figures["channels"]["mean"]) == 3
    figures["channels"] = saved
    if saved is None:
        del figures["channels"]
    texts["ooc_train"] = json.dumps(figures)
    with pytest.raises(ValueError, match=message):
        TorchPredictor.from_file(fitted.model, 2, tensors, texts)


LINEAR = [name for name, model in MODELS.items() if issubclass(model, LinearModel)]


@pytest.mark.parametrize("name", LINEAR)
def test_every_linear_model_scales_by_channels(name: str) -> None:
    own = {"loss": Logistic()} if name == "custom" else {}
    kind: Any = MODELS[name]
    model = kind(scale="channel", **own)
    classes = 2 if model.is_classifier else 0
    figures = DataFigures(ROWS, 60, 1, classes, ROWS, None, ROWS, SHAPE, 0)
    problem = model.problem(figures)
    assert problem.channels == 3
    assert problem.standardize
    with pytest.raises(ValueError, match="for images"):
        model.problem(replace(figures, row_shape=None))


def test_every_model_takes_the_scale():
    assert {name for name, model in MODELS.items() if _takes_no_channels(model)} == set()


def _takes_no_channels(model):
    return settings_of(model)["scale"].constraint != SCALES


def test_what_channels_refuse(stores):
    raw, _ = stores
    private = DifferentiallyPrivate(1.0, 0.7)
    with pytest.raises(ValueError, match="scale='channel' with differential privacy"):
        train(LogisticModel(scale="channel"), raw, replace(FEW, solver=private, learning_rate=0.1))
    with pytest.raises(ValueError, match="no effect on columns that standardize=True"):
        RidgeModel(scale="channel", standardize=True)
    model = LinearRegression(scale="channel", fit_intercept=False).fit(RAW, Y)
    assert model.intercept_ != 0.0
    with pytest.raises(ValueError, match="scale='channel' without an intercept centres"):
        summary(model, RAW, y=Y)


@pytest.mark.slow
def test_the_command_line_from_raw_images_to_an_onnx_file(stores, tmp_path):
    def here(*arguments):
        made = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert made.exit_code == 0, made.output + made.stderr
        return made

    raw, floats = stores
    alone = ("--quiet", "--json", "--workers", "1", "--dashboard-address", "127.0.0.1:0")
    run = tmp_path / "a.run"
    settings = ("--model", "logistic", "--C", "0.05", "--tol", "1e-9", "--scale", "channel")
    here("train", raw.path, *settings, "--out", run, *alone)
    fitted = load_fitted(run)
    other, _ = train(LogisticModel(C=0.05), floats, Training(tol=1e-9))
    expected = predict(other, BY_HAND, "probability")
    assert np.allclose(predict(fitted, RAW, "probability"), expected, atol=1e-4)
    here("predict", run, raw.path, tmp_path / "a.csv", *alone)
    onnxruntime = pytest.importorskip("onnxruntime")
    here("export", run, tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"))
    (rows,) = session.get_inputs()
    found = session.run(["probability"], {rows.name: RAW.astype("f8")})[0]
    assert np.allclose(found, expected, atol=1e-4)


def test_a_run_of_channels_refuses_columns(stores):
    fitted, _ = train(RidgeModel(scale="channel"), RAW, y=Y)
    with pytest.raises(InvalidRun, match="channels come last"):
        predict(fitted, np.moveaxis(RAW, 3, 1))
