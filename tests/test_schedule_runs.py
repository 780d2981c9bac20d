"""Runs that follow a schedule: each update has its rate, and the history says which."""

from math import exp
from typing import Any

import numpy as np
import pytest

from ooc_train.estimators.classification import LogisticRegression
from ooc_train.estimators.regression import Ridge
from ooc_train.models.linear_updates import LinearUpdates
from ooc_train.models.regression_models import LeastSquares
from ooc_train.optimizers.rate_table import EXACT_UPDATES, update_of_rate
from ooc_train.optimizers.schedule import Schedule
from ooc_train.optimizers.schedules import (
    SCHEDULES,
    Constant,
    Cosine,
    Exponential,
    InverseScaling,
    Linear,
    Staircase,
)
from ooc_train.optimizers.sgd import Sgd
from ooc_train.runs.events import Event, Noted, Stepped
from ooc_train.solvers.base import advance, start
from ooc_train.solvers.training_settings import Training
from ooc_train.solvers.updates import Updates
from ooc_train.training.loop import train
from tests.streams import Case, make_case, stream
from tests.test_updates import rows_in_order

EPOCHS = 3
EACH = [SCHEDULES[name](warmup=warmup) for name in SCHEDULES for warmup in (0.0, 5.0)]


def scanned(case: Case, schedule: Schedule, batch_size: int, horizon: float, done: int) -> Any:
    """The parameters after epochs of the compiled scan, with so many updates before them."""
    updates = LinearUpdates(case.problem, "<f8", batch_size, Sgd(), schedule, 0.05, horizon)
    state = updates.start(case.problem.initial())
    state["counters"][1] = done
    for epoch in range(EPOCHS):
        (state,) = stream(case.source).scan(updates, [state], seed=1, epoch=epoch, shuffle_chunks=2)
    return state["theta"]


def plain(case: Case, schedule: Schedule, batch_size: int, horizon: float, done: int) -> Any:
    """The parameters after the same updates, one after another."""
    problem, t = case.problem, done
    A = np.empty((len(case.y), problem.n_features + 1))
    problem.scaling.apply(case.source.X, A)
    theta, l2 = problem.initial(), problem.theta_penalty.l2 / problem.total_weight
    for epoch in range(EPOCHS):
        rows = rows_in_order(case, 1, epoch, 2)
        for first in range(0, len(rows), batch_size):
            batch = rows[first : first + batch_size]
            rate = float(schedule.rate(float(update_of_rate(t)), 0.05, horizon))
            slopes = problem.loss.slope(case.y[batch], A[batch] @ theta.T)
            gradient = slopes.T @ A[batch] / len(batch) + l2 * theta
            theta = theta - len(batch) / batch_size * rate * gradient
            t += 1
    return theta


@pytest.mark.parametrize("batch_size", [1, 3, 7, 50])
@pytest.mark.parametrize("schedule", EACH, ids=str)
def test_each_update_of_a_compiled_scan_has_the_rate_of_its_schedule(schedule, batch_size):
    case = make_case("logistic")
    horizon = float(EPOCHS * -(-101 // batch_size))
    found, due = (each(case, schedule, batch_size, horizon, 0) for each in (scanned, plain))
    np.testing.assert_allclose(found, due, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("batch_size", [1, 3, 7])
@pytest.mark.parametrize("ahead", [20, 150])
def test_a_scan_goes_on_beyond_the_updates_of_exact_rates(batch_size, ahead):
    """And beyond the end of the table, from where on rates change every few updates."""
    case, done = make_case("logistic"), EXACT_UPDATES - ahead
    schedule = Exponential(0.5, over=2000)
    found, due = (each(case, schedule, batch_size, 2e4, done) for each in (scanned, plain))
    np.testing.assert_allclose(found, due, rtol=1e-8, atol=1e-10)


# What the history says


def data(n: int = 100) -> Any:
    """The rows of y = 4 + 3x + noise."""
    rng = np.random.default_rng(42)
    X = 2.0 * rng.random((n, 1))
    return X, 4.0 + 3.0 * X[:, 0] + rng.normal(size=n)


LINEAR = LeastSquares()


@pytest.mark.parametrize("schedule", EACH, ids=str)
@pytest.mark.parametrize(("batch_size", "updates"), [(1, 100), (30, 4), (100, 1), ("full", 1)])
def test_the_history_has_the_rate_of_the_last_update_of_each_epoch(schedule, batch_size, updates):
    """Of 100 rows, batches of 30 are four updates; the last of them is incomplete."""
    X, y = data()
    how = Training(
        solver="sgd", batch_size=batch_size, schedule=schedule, learning_rate=0.1, max_iter=9,
        tol=0.0, random_state=0,
    )  # fmt: skip
    events: list[Event] = []

    def keep(event: Event) -> None:
        events.append(event)

    _, report = train(LINEAR, X, how, y=y, callbacks=[keep])
    assert report.learning_rate == 0.1
    steps = [step for step in report.history if step.updates]
    assert [step.updates for step in steps] == [updates * (i + 1) for i in range(len(steps))]
    assert len(steps) == 9
    last = np.array([step.updates - 1.0 for step in steps])
    due = schedule.rate(last, 0.1, 9.0 * updates)
    found: Any = [step.learning_rate for step in steps]
    np.testing.assert_allclose(found, due, rtol=1e-12)
    told = [event.text for event in events if isinstance(event, Noted)]
    assert f"learning rate 0.1, schedule {schedule}" in told
    assert [event for event in events if isinstance(event, Stepped)] == list(report.history)


def test_replicas_have_the_rates_of_their_own_updates():
    case, schedule = make_case("logistic"), Linear(0.1)
    solver = Updates(
        Sgd(), 5, 0.05, tol=0.0, seed=1, shuffle_chunks=2, replicas=2, schedule=schedule, epochs=4
    )
    passes = stream(case.source)
    state = start(solver, case.problem, passes, case.problem.initial())
    assert state.rate == 0.05
    for _ in range(4):
        state = advance(solver, case.problem, passes, state)
        while state.phase:
            state = advance(solver, case.problem, passes, state)
        most = max(int(replica["counters"][1]) for replica in state.memory["replicas"])
        # Of 8 groups of 14 rows, a replica has 4 an epoch: 56 rows, which are 12 updates of 5.
        assert state.rate == pytest.approx(float(schedule.rate(most - 1.0, 0.05, 4 * 12)))
    assert 40 < most <= 4 * 12


def test_partial_fit_goes_on_where_the_last_call_ended():
    X, y = data()
    model = Ridge(batch_size=10, schedule="invscaling:power_t=0.5,warmup=4", learning_rate=0.1)
    found: Any = []
    for _ in range(3):
        model.partial_fit(X[:25], y[:25])  # three updates, the last of five rows
        assert model.report_.learning_rate == 0.1
        found.append(model.report_.history[-1].learning_rate)
    # Of updates 3, 6 and 9; the last is the fifth after the warm-up.
    np.testing.assert_allclose(found, [0.1 * 3 / 4, 0.1 / 2**0.5, 0.1 / 5**0.5], rtol=1e-12)


def test_a_schedule_that_follows_the_plan_is_refused_where_there_is_none():
    X, y = data()
    with pytest.raises(ValueError, match="schedule='cosine' follows the planned number"):
        Ridge(batch_size=10, schedule=Cosine()).partial_fit(X, y)
    model = Ridge(batch_size=1, schedule=Linear(over=250), learning_rate=0.1)
    with pytest.raises(ValueError, match=r"learning rate of 0, .* after 250 updates"):
        model.partial_fit(X, y)
    model.set_params(schedule=Linear(0.5, over=250)).partial_fit(X, y)
    assert model.report_.history[-1].learning_rate == pytest.approx(0.1 * (1 - 0.5 * 99 / 250))


@pytest.mark.parametrize("batch_size", [1, 10, "full"])
@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ("linear:over=7", r"learning rate of 0, .* after 7 of [\d,]+ updates"),
        ("constant:warmup=5e6", "warmup=5e.06 of .* is not below the "),
        ("staircase:factor=1e-200,every=1", r"learning rate of 0, .* after 2 of"),
    ],
)
def test_a_schedule_that_a_run_cannot_follow_is_refused_before_rows_are_read(
    schedule, said, batch_size
):
    X, y = data()
    X[3] = np.nan  # which reading would find
    how = Training(solver="sgd", batch_size=batch_size, schedule=schedule, max_iter=20)
    with pytest.raises(ValueError, match=said):
        train(LINEAR, X, how, y=y)


# Settings


@pytest.mark.filterwarnings("ignore:sgd. not converged")
@pytest.mark.parametrize(
    ("settings", "rate", "schedule"),
    [
        ({"learning_rate": "cosine:0.1,warmup=500"}, 0.1, Cosine(warmup=500.0)),
        ({"learning_rate": "cosine"}, "auto", Cosine()),
        ({"learning_rate": "cosine:last=0.5"}, "auto", Cosine(0.5)),
        ({"learning_rate": "constant"}, "auto", Constant()),
        ({"learning_rate": "invscaling:0.01"}, 0.01, InverseScaling()),
        ({"learning_rate": 0.1, "schedule": "invscaling:power_t=0.5"}, 0.1, InverseScaling(0.5)),
        ({"schedule": "constant"}, "auto", Constant()),
    ],
)
def test_training_and_estimators_take_text(settings, rate, schedule):
    training = Training(batch_size=10, **settings)
    assert (training.learning_rate, training.schedule) == (rate, schedule)
    assert Training(**training.settings()) == training
    X, y = data()
    model = LogisticRegression(batch_size=10, max_iter=60, tol=0.0, **settings).fit(X, y > 7)
    assert (model.training_.learning_rate, model.training_.schedule) == (rate, schedule)
    assert model.get_params()["schedule"] == settings.get("schedule", "auto")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"learning_rate": "optimal"}, "'optimal' is not there: .* the learning rate 'auto'"),
        ({"schedule": "optimal"}, "'optimal' is not there"),
        ({"learning_rate": "adaptive:0.1"}, "'adaptive' is not there: use 'plateau:0.1', which"),
        ({"schedule": "adaptive"}, "'adaptive' is not there"),
        ({"schedule": "cosin"}, "schedule='cosin' is not 'auto' or a Schedule or its name, such"),
        ({"schedule": "cosine:0.1"}, "'0.1' of the schedule 'cosine:0.1' is no hyperparameter"),
        ({"learning_rate": "cosine:0"}, "learning_rate=0.0 is not 'auto' or a number above 0 or a"),
        ({"learning_rate": "cosine:inf"}, "learning_rate=inf is not"),
        ({"learning_rate": "cosine:fast"}, "learning_rate='cosine:fast' is not"),
        ({"learning_rate": "cosine:0.1,0.2"}, "'0.2' of the schedule"),
        ({"learning_rate": "cosine:0.1,size=2"}, "has warmup, over, last, and not 'size'"),
        (
            {"learning_rate": "cosine:0.1", "schedule": "linear"},
            "learning_rate='cosine:0.1' names a schedule, and so does schedule='linear'; leave one",
        ),
    ],
)
def test_text_that_is_no_schedule_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        Training(**settings)


# The articles' programmes: y = 4 + 3x + noise, 100 rows, 50 epochs


@pytest.mark.parametrize("batch_size", [1, 10])
@pytest.mark.parametrize("kind", ["fixed", "exponential", "step"])
def test_the_rates_of_the_articles_find_the_line(kind, batch_size):
    """Rates of 0.1 and 0.01; falling by exp(-0.1) an epoch; halved every ten epochs."""
    X, y = data()
    updates, first = 100 // batch_size, 0.01 if batch_size == 1 else 0.1
    schedule, rate_of_epoch = {
        "fixed": (Constant(), lambda epoch: first),  # noqa: ARG005
        "exponential": (
            Exponential(exp(-0.1), over=updates),
            lambda epoch: first * exp(-0.1 * epoch),
        ),
        "step": (Staircase(0.5, 10.0 * updates), lambda epoch: first * 0.5 ** (epoch // 10)),
    }[kind]
    how = Training(
        batch_size=batch_size, learning_rate=first, schedule=schedule, max_iter=50, tol=0.0,
        random_state=0,
    )  # fmt: skip
    fitted, report = train(LINEAR, X, how, y=y)
    assert report.updates == 50 * updates
    for epoch, step in enumerate(report.history):
        # The rate of the epoch's last update; the articles change it between epochs alone.
        least, most = rate_of_epoch(epoch + 1), rate_of_epoch(epoch)
        assert least * (1 - 1e-9) <= step.learning_rate <= most * (1 + 1e-9)
    A = np.column_stack([X, np.ones(100)])
    best, *_ = np.linalg.lstsq(A, y, rcond=None)
    found = np.array([fitted.coef[0, 0], fitted.intercept[0]])
    np.testing.assert_allclose(found, best, atol=0.05)
    errors = [float(((A @ theta - y) ** 2).mean()) for theta in (found, best)]
    assert errors[0] <= 1.001 * errors[1]
