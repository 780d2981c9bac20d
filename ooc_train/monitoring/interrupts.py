"""Ctrl-C as a request: the run ends after its current step and keeps what it has learned.

In Python `KeyboardInterrupt` follows, with the model so far, so that loops of fits end too. A
second Ctrl-C within ten seconds interrupts at once, even in another run.
"""

import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from types import FrameType
from typing import Any, Self

from ooc_train.core.text import counted, log
from ooc_train.runs.events import Ended, Event, Stop
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.report import Report

_AGAIN_SECONDS = 10.0
_RETRY_SECONDS = 0.02

_CAUSES = {
    signal.SIGINT: "Ctrl-C",
    signal.SIGHUP: "the end of its terminal",
    signal.SIGTERM: "SIGTERM",
}

ENDS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
"""Signals that ask a run to end."""

_last_request = -_AGAIN_SECONDS


def interrupted(fitted: Fitted, report: Report) -> KeyboardInterrupt:
    """Return what `train` raises where Ctrl-C ended a run, with the model so far as attributes.

    The type is that of Python itself: of a subclass, the process would end with status 1, and a
    loop of a shell would go on.
    """
    error = KeyboardInterrupt(
        "Ctrl-C ended the run after a step; the attributes fitted and report of this error hold "
        "the model so far"
    )
    vars(error).update(fitted=fitted, report=report)
    return error


class Interrupts:
    """Turns signals into a request to stop: a context manager around a run, and its callback.

    It leaves alone signals that others handle, threads other than the main one, and child
    processes.

    Parameters
    ----------
    signals : sequence of signal.Signals
        Which signals.
    delivers : bool
        Whether signals other than Ctrl-C take their course once the run has ended.
    """

    def __init__(
        self, signals: Sequence[signal.Signals] = (signal.SIGINT,), *, delivers: bool = False
    ) -> None:
        self.received: signal.Signals | None = None
        self._delivers = delivers
        self._signals = signals
        self._before: dict[signal.Signals, Any] = {}
        self._stop_raised = False

    def __enter__(self) -> Self:
        if (
            threading.current_thread() is threading.main_thread()
            and multiprocessing.parent_process() is None
        ):
            for number in self._signals:
                if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                    self._before[number] = signal.signal(number, self._request)
        return self

    def _request(self, number: int, frame: FrameType | None) -> None:
        """Record the request only: a signal handler may run at any point."""
        global _last_request
        before, _last_request = _last_request, perf_counter()
        if number == signal.SIGINT and _last_request - before < _AGAIN_SECONDS:
            _interrupt(number, frame)
        else:
            self.received = signal.Signals(number)

    def __call__(self, event: Event) -> None:
        """Raise `Stop` if a stop was requested."""
        if self.received is None or isinstance(event, Ended):
            return
        if not self._stop_raised:
            self._stop_raised = True
            if self.received is signal.SIGINT:
                # A terminal has just shown "^C".
                line = "\n" if sys.stderr.isatty() else ""
                log(f"{line}stopping after this step; Ctrl-C again interrupts at once")
        raise Stop(f"stopped by {_CAUSES[self.received]} before its end")

    @property
    def has_stopped(self) -> bool:
        """Whether Ctrl-C has stopped the run."""
        return self._stop_raised and self.received is signal.SIGINT

    def conclude(self, report: Report) -> None:
        """Print on stderr how the run ended, if it was stopped."""
        if self.received is None or not self._stop_raised:
            return
        out = report.saved_in
        kept = "" if out is None else f"; its current state is saved in {out}"
        cause = _CAUSES[self.received]
        log(f"the run was stopped by {cause} after {counted(report.passes, 'pass', '.4g')}{kept}")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        if self.received is None:
            return
        # A signal may have come too late to stop anything.
        is_late = kind is None and not self._stop_raised
        if is_late or (self._delivers and self.received is not signal.SIGINT):
            signal.raise_signal(self.received)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise `KeyboardInterrupt`, though Python drops what is raised within a finalizer."""
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            main = threading.main_thread().ident or 0
            again = threading.Timer(_RETRY_SECONDS, signal.pthread_kill, (main, number))
            again.daemon = True
            again.start()
            return
        frame = frame.f_back
    raise KeyboardInterrupt


@contextmanager
def immediate_interrupts() -> Iterator[None]:
    """Let Ctrl-C interrupt at once, for jobs that consist of many runs."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
