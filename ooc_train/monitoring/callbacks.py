"""Callbacks: a progress bar or plain lines on stderr, and a list of steps.

Stdout holds results only.
"""

import io
import math
import sys
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter
from typing import IO, TYPE_CHECKING, cast

from ooc_train.core.closing import Closing
from ooc_train.core.text import counted, losses, metric, printable
from ooc_train.core.units import approximate_bytes, format_duration
from ooc_train.monitoring.notebook_bar import NotebookBar, in_notebook
from ooc_train.runs.events import (
    Compiling,
    Ended,
    Event,
    Noted,
    Progressed,
    Saving,
    Started,
    Stepped,
)

if TYPE_CHECKING:
    from rich.progress import Progress

_LINE_SECONDS = 1.0
"""Least time between the lines of steps, without a terminal."""

_QUIET_SECONDS = 10.0
"""Least time between the lines of a long pass or stage."""


_BAR_WIDTH = 12
_WITHIN = " in this pass"


class History(list[Stepped]):
    """The steps of a run, in order."""

    def __call__(self, event: Event) -> None:
        """Append the event if it is a step."""
        if isinstance(event, Stepped):
            self.append(event)


class ConsoleBar(Closing):
    """Shows progress on stderr: a bar on a terminal, elsewhere at most one line a second.

    In a notebook it is a bar below the cell.

    It is a callback of `train`. Its method `progress` is the argument
    `progress` of all other jobs. As a
    context manager it removes its bar at the end.

    Parameters
    ----------
    quiet : bool
        Whether to show nothing.
    verbose : bool
        Whether to print the notes of solvers too, one line each.
    max_passes, max_seconds : float or None
        Limits of the run, for the time left.
    stream : file or None
        Where to write; None is stderr.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from ooc_train import ConsoleBar, LogisticModel, train
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> fitted, _ = train(LogisticModel(), X, y=y, callbacks=[ConsoleBar(quiet=True)])
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        verbose: bool = False,
        max_passes: float | None = None,
        max_seconds: float | None = None,
        stream: IO[str] | None = None,
    ) -> None:
        self._quiet = quiet
        self._verbose = verbose
        self._stream = cast("IO[str]", _BestEffortStream(stream or sys.stderr))
        self._limits = (max_passes, max_seconds)
        self._bar: Progress | None = None
        self._notebook: NotebookBar | None = None
        if not quiet and stream is None and in_notebook():
            self._notebook = NotebookBar()
        elif not quiet and self._stream.isatty():
            self._bar = _make_bar(self._stream)
        self._stage_starts: dict[str, float] = {}
        self._rows = 0
        self._n_rows = 1
        self._total: float | None = None
        self._memory = ""
        self._loss = self._metric = ""
        self._validation: float | None = None
        self._last_line = 0.0
        self._first: tuple[int, float] | None = None
        self._spent = 0, 0.0

    def doing(self, title: str) -> None:
        """Name what is done before any rows are read, on a bar; elsewhere say nothing."""
        self._begin(title, None, "")

    def say(self, text: str) -> None:
        """Print lines, above the bar if there is one."""
        if self._bar is not None:
            self._bar.console.print(printable(text))
        elif not self._quiet:
            self._stream.write(printable(text) + "\n")
            self._stream.flush()

    def progress(self, stage: str, rows: int, share: float) -> None:
        """Show the progress of a stage: its rows so far, and the fraction done, from 0 to 1."""
        now = perf_counter()
        if stage not in self._stage_starts:
            self._stage_starts[stage] = now
            self._begin(stage, 1.0, "")
            return
        seconds = now - self._stage_starts[stage]
        left = seconds * (1 - share) / share if share else 0.0
        figures = [counted(rows, "row"), f"{_short(rows / seconds if seconds else 0.0)} rows/s"]
        self._show(stage, share, 1.0, figures, f"{format_duration(round(left))} left")

    def __call__(self, event: Event) -> None:
        """Show an event of a run: its start, progress, steps, notes or end."""
        match event:
            case Compiling():
                self.say(str(event))
            case Started():
                most, _ = self._limits
                total = event.most_passes
                if most is not None:
                    total = most if total is None else min(most, total)
                self._rows, self._n_rows, self._total = 0, event.n_rows, total
                self._first, self._spent = None, event.spent
                self._memory = (
                    f"memory {approximate_bytes(event.projected)} of "
                    f"{approximate_bytes(event.ceiling)}"
                )
                self._begin("starting", total, self._memory)
            case Progressed():
                self._rows = event.rows
                if event.loss is not None:
                    self._loss = f"loss so far {losses(event.loss, self._validation)}"
                    self._metric = metric(event.metrics)
                title = _pass_under_way(self._rows / self._n_rows, self._total)
                self._show_passes(title, event.seconds, self._left(event.seconds), _QUIET_SECONDS)
            case Stepped():
                self._validation = event.validation_loss
                at = "" if event.n_iter else "at the start "
                self._loss = f"loss {at}{losses(event.loss, self._validation)}"
                # A pass that has just ended leaves no time of its own.
                left = "" if self._total is None else self._left(event.seconds)
                title = _passes_done(event.passes, self._total)
                self._show_passes(title, event.seconds, left, _LINE_SECONDS)
            case Noted() if self._verbose:
                self.say(f"after {format_duration(round(event.seconds))}: {event.text}")
            case Saving():
                self._begin(str(event), None, self._loss)
            case Ended():
                self.close()

    def _begin(self, title: str, total: float | None, figures: str) -> None:
        self._last_line = perf_counter()
        if self._bar is not None:
            self._bar.start()
            for task in self._bar.task_ids:  # one bar at a time
                self._bar.remove_task(task)
            self._bar.add_task(title, total=total, figures=figures, left="")
        elif self._notebook is not None:
            self._notebook.show(title, None, figures)
            self._notebook.end()  # what begins is seen at once

    def _show_passes(self, title: str, seconds: float, left: str, line_seconds: float) -> None:
        passes = self._rows / self._n_rows
        if self._first is None and self._rows > self._spent[0]:
            self._first = self._rows, seconds
        rate = self._rate(seconds)
        figures = [self._loss, self._metric, f"{_short(rate)} rows/s", self._memory]
        # Without a known number of passes, the bar shows the current pass.
        done, total = (passes % 1, 1.0) if self._total is None else (passes, self._total)
        self._show(title, min(done, total), total, figures, left, line_seconds)

    def _show(
        self,
        title: str,
        done: float,
        total: float,
        figures: Sequence[str],
        left: str,
        line_seconds: float = _QUIET_SECONDS,
    ) -> None:
        """Update the bar, or print a line if `line_seconds` have passed since the last line."""
        text = "  ".join(filter(None, figures))
        if self._notebook is not None:
            self._notebook.show(title, done / total, "  ".join(filter(None, [text, left])))
        elif self._bar is not None:
            width = self._bar.console.width - _BAR_WIDTH - len(title) - 4
            # Narrow terminals have no room for all; the figures that matter most are first.
            while figures and len(text) + len(left) > width:
                if len(figures) == 1:
                    left = left.removesuffix(_WITHIN)
                figures = figures[:-1] if len(figures) > 1 else ()
                text = "  ".join(filter(None, figures)) or text
            self._bar.update(
                self._bar.task_ids[-1],
                description=title,
                completed=done,
                total=total,
                figures=text,
                left=left,
            )
        elif perf_counter() - self._last_line >= line_seconds:
            self._last_line = perf_counter()
            self.say("  ".join(filter(None, [title, text, left])))

    def _left(self, seconds: float) -> str:
        """Return the time left in the run, or in the current pass if the total is unknown."""
        passes = self._rows / self._n_rows
        if not passes:
            return ""
        _, most_seconds = self._limits
        remaining = 1 - passes % 1 if self._total is None else max(self._total - passes, 0.0)
        rate = self._rate(seconds)
        if not rate:
            return ""  # rows of earlier processes alone tell no time
        left = remaining * self._n_rows / rate
        of = _WITHIN if self._total is None else ""
        if most_seconds is not None and most_seconds - seconds < left:
            left, of = max(most_seconds - seconds, 0.0), ""
        return f"{format_duration(round(left))} left{of}"

    def _rate(self, seconds: float) -> float:
        """Return rows per second since rows came in, so that compiling and planning count not.

        0 before this process has read any.
        """
        for rows, begun in (self._first or self._spent, self._spent):
            if seconds > begun and self._rows > rows:
                return (self._rows - rows) / (seconds - begun)
        return 0.0

    def close(self) -> None:
        """Remove the bar; that of a notebook stays as it is."""
        if self._bar is not None:
            self._bar.stop()
        if self._notebook is not None:
            self._notebook.end()


class _BestEffortStream(io.TextIOBase):
    """A stream whose write errors are ignored.

    A terminal or the reader of a pipe may be closed while a run has hours to go.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._to = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._to.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._to.flush()

    def isatty(self) -> bool:
        with suppress(OSError, ValueError):
            return self._to.isatty()
        return False

    def fileno(self) -> int:
        return self._to.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override] # an attribute there
        return getattr(self._to, "encoding", None) or "utf-8"


def _pass_under_way(passes: float, total: float | None) -> str:
    """Return the number of the pass that the last rows were of.

    Examples
    --------
    >>> _pass_under_way(0.2, None), _pass_under_way(2.0, 5.0), _pass_under_way(5.1, 5.0)
    ('pass 1', 'pass 2 of 5', 'pass 5 of 5')
    """
    number = max(1, math.ceil(passes))
    return (
        f"pass {number}" if total is None else f"pass {min(number, math.ceil(total))} of {total:g}"
    )


def _passes_done(passes: float, total: float | None) -> str:
    """Return the passes after which a model has the loss beside them.

    Examples
    --------
    >>> _passes_done(1.0, None), _passes_done(2.14, None), _passes_done(2.0, 5.0)
    ('1 pass', '2.14 passes', '2 of 5 passes')
    """
    if total is None:
        return counted(passes, "pass", ".4g")
    return f"{min(passes, total):.4g} of {counted(total, 'pass', 'g')}"


def _make_bar(stream: IO[str]) -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    # Names and paths come from data: their markup is plain text.
    console = Console(file=stream, markup=False, emoji=False, highlight=False)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=_BAR_WIDTH),
        TextColumn("{task.fields[figures]}", markup=False),
        TextColumn("{task.fields[left]}", markup=False),
        console=console,
        refresh_per_second=5,
        transient=True,
    )


def _short(rows: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if rows >= size:
            return f"{rows / size:.3g}{unit}"
    return f"{rows:.3g}"
