"""Plots of runs, each a function that takes an axis, or makes one, and returns it.

    from ooc_train import plots
    plots.loss(model.report_)
    plots.tradeoff({"full": a.report_, "256": b.report_})

matplotlib is imported only when something is drawn. What is drawn is
described by what it has (a report, its memory), so that any room may ask for a plot of its own.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ooc_train.core.text import printable
from ooc_train.core.units import approximate_bytes, approximate_duration

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = (
    "#3b75af", "#e08a2e", "#519e57", "#8d6ab8", "#c25f5f", "#4fa5b5", "#b5a642", "#d47fa6",
    "#7f7f7f",
)  # fmt: skip
_MARKERS = "os^Dv<>ph"
_CEILING = "#b3261e"
_LONGEST = 40
_GRID = "#d9dde3"
_INK = "#2b2f36"
_UNITS = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10}


class Step(Protocol):
    """What is drawn of a step of a run."""

    @property
    def passes(self) -> float:
        """Rows read so far over rows there are."""
        ...

    @property
    def seconds(self) -> float:
        """Since the run began."""
        ...

    @property
    def loss(self) -> float:
        """Mean loss of a row."""
        ...

    @property
    def validation_loss(self) -> float | None:
        """The same of rows that are not learned from, or None."""
        ...


class Timeline(Protocol):
    """What is drawn of processes over time: a `MemoryTimeline`."""

    @property
    def seconds(self) -> tuple[float, ...]:
        """Times of the samples, since the job began."""
        ...

    @property
    def processes(self) -> Mapping[str, tuple[int, ...]]:
        """Bytes of each process at those times, by its name."""
        ...

    @property
    def total(self) -> tuple[int, ...]:
        """Bytes of all processes together at each time."""
        ...


class Memory(Protocol):
    """What is drawn of a run's memory, in bytes: a `MemoryReport`."""

    @property
    def ceiling(self) -> int:
        """The most that was allowed."""
        ...

    @property
    def projected(self) -> int:
        """What the plan said."""
        ...

    @property
    def measured(self) -> int:
        """The sum of the peaks."""
        ...

    @property
    def terms(self) -> Mapping[str, int]:
        """What the projection is the sum of."""
        ...

    @property
    def timeline(self) -> Timeline:
        """Samples by time."""
        ...


class Run(Protocol):
    """What is drawn of a run: a `Report`."""

    @property
    def history(self) -> Sequence[Step]:
        """Its steps."""
        ...

    @property
    def passes(self) -> float:
        """Rows read over rows there are."""
        ...

    @property
    def seconds(self) -> float:
        """From beginning to end."""
        ...

    @property
    def memory(self) -> Memory:
        """What it held."""
        ...


def loss(
    report: Run, ax: "Axes | None" = None, *, over: Literal["passes", "seconds"] = "passes"
) -> "Axes":
    """Draw the loss after each step, over passes or over seconds; dashed, that of validation rows.

    Parameters
    ----------
    report : Report
    ax : Axes or None
        Where to draw; None makes one.
    over : "passes" or "seconds"

    Raises
    ------
    ValueError
        Where `over` is something else.
    """
    ax = _for_losses(ax, over)
    known = _line(ax, report, over, _COLORS[0])
    if not known:
        return _nothing(_titled(ax, f"Loss over {over}"), "no steps were recorded")
    title = f"Loss over {over}: {known[-1][1]:.6g} at the end"
    judged = _line(ax, report, over, _COLORS[1], of="validation_loss", ls="--")
    if judged:
        title += f", of validation rows {judged[-1][1]:.6g}"
        ax.legend(ax.lines, ["rows that are learned from", "validation rows"], fontsize=9)
    ax.set_xlim(left=0)
    return _titled(ax, title)


def tradeoff(
    reports: Mapping[str, Run],
    ax: "Axes | None" = None,
    *,
    over: Literal["passes", "seconds"] = "passes",
) -> "Axes":
    """Draw the loss of several runs, with their passes, seconds and peaks in the legend.

    Parameters
    ----------
    reports : Mapping of str to Report
        By what tells them apart, such as the batch size.
    ax : Axes or None
        Where to draw; None makes one.
    over : "passes" or "seconds"
        What the loss is drawn against.

    Raises
    ------
    ValueError
        Where `over` is something else.
    """
    ax = _titled(_for_losses(ax, over), f"Loss against {over}")
    drawn, rows = [], [("", "passes", "time", "peak memory")]
    for i, (label, report) in enumerate(reports.items()):
        if _line(ax, report, over, _COLORS[i % len(_COLORS)], _MARKERS[i % len(_MARKERS)]):
            drawn.append(ax.lines[-1])
            seconds = approximate_duration(report.seconds)
            peak = approximate_bytes(report.memory.measured)
            rows.append((_name(label), f"{report.passes:.3g}", seconds, peak))
    if not drawn:
        return _nothing(ax, "no steps were recorded")
    ax.set_xlim(left=0)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    head, *lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    font = {"family": "monospace", "size": 9}
    # The title of a legend has no room for a marker in front of it.
    ax.legend(drawn, lines, title=f"     {head}", title_fontproperties=font, prop=font)
    return ax


def memory(report: Memory, ax: "Axes | None" = None) -> "Axes":
    """Draw what each process held over time, stacked, against projection and ceiling.

    At the right stand the terms of the projection, in the same units.

    Parameters
    ----------
    report : MemoryReport
    ax : Axes or None
        Where to draw; None makes one.
    """
    ax = _titled(_ready(ax), "Memory by process")
    timeline = report.timeline
    if not timeline.seconds:
        return _nothing(ax, "no timeline was recorded")
    top, unit, size = _scale(report)
    held = timeline.processes
    few = len(held) <= len(_COLORS)
    ax.stackplot(
        timeline.seconds,
        *([n / size for n in values] for values in held.values()),
        labels=[f"{_name(name)}, up to {approximate_bytes(max(n))}" for name, n in held.items()],
        colors=_COLORS[: len(held)] if few else None,
        alpha=0.85,
    )
    _limits(ax, report, top, size)
    ax.set_xlim(timeline.seconds[0], max(timeline.seconds[-1], timeline.seconds[0] + 1e-3))
    ax.set_ylim(0, top / size)
    ax.set_xlabel("seconds")
    ax.set_ylabel(unit)
    if few:
        handles, labels = ax.get_legend_handles_labels()
        # From the top, as they are stacked.
        ax.legend(handles[::-1], labels[::-1], loc="lower right", fontsize=9)
    else:
        _titled(ax, f"Memory of {len(held):,} processes, the driver's below")
    _terms_beside(ax, report, top, size)
    return ax


def plan(report: Memory, ax: "Axes | None" = None) -> "Axes":
    """Draw the terms of the projection as one stacked bar, against the ceiling.

    Parameters
    ----------
    report : MemoryReport
    ax : Axes or None
        Where to draw; None makes one.
    """
    from matplotlib.transforms import ScaledTranslation

    ax = _ready(ax, height=2.6)
    top, unit, size = _scale(report)
    left = 0.0
    for i, (name, n) in enumerate(_largest_first(report.terms)):
        label = f"{_name(name)}  {approximate_bytes(n)}"
        ax.barh(0, n / size, left=left, color=_COLORS[i % len(_COLORS)], label=label)
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
            # Readable on the line of a ceiling that is near.
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
        )
    if report.ceiling <= top:
        ax.axvline(report.ceiling / size, color=_CEILING, lw=1.5)
    title = f"The plan's terms; ceiling {approximate_bytes(report.ceiling)}"
    _titled(ax, title if report.ceiling <= top else f"{title}, far to the right")
    ax.set_xlim(0, top / size)
    ax.set_xlabel(unit)
    ax.grid(visible=False, axis="y")
    # Below the axis's own labels, whatever its height.
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


def coefficients(
    coef: Any,
    names: Sequence[str] | None = None,
    ax: "Axes | None" = None,
    *,
    most: int = 20,
    outputs: Sequence[str] = (),
) -> "Axes":
    """Draw the coefficients of the features that have the largest.

    Parameters
    ----------
    coef : array of shape (features,) or (outputs, features)
    names : of the features, or None for their numbers
    ax : Axes or None
        Where to draw; None makes one.
    most : int
        Features to draw.
    outputs : sequence of str
        Names of the outputs, such as the classes.

    Raises
    ------
    ValueError
        Where the names are not as many as the features.
    """
    import numpy as np

    rows = np.atleast_2d(np.asarray(coef, np.float64))
    n_outputs, n_features = rows.shape
    if names is not None and len(names) != n_features:
        raise ValueError(f"{len(names):,} names for {n_features:,} coefficients; give one each")
    order = np.argsort(-np.abs(rows).max(axis=0), kind="stable")[:most]
    ax = _ready(ax, height=1.3 + 0.24 * len(order))
    at = np.arange(len(order))
    if n_outputs == 1:
        values = rows[0, order]
        ax.barh(at, values, color=[_COLORS[0] if value >= 0 else _COLORS[1] for value in values])
    else:
        for i, row in enumerate(rows):
            label = _name(outputs[i]) if i < len(outputs) else f"output {i}"
            ax.plot(row[order], at, "o", ms=5, color=_COLORS[i % len(_COLORS)], label=label)
        if n_outputs <= len(_COLORS):
            ax.legend(fontsize=9)
    labels = [f"feature {i}" if names is None else _name(names[i], parsed=False) for i in order]
    ax.set_yticks(at, labels, parse_math=False)
    ax.axvline(0, color=_INK, lw=0.8)
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("coefficient, per unit of the feature")
    if len(order) < n_features:
        return _titled(ax, f"Coefficients: the {len(order):,} largest of {n_features:,}")
    # Not "all": what is given may be some of a model's.
    return _titled(ax, f"Coefficients of {n_features:,} feature{'s' if n_features > 1 else ''}")


def _ready(ax: "Axes | None", height: float = 4.5) -> "Axes":
    """Return the axis, or a new one, in the style of these plots."""
    if ax is None:
        from matplotlib import pyplot as plt

        _, ax = plt.subplots(figsize=(8, height), layout="constrained")
    ax.set_axisbelow(True)
    ax.grid(visible=True, color=_GRID, lw=0.8)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _for_losses(ax: "Axes | None", over: str) -> "Axes":
    """Return the axis, or a new one, named for losses over something."""
    if over not in ("passes", "seconds"):
        raise ValueError(f"over={over!r} is not 'passes' or 'seconds'")
    ax = _ready(ax)
    ax.set_xlabel("passes over the data" if over == "passes" else "seconds")
    ax.set_ylabel("mean loss of a row")
    return ax


def _titled(ax: "Axes", text: str) -> "Axes":
    ax.set_title(text, color=_INK, fontsize=12, fontweight="bold", loc="left")
    return ax


def _nothing(ax: "Axes", why: str) -> "Axes":
    ax.text(0.5, 0.5, why, transform=ax.transAxes, ha="center", va="center", color=_INK)
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
    """Draw a run's losses, and return the points that are known."""
    steps = [(getattr(step, over), getattr(step, of)) for step in report.history]
    known = [(x, y) for x, y in steps if x == x and y is not None and abs(y) < float("inf")]
    if known:
        # A single step, as of an exact method, is a point.
        marks = marker if len(known) <= 60 else ""
        ax.plot(*zip(*known, strict=True), color=color, lw=1.8, ls=ls, marker=marks, ms=5)
    return known


def _name(name: str, *, parsed: bool = True) -> str:
    """Return a name from data as a label that is drawn as it is, and is not too long.

    Parameters
    ----------
    name : str
    parsed : bool
        Whether what stands between dollars would be taken for mathematics.
    """
    text = printable(str(name)).replace("\n", "\\n")
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    # A legend leaves out what begins so.
    text = f" {text}" if text.startswith("_") else text
    return text.replace("$", r"\$") if parsed else text


def _scale(report: Memory) -> tuple[float, str, int]:
    """Return the bytes at the upper end of an axis, and the unit that it counts in.

    A ceiling far above all else would leave no room for it: then the axis ends below the ceiling.
    """
    most = max(report.projected, report.measured, *report.timeline.total, 1)
    top = 1.08 * max(most, report.ceiling) if report.ceiling <= 2.5 * most else 1.3 * most
    unit, size = next(
        ((unit, size) for unit, size in _UNITS.items() if top >= 2 * size), ("bytes", 1)
    )
    return top, unit, size


def _limits(ax: "Axes", report: Memory, top: float, size: int) -> None:
    """Draw projection and ceiling as lines with their names."""
    lines = [
        ("projected", report.projected, "--", _INK),
        ("ceiling", report.ceiling, "-", _CEILING),
    ]
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


def _terms_beside(ax: "Axes", report: Memory, top: float, size: int) -> None:
    """Draw the terms of the projection as a bar at the right of the axis."""
    beside = ax.inset_axes((1.015, 0, 0.03, 1), sharey=ax)
    beside.axis("off")
    bottom = 0.0
    for name, n in _largest_first(report.terms):
        beside.bar(0, n / size, bottom=bottom, color="#9aa1ab", edgecolor="white", lw=0.8)
        if n > 0.04 * top:
            beside.annotate(
                f"{_name(name)} {approximate_bytes(n)}",
                (1.0, bottom + n / size / 2),
                (3, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                va="center",
                fontsize=9,
                color=_INK,
                annotation_clip=False,
            )
        bottom += n / size


def _largest_first(terms: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(((name, n) for name, n in terms.items() if n), key=lambda item: -item[1])
