"""Lasso, ElasticNet and their paths: scikit-learn's answers, from one pass over the rows."""

import warnings
from dataclasses import replace
from typing import Any

import dask.array
import numpy as np
import pytest
import sklearn.linear_model
import zarr
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes
from sklearn.exceptions import ConvergenceWarning

from ooc_train import ElasticNet, Lasso, LinearRegression, Ridge, enet_path, lasso_path, load
from ooc_train.models.linear import LinearProblem
from ooc_train.objective.losses import LOSSES
from ooc_train.objective.penalty import Penalty
from ooc_train.objective.scaling import Scaling
from ooc_train.runs.report import Report
from ooc_train.solvers.base import advance, from_arrays, start, to_arrays
from ooc_train.solvers.coordinate_descent import CoordinateDescent
from ooc_train.solvers.elastic_net_path import ElasticNetPath
from ooc_train.stream.inputs import read_inputs
from ooc_train.training.coefficient_path import elastic_net_path
from tests.streams import Cut, Shuffled, same_bits, stream, write_store

Floats = NDArray[np.float64]
TIGHT = 1e-13
DIABETES = load_diabetes(return_X_y=True)


def objective(model: Any, X: Floats, y: Floats, weight: Any = None) -> float:
    """The objective at the coefficients of any estimator, by its definition."""
    ratio = getattr(model, "l1_ratio", 1.0)
    residual = y - X @ model.coef_ - model.intercept_
    penalty = ratio * np.abs(model.coef_).sum() + (1.0 - ratio) / 2 * (model.coef_**2).sum()
    return float(0.5 * np.average(residual**2, weights=weight) + model.alpha * penalty)


def largest_alpha(X: Floats, y: Floats, weight: Any = None, *, centre: bool = True) -> float:
    """The least alpha of a lasso without any coefficient."""
    w = np.ones(len(y)) if weight is None else weight
    if centre:
        X, y = X - np.average(X, axis=0, weights=w), y - np.average(y, weights=w)
    return float(np.abs((w * y) @ X).max() / w.sum())


def tightest(alpha: float, ratio: float, X: Floats, y: Floats, weight: Any = None, **how: Any):
    model = sklearn.linear_model.ElasticNet(
        alpha=alpha, l1_ratio=ratio, tol=1e-15, max_iter=40_000, **how
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a tolerance below rounding
        return model.fit(X, y, sample_weight=weight)


def made(rows: int = 200, features: int = 15, seed: int = 0) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, features)) + rng.normal(size=(rows, 1))
    y = X[:, ::3] @ rng.normal(size=X[:, ::3].shape[1]) + rng.normal(size=rows) + 3.0
    return X, y


def uneven(rows: int = 200) -> Floats:
    rng = np.random.default_rng(5)
    return rng.uniform(0.0, 3.0, rows) * (rng.random(rows) > 0.2)


def conditioned(rows: int, features: int) -> tuple[Floats, Floats]:
    """Columns whose singular values lie a factor of 1e4 apart."""
    rng = np.random.default_rng(1)
    left = np.linalg.qr(rng.normal(size=(rows, features)))[0]
    right = np.linalg.qr(rng.normal(size=(features, features)))[0]
    X = (left * np.geomspace(100.0, 0.01, features)) @ right
    return X, X @ rng.normal(size=features) + 0.01 * rng.normal(size=rows)


DATA: dict[str, tuple[Floats, Floats, Any, dict[str, Any]]] = {
    "diabetes": (*DIABETES, None, {}),
    "weighted": (*made(), uneven(), {}),
    "no intercept": (*made(), uneven(), {"fit_intercept": False}),
    "ill-conditioned": (*conditioned(120, 12), None, {}),
    "more columns than rows": (*made(20, 60), None, {}),
    "scales": (made()[0] * np.geomspace(1e-6, 1e9, 15), made()[1], None, {}),
    "far from zero": (made()[0] + 1e4, made()[1] + 1e5, None, {}),
    "nearly dependent": (
        np.column_stack([made()[0], made()[0][:, 0] + 1e-4 * made(seed=9)[0][:, 0]]),
        made()[1],
        None,
        {},
    ),
}


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("ratio", [1.0, 0.5, 0.05])
@pytest.mark.parametrize("share", [0.5, 0.01])
def test_the_answer_is_that_of_scikit_learns_tightest_fit(name, ratio, share):
    X, y, weight, how = DATA[name]
    alpha = share * largest_alpha(X, y, weight, centre=not how) / ratio
    found = ElasticNet(alpha, l1_ratio=ratio, tol=TIGHT, **how).fit(X, y, sample_weight=weight)
    best = tightest(alpha, ratio, X, y, weight, **how)
    assert found.report_.solver == "coordinate-descent"
    assert found.report_.converged
    least = objective(best, X, y, weight)
    assert objective(found, X, y, weight) <= (1 + 1e-10) * least
    if best.dual_gap_ > 1e-11 * least:
        return  # scikit-learn is still on its way
    np.testing.assert_array_equal(found.coef_ == 0, best.coef_ == 0)
    size = np.abs(best.coef_ * X.std(axis=0)).max()
    deviation = np.abs((found.coef_ - best.coef_) * X.std(axis=0)).max()
    assert deviation <= 1e-6 * size
    assert found.intercept_ == pytest.approx(best.intercept_, rel=1e-6, abs=1e-6 * y.std())


def test_scikit_learn_gets_there_on_nearly_all_of_these():
    """So the comparison above compares coefficients."""
    ends = [
        tightest(0.01 * largest_alpha(X, y, w, centre=not how) / 0.5, 0.5, X, y, w, **how)
        for X, y, w, how in DATA.values()
    ]
    assert sum(each.dual_gap_ <= 1e-11 for each in ends) >= len(ends) - 2


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_the_flights(flights, ratio):
    group = zarr.open_group(flights[0], mode="r")
    X, y = np.asarray(group["X"], np.float64)[::8], np.asarray(group["y"], np.float64)[::8]
    alpha = 0.02 * largest_alpha(X, y)
    found = ElasticNet(alpha, l1_ratio=ratio, tol=TIGHT).fit(X, y)
    best = tightest(alpha, ratio, X, y, precompute=True)
    least = objective(best, X, y)
    assert objective(found, X, y) == pytest.approx(least, rel=1e-9)
    np.testing.assert_array_equal(found.coef_ == 0, best.coef_ == 0)
    assert np.abs(found.coef_ - best.coef_).max() <= 1e-6 * np.abs(best.coef_).max()


# ------------------------------------------------------------------------- stopping, and what tells


def gap_of(model: Any, X: Floats, y: Floats) -> float:
    """scikit-learn's duality gap, by the rows themselves."""
    X, y = X - X.mean(axis=0), y - y.mean()
    n, w = len(y), model.coef_
    l1, l2 = n * model.alpha * model.l1_ratio, n * model.alpha * (1 - model.l1_ratio)
    residual = y - X @ w
    slopes = X.T @ residual - l2 * w
    shrunk = min(1.0, l1 / np.abs(slopes).max())
    primal = 0.5 * (residual @ residual + l2 * w @ w) + l1 * np.abs(w).sum()
    dual = shrunk * residual @ y - 0.5 * shrunk**2 * (residual @ residual + l2 * w @ w)
    return float((primal - dual) / n)


@pytest.mark.parametrize("tol", [1e-1, 1e-3, 1e-5])
def test_the_gap_that_is_reported_is_that_of_the_rows(tol):
    X, y = made()
    model = ElasticNet(0.05, l1_ratio=0.7, tol=tol).fit(X, y)
    assert model.dual_gap_ == pytest.approx(gap_of(model, X, y), rel=1e-6, abs=1e-12)
    assert model.dual_gap_ <= tol * y.var()
    assert model.report_.dual_gap == (model.dual_gap_,)
    best = objective(ElasticNet(0.05, l1_ratio=0.7, tol=TIGHT).fit(X, y), X, y)
    assert objective(model, X, y) - best <= model.dual_gap_ + 1e-12
    assert Report.from_json(model.report_.to_json()).dual_gap == model.report_.dual_gap
    assert ("duality gap", f"{model.dual_gap_:.3g}") in model.report_.figures()


def test_a_looser_tolerance_takes_fewer_sweeps():
    X, y = made(40, 60)
    loose, tight = (Lasso(1e-3, tol=tol).fit(X, y) for tol in (1e-2, 1e-10))
    assert loose.n_iter_ < tight.n_iter_
    assert loose.dual_gap_ > 1e3 * tight.dual_gap_


def test_too_few_sweeps_are_no_convergence():
    X, y = made(40, 60)
    said = r"max_iter=2 reached, the duality gap is .* and tol times .* raise max_iter or tol"
    with pytest.warns(ConvergenceWarning, match=said):
        model = Lasso(1e-3, max_iter=2, tol=1e-9).fit(X, y)
    assert not model.report_.converged
    assert model.n_iter_ == 2


def test_a_gap_that_rounding_hides_is_no_convergence_either():
    X, y = made()
    with pytest.warns(ConvergenceWarning, match=r"no step lowers .* the duality gap .* raise tol"):
        model = Lasso(1e-18, tol=1e-14).fit(X, y)
    np.testing.assert_allclose(model.coef_, LinearRegression().fit(X, y).coef_, rtol=1e-7)


def test_it_takes_one_pass(tmp_path):
    X, y = made()
    store = write_store(tmp_path / "rows.zarr", X, y, uneven())
    model = Lasso(0.1, tol=TIGHT).fit(store)
    assert model.report_.passes == 1
    expected = Lasso(0.1, tol=TIGHT).fit(X, y, sample_weight=uneven())
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-9, atol=1e-12)


# ------------------------------------------------------------------------------------ extremes


@pytest.mark.parametrize("weight", [None, uneven()], ids=["", "weighted"])
def test_all_coefficients_are_zero_from_the_largest_alpha_on_and_not_below(weight):
    X, y = made()
    largest = largest_alpha(X, y, weight)
    model = Lasso(largest).fit(X, y, sample_weight=weight)
    assert not model.coef_.any()
    assert model.intercept_ == pytest.approx(np.average(y, weights=weight), rel=1e-12)
    assert model.dual_gap_ <= 1e-14 * y.var()
    below = Lasso(0.999 * largest, tol=1e-9).fit(X, y, sample_weight=weight)
    assert np.count_nonzero(below.coef_) == 1


@pytest.mark.parametrize("solver", ["auto", "coordinate-descent"])
def test_without_a_penalty_it_is_least_squares(solver):
    X, y = made()
    X = np.column_stack([X, X[:, 0], np.full(len(y), 4.0)])
    expected = LinearRegression().fit(X, y)
    for model in (Lasso(0.0, solver=solver), ElasticNet(0.0, solver=solver)):
        model.fit(X, y)
        np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-8, atol=1e-9)
        assert (model.report_.solver == "gram") is (solver == "auto")
        assert np.isnan(model.dual_gap_) == (solver == "auto")
    assert model.report_.converged


def test_without_l1_it_is_ridge():
    X, y = made()
    expected = Ridge(0.3 * uneven().sum()).fit(X, y, sample_weight=uneven())
    for solver in ("auto", "coordinate-descent"):
        model = ElasticNet(0.3, l1_ratio=0.0, solver=solver)
        model.fit(X, y, sample_weight=uneven())
        np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-9)
    assert model.dual_gap_ <= 1e-14


def test_columns_that_never_vary_get_nothing():
    X, y = made()
    for constant in (0.0, 4.0, 1e9, 0.1):
        padded = np.insert(X, 3, constant, axis=1)
        model = Lasso(1e-6, tol=1e-10).fit(padded, y)
        assert model.coef_[3] == 0.0
        plain = Lasso(1e-6, tol=1e-10).fit(X, y)
        np.testing.assert_allclose(np.delete(model.coef_, 3), plain.coef_, rtol=1e-9)


def test_more_columns_than_rows_and_a_small_penalty_take_few_sweeps():
    # Weights of dependent columns fall along directions without curvature, where sweeps alone
    # take more than 20,000 rounds.
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(20, 60)), rng.normal(size=20)
    model = Lasso(1e-4 * largest_alpha(X, y), tol=1e-12).fit(X, y)
    assert model.n_iter_ <= 100
    assert np.count_nonzero(model.coef_) <= 19


@pytest.mark.parametrize("copies", [1.0, -1.0, 1e6])
def test_columns_that_depend_on_one_another_leave_the_objective_at_its_minimum(copies):
    X, y = made()
    doubled = np.column_stack([X, copies * X[:, :5]])
    model = Lasso(0.01, tol=1e-9).fit(doubled, y)
    assert model.report_.converged
    alone = Lasso(0.01, tol=1e-9).fit(doubled[:, 5:] if copies == 1e6 else X, y)
    found = objective(model, doubled, y)
    assert found == pytest.approx(
        objective(alone, doubled[:, 5:] if copies == 1e6 else X, y), rel=1e-8
    )


def test_the_report_has_condition_and_rank_of_the_columns_in_the_model():
    X, y = made()
    twins = np.column_stack([X[:, :3], X[:, 0]])
    begun = Lasso(0.01, warm_start=True, tol=1e-10).fit(twins, y)
    begun.coef_ = begun.coef_ / 2 + np.array([0.0, 0.0, 0.0, begun.coef_[0] / 2])
    begun.fit(twins, y)
    assert np.count_nonzero(begun.coef_[[0, 3]]) == 2
    # Any share of one twin and the rest of the other fit as well.
    assert begun.report_.rank == np.count_nonzero(begun.coef_) - 1
    plain: Any = Lasso(0.01).fit(X, y)
    assert plain.report_.rank == np.count_nonzero(plain.coef_)
    assert plain.report_.condition < 20
    assert plain.report_.digits > 12
    assert Lasso(1e6).fit(X, y).report_.precision is None


@pytest.mark.parametrize("rows", [1, 2])
def test_a_row_or_two(rows):
    X, y = made(rows, 4)
    model = Lasso(0.1, tol=1e-10).fit(X, y)
    expected = sklearn.linear_model.Lasso(alpha=0.1, tol=1e-12).fit(X, y)
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-6, atol=1e-9)
    assert np.isfinite(model.intercept_)


@pytest.mark.parametrize("value", [0.0, 7.0, 1e9])
def test_a_y_that_never_varies(value):
    X, _ = made()
    model = Lasso(1e-4).fit(X, np.full(len(X), value))
    assert not model.coef_.any()
    assert model.intercept_ == pytest.approx(value)


def test_one_column_is_a_soft_threshold():
    X, y = made(features=1)
    x, target = X[:, 0] - X.mean(), y - y.mean()
    pull, alpha = x @ target / len(y), 0.2
    expected = np.sign(pull) * max(abs(pull) - alpha, 0.0) / (x @ x / len(y))
    assert Lasso(alpha, tol=TIGHT).fit(X, y).coef_[0] == pytest.approx(expected, rel=1e-12)


def test_rows_without_weight_are_left_out():
    X, y = made()
    weight = uneven()
    kept = weight > 0
    whole = Lasso(0.05, tol=TIGHT).fit(X, y, sample_weight=weight)
    part = Lasso(0.05, tol=TIGHT).fit(X[kept], y[kept], sample_weight=weight[kept])
    np.testing.assert_allclose(whole.coef_, part.coef_, rtol=1e-9, atol=1e-12)
    scaled = Lasso(0.05, tol=TIGHT).fit(X, y, sample_weight=1e3 * weight)
    np.testing.assert_allclose(scaled.coef_, whole.coef_, rtol=1e-9, atol=1e-12)


def test_standardize_is_a_scaler_put_first():
    X, y = made()
    X = X * np.geomspace(1e-3, 1e3, X.shape[1]) + 5.0
    for fit_intercept in (True, False):
        how: dict[str, Any] = {"fit_intercept": fit_intercept, "tol": TIGHT}
        model = Lasso(0.1, standardize=True, **how).fit(X, y)
        scaled = (X - X.mean(axis=0)) / X.std(axis=0)
        plain = Lasso(0.1, **how).fit(scaled, y)
        np.testing.assert_allclose(model.coef_ * X.std(axis=0), plain.coef_, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(model.predict(X), plain.predict(scaled), rtol=1e-8)


# ------------------------------------------------------------------------------ the solver itself


def case(rows: int, features: int, outputs: int, l1: float, l2: float, seed: int, **cut: Any):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, features)) * rng.choice([1e-3, 1.0, 50.0], features)
    X += X[:, :1] * rng.choice([0.0, 1.0, -2.0], features)
    X[:, rng.random(features) < 0.15] = 3.0
    y = rng.normal(size=(rows, outputs)) + X @ rng.normal(size=(features, outputs))
    problem = LinearProblem(
        LOSSES["squared"](),
        outputs,
        rows,
        float(rows),
        Scaling.of(X.mean(axis=0), X.std(axis=0), centre=True),
        Penalty(l1, l2),
    )
    return problem, Cut(np.ascontiguousarray(X), y, None, **cut)


def solved(solver: Any, problem: LinearProblem, source: Cut, **how: Any) -> Any:
    passes = stream(source, **how)
    return advance(solver, problem, passes, start(solver, problem, passes, problem.initial()))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(2, 40),
    features=st.integers(1, 30),
    outputs=st.integers(1, 3),
    l1=st.sampled_from([1e-4, 0.1, 10.0]),
    l2=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 2**20),
)
@example(rows=2, features=2, outputs=2, l1=1e-4, l2=1.0, seed=0)
def test_the_subgradient_of_least_size_is_zero(rows, features, outputs, l1, l2, seed):
    problem, source = case(rows, features, outputs, l1, l2, seed)
    state = solved(CoordinateDescent(1e-14, 5_000), problem, source)
    sums = stream(source).reduce(problem.reduction(state.params[None]))
    now = problem.read(sums, state.params[None])
    zero = problem.reduction(problem.initial()[None])
    size = np.abs(problem.read(stream(source).reduce(zero), problem.initial()[None]).gradient).max()
    left = problem.least_subgradient(now.gradient / rows, state.params)
    # A gap of 1e-14 is a step of 1e-7 by the curvature, which a penalty on a tiny column raises.
    curvature = 1.0 + problem.theta_penalty.l2 / rows
    assert np.abs(left / curvature**0.5).max() <= 1e-7 * max(size, 1e-6) / rows**0.5
    assert state.loss == pytest.approx(now.loss, rel=1e-7, abs=1e-9 * size**2)
    assert same_bits(to_arrays(from_arrays(to_arrays(state))), to_arrays(state))


@pytest.mark.parametrize("seed", range(5))
def test_a_constant_column_whose_mean_is_rounded_gets_nothing(seed):
    """Rounding of its products is above the penalty, and is no reason for a weight."""
    X, y = made(201, seed=seed)
    X[:, 2:5] = [0.1, 7.7, 1e6 / 3]
    mean, scale = X.mean(axis=0), X.std(axis=0)
    mean[2:5] *= 1 + 7 * np.finfo(np.float64).eps
    scale[2:5] = 1.0
    weight = np.random.default_rng(seed).uniform(0.0, 2.0, 201)
    problem = LinearProblem(
        LOSSES["squared"](), 1, 201, weight.sum(), Scaling(mean, scale), Penalty(l1=1e-40)
    )
    state = solved(CoordinateDescent(1e-4, 50), problem, Cut(X, y[:, None], weight))
    assert not state.params[0, 2:5].any()
    expected = LinearRegression().fit(X, y, sample_weight=weight).coef_
    np.testing.assert_allclose((state.params[0, :-1] / scale)[5:], expected[5:], rtol=1e-6)


@pytest.mark.parametrize("outputs", [1, 3])
def test_executors_cuts_of_tasks_and_orders_change_no_bit(outputs):
    problem, source = case(90, 12, outputs, 0.5, 0.1, 3)
    expected = solved(CoordinateDescent(1e-12), problem, source)
    for how in ({"task_groups": 1}, {"window": 5}, {"executor": Shuffled(1)}):
        assert same_bits(
            to_arrays(solved(CoordinateDescent(1e-12), problem, source, **how)),
            to_arrays(expected),
        )


def test_other_partitions_change_no_more_than_rounding():
    problem, source = case(90, 12, 1, 0.5, 0.1, 3)
    expected = solved(CoordinateDescent(1e-14), problem, source).params
    for rows in (1, 13, 90):
        cut = replace(source, rows=rows, group=2)
        found = solved(CoordinateDescent(1e-14), problem, cut).params
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_outputs_are_learned_by_themselves():
    X, y = made()
    Y = np.column_stack([y, -(y**2), X[:, 4]])
    model: Any = ElasticNet(0.1, tol=TIGHT).fit(X, Y)
    expected = sklearn.linear_model.ElasticNet(alpha=0.1, tol=1e-14, max_iter=10_000).fit(X, Y)
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(model.intercept_, expected.intercept_, rtol=1e-7)
    assert model.dual_gap_.shape == model.n_iter_.shape == (3,)
    assert model.sparse_coef_.shape == (3, X.shape[1])
    for k in range(3):
        alone = ElasticNet(0.1, tol=TIGHT).fit(X, Y[:, k])
        np.testing.assert_allclose(model.coef_[k], alone.coef_, rtol=1e-9, atol=1e-12)


# --------------------------------------------------------------------------------- estimators


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_shapes_are_scikit_learns(shape):
    X, y = made()
    y = y.reshape(shape)
    found, expected = Lasso(0.1).fit(X, y), sklearn.linear_model.Lasso(alpha=0.1).fit(X, y)
    for name in ("coef_", "intercept_", "n_iter_", "dual_gap_", "sparse_coef_"):
        assert np.shape(getattr(found, name)) == np.shape(getattr(expected, name)), name
    assert found.predict(X).shape == expected.predict(X).shape
    assert found.sparse_coef_.nnz == np.count_nonzero(found.coef_)


def test_a_warm_start_at_the_optimum_takes_one_sweep():
    X, y = made(60, 40)
    model = Lasso(1e-3, warm_start=True, tol=1e-10).fit(X, y)
    cold = model.n_iter_
    assert model.fit(X, y).n_iter_ == 1 < cold
    assert Lasso(1e-3, tol=1e-10).fit(X, y).n_iter_ == cold


def test_it_goes_to_scikit_learn_and_to_a_folder_and_back(tmp_path):
    X, y = made()
    for model in (Lasso(0.2, tol=1e-8), ElasticNet(0.2, l1_ratio=0.3, max_iter=77)):
        model.fit(X, y)
        plain = model.to_sklearn()
        assert plain.get_params()["alpha"] == 0.2
        assert getattr(plain, "l1_ratio", 1.0) == getattr(model, "l1_ratio", 1.0)
        np.testing.assert_allclose(plain.predict(X), model.predict(X), rtol=1e-12)
        assert plain.dual_gap_ == model.dual_gap_
        model.save(tmp_path / type(model).__name__)
        again: Any = load(tmp_path / type(model).__name__)
        assert again.get_params() == model.get_params()
        assert again.dual_gap_ == model.dual_gap_
        np.testing.assert_array_equal(again.coef_, model.coef_)


def test_partial_fit_ends_near_the_fit_to_all_rows():
    X, y = made(4000, 8)
    model = Lasso(0.3, batch_size=16, random_state=0)
    for part in np.array_split(np.arange(4000), 7):
        model.partial_fit(X[part], y[part])
    best = objective(Lasso(0.3, tol=TIGHT).fit(X, y), X, y)
    assert objective(model, X, y) <= 1.02 * best
    heavy = Lasso(0.3, batch_size=16, random_state=0)
    for part in np.array_split(np.arange(4000), 7):
        heavy.partial_fit(X[part], y[part], sample_weight=np.full(len(part), 8.0))
    np.testing.assert_allclose(heavy.coef_, model.coef_, rtol=1e-6, atol=1e-9)


def test_updates_by_batches_learn_the_same_model():
    X, y = made(4000, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = ElasticNet(0.3, batch_size=32, max_iter=20, random_state=0).fit(X, y)
    assert model.report_.solver == "sgd"
    best = objective(ElasticNet(0.3, tol=TIGHT).fit(X, y), X, y)
    assert objective(model, X, y) <= 1.01 * best


# -------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize("name", ["diabetes", "ill-conditioned", "more columns than rows"])
@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_a_path_is_scikit_learns(name, ratio):
    X, y, *_ = DATA[name]
    found = enet_path(X, y, l1_ratio=ratio, alphas=30, tol=TIGHT, max_iter=5_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        expected = sklearn.linear_model.enet_path(
            X, y, l1_ratio=ratio, alphas=30, tol=1e-14, max_iter=20_000
        )
    alphas, coefs, gaps = found
    assert coefs.shape == (X.shape[1], 30)
    np.testing.assert_allclose(alphas, expected[0], rtol=1e-12)
    assert not coefs[:, 0].any()
    assert gaps.max() <= 1e-12 * (y**2).mean()
    reached = expected[2] <= 1e-11 * (y**2).mean()
    assert reached.sum() >= 15
    close = np.abs(coefs - expected[1])[:, reached] <= 1e-6 * np.abs(expected[1]).max()
    assert close.all()


@pytest.mark.parametrize("weight", [None, uneven()])
def test_a_path_of_positive_coefficients_is_scikit_learns(weight):
    X, y = made()
    y = y - y.mean()
    y = y if weight is None else y - np.average(y, weights=weight)
    settings: dict[str, Any] = {"alphas": 12, "l1_ratio": 0.7, "positive": True}
    alphas, coefs, gaps = enet_path(
        X, y, sample_weight=weight, fit_intercept=True, tol=TIGHT, **settings
    )
    model = sklearn.linear_model.ElasticNet(l1_ratio=0.7, positive=True, tol=1e-12, max_iter=9_999)
    for alpha, coef in zip(alphas, coefs.T, strict=True):
        expected = model.set_params(alpha=alpha).fit(X, y, sample_weight=weight).coef_
        np.testing.assert_allclose(coef, expected, rtol=1e-6, atol=1e-8)
    assert gaps.max() <= 1e-10
    assert not coefs[:, 0].any()
    assert coefs[:, 1].any(), "the grid begins above the least alpha of zero coefficients"
    assert (coefs >= 0).all()


def test_a_path_of_positive_coefficients_is_all_zeros_where_none_would_be_above():
    X = np.arange(6.0)[:, None]
    alphas, coefs, _ = lasso_path(X, -X[:, 0], alphas=3, positive=True)
    expected = sklearn.linear_model.lasso_path(X, -X[:, 0], alphas=3, positive=True)[0]
    np.testing.assert_array_equal(alphas, expected)
    assert not coefs.any()


def test_a_path_has_scikit_learns_defaults():
    X, y = DIABETES
    alphas, coefs, gaps, sweeps = lasso_path(X, y, return_n_iter=True)
    expected = sklearn.linear_model.lasso_path(X, y, return_n_iter=True)
    assert [np.shape(each) for each in expected] == [alphas.shape, coefs.shape, gaps.shape, (100,)]
    assert gaps.max() <= 1e-4 * (y**2).mean()
    assert sum(sweeps) <= sum(expected[3])


def test_each_point_of_a_path_is_a_fit_of_its_own():
    X, y = made()
    alphas, coefs, gaps = enet_path(
        X, y, alphas=[0.01, 1.0, 0.1, 0.0], sample_weight=uneven(), fit_intercept=True, tol=TIGHT
    )
    np.testing.assert_array_equal(alphas, [1.0, 0.1, 0.01, 0.0])
    for i, alpha in enumerate(alphas):
        model = ElasticNet(alpha, tol=TIGHT).fit(X, y, sample_weight=uneven())
        np.testing.assert_allclose(coefs[:, i], model.coef_, rtol=1e-8, atol=1e-10)
    assert (gaps <= 1e-10).all()


@pytest.mark.slow
def test_stores_paths_and_dask_arrays_have_the_same_path(tmp_path):
    X, y = made()
    store = write_store(tmp_path / "rows.zarr", X, y)
    expected = lasso_path(X, y, alphas=20)
    for rows in (store, str(store.path)):
        for found, due in zip(lasso_path(rows, alphas=20), expected, strict=True):
            np.testing.assert_allclose(found, due, rtol=1e-7, atol=1e-9)
    lazy = dask.array.from_array(X, chunks=(50, -1)), dask.array.from_array(y, chunks=50)
    for found, due in zip(lasso_path(*lazy, alphas=20), expected, strict=True):
        np.testing.assert_allclose(found, due, rtol=1e-7, atol=1e-9)


def test_a_whole_path_takes_one_pass_and_its_intercepts_fit(tmp_path):
    X, y = made()
    inputs = read_inputs(write_store(tmp_path / "rows.zarr", X, y), classifier=False)
    path = elastic_net_path(
        inputs, l1_ratio=1.0, alphas=100, eps=1e-3, fit_intercept=True, tol=TIGHT, max_iter=1000
    )
    assert path.passes == 1
    assert path.memory.measured <= path.memory.projected
    model = Lasso(path.alphas[60], tol=TIGHT).fit(X, y)
    assert path.intercept[0, 60] == pytest.approx(model.intercept_, rel=1e-9)
    assert path.n_iter.shape == (100,)


def test_a_path_counts_what_it_keeps():
    problem, source = case(50, 40, 1, 50.0, 0.0, 0)
    plain = CoordinateDescent(1e-4).holds(problem, source)
    path = ElasticNetPath(1e-4, alphas=300).holds(problem, source)
    kept = solved(ElasticNetPath(1e-4, alphas=300), problem, source).memory["coef"].nbytes
    assert (path.sets - plain.sets) * 8 * problem.n_parameters >= kept


def test_a_column_as_y_gives_a_path_of_three_axes():
    X, y = made()
    assert lasso_path(X, y[:, None], alphas=5)[1].shape == (1, X.shape[1], 5)


def test_a_path_of_nothing_has_scikit_learns_grid():
    X = made()[0]
    alphas, coefs, _ = lasso_path(X, np.zeros(len(X)), alphas=3)
    expected = sklearn.linear_model.lasso_path(X, np.zeros(len(X)), alphas=3)[0]
    np.testing.assert_array_equal(alphas, expected)
    assert not coefs.any()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"l1_ratio": 0.0}, "l1_ratio=0 has no l1 penalty.*pass the alphas"),
        ({"l1_ratio": 1.5}, "l1_ratio=1.5 is not a number"),
        ({"alphas": []}, "alphas is empty"),
        ({"alphas": 0}, "alphas=0 is not a whole number of at least 1"),
        ({"alphas": [1.0, -1.0]}, "alphas=-1.0 is not a number of at least 0"),
        ({"positive": 1}, "positive=1 is not True or False"),
        ({"eps": 0.0}, "eps=0.0 is not a number above 0"),
        ({"eps": 2.0}, "eps=2.0 is not a number above 0 and at most 1"),
        ({"tol": -1.0}, "tol=-1.0"),
        ({"max_iter": 0}, "max_iter=0"),
    ],
)
def test_settings_of_a_path_that_cannot_be_used(how, said):
    with pytest.raises(ValueError, match=said):
        enet_path(*made(), **how)


def test_a_path_of_several_columns_is_refused():
    X, y = made()
    with pytest.raises(ValueError, match=r"y has 2 columns, and a path is that of one; call it"):
        lasso_path(X, np.column_stack([y, y]))


def test_a_path_that_does_not_converge_says_where():
    X, y = made(40, 60)
    said = r"not converged at \d+ of 20 alphas, the first at alpha=.*raise max_iter or tol"
    with pytest.warns(ConvergenceWarning, match=said):
        lasso_path(X, y, alphas=20, max_iter=1, tol=1e-12)
