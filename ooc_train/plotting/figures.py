"""Plots as files and as parts of a page, drawn without a window, with reproducible bytes."""

import io
import os
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ooc_train.core.atomic import write_file
from ooc_train.core.output_kinds import FILE, require_output

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Draw = Callable[["Axes"], object]
"""A function that draws on axes."""

FORMATS = ("png", "svg", "pdf")


def require_figure(path: str | os.PathLike[str], *, overwrite: bool) -> str:
    """Return a path if a figure can be written there; else raise an error before the work."""
    path = os.fspath(path)
    if os.path.splitext(path)[1][1:].lower() not in FORMATS:
        endings = ", ".join(f".{name}" for name in FORMATS)
        raise ValueError(f"plot={path!r} ends with none of {endings}, which say how to draw it")
    require_output(path, FILE, overwrite=overwrite)
    return path


def save(*draws: Draw, path: str | os.PathLike[str], overwrite: bool) -> None:
    """Write plots to one file, whole or not at all; the suffix is one of `FORMATS`."""
    kind = os.path.splitext(os.fspath(path))[1][1:].lower()
    write_file(path, _rendered(_figure(draws), kind), overwrite=overwrite)


def svg(draw: Draw, height: float = 4.5) -> str:
    """Return a plot as a self-contained SVG element of an HTML page."""
    text = _rendered(_figure([draw], height), "svg").decode()
    # The XML declaration and the DTD before it are for files.
    return text[text.index("<svg") :]


def _figure(draws: Sequence[Draw], height: float = 4.5) -> "Figure":
    """Return a figure that pyplot does not manage, with the plots of `draws` two in a row."""
    from matplotlib.figure import Figure

    columns = min(2, len(draws))
    rows = -(-len(draws) // columns)
    size = (8 if columns == 1 else 12, rows * height)
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    for i, draw in enumerate(draws):
        draw(figure.add_subplot(rows, columns, i + 1))
    return figure


def _rendered(figure: "Figure", kind: str) -> bytes:
    import matplotlib as mpl

    target = io.BytesIO()
    omitted = {"svg": ("Creator", "Date", "Format", "Type"), "pdf": ("Creator", "CreationDate")}
    with warnings.catch_warnings(), mpl.rc_context({"svg.hashsalt": "ooc_train"}):
        # Characters that the font lacks are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(target, format=kind, metadata=dict.fromkeys(omitted.get(kind, ())))
    return target.getvalue()
