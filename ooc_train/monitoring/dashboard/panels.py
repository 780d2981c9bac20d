"""Panels of losses and steps, and the single plots by name.

A panel is made once for each open page. Its `inputs` identify the data that it shows. It is redrawn
only when they change, since each message to a browser costs the scheduler 0.3 ms.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ooc_train.monitoring.dashboard.panel_parts import COLOURS, panel_figure, run_colour
from ooc_train.monitoring.dashboard.resource_panels import Memory, Rate, Time
from ooc_train.monitoring.dashboard.run_series import STEPS, Run


def _by_steps(run: Run) -> tuple[str, int]:
    """Return a value that changes with the steps of a run: its identity and their number."""
    return run.identity, run.steps.count


class Loss:
    """Loss of every run over its passes, with a dot for each step of the selected run.

    Dashed lines are losses of validation rows.
    """

    title, name = "Loss over passes", "loss"

    def __init__(self) -> None:
        from bokeh.models import ColumnDataSource, HoverTool

        names = ("x", "y", "validation", "colour", "label", "width")
        self.lines = ColumnDataSource({name: [] for name in names})
        self.steps = ColumnDataSource(
            {name: [] for name in STEPS} | {"colour": []}, name="training_steps_data"
        )
        self.root = panel_figure(self, x_axis_label="passes")
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
        """Return a value that changes with the shown data: identities and numbers of steps."""
        return run.identity, [(one.identity, one.steps.count) for one in run.runs.values()]

    def show(self, run: Run) -> None:
        """Draw the losses of all runs, and the steps of the selected run."""
        runs = list(run.runs.values())
        shown = (run.identity, *run.runs)
        counts = {one.identity: one.steps.count for one in runs}
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
            self.lines.data = _lines(runs) | {
                "colour": [run_colour(one) for one in runs],
                "label": [one.label for one in runs],
                "width": [2.5 if one is run else 1.2 for one in runs],
            }
        self._shown, self._counts = shown, counts
        validated = any(one.about["validation_rows"] for one in runs)
        self.root.title.text = self.title + ("; dashed: validation rows" if validated else "")
        steps = run.steps.columns(STEPS)
        self.steps.data = steps | {"colour": [run_colour(run)] * len(run.steps.rows)}


def _lines(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Return passes and losses of runs, one array for each run."""
    columns = [one.steps.columns(STEPS) for one in runs]
    names = {"x": "passes", "y": "loss", "validation": "validation_loss"}
    return {ours: [each[theirs] for each in columns] for ours, theirs in names.items()}


class _Step:
    """A plot of the gradient norm (largest entry), learning rate or batch size over passes."""

    def __init__(self, name: str, title: str) -> None:
        from bokeh.models import ColumnDataSource

        self.name, self.title, self._column = name, title, name.replace("-", "_")
        self.source = ColumnDataSource({"x": [], "y": []})
        kind = "linear" if name == "learning-rate" else "log"
        self.root = panel_figure(self, x_axis_label="passes", y_axis_type=kind)
        self.root.line("x", "y", source=self.source, line_width=2, color=COLOURS[0])
        self.root.scatter("x", "y", source=self.source, size=5, color=COLOURS[0])

    inputs = staticmethod(_by_steps)

    def show(self, run: Run) -> None:
        """Draw the quantity after each step of a run."""
        columns = run.steps.columns(STEPS)
        # An exact fit ends at gradient 0, which a logarithmic axis can't show.
        known = columns[self._column] > 0
        self.source.data = {"x": columns["passes"][known], "y": columns[self._column][known]}


_gradient_norm = partial(_Step, "gradient-norm", "Gradient norm")
_learning_rate = partial(_Step, "learning-rate", "Learning rate")
_batch_size = partial(_Step, "batch-size", "Batch size")


class Steps:
    """Gradient norm, learning rate and batch size, in tabs; a tab with data is open."""

    name = "steps"

    def __init__(self) -> None:
        from bokeh.models import TabPanel, Tabs

        self._parts = (_gradient_norm(), _learning_rate(), _batch_size())
        panels = [TabPanel(child=part.root, title=part.title) for part in self._parts]
        for part in self._parts:
            part.root.title = None
        self.root = Tabs(tabs=panels, sizing_mode="stretch_both", name="training_steps_tabs")
        self._shown = ""

    inputs = staticmethod(_by_steps)

    def show(self, run: Run) -> None:
        """Draw all tabs for a run, and open a tab with data if the run is a new one."""
        for part in self._parts:
            part.show(run)
        if run.identity != self._shown and run.steps.rows:
            self._shown = run.identity
            self.root.active = int(not len(self._parts[0].source.data["x"]))


SINGLE_PANELS: dict[str, Callable[[], Any]] = {
    "loss": Loss,
    "rate": Rate,
    "time": Time,
    "memory": Memory,
    "gradient-norm": _gradient_norm,
    "learning-rate": _learning_rate,
    "batch-size": _batch_size,
}
"""Single plots, by the end of their address."""


def _quiet_legend(plot: Any, place: str = "top_right") -> None:
    plot.legend.update(
        location=place, background_fill_alpha=0.7, border_line_color=None, padding=4, spacing=0,
        label_text_font_size="11px", glyph_width=16,
    )  # fmt: skip
