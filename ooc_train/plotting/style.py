"""Style of all plots: colors, axes, titles, and labels made of names from data."""

from typing import TYPE_CHECKING

from ooc_train.core.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = (
    "#3b75af", "#e08a2e", "#519e57", "#8d6ab8", "#c25f5f", "#4fa5b5", "#b5a642", "#d47fa6",
    "#7f7f7f",
)  # fmt: skip
MARKERS = "os^Dv<>ph"
INK = "#2b2f36"
_GRID = "#d9dde3"
_LONGEST = 40


def styled_axes(ax: "Axes | None", height: float = 4.5) -> "Axes":
    """Return the axes, or new ones, in the style of these plots."""
    if ax is None:
        from matplotlib import pyplot as plt

        _, ax = plt.subplots(figsize=(8, height), layout="constrained")
    ax.set_axisbelow(True)
    ax.grid(visible=True, color=_GRID, lw=0.8)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def titled(ax: "Axes", text: str) -> "Axes":
    """Set the title of axes, and return them."""
    ax.set_title(text, color=INK, fontsize=12, fontweight="bold", loc="left")
    return ax


def with_message(ax: "Axes", why: str) -> "Axes":
    """Write a message in place of a plot, and return the axes."""
    ax.text(0.5, 0.5, why, transform=ax.transAxes, ha="center", va="center", color=INK)
    return ax


def shown_name(name: str, *, parsed: bool = True) -> str:
    """Return a name from data as a label, shortened, without special meaning to matplotlib.

    If `parsed`, matplotlib would take text between dollars for mathematics.
    """
    text = printable(str(name)).replace("\n", "\\n")
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    # A legend leaves out labels that start with an underscore.
    text = f" {text}" if text.startswith("_") else text
    return text.replace("$", r"\$") if parsed else text
