"""`positive=True`: non-negative least squares, with and without penalties."""

from typing import Any

import dask.array
import numpy as np
import pytest
import scipy.optimize
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes
from sklearn.exceptions import ConvergenceWarning

from ooc_train import ElasticNet, Lasso, LinearRegression, Ridge, load
from tests.streams import write_store

Floats = NDArray[np.float64]


def made(rows: int = 300, columns: int = 8, outputs: int = 1) -> tuple[Floats, Floats]:
    """Rows whose coefficients would be negative for half of the columns."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, columns)) @ (np.eye(columns) + 0.5) + 2.0
    coef = rng.normal(size=(columns, outputs)) * np.resize([1.0, -1.0], columns)[:, None]
    y = X @ coef + rng.normal(size=(rows, outputs)) + 3.0
    return X, y[:, 0] if outputs == 1 else y


def assert_optimal(model: Any, X: Floats, y: Floats, weight: Floats, l1: float, l2: float) -> None:
    """The conditions of Karush, Kuhn and Tucker, by columns of norm 1 (they suffice)."""
    coef = np.atleast_2d(model.coef_)
    residual = np.reshape(y - model.predict(X), (len(X), -1))
    total = weight.sum()
    mean = np.average(X, axis=0, weights=weight) if model.fit_intercept else 0.0
    slopes = ((X - mean) * weight[:, None]).T @ residual / total - l1 - l2 * coef.T
    norms = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=weight))[:, None]
    left = slopes / np.where(norms > 0.0, norms, 1.0) / np.std(y)
    assert (coef >= 0.0).all()
    assert (left <= 1e-7).all()
    assert (np.abs(left[coef.T > 0.0]) <= 1e-7).all()


MODELS: dict[str, tuple[Any, float, float]] = {
    "linear": (LinearRegression(positive=True, tol=1e-12), 0.0, 0.0),
    "no intercept": (LinearRegression(positive=True, tol=1e-12, fit_intercept=False), 0.0, 0.0),
    "lasso": (Lasso(0.2, positive=True, tol=1e-14), 0.2, 0.0),
    "elastic net": (ElasticNet(0.4, l1_ratio=0.5, positive=True, tol=1e-14), 0.2, 0.2),
    "l2 alone": (ElasticNet(0.4, l1_ratio=0.0, positive=True, tol=1e-13), 0.0, 0.4),
}


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_the_optimum_is_scikit_learns_and_no_weight_is_negative(name, weighted, outputs):
    model, l1, l2 = MODELS[name]
    X, y = made(outputs=outputs)
    weight = np.arange(len(X)) % 4 / 2.0 if weighted else np.ones(len(X))
    model.fit(X, y, sample_weight=weight)
    assert model.report_.solver == "coordinate-descent"
    assert model.report_.passes == 3  # two of them scale the columns of arrays
    assert model.report_.converged
    assert_optimal(model, X, y, weight, l1, l2)
    assert 0 < np.count_nonzero(model.coef_) < model.coef_.size
    plain = model.to_sklearn()
    np.testing.assert_allclose(plain.predict(X), model.predict(X), rtol=1e-12)
    if outputs == 1 and l1 + l2 > 0:
        plain.set_params(tol=1e-14, max_iter=50_000)
    if (outputs == 1 or l1 + l2 == 0) and name != "l2 alone":
        due = plain.fit(X, y, sample_weight=weight)
        np.testing.assert_allclose(model.coef_, due.coef_, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(model.intercept_, due.intercept_, rtol=1e-6, atol=1e-7)


def test_ridge_is_least_squares_of_further_rows():
    X, y = made()
    X, y = X - X.mean(axis=0), y - y.mean()
    due, _ = scipy.optimize.nnls(np.vstack([X, 2.0 * np.eye(8)]), np.append(y, np.zeros(8)))
    found = Ridge(4.0, positive=True, tol=1e-13).fit(X, y)
    np.testing.assert_allclose(found.coef_, due, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-6, 1e9])
def test_scales_constant_and_dependent_columns(scale):
    X, y = made()
    X = scale * np.column_stack([X, X[:, 0] + X[:, 1], np.full(len(X), 3.0)])
    found = LinearRegression(positive=True, tol=1e-12).fit(X, y)
    assert found.report_.converged
    assert found.coef_[-1] == 0.0
    best = scipy.optimize.nnls(X - X.mean(axis=0), y - y.mean())[1]
    residual = y - found.predict(X)
    assert np.linalg.norm(residual) == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_where_no_weight_may_be_positive_all_are_zero(fit_intercept):
    X = np.abs(made()[0])
    y = -X.sum(axis=1)
    found = LinearRegression(positive=True, fit_intercept=fit_intercept).fit(X, y)
    assert found.report_.converged
    assert not found.coef_.any()
    assert found.intercept_ == pytest.approx(y.mean() if fit_intercept else 0.0)


@pytest.mark.parametrize("level", [0.0, 0.1, 1e9])
def test_a_y_that_never_varies(level):
    found = LinearRegression(positive=True).fit(made()[0], np.full(300, level))
    assert found.report_.converged
    np.testing.assert_allclose(found.predict(made()[0]), level, rtol=1e-12)


def test_a_limit_of_sweeps_is_told():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 80)) + rng.normal(size=(200, 1))
    y = X @ np.where(np.arange(80) % 2, 1.0, -1.0) + rng.normal(size=200)
    with pytest.warns(ConvergenceWarning, match=r"max_iter=1 reached, the cosine of .* is 0\.\d+"):
        LinearRegression(positive=True, max_iter=1, tol=1e-12).fit(X, y)


def test_one_row_and_one_column():
    assert LinearRegression(positive=True).fit([[2.0]], [3.0]).predict([[2.0]]) == [3.0]
    found = LinearRegression(positive=True, fit_intercept=False).fit([[1.0], [2.0]], [2.0, 4.0])
    np.testing.assert_allclose(found.coef_, [2.0])


def test_stores_dask_arrays_and_a_folder_and_back(tmp_path):
    X, y = load_diabetes(return_X_y=True)
    model = Lasso(0.1, positive=True, tol=1e-13).fit(X, y)
    write_store(tmp_path / "rows.zarr", X, y)
    by_store = Lasso(0.1, positive=True, tol=1e-13).fit(tmp_path / "rows.zarr")
    lazy = dask.array.from_array(X, chunks=(100, -1))
    by_dask = Lasso(0.1, positive=True, tol=1e-13).fit(lazy, dask.array.from_array(y, chunks=100))
    np.testing.assert_allclose(by_store.coef_, model.coef_, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(by_dask.coef_, model.coef_, rtol=1e-9, atol=1e-9)
    model.save(tmp_path / "run")
    again = load(tmp_path / "run")
    assert again.get_params()["positive"] is True
    np.testing.assert_array_equal(again.coef_, model.coef_)


@pytest.mark.parametrize(
    "settings", [{"solver": "gram"}, {"solver": "lbfgs"}, {"solver": "sgd"}, {"batch_size": 16}]
)
def test_solvers_that_would_ignore_it_are_refused(settings):
    X, y = made()
    left_out = "leave out batch_size=16, and " if "batch_size" in settings else ""
    with pytest.raises(ValueError, match=rf"needs .*; {left_out}use 'coordinate-descent'$"):
        LinearRegression(positive=True, **settings).fit(X, y)
    with pytest.raises(ValueError, match=r"needs .*; use 'coordinate-descent'$"):
        LinearRegression(positive=True).partial_fit(X, y)
