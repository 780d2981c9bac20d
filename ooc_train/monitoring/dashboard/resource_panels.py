"""Panels of speed and resources: rows per second, time by activity, memory by process."""

from collections.abc import Sequence
from math import ceil, floor, log10
from typing import Any

import numpy as np

from ooc_train.monitoring.dashboard.panel_parts import (
    CEILING_COLOUR,
    COLOURS,
    PROJECTED_COLOUR,
    bytes_axis,
    bytes_text,
    hover,
    legend_below,
    panel_figure,
    subtitle,
)
from ooc_train.monitoring.dashboard.run_series import PROFILE, Run

_PROFILE_COLOURS = ("#4c86b8", "#7fc0bd", "#5fa55a", "#e3c04b", "#ef7d30", "#a9a9a9", "#8a63b8")


def _by_progress(run: Run) -> tuple[str, int]:
    """Return a value that changes with the progress: the run's identity and its messages."""
    return run.identity, run.progress.count


class Rate:
    """Rows and bytes per second over time; the dashed line is the limit of reading alone."""

    title, name = "Rows per second", "rate"

    def __init__(self) -> None:
        from bokeh.models import (
            ColumnDataSource,
            CustomJSTickFormatter,
            LinearAxis,
            Range1d,
            Span,
        )

        self.source = ColumnDataSource(
            {"seconds": [], "rate": [], "bytes": []}, name="training_rate_data"
        )
        self.root = panel_figure(
            self, x_axis_label="seconds", y_axis_label="rows per second", y_range=Range1d(0, 1)
        )
        self.root.yaxis.formatter = CustomJSTickFormatter(
            code="return tick >= 1e6 ? tick / 1e6 + ' M' : tick >= 1e3 ? tick / 1e3 + ' k' : tick"
        )
        self.bytes_range = Range1d(0, 1)
        self.root.extra_y_ranges = {"bytes": self.bytes_range}
        axis = LinearAxis(y_range_name="bytes", axis_label="bytes per second")
        bytes_axis(axis)
        self.root.add_layout(axis, "right")
        # Steps drawn as a line with corners: BokehJS hangs in `varea_step` without points.
        style = {"source": self.source, "color": COLOURS[0]}
        self.root.varea("seconds", 0, "rate", fill_alpha=0.15, **style)
        line = self.root.line("seconds", "rate", line_width=1.5, **style)
        tips = [
            ("second", "@seconds{0.0}"),
            ("rows/s", "@rate{0,0}"),
            ("bytes/s", "@bytes{0.0 ib}"),
        ]
        hover(self.root, line, tips, "vline")
        self.limit = Span(
            dimension="width", line_color=PROJECTED_COLOUR, line_dash="dashed", line_width=2
        )
        self.root.add_layout(self.limit)
        self._told = subtitle(self.root)

    inputs = staticmethod(_by_progress)

    def show(self, run: Run) -> None:
        """Draw the rates of a run, and their limit."""
        seconds, rows = np.array(run.rows_over_time()).T
        rate = np.diff(rows) / np.maximum(np.diff(seconds), 1e-9)
        # Two corners for each rate: its begin and its end.
        seconds, rate = np.repeat(seconds, 2)[1:-1], np.repeat(rate, 2)
        nbytes, limit = max(1, run.about["row_bytes"]), run.reading_limit
        self.source.data = {"seconds": seconds, "rate": rate, "bytes": rate * nbytes}
        most = max([1.0, *rate])
        if limit is not None:
            # Rounded to three digits, so that it seldom moves. Tasks that end together make
            # rates above the mean, which the limit is at least.
            at = float(f"{max(limit / nbytes, most):.3g}")
            # A limit far above would flatten the rate.
            self.limit.visible = at <= 4 * most
            most = max(most, at) if self.limit.visible else most
            self.limit.location = at
            where = "dashed" if self.limit.visible else "far above"
            self._told.text = f"{where}: reading alone, {bytes_text(at * nbytes)}/s"
        self.root.y_range.end = top = _axis_end(most)
        self.bytes_range.end = top * nbytes


class Time:
    """A bar chart of the seconds of all threads by activity."""

    title, name = "Time spent", "time"

    def __init__(self) -> None:
        from bokeh.models import ColumnDataSource, DataRange1d, FactorRange, LabelSet

        names = ("part", "seconds", "share", "colour", "text")
        self.source = ColumnDataSource({name: [] for name in names}, name="training_profile_data")
        # The longest bar leaves room for its percentage.
        along = DataRange1d(start=0, range_padding=0.3)
        self.root = panel_figure(
            self,
            x_range=along,
            y_range=FactorRange(factors=[]),
            x_axis_label="seconds of all threads",
        )
        bars = self.root.hbar("part", right="seconds", source=self.source, height=0.7)
        bars.glyph.fill_color = bars.glyph.line_color = "colour"
        label = {"x": "seconds", "y": "part", "text": "text", "source": self.source}
        self.root.add_layout(
            LabelSet(**label, x_offset=6, text_baseline="middle", text_font_size="12px")
        )
        tips = [("", "@part"), ("seconds", "@seconds{0.000}"), ("share", "@share{0.0 %}")]
        hover(self.root, bars, tips)

    inputs = staticmethod(_by_progress)

    def show(self, run: Run) -> None:
        """Draw the seconds of a run by activity."""
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


class _Limits:
    """The lines of projection and ceiling in a plot of memory, and a text that tells of them."""

    def __init__(self, plot: Any, dimension: str, bytes_range: Any) -> None:
        from bokeh.models import Span

        style = {"dimension": dimension, "line_width": 2}
        self.projected = Span(line_color=PROJECTED_COLOUR, line_dash="dashed", **style)
        self.ceiling = Span(line_color=CEILING_COLOUR, **style)
        plot.add_layout(self.projected)
        plot.add_layout(self.ceiling)
        self._told, self._range = subtitle(plot), bytes_range

    def show(self, run: Run, most: int) -> None:
        """Draw the limits of a run, both in view, on an axis that reaches `most` bytes."""
        projected, ceiling = run.about["projected"], run.about["ceiling"]
        self.projected.location, self.ceiling.location = projected, ceiling
        self._told.text = (
            f"projected {bytes_text(projected)} (dashed), ceiling {bytes_text(ceiling)} (red)"
        )
        self._range.end = 1.05 * max(most, projected, ceiling)


class Memory:
    """Memory of the processes over time, stacked, with projection and ceiling."""

    title, name = "Memory over time", "memory"

    def __init__(self) -> None:
        from bokeh.models import ColumnDataSource, Range1d

        names = ("x", "y", "colour", "label")
        self.source = ColumnDataSource({name: [] for name in names}, name="training_areas_data")
        self.total = ColumnDataSource({"seconds": [], "bytes": []}, name="training_total_data")
        self.root = panel_figure(
            self, x_axis_label="seconds", y_axis_label="memory", y_range=Range1d(0, 1)
        )
        bytes_axis(self.root.yaxis[0])
        areas = self.root.patches(
            "x", "y", source=self.source, fill_color="colour", line_color=None, fill_alpha=0.75
        )
        line = self.root.line("seconds", "bytes", source=self.total, color=PROJECTED_COLOUR)
        tips = [("second", "@seconds{0.0}"), ("all processes", "@bytes{0.0 ib}")]
        hover(self.root, line, tips, "vline")
        self.limits = _Limits(self.root, "width", self.root.y_range)
        legend_below(self.root, areas, columns=4)

    @staticmethod
    def inputs(run: Run) -> Any:
        """Return a value that changes with the samples of memory."""
        return run.identity, len(run.processes), run.memory_over_time()[0][-1:]

    def show(self, run: Run) -> None:
        """Draw the memory of a run over time."""
        seconds, held = run.memory_over_time()
        at, low = np.array(seconds), np.zeros(len(seconds))
        data: dict[str, list[Any]] = {"x": [], "y": [], "colour": [], "label": []}
        for i, (name, values) in enumerate(held.items()):
            high = low + values
            data["x"].append(np.concatenate([at, at[::-1]]))
            data["y"].append(np.concatenate([low, high[::-1]]))
            data["colour"].append(COLOURS[i % len(COLOURS)])
            data["label"].append(name)
            low = high
        self.source.data = data
        self.total.data = {"seconds": at, "bytes": low}
        self.limits.show(run, max([run.memory()[0][2], *low]))


class MemoryNow:
    """Bars of current and peak memory, by process and in sum, with projection and ceiling."""

    title, name = "By process: now (dark), at most (light)", "memory-now"

    def __init__(self) -> None:
        from bokeh.models import ColumnDataSource, FactorRange, Range1d

        names = ("process", "now", "peak", "colour")
        self.source = ColumnDataSource({name: [] for name in names}, name="training_memory_data")
        self.root = panel_figure(
            self,
            x_range=Range1d(0, 1),
            y_range=FactorRange(factors=["all"]),
            x_axis_label="memory",
        )
        bytes_axis(self.root.xaxis[0])
        peaks = self.root.hbar("process", right="peak", source=self.source, height=0.7)
        peaks.glyph.update(fill_color="colour", fill_alpha=0.3, line_color="colour")
        now = self.root.hbar("process", right="now", source=self.source, height=0.7)
        now.glyph.update(fill_color="colour", line_color=None)
        tips = [("", "@process"), ("now", "@now{0.0 ib}"), ("peak", "@peak{0.0 ib}")]
        hover(self.root, peaks, tips)
        self.limits = _Limits(self.root, "height", self.root.x_range)

    @staticmethod
    def inputs(run: Run) -> Any:
        """Return a value that changes with the shown data: the memory of each process."""
        return run.identity, list(run.processes.values())

    def show(self, run: Run) -> None:
        """Draw the memory of a run by process."""
        found = run.memory()
        names = _distinct([name for name, _, _ in found])
        self.root.y_range.factors = names[::-1]
        self.source.data = {
            "process": names,
            "now": [now for _, now, _ in found],
            "peak": [peak for _, _, peak in found],
            "colour": ["#6b7c93", *(COLOURS[0] for _ in names[1:])],
        }
        self.limits.show(run, found[0][2])


def _axis_end(most: float) -> float:
    """Return an end of an axis above `most`, rounded to two digits so that it seldom moves."""
    top = 1.1 * most
    step = 10.0 ** (floor(log10(top)) - 1)
    return ceil(top / step) * step


def _distinct(names: Sequence[str]) -> list[str]:
    """Return the names, numbered if repeated: a categorical axis needs distinct ones."""
    return [
        name if name not in names[:i] else f"{name} ({names[:i].count(name) + 1})"
        for i, name in enumerate(names)
    ]
