"""Columns in any order, with names known on both sides: the same answers, or a refusal."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from ooc_train import cli
from ooc_train.errors import InvalidRun
from ooc_train.estimators import LinearRegression, LogisticRegression, Ridge
from ooc_train.experiments.tradeoff import tradeoff
from ooc_train.inference.predict import evaluate, predict, predict_store
from ooc_train.inference.raw_files import predict_files
from ooc_train.models.classification_models import LogisticModel
from ooc_train.models.predictor import LinearPredictor
from ooc_train.models.regression_models import LeastSquares, RidgeModel
from ooc_train.runs.fitted import Fitted
from ooc_train.solvers.training_settings import Training
from ooc_train.stream.feature_names import column_order
from ooc_train.stream.inputs import read_inputs
from ooc_train.training.loop import train
from tests.streams import write_store

NAMES = ("a", "b", "c", "d")
CYCLE = (2, 0, 3, 1)
RNG = np.random.default_rng(0)
# Columns of different means and scales, so that a scaling that stays behind would be seen.
X = RNG.normal(size=(600, 4)) * [1.0, 10.0, 0.1, 3.0] + [0.0, 5.0, -1.0, 100.0]
TRUTH = np.array([1.0, -0.2, 7.0, 0.0])
Y = X @ TRUTH + RNG.normal(size=600)
LABELS = np.greater(Y, np.median(Y)).astype(int)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """The same rows twice: columns in the order of `NAMES`, and in another."""
    folder = tmp_path_factory.mktemp("columns")
    return {
        kind: (
            write_store(folder / f"{kind}.zarr", X, y, chunk_rows=150, feature_names=NAMES),
            write_store(
                folder / f"{kind}.other.zarr",
                X[:, CYCLE],
                y,
                chunk_rows=150,
                feature_names=[NAMES[i] for i in CYCLE],
            ),
        )
        for kind, y in (("numbers", Y), ("classes", LABELS))
    }


@pytest.fixture(scope="module")
def further(tmp_path_factory):
    """A store that lacks the column d, and has e and f."""
    path = tmp_path_factory.mktemp("further") / "further.zarr"
    return write_store(path, np.c_[X, X[:, :1]], Y, feature_names=("a", "f", "c", "b", "e"))


names = st.lists(st.text(max_size=3), min_size=1, max_size=6)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(names, st.data())
def test_any_order_gives_the_same_predictions_or_is_refused(known, data):
    other = data.draw(st.one_of(st.permutations(known), names))
    n = len(known)
    fitted = Fitted(
        RidgeModel(),
        LinearPredictor(np.arange(1.0, n + 1)[None], np.zeros(1)),
        feature_names=tuple(known),
    )
    rows = np.arange(3 * n, dtype=float).reshape(3, n) ** 2
    if known == other:
        assert fitted.for_columns(tuple(other), n, "data") is fitted
    elif sorted(known) == sorted(other) and len(set(known)) == n:
        found = fitted.for_columns(tuple(other), n, "data")
        permuted = rows[:, [known.index(name) for name in other]]
        np.testing.assert_allclose(
            found.predictor.decision(permuted), fitted.predictor.decision(rows), rtol=1e-12
        )
    else:
        reason = "differ by name" if set(known) != set(other) else "more than one column"
        with pytest.raises(InvalidRun, match=reason):
            fitted.for_columns(tuple(other), len(other), "data")


def test_by_place_where_a_side_has_no_names_or_both_have_the_same():
    for ours, theirs in [(None, NAMES), (NAMES, None), (("a", "a"), ["a", "a"])]:
        assert column_order(ours, theirs, model="m", data="d") is None


def test_a_refusal_lists_what_differs_and_no_more():
    many = [f"column {i}" for i in range(1000)]
    with pytest.raises(ValueError, match=r"d lacks 'column 0', 'column 1'.* and 991 more, which m"):
        column_order(many, [*many[999:], "x"], model="m", data="d")
    with pytest.raises(ValueError, match=r"differ by name: d has 'e', which m lacks; use data"):
        column_order(NAMES, [*NAMES, "e"], model="m", data="d")
    with pytest.raises(ValueError, match="d has more than one column of the name 'b'"):
        column_order(("a", "b"), ("b", "a", "b"), model="m", data="d")


def test_predictions_and_metrics_of_the_engine(stores, tmp_path):
    data, other = stores["numbers"]
    fitted, _ = train(LeastSquares(), data)
    best = np.linalg.lstsq(X - X.mean(axis=0), Y, rcond=None)[0]
    np.testing.assert_allclose(fitted.coef[0], best, rtol=1e-9, atol=1e-12)
    due = X @ fitted.coef[0] + fitted.intercept
    np.testing.assert_allclose(predict(fitted, other)[:, 0], due, rtol=1e-12)
    frame = pd.DataFrame(X[:, CYCLE], columns=[NAMES[i] for i in CYCLE])
    np.testing.assert_allclose(predict(fitted, frame)[:, 0], due, rtol=1e-12)
    predict_store(fitted, other, tmp_path / "p.zarr")
    found = zarr.open_array(tmp_path / "p.zarr", path="prediction", mode="r")[:]
    np.testing.assert_allclose(np.asarray(found)[:, 0], due, rtol=1e-12)
    predict_files(fitted, other, tmp_path / "p.csv")
    np.testing.assert_allclose(pd.read_csv(tmp_path / "p.csv")["prediction"], due, rtol=1e-12)
    metrics, again = (evaluate(fitted, store)[0] for store in (data, other))
    assert again.pop("residuals").mae == pytest.approx(metrics.pop("residuals").mae, rel=1e-12)
    assert again == pytest.approx(metrics, rel=1e-12)
    assert metrics["r2"] > 0.8


def test_other_columns_are_refused(stores, further, tmp_path):
    fitted, _ = train(LeastSquares(), stores["numbers"][0])
    model = LinearRegression().fit(stores["numbers"][0])
    message = "lacks 'd', which .* has; .* has 'f', 'e', which .* lacks"
    for refused in (
        lambda: predict(fitted, further),
        lambda: predict_store(fitted, further, tmp_path / "p.zarr"),
        lambda: predict_files(fitted, further, tmp_path / "p.csv"),
        lambda: evaluate(fitted, further),
        lambda: model.predict(further),
        lambda: model.score(further),
        lambda: model.partial_fit(further),
        lambda: train(LeastSquares(), stores["numbers"][0], validation=further),
        lambda: train(LeastSquares(), further, start=fitted),
    ):
        with pytest.raises(ValueError, match=message):
            refused()
    assert list(tmp_path.iterdir()) == []


def test_names_of_one_side_are_no_names(stores):
    fitted, _ = train(LeastSquares(), stores["numbers"][0])
    nameless = replace(fitted, feature_names=None)
    due = X[:, CYCLE] @ fitted.coef[0] + fitted.intercept
    np.testing.assert_allclose(predict(nameless, stores["numbers"][1])[:, 0], due, rtol=1e-12)
    np.testing.assert_allclose(predict(fitted, X[:, CYCLE])[:, 0], due, rtol=1e-12)


@pytest.mark.parametrize("solver", ["newton", "lbfgs", "sgd"])
def test_validation_rows_are_judged_by_name(stores, solver):
    data, other = stores["classes"]
    batch_size = 50 if solver == "sgd" else "full"
    model = LogisticModel()
    training = Training(solver=solver, batch_size=batch_size, max_iter=3, random_state=0)
    _, same = train(model, data, training, validation=data)
    fitted, report = train(model, data, training, validation=other)
    for step, due in zip(report.history, same.history, strict=True):
        assert step.validation_loss == pytest.approx(due.validation_loss, rel=1e-12)
    assert report.validation_loss == pytest.approx(evaluate(fitted, data)[0]["loss"], rel=1e-9)


@pytest.mark.slow
def test_a_trade_off_is_judged_by_name(stores):
    data, other = stores["classes"]
    model, training = LogisticModel(), Training(max_iter=2, random_state=0)
    losses = [
        tradeoff(model, data, (100, "full"), training=training, validation=v)
        .frame["validation_loss"]
        .tolist()
        for v in (data, other)
    ]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-12)


@pytest.mark.slow
def test_a_start_is_taken_by_name(stores):
    data, other = stores["classes"]
    model, training = LogisticModel(), Training(solver="lbfgs", tol=1e-5)
    fitted, _ = train(model, data, training)
    again, report = train(model, other, training, start=fitted)
    assert again.feature_names == tuple(NAMES[i] for i in CYCLE)
    # The optimum is where it was: looked at, and not left.
    assert report.n_iter <= 2
    np.testing.assert_allclose(again.coef[0], fitted.coef[0, CYCLE], rtol=1e-4)
    warm = LogisticRegression(solver="lbfgs", tol=1e-5, warm_start=True).fit(data)
    warm.fit(other)
    assert warm.n_iter_[0] <= 2
    assert warm.feature_names_in_.tolist() == [NAMES[i] for i in CYCLE]


@pytest.mark.slow
def test_blocks_of_any_order_are_learned_from_by_name(stores):
    data, other = stores["numbers"]
    due, model = (Ridge(batch_size=25, standardize=True) for _ in range(2))
    for _ in range(3):
        due.partial_fit(data)
    model.partial_fit(data).partial_fit(other).partial_fit(data)
    assert model.feature_names_in_.tolist() == list(NAMES)
    np.testing.assert_allclose(model.coef_, due.coef_, rtol=1e-9)
    np.testing.assert_allclose(model.predict(other), due.predict(data), rtol=1e-9)
    frame = pd.DataFrame(X[:, CYCLE], columns=[NAMES[i] for i in CYCLE])
    with pytest.raises(ValueError, match="in the same order"):
        model.partial_fit(frame, Y)


@pytest.mark.slow
def test_going_on_from_a_saved_model_keeps_its_order(stores, tmp_path):
    from ooc_train.estimators import load

    data, other = stores["numbers"]
    Ridge(batch_size=25).fit(data).save(tmp_path / "a.run")
    due = load(tmp_path / "a.run").partial_fit(data).partial_fit(data)
    model = load(tmp_path / "a.run").partial_fit(other).partial_fit(data)
    assert model.feature_names_in_.tolist() == list(NAMES)
    np.testing.assert_allclose(model.coef_, due.coef_, rtol=1e-9)


@pytest.mark.slow
def test_estimators_take_columns_of_stores_by_name(stores, tmp_path):
    data, other = stores["classes"]
    model = LogisticRegression().fit(data)
    assert model.score(data) > 0.8
    assert model.score(other) == model.score(data)
    frame = pd.DataFrame(X, columns=NAMES)
    np.testing.assert_array_equal(model.predict(other), model.predict(frame))
    np.testing.assert_allclose(model.predict_proba(other), model.predict_proba(frame), rtol=1e-9)
    model.predict(other, out=tmp_path / "p.zarr")
    found = zarr.open_array(tmp_path / "p.zarr", path="prediction", mode="r")[:]
    np.testing.assert_array_equal(np.asarray(found), model.predict(frame))
    # A frame in another order is refused by scikit-learn's own rule.
    with pytest.raises(ValueError, match="in the same order"):
        model.predict(frame[[NAMES[i] for i in CYCLE]])


def test_inputs_of_a_frame_bring_their_names():
    frame = pd.DataFrame(X[:, CYCLE], columns=[NAMES[i] for i in CYCLE])
    inputs = read_inputs(frame, Y, classifier=False)
    assert inputs.feature_names == tuple(NAMES[i] for i in CYCLE)
    assert read_inputs(pd.DataFrame(X), Y, classifier=False).feature_names is None


def test_the_command_line(stores, further, tmp_path):
    data, other = stores["numbers"]
    fitted, _ = train(LeastSquares(), data)
    fitted.save(tmp_path / "a.run")
    out = str(tmp_path / "p.csv")
    run = CliRunner().invoke
    result = run(cli.app, ["predict", str(tmp_path / "a.run"), other.path, out])
    assert result.exit_code == 0, result.stderr
    due = X @ fitted.coef[0] + fitted.intercept
    np.testing.assert_allclose(pd.read_csv(out)["prediction"], due, rtol=1e-12)
    for command in (
        ["predict", str(tmp_path / "a.run"), further.path, str(tmp_path / "q.zarr")],
        ["evaluate", str(tmp_path / "a.run"), further.path],
        ["train", data.path, "--model", "linear", "--validation", further.path],
    ):
        refused = run(cli.app, command)
        assert refused.exit_code == 1
        assert "lacks 'd'" in refused.stderr
        assert "has 'f', 'e'" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
