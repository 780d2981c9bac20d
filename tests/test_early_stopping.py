"""Early stopping and target losses: when a run ends, with which parameters, and what it says."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from typer.testing import CliRunner

from ooc_train import (
    EarlyStopping,
    LogisticRegression,
    MLPRegressor,
    Ridge,
    cli,
    evaluate,
    tradeoff,
)
from ooc_train.models.classification_models import LogisticModel
from ooc_train.runs.events import Stepped
from ooc_train.runs.report import Report
from ooc_train.runs.run_loading import load_fitted
from ooc_train.solvers.base import State
from ooc_train.solvers.training_settings import Training
from ooc_train.stream.inputs import read_inputs
from ooc_train.training.goals import Goals
from ooc_train.training.loop import train
from ooc_train.training.task import Task
from tests.streams import write_store

RNG = np.random.default_rng(0)
ROWS, FEATURES = 200, 40
X = RNG.normal(size=(ROWS + 400, FEATURES))
Y = (1.5 * X[:, 0] + RNG.logistic(size=len(X)) > 0).astype(int)
TRAIN = read_inputs(X[:ROWS], Y[:ROWS], classifier=True)
OTHERS = read_inputs(X[ROWS:], Y[ROWS:], classifier=True)
# Few rows and no penalty to speak of: a fit that goes on learns the noise.
MODEL = LogisticModel(C=1e4)
TRAININGS = {
    "newton": Training(solver="newton", tol=0.0),
    "lbfgs": Training(solver="lbfgs", tol=0.0),
    "descent": Training(solver="sgd", learning_rate=0.5, tol=0.0),
    "batches": Training(batch_size=8, tol=0.0, random_state=0),
    "adam": Training(batch_size=4, tol=0.0, random_state=0, solver="adam"),
}


def goals_after(losses, training):
    """The goals after steps with these validation losses."""
    goals = Goals(training)
    for n_iter, loss in enumerate(losses):
        step = Stepped(n_iter, float(n_iter), n_iter, 1.0, None, 0.0, validation_loss=loss)
        goals.add(step, State(np.full(1, n_iter), n_iter=n_iter))
    return goals


@pytest.mark.parametrize(
    ("losses", "rule", "ends", "best"),
    [
        ([5, 4, 3, 4, 3, 3], {"patience": 3}, True, 2),  # an equal loss is no progress
        ([5, 4, 3, 4, 3, 2], {"patience": 3}, False, None),  # the last one is the best
        ([5, 4, 3, 4, 5], {"patience": 3}, False, 2),
        ([5, 4.9, 4.8, 4.7], {"patience": 2, "min_delta": 0.5}, True, None),
        ([5, 4.4, 4.3, 3.7], {"patience": 2, "min_delta": 0.5}, False, None),
        ([3, np.nan, np.inf], {"patience": 2}, True, 0),
        ([np.inf, np.nan], {"patience": 2}, True, None),  # nothing to restore
        ([1, 2], {"patience": 1, "restore_best": False}, True, None),
        ([1, None, 2], {"patience": 2}, False, 0),  # a step that was not evaluated
    ],
)
def test_patience(losses, rule, ends, best):
    goals = goals_after(losses, Training(early_stopping=EarlyStopping(**rule)))
    assert bool(goals.reached) == ends
    last = State(np.full(1, -1.0), n_iter=len(losses) - 1, updates=7)
    found = goals.best_before(last)
    assert (None if found is None else found[0].n_iter) == best
    if found is not None:
        assert (found[1].params, found[1].n_iter, found[1].updates) == (best, last.n_iter, 7)


@pytest.mark.parametrize("name", TRAININGS)
def test_the_best_parameters_are_those_of_a_run_that_ends_there(name):
    training = replace(TRAININGS[name], early_stopping=EarlyStopping(patience=3), max_iter=60)
    fitted, report = train(MODEL, TRAIN, training, validation=OTHERS)
    losses: Any = [step.validation_loss for step in report.history]
    assert report.best is not None
    assert report.best == report.history[int(np.argmin(losses))]
    assert report.n_iter == report.best.n_iter + 3
    assert report.validation_loss == min(losses)
    assert report.loss == report.best.loss
    assert report.ended.startswith("early stopping, 3 evaluations in a row have not improved th")
    assert not report.converged
    assert not report.shortfall
    text = f"restored the parameters of iteration {report.best.n_iter} "
    assert any(note.startswith(text) for note in report.notes)
    # Without validation, the same steps lead to the same bits.
    ends_there = replace(TRAININGS[name], max_iter=max(1, report.best.n_iter))
    alone, _ = train(MODEL, TRAIN, ends_there)
    np.testing.assert_array_equal(fitted.coef, alone.coef)
    np.testing.assert_array_equal(fitted.intercept, alone.intercept)
    last = replace(training, early_stopping=EarlyStopping(patience=3, restore_best=False))
    kept, of_last = train(MODEL, TRAIN, last, validation=OTHERS)
    assert (of_last.n_iter, of_last.best) == (report.n_iter, None)
    assert not np.array_equal(kept.coef, fitted.coef)


@pytest.mark.parametrize("metric", ["accuracy", "roc_auc", "log_loss"])
def test_a_metric_may_be_watched(metric):
    rule = EarlyStopping(patience=3, metric=metric)
    training = replace(TRAININGS["batches"], early_stopping=rule, max_iter=40)
    fitted, report = train(MODEL, TRAIN, training, validation=OTHERS)
    values = np.array([step.validation_metric for step in report.history], float)
    best = int(np.argmin(values) if metric == "log_loss" else np.argmax(values))
    assert report.best is not None
    assert report.best == report.history[best]
    assert report.n_iter == report.best.n_iter + 3
    assert values[best] == pytest.approx(evaluate(fitted, OTHERS)[0][metric], rel=1e-12)
    assert f"have not improved the validation {metric}" in report.ended


def test_metrics_of_regressions_and_those_that_a_model_lacks():
    y = X[:, 0] + RNG.normal(size=len(X))
    rows: dict[str, Any] = {"X_val": X[ROWS:], "y_val": y[ROWS:]}
    training: dict[str, Any] = {"solver": "lbfgs", "tol": 1e-9}
    for metric in ("r2", "mse"):
        rule = EarlyStopping(metric=metric)
        model = Ridge(alpha=1e-3, early_stopping=rule, **training).fit(X[:ROWS], y[:ROWS], **rows)
        residual = y[ROWS:] - model.predict(X[ROWS:])
        due = np.mean(residual**2)
        due = 1.0 - due / np.var(y[ROWS:]) if metric == "r2" else due
        step = model.report_.best or model.report_.history[-1]
        assert step.validation_metric == pytest.approx(due, rel=1e-9)
    with pytest.raises(
        ValueError, match="metric='accuracy' is not one of the ridge model; use 'r2'"
    ):
        Ridge(early_stopping=EarlyStopping(metric="accuracy")).fit(X, y, X_val=X, y_val=y)
    with pytest.raises(ValueError, match="metric='speed' is not None or 'accuracy' or"):
        EarlyStopping(metric="speed")


def test_a_run_that_ends_otherwise_restores_the_best_too():
    training = replace(TRAININGS["newton"], early_stopping=True, tol=1e-4)
    _, converged = train(LogisticModel(C=1.0), TRAIN, training, validation=OTHERS)
    assert (converged.converged, converged.ended) == (True, "tolerance reached")
    assert converged.best is not None
    _, limited = train(MODEL, TRAIN, replace(training, max_iter=3), validation=OTHERS)
    assert limited.ended == "max_iter=3 reached"
    assert limited.best is not None
    restored = Report.from_json(json.loads(json.dumps(limited.to_json())))
    assert (restored.best, restored.ended) == (limited.best, limited.ended)
    assert ("converged", "no: max_iter=3 reached") in restored.figures()


@pytest.mark.parametrize("validated", [False, True])
def test_a_target_loss_ends_a_run(validated):
    training = replace(TRAININGS["descent"], learning_rate=0.05)
    others = OTHERS if validated else None
    _, whole = train(MODEL, TRAIN, replace(training, max_iter=20), validation=others)
    losses: Any = [s.validation_loss if validated else s.loss for s in whole.history]
    target = (losses[4] + losses[5]) / 2
    assert np.argmax(np.array(losses) <= target) == 5
    _, report = train(MODEL, TRAIN, replace(training, target_loss=target), validation=others)
    assert report.n_iter == whole.history[5].n_iter
    assert report.ended == f"target_loss={target:g} reached"
    assert (report.shortfall, report.best) == ("", None)


@pytest.mark.parametrize(
    ("settings", "ended"),
    [
        ({"max_passes": 2.5}, "max_passes=2.5 reached"),
        ({"max_seconds": 1e-9}, "max_seconds=1e-09 reached"),
        ({"max_iter": 2}, "max_iter=2 reached"),
    ],
)
def test_an_estimator_has_the_budgets_and_its_report_says_which_ended_it(settings, ended):
    model = clone(LogisticRegression(C=1e4, solver="lbfgs", tol=1e-9, **settings))
    with pytest.warns(UserWarning, match=f"lbfgs: not converged: {ended}"):
        model.fit(X[:ROWS], Y[:ROWS])
    assert model.report_.ended == ended


def test_validation_rows_may_be_passed_to_fit(tmp_path):
    write_store(tmp_path / "a", X[ROWS:], Y[ROWS:], chunk_rows=100)
    rule = EarlyStopping(patience=2)
    labels = np.array(["no", "yes"])[Y]
    weight = RNG.uniform(0.5, 2.0, len(X) - ROWS)
    found = {}
    for name, rows in {
        "arrays": {"X_val": X[ROWS:], "y_val": labels[ROWS:]},
        "store": {"X_val": tmp_path / "a", "y_val": labels[ROWS:]},
        "weighted": {"X_val": X[ROWS:], "y_val": labels[ROWS:], "sample_weight_val": weight},
    }.items():
        model = clone(LogisticRegression(C=1e4, early_stopping=rule)).fit(
            X[:ROWS], labels[:ROWS], **rows
        )
        assert model.training_.early_stopping == rule
        found[name] = model
    np.testing.assert_array_equal(found["arrays"].coef_, found["store"].coef_)
    z = found["weighted"].decision_function(X[ROWS:])
    due = np.average(np.logaddexp(0.0, z) - Y[ROWS:] * z, weights=weight)
    assert found["weighted"].report_.validation_loss == pytest.approx(due, rel=1e-6)
    plan = LogisticRegression(early_stopping=rule).plan(
        X[:ROWS], labels[:ROWS], X_val=tmp_path / "a", y_val=labels[ROWS:]
    )
    assert plan.validation is not None


def test_a_fraction_of_the_rows_is_enough(tmp_path):
    settings: dict[str, Any] = {"validation_fraction": 0.25, "early_stopping": True}
    settings |= {"C": 1e4, "batch_size": 8, "tol": 0.0}
    model = LogisticRegression(random_state=3, **settings).fit(X, Y)
    assert model.report_.n_rows == 450
    assert model.report_.ended.startswith("early stopping, 5 evaluations")
    again = LogisticRegression(random_state=3, **settings).fit(X, Y)
    np.testing.assert_array_equal(model.coef_, again.coef_)
    other = LogisticRegression(random_state=4, **settings).fit(X, Y)
    assert other.report_.validation_loss != model.report_.validation_loss
    model.save(tmp_path / "a.run")
    assert load_fitted(tmp_path / "a.run").training == model.training_
    drawn = Ridge(validation_fraction=0.25).fit(X, X[:, 0])
    assert drawn.report_.random_state is not None  # the rows can be drawn again


def test_the_plan_has_room_for_the_best_parameters():
    plain = Task.of(MODEL, TRAIN, TRAININGS["newton"], OTHERS)
    stopping = Task.of(MODEL, TRAIN, replace(plain.training, early_stopping=True), OTHERS)
    watched = replace(plain.training, early_stopping=EarlyStopping(metric="roc_auc"))
    of_metric = Task.of(MODEL, TRAIN, watched, OTHERS).validation_requirements()
    of_loss = stopping.validation_requirements()
    assert of_metric is not None
    assert of_loss is not None
    assert of_metric[1].sums > of_loss[1].sums  # the histogram of scores
    for name in ("requirements", "validation_requirements"):
        before, after = getattr(plain, name)(), getattr(stopping, name)()
        before, after = (each[1] if isinstance(each, tuple) else each for each in (before, after))
        assert after == replace(before, slots=before.slots + 1)


def test_what_does_not_go_together_is_refused():
    stopping = Training(early_stopping=True)
    with pytest.raises(ValueError, match="early_stopping needs validation rows, and there are non"):
        train(MODEL, TRAIN, stopping)
    with pytest.raises(ValueError, match="early_stopping needs validation rows"):
        LogisticRegression(early_stopping=EarlyStopping(patience=2)).fit(X, Y)
    with pytest.raises(ValueError, match="y_val and sample_weight_val need X_val"):
        Ridge().fit(X, Y, y_val=Y)
    with pytest.raises(ValueError, match="early_stopping is for fit"):
        Ridge(early_stopping=True).partial_fit(X, Y)
    none = read_inputs(X[ROWS:], Y[ROWS:], np.zeros(400), classifier=True)
    with pytest.raises(ValueError, match="weights of all validation rows add up to 0"):
        train(MODEL, TRAIN, stopping, validation=none)


@pytest.mark.parametrize(
    ("setting", "values", "said"),
    [
        (
            "early_stopping",
            ["yes", None, 1, {"patience": 0}, {"pace": 1}, 0.0],
            "early_stopping|pa",
        ),
        ("validation_fraction", [0, 1, 1.5, "half", True, np.nan], "above 0 and below 1"),
        ("max_passes", [0, -1, np.nan, "1", np.inf], "max_passes=.* is not None or a number above"),
        ("max_seconds", [0, -1, np.nan, "1"], "max_seconds=.* is not None or a number above 0"),
        ("target_loss", ["low", np.nan, np.inf, True], "target_loss=.* is not None or a number"),
    ],
)
def test_settings_that_cannot_be_used(setting, values, said):
    for value in values:
        with pytest.raises(ValueError, match=said):
            Training(**{setting: value})
    for rule in ({"patience": 0}, {"patience": 1.5}, {"min_delta": -1.0}, {"restore_best": 1}):
        with pytest.raises(ValueError, match=f"{next(iter(rule))}=.* is not "):
            EarlyStopping(**rule)


def test_settings_there_and_back():
    for rule in (True, False, EarlyStopping(patience=2, min_delta=0.1)):
        training = Training(early_stopping=rule, validation_fraction=0.1, target_loss=-1.0)
        assert Training(**json.loads(json.dumps(training.settings()))) == training
    assert Training(early_stopping=True).early_stopping == EarlyStopping()


@pytest.mark.slow
def test_a_trade_off_stops_each_fit_by_the_same_rows():
    training = Training(validation_fraction=0.25, early_stopping=True, random_state=0, max_iter=20)
    result = tradeoff(MODEL, X, [8, "full"], training=training, y=Y)
    for trial in result.trials:
        assert trial.report.n_rows == 450
        assert trial.validation_loss == pytest.approx(trial.report.validation_loss, rel=1e-9)


@pytest.mark.slow
def test_the_command_line(tmp_path):
    write_store(tmp_path / "a", X, Y, chunk_rows=20)
    options = "--C 1e4 --solver lbfgs --validation-fraction 0.8 --patience 2 --min-delta 0.001"
    options += " --workers 1 --dashboard-address 127.0.0.1:0"
    done = CliRunner().invoke(
        cli.app,
        ["train", str(tmp_path / "a"), *options.split(), "--out", str(tmp_path / "a.run")],
    )
    assert done.exit_code == 0, done.stderr
    assert "stopped (early stopping, 2 evaluations in a row" in done.stdout
    assert "note: restored the parameters of iteration" in done.stdout
    refused = CliRunner().invoke(cli.app, ["train", str(tmp_path / "a"), "--early-stopping"])
    assert refused.exit_code == 1
    assert "set --validation-fraction 0.1, or pass rows, --validation ROWS (" in refused.stderr
    training = load_fitted(tmp_path / "a.run").training
    assert training.early_stopping == EarlyStopping(patience=2, min_delta=0.001)


@pytest.mark.parametrize("patience", [1, 3])
def test_early_stopping_by_true_has_the_patience_of_the_setting(patience):
    training = replace(
        TRAININGS["batches"], early_stopping=True, n_iter_no_change=patience, max_iter=60
    )
    assert training.early_stopping == EarlyStopping(patience=patience)
    _, report = train(MODEL, TRAIN, training, validation=OTHERS)
    assert report.best is not None
    assert report.n_iter == report.best.n_iter + patience


@pytest.mark.filterwarnings(
    "ignore:.*not converged", "ignore:.*worse than that of the best constant"
)
def test_a_patience_ends_updates_that_gain_nothing():
    settings: dict[str, Any] = {"learning_rate": 1e-9, "batch_size": 32, "random_state": 0}
    for patience in (2, 7):
        made = MLPRegressor((4,), n_iter_no_change=patience, max_iter=50, **settings)
        assert made.fit(X, X[:, 0]).n_iter_ == patience + 1
        assert made.report_.converged
        short = MLPRegressor((4,), n_iter_no_change=patience, max_iter=2, **settings)
        assert f"before {patience} epochs in a row" in short.fit(X, X[:, 0]).report_.shortfall
