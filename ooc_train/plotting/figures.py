"""Plots as files, and as parts of a page: drawn without a window, the same bytes every day."""

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
    """Refuse a place that no figure can be written to, before the work that it is to show.

    Returns
    -------
    str
        The path.

    Raises
    ------
    ValueError
        Where its suffix is none of `FORMATS`.
    OutputExists
        Where something lies there that may not be replaced.
    OSError
        Where nothing can be written.
    """
    path = os.fspath(path)
    if os.path.splitext(path)[1][1:].lower() not in FORMATS:
        endings = ", ".join(f".{name}" for name in FORMATS)
        raise ValueError(f"plot={path!r} ends with none of {endings}, which say how to draw it")
    require_output(path, FILE, overwrite=overwrite)
    return path


def save(
    draw: Callable[["Axes"], object], path: str | os.PathLike[str], *, overwrite: bool
) -> None:
    """Write a plot to a file, by the suffix of its name one of `FORMATS`; whole or not at all.

    Parameters
    ----------
    draw : callable
        Takes an axis.
    path : str
    overwrite : bool
        Whether a file that lies there is replaced.

    Raises
    ------
    OutputExists, OSError
        As `PartialOutput` does.
    """
    kind = os.path.splitext(os.fspath(path))[1][1:].lower()
    write_file(path, _rendered(_figure(draw), kind), overwrite=overwrite)


def svg(draw: Callable[["Axes"], object], height: float = 4.5) -> str:
    """Return a plot as an element of a page of HTML, which needs nothing from elsewhere."""
    text = _rendered(_figure(draw, height), "svg").decode()
    # The XML declaration and the address of a DTD before it are for files.
    return text[text.index("<svg") :]


def _figure(draw: Callable[["Axes"], object], height: float = 4.5) -> "Figure":
    """Draw on a figure that no window or notebook knows of."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, height), dpi=100, layout="constrained")
    draw(figure.subplots())
    return figure


def _rendered(figure: "Figure", kind: str) -> bytes:
    import matplotlib as mpl

    room = io.BytesIO()
    unsaid = {"svg": ("Creator", "Date", "Format", "Type"), "pdf": ("Creator", "CreationDate")}
    with warnings.catch_warnings(), mpl.rc_context({"svg.hashsalt": "ooc_train"}):
        # Names in scripts that the font lacks are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(room, format=kind, metadata=dict.fromkeys(unsaid.get(kind, ())))
    return room.getvalue()
