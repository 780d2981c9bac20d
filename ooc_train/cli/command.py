"""How a function becomes a command, and its errors a line and an exit status."""

import functools
import inspect
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import Field, fields, is_dataclass
from typing import Any, get_type_hints

import typer
from typer.models import OptionInfo

from ooc_train.cli.options import Output
from ooc_train.cli.printing import print_json
from ooc_train.cli.wording import for_the_shell, option_names
from ooc_train.core.semaphores import remove_dead_semaphores
from ooc_train.core.temporary_folders import remove_dead_folders
from ooc_train.core.text import brief, printable
from ooc_train.errors import LeftoversRemoved, OocTrainError, SavedElsewhere

INTERNAL = 70
"""Exit status of a command that met what nobody thought of, as sysexits.h has it."""

app = typer.Typer(
    name="ooc-train",
    help="Train on data larger than memory: any batch size, under a memory ceiling.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Register a command.

    A parameter that is a dataclass stands for an option a field. Errors that explain themselves
    become a line on stderr, which names options where Python has arguments, and the exit status 1.
    """
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    parameters = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in groups:
            parameters.append(parameter.replace(annotation=hints[name]))
            continue
        field_hints = get_type_hints(groups[name], include_extras=True)
        parameters += [
            parameter.replace(
                name=field.name, default=field.default, annotation=field_hints[field.name]
            )
            for field in _options(groups[name])
        ]

    options = option_names(
        (parameter.name, info)
        for parameter in parameters
        for info in getattr(parameter.annotation, "__metadata__", ())
        if isinstance(info, OptionInfo)
    )

    @functools.wraps(function)
    def run(**given: Any) -> None:
        for name, kind in groups.items():
            given[name] = kind(**{field.name: given.pop(field.name) for field in _options(kind)})
        output: Output = given["output"]
        try:
            with _told(quiet=output.quiet) as elsewhere:
                remove_dead_folders()
                remove_dead_semaphores()
                function(**given)
        except (typer.BadParameter, typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if output.traceback or isinstance(error, BrokenPipeError):
                raise
            known = isinstance(error, OocTrainError | OSError | ValueError | MemoryError)
            message = for_the_shell(_told_of(error), options) if known else internal(error)
            message = _on_one_line(message, given)
            with suppress(OSError):  # a terminal that was closed, or a pipe
                if output.as_json:
                    print_json({"error": type(error).__name__, "message": message})
                _say_error(message)
            raise typer.Exit(1 if known else INTERNAL) from None
        if elsewhere:
            # It fails after all that it has to tell: who goes on with the name that was asked for
            # would go on with what is somebody else's.
            with suppress(OSError):
                _say_error(elsewhere[0])
            raise typer.Exit(1)

    # What typer reads: the parameters with the groups spread out.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app.command()(run)
    return run


@contextmanager
def _told(*, quiet: bool) -> Iterator[list[str]]:
    """Tell what was cleared up as a note on stderr; give the warnings of outputs elsewhere."""
    elsewhere: list[str] = []

    def show(message: Warning | str, category: type[Warning], *about: Any, **more: Any) -> None:
        if issubclass(category, SavedElsewhere):
            elsewhere.append(str(message))
        elif not issubclass(category, LeftoversRemoved):
            usual(message, category, *about, **more)
        elif not quiet:
            with suppress(OSError):
                typer.echo(printable(f"note: {message}"), err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always", LeftoversRemoved)
        warnings.simplefilter("always", SavedElsewhere)
        usual, warnings.showwarning = warnings.showwarning, show
        yield elsewhere


def _told_of(error: Exception) -> str:
    """Return what an error says; Python says nothing where it is out of memory."""
    if str(error) or not isinstance(error, MemoryError):
        return str(error)
    return "there is not enough memory; stop what else takes some, or give more"


def _on_one_line(message: str, given: Mapping[str, Any]) -> str:
    """Return a message in which what was given, such as a path, breaks no line."""
    for value in given.values():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and "\n" in text:
                message = message.replace(text, text.replace("\n", "\\n"))
    return message


def internal(error: BaseException) -> str:
    """Return the line of an error that is a fault of this package: a last resort, and no answer."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
    return (
        f"internal error: {type(error).__name__}: {brief(error)}{place}; this is a fault of "
        "ooc_train: run the command again with --traceback, and report what it prints"
    )


def end_by_fault(error: Exception) -> None:
    """Say what nobody thought of, outside of any command, and end with `INTERNAL`."""
    if "--traceback" in sys.argv:
        raise error
    with suppress(OSError):
        _say_error(internal(error))
    sys.exit(INTERNAL)


def _say_error(message: str) -> None:
    typer.secho("error: ", fg="red", bold=True, nl=False, err=True)
    typer.echo(printable(message), err=True)


def _options(group: Any) -> list[Field[Any]]:
    """Return the fields that are options; a group that adds to another may omit some of its."""
    omitted = getattr(group, "omitted", ())
    return [field for field in fields(group) if field.name not in omitted]


@contextmanager
def ended_by(received: signal.Signals | None) -> Iterator[None]:
    """Have a command that a signal ended say so by its exit status, after what it found is told.

    Parameters
    ----------
    received : signal.Signals or None
        The signal; None ends the command as usual. After the end of its terminal nobody may be
        there to be told.
    """
    if received is None:
        yield
        return
    with suppress(*((OSError,) if received is signal.SIGHUP else ())):
        yield
    raise typer.Exit(128 + received)
