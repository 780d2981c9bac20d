"""The help of a command: an example, and of many models the options of the one that is named."""

import copy
import re
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar

from typer.core import TyperCommand

from ooc_train.cli.parsers import LIST

HELP = {"help_option_names": ["-h", "--help"]}
"""Settings of a command that is asked for its help."""

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "info": ("ooc-train info flights.zarr", "ooc-train info late.run"),
    "make-data": ("ooc-train make-data rows.zarr --rows 20M --features 100",),
    "rechunk": ("ooc-train rechunk rows.zarr smaller.zarr --chunk-rows 8192 --codec lz4",),
    "shuffle": ("ooc-train shuffle rows.zarr shuffled.zarr --random-state 0",),
    "split": (
        "ooc-train split flights.zarr --test 0.2 --folds 5",
        "ooc-train split other.zarr --x data --y labels --by-chunks --test 0.2",
    ),
    "append": ("ooc-train append flights.zarr 'new/*.csv'",),
    "follow": (
        "ooc-train follow flights.zarr --out late.run --idle 5min",
        "ooc-train follow flights.zarr --out late.run --from -",
    ),
    "verify": ("ooc-train verify flights.zarr",),
    "demo": ("ooc-train demo",),
    "ingest": (
        "ooc-train ingest 'flights/*.csv' flights.zarr --target arr_delay --drop flight",
        "ooc-train ingest images.idx3-ubyte labels.idx1-ubyte digits.zarr",
    ),
    "plan": ("ooc-train plan flights.zarr --memory-ceiling 1GiB",),
    "train": (
        "ooc-train train flights.zarr --out late.run --memory-ceiling 1GiB",
        "ooc-train train flights.zarr --out late.run --batch-size 256 --checkpoint-every 10min",
        "ooc-train train --resume late.run --max-iter 20",
        "ooc-train train --config late.run/config.toml --max-iter 20 --out b.run",
    ),
    "calibrate": ("ooc-train calibrate late.run validation.zarr --out calibrated.run",),
    "evaluate": ("ooc-train evaluate late.run flights.test.zarr",),
    "predict": ("ooc-train predict late.run new.csv predictions.csv",),
    "explain": ("ooc-train explain late.run flights.test.zarr --plot late.png",),
    "export": (
        "ooc-train export late.run late.onnx",
        "ooc-train export late.run late.json",
    ),
    "report": (
        "ooc-train report late.run --out late.html",
        "ooc-train report late.run early.run --data flights.test.zarr --out both.html",
    ),
    "runs": ("ooc-train runs .", "ooc-train runs experiments --html runs.html"),
    "summary": (
        "ooc-train summary late.run flights.zarr --errors HC1",
        "ooc-train summary late.run flights.zarr --cluster day --csv late.csv",
    ),
    "tradeoff": ("ooc-train tradeoff flights.zarr --batch-sizes 1,256,full",),
}
"""Calls of each command as its users would make them."""

_WIDEST = 16
"""Longer lists of choices become part of the text."""

Described = Mapping[str, tuple[str, str] | None]
"""Help text and placeholder of options, by their names; None hides an option from the help."""


def with_joined_lists(arguments: Sequence[str], lists: Collection[str]) -> list[str]:
    """Return the arguments with one value of each of the options `lists`, of all that are given.

    Typer takes the last one alone: of ``--drop a --drop b`` it would leave out b, and not a.

    Examples
    --------
    >>> with_joined_lists(["a.csv", "--drop", "id", "--json", "--drop=b,c"], {"--drop"})
    ['--drop=id,b,c', 'a.csv', '--json']
    """
    given: dict[str, list[str]] = {}
    others: list[str] = []
    left = iter(arguments)
    for argument in left:
        name, equals, value = argument.partition("=")
        if argument == "--":
            others += [argument, *left]
        elif name not in lists:
            others.append(argument)
        elif (text := value if equals else next(left, None)) is not None:
            given.setdefault(name, []).append(text)
        else:
            others.append(argument)  # Typer says that the value is missing
    return [*(f"{name}={','.join(values)}" for name, values in given.items()), *others]


class HelpfulCommand(TyperCommand):
    """A command whose help has examples, and shows what goes with the other arguments.

    Attributes
    ----------
    describe : function of the arguments of the call
        Describes options whose help depends on other arguments.
    """

    describe: ClassVar[Callable[[Sequence[str]], Described]] = lambda _: {}
    _arguments: tuple[str, ...] = ()

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Parse the arguments, and keep them for the help."""
        self._arguments = tuple(args)
        lists = {name for param in self.params if param.metavar == LIST for name in param.opts}
        return super().parse_args(ctx, with_joined_lists(args, lists))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, with examples at its end."""
        described = type(self).describe(self._arguments)
        shown = copy.copy(self)
        # The terminal decides where lines end, not the docstring.
        shown.help = _literal(re.sub(r"(?<!\n)\n(?!\n)", " ", self.help or ""))
        shown.params = [
            _shown(param, described.get(param.name or "", ("", "")))
            for param in self.get_params(ctx)  # with that of the help itself
            if described.get(param.name or "", ("", "")) is not None
        ]
        shown.add_help_option = False
        examples = EXAMPLES.get(self.name or "", ())
        shown.epilog = "\n\n".join(("Example:" if len(examples) == 1 else "Examples:", *examples))
        TyperCommand.format_help(shown, ctx, formatter)


def _shown(param: Any, described: tuple[str, str] | None) -> Any:
    """Return a copy of a parameter as the help shows it, in columns that leave room for text."""
    shown = copy.copy(param)
    text, placeholder = described or ("", "")
    shown.help, shown.metavar = text or shown.help, placeholder or shown.metavar
    if getattr(shown, "is_flag", False):
        # A flag takes no value, and one that is on already has only the name that turns it off.
        shown.metavar = ""
        if not shown.opts:
            shown.opts, shown.secondary_opts = shown.secondary_opts, []
    elif shown.metavar is not None and "|" in shown.metavar and len(shown.metavar) > _WIDEST:
        if "\n\n" not in (shown.help or ""):  # or else a list in the help has the choices
            shown.help = f"{shown.help} {_choices(shown.metavar)}"
        shown.metavar = "VALUE"
    shown.help = _literal(shown.help)
    return shown


def _choices(metavar: str) -> str:
    """Return the choices of a placeholder as a sentence.

    Examples
    --------
    >>> _choices("balanced|LABEL=W,...")
    'One of: balanced, LABEL=W,...'
    >>> _choices("flip|mixup ...")
    'One or more of: flip, mixup.'
    """
    several = metavar.removesuffix(" ...")
    choices = ", ".join(several.split("|"))
    first = "One" if several == metavar else "One or more"
    return f"{first} of: {choices}" + ("" if choices.endswith("...") else ".")


def _literal(text: str | None) -> str:
    """Return text whose words in brackets, as `.[onnx]`, name no style."""
    from rich.markup import escape

    return escape(text or "")


def value_of(option: str, arguments: Sequence[str], default: str) -> str:
    """Return the value of an option among the arguments of a call that may be incomplete.

    Examples
    --------
    >>> value_of("--model", ["rows.zarr", "--model", "ridge", "--help"], "logistic")
    'ridge'
    """
    found = default
    for at, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == option and (equals or at + 1 < len(arguments)):
            found = value if equals else arguments[at + 1]
    return found


def called(example: str) -> tuple[str, list[str]]:
    """Return the command of an example, and its arguments."""
    _, command, *arguments = shlex.split(example)
    return command, arguments
