"""Messages of Python functions, with the names of options in place of arguments."""

import re
import shlex
from collections.abc import Iterable, Mapping

from typer.models import OptionInfo

from ooc_train.core.text import IN_PYTHON

_OTHER_NAMES = {"X": "x", "sample_weight": "weight"}
"""Arguments of Python whose options have other names."""

_VALUE = r"""('[^']*'|"[^"]*"|[\w+-]+(?:\.\w+)*)?"""
_CALL = re.compile(r"\bopen_store\(path, (\w+=(?:\w+|'[^']*'))\)")


def option_names(options: Iterable[tuple[str, OptionInfo]]) -> Mapping[str, str]:
    """Return a mapping from the names of Python's arguments to the options of a command.

    Parameters
    ----------
    options : iterable of (str, OptionInfo)
        Parameters of the command that are options.
    """
    found = {}
    for name, info in options:
        # Typer keeps the first name of an annotated parameter in `default`.
        named = (info.default, *(info.param_decls or ()))
        long = [text for text in named if isinstance(text, str) and text.startswith("--")]
        found[name] = long[0] if long else "--" + name.replace("_", "-")
    return found | {python: found[name] for python, name in _OTHER_NAMES.items() if name in found}


def with_option_names(text: str, options: Mapping[str, str]) -> str:
    """Return a message with options in place of Python's arguments, less lines for Python alone.

    Parameters
    ----------
    text : str
        The message.
    options : mapping
        As `option_names` returns it.

    Examples
    --------
    >>> with_option_names("use solver='sgd', or a batch_size", {"solver": "--solver"})
    'use --solver sgd, or a batch_size'
    """
    text = "\n".join(line for line in text.split("\n") if not line.startswith(IN_PYTHON))
    if not options:
        return text
    text = _CALL.sub(r"\1", text)
    names = "|".join(map(re.escape, sorted(options, key=len, reverse=True)))

    def replaced(match: re.Match[str]) -> str:
        option, value = options[match[1]], (match[2] or "").strip("'\"")
        if value == "True":
            return option
        return f"{option} {shlex.quote(value)}" if match[2] else f"{option} "

    # Not inside paths and longer words: "/data/y=3" stays.
    text = re.sub(rf"(?<![\w./=-])({names})={_VALUE}", replaced, text)
    long = [name for name in options if "_" in name]
    if not long:
        return text
    pattern = rf"(?<![\w./=-])({'|'.join(map(re.escape, long))})(?![\w./=-])"
    return re.sub(pattern, lambda match: options[match[1]], text)
