"""Losses with kinks: quantiles, support vectors and the hinge, at their optima by smoothing."""

from typing import Any

import dask.array as da
import numpy as np
import pytest
import sklearn.linear_model
import sklearn.svm
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer
from sklearn.utils.estimator_checks import parametrize_with_checks

from ooc_train import (
    CustomModel,
    QuantileRegressor,
    Training,
    evaluate,
    load,
    train,
)
from ooc_train.objective.losses import LOSSES
from ooc_train.objective.losses.hinge import Hinge
from ooc_train.objective.losses.quantile import Quantile
from ooc_train.objective.ramps import SmoothedLoss
from ooc_train.solvers import smoothing
from tests.streams import PERFECTLY_FITTED, write_store

Array = NDArray[Any]
SMOOTHED = [loss for loss in LOSSES.values() if loss.smoothed is not None]


@pytest.mark.slow
@parametrize_with_checks([QuantileRegressor()])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def rows(n: int = 600) -> tuple[Array, Array]:
    """Columns of other scales and means, and y with a heavy tail on one side."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 5)) * [1, 10, 0.1, 1, 1] + [0, 3, 0, 0, 5]
    return X, X @ [0.3, 0.02, 2.0, -0.5, 0.0] + 0.5 + rng.exponential(1.0, n)


def weights(n: int) -> Array:
    return np.asarray(np.random.default_rng(2).integers(0, 3, n) * 0.7)


# --------------------------------------------------------------------------------- the losses


@pytest.mark.parametrize("loss", SMOOTHED, ids=[loss.name for loss in SMOOTHED])
def test_a_smoothed_loss_lies_above_and_comes_near(loss):
    y, z = np.array([0.0, 1.0]), np.linspace(-4.0, 4.0, 801)[:, None]
    exact = loss()
    for width in (1.0, 1e-2, 1e-6):
        smoothed = exact.smoothed(width)
        assert isinstance(smoothed, SmoothedLoss)
        excess = smoothed.value(y, z) - exact.value(y, z)
        assert (excess >= 0.0).all()
        assert excess.max() <= 0.5 * smoothed.kinks * width * (1 + 1e-9)
        assert (smoothed.gap(y, z) >= 0.0).all()
    with pytest.raises(ValueError, match="width=0 is not a finite number above 0"):
        exact.smoothed(0)


@pytest.mark.parametrize("loss", SMOOTHED, ids=[loss.name for loss in SMOOTHED])
def test_the_gap_of_a_row_is_what_a_slope_misses_the_loss_by(loss):
    # The straight lines of one slope that lie below the loss: the highest of them misses z by this.
    y, z, grid = 1.0, np.linspace(-3.0, 5.0, 81), np.linspace(-40.0, 40.0, 80_001)
    exact, smoothed = loss(), loss().smoothed(0.3)
    slopes = smoothed.slope(y, z)
    conjugate = (slopes[:, None] * grid - exact.value(y, grid)).max(axis=1)
    due = exact.value(y, z) + conjugate - slopes * z
    gap = smoothed.gap(y, z)
    assert (gap >= due - 1e-3).all()
    if smoothed.kinks == 1:
        np.testing.assert_allclose(gap, due, atol=1e-3)


def test_quantiles_of_nothing_and_of_everything_are_refused():
    for quantile in (0.0, 1.0, -0.1, np.nan):
        with pytest.raises(ValueError, match="is not a number above 0 and below 1"):
            Quantile(quantile)
    with pytest.raises(ValueError, match=r"quantile=1.* is not a number above 0 and below 1"):
        QuantileRegressor(quantile=1).fit(*rows(9))


# ------------------------------------------------------------------------------- quantiles


def quantile_objective(model: Any, X: Array, y: Array, weight: Array | None = None) -> float:
    loss = Quantile(model.quantile).value(y, X @ model.coef_ + model.intercept_)
    return float(np.average(loss, weights=weight) + model.alpha * np.abs(model.coef_).sum())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("alpha", [0.0, 0.02, 1.0])
@pytest.mark.parametrize("quantile", [0.05, 0.5, 0.9])
def test_quantiles_are_those_of_the_linear_program(quantile, alpha, fit_intercept, weighted):
    X, y = rows()
    weight = weights(len(y)) if weighted else None
    settings: Any = {"quantile": quantile, "alpha": alpha, "fit_intercept": fit_intercept}
    due = sklearn.linear_model.QuantileRegressor(**settings).fit(X, y, weight)
    least = quantile_objective(due, X, y, weight)
    for tol in (1e-4, 1e-7):
        found: Any = QuantileRegressor(tol=tol, **settings).fit(X, y, weight)
        assert found.report_.converged
        assert found.report_.solver == "smoothing"
        value = quantile_objective(found, X, y, weight)
        assert least * (1 - 1e-9) <= value <= least * (1 + tol)
        assert found.report_.dual_gap[0] >= 0.9 * (value - least)
        assert found.report_.loss == pytest.approx(
            value - alpha * np.abs(found.coef_).sum(), rel=1e-9
        )
    np.testing.assert_allclose(found.predict(X), due.predict(X), atol=1e-2 * y.std())
    if alpha:
        np.testing.assert_array_equal(found.coef_ == 0.0, due.coef_ == 0.0)
    np.testing.assert_array_equal(found.to_sklearn().predict(X), found.predict(X))


def test_several_columns_of_y_are_predicted_each_by_itself():
    X, y = rows()
    both: Any = QuantileRegressor(alpha=0.01, tol=1e-8).fit(X, np.column_stack([y, -2 * y]))
    for k, column in enumerate((y, -2 * y)):
        due = QuantileRegressor(alpha=0.01, tol=1e-8).fit(X, column)
        np.testing.assert_allclose(both.predict(X)[:, k], due.predict(X), atol=1e-3)


@pytest.mark.parametrize("scale", [1e-6, 1e9])
def test_the_unit_of_y_and_its_distance_from_zero_change_nothing_else(scale):
    X, y = rows()
    due: Any = QuantileRegressor(alpha=0.02, tol=1e-8).fit(X, y)
    found: Any = QuantileRegressor(alpha=0.02, tol=1e-8).fit(X, scale * (y + 1000.0))
    assert found.report_.converged
    np.testing.assert_allclose(found.coef_ / scale, due.coef_, atol=1e-4)
    assert found.intercept_ / scale - 1000.0 == pytest.approx(due.intercept_, abs=1e-3)


def test_the_unit_of_columns_changes_no_prediction_without_a_penalty():
    X, y = rows()
    due = QuantileRegressor(alpha=0.0, tol=1e-9).fit(X, y)
    others = np.column_stack([X * [1e9, 1e-6, 1, 1, 1], X[:, 0] + X[:, 3], np.full(len(X), 7.0)])
    found = QuantileRegressor(alpha=0.0, tol=1e-9).fit(others, y)
    assert found.report_.converged
    np.testing.assert_allclose(found.predict(others), due.predict(X), atol=1e-3)


@pytest.mark.parametrize(("X", "y"), PERFECTLY_FITTED)
def test_y_that_is_fitted_perfectly_ends_the_run(X, y):
    model: Any = QuantileRegressor(alpha=0.0).fit(X, y)
    assert model.report_.converged
    np.testing.assert_allclose(model.predict(X), y, rtol=1e-6, atol=1e-6)


def test_a_row_of_no_weight_changes_nothing():
    X, y = rows(300)
    weight = np.ones(300)
    due = QuantileRegressor(alpha=0.01, tol=1e-8).fit(X[1:], y[1:])
    y[0], weight[0] = 1e9, 0.0
    found = QuantileRegressor(alpha=0.01, tol=1e-8).fit(X, y, weight)
    np.testing.assert_allclose(found.coef_, due.coef_, atol=1e-5)


# ------------------------------------------------------------------------- support vectors


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("C", [0.01, 1.0])
def test_the_hinge_is_libsvms(C, weighted):
    X, y = load_breast_cancer(return_X_y=True)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    weight = weights(len(y)) if weighted else np.ones(len(y))
    due = sklearn.svm.SVC(kernel="linear", C=C, tol=1e-9).fit(X, y, weight)
    model, training = CustomModel(loss=Hinge(), l2=1 / C), Training(tol=1e-6)
    found, report = train(model, X, training, y=y, sample_weight=weight)
    assert report.solver == "smoothing"
    assert report.converged

    def objective(coef: Array, intercept: Array) -> float:
        losses = Hinge().value(y, X @ coef[0] + intercept[0])
        return float(weight @ losses + 0.5 / C * coef[0] @ coef[0])

    least = objective(due.coef_, due.intercept_)
    assert objective(found.coef, found.intercept) == pytest.approx(least, rel=2e-6)


def test_classes_that_a_line_separates_need_no_penalty():
    X, y = np.array([[0.0], [1.0], [3.0], [4.0]]), np.array([0, 0, 1, 1])
    found, report = train(CustomModel(loss=Hinge()), X, y=y)
    assert report.converged
    assert report.loss <= 1e-9
    assert ((X @ found.coef[0] + found.intercept[0] > 0) == y).all()


# ------------------------------------------------------------------------------- the solver


def large(tmp_path: Any) -> tuple[Any, Array, Array]:
    X, y = rows(40_000)
    return write_store(tmp_path / "large.zarr", X, y, chunk_rows=250), X, y


@pytest.mark.slow
def test_large_data_begin_with_a_sample_and_take_few_passes(tmp_path):
    store, X, y = large(tmp_path)
    found: Any = QuantileRegressor(quantile=0.8, alpha=0.0).fit(store)
    report = found.report_
    assert report.passes % 1 > 0  # those over the sample are parts of one
    assert report.converged
    assert report.passes <= 15
    best: Any = QuantileRegressor(quantile=0.8, alpha=0.0, tol=1e-7).fit(X, y)
    least = quantile_objective(best, X, y)
    assert best.report_.dual_gap[0] <= 1e-7 * least
    assert quantile_objective(found, X, y) <= least * (1 + 1e-4)
    metrics, _ = evaluate(found, store)
    assert metrics["loss"] == pytest.approx(report.loss, rel=1e-12)


def test_many_parameters_are_learned_by_lbfgs(monkeypatch):
    X, y = rows()
    due: Any = QuantileRegressor(alpha=0.0, tol=1e-7).fit(X, y)
    monkeypatch.setattr(smoothing, "is_small", lambda shape, kinks: False)  # noqa: ARG005
    found: Any = QuantileRegressor(alpha=0.0, max_iter=1000).fit(X, y)
    assert found.report_.converged
    least = quantile_objective(due, X, y)
    assert quantile_objective(found, X, y) == pytest.approx(least, rel=2e-4)


def test_a_limit_of_iterations_is_told_with_the_way_out():
    with pytest.warns(UserWarning, match="not converged: max_iter=2 reached.*raise max_iter or to"):
        QuantileRegressor(max_iter=2).fit(*rows())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dask", "store"])
def test_rows_anywhere_give_the_same_model_which_is_saved(tmp_path, kind):
    X, y = rows()
    weight = weights(len(y))
    due: Any = QuantileRegressor(alpha=0.01, tol=1e-6).fit(X, y, weight)
    model: Any = QuantileRegressor(alpha=0.01, tol=1e-6)
    if kind == "dask":
        model.fit(*(da.from_array(a, chunks=(300, *a.shape[1:])) for a in (X, y, weight)))
    else:
        model.fit(write_store(tmp_path / "rows.zarr", X, y, weight, chunk_rows=64))
    np.testing.assert_allclose(model.predict(X), due.predict(X), atol=1e-2)
    model.save(tmp_path / "run")
    again: Any = load(tmp_path / "run")
    assert (type(again), again.alpha) == (QuantileRegressor, 0.01)
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


def test_a_warm_start_needs_fewer_passes():
    X, y = rows()
    model: Any = QuantileRegressor(alpha=0.0, warm_start=True, tol=1e-6).fit(X, y)
    first = model.report_.passes
    assert model.fit(X, y).report_.passes < first
