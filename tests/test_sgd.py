"""`SGDClassifier` and `SGDRegressor` where scikit-learn's own tests showed them to differ."""

import warnings
from typing import Any

import numpy as np
import pytest
import sklearn.linear_model
from sklearn.datasets import load_iris

from ooc_train import LogisticRegression, SGDClassifier, SGDRegressor

ROWS = np.array([[-2.0, -1.0], [-1.0, -1.0], [-1.0, -2.0], [1.0, 1.0], [1.0, 2.0], [2.0, 1.0]])
LABELS = np.array([1, 1, 1, 2, 2, 2])
IRIS: Any = load_iris(return_X_y=True)


@pytest.mark.parametrize(
    "model",
    [SGDClassifier(random_state=0), LogisticRegression(batch_size=1, random_state=0)],
    ids=lambda model: type(model).__name__,
)
def test_a_few_rows_at_a_time_are_learned_at_once(model):
    """The average of single rows has an entry each 32 updates, and one at the end of a call."""
    seen = set()
    for i in (0, 3, 1, 4, 2, 5):
        model.partial_fit(ROWS[[i]], LABELS[[i]], classes=[1, 2])
        seen.add(model.coef_.tobytes())
    assert len(seen) >= 4
    assert model.score(ROWS, LABELS) == 1.0


def test_one_epoch_of_a_few_rows_is_in_the_model():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = SGDClassifier(max_iter=1, random_state=0).fit(ROWS, LABELS)
    assert model.score(ROWS, LABELS) == 1.0


@pytest.mark.parametrize("cls", [SGDClassifier, SGDRegressor])
def test_without_a_tolerance_all_epochs_are_run_and_nobody_is_warned(cls):
    model = cls(tol=None, max_iter=40, random_state=0)
    assert model.fit(*IRIS).n_iter_ == 40
    assert cls(max_iter=40, random_state=0).fit(*IRIS).n_iter_ < 40


@pytest.mark.parametrize("cls", [SGDClassifier, SGDRegressor])
def test_early_stopping_keeps_a_tenth_of_the_rows_out(cls):
    X, y = IRIS
    model = cls(early_stopping=True, random_state=0).fit(X, y)
    assert model.report_.n_rows == 135
    assert model.report_.best is not None
    given = cls(early_stopping=True, random_state=0).fit(X, y, X_val=X[::3], y_val=y[::3])
    assert given.report_.n_rows == 150
    assert cls(random_state=0).fit(X, y).report_.n_rows == 150


@pytest.mark.parametrize("cls", [SGDClassifier, SGDRegressor])
def test_a_share_of_l1_is_for_an_elastic_net_alone(cls):
    model = cls(l1_ratio=None, random_state=0).fit(*IRIS)
    np.testing.assert_array_equal(model.coef_, cls(random_state=0).fit(*IRIS).coef_)
    with pytest.raises(ValueError, match="l1_ratio must be set when penalty is 'elasticnet'"):
        cls(penalty="elasticnet", l1_ratio=None).fit(*IRIS)


@pytest.mark.parametrize("weights", [None, {0: 0.5, 1: 4.0, 2: 2.0}])
def test_the_squared_error_of_classes_is_that_of_scikit_learn(weights):
    """One class against the rest: its rows weigh more in its own problem alone."""
    X, y = IRIS
    total = float(len(y) if weights is None else np.sum([weights[k] for k in y]))
    model = SGDClassifier(
        "squared_error", alpha=0.05, class_weight=weights, batch_size="full", tol=1e-10
    ).fit(X, y)
    for k in range(3):
        factors = np.where(y == k, 1.0 if weights is None else weights[k], 1.0)
        ridge = sklearn.linear_model.Ridge(0.05 * total, solver="svd")
        expected = ridge.fit(X, np.where(y == k, 1.0, -1.0), factors)
        np.testing.assert_allclose(model.coef_[k], expected.coef_, rtol=1e-6)
        assert model.intercept_[k] == pytest.approx(expected.intercept_, rel=1e-6)
