"""Numbers that a type can't tell apart: found in any cut of the rows, and nothing else is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ooc_train.tables.precision import Rounded, Rounding, narrows


def losses(values, dtype="float32", cuts=(), **settings_of_look):
    rounding = Rounding(values.shape[1], "column {}".format, dtype)
    for part in np.split(values, sorted(cuts)):
        rounding.observe(part, **settings_of_look)
    return rounding.losses()


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(st.integers(-(2**53), 2**53) | st.integers(-(2**25), 2**25), min_size=1),
    kind=st.sampled_from(["i8", "f8"]),
    cuts=st.lists(st.integers(0, 20), max_size=3),
)
def test_whole_numbers_are_told_if_and_only_if_one_changes(values, kind, cuts):
    rows = np.array(values, kind)[:, np.newaxis]
    changes = (rows.astype("f4").astype("f8") != rows) & (np.abs(rows) < 2**53)
    if kind == "i8":
        changes = rows.astype("f4").astype("f8") != rows
    assert bool(losses(rows, cuts=cuts)) == changes.any()


@settings(max_examples=200, deadline=None)
@given(
    size=st.floats(-1e6, 1e6),
    spread=st.floats(1e-9, 1e9),
    cuts=st.lists(st.integers(0, 50), max_size=3),
    seed=st.integers(0, 9),
    dtype=st.sampled_from(["f4", "f2"]),
)
def test_columns_of_few_steps_are_told_however_rows_are_cut(size, spread, cuts, seed, dtype):
    values = np.clip(size + spread * np.random.default_rng(seed).random(50), -60_000, 60_000)
    values[seed] = np.nan
    limit = 2 ** (np.finfo(dtype).nmant + 1)
    low, high = np.nanmin(values), np.nanmax(values)
    step = np.spacing(np.abs([low, high]).max().astype(dtype)).astype("f8")
    rounded = values.astype(dtype).astype("f8")
    inexact = (rounded != values) & ~np.isnan(values)
    due = (inexact & (np.abs(values) > limit)).any()
    due |= inexact.any() and 0 < high - low < 1024 * step
    assert bool(losses(values[:, np.newaxis], dtype, cuts)) == due


def test_what_is_told_of_many_columns():
    values = np.array([[2.0**24 + 1, 0.5], [0, 1]]).repeat(40, axis=1)
    found = losses(values)
    assert found[0] == "column 0 has numbers such as 16777217, which becomes 16777216 in float32"
    assert len(found) == 11
    assert found[-1] == "30 more columns have such numbers"


def test_whole_numbers_beyond_float64():
    ids = np.array([[2**53 + 1]], "i8")
    (told,) = losses(ids, "float64")
    assert told.endswith("9007199254740993, which becomes 9007199254740992 in float64")
    (told,) = losses(ids.astype("f8"), "float64", whole=True)
    assert told.endswith("9007199254740992, which are too many digits for float64")
    assert losses(ids.astype("f8"), "float64") == []
    assert losses(np.array([[2**63]], "u8"), "float64") == []


def test_a_strict_one_stops_at_the_first():
    rounding = Rounding(2, "column {}".format, "float32", strict=True)
    rounding.observe(np.array([[1.5], [2**24]]))
    with pytest.raises(Rounded, match="column 1 has numbers such as 16777217"):
        rounding.observe(np.array([[2.0**24 + 1]]), slice(1, 2))
    rounding = Rounding(1, "column {}".format, "float32", strict=True)
    rounding.observe(1e6 + np.arange(9)[:, np.newaxis] / 10)
    with pytest.raises(Rounded, match=r"goes from 1000000 to 1000000\.8"):
        rounding.losses()


@pytest.mark.parametrize(
    ("given", "dtype", "expected"),
    [
        ("f8", "f4", True),
        ("f4", "f8", False),
        ("i8", "f8", True),
        ("i4", "f8", False),
        ("i4", "f4", True),
        ("u2", "f4", False),
        ("?", "f4", False),
        ("i2", "f2", True),
    ],
)
def test_types_that_hold_others(given, dtype, expected):
    assert narrows(np.dtype(given), np.dtype(dtype)) is expected
