"""Parsers of options.

Each raises ValueError with the name of the option and its valid values. `parsed` turns that into a
usage error.
"""

import csv
from collections.abc import Callable, Mapping
from typing import Any

import typer

from ooc_train.core.schema import shown
from ooc_train.core.units import parse_bytes, parse_duration, parse_rows


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


def batch_size(text: str) -> int | str:
    """Parse "full", "chunk" or a number of rows."""
    if text in ("full", "chunk"):
        return text
    try:
        return parse_rows(text)
    except ValueError:
        raise ValueError(
            f"batch_size={shown(text)} is not 'full', 'chunk' or a whole number of rows such as 256"
        ) from None


def batch_sizes(text: str) -> tuple[int | str, ...]:
    """Parse batch sizes separated by commas."""
    return tuple(batch_size(part.strip()) for part in text.split(","))


def passes(text: str) -> float:
    """Parse a number of passes above 0."""
    passes = float(text) if text.replace(".", "", 1).isdigit() else 0.0
    if not passes:
        raise ValueError(f"max_passes={shown(text)} is not a number of passes above 0")
    return passes


def duration(text: str) -> float:
    """Parse a duration; return seconds."""
    seconds = parse_duration(text)
    if not seconds:
        raise ValueError(f"max_seconds={shown(text)} should be above 0")
    return seconds


def address(text: str) -> str:
    """Check HOST:PORT."""
    _, colon, port = text.rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError(f"{shown(text)} is not HOST:PORT, such as 127.0.0.1:8787")
    return text


def learning_rate(text: str) -> float | str:
    """Parse "auto" or a rate."""
    try:
        return text if text == "auto" else float(text)
    except ValueError:
        raise ValueError(f"learning_rate={shown(text)} is not 'auto' or a number") from None


def shuffle_chunks(text: str) -> int | str:
    """Parse "auto" or a number of chunks."""
    try:
        return text if text == "auto" else int(text)
    except ValueError:
        raise ValueError(
            f"shuffle_chunks={shown(text)} is not 'auto' or a number of chunks"
        ) from None


def class_weight(text: str) -> str | Mapping[str, float]:
    """Parse "balanced" or weights of labels."""
    if text == "balanced":
        return text
    pairs = [part.rpartition("=") for part in text.split(",")]
    try:
        weights = {label: float(weight) for label, _, weight in pairs}
    except ValueError:
        weights = {}
    if "" in weights or len(weights) != len(pairs):
        raise ValueError(
            f"class_weight={shown(text)} is not 'balanced' or the weights of labels, such as "
            "no=1,yes=5"
        )
    return weights


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
