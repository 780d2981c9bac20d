"""Output of commands: aligned tables, text on one line, JSON."""

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from ooc_train.core.text import aligned as aligned
from ooc_train.core.text import json_ready, printable

if TYPE_CHECKING:
    from ooc_train.monitoring.callbacks import ConsoleBar
    from ooc_train.store.dataset import Store


def csv_text(rows: Sequence[Sequence[str]]) -> str:
    """Return a table as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def one_line(text: str) -> str:
    """Escape text from data, so that it stays on its line and can't control the terminal."""
    return printable(text).replace("\n", "\\n")


def short_path(path: str) -> str:
    """Return a path relative to the working folder if it lies in there, else the path itself.

    >>> short_path("/data/rows.zarr"), short_path(os.path.abspath("rows.zarr"))
    ('/data/rows.zarr', 'rows.zarr')
    >>> short_path("s3://bucket/rows.zarr")
    's3://bucket/rows.zarr'
    """
    if "://" in path:
        return path
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative


def print_json(value: Mapping[str, Any]) -> None:
    """Print a JSON object on stdout."""
    typer.echo(json.dumps(json_ready(value), indent=2))


def noted(store: "Store", bar: "ConsoleBar") -> "Store":
    """Return a store that a job is about to read, after a note if that will be slow."""
    from ooc_train.store.jobs.rewriting_commands import small_chunks_note

    if note := small_chunks_note(store):
        bar.say(f"note: {note}")
    return store
