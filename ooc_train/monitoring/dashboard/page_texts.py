"""The texts of the Training page: templates, and the values of a run that they show."""

from collections.abc import Mapping
from math import isnan, nan
from time import localtime, strftime
from typing import Any

from ooc_train.monitoring.dashboard.panel_parts import CEILING_COLOUR, bytes_text
from ooc_train.monitoring.dashboard.run_series import STEPS, Run

NO_RUN = "<h1>No run yet</h1><p>The first run on this cluster will be shown here.</p>"
_STATE_COLOURS = {"running": "#ef7d30", "converged": "#3a9a50", "finished": "#3a9a50"}

HEAD = """
<h1>{{ about.model }} <span>by {{ about.solver }}, batch size {{ about.batch_size }}</span>
<b style="background:{{ colour }}">{{ state }}</b></h1>
<p>{{ about.data }} &middot; {{ rows }} rows &times; {{ features }} features
{%- if validation_rows %} &middot; {{ validation_rows }} validation rows{% endif %}</p>
<div class="bar"><i style="width:{{ share }};background:{{ colour }}"></i></div>
<p>{{ progress }} &middot; {{ left }}</p>
<section>
{%- for name, value, limit in figures -%}
<dl><dt>{{ name }}</dt><dd>{{ value }}
{%- if limit %} <small>of {{ limit }}</small>{% endif %}</dd></dl>
{%- endfor -%}
</section>
"""
PLAN = """
<h2>The plan</h2><table>
{%- for name, size, why in rows -%}
<tr class="{{ name }}"><td>{{ name }}</td><td>{{ size }}</td><td>{{ why }}</td></tr>
{%- endfor -%}
</table>
"""
EVENTS = """
<h2>Events</h2><table>
{%- for time, text in events -%}
<tr><td>{{ time }}</td><td>{{ text }}</td></tr>
{%- else -%}
<tr><td>No events.</td></tr>
{%- endfor -%}
</table>
"""


def head_values(run: Run) -> dict[str, Any]:
    """Return settings, progress and figures of a run."""
    about, steps, limit = run.about, run.steps.rows, run.reading_limit
    last = dict(zip(STEPS, steps[-1], strict=True)) if steps else {}
    most, validation_rows = about["most_passes"], about["validation_rows"]
    # Samples that solvers read count too, so passes may exceed the limit.
    known = most is not None and run.passes <= most
    peak = run.memory()[0][2]
    figures = [
        ("pass", f"{run.passes:.4g}", f"{most:g}" if known else ""),
        ("updates", f"{last.get('updates', 0):,.0f}", ""),
        ("loss", _loss(last, "loss"), ""),
        ("validation loss", _loss(last, "validation_loss"), "") if validation_rows else None,
        ("rows/s", _count(run.rate), ""),
        ("bytes/s", bytes_text(run.rate * about["row_bytes"]), ""),
        ("reading alone would reach", "-" if limit is None else f"{bytes_text(limit)}/s", ""),
        ("rows per update", f"{about['rows_per_update']:,}", ""),
        ("learning rate", f"{last['learning_rate']:.3g}", "")
        if last.get("learning_rate", nan) > 0
        else None,
        ("memory, peak", bytes_text(peak) if peak else "-", bytes_text(about["ceiling"])),
    ]
    is_pass = run.state == "running" and most is None and not about["max_seconds"]
    return {
        "about": about,
        "state": run.state,
        "colour": _STATE_COLOURS.get(run.state, CEILING_COLOUR),
        "rows": f"{about['n_rows']:,}",
        "features": f"{about['n_features']:,}",
        "validation_rows": f"{validation_rows:,}" if validation_rows else "",
        "share": f"{run.share:.1%}",
        "progress": f"{run.share:.0%}{' of this pass' if is_pass else ''}",
        "left": run.left,
        "figures": [figure for figure in figures if figure is not None],
    }


def _loss(last: Mapping[str, float], name: str) -> str:
    loss = last.get(name, nan)
    return "-" if isnan(loss) else f"{loss:.6g}"


def plan_values(run: Run) -> dict[str, Any]:
    """Return the plan as rows: the projected bytes, term by term."""
    about = run.about
    rows = [
        *about["terms"],
        ("projected", about["projected"], ""),
        ("ceiling", about["ceiling"], about["ceiling_source"]),
        ("left", about["ceiling"] - about["projected"], ""),
    ]
    return {"rows": [(name, bytes_text(size), why) for name, size, why in rows]}


def event_values(run: Run) -> dict[str, Any]:
    """Return the events: workers, tasks, and notes of the run."""
    return {
        "events": [(strftime("%H:%M:%S", localtime(when)), text[:300]) for when, text in run.events]
    }


def _count(n: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return f"{n:.3g}"


STYLE = """
:host { font-family: Helvetica, Arial, sans-serif; color: #333; }
:host > div { display: block; width: 100%; }
h1 { font-size: 20px; margin: 2px 0 0; }
h1 span { font-weight: normal; }
h1 b { font-size: 12px; color: white; border-radius: 3px; padding: 3px 8px; vertical-align: 3px;
       margin-left: 6px; font-weight: normal; }
h2 { font-size: 13px; color: #444; margin: 4px 0 6px; }
p { margin: 4px 0; font-size: 13px; color: #666; }
.bar { background: #e4e4e4; height: 8px; border-radius: 4px; overflow: hidden; margin-top: 8px; }
.bar i { display: block; height: 100%; }
section { display: flex; flex-wrap: wrap; gap: 6px 28px; margin-top: 10px; }
dl { margin: 0; }
dt { font-size: 12px; color: #777; }
dd { font-size: 20px; margin: 1px 0 0; white-space: nowrap; }
small { font-size: 13px; color: #777; }
table { border-collapse: collapse; font-size: 13px; width: 100%; }
td:first-child { white-space: nowrap; width: 1%; }
td { padding: 3px 14px 3px 0; border-top: 1px solid #e4e4e4; vertical-align: top; }
td:nth-child(2) { white-space: nowrap; }
tr.projected td { font-weight: bold; border-top: 1px solid #999; }
"""
