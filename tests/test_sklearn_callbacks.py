"""scikit-learn's callbacks (1.9 and later) follow the fits of our estimators."""

import importlib.util
import sys
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from ooc_train.estimators import fit_callbacks as module
from ooc_train.estimators.classification import LogisticRegression
from ooc_train.estimators.regression import Ridge
from ooc_train.estimators.robust import HuberRegressor
from ooc_train.runtime import clients

protocol = pytest.importorskip("sklearn.callback")


@pytest.fixture(autouse=True)
def inline(monkeypatch):
    monkeypatch.setattr(clients, "inside_another_job", lambda: True)


RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 3))
Z = X @ [1.0, -2.0, 0.5] + RNG.normal(size=120)
Y = np.where(Z > 0, "yes", "no")


class Recorder:
    """Keeps what is called, and asks to stop after some tasks."""

    def __init__(self, most: int = 10**6) -> None:
        self.calls: list[str] = []
        self.models: list[Any] = []
        self.given: Any = None
        self.most = most

    def setup(self, estimator: Any, context: Any) -> None:
        self.calls.append(f"setup {estimator.__class__.__name__} {context.max_subtasks}")

    def teardown(self, estimator: Any, context: Any) -> None:
        del estimator, context
        self.calls.append("teardown")

    def on_fit_task_begin(self, estimator: Any, context: Any, *, X: Any = None) -> None:
        del estimator, X
        self.calls.append(f"begin {context.task_name} {context.task_id}")

    def on_fit_task_end(
        self,
        estimator: Any,
        context: Any,
        *,
        X: Any = None,
        y: Any = None,
        metadata: Any = None,
        fitted_estimator: Any = None,
    ) -> bool:
        assert fitted_estimator is not estimator
        self.calls.append(f"end {context.task_name} {context.task_id}")
        self.models.append(fitted_estimator)
        self.given = X, y, metadata
        return len(self.models) >= self.most


@pytest.mark.parametrize(
    ("estimator", "y", "name"),
    [
        (LogisticRegression(max_iter=20), Y, "iteration"),
        (LogisticRegression(max_iter=20, batch_size=10, random_state=0, tol=0.05), Y, "epoch"),
        (Ridge(), Z, "iteration"),
        (HuberRegressor(), Z, "iteration"),
    ],
    ids=["newton", "batches", "gram", "huber"],
)
def test_a_fit_is_a_tree_of_its_iterations(estimator, y, name):
    recorder, weight = Recorder(), np.ones(120)
    fitted = clone(estimator).set_callbacks(recorder)
    fitted.fit(X, y, sample_weight=weight)
    n = fitted.report_.n_iter
    steps = [f"{side} {name} {i}" for i in range(n) for side in ("begin", "end")]
    most = estimator.max_iter or 100
    assert recorder.calls == [
        f"setup {type(estimator).__name__} {most}",
        "begin fit 0",
        *steps,
        "end fit 0",
        "teardown",
    ]
    assert recorder.given[0] is X
    assert recorder.given[1] is y
    assert recorder.given[2]["sample_weight"] is weight
    # The last models are that of the fit, to the bit; earlier ones predict too.
    for last in recorder.models[-2:]:
        np.testing.assert_array_equal(last.predict(X), fitted.predict(X))
        np.testing.assert_array_equal(last.coef_, fitted.coef_)
    assert all(np.isfinite(model.score(X, y)) for model in recorder.models)
    # And without callbacks the fit is the same.
    np.testing.assert_array_equal(clone(estimator).fit(X, y, weight).coef_, fitted.coef_)


def test_scores_are_those_of_the_models_after_each_epoch():
    monitor = protocol.ScoringMonitor(scoring="neg_log_loss")
    model = LogisticRegression(batch_size=10, max_iter=4, tol=0, random_state=0)
    model.set_callbacks(monitor).fit(X, Y)
    rows = monitor.get_logs().data
    found = [-row["neg_log_loss"] for row in rows if row["task_name"] == "epoch"]
    np.testing.assert_allclose(found, model.report_.loss_history, rtol=1e-9)


def test_a_callback_may_stop_a_fit():
    recorder = Recorder(most=2)
    settings: Any = {"batch_size": 10, "max_iter": 50, "tol": 0, "random_state": 0}
    model = LogisticRegression(**settings).set_callbacks(recorder).fit(X, Y)
    assert model.n_iter_ == [2]
    assert model.report_.ended == "a callback of scikit-learn stopped it"
    assert recorder.calls[-2:] == ["end fit 0", "teardown"]
    due = LogisticRegression(**settings | {"max_iter": 2}).fit(X, Y)
    np.testing.assert_array_equal(model.coef_, due.coef_)


def test_callbacks_of_a_fit_that_fails_are_torn_down():
    recorder = Recorder()
    model = Ridge(memory_ceiling=1000).set_callbacks(recorder)
    with pytest.raises(MemoryError):
        model.fit(X, Z)
    assert recorder.calls[-1] == "teardown"
    assert recorder.calls.count("teardown") == 1
    model.set_params(memory_ceiling=None).set_callbacks().fit(X, Z)  # no callbacks any more
    assert recorder.calls[-1] == "teardown"


def test_a_grid_search_hands_its_callbacks_on(capsys):
    search = GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=2)
    search.set_callbacks(protocol.ProgressBar()).fit(X, Z)
    assert "Ridge - fit" in capsys.readouterr().out
    assert not hasattr(search.best_estimator_, "_parent_callback_ctx")


def test_an_earlier_version_of_scikit_learn_changes_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.callback", None)
    spec: Any = importlib.util.spec_from_file_location("earlier", module.__file__)
    earlier = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(earlier)
    assert not hasattr(earlier.CallbackSupport(), "set_callbacks")
    assert earlier.with_callbacks(clone) is clone
    with earlier.following(Ridge(), (X, Z, None), 5, dict) as callbacks:
        assert callbacks == ()
