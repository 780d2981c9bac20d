"""A bar in a notebook: an HTML element below the cell, which is updated in place."""

import importlib
import sys
from time import perf_counter
from typing import Any

from ooc_train.core.text import html_escaped

_SECONDS = 0.25
"""Least time between two updates, each of which is a message to the browser."""


def in_notebook() -> bool:
    """Return whether this process runs the cells of a notebook."""
    # A kernel has loaded IPython; other processes need not.
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


class NotebookBar:
    """A bar, its title and a line of figures."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._last = ""
        self._at = 0.0

    def show(self, title: str, share: float | None, text: str) -> None:
        """Show a share from 0 to 1, or None if it is unknown, at most four times a second."""
        value = "" if share is None else f' value="{share:.4f}"'
        self._last = (
            f'<div><progress max="1"{value} style="width:14em;vertical-align:middle"></progress> '
            f"<b>{html_escaped(title)}</b> {html_escaped(text)}</div>"
        )
        if perf_counter() - self._at >= _SECONDS:
            self._draw()

    def end(self) -> None:
        """Draw what was shown last."""
        if self._last:
            self._draw()

    def _draw(self) -> None:
        shown: Any = importlib.import_module("IPython.display")
        self._at, self._last, html = perf_counter(), "", shown.HTML(self._last)
        if self._handle is None:
            self._handle = shown.display(html, display_id=True)
        else:
            self._handle.update(html)
