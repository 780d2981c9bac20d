"""Conversions of bytes, rows and durations between numbers, inside the package, and text.

`parse_bytes`, `parse_rows` and `parse_duration` parse text. `format_bytes`, `format_rows` and
`format_duration` return text that parses to the same number. `approximate_bytes` and
`approximate_duration` return short text for messages.
"""

import math
import re
from collections.abc import Mapping
from fractions import Fraction

from ooc_train.core.schema import shown

_BYTES = {
    "": 1,
    "b": 1,
    **{prefix + "b": 1000**power for power, prefix in enumerate("kmgtp", start=1)},
    **{prefix: 1000**power for power, prefix in enumerate("kmgtp", start=1)},
    **{prefix + "ib": 1024**power for power, prefix in enumerate("kmgtp", start=1)},
}
_MOST = 2**80

MOST_WORKERS = 1024
"""Most workers on one machine, and most threads of a worker."""

_BINARY = {"PiB": 1024**5, "TiB": 1024**4, "GiB": 1024**3, "MiB": 1024**2, "KiB": 1024}
_ROWS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
_SECONDS = {
    **dict.fromkeys(("", "s", "sec", "second", "seconds"), Fraction(1)),
    "ms": Fraction(1, 1000),
    **dict.fromkeys(("m", "min", "minute", "minutes"), Fraction(60)),
    **dict.fromkeys(("h", "hour", "hours"), Fraction(3600)),
    **dict.fromkeys(("d", "day", "days"), Fraction(86400)),
}

# The exponent is short, since Fraction would compute 1e999999999 exactly.
_QUANTITY = re.compile(r"\s*((?:\d+\.?\d*|\.\d+)(?:e[+-]?\d{1,3})?)\s*([a-z]*)\s*", re.ASCII)


def parse_bytes(value: str | float) -> int:
    """Convert a number of bytes, as text or number, to a whole number, rounded down.

    Parameters
    ----------
    value : str, int or float
        A number of bytes, or text: a number and a unit. KiB, MiB, GiB, TiB and PiB are powers of
        1024; kB, MB, GB, TB and PB, with or without the B, are powers of 1000. Case is ignored.

    Raises
    ------
    ValueError
        If the text is something else, or the number is negative or not finite.

    Examples
    --------
    >>> parse_bytes("1GiB"), parse_bytes("512 MiB"), parse_bytes("1.5e9"), parse_bytes(4096)
    (1073741824, 536870912, 1500000000, 4096)
    """
    accepted = "a number of bytes such as 1073741824, '1 GiB', '512MiB' or '1.5 GB'"
    return _within(int(_quantity(value, _BYTES, accepted)), value, "bytes")


def format_bytes(n: int) -> str:
    """Return a number of bytes as text that `parse_bytes` reads exactly.

    Examples
    --------
    >>> format_bytes(1073741824), format_bytes(1536 * 1024), format_bytes(1500)
    ('1 GiB', '1536 KiB', '1500 B')
    """
    for unit, size in _BINARY.items():
        if n and n % size == 0:
            return f"{n // size} {unit}"
    return f"{n} B"


def approximate_bytes(n: float) -> str:
    """Return a number of bytes as short text, rounded.

    Examples
    --------
    >>> approximate_bytes(1_500_000_000), approximate_bytes(512 * 1024**2), approximate_bytes(12)
    ('1.4 GiB', '512 MiB', '12 B')
    """
    if abs(n) > _MOST**2:
        return f"more than {_MOST // 2**50:,} PiB"
    for unit, size in _BINARY.items():
        # Not 1: 1023.9 MiB would round to 1024 MiB, which is 1 GiB.
        if abs(n) >= 0.9995 * size:
            return f"{_short(n / size)} {unit}"
    return f"{n:.0f} B"


def parse_rows(value: str | float) -> int:
    """Convert a number of rows, as text or number, to a whole number.

    Parameters
    ----------
    value : str, int or float
        A whole number, or text: digits with commas or underscores anywhere, and k, M or B
        (thousand, million, billion). Case is ignored.

    Raises
    ------
    ValueError
        If the text is something else, or the number is negative or not whole.

    Examples
    --------
    >>> parse_rows("20M"), parse_rows("1.5k"), parse_rows("336,776"), parse_rows(12)
    (20000000, 1500, 336776, 12)
    """
    accepted = "a whole number of rows such as 20000000, '20,000,000', '20M' or '1.5k'"
    text = value.replace(",", "").replace("_", "") if isinstance(value, str) else value
    rows = _quantity(text, _ROWS, accepted)
    if rows.denominator != 1:
        raise ValueError(f"{shown(value)} is not {accepted}")
    return _within(int(rows), value, "rows")


def _within(number: int, value: object, what: str) -> int:
    if number > _MOST:
        raise ValueError(
            f"{shown(value)} is more than {_MOST:,} {what}, the most that there can be"
        )
    return number


def format_rows(n: int) -> str:
    """Return a number of rows as text that `parse_rows` reads exactly.

    Examples
    --------
    >>> format_rows(20_000_000), format_rows(336_776), format_rows(2_000_000_000)
    ('20M', '336,776', '2B')
    """
    for unit, size in (("B", 10**9), ("M", 10**6)):
        if n and n % size == 0:
            return f"{n // size}{unit}"
    return f"{n:,}"


_PASSES = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*pass(?:es)?\s*")


def parse_interval(value: str | float) -> tuple[float, float]:
    """Convert an interval, a duration or a number of passes, to seconds and passes.

    The one that it does not name is infinite.

    Raises
    ------
    ValueError
        If it is neither, or no passes.

    Examples
    --------
    >>> parse_interval("2 passes"), parse_interval("10min")
    ((inf, 2.0), (600.0, inf))
    """
    found = _PASSES.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return parse_duration(value), math.inf
    passes = float(found[1])
    if not passes:
        raise ValueError(f"{value!r} are no passes; 0 seconds is after each iteration")
    return math.inf, passes


def parse_duration(value: str | float) -> float:
    """Convert a duration, as text or number, to seconds.

    Parameters
    ----------
    value : str, int or float
        A number of seconds, or text: the sum of numbers with units. The units are d, h, m (or
        min), s and ms, or their English names.

    Raises
    ------
    ValueError
        If the text is something else, or the number is negative or not finite.

    Examples
    --------
    >>> parse_duration("1h30m"), parse_duration("90s"), parse_duration("2 min"), parse_duration(5)
    (5400.0, 90.0, 120.0, 5.0)
    """
    accepted = "a duration such as 90, '90s', '2 min' or '1h30m'"
    if not isinstance(value, str):
        seconds = _quantity(value, _SECONDS, accepted)
        _within(int(seconds), value, "seconds")
        return float(seconds)
    parts = [match[0] for match in _QUANTITY.finditer(value.lower())]
    if not parts or "".join(parts) != value.lower():
        raise ValueError(f"{shown(value)} is not {accepted}")
    if len(parts) > 1 and any(part.strip()[-1].isdigit() for part in parts):
        raise ValueError(f"{shown(value)} has a number without a unit; it should be {accepted}")
    try:
        return float(sum(_quantity(part, _SECONDS, accepted) for part in parts))
    except OverflowError:
        raise ValueError(f"{shown(value)} is longer than a float can say; use {accepted}") from None


def format_duration(seconds: float) -> str:
    """Return a duration in seconds as text that `parse_duration` reads exactly.

    Examples
    --------
    >>> format_duration(5400), format_duration(90.0), format_duration(0.25), format_duration(0)
    ('1h30m', '1m30s', '0.25s', '0s')
    """
    if seconds != int(seconds):
        return f"{seconds!r}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "m"), (rest, "s"))
    return "".join(f"{number}{unit}" for number, unit in parts if number) or "0s"


def approximate_duration(seconds: float) -> str:
    """Return a duration in seconds as short text, rounded.

    Examples
    --------
    >>> approximate_duration(0.0123), approximate_duration(12.345), approximate_duration(5423.2)
    ('12.3 ms', '12.3 s', '1h30m23s')
    """
    if seconds < 0.9995:
        return f"{_short(seconds * 1000)} ms"
    if seconds < 59.95:
        return f"{_short(seconds)} s"
    return format_duration(round(seconds))


def _quantity(value: str | float, units: Mapping[str, int | Fraction], accepted: str) -> Fraction:
    """Return the exact value of a number with a unit; the keys of `units` are lower case."""
    if not isinstance(value, str):
        if isinstance(value, bool) or not 0 <= value < math.inf:
            raise ValueError(f"{shown(value)} is not {accepted}")
        return Fraction(value)
    match = _QUANTITY.fullmatch(value.lower())
    if match is None or match[2] not in units:
        raise ValueError(f"{shown(value)} is not {accepted}")
    return Fraction(match[1]) * units[match[2]]


def _short(number: float) -> str:
    """Return a number with at most three digits, without zeros at the end."""
    digits = 0 if number >= 99.95 else 1 if number >= 9.995 else 2
    text = f"{number:.{digits}f}"
    return text.rstrip("0").rstrip(".") if digits else text
