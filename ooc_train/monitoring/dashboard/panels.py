"""Panels of losses and steps, and the single plots by name.

A panel is made once for each open page. Its `inputs` identify the data that it shows. It is redrawn
only when they change, since each message to a browser costs the scheduler 0.3 ms.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ooc_train.monitoring.dashboard.page_style import WIDGETS
from ooc_train.monitoring.dashboard.panel_parts import (
    COLOURS,
    METRIC_NAMES,
    hover,
    legend_below,
    panel_figure,
    run_colour,
    subtitle,
)
from ooc_train.monitoring.dashboard.resource_panels import Memory, MemoryNow, Rate, Time
from ooc_train.monitoring.dashboard.run_series import (
    METRICS,
    POINTS,
    STEPS,
    Run,
    Series,
    differing_settings,
)

NOTHING = "nothing yet, or not in this kind of run"
OVER = ("passes", "updates", "seconds")
"""What losses may be drawn over."""


def _by_steps(run: Run) -> tuple[str, int]:
    """Return a value that changes with the steps of a run: its identity and their number."""
    return run.identity, run.steps.count


_LINES = {"loss": "", "validation_loss": "", "within": "within_"}
"""The lines of a run, and what the names of their horizontal columns begin with."""


class Loss:
    """Losses of the runs of the selected run's model and data, with a dot for each of its steps.

    Dashed lines are losses of validation rows, and thin lines those within passes.
    """

    title, name = "Mean loss of a row", "loss"

    def __init__(self) -> None:
        from bokeh.models import ColumnDataSource

        self.hidden: frozenset[str] = frozenset()
        columns = [f"{before}{axis}" for before in ("", "within_") for axis in OVER]
        names = (*columns, *_LINES, "colour", "label", "width")
        self.lines = ColumnDataSource({name: [] for name in names}, name="training_lines_data")
        self.steps = ColumnDataSource(
            {name: [] for name in STEPS} | {"colour": []}, name="training_steps_data"
        )
        self.within = ColumnDataSource(
            {name: [] for name in POINTS} | {"colour": []}, name="training_within_data"
        )
        self.root = panel_figure(self, y_axis_label="mean loss of a row")
        style = {"source": self.lines, "line_color": "colour"}
        self._multi = [
            self.root.multi_line("passes", "loss", line_width="width", **style),
            self.root.multi_line(
                "passes", "validation_loss", line_width="width", line_dash=[10, 6], **style
            ),
            self.root.multi_line("within_passes", "within", line_alpha=0.45, **style),
        ]
        self._dots = [
            self.root.scatter("passes", "loss", source=self.steps, size=6, color="colour"),
            self.root.scatter("passes", "loss", source=self.within, size=3, color="colour"),
        ]
        tips = [
            ("loss", "@loss{0.000000}"),
            ("pass", "@passes{0.00}"),
            ("updates", "@updates{0,0}"),
            ("seconds", "@seconds{0.0}"),
        ]
        validation = ("validation", "@validation_loss{0.000000}")
        hover(self.root, self._dots[0], [tips[0], validation, *tips[1:]])
        hover(self.root, self._dots[1], [("", "within a pass"), *tips])
        self._told = subtitle(self.root)
        self._legend = legend_below(self.root, self._multi[0], columns=1)
        self._shown: tuple[Any, ...] = ()
        self._counts: dict[str, tuple[int, int]] = {}
        self.over(OVER[0])

    def over(self, axis: str) -> None:
        """Draw the losses over passes, updates or seconds."""
        for line, before in zip(self._multi, _LINES.values(), strict=True):
            line.glyph.xs = before + axis
        for dots in self._dots:
            dots.glyph.x = axis
        self.root.xaxis.axis_label = axis

    def scale(self, kind: str) -> None:
        """Draw the losses on a linear or a logarithmic axis."""
        from bokeh.models import BasicTicker, LinearScale, LogScale, LogTicker

        log = kind == "log"
        self.root.y_scale = LogScale() if log else LinearScale()
        self.root.yaxis.ticker = LogTicker() if log else BasicTicker()
        self.root.ygrid.ticker = self.root.yaxis.ticker

    def compare(self, chosen: Sequence[str], run: Run) -> None:
        """Draw the chosen runs, of all runs that a run is compared with."""
        self.hidden = frozenset(set(run.runs) - {*chosen, run.identity})

    def inputs(self, run: Run) -> Any:
        """Return a value that changes with the shown data: identities and numbers of points."""
        return (
            run.identity,
            [(one.identity, one.counts) for one in run.runs.values()],
            self.hidden,
        )

    def show(self, run: Run) -> None:
        """Draw the losses of runs, and the steps of the selected run."""
        every = [one for one in run.runs.values() if one.compares_with(run)]
        runs = [one for one in every if one.identity not in self.hidden]
        shown = (run.identity, *(one.identity for one in runs))
        counts = {one.identity: one.counts for one in runs}
        if shown == self._shown:
            # Lines of finished runs need no update.
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
            named = ("model", "solver", "batch_size")  # by the label of a run
            names = [name for name in differing_settings(runs) if name not in named]
            self.lines.data = _lines(runs) | {
                "colour": [run_colour(one) for one in runs],
                "label": [
                    ", ".join([one.label, *(f"{name} {one.settings[name]}" for name in names)])
                    for one in runs
                ],
                "width": [2.5 if one is run else 1.4 for one in runs],
            }
            self._legend.visible = len(runs) > 1
        self._shown, self._counts = shown, counts
        # Narrow windows have room for some 60 letters.
        told = ["dots: after each step" if run.steps.rows else ""]
        told.append("thin: rows so far" if run.within.rows else "")
        validated = any(one.about["validation_rows"] for one in runs)
        told.append("dashed: validation" if validated else "")
        self._told.text = "; ".join(filter(None, told))
        colour = run_colour(run)
        self.steps.data = _columns(run.steps, STEPS, colour)
        self.within.data = _columns(run.within, POINTS, colour)


def _columns(series: Series, names: Sequence[str], colour: str) -> dict[str, Any]:
    return series.columns(names) | {"colour": [colour] * len(series.rows)}


def _lines(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Return the lines of runs, one array for each run."""
    found: dict[str, list[Any]] = {}
    for one in runs:
        steps, points = one.steps.columns(STEPS), one.within.broken_columns(POINTS)
        columns = {name: steps[name] for name in (*OVER, "loss", "validation_loss")}
        columns |= {f"within_{name}": points[name] for name in OVER} | {"within": points["loss"]}
        for name, column in columns.items():
            found.setdefault(name, []).append(column)
    return found


class _Step:
    """A plot of the gradient norm (largest entry), learning rate or batch size over passes."""

    def __init__(self, name: str, title: str) -> None:
        from bokeh.models import ColumnDataSource, CustomJSTickFormatter

        self.name, self.title, self._column = name, title, name.replace("-", "_")
        self.source = ColumnDataSource({"x": [], "y": []})
        kind = "linear" if name == "learning-rate" else "log"
        self.root = panel_figure(
            self, x_axis_label="passes", y_axis_label=title.lower(), y_axis_type=kind
        )
        self.root.line("x", "y", source=self.source, line_width=2, color=COLOURS[0])
        dots = self.root.scatter("x", "y", source=self.source, size=5, color=COLOURS[0])
        tips = [("pass", "@x{0.00}"), (title.lower(), "@y{0.0000e}")]
        hover(self.root, dots, tips)
        self.root.yaxis.formatter = CustomJSTickFormatter(code="return `${+tick.toPrecision(4)}`")
        self._told = subtitle(self.root)

    inputs = staticmethod(_by_steps)

    def show(self, run: Run) -> None:
        """Draw the quantity after each step of a run."""
        columns = run.steps.columns(STEPS)
        # An exact fit ends at gradient 0, which a logarithmic axis can't show.
        known = columns[self._column] > 0
        self.source.data = {"x": columns["passes"][known], "y": columns[self._column][known]}
        self._told.text = "" if known.any() else NOTHING

    @property
    def has_data(self) -> bool:
        """Whether something is drawn."""
        return bool(len(self.source.data["x"]))


class Metrics:
    """Accuracy and AUC, or R^2, of the model within passes, on a sample of the training rows."""

    title, name = "Metrics", "metrics"

    def __init__(self) -> None:
        from bokeh.models import ColumnDataSource

        names = ("xs", "ys", "label", "colour")
        self.source = ColumnDataSource({name: [] for name in names}, name="training_metrics_data")
        self.root = panel_figure(self, x_axis_label="passes", y_axis_label="of a sample of rows")
        line = self.root.multi_line("xs", "ys", source=self.source, line_width=2, color="colour")
        self.points = ColumnDataSource({name: [] for name in ("x", "y", "colour")})
        self.root.scatter("x", "y", source=self.points, size=4, color="colour")
        self._told = subtitle(self.root)
        hover(self.root, line, [("pass", "$x{0.00}"), ("", "@label"), ("value", "$y{0.0000}")])
        self._legend = legend_below(self.root, line, columns=2)

    @staticmethod
    def inputs(run: Run) -> Any:
        """Return a value that changes with the points within passes."""
        return run.identity, run.within.count

    def show(self, run: Run) -> None:
        """Draw the metrics of a run that are known."""
        columns = run.within.columns(POINTS)
        known = {name: np.isfinite(columns[name]) for name in METRICS}
        names = [name for name in METRICS if known[name].any()]
        self.source.data = {
            "xs": [columns["passes"][known[name]] for name in names],
            "ys": [columns[name][known[name]] for name in names],
            "label": [METRIC_NAMES[name] for name in names],
            "colour": [COLOURS[METRICS.index(name)] for name in names],
        }
        data = self.source.data
        self.points.data = {
            "x": np.concatenate([[], *data["xs"]]),
            "y": np.concatenate([[], *data["ys"]]),
            # A list: an empty array of no type is no array of colours to a browser.
            "colour": [
                colour for colour, xs in zip(data["colour"], data["xs"], strict=True) for _ in xs
            ],
        }
        self._told.text = "" if names else NOTHING

    @property
    def has_data(self) -> bool:
        """Whether something is drawn."""
        return bool(len(self.source.data["xs"]))


_gradient_norm = partial(_Step, "gradient-norm", "Gradient norm")
_learning_rate = partial(_Step, "learning-rate", "Learning rate")
_batch_size = partial(_Step, "batch-size", "Batch size")


class _Tabs:
    """Panels of which one is seen at a time."""

    def __init__(self, name: str, parts: Sequence[Any]) -> None:
        from bokeh.models import TabPanel, Tabs

        self.parts = parts
        panels = [TabPanel(child=part.root, title=part.title) for part in parts]
        for part in parts:
            part.root.title = None
        self.root = Tabs(
            tabs=panels,
            sizing_mode="stretch_both",
            name=f"training_{name}_tabs",
            stylesheets=[WIDGETS],
        )

    def inputs(self, run: Run) -> Any:
        """Return a value that changes with the data of any panel."""
        return [part.inputs(run) for part in self.parts]

    def show(self, run: Run) -> None:
        """Draw all panels for a run."""
        for part in self.parts:
            part.show(run)


class MemoryTabs(_Tabs):
    """Memory over time, and by process."""

    def __init__(self) -> None:
        super().__init__("memory", (Memory(), MemoryNow()))


class Steps(_Tabs):
    """Metrics, gradient norm, learning rate and batch size; a tab with data is open."""

    def __init__(self) -> None:
        super().__init__("steps", (Metrics(), _gradient_norm(), _learning_rate(), _batch_size()))
        self._shown = ""

    def show(self, run: Run) -> None:
        """Draw all tabs for a run, and open a tab with data if the run is a new one.

        Tabs without data are disabled.
        """
        super().show(run)
        for panel, part in zip(self.root.tabs, self.parts, strict=True):
            if panel.disabled == part.has_data:
                panel.disabled = not part.has_data
        if run.identity != self._shown and any(part.has_data for part in self.parts):
            self._shown = run.identity
            self.root.active = next(i for i, part in enumerate(self.parts) if part.has_data)


SINGLE_PANELS: dict[str, Callable[[], Any]] = {
    "loss": Loss,
    "rate": Rate,
    "time": Time,
    "memory": Memory,
    "memory-now": MemoryNow,
    "metrics": Metrics,
    "gradient-norm": _gradient_norm,
    "learning-rate": _learning_rate,
    "batch-size": _batch_size,
}
"""Single plots, by the end of their address."""
