"""Huber regression with a fitted scale: scikit-learn's objective, at its optimum, in few passes."""

from typing import Any

import dask.array as da
import numpy as np
import pytest
import sklearn.linear_model
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes
from sklearn.linear_model._huber import _huber_loss_and_gradient
from sklearn.utils.estimator_checks import parametrize_with_checks

from ooc_train import HuberModel, HuberRegressor, Training, evaluate, load, train
from ooc_train.kernels import calling
from ooc_train.kernels.api import add_rows_needs
from ooc_train.objective.losses.scaled_huber import FittedHuber, ScaledHuber
from ooc_train.stream.inputs import read_inputs
from tests.streams import PERFECTLY_FITTED, write_store

Array = NDArray[Any]


@pytest.mark.slow
@parametrize_with_checks([HuberRegressor()])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def rows(n: int = 1000, *, outliers: float = 0.1) -> tuple[Array, Array]:
    """Columns of other scales and means; y with outliers on one side, which move the intercept."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 5)) * [1, 10, 0.1, 1, 1] + [0, 3, 0, 0, 5]
    y = X @ [0.3, 0.02, 2.0, -0.5, 0.1] + 0.5 + 0.3 * rng.normal(size=n)
    far = rng.random(n) < outliers
    return X, y + far * rng.exponential(30.0, n)


def weights(n: int) -> Array:
    return np.asarray(np.random.default_rng(2).integers(0, 3, n) * 0.7)


def objective(model: Any, X: Array, y: Array, weight: Array | None = None) -> tuple[float, Array]:
    """scikit-learn's objective at the attributes of a model, and its gradient."""
    intercept = [model.intercept_] if model.fit_intercept else []
    w = np.concatenate([model.coef_, intercept, [model.scale_]])
    weight = np.ones(len(y)) if weight is None else weight
    found = _huber_loss_and_gradient(w, X, y, model.epsilon, model.alpha, weight)
    return float(found[0]), np.asarray(found[1])


@pytest.mark.parametrize("outliers", [0.0, 0.1, 0.35])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"epsilon": 1.05},
        {"epsilon": 3.0, "alpha": 100.0},
        {"fit_intercept": False, "alpha": 0.0},
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_optimum_is_scikit_learns(settings, outliers, weighted):
    X, y = rows(outliers=outliers)
    weight = weights(len(y)) if weighted else None
    due = sklearn.linear_model.HuberRegressor(tol=1e-7, max_iter=100_000, **settings)
    due.fit(X, y, weight)
    found: Any = HuberRegressor(tol=1e-9, **settings).fit(X, y, weight)
    assert found.report_.converged
    assert found.report_.solver == "newton"
    assert found.report_.passes <= 15
    value, gradient = objective(found, X, y, weight)
    assert value == pytest.approx(objective(due, X, y, weight)[0], rel=1e-6)
    scales = np.concatenate([np.sqrt((X**2).mean(axis=0)), np.ones(len(gradient) - 5)])
    assert np.abs(gradient / scales).max() <= 1e-7 * len(y)
    np.testing.assert_allclose(found.predict(X), due.predict(X), atol=2e-3)
    assert found.scale_ == pytest.approx(due.scale_, rel=1e-3)
    assert (found.outliers_ != due.outliers_).mean() <= 0.005
    np.testing.assert_array_equal(found.to_sklearn().predict(X), found.predict(X))


@pytest.mark.slow
def test_the_default_tolerance_is_within_a_millionth_of_the_optimum():
    X, y = load_diabetes(return_X_y=True)
    found = HuberRegressor().fit(X, y)
    best = HuberRegressor(tol=1e-10).fit(X, y)
    assert found.report_.passes <= 10
    assert objective(found, X, y)[0] == pytest.approx(objective(best, X, y)[0], rel=1e-6)
    due = sklearn.linear_model.HuberRegressor(max_iter=100_000, tol=1e-8).fit(X, y)
    assert objective(best, X, y)[0] <= objective(due, X, y)[0] * (1 + 1e-9)


@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
@pytest.mark.parametrize("scale", [1e-6, 1e9])
def test_the_unit_of_y_is_that_of_coefficients_and_scale(scale, solver):
    X, y = rows()
    due: Any = HuberRegressor(alpha=0.0, tol=1e-10).fit(X, y)
    model = HuberRegressor(alpha=0.0, tol=1e-6, solver=solver, max_iter=500)
    found: Any = model.fit(X, scale * (y + 3))
    assert found.report_.converged
    np.testing.assert_allclose(found.coef_ / scale, due.coef_, rtol=1e-3, atol=1e-4)
    assert found.intercept_ / scale == pytest.approx(due.intercept_ + 3, abs=1e-4)
    assert found.scale_ / scale == pytest.approx(due.scale_, rel=1e-4)


def test_units_of_columns_and_columns_that_depend_on_one_another_change_no_prediction():
    X, y = rows()
    due = HuberRegressor(alpha=0.0, tol=1e-9).fit(X, y)
    others = np.column_stack([X * [1e9, 1e-6, 1, 1, 1], X[:, 0] + X[:, 3], np.full(len(X), 7.0)])
    found = HuberRegressor(alpha=0.0, tol=1e-9).fit(others, y)
    assert found.report_.converged
    np.testing.assert_allclose(found.predict(others), due.predict(X), atol=1e-6)


@pytest.mark.parametrize(("X", "y"), PERFECTLY_FITTED)
def test_y_that_is_fitted_perfectly_has_next_to_no_scale(X, y):
    found: Any = HuberRegressor(alpha=0.0).fit(X, y)
    assert found.report_.converged
    assert 0.0 < found.scale_ <= 1e-6 * max(1.0, np.abs(y).max())
    np.testing.assert_allclose(found.predict(X), y, rtol=1e-9, atol=1e-9)


def test_most_rows_on_a_line_are_found_whatever_the_others_are():
    X = np.arange(100.0)[:, None]
    y = 2.0 * X[:, 0] + 1.0
    y[::7] += 1000.0
    found: Any = HuberRegressor(alpha=0.0).fit(X, y)
    np.testing.assert_allclose(found.predict(X[1:7]), y[1:7], rtol=1e-6)
    assert found.outliers_.tolist() == [i % 7 == 0 for i in range(100)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dask", "store"])
def test_rows_anywhere_give_the_same_model_which_is_saved_with_its_scale(tmp_path, kind):
    X, y = rows()
    weight = weights(len(y))
    due: Any = HuberRegressor(tol=1e-9).fit(X, y, weight)
    model: Any = HuberRegressor(tol=1e-9)
    if kind == "dask":
        model.fit(*(da.from_array(a, chunks=(300, *a.shape[1:])) for a in (X, y, weight)))
    else:
        model.fit(write_store(tmp_path / "rows.zarr", X, y, weight, chunk_rows=64))
    np.testing.assert_allclose(model.coef_, due.coef_, rtol=1e-6, atol=1e-9)
    assert model.scale_ == pytest.approx(due.scale_, rel=1e-8)
    assert not hasattr(model, "outliers_")
    model.save(tmp_path / "run")
    again: Any = load(tmp_path / "run")
    assert (type(again), again.scale_) == (HuberRegressor, model.scale_)
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    metrics, _ = evaluate(again, X, y=y, sample_weight=weight)
    assert metrics["loss"] == pytest.approx(model.report_.loss, rel=1e-9)


def test_a_warm_start_begins_at_coefficients_and_scale():
    X, y = rows()
    model: Any = HuberRegressor(warm_start=True, tol=1e-7).fit(X, y)
    assert model.fit(X, y).n_iter_ == 0


def test_a_row_of_no_weight_changes_nothing():
    X, y = rows(300)
    weight = np.ones(300)
    due = HuberRegressor(tol=1e-10).fit(X[1:], y[1:])
    y[0], weight[0] = 1e9, 0.0
    found = HuberRegressor(tol=1e-10).fit(X, y, weight)
    np.testing.assert_allclose(found.coef_, due.coef_, rtol=1e-6, atol=1e-9)


def test_what_has_no_meaning_for_one_scale_is_refused():
    X, y = rows(100)
    said = "a huber model has one scale, and y has 2 columns; fit one model for each column"
    with pytest.raises(ValueError, match=said):
        train(HuberModel(), X, y=np.column_stack([y, y]))
    with pytest.raises(ValueError, match=r"needs learning by batches.*use 'newton' or"):
        HuberRegressor(batch_size=10).fit(X, y)
    assert not hasattr(HuberRegressor(), "partial_fit")


# ---------------------------------------------------------------------------------- the loss


def test_slopes_and_curvatures_are_finite_differences():
    rng, loss, h = np.random.default_rng(0), ScaledHuber(1.35), 1e-6
    y = rng.normal(size=(200, 1))
    z = np.column_stack([rng.normal(size=200), rng.uniform(0.1, 2.0, 200)])
    near = np.abs(np.abs(z[:, 0] - y[:, 0]) / z[:, 1] - 1.35) < 1e-4
    y[near] += 0.01
    found = np.zeros((200, 2, 2))
    pairs = loss.output_pairs(2)
    for (a, b), curvature in zip(pairs, loss.curvatures(y, z), strict=True):
        found[:, a, b] = found[:, b, a] = curvature
    for k in range(2):
        step = h * (np.arange(2) == k)
        rise = (loss.value(y, z + step) - loss.value(y, z - step)) / (2 * h)
        np.testing.assert_allclose(loss.slope(y, z)[:, k], rise, atol=1e-6)
        bend = (loss.slope(y, z + step) - loss.slope(y, z - step)) / (2 * h)
        np.testing.assert_allclose(found[:, k], bend, rtol=1e-5, atol=1e-5)
    assert np.linalg.eigvalsh(found).min() >= -1e-9
    mirrored = z * [1.0, -1.0]
    np.testing.assert_array_equal(loss.value(y, mirrored), loss.value(y, z))
    np.testing.assert_array_equal(loss.slope(y, mirrored), loss.slope(y, z) * [1.0, -1.0])
    known = FittedHuber(1.35, 0.7)
    z[:, 1] = 0.7
    np.testing.assert_array_equal(known.value(y, z[:, :1])[:, 0], loss.value(y, z))
    np.testing.assert_array_equal(known.slope(y, z[:, :1]), loss.slope(y, z)[:, :1])


@pytest.mark.slow
def test_it_is_compiled_and_adds_up_as_numpy_does():
    note = calling.load(np.dtype(np.float64), add_rows_needs(ScaledHuber()))
    assert "plain" not in note


def test_validation_rows_are_evaluated_with_the_scale():
    X, y = rows()
    _, report = train(
        HuberModel(), X, Training(tol=1e-9), y=y, validation=read_inputs(X, y, classifier=False)
    )
    assert report.validation_loss == pytest.approx(report.loss, rel=1e-9)
