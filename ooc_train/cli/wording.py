"""What the package says in the words of Python, said in those of the command line."""

import re
import shlex
from collections.abc import Iterable, Mapping

from typer.models import OptionInfo

_IN_PYTHON = {"X": "x", "sample_weight": "weight", "model": "name"}
"""Names of Python's arguments whose options have another."""

_VALUE = r"""('[^']*'|"[^"]*"|[\w+-]+(?:\.\w+)*)?"""
_CALL = re.compile(r"\bopen_store\(path, (\w+=(?:\w+|'[^']*'))\)")


def option_names(options: Iterable[tuple[str, OptionInfo]]) -> Mapping[str, str]:
    """Return the options of a command by the names that Python has for them.

    Parameters
    ----------
    options : Iterable[tuple[str, OptionInfo]]
        Iterable of (str, OptionInfo) The parameters of the command that are options.
    """
    found = {}
    for name, info in options:
        # Of an annotated parameter, typer keeps the first name where the default was.
        named = (info.default, *(info.param_decls or ()))
        told = [text for text in named if isinstance(text, str) and text.startswith("--")]
        found[name] = told[0] if told else "--" + name.replace("_", "-")
    return found | {python: found[name] for python, name in _IN_PYTHON.items() if name in found}


def for_the_shell(text: str, options: Mapping[str, str]) -> str:
    """Return a message with options of the command in place of Python's arguments.

    Parameters
    ----------
    text : str
    options : mapping
        As `option_names` returns it.

    Examples
    --------
    >>> for_the_shell("use solver='sgd', or a batch_size", {"solver": "--solver"})
    'use --solver sgd, or a batch_size'
    """
    if not options:
        return text
    text = _CALL.sub(r"\1", text)
    names = "|".join(map(re.escape, sorted(options, key=len, reverse=True)))

    def told(match: re.Match[str]) -> str:
        option, value = options[match[1]], (match[2] or "").strip("'\"")
        if value == "True":
            return option
        return f"{option} {shlex.quote(value)}" if match[2] else f"{option} "

    # Not within paths and words of others: "/data/y=3" stays as it is.
    text = re.sub(rf"(?<![\w./=-])({names})={_VALUE}", told, text)
    long = [name for name in options if "_" in name]
    if not long:
        return text
    pattern = rf"(?<![\w./=-])({'|'.join(map(re.escape, long))})(?![\w./=-])"
    return re.sub(pattern, lambda match: options[match[1]], text)
