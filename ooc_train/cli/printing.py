"""What commands print: counts in words, aligned tables, and JSON."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from ooc_train.core.text import json_ready, printable


def aligned(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> list[str]:
    """Return lines of columns: those numbered in `left` to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def one_line(text: str) -> str:
    """Return a name from data as what can neither steer a terminal nor pass for a line of ours."""
    return printable(text).replace("\n", "\\n")


def count(n: int, what: str) -> str:
    """Return a number of things in words: "1 worker", "2 workers"."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def print_json(value: Mapping[str, Any]) -> None:
    """Print one object on stdout."""
    typer.echo(json.dumps(json_ready(value), indent=2))
