"""The same answer as scikit-learn's, on real data and on the sets that it brings along."""

import itertools
import warnings
from typing import Any, NamedTuple

import numpy as np
import pytest
import sklearn.linear_model
import zarr
from numpy.typing import NDArray
from scipy.special import logsumexp
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ooc_train import LinearRegression, LinearSVC, LogisticRegression, Ridge, StoreWriter

Floats = NDArray[np.floating]


def close(found: Any, expected: Any, relative: float = 1e-5) -> None:
    """Hold coefficients to each other, to a share of the largest."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= relative * np.abs(expected).max()


def log_loss(model: Any, X: Floats, y: NDArray[Any], weight: Any = 1.0) -> float:
    """The objective of a logistic model at the coefficients of any estimator, C being 1."""
    z = X @ model.coef_.T + model.intercept_
    codes = np.searchsorted(model.classes_, y)
    if z.shape[1] == 1:
        z = np.column_stack([np.zeros(len(z)), z])
    losses = weight * (logsumexp(z, axis=1) - z[np.arange(len(z)), codes])
    return float(losses.sum() + 0.5 * (model.coef_**2).sum())


class Flights(NamedTuple):
    store: str
    X: Floats
    y: NDArray[Any]
    best: Any
    """scikit-learn's logistic model at the tightest tolerance."""


@pytest.fixture(scope="module")
def whole(flights: tuple[str, str]) -> tuple[Floats, NDArray[Any]]:
    group = zarr.open_group(flights[0], mode="r")
    return np.asarray(group["X"], np.float64), np.asarray(group["y"])


@pytest.fixture(scope="module")
def sample(whole: tuple[Floats, NDArray[Any]], tmp_path_factory: pytest.TempPathFactory) -> Flights:
    """A quarter of the flights, as a store of the same rows: scikit-learn takes seconds on it."""
    X, y = (values[::4] for values in whole)
    path = tmp_path_factory.mktemp("agreement") / "sample.zarr"
    with StoreWriter(
        str(path), n_features=X.shape[1], y_dtype="uint8", classes=[False, True], shuffled=0
    ) as writer:
        writer.write(X.astype(np.float32), y)
        writer.commit()
    best = sklearn.linear_model.LogisticRegression(solver="newton-cholesky", tol=1e-10)
    return Flights(str(path), X, y, best.fit(X, y))


@pytest.mark.slow
def test_logistic_on_the_flights(sample):
    found = LogisticRegression(tol=1e-10).fit(sample.store)
    best = log_loss(sample.best, sample.X, sample.y)
    assert log_loss(found, sample.X, sample.y) == pytest.approx(best, rel=1e-8)
    close(found.coef_, sample.best.coef_)
    close(found.intercept_, sample.best.intercept_)


@pytest.fixture(scope="module")
def least(flights: tuple[str, str], whole: tuple[Floats, NDArray[Any]]) -> float:
    """The least value of the logistic objective on all flights."""
    return log_loss(LogisticRegression(tol=1e-10).fit(flights[0]), *whole)


@pytest.mark.slow
@pytest.mark.parametrize("tol", [1e-4, 1e-6])
def test_logistic_takes_few_passes_on_all_flights(flights, whole, least, tol):
    found = LogisticRegression(tol=tol).fit(flights[0])
    assert found.report_.passes <= 7
    assert log_loss(found, *whole) <= (1 + 1e-6) * least


@pytest.mark.slow
def test_l1_logistic_takes_few_passes_on_all_flights(flights, whole):
    X, y = whole
    model = LogisticRegression(l1_ratio=1.0, warm_start=True).fit(flights[0])

    def objective() -> float:
        penalty = np.abs(model.coef_).sum() - 0.5 * (model.coef_**2).sum()
        return log_loss(model, X, y) + float(penalty)

    found, passes, solver = objective(), model.report_.passes, model.report_.solver
    best = model.set_params(tol=1e-10).fit(flights[0])
    assert (solver, best.report_.converged) == ("proximal-newton", True)
    assert passes <= 8
    assert found <= (1 + 1e-6) * objective()
    assert (best.coef_ == 0.0).any()


@pytest.mark.slow
def test_a_support_vector_machine_takes_few_passes_on_all_flights(flights, whole):
    X, y = whole
    side = np.where(y, 1.0, -1.0)

    def objective(model: Any) -> float:
        missing = np.maximum(1.0 - side * (X @ model.coef_[0] + model.intercept_), 0.0)
        return float(missing @ missing + 0.5 * model.coef_[0] @ model.coef_[0])

    found = LinearSVC(tol=1e-5).fit(flights[0])
    assert found.report_.solver == "newton"
    assert found.report_.passes <= 10
    assert objective(found) <= (1 + 1e-6) * objective(LinearSVC(tol=1e-10).fit(flights[0]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:sgd. not converged")  # five epochs are no proof of it
@pytest.mark.parametrize("batch_size", [1, 256, "chunk"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_updates_end_near_the_optimum_untuned(flights, whole, least, batch_size, seed):
    found = LogisticRegression(batch_size=batch_size, max_iter=5, random_state=seed)
    found.fit(flights[0])
    assert found.report_.n_iter == 5
    assert log_loss(found, *whole) <= 1.01 * least


@pytest.mark.slow
def test_ridge_on_the_flights(flights, whole):
    X, y = whole
    expected = sklearn.linear_model.Ridge(alpha=3.0, solver="cholesky").fit(X, y)
    found = Ridge(alpha=3.0, tol=1e-10).fit(flights[0])
    close(found.coef_, expected.coef_)
    close(found.intercept_, expected.intercept_)
    assert found.report_.passes == 1

    def objective(model: Any) -> float:
        residual = y - X @ model.coef_ - model.intercept_
        return float(residual @ residual + 3.0 * model.coef_ @ model.coef_)

    assert objective(found) == pytest.approx(objective(expected), rel=1e-8)


@pytest.mark.slow
def test_least_squares_on_the_flights_is_the_answer_of_least_norm(sample):
    mean = sample.X.mean(axis=0)
    found = LinearRegression().fit(sample.store)
    # One-hot columns add up to one: many answers fit alike.
    expected, _, rank, _ = np.linalg.lstsq(sample.X - mean, sample.y - sample.y.mean())
    assert rank < sample.X.shape[1]
    close(found.coef_, expected)
    assert found.intercept_ == pytest.approx(sample.y.mean() - mean @ expected, abs=1e-8)
    assert found.report_.passes == 1


CLASSES: dict[str, Any] = {
    "cancer": load_breast_cancer(return_X_y=True),
    "iris": load_iris(return_X_y=True),
    "digits": load_digits(return_X_y=True),
}
VALUES = load_diabetes(return_X_y=True)
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "strong": {"C": 0.01},
    "balanced": {"class_weight": "balanced"},
    "named weights": {"class_weight": {0: 3.0, 1: 0.5}},
    "no intercept": {"fit_intercept": False},
}


def weights(n: int) -> Floats:
    return np.random.default_rng(0).integers(0, 4, n).astype(np.float64)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "variant", "weighted"),
    [
        *itertools.product(("cancer", "iris"), VARIANTS, (False, True)),
        *itertools.product(("digits",), ("balanced",), (True,)),
    ],
)
def test_logistic_on_sets_in_memory(name, variant, weighted):
    X, y = CLASSES[name]
    X = StandardScaler().fit_transform(X)
    weight = weights(len(y)) if weighted else None
    expected = sklearn.linear_model.LogisticRegression(
        **VARIANTS[variant], solver="newton-cholesky", tol=1e-10
    ).fit(X, y, weight)
    found = LogisticRegression(**VARIANTS[variant], tol=1e-10, max_iter=5000).fit(X, y, weight)
    close(found.coef_, expected.coef_)
    np.testing.assert_allclose(found.intercept_, expected.intercept_, atol=1e-6)
    np.testing.assert_allclose(found.predict_proba(X), expected.predict_proba(X), atol=1e-6)
    np.testing.assert_array_equal(found.predict(X), expected.predict(X))
    assert found.score(X, y, weight) == expected.score(X, y, weight)


@pytest.mark.parametrize("name", ["cancer", "iris"])
def test_logistic_in_raw_units(name):
    X, y = CLASSES[name]
    expected = sklearn.linear_model.LogisticRegression(
        solver="newton-cholesky", tol=1e-10, max_iter=1000
    ).fit(X, y)
    found = LogisticRegression(tol=1e-10, max_iter=5000).fit(X, y)
    assert log_loss(found, X, y) <= log_loss(expected, X, y) * (1 + 1e-8)
    close(found.predict_proba(X), expected.predict_proba(X))


@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
@pytest.mark.parametrize("name", ["cancer", "iris"])
def test_standardize_is_a_standard_scaler_put_first(name, solver):
    X, y = CLASSES[name]
    plain = sklearn.linear_model.LogisticRegression(solver="newton-cholesky", tol=1e-10)
    expected = make_pipeline(StandardScaler(), plain).fit(X, y)
    found = LogisticRegression(standardize=True, tol=1e-8, solver=solver, max_iter=2000).fit(X, y)
    close(found.predict_proba(X), expected.predict_proba(X))


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("solver", ["gram", "lbfgs"])
def test_ridge_on_diabetes(alpha, fit_intercept, weighted, outputs, solver):
    X, y = VALUES
    if outputs == 2:
        y = np.column_stack([y, X[:, 2] ** 2 + y])
    weight = weights(len(X)) if weighted else None
    expected = sklearn.linear_model.Ridge(alpha, fit_intercept=fit_intercept, tol=1e-12)
    expected.fit(X, y, weight)
    found = Ridge(alpha, fit_intercept=fit_intercept, solver=solver, tol=1e-10, max_iter=1000)
    found.fit(X, y, weight)
    close(found.coef_, expected.coef_)
    np.testing.assert_allclose(found.intercept_, expected.intercept_, rtol=1e-6, atol=1e-6)
    assert np.shape(found.intercept_) == np.shape(expected.intercept_)
    assert found.predict(X).shape == expected.predict(X).shape
    assert found.score(X, y, weight) == pytest.approx(expected.score(X, y, weight), rel=1e-6)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
def test_least_squares_on_diabetes(fit_intercept, weighted):
    X, y = VALUES
    weight = weights(len(X)) if weighted else None
    expected = sklearn.linear_model.LinearRegression(fit_intercept=fit_intercept).fit(X, y, weight)
    found = LinearRegression(fit_intercept=fit_intercept).fit(X, y, weight)
    close(found.coef_, expected.coef_)
    np.testing.assert_allclose(found.intercept_, expected.intercept_, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
def test_standardized_ridge_is_a_standard_scaler_put_first(weighted):
    X, y = VALUES
    X = X * np.logspace(-2, 2, X.shape[1]) + 5.0
    weight = weights(len(X)) if weighted else None
    expected = make_pipeline(StandardScaler(), sklearn.linear_model.Ridge(10.0))
    expected.fit(X, y, standardscaler__sample_weight=weight, ridge__sample_weight=weight)
    found = Ridge(10.0, standardize=True).fit(X, y, weight)
    close(found.predict(X), expected.predict(X))


@pytest.mark.slow
def test_a_store_and_its_rows_in_memory_agree(sample):
    from_store = LogisticRegression(tol=1e-8).fit(sample.store)
    from_memory = LogisticRegression(tol=1e-8).fit(sample.X, sample.y.astype(bool))
    close(from_store.coef_, from_memory.coef_)
    np.testing.assert_array_equal(from_store.classes_, from_memory.classes_)


SETS: list[dict[str, Any]] = [
    {"heavy": heavy, "classes": classes} | settings
    for heavy, settings in list[tuple[str, dict[str, Any]]](
        [
            ("lognormal", {}),
            ("cauchy", {}),
            ("lognormal", {"rare": 3}),
            ("cauchy", {"rare": 3, "weighted": True}),
            ("lognormal", {"weighted": True}),
            ("lognormal", {"scale": 1e-6}),
            ("cauchy", {"scale": 1e9}),
            ("outlier", {}),
            ("cauchy", {"separable": True}),
            ("outlier", {"rare": 3, "separable": True, "weighted": True}),
        ]
    )
    for classes in (2, 5)
]


def heavy_tailed(heavy, classes, *, rare=0, scale=1.0, separable=False, weighted=False):
    """Full one-hot columns, some of rare levels, beside columns of which one has outliers."""
    rng, n = np.random.default_rng(0), 1500
    codes = [rng.integers(0, levels, n) for levels in (5, 7)]
    for level in range(rare):
        codes[0][rng.choice(n, 3, replace=False)] = 5 + level
    tail = {
        "lognormal": np.exp(3 * rng.normal(size=n)),
        "cauchy": rng.standard_cauchy(n),
        "outlier": np.where(np.arange(n) == 7, 1e6, rng.normal(size=n)),
    }[heavy]
    X = np.column_stack([np.eye(codes[0].max() + 1)[codes[0]], np.eye(7)[codes[1]]])
    X = np.column_stack([X, scale * tail, scale * rng.normal(size=(n, 2))])
    z = (X / X.std(axis=0)) @ rng.normal(size=(X.shape[1], classes))
    y = (z if separable else z + rng.gumbel(size=z.shape)).argmax(axis=1)
    return X, y, rng.uniform(0.0, 3.0, n) if weighted else None


@pytest.mark.slow
@pytest.mark.parametrize("settings", SETS, ids=str)
def test_newton_takes_at_most_twice_the_iterations_of_scikit_learns(settings):
    X, y, weight = heavy_tailed(**settings)
    with warnings.catch_warnings():
        # Of the largest columns theirs can't factorise the Hessian, and says so.
        warnings.simplefilter("ignore")
        due = sklearn.linear_model.LogisticRegression(solver="newton-cholesky", C=10, tol=1e-8)
        due.fit(X, y, weight)
    found = LogisticRegression(C=10, solver="newton", tol=1e-8).fit(X, y, weight)
    assert found.report_.converged
    assert found.n_iter_[0] <= 2 * due.n_iter_.max()

    def objective(model):
        penalty = (model.coef_**2).sum()
        return log_loss(model, X, y, 1.0 if weight is None else weight) - 0.45 * penalty

    assert objective(found) <= objective(due) * (1 + 1e-4)
