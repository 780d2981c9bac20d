"""Calibrated probabilities against scikit-learn's, and calibrated runs as any others."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss
from typer.testing import CliRunner

import ooc_train
from ooc_train import cli
from ooc_train.errors import InvalidRun
from ooc_train.estimators.calibrated import CalibratedClassifier
from ooc_train.estimators.classification import LogisticRegression
from ooc_train.estimators.margins import LinearSVC
from ooc_train.estimators.networks import MLPClassifier
from ooc_train.estimators.regression import Ridge
from ooc_train.explanation.dependence import partial_dependence
from ooc_train.explanation.importance import permutation_importance
from ooc_train.exporting.export import export
from ooc_train.inference import calibrate as calibrate_module
from ooc_train.inference.calibrate import calibrate
from ooc_train.inference.calibration_sums import TemperatureSums
from ooc_train.inference.predict import evaluate, predict
from ooc_train.models.calibration import Isotonic, Sigmoid, Temperature
from ooc_train.models.classification_models import LogisticModel
from ooc_train.runs.run_loading import load_fitted
from ooc_train.solvers.training_settings import Training
from ooc_train.stream.inputs import read_inputs
from ooc_train.training.loop import train
from tests.streams import write_store
from tests.test_held import SMALL, held_by

METHODS = ["sigmoid", "temperature", "isotonic"]


def data(n_classes, rows=900, *, whole=False):
    """Return training rows and weighted validation rows; `whole` numbers have few scores."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2 * rows, 4))
    X = X[:, :2].round() if whole else X
    scores = X @ rng.normal(size=(X.shape[1], n_classes)) + rng.gumbel(size=(2 * rows, n_classes))
    y = np.array(list("cab"))[scores.argmax(axis=1)]
    weight = rng.integers(1, 4, 2 * rows).astype(float)
    return (X[:rows], y[:rows]), (X[rows:], y[rows:], weight[rows:])


def theirs(model, X, y, weight, method):
    plain = CalibratedClassifierCV(FrozenEstimator(model), method=method, ensemble=False)
    return plain.fit(X, y, sample_weight=weight).predict_proba(X)


@pytest.mark.filterwarnings("ignore:Since FrozenEstimator:UserWarning")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("estimator", [LogisticRegression, LinearSVC])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_probabilities_are_those_of_scikit_learn(n_classes, estimator, method, weighted):
    # Where rows of one score tie, and others are in other bins, isotonic regression is exact.
    rows, (X, y, weight) = data(n_classes, whole=method == "isotonic")
    model = estimator(max_iter=1000).fit(*rows)
    due = theirs(model, X, y, weight if weighted else None, method)
    ours = CalibratedClassifier(model, method).fit(X, y, weight if weighted else None)
    found = ours.predict_proba(X)
    assert abs(found - due).max() < 2e-8
    assert (ours.predict(X) == model.classes_[found.argmax(axis=1)]).all()
    assert ours.score(X, y) == accuracy_score(y, ours.predict(X))
    assert abs(found - model._predict(X, "decision", None).reshape(len(X), -1)).max() > 1e-3
    with np.errstate(divide="ignore"):
        due = np.log(found)
    assert ours.predict_log_proba(X) == pytest.approx(due, abs=1e-12)


def test_isotonic_regression_of_bins_is_near_that_of_rows():
    rows, (X, y, _) = data(2, rows=20_000)
    model = LogisticRegression().fit(*rows)
    due = theirs(model, X, y, None, "isotonic")
    ours = CalibratedClassifier(model, "isotonic").fit(X, y)
    found = ours.predict_proba(X)
    # Between two steps rows are on a steep line; elsewhere a step moves by rows of one bin.
    assert abs(found - due).mean() < 1e-3
    labels = y == model.classes_[1]
    brier = brier_score_loss(labels, found[:, 1])
    assert brier == pytest.approx(brier_score_loss(labels, due[:, 1]), abs=1e-4)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("method", METHODS)
def test_a_calibrated_run_is_evaluated_explained_and_loaded_as_any_other(
    method, n_classes, tmp_path
):
    rows, (X, y, _) = data(n_classes)
    model = LogisticRegression().fit(*rows)
    ours = CalibratedClassifier(FrozenEstimator(model), method).fit(X, y)
    run = tmp_path / "calibrated.run"
    ours.save(run)
    assert json.loads((run / "model.json").read_text())["format_version"] == 4
    assert f"| {method}, from {len(X):,} validation rows |" in (run / "card.md").read_text()
    loaded = ooc_train.load(run)
    assert isinstance(loaded, CalibratedClassifier)
    p = ours.predict_proba(X)
    assert (loaded.predict_proba(X) == p).all()
    assert (loaded.classes_ == model.classes_).all()
    assert (loaded.estimator.predict_proba(X) == model.predict_proba(X)).all()
    metrics, _ = evaluate(run, X, y=y)
    assert metrics["accuracy"] == accuracy_score(y, ours.predict(X))
    codes = np.searchsorted(model.classes_, y)
    if method == "isotonic":
        assert "log_loss" not in metrics  # some probabilities may be 0
    else:
        assert metrics["log_loss"] == pytest.approx(log_loss(y, p), rel=1e-12)
    due = ((p - np.eye(n_classes)[codes]) ** 2).sum(axis=1).mean() / (2 if n_classes == 2 else 1)
    assert metrics["brier"] == pytest.approx(due, rel=1e-12)
    curve = metrics["by_class"].calibration(n_bins=5)
    bins = (p[:, -1] * 5).astype(int)
    inside = abs(p[:, -1] * 5 - np.round(p[:, -1] * 5)).min() > 1e-3
    if inside:
        due = [(codes[bins == b] == n_classes - 1).mean() for b in np.unique(bins)]
        assert curve.observed == pytest.approx(due, abs=1e-12)
    # A line between two points may be steep, and onnxruntime adds up in another order.
    most = 1e-9 if method == "isotonic" else 1e-12
    assert (export(run, tmp_path / "calibrated.onnx").largest_difference or 0.0) < most
    # Explanations are of calibrated probabilities and classes.
    dependence = partial_dependence(run, X, [1])
    value, *mean = dependence.rows(digits=17)[0][-1 - n_classes :]
    set_to = X.copy()
    set_to[:, 1] = float(value)
    assert [float(each) for each in mean] == pytest.approx(ours.predict_proba(set_to).mean(axis=0))
    importance = permutation_importance(run, X, y, n_repeats=1)
    assert importance.frame.to_numpy()[:, 0].max() > 0.01


def test_a_network_is_calibrated_and_a_calibration_replaced():
    rows, (X, y, _) = data(3)
    model = MLPClassifier((8,), max_iter=60, random_state=0, tol=1e-2).fit(*rows)
    first, _ = calibrate(model, X, "temperature", y=y)
    assert isinstance(first.calibration, Temperature)
    again, _ = calibrate(first, X, "sigmoid", y=y)
    only, _ = calibrate(model, X, "sigmoid", y=y)
    assert isinstance(again.calibration, Sigmoid)
    assert isinstance(only.calibration, Sigmoid)
    assert (again.calibration.slope == only.calibration.slope).all()
    losses = [evaluate(each, X, y=y)[0]["log_loss"] for each in (model, first)]
    assert losses[1] < losses[0]
    assert (predict(first, X) == predict(model, X)).all()


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("method", METHODS)
def test_the_scale_of_scores_and_their_distance_from_zero_change_nothing(method, scale):
    rows, (X, y, _) = data(2)
    fitted = LogisticRegression().fit(*rows).to_fitted()
    due = predict(calibrate(fitted, X, method, y=y)[0], X, "probability")
    linear = fitted.linear
    moved = 0.0 if method == "temperature" else 100.0
    other = replace(linear, coef=scale * linear.coef, intercept=scale * (linear.intercept + moved))
    calibrated, _ = calibrate(replace(fitted, predictor=other), X, method, y=y)
    assert predict(calibrated, X, "probability") == pytest.approx(due, abs=1e-7)


def test_what_cannot_be_calibrated_is_refused():
    rows, (X, y, _) = data(2)
    model = LogisticRegression().fit(*rows)
    with pytest.raises(ValueError, match="of every class"):
        CalibratedClassifier(model).fit(X[y == "a"], y[y == "a"])
    with pytest.raises(ValueError, match="is none of 'sigmoid', 'temperature', 'isotonic'"):
        CalibratedClassifier(model, "platt").fit(X, y)  # type: ignore[arg-type]
    with pytest.raises(NotFittedError):
        CalibratedClassifier(LogisticRegression()).fit(X, y)
    with pytest.raises(NotFittedError):
        CalibratedClassifier(model).predict(X)
    with pytest.raises(TypeError, match="is no classifier of ooc_train"):
        CalibratedClassifier(CalibratedClassifier(model)).fit(X, y)
    with pytest.raises(ValueError, match="has no classes to calibrate"):
        calibrate(Ridge().fit(X, X[:, 0]), X, y=X[:, 0])
    with pytest.raises(ValueError, match="leaves nothing to calibrate"):
        calibrate(LogisticRegression(C=1e-300).fit(*rows), np.zeros_like(X), y=y)
    with pytest.raises(ValueError, match="without a doubtful case"):
        calibrate(model, X, "temperature", y=model.predict(X))
    other = np.where(model.predict(X) == "a", "c", "a")
    with pytest.raises(ValueError, match="worse than by chance"):
        calibrate(model, X, "temperature", y=other)


@pytest.mark.parametrize(
    "damage",
    [
        {"method": "beta"},
        {"method": "sigmoid", "n_rows": 5, "slope": [1.0, 2.0], "offset": [0.0, 0.0]},
        {"method": "sigmoid", "n_rows": 5, "slope": [1.0], "offset": [0.0, 1.0]},
        {"method": "temperature", "n_rows": 5, "inverse": -1.0},
        {"method": "isotonic", "n_rows": 5, "points": [[[0.0, 1.0], [0.9, 0.1]]]},
        {"method": "isotonic", "n_rows": 5, "points": [[[0.0, 1.0], [0.9]]]},
        {"method": "isotonic", "n_rows": 5, "points": [[[0.0, 1.0], [0.5, 1.1]]]},
        None,
    ],
)
def test_a_damaged_calibration_is_refused(damage, tmp_path):
    rows, (X, y, _) = data(2)
    CalibratedClassifier(LogisticRegression().fit(*rows)).fit(X, y).save(tmp_path / "run")
    file = tmp_path / "run" / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"calibration": damage}))
    with pytest.raises(InvalidRun, match="is damaged"):
        load_fitted(tmp_path / "run")


@pytest.mark.parametrize("method", METHODS)
def test_a_calibration_holds_no_more_than_its_terms(method):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(6000, 40)).astype(np.float32), np.arange(6000) % 60
    model, _ = train(LogisticModel(), read_inputs(X, y, classifier=True), Training(max_iter=1))
    (_, memory), peak = held_by(lambda: calibrate(model, X, method, y=y))
    assert peak <= sum(memory.terms.values()) - memory.terms["headroom"] + SMALL


@pytest.mark.slow
def test_the_command_calibrates_a_run(tmp_path):
    rows, (X, y, _) = data(2)
    codes = np.searchsorted(np.unique(y), y)
    store = write_store(tmp_path / "val.zarr", X, codes.astype(float), chunk_rows=100)
    model = LogisticRegression().fit(rows[0], (rows[1] == "c").astype(int))
    model.save(tmp_path / "run")
    run, out = str(tmp_path / "run"), str(tmp_path / "out.run")
    arguments = ["calibrate", run, store.path, "--out", out, "--method", "isotonic", "--quiet"]
    done = CliRunner().invoke(cli.app, [*arguments, "--workers", "1"])
    assert done.exit_code == 0, done.output
    assert "calibrated by isotonic on 900 rows | memory: " in done.stdout
    fitted = load_fitted(out)
    assert isinstance(fitted.calibration, Isotonic)
    due = CalibratedClassifier(model, "isotonic").fit(X, codes)
    table = str(tmp_path / "p.csv")
    done = CliRunner().invoke(cli.app, ["predict", out, store.path, table, "--proba", "--quiet"])
    assert done.exit_code == 0, done.output
    found = np.genfromtxt(table, delimiter=",", skip_header=1)[:, -1]
    assert found == pytest.approx(due.predict_proba(X)[:, 1], abs=1e-9)
    done = CliRunner().invoke(cli.app, ["info", out])
    assert "calibration isotonic, from 900 rows" in " ".join(done.stdout.split())
    done = CliRunner().invoke(cli.app, ["info", out, "--json"])
    assert json.loads(done.stdout)["calibration"]["method"] == "isotonic"
    done = CliRunner().invoke(cli.app, [*arguments, "--workers", "1"])
    assert done.exit_code == 1
    assert "exists" in done.output


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_temperature_of_many_rows_begins_at_a_sample_and_is_that_of_all(
    n_classes, tmp_path, monkeypatch
):
    rng = np.random.default_rng(2)
    X = rng.normal(size=(6000, 4))
    scores = X @ rng.normal(size=(4, n_classes)) + rng.gumbel(size=(6000, n_classes))
    y = scores.argmax(axis=1)
    store = write_store(tmp_path / "a.zarr", X, y, chunk_rows=100, classes=range(n_classes))
    model = LogisticRegression(C=1e-3).fit(X[:500], y[:500])
    due = calibrate(model, store, "temperature")[0].calibration
    passes = []

    def counted(self, sums, block, workspace):
        passes.append((self.factors.tolist(), block.n_rows))
        return add(self, sums, block, workspace)

    add = TemperatureSums.add
    monkeypatch.setattr(calibrate_module, "_SAMPLE_ROWS", 1000)
    monkeypatch.setattr(TemperatureSums, "add", counted)
    found = calibrate(model, store, "temperature")[0].calibration
    assert isinstance(found, Temperature)
    assert isinstance(due, Temperature)
    assert found.inverse == pytest.approx(due.inverse, rel=1e-9)
    assert not 0.9 < found.inverse < 1.1
    rows: dict[tuple[float, ...], int] = {}
    for factors, n in passes:
        rows[tuple(factors)] = rows.get(tuple(factors), 0) + n
    whole = [factors for factors, n in rows.items() if n == 6000]
    assert len(whole) <= 3
    assert max(map(len, whole)) <= 4


@pytest.mark.parametrize("method", METHODS)
def test_the_unit_of_large_weights_changes_nothing(method):
    rows, (X, y, weight) = data(3)
    model = LogisticRegression().fit(*rows)
    due, found = (
        CalibratedClassifier(model, method).fit(X, y, weight * unit).predict_proba(X)
        for unit in (1e12, 1e250)
    )
    assert found == pytest.approx(due, abs=1e-9)


def test_a_temperature_of_rows_without_weight_is_refused():
    rows, (X, y, weight) = data(3)
    with pytest.raises(ValueError, match="no validation row has a weight; pass rows"):
        calibrate(LogisticRegression().fit(*rows), X, "temperature", y=y, sample_weight=0 * weight)
