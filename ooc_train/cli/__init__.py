"""The command line: ``ooc-train``.

Results go to stdout; progress and errors go to stderr. Exit statuses: 0 done; 1 not possible (the
message says why); 2 wrong call; 70 a fault of this package; 129 terminal closed; 130 interrupted.
When a terminal closes, a run of `train` ends after its step and is saved.

Commands import numerical and Dask libraries themselves, so that ``--help`` is immediate.
"""

import os
import sys

# Each import registers commands, in the order of the help.
from ooc_train.cli import (  # noqa: F401
    data_commands,
    demo_command,
    ingest_command,
    model_commands,
    report_command,
    tradeoff_command,
)
from ooc_train.cli.command import app, end_by_fault
from ooc_train.core.text import log

__all__ = ["app", "main"]

_INTERRUPTED = 130
"""Typer's exit status of Ctrl-C."""


def main() -> None:
    """Run the command line."""
    # Arrow's own allocator keeps some 30 MiB of freed memory. A choice of the user's stays.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    try:
        app()
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            log("interrupted")
        raise
    except Exception as error:  # noqa: BLE001 (a last resort: one line, and a status of its own)
        end_by_fault(error)
    finally:
        _discard_unread_output()


def _discard_unread_output() -> None:
    """Discard output that a closed pipe refuses, so that the interpreter exits as usual."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
