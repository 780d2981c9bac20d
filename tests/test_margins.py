"""Classifiers by margins: the answers of scikit-learn and of scipy, in few passes."""

from typing import Any

import dask.array as da
import numpy as np
import pytest
import sklearn.linear_model
import sklearn.svm
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.utils.estimator_checks import parametrize_with_checks

from ooc_train import LinearSVC, RidgeClassifier, SGDClassifier, load, predict
from ooc_train.models.classification_models import SGDClassifierModel
from tests.streams import write_store

Array = NDArray[Any]
SETS = {"iris": load_iris, "cancer": load_breast_cancer, "digits": load_digits}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:sgd. not converged")
@parametrize_with_checks(
    [LinearSVC(), RidgeClassifier(), SGDClassifier(max_iter=20, random_state=0)],
    expected_failed_checks=lambda estimator: (
        {"check_sample_weight_equivalence_on_dense_data": "batches are drawn of other rows"}
        if isinstance(estimator, SGDClassifier)
        else {}
    ),
)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def rows(name: str, *, weighted: bool = False) -> tuple[Array, Array, Array | None]:
    """Standardised columns of a set of scikit-learn's, labels, and weights of which some are 0."""
    X, y = SETS[name](return_X_y=True)
    X = (X - X.mean(axis=0)) / np.maximum(X.std(axis=0), 1e-9)
    weight = np.random.default_rng(0).integers(0, 3, len(y)) * 0.7 if weighted else None
    return X, y, weight


def labels_of_outputs(y: Array) -> Array:
    """The class of each output."""
    classes = np.unique(y)
    return classes[1:] if len(classes) == 2 else classes


def svm_objective(model: Any, X: Array, y: Array, weight: Array | None = None) -> Array:
    """The objective of each output, (outputs,)."""
    sides = np.where(y[:, None] == labels_of_outputs(y), 1.0, -1.0)
    missing = np.maximum(1.0 - sides * (X @ model.coef_.T + model.intercept_), 0.0)
    losses = missing**2 if model.loss == "squared_hinge" else missing
    w = np.ones(len(y)) if weight is None else weight
    return np.asarray(model.C * w @ losses + 0.5 * (model.coef_**2).sum(axis=1))


def least(X: Array, side: Array, C: float, weight: Array, *, fit_intercept: bool) -> float:
    """The smallest objective of the squared hinge against one class, by scipy."""
    A = np.column_stack([X, np.full(len(X), float(fit_intercept))])
    penalised = np.append(np.ones(X.shape[1]), 0.0)

    def objective(w: Any) -> Any:
        missing = np.maximum(1.0 - side * (A @ w), 0.0)
        gradient = penalised * w - 2.0 * C * A.T @ (weight * side * missing)
        return 0.5 * (penalised * w * w).sum() + C * weight @ missing**2, gradient

    options = {"maxiter": 20_000, "maxfun": 20_000, "ftol": 1e-16, "gtol": 1e-9}
    found = minimize(objective, np.zeros(A.shape[1]), jac=True, method="L-BFGS-B", options=options)
    return float(found.fun)


@pytest.mark.slow
@pytest.mark.parametrize(("weighted", "fit_intercept"), [(False, True), (True, False)])
@pytest.mark.parametrize(("name", "C"), [("iris", 1.0), ("cancer", 0.01), ("digits", 0.01)])
def test_the_squared_hinge_is_at_its_optimum_for_every_class(name, C, fit_intercept, weighted):
    X, y, weight = rows(name, weighted=weighted)
    model = LinearSVC(C=C, fit_intercept=fit_intercept, tol=1e-9).fit(X, y, weight)
    assert model.report_.solver == "newton"
    assert model.report_.converged
    w = np.ones(len(y)) if weight is None else weight
    for found, label in zip(svm_objective(model, X, y, weight), labels_of_outputs(y), strict=True):
        side = np.where(y == label, 1.0, -1.0)
        assert found == pytest.approx(least(X, side, C, w, fit_intercept=fit_intercept), rel=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(("solver", "tol"), [("newton", 1e-10), ("lbfgs", 1e-9)])
@pytest.mark.parametrize("name", ["iris", "cancer"])
@pytest.mark.parametrize("settings", [{"fit_intercept": False}, {"intercept_scaling": 1e4}])
def test_coefficients_are_scikit_learns_where_its_intercept_is_not_penalised(
    name, settings, solver, tol
):
    X, y, weight = rows(name, weighted=True)
    theirs = sklearn.svm.LinearSVC(C=0.1, dual=False, tol=1e-12, max_iter=10**6, **settings)
    due = theirs.fit(X, y, weight)
    settings = {key: value for key, value in settings.items() if key == "fit_intercept"}
    found = LinearSVC(C=0.1, solver=solver, tol=tol, **settings).fit(X, y, weight)
    np.testing.assert_allclose(found.coef_, due.coef_, atol=1e-5 * np.abs(due.coef_).max())
    np.testing.assert_allclose(found.intercept_, due.intercept_, atol=1e-5)
    assert np.shape(found.intercept_) == np.shape(due.intercept_)
    np.testing.assert_array_equal(found.predict(X), due.predict(X))
    np.testing.assert_allclose(found.decision_function(X), due.decision_function(X), atol=1e-4)
    np.testing.assert_array_equal(found.to_sklearn().predict(X), found.predict(X))
    assert found.score(X, y) == due.score(X, y)


@pytest.mark.parametrize("class_weight", ["balanced", {0: 3.0, 1: 0.2}])
@pytest.mark.parametrize("name", ["cancer", "iris"])
def test_class_weights_are_scikit_learns(name, class_weight):
    X, y, weight = rows(name, weighted=True)
    settings: Any = {"C": 0.1, "class_weight": class_weight, "fit_intercept": False}
    due = sklearn.svm.LinearSVC(dual=False, tol=1e-12, **settings).fit(X, y, weight)
    found = LinearSVC(tol=1e-10, **settings).fit(X, y, weight)
    np.testing.assert_allclose(found.coef_, due.coef_, atol=1e-5 * np.abs(due.coef_).max())


def test_class_weights_are_scikit_learns_by_updates_too():
    X, y, weight = rows("iris", weighted=True)
    settings: Any = {"C": 0.1, "class_weight": "balanced", "fit_intercept": False}
    due = sklearn.svm.LinearSVC(dual=False, tol=1e-12, **settings).fit(X, y, weight)
    found = LinearSVC(batch_size=4, max_iter=100, tol=0, random_state=0, **settings)
    coef = found.fit(X, y, weight).coef_
    np.testing.assert_allclose(coef, due.coef_, atol=0.05 * np.abs(due.coef_).max())


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e9])
def test_scales_and_dependent_columns_do_not_stop_newton(scale):
    X, y, _ = rows("cancer")
    X = np.column_stack([scale * X[:, :4], X[:, 4:], X[:, 5] + 1e-7 * X[:, 6], np.ones(len(X))])
    model = LinearSVC(tol=1e-9).fit(X, y)
    assert model.report_.converged
    assert model.report_.passes <= 20


def test_one_column_one_row_of_each_class_and_columns_that_never_vary():
    X, y = np.array([[0.0], [2.0]]), np.array(["no", "yes"])
    model = LinearSVC(C=1e6).fit(X, y)
    assert model.predict(X).tolist() == ["no", "yes"]
    np.testing.assert_allclose(model.coef_, [[1.0]], rtol=1e-4)
    flat = LinearSVC().fit(np.ones((3, 2)), [0, 0, 1])
    assert flat.predict(np.ones((1, 2))) == [0]
    assert RidgeClassifier().fit(np.ones((3, 2)), [0, 0, 1]).coef_.tolist() == [0.0, 0.0]


@pytest.mark.slow
@pytest.mark.parametrize(("penalty", "loss"), [("l2", "hinge"), ("l1", "squared_hinge")])
def test_hinges_and_l1_learn_by_updates(penalty, loss):
    X, y, _ = rows("cancer")
    settings: Any = {"penalty": penalty, "loss": loss, "C": 0.01, "fit_intercept": False}
    theirs = sklearn.svm.LinearSVC(dual=loss == "hinge", tol=1e-8, max_iter=10**5, **settings)
    due = theirs.fit(X, y)
    model = LinearSVC(batch_size=8, max_iter=50, tol=0, random_state=0, **settings).fit(X, y)
    assert model.score(X, y) == pytest.approx(due.score(X, y), abs=0.01)
    if penalty == "l2":
        assert svm_objective(model, X, y) <= 1.02 * svm_objective(due, X, y)


# ------------------------------------------------------------------------------------ ridge


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("class_weight", [None, {0: 3.0, 1: 0.2}])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", SETS)
def test_ridge_is_scikit_learns(name, weighted, class_weight, fit_intercept):
    X, y, weight = rows(name, weighted=weighted)
    settings: Any = {"class_weight": class_weight, "fit_intercept": fit_intercept}
    due = sklearn.linear_model.RidgeClassifier(2.0, solver="svd", **settings).fit(X, y, weight)
    found = RidgeClassifier(2.0, **settings).fit(X, y, weight)
    assert found.report_.solver == "gram"
    np.testing.assert_allclose(found.coef_, due.coef_, atol=1e-8 * np.abs(due.coef_).max())
    np.testing.assert_allclose(found.intercept_, due.intercept_, atol=1e-8)
    assert np.shape(found.intercept_) == np.shape(due.intercept_)
    np.testing.assert_array_equal(found.predict(X), due.predict(X))
    assert found.decision_function(X).shape == due.decision_function(X).shape
    np.testing.assert_array_equal(found.to_sklearn().predict(X), found.predict(X))


def test_ridge_balances_classes_as_scikit_learns_does():
    X, y, _ = rows("iris")
    X, y = X[:120], y[:120]
    due = sklearn.linear_model.RidgeClassifier(class_weight="balanced", solver="svd").fit(X, y)
    found = RidgeClassifier(class_weight="balanced").fit(X, y)
    np.testing.assert_allclose(found.coef_, due.coef_, atol=1e-8)


@pytest.mark.parametrize("solver", ["gram", "coordinate-descent", "lbfgs"])
def test_nearly_dependent_columns_are_refined(solver):
    X, y, _ = rows("cancer")
    X = np.column_stack([X, X[:, 0] + 1e-5 * X[:, 1]])
    due = sklearn.linear_model.RidgeClassifier(1e-6, solver="svd").fit(X, y)
    found = RidgeClassifier(1e-6, solver=solver, tol=1e-9, max_iter=5000).fit(X, y)
    np.testing.assert_allclose(
        found.decision_function(X), due.decision_function(X), atol=1e-6 if solver == "gram" else 0.1
    )


@pytest.mark.slow
def test_ridge_learns_by_updates_too():
    X, y, _ = rows("iris")
    due = RidgeClassifier(10.0).fit(X, y)
    found = RidgeClassifier(10.0, batch_size=16, max_iter=100, tol=0, random_state=0).fit(X, y)
    np.testing.assert_allclose(found.coef_, due.coef_, atol=0.05 * np.abs(due.coef_).max())


# --------------------------------------------------------------------------- wherever rows lie


@pytest.mark.parametrize("estimator", [LinearSVC(tol=1e-9), RidgeClassifier()])
def test_stores_and_dask_arrays_give_the_same_model(estimator, tmp_path):
    X, y, weight = rows("iris", weighted=True)
    labels = np.array(["ash", "beech", "cedar"])
    path = tmp_path / "rows.zarr"
    write_store(path, X, y, weight, chunk_rows=16, classes=labels.tolist())
    due = estimator.fit(X, labels[y], weight)
    coef, codes = due.coef_, due.predict(X)
    lazy = da.from_array(X, chunks=(40, 4))
    for data in ((path,), (lazy, da.from_array(labels[y], chunks=40), weight)):
        found = estimator.fit(*data)
        np.testing.assert_allclose(found.coef_, coef, rtol=1e-6)
        np.testing.assert_array_equal(found.predict(lazy).compute(), codes)
    found = estimator.fit(path)
    if found.report_.solver == "gram":
        assert found.report_.passes == 1
    assert found.score(path) == pytest.approx(np.average(codes == labels[y], weights=weight))
    found.save(tmp_path / "a.run")
    again = load(tmp_path / "a.run")
    assert type(again) is type(estimator)
    np.testing.assert_array_equal(again.predict(X), codes)
    z = predict(tmp_path / "a.run", X, "decision")
    np.testing.assert_allclose(z, X @ again.coef_.T + again.intercept_, atol=1e-12)


# --------------------------------------------------------------------------------------- sgd


def sgd_objective(model: Any, X: Array, y: Array) -> float:
    """scikit-learn's objective, added up over outputs."""
    loss = SGDClassifierModel(loss=model.loss).loss_for(len(model.classes_))
    targets = np.equal.outer(y, labels_of_outputs(y)).astype(float)
    losses = loss.value(targets, X @ model.coef_.T + model.intercept_).sum() / len(y)
    share = {"l2": 0.0, "l1": 1.0, "elasticnet": model.l1_ratio, None: 0.0}[model.penalty]
    size = 0.5 * (1 - share) * (model.coef_**2).sum() + share * np.abs(model.coef_).sum()
    return float(losses + model.alpha * size)


@pytest.mark.slow
@pytest.mark.parametrize("penalty", ["l2", "elasticnet"])
@pytest.mark.parametrize("loss", ["hinge", "log_loss", "modified_huber", "squared_hinge"])
def test_rows_one_by_one_come_nearer_to_the_optimum_than_scikit_learns(loss, penalty):
    X, y, _ = rows("iris")
    settings: Any = {"loss": loss, "penalty": penalty, "alpha": 0.01, "random_state": 0}
    due = sklearn.linear_model.SGDClassifier(max_iter=200, tol=None, average=True, **settings)
    found = SGDClassifier(max_iter=50, tol=0, **settings).fit(X, y)
    assert found.report_.batch_size == 1
    assert found.report_.solver == "sgd"
    assert found.coef_.shape == (3, 4)
    assert sgd_objective(found, X, y) <= 1.02 * sgd_objective(due.fit(X, y), X, y)


@pytest.mark.filterwarnings("ignore:sgd. not converged")
def test_a_perceptron_tells_classes_apart():
    X, y, _ = rows("iris")
    settings: Any = {"penalty": None, "max_iter": 20, "tol": 0.0, "random_state": 0}
    assert SGDClassifier("perceptron", **settings).fit(X, y).score(X, y) > 0.85


@pytest.mark.parametrize("loss", ["log_loss", "modified_huber", "squared_hinge"])
def test_a_full_batch_of_a_smooth_loss_is_solved(loss):
    X, y, _ = rows("cancer")
    found = SGDClassifier(loss, alpha=0.01, batch_size="full", tol=1e-9).fit(X, y)
    assert (found.report_.solver, found.report_.converged) == ("newton", True)
    nearby = clone(found)
    for sign in (-1, 1):
        nearby.classes_, nearby.intercept_ = found.classes_, found.intercept_
        nearby.coef_ = found.coef_ + sign * 1e-3
        assert sgd_objective(nearby, X, y) > sgd_objective(found, X, y)


@pytest.mark.parametrize("loss", ["log_loss", "modified_huber"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_probabilities_are_those_of_one_against_the_rest(loss, n_classes):
    X, y, _ = rows("iris")
    X, y = X[y < n_classes], y[y < n_classes]
    found = SGDClassifier(loss, batch_size="full").fit(X, y)
    far = np.vstack([X, 50 * X, -50 * X])  # of some, all classes have probability 0
    plain = found.to_sklearn()
    np.testing.assert_allclose(found.predict_proba(far), plain.predict_proba(far), atol=1e-12)
    due = plain.predict_proba(far)
    np.testing.assert_allclose(np.exp(found.predict_log_proba(far)), due, atol=1e-12)
    np.testing.assert_array_equal(found.predict(X), plain.predict(X))
    assert not hasattr(SGDClassifier("hinge"), "predict_proba")


def test_partial_fit_learns_one_against_the_rest():
    X, y, _ = rows("digits")
    model = LinearSVC(C=0.01, batch_size=16, random_state=0)
    for _ in range(3):
        for start in range(0, len(y), 500):
            model.partial_fit(X[start : start + 500], y[start : start + 500], classes=range(10))
    assert model.coef_.shape == (10, 64)
    assert model.score(X, y) > 0.9
