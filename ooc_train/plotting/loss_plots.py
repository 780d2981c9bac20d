"""Plots of losses: of one run, and of several runs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.units import approximate_bytes, approximate_duration
from ooc_train.plotting.drawable import FittedModel, run_in
from ooc_train.plotting.protocols import Point, Run
from ooc_train.plotting.style import COLORS, MARKERS, shown_name, styled_axes, titled, with_message

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def loss(
    report: Run | FittedModel,
    ax: "Axes | None" = None,
    *,
    over: Literal["passes", "seconds"] = "passes",
) -> "Axes":
    """Draw the loss after each step, and the validation loss dashed, over passes or seconds.

    Losses within passes are a thin line.

    Parameters
    ----------
    report : Report or fitted model
        The run.
    ax : Axes or None
        Where to draw; None makes new axes.
    over : {"passes", "seconds"}
        The horizontal axis.

    Raises
    ------
    ValueError
        If `over` is something else.
    """
    report = run_in(report)
    ax = _loss_axes(ax, over)
    if report.within:
        ax.plot(*_within(report.within, over), color=COLORS[0], lw=1.0, alpha=0.4)
    known = _line(ax, report, over, COLORS[0])
    if not known:
        return with_message(titled(ax, f"Loss over {over}"), "no steps were recorded")
    title = f"Loss over {over}: {known[-1][1]:.6g} at the end"
    validation = _line(ax, report, over, COLORS[1], of="validation_loss", ls="--")
    if validation:
        title += f", of validation rows {validation[-1][1]:.6g}"
        ax.legend(ax.lines[-2:], ["training rows", "validation rows"], fontsize=9)
    ax.set_xlim(left=0)
    return titled(ax, title)


def _within(points: Sequence[Point], over: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return both coordinates of losses within passes, with NaN where passes have none.

    Of a long run some were dropped: then neighbours are farther apart everywhere.
    """
    steps = np.diff([point.passes for point in points])
    usual = np.median(steps) if len(steps) else 0.0
    far = np.flatnonzero(steps > max(1.0, 4.0 * usual)) + 1
    x, losses = ([getattr(point, name) for point in points] for name in (over, "loss"))
    return np.insert(x, far, np.nan), np.insert(losses, far, np.nan)


def tradeoff(
    reports: Mapping[str, Run | FittedModel],
    ax: "Axes | None" = None,
    *,
    over: Literal["passes", "seconds"] = "passes",
) -> "Axes":
    """Draw the loss of several runs, with their passes, seconds and peaks in the legend.

    Parameters
    ----------
    reports : Mapping of str to Report or fitted model
        The runs by a label, such as the batch size.
    ax : Axes or None
        Where to draw; None makes new axes.
    over : {"passes", "seconds"}
        The horizontal axis.

    Raises
    ------
    ValueError
        If `over` is something else.
    """
    ax = titled(_loss_axes(ax, over), f"Loss against {over}")
    drawn, rows = [], [("", "passes", "time", "peak memory")]
    for i, (label, given) in enumerate(reports.items()):
        report = run_in(given)
        if _line(ax, report, over, COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)]):
            drawn.append(ax.lines[-1])
            seconds = approximate_duration(report.seconds)
            peak = approximate_bytes(report.memory.measured)
            rows.append((shown_name(label), f"{report.passes:.3g}", seconds, peak))
    if not drawn:
        return with_message(ax, "no steps were recorded")
    ax.set_xlim(left=0)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    head, *lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    font = {"family": "monospace", "size": 9}
    # The spaces are the width of a marker.
    ax.legend(drawn, lines, title=f"     {head}", title_fontproperties=font, prop=font)
    return ax


def _loss_axes(ax: "Axes | None", over: str) -> "Axes":
    """Return the axes, or new ones, with labels for losses."""
    if over not in ("passes", "seconds"):
        raise ValueError(f"over={over!r} is not 'passes' or 'seconds'")
    ax = styled_axes(ax)
    ax.set_xlabel("passes over the data" if over == "passes" else "seconds")
    ax.set_ylabel("mean loss of a row")
    return ax


def _line(
    ax: "Axes",
    report: Run,
    over: Literal["passes", "seconds"],
    color: str,
    marker: str = "o",
    *,
    of: Literal["loss", "validation_loss"] = "loss",
    ls: str = "-",
) -> list[tuple[float, float]]:
    """Draw the losses of a run, and return the finite points."""
    steps = [(getattr(step, over), getattr(step, of)) for step in report.history]
    known = [(x, y) for x, y in steps if x == x and y is not None and abs(y) < float("inf")]
    if known:
        # A single step, as of an exact method, is a point without a line.
        marks = marker if len(known) <= 60 else ""
        ax.plot(*zip(*known, strict=True), color=color, lw=1.8, ls=ls, marker=marks, ms=5)
    return known
