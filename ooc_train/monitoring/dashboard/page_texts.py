"""The texts of the Training page: templates, and the values of a run that they show."""

from collections.abc import Mapping
from math import isnan, nan
from time import localtime, strftime
from typing import Any

from ooc_train.monitoring.dashboard.panel_parts import (
    CEILING_COLOUR,
    METRIC_NAMES,
    READING_ALONE,
    bytes_text,
    run_colour,
)
from ooc_train.monitoring.dashboard.run_series import (
    METRICS,
    POINTS,
    STEPS,
    Run,
    differing_settings,
    duration,
)

NO_RUN = "<h1>No run yet</h1><p>The first run on this cluster will be shown here.</p>"
_STATE_COLOURS = {"running": "#ef7d30", "converged": "#3a9a50", "finished": "#3a9a50"}
_OF_SAMPLE = "the model so far, on a fixed sample of training rows"
_SO_FAR = "within a pass: of its rows so far; of updates, of rows just before their update"

HEAD = """
<h1>{{ about.model }} <span>by {{ about.solver }}, batch size {{ about.batch_size }}</span>
<b style="background:{{ colour }}">{{ state }}</b></h1>
{% if error %}<p class="error">{{ error }}</p>{% endif %}
<p>{{ about.data }} &middot; {{ rows }} rows &times; {{ features }} features
{%- if validation_rows %} &middot; {{ validation_rows }} validation rows{% endif %}</p>
<div class="bar"><i style="width:{{ share }};background:{{ colour }}"></i></div>
<p>{{ progress }} &middot; {{ left }}</p>
<section>
{%- for name, value, limit, why in figures -%}
<dl title="{{ why }}"><dt>{{ name }}</dt><dd>{{ value }}
{%- if limit %} <small>{{ limit }}</small>{% endif %}</dd></dl>
{%- endfor -%}
</section>
"""
PLAN = """
<details><summary>The plan of memory: {{ projected }} projected</summary><table>
{%- for name, size, why in rows -%}
<tr class="{{ name }}"><td>{{ name }}</td><td>{{ size }}</td><td>{{ why }}</td></tr>
{%- endfor -%}
</table></details>
"""
SETTINGS = """
<details><summary>All settings of the run</summary><table>
{%- for name, value in settings -%}
<tr><td>{{ name }}</td><td>{{ value }}</td></tr>
{%- endfor -%}
</table></details>
"""
RUNS = """
<h2>Runs of this cluster</h2><div class="scroll"><table>
<tr><th>run</th>{% for name in names %}<th>{{ name }}</th>{% endfor %}</tr>
{%- for kind, colour, cells in rows -%}
<tr class="{{ kind }}"><td><i style="background:{{ colour }}"></i>{{ cells[0] }}</td>
{%- for cell in cells[1:] %}<td>{{ cell }}</td>{% endfor %}</tr>
{%- endfor -%}
</table></div>
{% if apart %}<p>Grey: runs of other data or models, whose losses do not compare.
Choose one to see its plot.</p>
{%- endif %}
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
    speed = run.rate * about["row_bytes"]
    alone = "" if limit is None else f"of {bytes_text(max(limit, speed))} by reading alone"
    name, value = _newest_loss(run)
    before = f"before {last['loss']:.4g}" if last and name != "loss" else ""
    figures = [
        ("pass", f"{run.passes:.4g}", f"of {most:g}" if known else "", ""),
        ("updates", f"{last.get('updates', 0):,.0f}", "", ""),
        (name, value, before, _SO_FAR),
        *_newest_metrics(run),
        ("validation loss", _loss(last, "validation_loss"), "", "") if validation_rows else None,
        ("rows/s", _count(run.rate), "", ""),
        ("bytes/s", bytes_text(speed), alone, READING_ALONE),
        ("rows per update", f"{about['rows_per_update']:,}", "", ""),
        ("learning rate", f"{last['learning_rate']:.3g}", "", "")
        if last.get("learning_rate", nan) > 0
        else None,
        (
            "memory, peak",
            bytes_text(peak) if peak else "-",
            f"of {bytes_text(about['ceiling'])}",
            "the ceiling is the most that all processes may hold",
        ),
    ]
    is_pass = run.state == "running" and most is None and not about["max_seconds"]
    return {
        "about": about,
        "state": run.outcome,
        "error": run.state if run.outcome == "failed" else "",
        "colour": _STATE_COLOURS.get(run.state, CEILING_COLOUR),
        "rows": f"{about['n_rows']:,}",
        "features": f"{about['n_features']:,}",
        "validation_rows": f"{validation_rows:,}" if validation_rows else "",
        "share": f"{run.share:.1%}",
        "progress": f"{run.share:.0%}{' of this pass' if is_pass else ''}",
        "left": run.left,
        "figures": [figure for figure in figures if figure is not None],
    }


def _newest_loss(run: Run) -> tuple[str, str]:
    """Return name and text of the loss of the last step, or of that within a pass since then."""
    last = dict(zip(STEPS, run.steps.rows[-1], strict=True)) if run.steps.rows else {}
    so_far = dict(zip(POINTS, run.within.rows[-1], strict=True)) if run.within.rows else {}
    if run.state == "running" and so_far.get("passes", 0.0) > last.get("passes", 0.0):
        return "loss so far", _loss(so_far, "loss")
    return "loss", _loss(last, "loss")


def _newest_metrics(run: Run) -> list[tuple[str, str, str, str]]:
    """Return the figures of the metrics of the newest point within a pass that has some."""
    for row in reversed(run.within.rows[-2:]):  # the middle of a task may have none
        point = dict(zip(POINTS, row, strict=True))
        known = {name: point[name] for name in METRICS if not isnan(point[name])}
        if known:
            return [
                (METRIC_NAMES[name], f"{value:.4f}", "of a sample", _OF_SAMPLE)
                for name, value in known.items()
            ]
    return []


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
    table = [(name, bytes_text(size), why) for name, size, why in rows]
    return {"rows": table, "projected": bytes_text(about["projected"])}


def settings_values(run: Run) -> dict[str, Any]:
    """Return all settings of a run."""
    return {"settings": list(run.about["settings"].items())}


def runs_values(run: Run) -> dict[str, Any]:
    """Return the runs as rows: settings that differ, and figures; those on other data last."""
    runs = sorted(run.runs.values(), key=lambda one: (not one.compares_with(run), -one.number))
    differing = differing_settings(runs)
    rows = []
    for one in runs:
        last = dict(zip(STEPS, one.steps.rows[-1], strict=True)) if one.steps.rows else {}
        peak = one.memory()[0][2]
        cells = [one.label, *(one.settings.get(name, "-") for name in differing), one.outcome]
        name, value = _newest_loss(one)
        cells.append(value if name == "loss" else f"{value} so far")
        cells += [_loss(last, "validation_loss"), f"{one.passes:.4g}"]
        cells += [duration(one.seconds), _count(one.rate), bytes_text(peak) if peak else "-"]
        kind = "shown" if one is run else "" if one.compares_with(run) else "apart"
        rows.append((kind, run_colour(one), cells))
    figures = ("state", "loss", "validation", "passes", "time", "rows/s", "memory, peak")
    apart = any(kind == "apart" for kind, _, _ in rows)
    return {"names": [*differing, *figures], "rows": rows, "apart": apart}


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
