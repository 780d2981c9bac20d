"""Turns functions into commands, and their errors into a line and an exit status."""

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

from ooc_train.cli.option_names import option_names, with_option_names
from ooc_train.cli.options import OutputOptions
from ooc_train.cli.printing import print_json
from ooc_train.core.semaphores import remove_dead_semaphores
from ooc_train.core.temporary_folders import remove_dead_folders
from ooc_train.core.text import brief, printable
from ooc_train.errors import LeftoversRemoved, OocTrainError, SavedElsewhere

INTERNAL = 70
"""Exit status of an internal error, as in sysexits.h."""


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Return a function that Typer takes as a command.

    A parameter whose type is a dataclass stands for one option for each field. Known errors become
    one line on stderr, with option names in place of Python's arguments, and exit status 1.
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
        (parameter.name, info) for parameter in parameters for info in _infos(parameter.annotation)
    )

    @functools.wraps(function)
    def run(**arguments: Any) -> None:
        for name, kind in groups.items():
            arguments[name] = kind(
                **{field.name: arguments.pop(field.name) for field in _options(kind)}
            )
        output: OutputOptions = arguments["output"]
        try:
            with _warnings_as_notes(quiet=output.quiet) as saved_elsewhere:
                remove_dead_folders()
                remove_dead_semaphores()
                function(**arguments)
        except (typer.BadParameter, typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if output.traceback or isinstance(error, BrokenPipeError):
                raise
            known = isinstance(error, OocTrainError | OSError | ValueError | MemoryError)
            named = options if "run" not in arguments else {**_of_training(), **options}
            message = with_option_names(_error_text(error), named) if known else internal(error)
            message = _on_one_line(message, arguments)
            with suppress(OSError):  # a terminal that was closed, or a pipe
                if output.as_json:
                    print_json({"error": type(error).__name__, "message": message})
                _say_error(message)
            raise typer.Exit(1 if known else INTERNAL) from None
        if saved_elsewhere:
            # The command fails although its output is saved: the requested path belongs to others.
            with suppress(OSError):
                _say_error(saved_elsewhere[0])
            raise typer.Exit(1)

    # Typer reads these: the parameters, with an option for each field of the groups.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    described = [kind.describe for kind in groups.values() if hasattr(kind, "describe")]
    run.describe = lambda arguments: {  # type: ignore[attr-defined]
        name: text for describe in described for name, text in describe(arguments).items()
    }
    return run


@contextmanager
def _warnings_as_notes(*, quiet: bool) -> Iterator[list[str]]:
    """Print clean-up warnings as notes on stderr; give the list of outputs saved elsewhere."""
    saved_elsewhere: list[str] = []

    def show(message: Warning | str, category: type[Warning], *about: Any, **more: Any) -> None:
        if issubclass(category, SavedElsewhere):
            saved_elsewhere.append(str(message))
        elif not issubclass(category, LeftoversRemoved):
            usual(message, category, *about, **more)
        elif not quiet:
            with suppress(OSError):
                typer.echo(printable(f"note: {message}"), err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always", LeftoversRemoved)
        warnings.simplefilter("always", SavedElsewhere)
        usual, warnings.showwarning = warnings.showwarning, show
        yield saved_elsewhere


def _error_text(error: Exception) -> str:
    """Return the text of an error; Python's MemoryError has none."""
    if str(error) or not isinstance(error, MemoryError):
        return str(error)
    return "not enough memory; stop other programs, or use a machine with more"


def _on_one_line(message: str, arguments: Mapping[str, Any]) -> str:
    """Escape line breaks that come from arguments, such as paths."""
    for value in arguments.values():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and "\n" in text:
                message = message.replace(text, text.replace("\n", "\\n"))
    return message


def internal(error: BaseException) -> str:
    """Return the message of an internal error, with its place in the code."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
    return (
        f"internal error: {type(error).__name__}: {brief(error)}{place}; this is a fault of "
        "ooc_train: run the command again with --traceback, and report its output"
    )


def end_by_fault(error: Exception) -> None:
    """Print an internal error outside of any command, and exit with `INTERNAL`."""
    if "--traceback" in sys.argv:
        raise error
    with suppress(OSError):
        _say_error(internal(error))
    sys.exit(INTERNAL)


def _say_error(message: str) -> None:
    typer.secho("error: ", fg="red", bold=True, nl=False, err=True)
    typer.echo(printable(message), err=True)


def _of_training() -> Mapping[str, str]:
    """Return the options of `train`: messages about a run may advise another fit."""
    from ooc_train.cli.model_options import ModelOptions

    hints = get_type_hints(ModelOptions, include_extras=True)
    found = ((name, info) for name, hint in hints.items() for info in _infos(hint))
    # A flag that is on by default has an option that turns it off alone.
    return option_names((name, info) for name, info in found if "/" not in f"{info.default}")


def _infos(hint: Any) -> list[OptionInfo]:
    """Return what an annotation says of an option, if it is one."""
    return [info for info in getattr(hint, "__metadata__", ()) if isinstance(info, OptionInfo)]


def _options(group: Any) -> list[Field[Any]]:
    """Return the fields of a group that are options."""
    omitted = getattr(group, "omitted", ())
    return [field for field in fields(group) if field.name not in omitted]


@contextmanager
def ended_by(received: signal.Signals | None) -> Iterator[None]:
    """Print results, then exit with the status of the signal that ended the command.

    Parameters
    ----------
    received : signal.Signals or None
        The signal, or None for a normal end. After SIGHUP nobody may read the output.
    """
    if received is None:
        yield
        return
    with suppress(*((OSError,) if received is signal.SIGHUP else ())):
        yield
    raise typer.Exit(128 + received)
