"""The schedule "plateau": the rate is lowered where a run makes no more progress."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sklearn.linear_model
from hypothesis import given
from hypothesis import strategies as st

from ooc_train.estimators.margins import SGDClassifier
from ooc_train.estimators.robust import SGDRegressor
from ooc_train.models.classification_models import LogisticModel
from ooc_train.models.regression_models import LeastSquares, RidgeModel
from ooc_train.optimizers.schedules import Plateau
from ooc_train.plotting import plots
from ooc_train.runs.events import Noted
from ooc_train.runtime import clients
from ooc_train.solvers.base import State, from_arrays, to_arrays
from ooc_train.solvers.early_stopping import EarlyStopping
from ooc_train.solvers.plateaus import PATIENCE, after_epoch
from ooc_train.solvers.training_settings import Training
from ooc_train.stream.inputs import read_inputs
from ooc_train.training.loop import train


@pytest.fixture(autouse=True)
def inline(monkeypatch):
    monkeypatch.setattr(clients, "inside_another_job", lambda: True)


def data(rows: int = 300, columns: int = 4) -> Any:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(rows, columns))
    return X, X @ np.arange(1.0, columns + 1) + rng.normal(size=rows)


def lowered_at(figures: Any, schedule: Plateau) -> tuple[list[int], int | None]:
    """Epochs after which the rate is lowered, and the one that ends the run."""
    solver: Any = SimpleNamespace(schedule=schedule)
    state = State(np.zeros(1), memory={"eta0": 1.0})
    lowered = []
    for epoch, figure in enumerate(figures):
        before = state.memory["eta0"]
        # A run may be kept between any two passes.
        state = after_epoch(solver, from_arrays(to_arrays(state)), figure, ends=True)
        if state.memory["eta0"] < before:
            assert state.memory["eta0"] == pytest.approx(before * schedule.factor)
            lowered.append(epoch)
        if state.stalled:
            return lowered, epoch
    return lowered, None


def scikit_learns(figures: Any, schedule: Plateau) -> tuple[list[int], int | None]:
    """The same by the lines of scikit-learn's `_plain_sgd`, with / 5 and 1e-6 as settings.

    There progress of exactly `tol` is enough. A run ends after as many epochs as it has by default.
    """
    best, count, eta, lowered = np.inf, 0, 1.0, []
    for epoch, figure in enumerate(figures):
        if figure >= best - schedule.min_delta:
            count += 1
        else:
            count = 0
        best = min(best, figure)
        if count >= schedule.patience and eta > schedule.last:
            eta *= schedule.factor
            lowered.append(epoch)
            count = 0
        elif count >= max(schedule.patience, PATIENCE):
            return lowered, epoch
    return lowered, None


@given(
    st.lists(st.integers(-4, 4).map(float), max_size=40),
    st.integers(1, 4),
    st.sampled_from([0.0, 1.0, 2.5]),
    st.sampled_from([1.0, 0.3, 0.01]),
)
def test_the_rule_is_scikit_learns(figures, patience, min_delta, last):
    schedule = Plateau(0.2, patience, min_delta, last)
    assert lowered_at(figures, schedule) == scikit_learns(figures, schedule)


def test_a_solver_without_the_schedule_and_a_converged_run_stay_as_they_are():
    state = State(np.zeros(1), memory={"eta0": 1.0}, converged=True)
    solver: Any
    for solver in (SimpleNamespace(), SimpleNamespace(schedule=None)):
        assert after_epoch(solver, state, 1.0, ends=True) is state
    solver = SimpleNamespace(schedule=Plateau(patience=1))
    assert after_epoch(solver, state, 1.0, ends=True) is state


@pytest.mark.parametrize("batch_size", [10, "full"])
def test_the_history_has_the_rates_as_they_happened(batch_size):
    X, y = data()
    schedule = Plateau(0.5, 2, 1e-3, last=0.2)
    how = Training(
        solver="sgd", batch_size=batch_size, learning_rate=0.01, schedule=schedule, max_iter=2000,
        tol=1e-9, random_state=0,
    )  # fmt: skip
    events: list[Any] = []

    def keep(event: Any) -> None:
        events.append(event)

    _, report = train(LeastSquares(), X, how, y=y, callbacks=[keep])
    steps = [step for step in report.history if step.updates]
    rates: list[Any] = [step.learning_rate for step in steps]
    assert report.learning_rate == rates[0] == 0.01
    assert sorted(set(rates), reverse=True) == pytest.approx([0.01, 0.005, 0.0025, 0.00125])
    assert rates == sorted(rates, reverse=True)
    told = [each.text for each in events if isinstance(each, Noted)]
    assert "no progress by 0.001 in 2 epochs: the learning rate is lowered to 0.005" in told
    # A plateau at the lowest rate ends the run.
    ended = "no progress by 0.001 in 5 epochs at the schedule's lowest learning rate"
    assert report.ended == ended
    assert report.shortfall.startswith(f"not converged: {ended}")
    assert ("learning rate", "0.01, before its schedule; 0.00125 in the last update") in (
        report.figures()
    )
    drawn = plots.learning_rate(report).lines[0].get_ydata()
    np.testing.assert_array_equal(drawn, rates)


def test_a_run_has_not_converged_before_its_rate_is_the_lowest():
    X, y = data()
    settings: Any = {"batch_size": 10, "tol": 0.1, "random_state": 0}
    _, early = train(LeastSquares(), X, Training(learning_rate="constant:0.01", **settings), y=y)
    rate = "plateau:0.01,patience=3,last=0.01,min_delta=0.1"
    _, report = train(LeastSquares(), X, Training(learning_rate=rate, **settings), y=y)
    assert early.converged
    assert report.converged
    assert report.history[-1].learning_rate == pytest.approx(0.01 / 125)
    assert report.n_iter > early.n_iter


def validated(**settings: Any) -> Any:
    """A logistic run whose validation rows have labels at random: they gain nothing."""
    X, y = data()
    rng = np.random.default_rng(0)
    validation = read_inputs(rng.normal(size=(50, 4)), rng.integers(0, 2, 50), classifier=True)
    how = Training(batch_size=10, random_state=0, **settings)
    return train(LogisticModel(), X, how, y=(y > 0).astype(int), validation=validation)[1]


def test_validation_rows_decide_where_there_are_some():
    """And early stopping waits until the rate has been lowered."""
    report = validated(
        learning_rate="plateau:0.001,patience=6,last=0.1",
        early_stopping=EarlyStopping(patience=6),
        tol=0.0,
    )
    losses: list[Any] = [step.validation_loss for step in report.history]
    lowered, ended = lowered_at(losses, Plateau(0.2, 6, last=0.1))
    assert len(lowered) == 2
    assert ended == len(losses) - 1
    rates: list[Any] = [step.learning_rate for step in report.history]
    assert [i for i in range(len(rates) - 1) if rates[i + 1] < rates[i]] == lowered
    assert report.ended.startswith("early stopping, 6 evaluations in a row have not improved")
    assert report.best.n_iter == 1


def test_the_metric_of_early_stopping_is_followed():
    stopping = EarlyStopping(patience=3, metric="accuracy")
    report = validated(
        learning_rate="plateau:0.1,patience=3,min_delta=0", early_stopping=stopping, tol=0.0,
        max_iter=30,
    )  # fmt: skip
    figures = [-float(step.validation_metric) for step in report.history]
    lowered, _ = lowered_at(figures, Plateau(0.2, 3, 0.0))
    rates = [float(step.learning_rate) for step in report.history]
    assert lowered
    assert [i for i in range(len(rates) - 1) if rates[i + 1] < rates[i]] == lowered


@pytest.mark.parametrize("cls", [SGDRegressor, SGDClassifier])
def test_adaptive_finds_what_scikit_learns_finds(cls):
    X, y = data(2000)
    y = y if cls is SGDRegressor else (y > 0).astype(int)
    settings: Any = {"learning_rate": "adaptive", "eta0": 0.01, "random_state": 0, "alpha": 1e-3}
    theirs = getattr(sklearn.linear_model, cls.__name__)(**settings).fit(X, y)
    ours = cls(**settings).fit(X, y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=0.02, atol=0.02)
    assert ours.report_.history[-1].learning_rate == pytest.approx(0.01 / 5**6)
    assert ours.report_.converged


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"batch_size": 10, "early_stopping": EarlyStopping(patience=4)},
            "after 4 epochs without progress, before schedule='plateau' lowers the .* after 5; use",
        ),
        ({"solver": "lbfgs"}, "schedule='plateau' is for updates, and solver='lbfgs' makes none"),
        ({"batch_size": "grow"}, "schedule='plateau' is for batches of one size"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_in_one_line(settings, said):
    X, y = data()
    with pytest.raises(ValueError, match=said) as caught:
        train(RidgeModel(), X, Training(schedule="plateau", **settings), y=y)
    assert "\n" not in str(caught.value)


def test_partial_fit_and_plots_of_plans_refuse_it():
    X, y = data()
    with pytest.raises(ValueError, match="follows the epochs of a run, and partial_fit makes one"):
        SGDRegressor(learning_rate="adaptive", eta0=0.01).partial_fit(X, y)
    with pytest.raises(ValueError, match=r"follow the run; plots.learning_rate\(report\) draws"):
        Plateau().plot()
