"""Generalised linear models: scikit-learn's answers, few passes, and y outside of its domain."""

import re
from typing import Any, cast

import dask.array as da
import numpy as np
import pytest
import sklearn.linear_model
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes
from sklearn.utils.estimator_checks import parametrize_with_checks

from ooc_train import (
    CustomModel,
    GammaRegressor,
    PoissonModel,
    PoissonRegressor,
    StoreWriter,
    Training,
    TweedieRegressor,
    evaluate,
    load,
    predict,
    train,
)
from ooc_train.core.sums import Block
from ooc_train.models.linear import LinearProblem
from ooc_train.objective.losses.poisson import Poisson
from ooc_train.objective.penalty import Penalty
from ooc_train.objective.scaling import Scaling
from ooc_train.solvers.base import State
from ooc_train.solvers.newton import Newton

Array = NDArray[Any]
COEF = np.array([0.3, 0.02, 2.0, -0.5, 0.1])


@pytest.mark.slow
@parametrize_with_checks(
    [PoissonRegressor(), GammaRegressor(), TweedieRegressor(), TweedieRegressor(power=1.5)],
    expected_failed_checks=lambda estimator: (
        {"check_regressor_multioutput": "the check has a y below 0, outside of the domain"}
        if estimator.__sklearn_tags__().target_tags.positive_only
        else {}
    ),
)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def rows(n: int = 2000) -> tuple[Array, Array]:
    """Columns of other scales and means, and the predictors of them."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 5)) * [1, 10, 0.1, 1, 1] + [0, 3, 0, 0, 5]
    return X, X @ COEF + 0.5


def targets(z: Array, power: float) -> Array:
    """Targets of the means `exp(z)`, in the domain of the power."""
    rng = np.random.default_rng(1)
    if power == 0:
        return z + rng.normal(size=len(z))
    if power == 1:
        return rng.poisson(np.exp(z)).astype(float)
    amounts: Array = np.exp(z) * rng.gamma(2.0, 0.5, len(z))
    return amounts if power >= 2 else amounts * (rng.random(len(z)) < 0.7)


def ours(power: float, **settings: Any) -> Any:
    special = {1: PoissonRegressor, 2: GammaRegressor}
    if power in special:
        return special[int(power)](**settings)
    return TweedieRegressor(power=power, **settings)


def theirs(power: float, **settings: Any) -> Any:
    tightest = {"solver": "newton-cholesky", "tol": 1e-12, "max_iter": 10_000}
    return sklearn.linear_model.TweedieRegressor(power=power, **(tightest | settings))


def objective(model: Any, X: Array, y: Array, weight: Array | None = None) -> float:
    """scikit-learn's objective, by its own loss, at the coefficients of any model."""
    plain = theirs(getattr(model, "power", 1.0 if "Poisson" in type(model).__name__ else 2.0))
    deviance = plain._get_loss().loss(y, X @ model.coef_ + model.intercept_)
    mean = np.average(deviance + plain._get_loss().constant_to_optimal_zero(y), weights=weight)
    return float(mean + 0.5 * model.alpha * model.coef_ @ model.coef_)


def assert_same(found: Any, due: Any, X: Array, y: Array, weight: Array | None = None) -> None:
    at_optimum = objective(due, X, y, weight)
    assert objective(found, X, y, weight) == pytest.approx(at_optimum, rel=1e-9)
    np.testing.assert_allclose(found.coef_, due.coef_, rtol=1e-6, atol=1e-6 * abs(due.coef_).max())
    assert found.intercept_ == pytest.approx(due.intercept_, rel=1e-6, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
@pytest.mark.parametrize("power", [0, 1, 1.5, 2])
def test_the_optimum_is_scikit_learns(power, solver, fit_intercept, weighted):
    X, z = rows()
    y = targets(z, power)
    weight = np.random.default_rng(2).integers(0, 3, len(y)) * 0.7 if weighted else None
    settings = {"alpha": 0.01, "fit_intercept": fit_intercept}
    due = theirs(power, **settings).fit(X, y, weight)
    found = ours(power, solver=solver, tol=1e-10, max_iter=1000, **settings).fit(X, y, weight)
    assert found.report_.converged
    assert_same(found, due, X, y, weight)
    assert found.score(X, y, weight) == pytest.approx(due.score(X, y, weight), rel=1e-9)
    np.testing.assert_allclose(found.predict(X), due.predict(X), rtol=1e-6)
    np.testing.assert_array_equal(found.to_sklearn().predict(X), found.predict(X))


@pytest.mark.parametrize("power", [1, 1.5, 2])
def test_diabetes_and_the_default_penalty(power):
    X, y = load_diabetes(return_X_y=True)
    due, found = theirs(power).fit(X, y), ours(power, tol=1e-10).fit(X, y)
    assert_same(found, due, X, y)


@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
def test_a_power_above_two_is_not_convex_and_found_by_lbfgs(solver):
    X, z = rows()
    y = targets(z, 3)
    model = TweedieRegressor(power=3, alpha=0.01, solver=solver, tol=1e-9, max_iter=500)
    if solver == "newton":
        with pytest.raises(
            ValueError, match=r"needs second derivatives \(of a convex loss\).*lbfg"
        ):
            model.fit(X, y)
        return
    due = sklearn.linear_model.TweedieRegressor(power=3, alpha=0.01, tol=1e-10, max_iter=10_000)
    assert_same(model.fit(X, y), due.fit(X, y), X, y)


def test_columns_that_nearly_depend_on_one_another():
    X, z = rows()
    X = np.column_stack([X, X[:, 0] + 1e-5 * X[:, 3], np.ones(len(X))])
    y = targets(z, 1)
    due = theirs(1, alpha=1e-6).fit(X, y)
    found = PoissonRegressor(alpha=1e-6, tol=1e-11).fit(X, y)
    assert objective(found, X, y) == pytest.approx(objective(due, X, y), rel=1e-9)
    np.testing.assert_allclose(found.predict(X), due.predict(X), rtol=1e-5)


def test_poisson_takes_at_most_ten_passes():
    X, z = rows(20_000)
    y = targets(z, 1)
    found = PoissonRegressor(alpha=1e-3, tol=1e-6).fit(X, y)
    assert found.report_.solver == "newton"
    assert found.report_.passes <= 10
    assert objective(found, X, y) == pytest.approx(
        objective(theirs(1, alpha=1e-3).fit(X, y), X, y), rel=1e-9
    )


@pytest.mark.parametrize("scale", [1e-6, 1e9])
@pytest.mark.parametrize("power", [1, 2])
def test_the_unit_of_y_moves_the_intercept_alone(power, scale):
    X, z = rows()
    y, alpha = targets(z, power), 0.01
    due = ours(power, alpha=alpha, tol=1e-10).fit(X, y)
    # The deviance of counts is in proportion to their unit, and so are penalty and gradient.
    unit = scale if power == 1 else 1.0
    found = ours(power, alpha=alpha * unit, tol=1e-9 * unit).fit(X, scale * y)
    assert found.report_.converged
    assert found.report_.passes <= 12
    np.testing.assert_allclose(found.coef_, due.coef_, rtol=1e-6)
    assert found.intercept_ - np.log(scale) == pytest.approx(due.intercept_, abs=1e-6)


def test_counts_that_are_all_zero_are_predicted_to_be_next_to_nothing():
    X, _ = rows(200)
    model = PoissonRegressor().fit(X, np.zeros(200))
    assert model.report_.converged
    assert (model.predict(X) <= 1.01 * model.tol).all()
    assert model.score(X, np.zeros(200)) == 0.0


def test_one_row_and_one_column():
    model = PoissonRegressor().fit(np.ones((1, 1)), np.array([7.0]))
    assert model.predict(np.ones((1, 1))) == pytest.approx(7.0, rel=1e-3)
    assert GammaRegressor().fit(np.eye(2), np.array([2.0, 8.0])).predict(np.eye(2)).shape == (2,)


def test_a_row_of_no_weight_changes_nothing():
    X, z = rows(300)
    y, weight = targets(z, 1), np.ones(300)
    due = PoissonRegressor(tol=1e-9).fit(X[1:], y[1:])
    y[0], weight[0] = 1e6, 0.0
    found = PoissonRegressor(tol=1e-9).fit(X, y, weight)
    np.testing.assert_allclose(found.coef_, due.coef_, atol=1e-9)


def test_a_far_row_that_the_sample_lacks_does_not_lead_astray(tmp_path):
    rng = np.random.default_rng(3)
    X = rng.normal(size=(60_000, 2))
    y = rng.poisson(np.exp(0.5 * X[:, 0])).astype(float)
    X[31_017, 1] = 2000.0
    path = tmp_path / "far.zarr"
    with StoreWriter(path, n_features=2, dtype="float64", chunk_rows=250) as writer:
        writer.write(X, y)
        writer.commit()
    found = PoissonRegressor(alpha=0.0, tol=1e-9).fit(path)
    due = theirs(1, alpha=0.0).fit(X, y)
    assert found.report_.passes <= 20
    np.testing.assert_allclose(found.coef_, due.coef_, rtol=1e-6, atol=1e-9)


def test_a_sample_whose_optimum_is_worse_than_the_mean_of_y_is_left_for_the_mean():
    X, y = np.linspace(-9, 9, 50)[:, None], np.arange(50.0)[:, None]
    scaling, rows_of_all = Scaling(np.zeros(1), np.ones(1)), cast("Any", None)
    problem = LinearProblem(
        Poisson(), 1, 50, 50.0, scaling, Penalty(l2=0.1), target_mean=np.array([y.mean()])
    )
    astray = np.array([[5.0, 0.0]])
    for start_loss, begins_anew in ((10.0, True), (np.inf, False)):
        state = State(astray, memory={"start_loss": start_loss})
        reduction: Any = Newton().ask(problem, rows_of_all, state).reduction
        sums, specs = reduction.zeros(), reduction.workspace(50)
        workspace = {name: np.empty(each.shape, each.dtype) for name, each in specs.items()}
        reduction.add(sums, Block(X, y, None), workspace)
        after = Newton().tell(problem, rows_of_all, state, sums)
        assert np.array_equal(after.params, problem.initial()) == begins_anew
        assert ("worse than the mean of y" in after.note) == begins_anew


# ---------------------------------------------------------------------------- outside the domain


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["arrays", "dask", "store", "weighted"])
@pytest.mark.parametrize("settings", [{}, {"solver": "lbfgs"}, {"batch_size": 64}])
@pytest.mark.parametrize(("power", "bad"), [(1, -2.0), (2, 0.0)])
def test_y_outside_of_the_domain_is_refused_with_its_row(tmp_path, power, bad, settings, kind):
    made, z = rows(1000)
    values = targets(z, power)
    values[417] = bad
    X: Any = made
    y: Any = values
    weight = None
    if kind == "dask":
        X, y = da.from_array(X, chunks=(300, 5)), da.from_array(y, chunks=300)
    if kind == "weighted":
        weight = np.ones(1000)
        weight[417] = 0.0
    if kind == "store":
        with StoreWriter(tmp_path / "y.zarr", n_features=5, chunk_rows=128) as writer:
            writer.write(X, y)
            writer.commit()
        X, y = tmp_path / "y.zarr", None
    domain = "below 0, and the poisson loss is for y of at least 0"
    if power == 2:
        domain = "not above 0, and the gamma loss is for y above 0"
    said = re.escape(f"y[417] = {bad:g} is {domain}")
    with pytest.raises(ValueError, match=said):
        ours(power, **settings).fit(X, y, weight)


@pytest.mark.slow
def test_y_outside_of_the_domain_is_refused_beyond_the_sample_and_in_evaluation(tmp_path):
    n = 60_000
    y = np.ones(n)
    y[31_017] = -1.0
    X = np.random.default_rng(0).normal(size=(n, 1))
    with StoreWriter(tmp_path / "y.zarr", n_features=1, chunk_rows=250) as writer:
        writer.write(X, y)
        writer.commit()
    said = re.escape("y[31017] = -1 is below 0")
    for settings in ({}, {"batch_size": 64, "max_iter": 1}):
        with pytest.raises(ValueError, match=said):
            ours(1, **settings).fit(tmp_path / "y.zarr")
    model = PoissonRegressor().fit(X[:1000], y[:1000])
    with pytest.raises(ValueError, match=said):
        evaluate(model, tmp_path / "y.zarr")
    with pytest.raises(ValueError, match=said):
        model.score(X, y)
    with pytest.raises(ValueError, match=re.escape("y[3, 1] = -1 is below 0")):
        PoissonRegressor().fit(X[:9], np.where(np.arange(18).reshape(9, 2) == 7, -1.0, 1.0))


# ------------------------------------------------------------------------------ updates


@pytest.mark.slow
def test_batches_learn_by_adam_which_needs_no_bound_of_the_curvature():
    X, z = rows()
    y = targets(z, 1) * 1000.0
    due = theirs(1, alpha=0.01, tol=1e-6).fit(X, y)
    found = PoissonRegressor(alpha=0.01, batch_size=50, max_iter=20, random_state=0).fit(X, y)
    assert found.report_.solver == "adam"
    assert found.score(X, y) == pytest.approx(due.score(X, y), abs=0.01)
    said = "needs a bound of the loss's curvature, and the poisson loss has none; use solver='adam'"
    with pytest.raises(ValueError, match=said):
        PoissonRegressor(batch_size=50, solver="sgd").fit(X, y)


@pytest.mark.slow
def test_partial_fit_begins_at_the_mean_of_the_first_rows():
    X, z = rows()
    y = targets(z, 1) * 1000.0
    model = PoissonRegressor(alpha=0.01, batch_size=50)
    for start in range(0, 2000, 500):
        model.partial_fit(X[start : start + 500], y[start : start + 500])
    assert model.score(X, y) > 0.5 * theirs(1, alpha=0.01, tol=1e-6).fit(X, y).score(X, y)


def test_a_warm_start_begins_at_the_coefficients():
    X, z = rows()
    y = targets(z, 1)
    model = PoissonRegressor(alpha=0.01, warm_start=True, tol=1e-9).fit(X, y)
    first = model.report_.passes
    assert model.fit(X, y).n_iter_ == 0
    assert model.report_.passes < first


# ------------------------------------------------------------------------- predictions


def test_predictions_are_means_wherever_they_are_made(tmp_path):
    X, z = rows()
    y = targets(z, 1)
    path = tmp_path / "rows.zarr"
    with StoreWriter(path, n_features=5, dtype="float64", chunk_rows=300) as writer:
        writer.write(X, y)
        writer.commit()
    model = PoissonRegressor(alpha=0.01).fit(X, y)
    due = np.exp(X @ model.coef_ + model.intercept_)
    np.testing.assert_allclose(model.predict(X), due, rtol=1e-12)
    lazy = model.predict(da.from_array(X, chunks=(300, 5)))
    np.testing.assert_array_equal(lazy.compute(), model.predict(X))
    np.testing.assert_allclose(model.predict(path), due, rtol=1e-12)
    np.testing.assert_allclose(predict(model, X, "decision")[:, 0], np.log(due), atol=1e-12)
    model.save(tmp_path / "run")
    again = load(tmp_path / "run")
    assert type(again) is PoissonRegressor
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert again.score(path) == pytest.approx(model.score(X, y), rel=1e-12)


def test_metrics_are_those_of_the_mean():
    X, z = rows()
    y = targets(z, 1)
    weight = np.random.default_rng(2).uniform(0.5, 2.0, len(y))
    model = PoissonRegressor(alpha=0.01).fit(X, y, weight)
    plain = model.to_sklearn()
    metrics, _ = evaluate(model, X, y=y, sample_weight=weight)
    mean = model.predict(X)
    assert metrics["d2"] == pytest.approx(plain.score(X, y, weight), rel=1e-12)
    assert metrics["mse"] == pytest.approx(np.average((y - mean) ** 2, weights=weight), rel=1e-12)
    assert metrics["r2"] == pytest.approx(
        sklearn.metrics.r2_score(y, mean, sample_weight=weight), rel=1e-12
    )
    deviance = sklearn.metrics.mean_poisson_deviance(y, mean, sample_weight=weight)
    assert metrics["loss"] == pytest.approx(deviance / 2, rel=1e-12)


def test_y_that_never_varies_has_no_deviance_to_explain():
    X, _ = rows(100)
    model = PoissonRegressor().fit(X, np.full(100, 3.0))
    assert model.score(X, np.full(100, 3.0)) in (0.0, 1.0)


def test_predictions_beyond_float64_are_the_largest_number():
    model = PoissonRegressor().fit(*(a[:50] for a in (rows()[0], np.arange(2000.0))))
    model.coef_ = np.full(5, 1e6)
    found = model.predict(np.ones((1, 5)))
    assert np.isfinite(found).all()
    assert found[0] > 1e308


def test_a_custom_model_may_have_such_a_loss():
    X, z = rows()
    y = targets(z, 1)
    settings = Training(tol=1e-9)
    custom, _ = train(CustomModel(loss=Poisson(), l2=0.01 * len(y)), X, settings, y=y)
    named, _ = train(PoissonModel(alpha=0.01), X, settings, y=y)
    np.testing.assert_allclose(custom.coef, named.coef, rtol=1e-9)
