import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ooc_train.core.units import (
    approximate_bytes,
    approximate_duration,
    format_bytes,
    format_duration,
    format_rows,
    parse_bytes,
    parse_duration,
    parse_rows,
)

# Whole units as often as odd numbers: a format has a branch for each.
whole_numbers = st.integers(0, 2**80) | st.builds(
    lambda n, base, power: n * base**power,
    st.integers(min_value=0, max_value=2000),
    st.sampled_from([1000, 1024]),
    st.integers(min_value=0, max_value=6),
)


@given(whole_numbers)
def test_bytes_round_trip(n):
    assert parse_bytes(format_bytes(n)) == n


@given(whole_numbers)
def test_rows_round_trip(n):
    assert parse_rows(format_rows(n)) == n


@given(st.floats(min_value=0, max_value=1e300) | st.integers(0, 10**9).map(float))
def test_durations_round_trip(seconds):
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("1GiB", 2**30),
        ("512 MiB", 2**29),
        ("1.5e9", 1_500_000_000),
        ("1.5e3 kB", 1_500_000),
        (" 64 kib ", 2**16),
        ("2G", 2 * 10**9),
        (".5 TiB", 2**39),
        ("1 B", 1),
        ("0", 0),
        ("0.1 KiB", 102),
        (1e9, 10**9),
        (7, 7),
        (2.9, 2),
    ],
)
def test_bytes_are_read_as_people_write_them(text, n):
    assert parse_bytes(text) == n


def test_numbers_of_numpy_become_plain_ints():
    for five in (np.array([5, 5]).max(), np.array([5.0]).max()):
        assert type(parse_bytes(five)) is type(parse_rows(five)) is int
        assert parse_bytes(five) == parse_rows(five) == 5


@pytest.mark.parametrize(
    ("text", "n"), [("20M", 20_000_000), ("1.5k", 1500), ("1_000", 1000), ("2b", 2 * 10**9), (9, 9)]
)
def test_rows_are_read_as_people_write_them(text, n):
    assert parse_rows(text) == n


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1h30m", 5400),
        ("1 h 30 min", 5400),
        ("90s", 90),
        ("2 min", 120),
        ("90", 90),
        ("1.5 hours", 5400),
        ("1d1s", 86401),
        ("250ms", 0.25),
        (0.5, 0.5),
    ],
)
def test_durations_are_read_as_people_write_them(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "GiB", "1 XB", "-1", "1,5 GiB", "1 GiB 2", "1e9999", "nan", "inf", -1, True]
)
def test_bad_bytes_say_what_is_accepted(text):
    with pytest.raises(ValueError, match=r"is not a number of bytes such as .*'1 GiB'"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["", "M", "1.5", "20 GiB", "1.0001k", -3, 0.5, math.inf, math.nan])
def test_bad_rows_say_what_is_accepted(text):
    with pytest.raises(ValueError, match=r"is not a whole number of rows such as .*'20M'"):
        parse_rows(text)


@pytest.mark.parametrize(
    "text", ["", "soon", "1h30", "30 1h", "1x", "-1s", "1h,2m", "1e999", math.inf, -1]
)
def test_bad_durations_say_what_is_accepted(text):
    with pytest.raises(ValueError, match=r"a duration such as .*'1h30m'"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0 B"),
        (1023.9, "1 KiB"),
        (1000, "1000 B"),
        (1024**3 - 1, "1 GiB"),
        (1_500_000_000, "1.4 GiB"),
        (9.99 * 1024**2, "9.99 MiB"),
        (99.96 * 1024**2, "100 MiB"),
        (229 * 1024**2, "229 MiB"),
        (5000 * 1024**5, "5000 PiB"),
        (-1024, "-1 KiB"),
    ],
)
def test_approximate_bytes_are_short(n, text):
    assert approximate_bytes(n) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 ms"), (0.9996, "1 s"), (1, "1 s"), (59.96, "1m"), (61.4, "1m1s"), (0.0005, "0.5 ms")],
)
def test_approximate_durations_are_short(seconds, text):
    assert approximate_duration(seconds) == text
