"""Standard error of workers while they start, and logs of libraries.

A worker that fails to import something prints a traceback and ends. Its last line is the reason;
the rest would only confuse the user of a command.
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
"""Kept part of the output, the last bytes."""

_JOIN_SECONDS = 2.0
_ORDER_SECONDS = 0.1


class CapturedStderr:
    """The captured standard error of processes while they start.

    Attributes
    ----------
    failed : bool
        Whether the start failed. If not, all output is forwarded, and so is later output.
    """

    def __init__(self) -> None:
        self.failed = False
        self._kept = b""
        self._forwarding = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def listen(self, reading: int, original: int) -> None:
        """Read a pipe in a thread until all writers have closed the pipe."""
        arguments = reading, original
        self._thread = threading.Thread(
            target=self._read, args=arguments, name="ooc_train-stderr", daemon=True
        )
        self._thread.start()

    def _read(self, reading: int, original: int) -> None:
        while taken := os.read(reading, 2**16):
            with self._lock:
                if self._forwarding:
                    with suppress(OSError):
                        _write(original, taken)
                else:
                    self._kept = (self._kept + taken)[-_KEPT_BYTES:]
        os.close(reading)
        os.close(original)

    def forward(self, reading: int, original: int) -> None:
        """Write the kept output to its destination, and from now on all new output."""
        until = perf_counter() + _ORDER_SECONDS
        while _has_data(reading) and perf_counter() < until:  # keep the order
            sleep(0.001)
        with self._lock:
            with suppress(OSError):
                _write(original, self._kept)
            self._kept, self._forwarding = b"", True

    @property
    def last_line(self) -> str:
        """The last line of the output, such as the error of a traceback; "" without output."""
        if self._thread is not None:
            self._thread.join(_JOIN_SECONDS)
        lines = self._kept.decode(errors="replace").splitlines()
        # Python's notes on leaked resources don't explain the failure.
        useful = [line.strip() for line in lines if line.strip() and "resource_tracker" not in line]
        return useful[-1] if useful else ""


def _has_data(reading: int) -> bool:
    """Return whether a pipe has unread data."""
    try:
        return select.select([reading], [], [], 0)[0] != []
    except (OSError, ValueError):  # closed: all was read
        return False


def _write(file: int, text: bytes) -> None:
    while text:
        text = text[os.write(file, text) :]


@contextmanager
def captured_stderr() -> Iterator[CapturedStderr]:
    """Capture standard error of processes that start inside the block.

    They write to a pipe, which a thread of this process reads for their lifetime. If they start,
    their output is forwarded to the standard error of this process.
    """
    captured = CapturedStderr()
    with suppress(OSError, ValueError, AttributeError):  # closed, or None
        sys.stderr.flush()
    try:
        original, last = os.dup(2), os.dup(2)
        reading, writing = os.pipe()
    except OSError:
        yield captured
        return
    os.dup2(writing, 2)
    os.close(writing)
    try:
        captured.listen(reading, last)
        yield captured
    finally:
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()
        os.dup2(original, 2)
        os.close(original)
        if not captured.failed:
            captured.forward(reading, 2)


@contextmanager
def silenced_logs() -> Iterator[None]:
    """Suppress logs of libraries about processes that end while they start."""
    loggers = [logging.getLogger(name) for name in ("distributed", "asyncio", "tornado")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
