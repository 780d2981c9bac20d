"""Learning rates by the number of updates: formulas, text, what is refused, and tables of rates."""

import json
from dataclasses import dataclass
from math import cos, inf, pi
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ooc_train.optimizers.rate_table import EXACT_UPDATES, RateTable, update_of_rate
from ooc_train.optimizers.schedule import Schedule
from ooc_train.optimizers.schedules import (
    SCHEDULES,
    Constant,
    Cosine,
    Exponential,
    Falling,
    InverseScaling,
    Linear,
    OneCycle,
    Plateau,
    Staircase,
    Steps,
)

HORIZON = 1000.0

every_schedule = pytest.mark.parametrize("name", SCHEDULES)

SHARES = st.floats(0.001, 1.0)
UPDATES = st.floats(1.0, 1e6)
WARMUP: dict[str, Any] = {"warmup": st.just(0.0) | st.floats(1.0, 900.0)}
PLANNED: dict[str, Any] = WARMUP | {"over": st.just(0.0) | UPDATES}
ANY: dict[str, st.SearchStrategy[Schedule]] = {
    "constant": st.builds(Constant, **WARMUP),
    "falling": st.builds(Falling, st.floats(0.0, 1.0), UPDATES, **WARMUP),
    "invscaling": st.builds(InverseScaling, st.floats(0.01, 2.0), **WARMUP),
    "staircase": st.builds(Staircase, SHARES, st.floats(50.0, 1e4), **WARMUP),
    "linear": st.builds(Linear, SHARES, **PLANNED),
    "cosine": st.builds(Cosine, SHARES, **PLANNED),
    "exponential": st.builds(Exponential, SHARES, **PLANNED | {"over": st.floats(200.0, 1e6)}),
    "steps": st.builds(
        Steps, SHARES, st.lists(SHARES, min_size=1, max_size=4).map(tuple), **PLANNED
    ),
    "one-cycle": st.builds(OneCycle, st.floats(0.01, 1.0), st.floats(0.01, 0.5), **PLANNED),
    "plateau": st.builds(
        Plateau, st.floats(0.01, 0.99), st.integers(1, 9), st.floats(0.0, 9.0), SHARES, **WARMUP
    ),
}
"""Schedules with settings that are any."""

anyone = st.one_of(*ANY.values())


def test_every_schedule_is_among_those_that_are_drawn():
    assert list(ANY) == list(SCHEDULES)
    assert [SCHEDULES[name].name for name in SCHEDULES] == list(SCHEDULES)


# Formulas

CYCLE = {0: 0.2, 250: 0.6, 499: 0.9984, 500: 1.0, 750: 0.6, 999: 0.2016}


@pytest.mark.parametrize(
    ("schedule", "due"),
    [
        (Constant(), lambda t: 1.0),  # noqa: ARG005
        (Falling(0.5, 100.0), lambda t: 1 / (1 + 0.5 * ((1 + t / 100) ** 0.5 - 1))),
        (InverseScaling(), lambda t: 1 / (t + 1) ** 0.25),
        (InverseScaling(0.5), lambda t: 1 / (t + 1) ** 0.5),
        (Staircase(0.5, 200.0), lambda t: 0.5 ** (t // 200)),
        (Linear(), lambda t: 1 - t / 1000),
        (Linear(0.1), lambda t: 1 - 0.9 * t / 1000),
        (Linear(0.1, over=250.0), lambda t: max(0.1, 1 - 0.9 * t / 250)),
        (Cosine(0.1), lambda t: 0.1 + 0.9 * (1 + cos(pi * t / 1000)) / 2),
        (Cosine(0.1, over=500.0), lambda t: 0.1 + 0.9 * (1 + cos(pi * min(t / 500, 1))) / 2),
        (Exponential(0.5), lambda t: 0.5 ** (t / 1000)),
        (Exponential(0.5, over=100.0), lambda t: 0.5 ** (t / 100)),
        (Steps(0.1, (0.75, 0.25)), lambda t: 1.0 if t < 250 else 0.1 if t < 750 else 0.01),
        (Plateau(), lambda t: 1.0),  # noqa: ARG005 (a run lowers the rate)
        (OneCycle(0.2, 0.5, 0.01), CYCLE.__getitem__),
        (
            OneCycle(0.1, 0.45, 0.01),
            lambda t: (
                0.1 + 0.9 * t / 450 if t < 450
                else 1 - 0.9 * (t - 450) / 450 if t < 900
                else 0.1 - 0.09 * (t - 900) / 100
            ),
        ),
    ],
    ids=lambda value: "formula" if callable(value) else str(value),  # the same in each process
)  # fmt: skip
def test_rates_are_the_formulas(schedule, due):
    t = np.array([0.0, 250.0, 499.0, 500.0, 750.0, 999.0])
    shares = np.array([due(int(each)) for each in t])
    np.testing.assert_allclose(schedule.rate(t, 2.0, HORIZON), 2 * shares, rtol=1e-12)
    # Beyond the plan, the rate stays.
    assert schedule.rate(5000.0, 2.0, HORIZON) == schedule.rate(999.0, 2.0, HORIZON)


@given(anyone)
def test_a_warm_up_rises_along_a_line_and_then_the_schedule_begins(schedule):
    cold = SCHEDULES.from_json(SCHEDULES.to_json(schedule) | {"warmup": 0.0})
    t = np.arange(HORIZON)
    rates, first = schedule.rate(t, 0.5, HORIZON), float(cold.rate(0.0, 0.5, HORIZON))
    rising = t < schedule.warmup
    line = np.minimum(1.0, (t[rising] + 1) / max(schedule.warmup, 1.0))
    np.testing.assert_allclose(rates[rising], first * line, rtol=1e-12)
    after = cold.rate(t[~rising] - schedule.warmup, 0.5, HORIZON - schedule.warmup)
    np.testing.assert_allclose(rates[~rising], after, rtol=1e-12)


@given(anyone)
def test_rates_are_above_zero_and_at_most_the_learning_rate(schedule):
    rates = schedule.rate(np.arange(2 * HORIZON), 0.25, HORIZON)
    assert rates.shape == (2 * HORIZON,)
    assert ((rates > 0.0) & (rates <= 0.25 * (1 + 1e-12))).all()
    after = np.diff(rates[int(np.ceil(schedule.warmup)) :])
    if isinstance(schedule, OneCycle):
        # Up once, and down once.
        assert (np.diff(np.sign(after[np.abs(after) > 1e-15])) <= 0).all()
    else:
        assert (after <= 1e-15).all()


@given(anyone, st.floats(0.0, 3000.0))
def test_one_number_of_updates_has_the_rate_that_it_has_among_others(schedule, t):
    among = schedule.rate(np.array([3.0, t, 640.0]), 0.25, HORIZON)
    assert float(schedule.rate(t, 0.25, HORIZON)) == pytest.approx(float(among[1]), rel=1e-14)


# Text and JSON


@pytest.mark.slow
@given(anyone)
def test_a_schedule_is_itself_again_through_text_and_json(schedule):
    assert SCHEDULES.parse(str(schedule)) == schedule
    assert SCHEDULES.from_json(json.loads(json.dumps(SCHEDULES.to_json(schedule)))) == schedule


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("constant", Constant()),
        ("invscaling:power_t=0.5", InverseScaling(0.5)),
        ("cosine:last=0.1,warmup=500", Cosine(0.1, warmup=500.0)),
        ("steps:at=0.5", Steps(at=(0.5,))),
        ("steps:factor=0.5,at=0.25/0.5/0.75,over=1e4", Steps(0.5, (0.25, 0.5, 0.75), over=1e4)),
        ("one-cycle:peak=0.3", OneCycle(peak=0.3)),
    ],
)
def test_text_names_a_schedule_and_its_settings(text, value):
    assert SCHEDULES.parse(text) == value


# What is refused


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("constant", {"warmup": -1.0}, "warmup=-1.0 is not a finite number of updates"),
        ("constant", {"warmup": inf}, "warmup=inf is not a finite"),
        ("falling", {"noise": 1.5}, "noise=1.5 is not a number from 0 to 1"),
        ("falling", {"fall": 0.0}, "fall=0.0 is not a finite number above 0"),
        ("invscaling", {"power_t": 0.0}, "power_t=0.0 is not a finite number above 0"),
        ("staircase", {"factor": 0.0}, "factor=0.0"),
        ("staircase", {"every": 0.0}, "every=0.0"),
        ("linear", {"last": 1.5}, "last=1.5 is not a number from 0 to 1"),
        ("linear", {"over": np.nan}, "over=nan is not a finite number of updates"),
        ("cosine", {"last": -1.0}, "last=-1.0"),
        ("cosine", {"last": -1.0, "warmup": -1.0}, "warmup=-1.0"),
        ("exponential", {"last": 0.0}, "last=0.0"),
        ("steps", {"at": (0.5, -1.0)}, "at=-1.0"),
        ("plateau", {"factor": 1.0}, "factor=1.0 is not a number above 0 and below 1"),
        ("plateau", {"factor": np.nan}, "factor=nan"),
        ("plateau", {"patience": 0.0}, "patience=0.0 is not a whole number of at least 1"),
        ("plateau", {"patience": 2.5}, "patience=2.5"),
        ("plateau", {"patience": inf}, "patience=inf"),
        ("plateau", {"min_delta": -1.0}, "min_delta=-1.0 is not a finite number of at least 0"),
        ("plateau", {"last": 0.0}, "last=0.0 is not a number above 0 and at most 1"),
        ("one-cycle", {"first": 0.0}, "first=0.0 is not a number above 0 and at most 1"),
        ("one-cycle", {"peak": 0.6}, "peak=0.6 is not a number above 0 and at most 0.5"),
        ("one-cycle", {"last": 0.2}, "last=0.2 is not a number from 0 to first=0.1"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(name, settings, said):
    with pytest.raises(ValueError, match=said):
        SCHEDULES[name](**settings)


@pytest.mark.parametrize(
    ("schedule", "horizon", "said"),
    [
        (Linear(over=100), 1000, "'linear:over=100' has a learning rate of 0, .* after 100 of 1,0"),
        (Cosine(over=100, warmup=50), 1000, "learning rate of 0, .* after 150 of 1,000 updates"),
        (OneCycle(last=0, over=10), 1000, "learning rate of 0, .* after 10 of 1,000"),
        (Staircase(0.5, 1.0), 1e5, r"of 0, which .*\(give a `last` or a `factor`.* of 100,000"),
        (Staircase(2.0, 1.0), 1e5, r"of inf, which must be finite and above 0 \(lower it\), after"),
        (Exponential(1e-300), 1e9, None),
        (Exponential(1e-9, over=10), 1000, "learning rate of 0, .* after 36[01] of 1,000"),
        (Constant(warmup=50), 50, "warmup=50 of schedule='constant:warmup=50' is not below the 50"),
        (Constant(warmup=49), 50, None),
        (Linear(), 1, None),
        (
            Linear(),
            inf,
            "follows the planned number of updates, which is not .*'linear:over=10000'",
        ),
        (Steps(), inf, "'steps' follows the planned number"),
        (Cosine(over=1e4), inf, None),
        (Cosine(over=100), inf, "learning rate of 0, .* after 100 updates$"),
        (InverseScaling(warmup=1e6), inf, None),
    ],
    ids=str,
)
def test_a_run_that_cannot_follow_a_schedule_is_refused(schedule, horizon, said):
    if said is None:
        assert schedule.require_rates(horizon) is schedule
        return
    with pytest.raises(ValueError, match=said):
        schedule.require_rates(horizon)


def test_a_schedule_that_would_leave_out_the_warm_up_cannot_be_written():
    with pytest.raises(
        TypeError, match="Own defines `rate`, which warms up by itself; define `sha"
    ):

        class Own(Schedule):
            def rate(self, t: Any, eta0: float, horizon: float) -> Any:  # type: ignore[misc]
                del t, horizon
                return eta0


def test_a_schedule_of_ones_own_can_warm_up_and_be_saved(monkeypatch):
    monkeypatch.setattr(SCHEDULES, "_classes", dict(SCHEDULES._classes))

    @SCHEDULES.add
    @dataclass(frozen=True)
    class Wave(Schedule):
        deep: float = 0.5
        name: ClassVar[str] = "wave"

        def share(self, t: Any, horizon: float) -> Any:  # noqa: ARG002
            return 1.0 + self.deep * np.sin(t)

    found = SCHEDULES.parse("wave:deep=0.25,warmup=4")
    assert found == Wave(0.25, warmup=4.0)
    assert found.rate(1.0, 0.8, 100.0) == pytest.approx(0.4)
    assert found.rate(6.0, 0.8, 100.0) == pytest.approx(0.8 * (1 + 0.25 * np.sin(2.0)))


# Tables


def test_a_table_holds_the_rates_of_the_updates_to_come():
    table = RateTable(lambda t: 1.0 + t)
    for first in (0, 100, 4000, 8000, 65_000, 65_530, 200_000, 200_001, 10**7):
        table.cover(first, 7000)
        t = np.arange(first, first + 7000)
        due = [1.0 + update_of_rate(int(each)) for each in t]
        np.testing.assert_array_equal(table.rates[t % len(table.rates)], due)


def test_the_first_updates_have_their_own_rates_and_later_ones_nearly():
    assert [update_of_rate(t) for t in (0, 1, EXACT_UPDATES - 1)] == [0, 1, EXACT_UPDATES - 1]
    for t in (EXACT_UPDATES, 10_001, 10**6 + 31):
        assert t - 0.004 * t <= update_of_rate(t) <= t


def test_a_table_refuses_a_rate_that_an_update_would_have_and_no_earlier():
    schedule = Staircase(0.5, 10.0)  # below the least number after 10,750 updates
    table = RateTable(lambda t: schedule.rate(t, 1.0, inf))
    for first in range(0, 10_000, 2_000):
        table.cover(first, 2_000)
    table.cover(10_000, 740)
    with pytest.raises(
        ValueError, match=r"learning rate of 0, which must be.* after 10,75\d updat"
    ):
        table.cover(10_740, 100)
