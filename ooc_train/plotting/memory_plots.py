"""Plots of a run's memory: over time, and by the terms of its plan."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ooc_train.core.text import counted
from ooc_train.core.units import approximate_bytes
from ooc_train.plotting.drawable import FittedModel, memory_in
from ooc_train.plotting.protocols import Memory, Run
from ooc_train.plotting.style import COLORS, INK, shown_name, styled_axes, titled, with_message

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CEILING = "#b3261e"
_UNITS = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10}


def memory(report: Memory | Run | FittedModel, ax: "Axes | None" = None) -> "Axes":
    """Draw the memory of each process over time, stacked, with projection and ceiling.

    A bar at the right shows the terms of the projection, on the same scale.

    Parameters
    ----------
    report : MemoryReport, Report or fitted model
        The memory of the run.
    ax : Axes or None
        Where to draw; None makes new axes.
    """
    report = memory_in(report)
    ax = titled(styled_axes(ax), "Memory by process")
    timeline = report.timeline
    if not timeline.seconds:
        return with_message(ax, "no timeline was recorded")
    top, unit, size = _scale(report)
    held = timeline.processes
    few = len(held) <= len(COLORS)
    ax.stackplot(
        timeline.seconds,
        *([n / size for n in values] for values in held.values()),
        labels=[
            f"{shown_name(name)}, up to {approximate_bytes(max(n))}" for name, n in held.items()
        ],
        colors=COLORS[: len(held)] if few else None,
        alpha=0.85,
    )
    _limits(ax, report, top, size)
    ax.set_xlim(timeline.seconds[0], max(timeline.seconds[-1], timeline.seconds[0] + 1e-3))
    ax.set_ylim(0, top / size)
    ax.set_xlabel("seconds")
    ax.set_ylabel(unit)
    if few:
        handles, labels = ax.get_legend_handles_labels()
        # From the top, in the order of the stack.
        ax.legend(handles[::-1], labels[::-1], loc="lower right", fontsize=9)
    else:
        titled(ax, f"Memory of {counted(len(held), 'process')}, the driver at the bottom")
    _draw_terms(ax, report, top, size)
    return ax


def plan(report: Memory | Run | FittedModel, ax: "Axes | None" = None) -> "Axes":
    """Draw the terms of the projection as one stacked bar, with the ceiling.

    Parameters
    ----------
    report : MemoryReport, Report or fitted model
        The memory of the run.
    ax : Axes or None
        Where to draw; None makes new axes.
    """
    from matplotlib.transforms import ScaledTranslation

    report = memory_in(report)
    ax = styled_axes(ax, height=2.6)
    top, unit, size = _scale(report)
    left = 0.0
    for i, (name, n) in enumerate(_largest_first(report.terms)):
        label = f"{shown_name(name)}  {approximate_bytes(n)}"
        ax.barh(0, n / size, left=left, color=COLORS[i % len(COLORS)], label=label)
        left += n / size
    ax.barh(1, report.measured / size, color="#9aa1ab")
    ax.set_yticks([0, 1], ["projected", "measured"])
    for row, n in enumerate((report.projected, report.measured)):
        ax.annotate(
            approximate_bytes(n),
            (n / size, row),
            (5, 0),
            textcoords="offset points",
            va="center",
            # White, to be readable on the line of the ceiling.
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
        )
    if report.ceiling <= top:
        ax.axvline(report.ceiling / size, color=_CEILING, lw=1.5)
    title = f"The plan's terms; ceiling {approximate_bytes(report.ceiling)}"
    titled(ax, title if report.ceiling <= top else f"{title}, far to the right")
    ax.set_xlim(0, top / size)
    ax.set_xlabel(unit)
    ax.grid(visible=False, axis="y")
    # Below the labels of the axes, whatever their height.
    below = ax.transAxes + ScaledTranslation(0, -38 / 72, ax.figure.dpi_scale_trans)
    ax.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        bbox_transform=below,
        ncols=4,
        fontsize=9,
        frameon=False,
    )
    return ax


def _scale(report: Memory) -> tuple[float, str, int]:
    """Return the bytes at the upper end of the axis, its unit, and the bytes of the unit.

    The axis ends below a ceiling that is far above all else.
    """
    most = max(report.projected, report.measured, *report.timeline.total, 1)
    top = 1.08 * max(most, report.ceiling) if report.ceiling <= 2.5 * most else 1.3 * most
    unit, size = next(
        ((unit, size) for unit, size in _UNITS.items() if top >= 2 * size), ("bytes", 1)
    )
    return top, unit, size


def _limits(ax: "Axes", report: Memory, top: float, size: int) -> None:
    """Draw projection and ceiling as labelled lines."""
    lines = [("projected", report.projected, "--", INK), ("ceiling", report.ceiling, "-", _CEILING)]
    for name, n, style, color in lines:
        text = f"{name} {approximate_bytes(n)}"
        if n > top:
            ax.text(0.01, 0.985, f"{text} ↑", transform=ax.transAxes, va="top", color=color)
            continue
        ax.axhline(n / size, color=color, ls=style, lw=1.5)
        ax.annotate(
            text, (0.01, n / size), (0, 3), xycoords=("axes fraction", "data"),
            textcoords="offset points", color=color,
        )  # fmt: skip


def _draw_terms(ax: "Axes", report: Memory, top: float, size: int) -> None:
    """Draw the terms of the projection as a bar at the right of the axes."""
    bar = ax.inset_axes((1.015, 0, 0.03, 1), sharey=ax)
    bar.axis("off")
    bottom = 0.0
    for name, n in _largest_first(report.terms):
        bar.bar(0, n / size, bottom=bottom, color="#9aa1ab", edgecolor="white", lw=0.8)
        if n > 0.04 * top:
            bar.annotate(
                f"{shown_name(name)} {approximate_bytes(n)}",
                (1.0, bottom + n / size / 2),
                (3, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                va="center",
                fontsize=9,
                color=INK,
                annotation_clip=False,
            )
        bottom += n / size


def _largest_first(terms: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(((name, n) for name, n in terms.items() if n), key=lambda item: -item[1])
