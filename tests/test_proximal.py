"""Proximal Newton and L-BFGS: the optimum under an l1 penalty, exact zeros, and few passes."""

from dataclasses import replace
from math import inf
from typing import Any

import numpy as np
import pytest
import sklearn.linear_model
from numpy.typing import NDArray
from scipy.special import expit, logsumexp
from sklearn.datasets import load_breast_cancer, load_digits, load_iris

from ooc_train import CustomModel, LogisticModel, LogisticRegression, Report, Training, load, train
from ooc_train.objective.penalty import Penalty
from ooc_train.solvers import newton
from ooc_train.solvers.base import advance, from_arrays, start, to_arrays
from ooc_train.solvers.lbfgs import LBFGS
from ooc_train.solvers.low_rank_model import LowRankModel
from ooc_train.solvers.newton import Newton
from ooc_train.solvers.proximal_lbfgs import ProximalLBFGS
from ooc_train.solvers.proximal_newton import ProximalNewton
from tests.streams import Case, make_case, stream
from tests.test_l1 import evaluate, l1_case, mean_objective, residual

Floats = NDArray[np.float64]


def solved(solver: Any, case: Case, *, most: int, theta: Any = None) -> Any:
    """The state at the tolerance, which takes at most so many iterations."""
    passes = stream(case.source)
    params = case.problem.initial() if theta is None else theta
    state = start(solver, case.problem, passes, params)
    while not state.converged:
        state = advance(solver, case.problem, passes, state)
        assert not state.stalled
        assert state.n_iter <= most
    return state


CASES: dict[str, dict[str, Any]] = {
    "lasso": {"weighted": True},
    "lasso of two outputs": {"outputs": 2, "fit_intercept": False},
    "logistic": {"loss": "logistic", "alpha": 0.02, "weighted": True},
    "elastic net": {"loss": "logistic", "alpha": 0.05, "ratio": 0.3, "class_weight": True},
    "no intercept": {"loss": "logistic", "alpha": 0.2, "fit_intercept": False},
    "standardized": {"loss": "logistic", "alpha": 0.02, "standardize": True},
    "softmax": {"loss": "multinomial", "outputs": 3, "alpha": 0.02, "weighted": True},
    "softmax, nearly no penalty": {"loss": "multinomial", "outputs": 3, "alpha": 1e-6},
    "softmax, elastic net": {"loss": "multinomial", "outputs": 4, "alpha": 0.02, "ratio": 0.3},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_both_find_the_optimum_and_the_same_zeros(name):
    case = l1_case(**CASES[name])
    by_newton = solved(ProximalNewton(tol=1e-9), case, most=12)
    by_lbfgs = solved(ProximalLBFGS(tol=1e-9), case, most=200)
    found = []
    for state in (by_newton, by_lbfgs):
        if not case.problem.standardize:
            assert residual(case, state.params) <= 2e-9
        found.append(evaluate(case, state.params).objective)
    assert found[0] == pytest.approx(found[1], rel=1e-12)
    if CASES[name].get("alpha", 1.0) > 1e-3:
        zeros = by_newton.params[:, :-1] == 0.0
        assert zeros.any()
        assert not zeros.all()
        assert ((by_lbfgs.params[:, :-1] == 0.0) == zeros).all()


def test_without_l1_they_are_newton_and_lbfgs():
    case = make_case("logistic", rows=203)
    for proximal, plain in ((ProximalNewton(1e-8), Newton(1e-8)), (ProximalLBFGS(), LBFGS())):
        found, due = (solved(solver, case, most=60) for solver in (proximal, plain))
        np.testing.assert_array_equal(found.params, due.params)


@pytest.mark.parametrize("solver", [ProximalNewton(1e-10), ProximalLBFGS(1e-10)])
@pytest.mark.parametrize(("loss", "outputs"), [("logistic", 1), ("multinomial", 3)])
def test_an_l1_so_strong_that_no_weight_is_left(solver, loss, outputs):
    case = l1_case(loss, outputs, alpha=100.0, weighted=True)
    state = solved(solver, case, most=40)
    assert not state.params[:, :-1].any()
    share = np.bincount(case.y[:, 0].astype(int), case.row_weights) / case.problem.total_weight
    due = np.log(share[1] / share[0]) if outputs == 1 else np.log(share / share[0])
    intercept = state.params[:, -1]
    np.testing.assert_allclose(intercept - (outputs > 1) * intercept[0], due, atol=1e-7)


@pytest.mark.parametrize("solver", [ProximalNewton(1e-9), ProximalLBFGS(1e-9)])
def test_a_state_between_two_passes_is_arrays_and_the_optimum_is_not_left(solver):
    case = l1_case("logistic", alpha=0.02)
    passes = stream(case.source)
    state = start(solver, case.problem, passes, case.problem.initial())
    for _ in range(3):
        state = advance(solver, case.problem, passes, from_arrays(to_arrays(state)))
    best = solved(solver, case, most=100, theta=state.params)
    again = solved(solver, case, most=1, theta=best.params)
    assert again.n_iter == 0
    np.testing.assert_array_equal(again.params == 0.0, best.params == 0.0)


@pytest.mark.parametrize("solver", [ProximalNewton(1e-9), ProximalLBFGS(1e-9)])
def test_weights_that_begin_too_large_shrink(solver):
    case = l1_case("logistic", alpha=0.2)
    due = solved(solver, case, most=60).params
    # Towards the optimum from the one without a penalty, the loss rises and the penalty falls.
    free = Case(replace(case.problem, penalty=Penalty()), case.source)
    theta = solved(Newton(1e-9), free, most=20).params
    found = solved(solver, case, most=60, theta=theta).params
    np.testing.assert_allclose(found, due, atol=1e-7)
    assert ((found == 0.0) == (due == 0.0)).all()


@pytest.mark.parametrize("least_work", [0, inf])
def test_it_begins_at_samples_and_their_hessian_serves_with_l1_too(least_work, monkeypatch):
    monkeypatch.setattr("ooc_train.models.linear_objective._COMPILED_WORK", least_work)
    case = make_case("logistic", rows=40_000, features=5, l2=0.0, partition_rows=100)
    case = Case(replace(case.problem, penalty=Penalty(l1=800.0)), case.source)
    passes, solver = stream(case.source), ProximalNewton(1e-9)
    state = start(solver, case.problem, passes, case.problem.initial())
    assert state.note.startswith("begins at the optimum of a sample")
    assert ("hessian" in state.memory) == (least_work == 0)
    while not state.converged:
        state = advance(solver, case.problem, passes, state)
    assert residual(case, state.params) <= 2e-9
    assert (state.params == 0.0).any()
    assert passes.timings.rows <= 10 * case.source.n_rows


def test_steps_that_are_too_long_are_shortened(monkeypatch):
    case = l1_case("logistic", alpha=0.02)
    due = mean_objective(case, solved(ProximalNewton(1e-9), case, most=12).params)
    direct, lengths = ProximalNewton._step, []

    def too_long(solver, problem, now, hessian):
        direction, _ = direct(solver, problem, now, hessian)
        return 5.0 * direction, problem.theta_penalty.l1_change(now.params, 5.0 * direction)

    shortened = newton._shortened

    def noted(state, objectives):
        short = shortened(state, objectives)
        lengths.append(short.memory["length"])
        return short

    monkeypatch.setattr(ProximalNewton, "_step", too_long)
    monkeypatch.setattr(newton, "_shortened", noted)
    found = solved(ProximalNewton(1e-6), case, most=100)
    assert lengths
    assert mean_objective(case, found.params) == pytest.approx(due, rel=1e-6)


@pytest.mark.parametrize("solver", [ProximalNewton(1e-9), ProximalLBFGS(1e-9)])
def test_where_no_step_helps_it_stalls_at_the_last_good_parameters(solver, monkeypatch):
    case = l1_case("logistic", alpha=0.02)
    passes = stream(case.source)
    state = start(solver, case.problem, passes, case.problem.initial())
    state = advance(solver, case.problem, passes, state)
    direct = type(solver)._step

    def uphill(*arguments):
        direction, l1_change = direct(*arguments)
        return -direction, l1_change

    monkeypatch.setattr(type(solver), "_step", uphill)
    good = state = advance(solver, case.problem, passes, state)
    while not state.stalled:
        assert not state.converged
        state = advance(solver, case.problem, passes, state)
    np.testing.assert_array_equal(state.params, good.params)


# ------------------------------------------------------------------------------ the model of L-BFGS


def pairs_of(rng: Any, hessian: Floats, count: int) -> tuple[tuple[Floats, Floats], ...]:
    steps = rng.normal(size=(count, len(hessian)))
    return tuple((step, hessian @ step) for step in steps)


def test_the_model_is_that_of_the_updates_of_bfgs():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(9, 9))
    pairs = pairs_of(rng, root @ root.T + np.eye(9), 4)
    step, change = pairs[-1]
    dense = np.eye(9) * (change @ change) / (step @ change)
    for step, change in pairs:
        mapped = dense @ step
        dense += np.outer(change, change) / (step @ change)
        dense -= np.outer(mapped, mapped) / (step @ mapped)
    model = LowRankModel.of(pairs)
    np.testing.assert_allclose([model.times(row) for row in np.eye(9)], dense, atol=1e-10)
    free = np.arange(9) % 3 > 0
    found = model._solved(free * np.ones(9), free)
    np.testing.assert_allclose(dense[np.ix_(free, free)] @ found[free], 1.0, atol=1e-9)
    assert not found[~free].any()


@pytest.mark.parametrize("seed", range(8))
def test_the_minimum_of_the_model_has_little_subgradient_left(seed):
    rng = np.random.default_rng(seed)
    n = 60
    hessian = np.diag(np.geomspace(1e-2, 1e3, n)) + 0.1 * np.ones((n, n))
    model = LowRankModel.of(pairs_of(rng, hessian, 10))
    start, gradient = rng.normal(size=n) * (rng.random(n) < 0.5), 10 * rng.normal(size=n)
    l1 = rng.uniform(0.1, 20.0, n)
    l1[-1] = 0.0

    def left(point: Floats) -> float:
        slope = gradient + model.times(point - start)
        at_zero = np.sign(slope) * np.maximum(np.abs(slope) - l1, 0.0)
        return float(np.abs(np.where(point == 0.0, at_zero, slope + l1 * np.sign(point))).max())

    found = model.minimum(start, gradient, l1)
    assert left(found) <= 1e-2 * left(start)
    assert found[-1] != 0.0
    assert (found == 0.0).any()


# ------------------------------------------------------------------------- LogisticRegression


def objective(model: Any, X: Floats, y: NDArray[Any], weight: Any = 1.0) -> float:
    """The objective of l1 logistic regression at the coefficients of any estimator."""
    z = X @ model.coef_.T + model.intercept_
    if z.shape[1] == 1:
        z = np.column_stack([np.zeros(len(z)), z])
    codes = np.searchsorted(model.classes_, y)
    weight = weight * class_weights(model, codes)
    losses = weight * (logsumexp(z, axis=1) - z[np.arange(len(z)), codes])
    l1, l2 = np.abs(model.coef_).sum(), 0.5 * (model.coef_**2).sum()
    return float(losses.sum() + (model.l1_ratio * l1 + (1.0 - model.l1_ratio) * l2) / model.C)


def class_weights(model: Any, codes: NDArray[Any]) -> Floats:
    if model.class_weight is None:
        return np.ones(len(codes))
    by_class = np.array([model.class_weight[label] for label in model.classes_.tolist()])
    found: Floats = by_class[codes]
    return found


def subgradient(model: Any, X: Floats, y: NDArray[Any]) -> float:
    """The largest entry of the least subgradient of the mean objective, by scaled weights."""
    z = X @ model.coef_[0] + model.intercept_[0]
    slopes = expit(z) - (y == model.classes_[1])
    deviation, C, ratio = X.std(axis=0), model.C, model.l1_ratio
    centred = (X - X.mean(axis=0)).T @ slopes + (1.0 - ratio) / C * model.coef_[0]
    w, l1 = model.coef_[0], ratio / C
    at_zero = np.sign(centred) * np.maximum(np.abs(centred) - l1, 0.0)
    left = np.where(w == 0.0, at_zero, centred + l1 * np.sign(w))
    by_weight = np.divide(left, deviation, out=np.zeros_like(left), where=deviation > 0.0)
    return float(max(np.abs(by_weight).max(), abs(slopes.sum())) / len(X))


def standardized(X: Floats) -> Floats:
    deviation = np.where(X.std(axis=0) > 0.0, X.std(axis=0), 1.0)
    found: Floats = (X - X.mean(axis=0)) / deviation
    return found


def two_digits() -> tuple[Floats, NDArray[Any]]:
    X, y = load_digits(return_X_y=True)
    return X[y < 2] / 16.0, y[y < 2]


CANCER, IRIS = load_breast_cancer(return_X_y=True), load_iris(return_X_y=True)
SETS: dict[str, tuple[Floats, NDArray[Any], dict[Any, float]]] = {
    "cancer": (standardized(CANCER[0]), CANCER[1], {0: 2.0, 1: 0.5}),
    "digits": (*two_digits(), {0: 2.0, 1: 0.5}),
    "iris": (standardized(IRIS[0]), IRIS[1], {0: 2.0, 1: 0.5, 2: 1.0}),
}


@pytest.mark.slow
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("l1_ratio", [0.3, 1.0])
@pytest.mark.parametrize("name", SETS)
def test_the_optimum_and_its_zeros_are_those_of_saga(name, l1_ratio, weighted):
    X, y, by_class = SETS[name]
    settings: dict[str, Any] = {"C": 0.1, "l1_ratio": l1_ratio}
    weight = None
    if weighted:
        settings["class_weight"] = by_class
        weight = np.random.default_rng(0).integers(0, 4, len(y)).astype(float)
    due = sklearn.linear_model.LogisticRegression(
        solver="saga", tol=1e-10, max_iter=100_000, random_state=0, **settings
    ).fit(X, y, weight)
    found = LogisticRegression(tol=1e-9, **settings).fit(X, y, weight)
    assert found.report_.solver == "proximal-newton"
    weights = 1.0 if weight is None else weight
    best = objective(due, X, y, weights)
    assert objective(found, X, y, weights) == pytest.approx(best, rel=1e-8)
    assert ((found.coef_ == 0.0) == (np.abs(due.coef_) < 1e-7)).all()
    assert found.sparse_coef_.nnz == np.count_nonzero(due.coef_)
    np.testing.assert_allclose(found.predict_proba(X), due.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize("solver", ["proximal-newton", "proximal-lbfgs"])
@pytest.mark.parametrize("scale", [1e-6, 1e9])
def test_constant_and_dependent_columns_of_any_scale(scale, solver):
    X, y = standardized(CANCER[0])[:, :6], CANCER[1]
    X = np.column_stack([X, X[:, 0] - 2.0 * X[:, 1], np.full(len(X), 3.0)])
    C = 10.0
    due = LogisticRegression(C=C, l1_ratio=1.0, tol=1e-8, solver=solver, max_iter=500).fit(X, y)
    assert subgradient(due, X, y) <= 2e-8
    assert due.coef_[0, 7] == 0.0
    found = LogisticRegression(C=C / scale, l1_ratio=1.0, tol=1e-8, solver=solver, max_iter=500)
    found.fit(scale * X, y)
    assert found.report_.converged
    assert subgradient(found, scale * X, y) <= 2e-8
    np.testing.assert_allclose(found.predict_proba(scale * X), due.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize(("rows", "columns"), [(2, 1), (2, 3), (569, 1)])
def test_few_rows_and_one_column(rows, columns):
    chosen = np.r_[0, 19] if rows == 2 else np.arange(569)
    X, y = standardized(CANCER[0])[chosen][:, :columns], CANCER[1][chosen]
    found = LogisticRegression(C=5.0, l1_ratio=1.0, tol=1e-9).fit(X, y)
    assert subgradient(found, X, y) <= 2e-9


@pytest.mark.parametrize("kind", ["separable", "weightless rows", "raw units"])
def test_awkward_rows(kind):
    X, y = CANCER
    weight = None
    if kind == "separable":
        X, y = X[:, :3], (X[:, 0] > 15.0).astype(int)
    if kind == "weightless rows":
        weight = (np.arange(len(y)) % 3 > 0).astype(float)
    found = LogisticRegression(C=100.0, l1_ratio=1.0, tol=1e-8).fit(X, y, weight)
    assert found.report_.converged
    assert found.report_.passes <= 30
    if weight is None:
        assert subgradient(found, X, y) <= 2e-8
    else:
        kept = weight > 0.0
        due = LogisticRegression(C=100.0, l1_ratio=1.0, tol=1e-8).fit(X[kept], y[kept])
        np.testing.assert_allclose(found.coef_, due.coef_, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_softmax_on_784_columns_and_ten_classes_by_proximal_lbfgs():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 784)) * rng.uniform(0.1, 3.0, 784)
    coef = rng.normal(size=(10, 784)) * (rng.random(784) < 0.05)
    y = (X @ coef.T + rng.gumbel(size=(3000, 10))).argmax(axis=1)
    model = LogisticRegression(C=0.1, l1_ratio=1.0, max_iter=300).fit(X.astype(np.float32), y)
    report = model.report_
    assert report.solver == "proximal-lbfgs"
    assert report.solver_reason == "a smooth loss with l1, and 7,850 parameters: more than 512"
    assert report.converged
    assert report.passes <= 40
    assert 0.02 < np.count_nonzero(model.coef_) / model.coef_.size < 0.25


def test_an_unpenalised_fit_and_a_round_trip(tmp_path):
    X, y = SETS["cancer"][:2]
    assert LogisticRegression(C=np.inf, l1_ratio=1.0).fit(X[:, :2], y).report_.solver == "newton"
    model = LogisticRegression(C=0.3, l1_ratio=1.0, warm_start=True, tol=1e-8).fit(X, y)
    plain = model.to_sklearn()
    assert (plain.l1_ratio, plain.solver) == (1.0, "saga")
    np.testing.assert_allclose(plain.predict_proba(X), model.predict_proba(X), rtol=1e-12)
    model.save(tmp_path / "run")
    again = load(tmp_path / "run")
    assert again.get_params() | {"warm_start": True} == model.get_params()
    np.testing.assert_array_equal(again.coef_, model.coef_)
    assert model.fit(X, y).n_iter_ == 0


# ----------------------------------------------------------------------------- other losses


@pytest.mark.parametrize("solver", ["proximal-newton", "proximal-lbfgs"])
@pytest.mark.parametrize("loss", ["huber:epsilon=1", "poisson", "squared", "tweedie:power=3"])
def test_l1_with_other_losses(loss, solver):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 6)) * np.geomspace(0.1, 10.0, 6)
    z = X @ [0.5, 0.0, 0.3, 0.0, 0.0, 0.05]
    y = rng.poisson(np.exp(z)) + 1.0
    model, n_columns = CustomModel(loss=loss, l1=20.0), X.shape[1]
    training = Training(solver=solver, tol=1e-9, max_iter=1000)
    if loss.startswith("tweedie") and solver == "proximal-newton":
        with pytest.raises(ValueError, match=r"second derivatives .*; use 'proximal-lbfgs' or"):
            train(model, X, training, y=y)
        return
    fitted, report = train(model, X, training, y=y)
    assert report.converged
    assert (fitted.coef == 0.0).any()

    def objective(theta: Floats) -> float:
        values = model.loss.value(y[:, None], (X @ theta[:-1] + theta[-1])[:, None])
        return float(values.sum() + 20.0 * np.abs(theta[:-1]).sum())

    theta = np.append(fitted.coef[0], fitted.intercept[0])
    for step in np.vstack([np.eye(n_columns + 1), -np.eye(n_columns + 1)]):
        assert objective(theta + 1e-3 * step) > objective(theta)


# ------------------------------------------------------------------------ why "auto" chose it


def test_the_report_says_why_auto_chose_the_solver():
    X, y = SETS["cancer"][:2]
    report = LogisticRegression(l1_ratio=0.5).fit(X, y).report_
    assert report.solver_reason == "a smooth loss with l1, and 31 parameters: at most 512"
    shown = f"proximal-newton ({report.solver_reason})"
    assert dict(report.figures())["solver"] == shown
    assert Report.from_json(report.to_json()).solver_with_reason == shown
    chosen = LogisticRegression(l1_ratio=0.5, solver="proximal-lbfgs").fit(X, y).report_
    assert (chosen.solver_reason, chosen.solver_with_reason) == ("", "proximal-lbfgs")
    _, report = train(LogisticModel(), X, Training(batch_size=64, max_iter=1), y=y)
    assert report.solver_with_reason == "sgd (updates, and no rate has to be given)"
