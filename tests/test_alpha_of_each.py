"""`alpha` of each output, of `Ridge` and `RidgeClassifier`: scikit-learn's answers, in one pass."""

from typing import Any

import dask.array
import numpy as np
import pytest
import sklearn.linear_model
from numpy.typing import NDArray
from sklearn.base import clone

from ooc_train import Ridge, RidgeClassifier, RidgeModel, load, train
from ooc_train.runs.events import Event
from ooc_train.stream.inputs import read_inputs
from tests.streams import write_store

Floats = NDArray[np.float64]

ALPHAS = np.array([0.1, 1.0, 50.0])


def made(spread: float = 2.0) -> tuple[Floats, Floats]:
    """Rows whose columns differ in scale by a power of ten each, and three targets."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 5)) * 10.0 ** (spread * np.arange(-2, 3))
    return X, X @ (rng.normal(size=(5, 3)) / X.std(axis=0)[:, None]) + rng.normal(size=(60, 3))


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("solver", ["auto", "newton", "coordinate-descent"])
def test_each_target_has_its_own_penalty_as_in_scikit_learn(solver, fit_intercept):
    X, y = made()
    weight = np.linspace(0.5, 2.0, len(X))
    shared: dict[str, Any] = {"fit_intercept": fit_intercept}
    found = Ridge(ALPHAS, solver=solver, tol=1e-12, **shared).fit(X, y, weight)
    expected = sklearn.linear_model.Ridge(ALPHAS, solver="svd", **shared).fit(X, y, weight)
    np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-8)
    np.testing.assert_allclose(found.intercept_, expected.intercept_, rtol=1e-8)


def test_l_bfgs_ends_there_too():
    X, y = made(0.3)
    found = Ridge(ALPHAS, solver="lbfgs", tol=1e-10, max_iter=1_000).fit(X, y)
    np.testing.assert_allclose(found.coef_, Ridge(ALPHAS).fit(X, y).coef_, rtol=1e-7)


@pytest.mark.parametrize("positive", [False, True])
def test_penalties_of_all_sizes_leave_each_target_the_answer_of_a_fit_alone(positive):
    X, y = made()
    alphas = [0, 1e-300, 1e12]
    found = Ridge(alphas, positive=positive, tol=1e-12).fit(X, y)
    for k, alpha in enumerate(alphas):
        alone = Ridge(alpha, positive=positive, tol=1e-12).fit(X, y[:, k])
        np.testing.assert_allclose(found.coef_[k], alone.coef_, rtol=1e-7, atol=1e-30)


def test_the_objective_counts_each_penalty():
    X, y = made()
    report = Ridge(ALPHAS, solver="newton", tol=1e-12).fit(X, y).report_
    alone = [Ridge(a, tol=1e-12).fit(X, y[:, k]).report_.loss for k, a in enumerate(ALPHAS)]
    assert report.loss == pytest.approx(sum(alone), rel=1e-10)


def test_one_class_against_the_rest_has_a_penalty_each():
    X, _ = made()
    y = np.random.default_rng(1).integers(0, 3, len(X))
    found = RidgeClassifier(ALPHAS).fit(X, y)
    expected = sklearn.linear_model.RidgeClassifier(ALPHAS, solver="svd").fit(X, y)
    np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-8)


def test_stores_dask_arrays_and_saved_models_have_them(tmp_path):
    X, y = made()
    expected = Ridge(ALPHAS).fit(X, y)
    by_store = Ridge(list(ALPHAS)).fit(write_store(tmp_path / "rows.zarr", X, y))
    assert by_store.report_.passes == 1
    lazy = (dask.array.from_array(each, chunks=(20, -1)) for each in (X, y))
    for found in (by_store, clone(expected).fit(*lazy)):
        np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-9)
    by_store.save(tmp_path / "model")
    again: Any = load(tmp_path / "model")
    assert again.model_ == RidgeModel(alpha=tuple(ALPHAS.tolist()))
    plain = again.to_sklearn()
    np.testing.assert_array_equal(plain.fit(X, y).alpha, ALPHAS)


def test_columns_that_depend_on_one_another_are_told():
    X, y = made(0.0)
    X[:, 1] = X[:, 0] * (1.0 + 1e-9 * np.arange(60))
    events: list[Event] = []

    def hear(event: Event) -> None:
        events.append(event)

    model, inputs = RidgeModel(alpha=(0.0, 0.0, 1.0)), read_inputs(X, y, classifier=False)
    found, report = train(model, inputs, callbacks=[hear])
    assert "the columns depend on one another: a fit with one alpha" in str(events)
    assert report.rank == 4
    np.testing.assert_allclose(found.coef[2], Ridge(1.0).fit(X, y[:, 2]).coef_, rtol=1e-6)


def test_text_of_the_command_line_names_them():
    constraint = RidgeModel._declared["alpha"].constraint
    assert constraint.parse("alpha", "0.5") == 0.5
    assert constraint.parse("alpha", "0.1,1,10") == (0.1, 1.0, 10.0)
    assert RidgeModel(alpha=[1.0]).penalty_for(1.0) == RidgeModel(alpha=1.0).penalty_for(1.0)
    with pytest.raises(ValueError, match="alpha='x' is not a number of at least 0, or one"):
        constraint.parse("alpha", "0.1,x")


@pytest.mark.parametrize(
    ("alpha", "said"),
    [
        ([1.0, 2.0], "correspond: 2 != 3; pass one alpha, or that of each output"),
        ([1.0, -2.0, 3.0], r"alpha=-2.0 is not a number of at least 0"),
        ([1.0, np.nan, 3.0], "alpha=nan is not"),
        (np.ones((3, 2)), "is not a number of at least 0, or one such number for each output"),
        ([], r"alpha=\[\] is not"),
        ("1,2,3", "alpha='1,2,3' is not"),
    ],
)
def test_other_penalties_are_refused(alpha, said):
    with pytest.raises(ValueError, match=said):
        Ridge(alpha).fit(*made())


def test_updates_take_one_penalty_for_all():
    with pytest.raises(ValueError, match="needs learning by batches"):
        Ridge(ALPHAS, batch_size=8).fit(*made())
    with pytest.raises(ValueError, match="needs learning by batches"):
        Ridge(ALPHAS).partial_fit(*made())
