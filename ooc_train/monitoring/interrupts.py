"""Ctrl-C as a request: the run ends after what it is at, and what was learned is kept.

The first Ctrl-C asks a run to stop; the next, within ten seconds even if it meets another run,
interrupts at once, as Python does. So a loop of many short fits can be ended too.
"""

import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Self

from ooc_train.core.text import tell
from ooc_train.runs.events import Ended, Event, Stop
from ooc_train.runs.report import Report

_AGAIN_SECONDS = 10.0

_CAUSES = {signal.SIGINT: "Ctrl-C", signal.SIGHUP: "the end of its terminal"}

_last_request = -_AGAIN_SECONDS


class Interrupts:
    """Turns signals into a request to stop: a context manager, and a callback of the run within.

    Signals that others handle already are left to them, and all are in other threads than the main
    one and in processes that work for another.

    Parameters
    ----------
    signals : sequence of signal.Signals
        Whose first arrival is a request: Ctrl-C unless said otherwise.

    Attributes
    ----------
    received : signal.Signals or None
        What asked the run to stop.
    """

    def __init__(self, signals: Sequence[signal.Signals] = (signal.SIGINT,)) -> None:
        self.received: signal.Signals | None = None
        self._signals = signals
        self._before: dict[signal.Signals, Any] = {}
        self._heeded = False

    def __enter__(self) -> Self:
        if (
            threading.current_thread() is threading.main_thread()
            and multiprocessing.parent_process() is None
        ):
            for number in self._signals:
                if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                    self._before[number] = signal.signal(number, self._request)
        return self

    def _request(self, number: int, frame: Any) -> None:
        """Take note, and no more: a handler may come in the midst of anything."""
        global _last_request
        before, _last_request = _last_request, perf_counter()
        if number == signal.SIGINT and _last_request - before < _AGAIN_SECONDS:
            signal.default_int_handler(number, frame)
        self.received = signal.Signals(number)

    def __call__(self, event: Event) -> None:
        """Have the run stop, if that was asked for."""
        if self.received is None or isinstance(event, Ended):
            return
        if not self._heeded:
            self._heeded = True
            if self.received is signal.SIGINT:
                # A terminal has just shown "^C".
                line = "\n" if sys.stderr.isatty() else ""
                tell(f"{line}stopping after this step; Ctrl-C again interrupts at once")
        raise Stop(f"stopped by {_CAUSES[self.received]} before its end")

    def conclude(self, report: Report) -> None:
        """Say on stderr what became of a run that was asked to stop."""
        if self.received is None or not self._heeded:
            return
        out = report.saved_in
        kept = "" if out is None else f"; as it stands it is saved in {out}"
        cause = _CAUSES[self.received]
        tell(f"the run was stopped by {cause} after {report.passes:.4g} passes{kept}")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        if kind is None and self.received is not None and not self._heeded:
            # It came when there was nothing left to stop: not ours to swallow.
            signal.raise_signal(self.received)


@contextmanager
def at_once() -> Iterator[None]:
    """Have Ctrl-C interrupt runs within at once: for work of many runs, of which each is a part."""

    def interrupt(number: int, frame: Any) -> None:
        signal.default_int_handler(number, frame)

    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
