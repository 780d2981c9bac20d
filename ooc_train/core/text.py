"""Values as text that is safe in terminals, pages and JSON, whatever names the data holds."""

import html
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

IN_PYTHON = "  in Python: "
"""How a line of a message begins that is for calls of Python alone."""

OR_A_REGRESSION = (
    "if y is a number to predict, train a regression: --model ridge, or Ridge in Python"
)
"""Advice where y holds no classes."""


def printable(text: str) -> str:
    """Return text with escape sequences spelled out, so that it can't control a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def listed(items: Sequence[Any], most: int = 8) -> str:
    """Return the first items as Python writes them, and how many others there are.

    Examples
    --------
    >>> listed(["a", "b", "c"], 2)
    "'a', 'b' and 1 more"
    """
    shown = ", ".join(repr(item) for item in items[:most])
    more = len(items) - most
    return f"{shown} and {more:,} more" if more > 0 else shown


def meant(name: str, known: Iterable[str], most: int = 1) -> str:
    """Return a question with the known names that are most like another; "" if none is.

    Examples
    --------
    >>> meant("logisitc", ["ridge", "logistic"])
    "did you mean 'logistic'?"
    >>> meant("svd", ["ridge", "logistic"])
    ''
    """
    close = get_close_matches(name, list(known), most)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else ""


def counted(number: float, noun: str, spec: str = ",") -> str:
    """Return a number and what it counts, in the singular where the number reads 1.

    Parameters
    ----------
    number : float
        The number.
    noun : str
        The noun in the singular, of regular plural; words may stand before it.
    spec : str
        How the number is formatted.

    Examples
    --------
    >>> counted(1, "row"), counted(2_000, "pass"), counted(1.0, "pass", ".3g"), counted(0, "entry")
    ('1 row', '2,000 passes', '1 pass', '0 entries')
    >>> counted(5, "batch"), counted(5, "epoch")
    ('5 batches', '5 epochs')
    """
    text = format(number, spec)
    if text == "1":
        return f"1 {noun}"
    if noun.endswith(("s", "x", "ch", "sh")) and not noun.endswith("epoch"):
        return f"{text} {noun}es"
    if noun.endswith("y") and noun[-2:-1] not in {*"aeiou"}:
        return f"{text} {noun[:-1]}ies"
    return f"{text} {noun}s"


_METRICS = {"accuracy": "accuracy", "roc_auc": "AUC", "r2": "R2"}


def metric(metrics: Mapping[str, float]) -> str:
    """Return the first of accuracy, AUC and R2 that there is, as text: "accuracy 0.934".

    Examples
    --------
    >>> metric({"accuracy": 0.93412, "roc_auc": 0.97})
    'accuracy 0.934'
    """
    known = (f"{text} {metrics[name]:.3f}" for name, text in _METRICS.items() if name in metrics)
    return next(known, "")


def losses(loss: float, validation: float | None) -> str:
    """Return text of a training loss, and of the validation loss if it is known.

    NaN is the training loss of private updates, which is not computed.
    """
    return ("withheld" if math.isnan(loss) else f"{loss:.6g}") + (
        "" if validation is None else f" (validation {validation:.6g})"
    )


def json_ready(value: Any) -> Any:
    """Return a value that JSON can hold; NaN and infinity become null."""
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def aligned(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> list[str]:
    """Return a table as lines; columns numbered in `left` are left-aligned, others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def html_table(rows: Sequence[Sequence[str]], head: Sequence[str] = ()) -> str:
    """Return rows of text as an HTML table, with every cell escaped.

    Parameters
    ----------
    rows : sequence of rows
        The first cell of each row is its header.
    head : sequence of str
        Headers of the columns, or none.
    """
    top = "".join(f"<th>{html_escaped(name)}</th>" for name in head)
    body = "".join(
        f'<tr><th scope="row">{html_escaped(name)}</th>'
        + "".join(f"<td>{html_escaped(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, *cells in rows
    )
    return f"<table>{f'<thead><tr>{top}</tr></thead>' if head else ''}<tbody>{body}</tbody></table>"


def html_escaped(text: str) -> str:
    """Return text escaped for HTML."""
    return html.escape(printable(text))


def log(text: str) -> None:
    """Write a line to stderr; a closed stream is no error."""
    try:
        sys.stderr.write(f"{printable(text)}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        return


def brief(error: BaseException, most: int = 300) -> str:
    """Return the message of another library's error as one line.

    Examples
    --------
    >>> brief(ValueError("no  number  "))
    'no number'
    """
    said = " ".join(str(error).split()) or type(error).__name__
    return said if len(said) <= most else f"{said[:most]}..."


def pixel_name(row_shape: Sequence[int], column: int) -> str:
    """Return the name of a value of a row of several axes, by its place there.

    Examples
    --------
    >>> pixel_name((28, 28), 29)
    'pixel 1,1'
    """
    place = []
    for size in reversed(row_shape):
        column, index = divmod(column, size)
        place.append(str(index))
    return f"pixel {','.join(reversed(place))}"


def feature_name(names: Sequence[str] | None, row_shape: Sequence[int] | None, column: int) -> str:
    """Return the name of a column of X: its own, that of a pixel, or its number.

    Examples
    --------
    >>> feature_name(None, None, 3)
    'feature 3'
    """
    if names is not None:
        return names[column]
    return f"feature {column}" if row_shape is None else pixel_name(row_shape, column)


def few(values: Sequence[object], most: int = 10) -> str:
    """Return one text: the first few values, and how many more there are.

    Examples
    --------
    >>> few("abc", 2)
    'a, b, ... and 1 more'
    """
    rest = len(values) - most
    return ", ".join(map(str, values[:most])) + (f", ... and {rest:,} more" if rest > 0 else "")
