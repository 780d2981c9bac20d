"""Listeners to a run: a bar on the terminal, plain lines elsewhere, and a list of what happened.

Everything that is shown goes to stderr, so that stdout holds results and nothing else.
"""

import io
import math
import sys
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self, cast

from ooc_train.core.text import losses, printable
from ooc_train.core.units import approximate_bytes, format_duration
from ooc_train.runs.events import Ended, Event, Noted, Progressed, Started, Stepped

if TYPE_CHECKING:
    from rich.progress import Progress

_LINE_SECONDS = 1.0
"""Without a terminal, steps are told about so often at most."""

_QUIET_SECONDS = 10.0
"""And a pass that takes long tells about so often how far it is."""


class History(list[Stepped]):
    """The steps of a run, in order."""

    def __call__(self, event: Event) -> None:
        """Keep a step."""
        if isinstance(event, Stepped):
            self.append(event)


class ConsoleBar:
    """Shows how far a run is: a callback, and a context manager that takes its bar away.

    On a terminal it is one bar, elsewhere a line a step, at most one a second.

    Parameters
    ----------
    quiet : bool
        Whether nothing is shown.
    verbose : bool
        Whether what solvers note, such as a shorter step, is told of too, a line each.
    max_passes, max_seconds : float or None
        The limits that the run was given, which may end it early.
    stream : IO[str] or None
        Where to; stderr unless given.
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
        self._stream = cast("IO[str]", _Heedless(stream or sys.stderr))
        self._limits = (max_passes, max_seconds)
        self._bar: Progress | None = None
        if not quiet and self._stream.isatty():
            self._bar = _make_bar(self._stream)
        self._rows = 0
        self._n_rows = 1
        self._total: float | None = None
        self._memory = ""
        self._loss = ""
        self._last_line = 0.0

    def say(self, text: str) -> None:
        """Write lines, above the bar where there is one."""
        if self._bar is not None:
            self._bar.console.print(printable(text))
        elif not self._quiet:
            self._stream.write(printable(text) + "\n")
            self._stream.flush()

    def job(self, n_rows: int, passes: float = 1.0) -> Callable[[int], None]:
        """Begin a job of some passes, and return what takes the number of rows after each task."""
        self._begin(n_rows, passes, "")
        begun = perf_counter()

        def on_rows(rows: int) -> None:
            self(Progressed(self._rows + rows, perf_counter() - begun))

        return on_rows

    def stages(self) -> Callable[[str, int, float], None]:
        """Begin a job of stages; return what takes a stage, its rows so far, and its share so far.

        The share is of all that the stage has to do, from 0 to 1: how many rows that is may not be
        known before they are read.
        """
        begun: dict[str, float] = {}

        def on_rows(stage: str, rows: int, share: float) -> None:
            now = perf_counter()
            if stage not in begun:
                begun[stage] = self._last_line = now
                if self._bar is not None:
                    self._bar.start()
                    self._bar.add_task(stage, total=1.0, figures="", left="")
                return
            seconds = now - begun[stage]
            left = seconds * (1 - share) / share if share else 0.0
            figures = f"{rows:,} rows  {_rate(rows / seconds)} rows/s"
            self._tell(stage, share, figures, f"{format_duration(round(left))} left")

        return on_rows

    def _tell(self, title: str, share: float, figures: str, left: str) -> None:
        if self._bar is not None:
            task = self._bar.task_ids[-1]
            self._bar.update(task, completed=share, figures=figures, left=left)
        elif perf_counter() - self._last_line >= _QUIET_SECONDS:
            self._last_line = perf_counter()
            self.say(f"{title}  {figures}  {left}")

    def __call__(self, event: Event) -> None:
        """Show an event."""
        match event:
            case Started():
                self._begin(
                    event.n_rows,
                    event.most_passes,
                    f"memory {approximate_bytes(event.projected)} of "
                    f"{approximate_bytes(event.ceiling)}",
                )
            case Progressed():
                self._rows = event.rows
                self._show(event.seconds, self._left(event.seconds), _QUIET_SECONDS)
            case Stepped():
                self._loss = f"loss {losses(event.loss, event.validation_loss)}"
                # What is left of a pass says nothing where it has just ended.
                left = "" if self._total is None else self._left(event.seconds)
                self._show(event.seconds, left, _LINE_SECONDS)
            case Noted() if self._verbose:
                self.say(f"after {format_duration(round(event.seconds))}: {event.text}")
            case Ended():
                self.close()

    def _begin(self, n_rows: int, passes: float | None, memory: str) -> None:
        most, _ = self._limits
        if most is not None:
            passes = most if passes is None else min(most, passes)
        self._rows, self._n_rows, self._total, self._memory = 0, n_rows, passes, memory
        self._last_line = perf_counter()
        if self._bar is not None:
            self._bar.start()
            self._bar.add_task("starting", total=passes, figures=memory, left="")

    def _show(self, seconds: float, left: str, line_seconds: float) -> None:
        passes = self._rows / self._n_rows
        title = f"pass {int(passes) + 1}"
        if self._total is not None:
            title = f"pass {min(int(passes) + 1, math.ceil(self._total))} of {self._total:g}"
        rate = self._rows / seconds if seconds else 0.0
        figures = [self._loss, f"{_rate(rate)} rows/s", self._memory]
        if self._bar is not None:
            # How many passes it takes is not always known; then the bar is that of the pass.
            done, total = (passes % 1, 1.0) if self._total is None else (passes, self._total)
            self._bar.update(
                self._bar.task_ids[-1],
                description=title,
                completed=min(done, total),
                total=total,
                figures="  ".join(filter(None, figures)),
                left=left,
            )
        elif perf_counter() - self._last_line >= line_seconds:
            self._last_line = perf_counter()
            self.say("  ".join(filter(None, [title, *figures, left])))

    def _left(self, seconds: float) -> str:
        """Say how long the run, or where its length is not known the pass, will go on for."""
        passes = self._rows / self._n_rows
        if not passes:
            return ""
        _, most_seconds = self._limits
        remaining = 1 - passes % 1 if self._total is None else max(self._total - passes, 0.0)
        left = seconds / passes * remaining
        of = " in this pass" if self._total is None else ""
        if most_seconds is not None and most_seconds - seconds < left:
            left, of = max(most_seconds - seconds, 0.0), ""
        return f"{format_duration(round(left))} left{of}"

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _Heedless(io.TextIOBase):
    """A stream whose lines are lost, and no reason to fail, once nobody reads it any more.

    A terminal may be closed, and a pipe's other end, while a run has hours to go.
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


def _make_bar(stream: IO[str]) -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    # Paths and names come from data: no markup in them is meant for us.
    console = Console(file=stream, markup=False, emoji=False, highlight=False)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[figures]}", markup=False),
        TextColumn("{task.fields[left]}", markup=False),
        console=console,
        refresh_per_second=5,
        transient=True,
    )


def _rate(rows: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if rows >= size:
            return f"{rows / size:.3g}{unit}"
    return f"{rows:.3g}"
