"""The command line: ``ooc-train``.

Results go to stdout; progress and errors go to stderr. Exit statuses: 0 done; 1 not possible (the
message says why); 2 wrong call; 70 a fault of this package; 129 terminal closed; 130 interrupted.
When a terminal closes, a run of `train` ends after its step and is saved.

Only the command that is called is imported, and it imports numerical and Dask libraries itself. So
``--help`` is immediate, and a command takes no memory for the others.
"""

import os
import sys
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ooc_train.cli.command import end_by_fault
from ooc_train.cli.command_help import HELP, HelpfulCommand
from ooc_train.core.text import log

__all__ = ["app", "main"]

_INTERRUPTED = 130
"""Typer's exit status of Ctrl-C."""

_MODULES = {
    "info": "data_commands",
    "make-data": "data_commands",
    "rechunk": "data_commands",
    "shuffle": "data_commands",
    "split": "split_command",
    "append": "data_commands",
    "verify": "data_commands",
    "demo": "demo_command",
    "ingest": "ingest_command",
    "plan": "train_command",
    "train": "train_command",
    "follow": "follow_command",
    "calibrate": "calibrate_command",
    "evaluate": "evaluate_command",
    "predict": "predict_command",
    "explain": "explain_command",
    "export": "export_command",
    "report": "report_command",
    "runs": "runs_command",
    "summary": "summary_command",
    "tradeoff": "tradeoff_command",
}
"""The module of each command, in the order of the help."""


class _Commands(TyperGroup):
    """The commands. Each is imported when it is asked for; Typer would want all of them at once."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = dict.fromkeys(_MODULES, self)  # a name that is misspelt is compared to them

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 (Typer's protocol)
        return list(_MODULES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        if cmd_name not in _MODULES:
            return None
        module = import_module(f"ooc_train.cli.{_MODULES[cmd_name]}")
        function = getattr(module, cmd_name.replace("-", "_"))
        kind = type("Command", (HelpfulCommand,), {"describe": staticmethod(function.describe)})
        single = typer.Typer(add_completion=False)
        single.command(cmd_name, cls=kind, context_settings=HELP)(function)
        return typer.main.get_command(single)


app = typer.Typer(
    cls=_Commands,
    name="ooc-train",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings=HELP,
)


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ooc-train {version('ooc_train')}")
        raise typer.Exit


@app.callback()
def _about(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_say_version,
            is_eager=True,
            metavar="",
            help="Show the version and exit.",
        ),
    ] = False,
) -> None:
    """Train on data larger than memory: any batch size, under a memory ceiling."""


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
