"""The texts of the Training page as HTML: state of a run, its plan, its events."""

from collections.abc import Mapping
from html import escape
from math import isnan, nan
from time import localtime, strftime

from ooc_train.monitoring.dashboard.panel_parts import CEILING_COLOUR, bytes_text
from ooc_train.monitoring.dashboard.run_series import STEPS, Run

NO_RUN = "<h1>No run yet</h1><p>The first run on this cluster will be shown here.</p>"
_STATE_COLOURS = {"running": "#ef7d30", "converged": "#3a9a50", "finished": "#3a9a50"}


def head_text(run: Run) -> str:
    """Return settings, progress and figures of a run."""
    about, steps = run.about, run.steps.rows
    last = dict(zip(STEPS, steps[-1], strict=True)) if steps else {}
    most = about["most_passes"]
    # Samples that solvers read count too, so passes may exceed the limit.
    known = most is not None and run.passes <= most
    passes = f"{run.passes:.4g}" + (f" <small>of {most:g}</small>" if known else "")
    memory = run.memory()[0]
    limit = run.reading_limit
    figures = [
        ("pass", passes),
        ("updates", f"{last.get('updates', 0):,.0f}"),
        ("loss", f"{last['loss']:.6g}" if last else "&ndash;"),
        *_validation(run, last),
        ("rows/s", _count(run.rate)),
        ("bytes/s", bytes_text(run.rate * about["row_bytes"])),
        ("reading alone would reach", "&ndash;" if limit is None else f"{bytes_text(limit)}/s"),
        ("rows per update", f"{about['rows_per_update']:,}"),
    ]
    if last and last["learning_rate"] > 0:
        figures.append(("learning rate", f"{last['learning_rate']:.3g}"))
    of = f" <small>of {bytes_text(about['ceiling'])}</small>"
    held = bytes_text(memory[2]) if memory[2] else "&ndash;"
    figures.append(("memory, peak", held + of))
    cells = "".join(f"<dl><dt>{name}</dt><dd>{value}</dd></dl>" for name, value in figures)
    colour = _STATE_COLOURS.get(run.state, CEILING_COLOUR)
    is_pass = run.state == "running" and most is None and not about["max_seconds"]
    of_pass = " of this pass" if is_pass else ""
    others = about["validation_rows"]
    validated = f" &middot; {others:,} validation rows" if others else ""
    return (
        f"<h1>{escape(about['model'])} <span>by {escape(about['solver'])}, batch size "
        f"{escape(about['batch_size'])}</span> <b style='background:{colour}'>{escape(run.state)}"
        f"</b></h1><p>{escape(about['data'])} &middot; {about['n_rows']:,} rows &times; "
        f"{about['n_features']:,} features{validated}</p>"
        f"<div class='bar'><i style='width:{run.share:.1%};background:{colour}'></i></div>"
        f"<p>{run.share:.0%}{of_pass} &middot; {run.left}</p><section>{cells}</section>"
    )


def _validation(run: Run, last: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return the loss of the validation rows, if there are any."""
    loss = last.get("validation_loss", nan)
    if not run.about["validation_rows"]:
        return []
    return [("validation loss", "&ndash;" if isnan(loss) else f"{loss:.6g}")]


def plan_text(run: Run) -> str:
    """Return the plan as a table: the projected bytes, term by term."""
    about = run.about
    left = about["ceiling"] - about["projected"]
    rows = [
        *about["terms"],
        ("projected", about["projected"], ""),
        ("ceiling", about["ceiling"], about["ceiling_source"]),
        ("left", left, ""),
    ]
    cells = "".join(
        f"<tr class='{escape(name)}'><td>{escape(name)}</td><td>{bytes_text(size)}</td>"
        f"<td>{escape(why)}</td></tr>"
        for name, size, why in rows
    )
    return f"<h2>The plan</h2><table>{cells}</table>"


def events_text(run: Run) -> str:
    """Return the events: workers, tasks, and notes of the run."""
    items = "".join(
        f"<tr><td>{strftime('%H:%M:%S', localtime(when))}</td><td>{escape(text[:300])}</td></tr>"
        for when, text in run.events
    )
    nothing = "<tr><td>No events.</td></tr>"
    return f"<h2>Events</h2><table>{items or nothing}</table>"


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
