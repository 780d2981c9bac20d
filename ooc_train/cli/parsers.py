"""Parsers of options.

Each raises ValueError with the name of the option and its valid values. `parsed` turns that into a
usage error.
"""

import csv
from collections.abc import Callable, Sequence
from typing import Any

import typer

from ooc_train.core.schema import shown
from ooc_train.core.settings import settings_of
from ooc_train.core.units import parse_bytes, parse_interval, parse_rows
from ooc_train.solvers.training_settings import Training


def parsed(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a parser whose errors are usage errors of the command."""

    def parser(text: str) -> Any:
        try:
            return parse(text)
        except (ValueError, OverflowError) as error:
            raise typer.BadParameter(str(error)) from None

    return parser


def size(text: str) -> str:
    """Check a number of bytes, and return its text unchanged."""
    parse_bytes(text)
    return text


def interval(text: str) -> str:
    """Check a duration or a number of passes, and return its text unchanged."""
    parse_interval(text)
    return text


def batch_sizes(text: str) -> tuple[int | str, ...]:
    """Parse batch sizes separated by commas."""
    constraint = settings_of(Training)["batch_size"].constraint
    return tuple(constraint.parse("batch_size", part.strip()) for part in text.split(","))


def address(text: str) -> str:
    """Check an address HOST:PORT, and return its text unchanged."""
    _, colon, port = text.rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError(f"{shown(text)} is not HOST:PORT, such as 127.0.0.1:8787")
    return text


def column(text: str, names: Sequence[str] | None) -> str | int:
    """Return a column as a name, or as a number if columns have no names."""
    return int(text) if names is None and text.isdecimal() else text


LIST = "A,B,..."
"""The placeholder of options that `names` parses, which may be given several times."""


def names(text: str) -> tuple[str, ...]:
    """Parse names separated by commas; names with commas are quoted, as in CSV."""
    try:
        found = tuple(name for name in next(csv.reader([text], skipinitialspace=True)) if name)
    except csv.Error:  # a name longer than 128 KiB, or one with half of a quoted line break
        found = ()
    if not found:
        raise ValueError(f"{shown(text)} names no column; separate names by commas")
    return found


def rows_of(text: str) -> int:
    """Parse a number of rows above 0."""
    rows = parse_rows(text)
    if not rows:
        raise ValueError(f"{shown(text)} is no number of rows above 0")
    return rows
