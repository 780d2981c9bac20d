"""Support vector regression, and regression by rows one after another: scikit-learn's answers."""

from typing import Any

import dask.array as da
import numpy as np
import pytest
import sklearn.linear_model
import sklearn.svm
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.utils.estimator_checks import parametrize_with_checks

from ooc_train import (
    LinearSVR,
    SGDClassifier,
    SGDRegressor,
    SGDRegressorModel,
    load,
    open_store,
    predict,
)
from ooc_train.optimizers.schedules import Constant, InverseScaling, Plateau
from tests.streams import write_store

Array = NDArray[Any]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:sgd. not converged")
@parametrize_with_checks(
    [LinearSVR(), SGDRegressor(max_iter=20, random_state=0)],
    expected_failed_checks=lambda estimator: (
        {"check_sample_weight_equivalence_on_dense_data": "batches are drawn of other rows"}
        if isinstance(estimator, SGDRegressor)
        else {}
    ),
)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def rows(*, weighted: bool = False) -> tuple[Array, Array, Array | None]:
    """Diabetes in columns of other scales and means, and weights of which some are 0."""
    X, y = load_diabetes(return_X_y=True)
    X = X / X.std(axis=0) * np.logspace(-1, 1, X.shape[1]) + 3.0
    weight = np.random.default_rng(0).integers(0, 3, len(y)) * 0.7 if weighted else None
    return X, y, weight


# --------------------------------------------------------------------------- support vectors


def svr_objective(model: Any, X: Array, y: Array, weight: Array | None = None) -> float:
    """scikit-learn's objective, the intercept not penalised."""
    excess = np.maximum(np.abs(y - X @ model.coef_.ravel() - model.intercept_) - model.epsilon, 0.0)
    squared = getattr(model, "loss", "") == "squared_epsilon_insensitive"
    w = np.ones(len(y)) if weight is None else weight
    return float(model.C * w @ (excess**2 if squared else excess) + 0.5 * (model.coef_**2).sum())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("C", [0.1, 1.0])
@pytest.mark.parametrize("epsilon", [0.0, 20.0])
def test_the_loss_with_kinks_is_at_the_optimum_of_libsvm(epsilon, C, weighted):
    X, y, weight = rows(weighted=weighted)
    # Of a linear kernel, libsvm has the same objective, and an intercept that is not penalised.
    due = sklearn.svm.SVR(kernel="linear", epsilon=epsilon, C=C, tol=1e-6).fit(X, y, weight)
    found = LinearSVR(epsilon=epsilon, C=C, tol=1e-7).fit(X, y, weight)
    assert (found.report_.solver, found.report_.converged) == ("smoothing", True)
    assert found.report_.solver_reason == "the loss has kinks, which can be smoothed"
    least = svr_objective(due, X, y, weight)
    assert svr_objective(found, X, y, weight) == pytest.approx(least, rel=1e-6)
    assert found.report_.dual_gap is not None
    assert found.report_.dual_gap[0] <= 1e-7 * least
    np.testing.assert_allclose(found.predict(X), due.predict(X), atol=0.01 * y.std())


def least(X: Array, y: Array, epsilon: float, weight: Array) -> float:
    """The smallest objective of the squared loss with C=1, by scipy."""
    A = np.column_stack([X, np.ones(len(X))])
    penalised = np.append(np.ones(X.shape[1]), 0.0)

    def objective(w: Any) -> Any:
        residual = A @ w - y
        excess = np.sign(residual) * np.maximum(np.abs(residual) - epsilon, 0.0)
        gradient = penalised * w + 2.0 * A.T @ (weight * excess)
        return 0.5 * (penalised * w * w).sum() + weight @ excess**2, gradient

    options = {"maxiter": 20_000, "maxfun": 20_000, "ftol": 1e-16, "gtol": 1e-6}
    found = minimize(objective, np.zeros(A.shape[1]), jac=True, method="L-BFGS-B", options=options)
    return float(found.fun)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("epsilon", [0.0, 20.0])
def test_the_squared_loss_is_at_its_optimum(epsilon, weighted):
    X, y, weight = rows(weighted=weighted)
    found = LinearSVR(epsilon=epsilon, loss="squared_epsilon_insensitive", tol=1e-7)
    found.fit(X, y, weight)
    assert (found.report_.solver, found.report_.converged) == ("newton", True)
    assert found.report_.passes <= 10
    due = least(X, y, epsilon, np.ones(len(y)) if weight is None else weight)
    assert svr_objective(found, X, y, weight) == pytest.approx(due, rel=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", ["epsilon_insensitive", "squared_epsilon_insensitive"])
def test_without_an_intercept_it_is_scikit_learns(loss, weighted):
    X, y, weight = rows(weighted=weighted)
    settings: Any = {"epsilon": 5.0, "C": 0.01, "loss": loss, "fit_intercept": False}
    due = sklearn.svm.LinearSVR(**settings, tol=1e-6, max_iter=10**6, random_state=0)
    due.fit(X, y, weight)
    found = LinearSVR(**settings, tol=1e-7).fit(X, y, weight)
    least = svr_objective(due, X, y, weight)
    assert svr_objective(found, X, y, weight) == pytest.approx(least, rel=1e-6)
    np.testing.assert_allclose(found.coef_, due.coef_, atol=1e-3 * np.abs(due.coef_).max())
    assert found.coef_.shape == due.coef_.shape
    assert found.intercept_ == due.intercept_ == 0.0


def test_shapes_are_scikit_learns_and_it_predicts_the_same():
    X, y, _ = rows()
    for cls, theirs in (
        (LinearSVR, sklearn.svm.LinearSVR(max_iter=10**6)),
        (SGDRegressor, sklearn.linear_model.SGDRegressor()),
    ):
        found: Any = cls(epsilon=5.0, batch_size="full").fit(X, y)
        due = theirs.fit((X - X.mean(axis=0)) / X.std(axis=0), y)
        assert found.coef_.shape == due.coef_.shape
        assert found.intercept_.shape == due.intercept_.shape
        assert type(found.n_iter_) is int
        np.testing.assert_allclose(found.to_sklearn().predict(X), found.predict(X), rtol=1e-12)
        np.testing.assert_array_equal(cls(batch_size="full").fit(X, y[:, None]).predict(X).ndim, 1)


@pytest.mark.parametrize("estimator", [LinearSVR(tol=1e-7), SGDRegressor(batch_size="full")])
def test_several_columns_of_y_are_predicted_each_by_itself(estimator):
    X, y, _ = rows()
    both = clone(estimator).fit(X, np.column_stack([y, -2.0 * y]))
    assert (both.coef_.shape, both.intercept_.shape) == ((2, X.shape[1]), (2,))
    for k, column in enumerate((y, -2.0 * y)):
        due = clone(estimator).fit(X, column)
        np.testing.assert_allclose(both.predict(X)[:, k], due.predict(X), atol=0.01 * y.std())


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator",
    [
        LinearSVR(epsilon=5.0, tol=1e-7),
        LinearSVR(loss="squared_epsilon_insensitive", tol=1e-8),
        SGDRegressor("huber", batch_size="full", tol=1e-7),
    ],
)
def test_stores_and_dask_arrays_give_the_same_model(estimator, tmp_path):
    X, y, weight = rows(weighted=True)
    path = tmp_path / "rows.zarr"
    write_store(path, X, y, weight, chunk_rows=50)
    due = clone(estimator).fit(X, y, weight).predict(X)
    lazy = da.from_array(X, chunks=(60, X.shape[1]))
    for data in ((path,), (open_store(path),), (lazy, da.from_array(y, chunks=60), weight)):
        found = clone(estimator).fit(*data)
        np.testing.assert_allclose(found.predict(X), due, atol=1e-3 * y.std())
        np.testing.assert_array_equal(found.predict(lazy).compute(), found.predict(X))
    found = clone(estimator).fit(path)
    found.save(tmp_path / "a.run")
    again = load(tmp_path / "a.run")
    assert type(again) is type(estimator)
    assert again.get_params() == found.get_params() | {"random_state": again.random_state}
    np.testing.assert_array_equal(again.predict(X), found.predict(X))
    np.testing.assert_array_equal(predict(tmp_path / "a.run", X)[:, 0], found.predict(X))
    assert again.intercept_.shape == found.intercept_.shape


# ---------------------------------------------------------------------------------------- sgd


def sgd_objective(model: Any, X: Array, y: Array, weight: Array | None = None) -> float:
    """scikit-learn's objective."""
    loss = SGDRegressorModel(loss=model.loss, epsilon=model.epsilon).loss_for(0)
    losses = np.average(loss.value(y, X @ model.coef_ + model.intercept_), weights=weight)
    share = {"l2": 0.0, "l1": 1.0, "elasticnet": model.l1_ratio, None: 0.0}[model.penalty]
    size = 0.5 * (1 - share) * (model.coef_**2).sum() + share * np.abs(model.coef_).sum()
    return float(losses + (model.penalty is not None) * model.alpha * size)


LOSSES = ["squared_error", "huber", "epsilon_insensitive", "squared_epsilon_insensitive"]


def scaled_rows(*, weighted: bool = False) -> tuple[Array, Array, Array | None]:
    """The rows, with y in units of its spread, as losses of bounded slopes ask for."""
    X, y, weight = rows(weighted=weighted)
    return X, y / y.std(), weight


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_those_of_scikit_learn(loss):
    X, y, _ = scaled_rows()
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    settings: Any = {"loss": loss, "alpha": 0.05, "epsilon": 0.3}
    theirs = sklearn.linear_model.SGDRegressor(
        **settings, max_iter=1000, tol=None, average=20_000, random_state=0
    )
    found = SGDRegressor(**settings, batch_size="full", tol=1e-7).fit(X, y)
    ratio = sgd_objective(theirs.fit(X, y), X, y) / sgd_objective(found, X, y)
    assert 1.0 - 1e-7 <= ratio <= 1.0003


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:sgd. not converged")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("penalty", ["l2", "l1", "elasticnet", None])
@pytest.mark.parametrize("loss", LOSSES)
def test_rows_one_by_one_come_near_the_optimum(loss, penalty, weighted):
    X, y, weight = scaled_rows(weighted=weighted)
    settings: Any = {"loss": loss, "penalty": penalty, "alpha": 0.01, "epsilon": 0.3}
    best = SGDRegressor(**settings, batch_size="full", tol=1e-7).fit(X, y, weight)
    assert best.report_.converged
    found = SGDRegressor(**settings, max_iter=50, tol=0, random_state=0).fit(X, y, weight)
    assert (found.report_.batch_size, found.report_.solver) == (1, "sgd")
    ratio = sgd_objective(found, X, y, weight) / sgd_objective(best, X, y, weight)
    assert 1.0 - 1e-7 <= ratio <= 1.02


@pytest.mark.parametrize(
    ("loss", "penalty", "solver"),
    [
        ("squared_error", "l2", "gram"),
        ("squared_error", "l1", "coordinate-descent"),
        ("huber", "l2", "smoothing"),
        ("huber", "elasticnet", "smoothing"),
        ("epsilon_insensitive", None, "smoothing"),
        ("squared_epsilon_insensitive", "l2", "newton"),
    ],
)
def test_a_full_batch_is_solved(loss, penalty, solver):
    X, y, _ = scaled_rows()
    settings: Any = {"penalty": penalty, "epsilon": 0.5, "batch_size": "full"}
    found = SGDRegressor(loss, **settings).fit(X, y)
    assert (found.report_.solver, found.report_.converged) == (solver, True)


def test_partial_fit_learns_from_further_rows():
    X, y, _ = scaled_rows()
    model = SGDRegressor(random_state=0)
    for _ in range(10):
        for start in range(0, len(y), 100):
            model.partial_fit(X[start : start + 100], y[start : start + 100])
    assert model.intercept_.shape == (1,)
    assert model.score(X, y) > 0.9 * SGDRegressor(batch_size="full").fit(X, y).score(X, y)


@pytest.mark.parametrize("penalty", ["l2", "l1"])
@pytest.mark.parametrize("epsilon", [0.1, 20.0, 500.0])
def test_hubers_loss_is_solved_far_from_y_too(epsilon, penalty):
    X, y, weight = rows(weighted=True)
    assert weight is not None
    settings: Any = {"epsilon": epsilon, "penalty": penalty, "alpha": 1e-4 * epsilon}
    found = SGDRegressor("huber", **settings, batch_size="full", tol=1e-7).fit(X, y, weight)
    assert found.report_.converged
    assert found.report_.solver_reason.startswith("the loss has no curvature far from y")
    # Where an optimum is, slopes of the losses and of the penalty add up to zero.
    slopes = weight * np.clip(X @ found.coef_ + found.intercept_ - y, -epsilon, epsilon)
    size = np.sign(found.coef_) if penalty == "l1" else found.coef_
    left = X.T @ slopes / weight.sum() + settings["alpha"] * size
    if penalty == "l1":
        left[found.coef_ == 0.0] = 0.0
    assert np.abs(left / X.std(axis=0)).max() <= 1e-3 * epsilon
    assert abs(slopes.sum()) <= 1e-3 * epsilon * weight.sum()


def test_a_warm_start_begins_where_the_last_fit_ended():
    X, y, _ = scaled_rows()
    settings: Any = {"epsilon": 0.5, "batch_size": "full", "warm_start": True, "tol": 1e-6}
    model = SGDRegressor("squared_epsilon_insensitive", **settings)
    assert model.fit(X, y).n_iter_ > 2
    assert model.fit(X, y).n_iter_ <= 1


def test_an_epsilon_of_zero_leaves_nothing_of_hubers_loss():
    X, y, _ = rows()
    with pytest.raises(ValueError, match=r"epsilon=0\.0 is not a finite number above 0"):
        SGDRegressor("huber", epsilon=0).fit(X, y)
    with pytest.raises(ValueError, match="epsilon=-1 is not a number of at least 0"):
        LinearSVR(epsilon=-1).fit(X, y)
    with pytest.raises(ValueError, match="loss='hinge' is not 'epsilon_insensitive' or"):
        LinearSVR(loss="hinge").fit(X, y)


# ------------------------------------------------------------- scikit-learn's learning rates


@pytest.mark.parametrize("cls", [SGDRegressor, SGDClassifier])
@pytest.mark.parametrize(
    ("settings", "rate", "schedule"),
    [
        ({}, "auto", "auto"),
        ({"average": True}, "auto", "auto"),
        ({"average": np.bool_(True)}, "auto", "auto"),
        ({"average": 1}, "auto", "auto"),
        ({"learning_rate": 0.2}, 0.2, "auto"),
        ({"learning_rate": "constant"}, "auto", Constant()),
        ({"learning_rate": "constant", "eta0": 0.2}, 0.2, Constant()),
        ({"learning_rate": "constant", "eta0": np.float64(1e-7)}, 1e-7, Constant()),
        ({"learning_rate": "invscaling", "eta0": 0.2, "power_t": 0.7}, 0.2, InverseScaling(0.7)),
        ({"learning_rate": "invscaling", "power_t": 0.7}, "auto", InverseScaling(0.7)),
        ({"learning_rate": "invscaling:0.2,power_t=0.7"}, 0.2, InverseScaling(0.7)),
        ({"learning_rate": "adaptive", "eta0": 0.5}, 0.5, Plateau(0.2, 5.0, 1e-3, 2e-6)),
        ({"learning_rate": "adaptive", "eta0": 0.5, "tol": None}, 0.5, Constant()),
        ({"learning_rate": "adaptive", "tol": None}, "auto", Constant()),
        ({"learning_rate": "adaptive", "eta0": 1e-7}, 1e-7, Plateau(0.2, 5.0, 1e-3, 1.0)),
        (
            {"learning_rate": "adaptive", "tol": np.float64(0.5)},
            "auto",
            Plateau(0.2, 5.0, 0.5, 1e-4),
        ),
    ],
)
def test_scikit_learns_rates_are_schedules(cls, settings, rate, schedule):
    model = clone(cls(**settings))
    training = model._settings()[1]
    assert (training.learning_rate, training.schedule) == (rate, schedule)
    # The parameters are as they were given, as scikit-learn asks.
    assert {name: model.get_params()[name] for name in settings} == settings


def test_the_power_is_by_default_that_of_scikit_learns_estimator():
    for cls in (SGDRegressor, SGDClassifier):
        theirs = getattr(sklearn.linear_model, cls.__name__)().power_t
        model = cls(learning_rate="invscaling", eta0=0.1)
        assert model._settings()[1].schedule == InverseScaling(theirs)
    assert SGDClassifier().power_t != SGDRegressor().power_t


@pytest.mark.parametrize("cls", [SGDRegressor, SGDClassifier])
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"learning_rate": "optimal"}, "'optimal' is not there: it follows from alpha; the"),
        (
            {"eta0": 0.1},
            "eta0=0.1 goes with learning_rate='constant', 'invscaling' or 'adaptive', and this is ",
        ),
        (
            {"eta0": 0.1, "learning_rate": 0.2},
            "eta0=0.1 goes with .* this is learning_rate=0.2",
        ),
        ({"eta0": 0.1, "learning_rate": "cosine:0.2"}, "eta0=0.1 goes with learning_rate='const"),
        ({"eta0": 0.1, "learning_rate": "invscaling:0.2"}, "eta0=0.1 goes with .*; leave one of"),
        ({"power_t": 0.7}, "power_t=0.7 goes with learning_rate='invscaling', and this is learn"),
        ({"power_t": 0.7, "learning_rate": "constant"}, "power_t=0.7 goes with .*='constant'"),
        ({"power_t": 0.7, "learning_rate": "adaptive"}, "power_t=0.7 goes with .*='adaptive'"),
        ({"tol": -1, "learning_rate": "adaptive"}, "tol=-1 is not None or a number of at least 0"),
        ({"power_t": 0.7, "learning_rate": "constant", "eta0": 0.1}, "power_t=0.7 goes with "),
        ({"power_t": 0, "learning_rate": "invscaling"}, "power_t=0 is not a number above 0"),
        ({"eta0": 0, "learning_rate": "constant"}, "eta0=0 is not None or a number above 0"),
        ({"average": False}, "average=False: the model is an average of the parameters over all"),
        ({"average": 10}, "average=10: the model is an average of the parameters over all updat"),
        (
            {"learning_rate": "constant", "eta0": 0.1, "schedule": "cosine"},
            "learning_rate='constant:0.1' names a schedule, and so does schedule='cosine'",
        ),
    ],
)
def test_rates_that_have_no_meaning_here_are_refused(cls, settings, said):
    with pytest.raises(ValueError, match=said):
        cls(**settings).fit(np.eye(4), [0, 1, 0, 1])


@pytest.mark.filterwarnings("ignore:sgd. not converged")
def test_the_rate_that_is_given_is_that_of_the_run():
    X, y, _ = rows()
    settings: Any = {"max_iter": 3, "random_state": 0}
    due = SGDRegressor(learning_rate="invscaling:0.01,power_t=0.25", **settings).fit(X, y)
    found = SGDRegressor(learning_rate="invscaling", eta0=0.01, **settings).fit(X, y)
    np.testing.assert_array_equal(found.coef_, due.coef_)
    assert found.report_.learning_rate == 0.01
