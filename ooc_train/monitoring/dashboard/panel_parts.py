"""Parts that all panels share: figures, colours and sizes as text."""

from typing import Any

from ooc_train.monitoring.dashboard.run_series import Run

COLOURS = (
    "#1f77b4", "#ef7d30", "#3a9a50", "#8a63b8", "#b5563b", "#d166a0", "#6b7280", "#17a2b8",
)  # fmt: skip
CEILING_COLOUR, PROJECTED_COLOUR = "#c0392b", "#7f7f7f"


def panel_figure(panel: Any, **settings: Any) -> Any:
    """Return an empty figure with the title and name of a panel."""
    from bokeh.plotting import figure

    return figure(
        title=panel.title,
        name=f"training_{panel.name}",
        tools="",
        toolbar_location=None,
        sizing_mode="stretch_both",
        min_height=120,
        min_border_left=66,
        min_border_right=16,
        **settings,
    )


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
