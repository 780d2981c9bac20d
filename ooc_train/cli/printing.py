"""Output of commands: counted nouns, aligned tables, JSON."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from ooc_train.core.text import json_ready, printable


def aligned(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> list[str]:
    """Return a table as lines; columns numbered in `left` are left-aligned, others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def one_line(text: str) -> str:
    """Escape text from data, so that it stays on its line and can't control the terminal."""
    return printable(text).replace("\n", "\\n")


def count(n: int, what: str) -> str:
    """Return a counted noun: "1 worker", "2 workers"."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def print_json(value: Mapping[str, Any]) -> None:
    """Print a JSON object on stdout."""
    typer.echo(json.dumps(json_ready(value), indent=2))
