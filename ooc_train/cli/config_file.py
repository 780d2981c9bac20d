"""The settings file of a command, TOML: its keys are the long names of the command's options."""

import tomllib
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from ooc_train.core.files import FileKind, read_bytes
from ooc_train.core.schema import shown
from ooc_train.core.text import meant
from ooc_train.errors import OocTrainError

_CONFIG = FileKind("a settings file", 2**20, OocTrainError, "give a file of lines as max-iter = 20")
_OF_COMMAND_LINE = frozenset({"config", "resume", "help"})


def _load(context: typer.Context, path: str | None) -> str | None:
    """Make the values of a settings file the defaults of the call; other options win over them."""
    if path is not None:
        try:
            values = tomllib.loads(read_bytes(path, _CONFIG).decode())
            context.default_map = _defaults(values, context.command.params)
        except FileNotFoundError:
            raise typer.BadParameter(f"there is nothing at {path}") from None
        except (ValueError, OSError, OocTrainError) as error:
            raise typer.BadParameter(f"{path}: {error}") from None
    return path


def _defaults(values: Mapping[str, Any], params: Any) -> dict[str, Any]:
    """Return the values of a file by the names of parameters, flags as such and others as text.

    Raises
    ------
    ValueError
        If a key is no option, or is one twice, or a value is of a wrong kind.
    """
    # The key of a flag that is on by default turns it off, as its option does.
    known = {
        name.lstrip("-").replace("_", "-"): (param, name not in param.secondary_opts)
        for param in params
        if param.name not in _OF_COMMAND_LINE
        for name in (*param.opts, *param.secondary_opts)
    }
    found: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            hint = meant(key, known) or "keys are the long names of options"
            raise ValueError(f"there is no option {shown(key)}; {hint}")
        param, turns_on = known[key]
        if getattr(param, "is_flag", False):
            if not isinstance(value, bool):
                raise ValueError(f"{key} = {shown(value)} is neither true nor false")
            value = value == turns_on
        elif isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"{key} = {shown(value)} is neither text nor a number")
        found[param.name] = value if isinstance(value, bool) else str(value)
    return found


Config = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        is_eager=True,
        callback=_load,
        help="Options from a settings file (TOML), such as max-iter = 20; those of the call win. "
        "Each run has its own: RUN/config.toml repeats it.",
    ),
]
