"""What workers write to standard error while they start, and what libraries log of it.

A worker that fails to import something writes a traceback and ends: the last line of that says why,
and the rest is of no use to whoever started a command.
"""

import logging
import os
import select
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import perf_counter, sleep

_KEPT_BYTES = 64 * 2**10
"""Bytes of what workers write that are kept, the last ones."""

_JOIN_SECONDS = 2.0
_ORDER_SECONDS = 0.1


class Overheard:
    """What processes wrote to standard error while they started.

    Attributes
    ----------
    failed : bool
        Whether they could not be started: else it is handed on, and so is what follows.
    """

    def __init__(self) -> None:
        self.failed = False
        self._kept = b""
        self._handing_on = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def listen(self, reading: int, original: int) -> None:
        """Take what arrives at a pipe, until all ends that write to it are closed."""
        arguments = reading, original
        self._thread = threading.Thread(
            target=self._take, args=arguments, name="ooc_train-stderr", daemon=True
        )
        self._thread.start()

    def _take(self, reading: int, original: int) -> None:
        while taken := os.read(reading, 2**16):
            with self._lock:
                if self._handing_on:
                    with suppress(OSError):
                        _write(original, taken)
                else:
                    self._kept = (self._kept + taken)[-_KEPT_BYTES:]
        os.close(reading)
        os.close(original)

    def hand_on(self, reading: int, original: int) -> None:
        """Write what was kept to where it was meant for, and from now on all that arrives."""
        until = perf_counter() + _ORDER_SECONDS
        while _waits(reading) and perf_counter() < until:  # so that it comes before what follows
            sleep(0.001)
        with self._lock:
            with suppress(OSError):
                _write(original, self._kept)
            self._kept, self._handing_on = b"", True

    @property
    def last_line(self) -> str:
        """The last line that was written, "" where there is none: of a traceback, the error."""
        if self._thread is not None:
            self._thread.join(_JOIN_SECONDS)
        lines = self._kept.decode(errors="replace").splitlines()
        # Python's own notes on what was left behind at exit say nothing of why.
        told = [line.strip() for line in lines if line.strip() and "resource_tracker" not in line]
        return told[-1] if told else ""


def _waits(reading: int) -> bool:
    """Return whether there is something in a pipe that nobody has taken yet."""
    try:
        return select.select([reading], [], [], 0)[0] != []
    except (OSError, ValueError):  # closed: all of it was taken
        return False


def _write(file: int, text: bytes) -> None:
    while text:
        text = text[os.write(file, text) :]


@contextmanager
def overheard() -> Iterator[Overheard]:
    """Keep what processes that are started within write to standard error.

    They have a pipe for it, which a thread of this process reads for as long as they live. Where
    they could be started, what they write is handed on to where this process writes to.
    """
    said = Overheard()
    with suppress(OSError, ValueError, AttributeError):  # closed, or none: as under pythonw
        sys.stderr.flush()
    try:
        original, last = os.dup(2), os.dup(2)
        reading, writing = os.pipe()
    except OSError:
        yield said
        return
    os.dup2(writing, 2)
    os.close(writing)
    try:
        said.listen(reading, last)
        yield said
    finally:
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()
        os.dup2(original, 2)
        os.close(original)
        if not said.failed:
            said.hand_on(reading, 2)


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what libraries log of processes that end while they start."""
    loggers = [logging.getLogger(name) for name in ("distributed", "asyncio", "tornado")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
