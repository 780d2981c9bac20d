"""Parts that all panels share: figures, colours and sizes as text."""

from collections.abc import Sequence
from typing import Any

from ooc_train.monitoring.dashboard.run_series import Run

COLOURS = (
    "#1f77b4", "#ef7d30", "#3a9a50", "#8a63b8", "#b5563b", "#d166a0", "#6b7280", "#17a2b8",
)  # fmt: skip
CEILING_COLOUR, PROJECTED_COLOUR = "#d9483b", "#8a94a3"
METRIC_NAMES = {"accuracy": "accuracy", "roc_auc": "AUC", "r2": "R\u00b2"}
READING_ALONE = "the rate of the threads while they read, if they did nothing else"
_TICKS_1024 = {"base": 1024, "mantissas": [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]}


def panel_figure(panel: Any, **settings: Any) -> Any:
    """Return an empty figure with the title and name of a panel."""
    from bokeh.plotting import figure

    return figure(
        title=panel.title,
        name=f"training_{panel.name}",
        tools="pan,box_zoom,wheel_zoom,reset",
        active_drag="box_zoom",
        toolbar_location="right",
        sizing_mode="stretch_both",
        min_height=120,
        min_border_left=66,
        min_border_right=16,
        **settings,
    )


def bytes_axis(axis: Any) -> None:
    """Give an axis ticks at powers of 2, in three digits: "1.5 GiB"."""
    from bokeh.models import BasicTicker, CustomJSTickFormatter

    axis.ticker = BasicTicker(**_TICKS_1024, desired_num_ticks=5)
    axis.formatter = CustomJSTickFormatter(
        code="let i = 0, n = tick; while (Math.abs(n) >= 1000 && i < 4) { n /= 1024; i += 1 }"
        "return n === 0 ? '0' : +n.toPrecision(3) + ' ' + ['B', 'KiB', 'MiB', 'GiB', 'TiB'][i]"
    )


def subtitle(plot: Any) -> Any:
    """Add a line below the title of a plot, which narrow windows cut less, and return it."""
    from bokeh.models import Title

    line = Title(text_font_style="normal", text_font_size="11px", standoff=4)
    plot.add_layout(line, "above")
    plot.above = plot.above[::-1]
    return line


def hover(plot: Any, renderer: Any, tips: Sequence[tuple[str, str]], mode: str = "mouse") -> None:
    """Show values of the data under the mouse, without a button of its own."""
    from bokeh.models import HoverTool

    tool = HoverTool(renderers=[renderer], tooltips=list(tips), mode=mode, visible=False)
    plot.add_tools(tool)


def legend_below(plot: Any, renderer: Any, columns: int) -> Any:
    """Add a legend of the labels of a renderer's source below a plot, and return it."""
    from bokeh.models import Legend, LegendItem

    legend = Legend(
        items=[LegendItem(label={"field": "label"}, renderers=[renderer])],
        background_fill_alpha=0.0,
        border_line_color=None,
        label_text_font_size="11px",
        glyph_width=16,
        location="top_left",
        padding=2,
        spacing=2,
        ncols=columns,
    )
    plot.add_layout(legend, "below")
    return legend


def run_colour(run: Run) -> str:
    """Return the colour of a run."""
    return COLOURS[run.number % len(COLOURS)]


def bytes_text(n: float) -> str:
    """Return a size in three digits: "1.5 GiB"."""
    size, units = float(n), ["B", "KiB", "MiB", "GiB", "TiB"]
    while abs(size) >= 1000 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:.3g} {units[0]}"
