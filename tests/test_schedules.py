"""Learning rates by the number of updates."""

import numpy as np
import pytest

from ooc_train.optimizers.schedules import (
    RATE_UPDATES,
    SCHEDULES,
    Constant,
    Cosine,
    Exponential,
    Falling,
    RateTable,
    Steps,
)

every_schedule = pytest.mark.parametrize("name", SCHEDULES)


@every_schedule
def test_a_schedule_begins_with_the_first_rate_and_never_rises(name):
    schedule = SCHEDULES[name]()
    assert schedule.name == name
    rates = schedule.rate(np.arange(2000.0), 0.25, 1000.0)
    assert rates.shape == (2000,)
    assert rates[0] == pytest.approx(0.25)
    assert (np.diff(rates) <= 0.0).all()
    assert (rates >= 0.0).all()


@every_schedule
def test_one_number_of_updates_has_the_rate_that_it_has_among_others(name):
    schedule, t = SCHEDULES[name](), np.array([0.0, 1.0, 640.0, 5000.0])
    alone = [float(schedule.rate(one, 0.25, 1000.0)) for one in t.tolist()]
    np.testing.assert_allclose(alone, schedule.rate(t, 0.25, 1000.0), rtol=1e-15)


@every_schedule
def test_without_a_horizon_rates_are_finite(name):
    rates = SCHEDULES[name]().rate(np.array([0.0, 1e9]), 0.25, np.inf)
    assert np.isfinite(rates).all()


def test_rates_are_the_formulas():
    t = np.array([0.0, 250.0, 500.0, 900.0, 1000.0, 3000.0])
    ask = [
        (Constant(), [1, 1, 1, 1, 1, 1]),
        (Falling(0.5, 100.0), 1 / (1 + 0.5 * (np.sqrt(1 + t / 100) - 1))),
        (Cosine(0.1), 0.1 + 0.9 * (1 + np.cos(np.pi * np.minimum(t / 1000, 1))) / 2),
        (Exponential(0.5), 0.5 ** (t / 1000)),
        (Steps(0.1, (0.5, 0.9)), [1, 1, 0.1, 0.01, 0.01, 0.01]),
    ]
    for schedule, due in ask:
        np.testing.assert_allclose(schedule.rate(t, 2.0, 1000.0), 2 * np.array(due), rtol=1e-12)


def test_a_table_holds_the_rates_of_the_updates_to_come():
    table = RateTable(lambda t: 1.0 + t)
    for first in (0, 100, 65_000, 65_530, 200_000, 200_001, 10**7):
        table.cover(first, 4096)
        for t in (first, first + 63, first + 4096):
            at = t // RATE_UPDATES % len(table.rates)
            assert table.rates[at] == 1.0 + t // RATE_UPDATES * RATE_UPDATES


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("falling", {"noise": 1.5}, "noise=1.5 is not a number from 0 to 1"),
        ("falling", {"fall": 0.0}, "fall=0.0 is not a finite number above 0"),
        ("cosine", {"last": -1.0}, "last=-1.0"),
        ("exponential", {"last": 0.0}, "last=0.0"),
        ("steps", {"at": (0.5, -1.0)}, "at=-1.0"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(name, settings, said):
    with pytest.raises(ValueError, match=said):
        SCHEDULES[name](**settings)
