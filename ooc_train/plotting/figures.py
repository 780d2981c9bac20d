"""Plots as files and as parts of a page, drawn without a window, with reproducible bytes."""

import io
import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from ooc_train.core.atomic import write_file
from ooc_train.core.output_kinds import FILE, require_output

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")


def require_figure(path: str | os.PathLike[str], *, overwrite: bool) -> str:
    """Return a path if a figure can be written there; refuse it before the work otherwise."""
    path = os.fspath(path)
    if os.path.splitext(path)[1][1:].lower() not in FORMATS:
        endings = ", ".join(f".{name}" for name in FORMATS)
        raise ValueError(f"plot={path!r} ends with none of {endings}, which say how to draw it")
    require_output(path, FILE, overwrite=overwrite)
    return path


def save(
    draw: Callable[["Axes"], object], path: str | os.PathLike[str], *, overwrite: bool
) -> None:
    """Write a plot to a file, whole or not at all; the suffix is one of `FORMATS`."""
    kind = os.path.splitext(os.fspath(path))[1][1:].lower()
    write_file(path, _rendered(_figure(draw), kind), overwrite=overwrite)


def svg(draw: Callable[["Axes"], object], height: float = 4.5) -> str:
    """Return a plot as a self-contained SVG element of an HTML page."""
    text = _rendered(_figure(draw, height), "svg").decode()
    # The XML declaration and the DTD before it are for files.
    return text[text.index("<svg") :]


def _figure(draw: Callable[["Axes"], object], height: float = 4.5) -> "Figure":
    """Return a figure that is unknown to windows and notebooks."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, height), dpi=100, layout="constrained")
    draw(figure.subplots())
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
