"""Plots of batch sizes: those that a schedule plans, and those of a run."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ooc_train.core.text import counted
from ooc_train.plotting.drawable import FittedModel, run_in
from ooc_train.plotting.protocols import Run
from ooc_train.plotting.style import COLORS, shown_name, styled_axes, titled, with_message

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def batch_schedule(sizes: Sequence[int], name: str, ax: "Axes | None" = None) -> "Axes":
    """Draw the rows per update of each epoch of a schedule.

    Parameters
    ----------
    sizes : sequence of int
        Rows per update, by epoch.
    name : str
        The schedule as text.
    ax : Axes or None
        Where to draw; None makes new axes.
    """
    ax = _size_axes(ax)
    ax.step(range(len(sizes)), sizes, where="post", color=COLORS[0], lw=1.8, marker="o", ms=4)
    ax.set_xlabel("epoch")
    return titled(ax, f"Batch size by {shown_name(name)}")


def batch_size(report: Run | FittedModel, ax: "Axes | None" = None) -> "Axes":
    """Draw the rows per update of a run over passes, including steps by all rows at once.

    Parameters
    ----------
    report : Report or fitted model
        The run, with a batch-size schedule.
    ax : Axes or None
        Where to draw; None makes new axes.
    """
    ax = _size_axes(ax)
    ax.set_xlabel("passes")
    steps = run_in(report).history
    known = [(step.passes, step.batch_size) for step in steps if step.batch_size]
    if not known:
        return with_message(titled(ax, "Batch size"), "the run had no batch-size schedule")
    passes, sizes = zip(*known, strict=True)
    ax.step(passes, sizes, where="pre", color=COLORS[0], lw=1.8, marker="o", ms=4)
    return titled(ax, f"Batch size: {counted(sizes[-1], 'row')} at the end")


def _size_axes(ax: "Axes | None") -> "Axes":
    ax = styled_axes(ax)
    ax.set_yscale("log")
    ax.set_ylabel("rows per update")
    return ax
