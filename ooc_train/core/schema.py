"""Declared checks of values that were read from files.

A check is a function of a value and its place, such as "statistics.mean". It raises `UnfitError`
where the value is not as declared. Checks of records and lists are made of other checks.

>>> person = record({"name": text, "age": integer(0, 150)}, optional={"sizes": list_of(number())})
>>> person({"name": "A", "age": 200}, "")
Traceback (most recent call last):
    ...
ooc_train.core.schema.UnfitError: age is 200, which is no whole number from 0 to 150
"""

import math
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from ooc_train.core.files import FileKind

Check: TypeAlias = Callable[[Any, str], None]
"""Takes a value and its place; raises `UnfitError` if the value is not as declared."""

INT64 = 2**63 - 1
_SHOWN = 60


class UnfitError(ValueError):
    """Raised for a value that is not as declared; the message has the value's place."""


def require(
    values: Any, check: Check, path: str | os.PathLike[str], kind: FileKind, *, inside: str = ""
) -> None:
    """Raise an error that names the file, if values read from it are not as declared.

    Parameters
    ----------
    values : object
        The values that were read.
    check : Check
        Their declaration.
    path : str or os.PathLike
        The file, for the message.
    kind : FileKind
        The kind of the file: the error to raise, and its advice.
    inside : str
        The place of the values in the file, such as "attributes".

    Raises
    ------
    FileKind.error
        With the file, the place, the value, and what it should be.
    """
    try:
        check(values, inside)
    except UnfitError as error:
        raise kind.error(f"{os.fspath(path)}: {error}; {kind.advice}") from None


def shown(value: Any) -> str:
    """Return any value as text for a message, shortened; never raises."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 1000:
        return f"a number of {value.bit_length():,} bits"
    if isinstance(value, dict | list | tuple) and len(value) > 8:
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value):,} values"
    if isinstance(value, str):
        value = value if len(value) <= _SHOWN else f"{value[:_SHOWN]}..."
    try:
        written = repr(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__}"
    return written if len(written) <= 2 * _SHOWN else f"{written[: 2 * _SHOWN]}..."


def _unfit(place: str, value: Any, what: str) -> UnfitError:
    return UnfitError(f"{place or 'what it holds'} is {shown(value)}, which is no {what}")


def anything(value: Any, place: str) -> None:
    """Accept any value: a check that never fails."""


def text(value: Any, place: str) -> None:
    """Raise `UnfitError` unless the value is text."""
    if not isinstance(value, str):
        raise _unfit(place, value, "text")


def flag(value: Any, place: str) -> None:
    """Raise `UnfitError` unless the value is true or false."""
    if not isinstance(value, bool):
        raise _unfit(place, value, "true or false")


def scalar(value: Any, place: str) -> None:
    """Raise `UnfitError` unless the value is text, true, false or a finite number."""
    if not isinstance(value, str | int) and not (isinstance(value, float) and math.isfinite(value)):
        raise _unfit(place, value, "text, number or truth value")


def integer(least: int = -INT64, most: int = INT64) -> Check:
    """Return a check that accepts whole numbers from `least` to `most`."""

    def check(value: Any, place: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            bounds = f" from {least:,} to {most:,}" if most < INT64 else f" of at least {least:,}"
            raise _unfit(place, value, f"whole number{bounds if least > -INT64 else ''}")

    return check


def number(least: float = -math.inf, *, finite: bool = True) -> Check:
    """Return a check that accepts float64 numbers >= `least`; NaN, infinity if not `finite`."""

    def check(value: Any, place: str) -> None:
        if not isinstance(value, bool) and isinstance(value, int | float):
            try:
                as_float = float(value)
            except OverflowError:
                as_float = math.nan
            if as_float >= least and (math.isfinite(as_float) or not finite):
                return
            if not finite and math.isnan(as_float) and isinstance(value, float):
                return
        bound = f" of at least {least:g}" if least > -math.inf else ""
        raise _unfit(place, value, f"{'finite ' if finite else ''}number{bound}")

    return check


def one_of(*known: Any) -> Check:
    """Return a check that accepts only the listed values."""

    def check(value: Any, place: str) -> None:
        # In Python True equals 1; here the types have to match.
        if not any(type(value) is type(each) and value == each for each in known):
            listed = ", ".join(map(repr, known))
            raise _unfit(place, value, f"one of {listed}" if len(known) > 1 else listed)

    return check


def or_none(check: Check) -> Check:
    """Return a check that accepts null, and what another check accepts."""

    def checked(value: Any, place: str) -> None:
        if value is not None:
            check(value, place)

    return checked


def either(*checks: Check) -> Check:
    """Return a check that accepts what any of several checks accepts; the last one's message."""

    def check(value: Any, place: str) -> None:
        for one in checks[:-1]:
            try:
                one(value, place)
            except UnfitError:
                continue
            return
        checks[-1](value, place)

    return check


def all_of(*checks: Check) -> Check:
    """Return a check that accepts what each of several checks accepts, called in order."""

    def check(value: Any, place: str) -> None:
        for one in checks:
            one(value, place)

    return check


def list_of(check: Check, *, least: int = 0, most: int = INT64) -> Check:
    """Return a check that accepts lists of `least` to `most` items that `check` accepts."""

    def checked(value: Any, place: str) -> None:
        _require_list(value, place, least, most)
        for i, item in enumerate(value):
            check(item, f"{place}[{i}]")

    return checked


def numbers(*, least: int = 0, most: int = INT64) -> Check:
    """Return a check that accepts lists of `least` to `most` finite numbers; fast for long ones."""

    def check(value: Any, place: str) -> None:
        _require_list(value, place, least, most)
        if {int, float}.issuperset(map(type, value)):
            try:
                if all(map(math.isfinite, value)):
                    return
            except OverflowError:
                pass
        list_of(number())(value, place)

    return check


def texts(*, least: int = 0, most: int = INT64) -> Check:
    """Return a check that accepts lists of `least` to `most` texts; fast for long ones."""

    def check(value: Any, place: str) -> None:
        _require_list(value, place, least, most)
        if not {str}.issuperset(map(type, value)):
            list_of(text)(value, place)

    return check


def _require_list(value: Any, place: str, least: int, most: int) -> None:
    if not isinstance(value, list | tuple):
        raise _unfit(place, value, "list")
    if not least <= len(value) <= most:
        due = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        due = f"at least {least:,}" if most == INT64 else due
        raise UnfitError(f"{place} has {len(value):,} items, and {due} are due")


def mapping(value: Any, place: str) -> None:
    """Raise `UnfitError` unless the value is an object (a mapping), of any content."""
    if not isinstance(value, Mapping):
        raise _unfit(place, value, "object")


def mapping_of(check: Check) -> Check:
    """Return a check that accepts objects (mappings), each of whose values `check` accepts."""

    def checked(value: Any, place: str) -> None:
        mapping(value, place)
        for key, item in value.items():
            check(item, _within(place, key))

    return checked


def record(
    fields: Mapping[str, Check],
    *,
    optional: Mapping[str, Check] | None = None,
    others: bool = True,
) -> Check:
    """Return a check that accepts objects with these keys and values that their checks accept.

    Parameters
    ----------
    fields, optional : mapping of str to Check
        Required keys and optional keys.
    others : bool
        Whether other keys are ignored; otherwise they are refused.
    """
    optional = optional or {}

    def check(value: Any, place: str) -> None:
        mapping(value, place)
        for key, inside in fields.items():
            if key not in value:
                raise UnfitError(f"{_within(place, key)} is missing")
            inside(value[key], _within(place, key))
        for key, inside in optional.items():
            if key in value:
                inside(value[key], _within(place, key))
        if not others and (unknown := min(set(value) - set(fields) - set(optional), default="")):
            raise UnfitError(f"{_within(place, unknown)} is none that is known here")

    return check


def _within(place: str, key: str) -> str:
    name = key if key.isidentifier() else shown(key)
    return f"{place}.{name}" if place else name
