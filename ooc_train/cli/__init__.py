"""The command line: ``ooc-train``.

What a command found goes to stdout, how far it is and what went wrong to stderr. A command ends
with 0 where it did what was asked, with 1 where it could not (the message says why), with 2 where
it was called wrongly, with 130 where it was interrupted, and with 129 where its terminal was closed
(a run of `train` ends, and is saved, as it stands then). A fault of this package ends one with 70.

Numerical and Dask libraries are imported inside the commands, so that ``--help`` is immediate.
"""

import os
import sys

# What registers its commands when it is imported, in the order of the help.
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
"""What typer makes of Ctrl-C."""


def main() -> None:
    """Run the command line."""
    # Arrow's own allocator keeps some 30 MiB that were freed; who names another one knows why.
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
        _forget_what_nobody_reads()


def _forget_what_nobody_reads() -> None:
    """Have the interpreter not fail, with a status of its own, to write what a pipe refused."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
