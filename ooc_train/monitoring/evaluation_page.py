"""The metrics of a model as one HTML page with its plots: it opens without a network."""

from collections.abc import Mapping
from typing import Any

from ooc_train.core.text import few
from ooc_train.monitoring.html_page import Section, drawn, html_page

_MOST_ROWS = 1_000
"""Most rows of a table of classes or groups."""


def evaluation_page(metrics: Mapping[str, Any], title: str, about: str) -> str:
    """Return the metrics of a model as HTML.

    Parameters
    ----------
    metrics : mapping
        The metrics, as `evaluate` returns them.
    title, about : str
        The title, and a line below it.
    """
    return html_page(
        title,
        [about],
        [
            Section("Metrics", rows=figures(metrics)),
            *_classes(metrics.get("by_class")),
            *_residuals(metrics.get("residuals")),
            *_groups(metrics.get("by_group")),
        ],
    )


def figures(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the metrics that are single numbers as rows of text; errors beside their figures."""
    rows = []
    for name, value in metrics.items():
        if not isinstance(value, int | float) or name.endswith("_error"):
            continue
        error = metrics.get(f"{name}_error")
        within = "" if error is None else f"  within {error:.1g}"
        rows.append((name, f"{value:,}" if name == "n_rows" else f"{value:.6g}{within}"))
    return rows


def _classes(by_class: Any) -> list[Section]:
    if by_class is None:
        return []
    head, rows = by_class.rows(_MOST_ROWS)
    return [
        Section("Classes", rows=rows, head=head),
        Section("Plots", [drawn(draw) for draw in by_class.plots]),
    ]


def _residuals(residuals: Any) -> list[Section]:
    if residuals is None:
        return []
    head, rows = residuals.rows()
    return [Section("Residuals", [drawn(draw) for draw in residuals.plots], rows, head)]


def _groups(by_group: Any) -> list[Section]:
    if by_group is None:
        return []
    rows = by_group.rows()[:_MOST_ROWS]
    title = f"Groups: {few([row[0] for row in rows], 3)}" if len(rows) > 3 else "Groups"
    return [Section(title, rows=rows, head=by_group.head)]
