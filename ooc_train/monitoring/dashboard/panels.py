"""The plots of the Training page: each is made once for a page, and then shown runs.

Each says what it is made of (`inputs`), and is shown anew only where that has changed: every
message to a browser costs the scheduler some 0.3 ms, whatever its size.
"""

from collections.abc import Callable, Sequence
from math import ceil, floor, log10
from typing import Any

import numpy as np

from ooc_train.monitoring.dashboard.run_series import PROFILE, STEPS, Run

_COLOURS = (
    "#1f77b4", "#ef7d30", "#3a9a50", "#8a63b8", "#b5563b", "#d166a0", "#6b7280", "#17a2b8",
)  # fmt: skip
_PROFILE_COLOURS = ("#4c86b8", "#7fc0bd", "#5fa55a", "#e3c04b", "#ef7d30", "#a9a9a9", "#8a63b8")
_TICKS = {"base": 1024, "mantissas": [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]}
CEILING_COLOUR, _PROJECTED_COLOUR = "#c0392b", "#7f7f7f"


def _by_steps(run: Run) -> tuple[str, int]:
    """Return what a plot of steps is made of."""
    return run.identity, run.steps.count


def _by_progress(run: Run) -> tuple[str, int]:
    """Return what a plot of rows and seconds is made of."""
    return run.identity, run.progress.count


class Loss:
    """The loss of every run over its passes; a dot for each step of the one that is shown.

    Dashed, that of its validation rows.
    """

    title, name = "Loss over passes", "loss"

    def __init__(self) -> None:
        from bokeh.models import ColumnDataSource, HoverTool

        names = ("x", "y", "validation", "colour", "label", "width")
        self.lines = ColumnDataSource({name: [] for name in names})
        self.steps = ColumnDataSource(
            {name: [] for name in STEPS} | {"colour": []}, name="training_steps_data"
        )
        self.root = _figure(self, x_axis_label="passes")
        self.root.multi_line(
            "x", "y", source=self.lines, line_color="colour", line_width="width",
            legend_field="label",
        )  # fmt: skip
        self.root.multi_line(
            "x", "validation", source=self.lines, line_color="colour", line_width="width",
            line_dash=[10, 6],
        )  # fmt: skip
        dots = self.root.scatter("passes", "loss", source=self.steps, size=5, color="colour")
        tips = [
            ("loss", "@loss{0.000000}"),
            ("validation", "@validation_loss{0.000000}"),
            ("pass", "@passes{0.00}"),
            ("updates", "@updates{0,0}"),
        ]
        self.root.add_tools(HoverTool(renderers=[dots], tooltips=tips))
        _quiet_legend(self.root)
        self._shown: tuple[str, ...] = ()
        self._counts: dict[str, int] = {}

    @staticmethod
    def inputs(run: Run) -> Any:
        """Return what the plot is made of."""
        return run.identity, [(one.identity, one.steps.count) for one in run.runs.values()]

    def show(self, run: Run) -> None:
        """Show what there is."""
        runs = list(run.runs.values())
        shown = (run.identity, *run.runs)
        counts = {one.identity: one.steps.count for one in runs}
        if shown == self._shown:
            # The lines of runs that are over stay as they are.
            moved = [
                i
                for i, one in enumerate(runs)
                if counts[one.identity] != self._counts[one.identity]
            ]
            lines = _lines([runs[i] for i in moved])
            self.lines.patch(
                {name: list(zip(moved, column, strict=True)) for name, column in lines.items()}
            )
        else:
            self.lines.data = _lines(runs) | {
                "colour": [_colour(one) for one in runs],
                "label": [one.label for one in runs],
                "width": [2.5 if one is run else 1.2 for one in runs],
            }
        self._shown, self._counts = shown, counts
        judged = any(one.about["validation_rows"] for one in runs)
        self.root.title.text = self.title + ("; dashed: of validation rows" if judged else "")
        steps = run.steps.columns(STEPS)
        self.steps.data = steps | {"colour": [_colour(run)] * len(run.steps.rows)}


def _lines(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Return passes and losses of runs, an array each."""
    columns = [one.steps.columns(STEPS) for one in runs]
    names = {"x": "passes", "y": "loss", "validation": "validation_loss"}
    return {ours: [each[theirs] for each in columns] for ours, theirs in names.items()}


class Rate:
    """Rows a second, and bytes, over the seconds of the run; dashed, those of reading alone."""

    title, name = "Rows per second", "rate"

    def __init__(self) -> None:
        from bokeh.models import (
            BasicTicker,
            ColumnDataSource,
            CustomJSTickFormatter,
            HoverTool,
            LinearAxis,
            NumeralTickFormatter,
            Range1d,
            Span,
        )

        self.source = ColumnDataSource(
            {"seconds": [], "rate": [], "bytes": []}, name="training_rate_data"
        )
        self.root = _figure(self, x_axis_label="seconds", y_range=Range1d(0, 1))
        self.root.yaxis.formatter = CustomJSTickFormatter(
            code="return tick >= 1e6 ? tick / 1e6 + ' M' : tick >= 1e3 ? tick / 1e3 + ' k' : tick"
        )
        self.bytes_range = Range1d(0, 1)
        self.root.extra_y_ranges = {"bytes": self.bytes_range}
        axis = LinearAxis(
            y_range_name="bytes",
            axis_label="bytes per second",
            ticker=BasicTicker(**_TICKS),
            formatter=NumeralTickFormatter(format="0.[0] ib"),
        )
        self.root.add_layout(axis, "right")
        # The steps are corners of a line: BokehJS never returns from a `varea_step` of no points.
        style = {"source": self.source, "color": _COLOURS[0]}
        self.root.varea("seconds", 0, "rate", fill_alpha=0.15, **style)
        line = self.root.line("seconds", "rate", line_width=1.5, **style)
        tips = [
            ("second", "@seconds{0.0}"),
            ("rows/s", "@rate{0,0}"),
            ("bytes/s", "@bytes{0.0 ib}"),
        ]
        self.root.add_tools(HoverTool(renderers=[line], tooltips=tips, mode="vline"))
        self.limit = Span(
            dimension="width", line_color=_PROJECTED_COLOUR, line_dash="dashed", line_width=2
        )
        self.root.add_layout(self.limit)

    inputs = staticmethod(_by_progress)

    def show(self, run: Run) -> None:
        """Show what there is."""
        seconds, rows = np.array(run.rows_over_time()).T
        rate = np.diff(rows) / np.maximum(np.diff(seconds), 1e-9)
        # Two corners for each rate, where it begins and where it ends.
        seconds, rate = np.repeat(seconds, 2)[1:-1], np.repeat(rate, 2)
        nbytes, limit = max(1, run.about["row_bytes"]), run.reading_limit
        self.source.data = {"seconds": seconds, "rate": rate, "bytes": rate * nbytes}
        most = max([1.0, *rate])
        if limit is not None:
            # To three digits, as its figure is told: so it seldom moves.
            at = float(f"{limit / nbytes:.3g}")
            # A limit far above would leave a rate that is a flat line.
            self.limit.visible = at <= 4 * most
            most = max(most, at) if self.limit.visible else most
            self.limit.location = at
            where = "dashed" if self.limit.visible else "far above"
            reads = f"reading alone, {bytes_text(limit)}/s"
            self.root.title.text = f"{self.title}; {where}: {reads}"
        self.root.y_range.end = top = _roomy(most)
        self.bytes_range.end = top * nbytes


class Time:
    """What the seconds of all threads went on."""

    title, name = "Where the time goes (seconds of all threads)", "time"

    def __init__(self) -> None:
        from bokeh.models import ColumnDataSource, DataRange1d, FactorRange, HoverTool, LabelSet

        names = ("part", "seconds", "share", "colour", "text")
        self.source = ColumnDataSource({name: [] for name in names}, name="training_profile_data")
        # The longest bar leaves room for its percentage.
        along = DataRange1d(start=0, range_padding=0.15)
        self.root = _figure(self, x_range=along, y_range=FactorRange(factors=[]))
        bars = self.root.hbar("part", right="seconds", source=self.source, height=0.7)
        bars.glyph.fill_color = bars.glyph.line_color = "colour"
        label = {"x": "seconds", "y": "part", "text": "text", "source": self.source}
        self.root.add_layout(
            LabelSet(**label, x_offset=6, text_baseline="middle", text_font_size="12px")
        )
        tips = [("", "@part"), ("seconds", "@seconds{0.000}"), ("share", "@share{0.0 %}")]
        self.root.add_tools(HoverTool(renderers=[bars], tooltips=tips))

    inputs = staticmethod(_by_progress)

    def show(self, run: Run) -> None:
        """Show what there is."""
        timings = run.timings
        names, seconds = list(timings), list(timings.values())
        colours = [_PROFILE_COLOURS[PROFILE.index(name)] for name in names]
        total = sum(seconds) or 1.0
        self.root.y_range.factors = list(reversed(names))
        self.source.data = {
            "part": names,
            "seconds": seconds,
            "share": [part / total for part in seconds],
            "colour": colours,
            "text": [f"{part / total:.0%}" for part in seconds],
        }


class Memory:
    """What each process holds and held at most, and all of them against projection and ceiling."""

    title, name = "Memory now (dark) and at most (light)", "memory"

    def __init__(self) -> None:
        from bokeh.models import (
            BasicTicker,
            ColumnDataSource,
            FactorRange,
            HoverTool,
            NumeralTickFormatter,
            Range1d,
            Span,
            Title,
        )

        names = ("process", "now", "peak", "colour")
        self.source = ColumnDataSource({name: [] for name in names}, name="training_memory_data")
        self.root = _figure(self, x_range=Range1d(0, 1), y_range=FactorRange(factors=["all"]))
        self.root.xaxis.formatter = NumeralTickFormatter(format="0 ib")
        self.root.xaxis.ticker = BasicTicker(**_TICKS)
        peaks = self.root.hbar("process", right="peak", source=self.source, height=0.7)
        peaks.glyph.update(fill_color="colour", fill_alpha=0.3, line_color="colour")
        now = self.root.hbar("process", right="now", source=self.source, height=0.7)
        now.glyph.update(fill_color="colour", line_color=None)
        tips = [("", "@process"), ("now", "@now{0.0 ib}"), ("peak", "@peak{0.0 ib}")]
        self.root.add_tools(HoverTool(renderers=[peaks], tooltips=tips))
        style = {"dimension": "height", "line_width": 2}
        self.projected = Span(line_color=_PROJECTED_COLOUR, line_dash="dashed", **style)
        self.ceiling = Span(line_color=CEILING_COLOUR, **style)
        self.root.add_layout(self.projected)
        self.root.add_layout(self.ceiling)
        # A line of its own: beside the title it would be cut where a window is narrow.
        self.limits = Title(text_font_style="normal", text_color="#666", standoff=5)
        self.root.add_layout(self.limits, "above")
        self.root.above = self.root.above[::-1]

    @staticmethod
    def inputs(run: Run) -> Any:
        """Return what the plot is made of."""
        return run.identity, list(run.processes.values())

    def show(self, run: Run) -> None:
        """Show what there is."""
        found = run.memory()
        names = _distinct([name for name, _, _ in found])
        self.root.y_range.factors = names[::-1]
        self.source.data = {
            "process": names,
            "now": [now for _, now, _ in found],
            "peak": [peak for _, _, peak in found],
            "colour": ["#4a5568", *(_COLOURS[0] for _ in names[1:])],
        }
        projected, ceiling = run.about["projected"], run.about["ceiling"]
        self.projected.location, self.ceiling.location = projected, ceiling
        self.limits.text = (
            f"projected {bytes_text(projected)} (dashed), ceiling {bytes_text(ceiling)} (red)"
        )
        most = max(found[0][2], projected)
        # A ceiling far above what is held would leave bars of no length.
        self.root.x_range.end = 1.08 * max(most, min(ceiling, 4 * most))


class _Step:
    """The largest entry of the gradient, or the learning rate, over passes."""

    def __init__(self, name: str, title: str) -> None:
        from bokeh.models import ColumnDataSource

        self.name, self.title, self._column = name, title, name.replace("-", "_")
        self.source = ColumnDataSource({"x": [], "y": []})
        kind = "log" if name == "gradient-norm" else "linear"
        self.root = _figure(self, x_axis_label="passes", y_axis_type=kind)
        self.root.line("x", "y", source=self.source, line_width=2, color=_COLOURS[0])
        self.root.scatter("x", "y", source=self.source, size=5, color=_COLOURS[0])

    inputs = staticmethod(_by_steps)

    def show(self, run: Run) -> None:
        """Show what there is."""
        columns = run.steps.columns(STEPS)
        # The end of an exact fit is a gradient of zero, which a logarithmic axis has no place for.
        known = columns[self._column] > 0
        self.source.data = {"x": columns["passes"][known], "y": columns[self._column][known]}


class Steps:
    """Gradient norm and learning rate, in tabs, of which one that has something to show is open."""

    name = "steps"

    def __init__(self) -> None:
        from bokeh.models import TabPanel, Tabs

        self._parts = (_gradient_norm(), _learning_rate())
        panels = [TabPanel(child=part.root, title=part.title) for part in self._parts]
        for part in self._parts:
            part.root.title = None
        self.root = Tabs(tabs=panels, sizing_mode="stretch_both", name="training_steps_tabs")
        self._shown = ""

    inputs = staticmethod(_by_steps)

    def show(self, run: Run) -> None:
        """Show what there is."""
        for part in self._parts:
            part.show(run)
        if run.identity != self._shown and run.steps.rows:
            self._shown = run.identity
            self.root.active = int(not len(self._parts[0].source.data["x"]))


def _gradient_norm() -> _Step:
    return _Step("gradient-norm", "Gradient norm")


def _learning_rate() -> _Step:
    return _Step("learning-rate", "Learning rate")


PARTS: dict[str, Callable[[], Any]] = {
    "loss": Loss,
    "rate": Rate,
    "time": Time,
    "memory": Memory,
    "gradient-norm": _gradient_norm,
    "learning-rate": _learning_rate,
}
"""The single plots, by the end of their addresses."""


def _figure(part: Any, **settings: Any) -> Any:
    from bokeh.plotting import figure

    return figure(
        title=part.title,
        name=f"training_{part.name}",
        tools="",
        toolbar_location=None,
        sizing_mode="stretch_both",
        min_height=120,
        min_border_left=66,
        min_border_right=16,
        **settings,
    )


def _quiet_legend(plot: Any, place: str = "top_right") -> None:
    plot.legend.update(
        location=place, background_fill_alpha=0.7, border_line_color=None, padding=4, spacing=0,
        label_text_font_size="11px", glyph_width=16,
    )  # fmt: skip


def _roomy(most: float) -> float:
    """Return an end of an axis with room above the most, to two digits: so it seldom moves."""
    top = 1.1 * most
    step = 10.0 ** (floor(log10(top)) - 1)
    return ceil(top / step) * step


def _colour(run: Run) -> str:
    return _COLOURS[run.number % len(_COLOURS)]


def _distinct(names: Sequence[str]) -> list[str]:
    """Return the names, numbered where one comes again: an axis takes each but once."""
    return [
        name if name not in names[:i] else f"{name} ({names[:i].count(name) + 1})"
        for i, name in enumerate(names)
    ]


def bytes_text(n: float) -> str:
    """Return a size in three digits, as in "1.5 GiB"."""
    size, units = float(n), ["B", "KiB", "MiB", "GiB", "TiB"]
    while abs(size) >= 1000 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:.3g} {units[0]}"
