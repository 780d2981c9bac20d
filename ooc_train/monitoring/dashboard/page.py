"""The pages themselves, one for each that opens them, and how they get into the dashboard."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from html import escape
from math import isnan, nan
from time import localtime, perf_counter, strftime
from typing import Any

from ooc_train.monitoring.dashboard.panels import (
    CEILING_COLOUR,
    PARTS,
    Loss,
    Memory,
    Rate,
    Steps,
    Time,
    bytes_text,
)
from ooc_train.monitoring.dashboard.run_series import STEPS, Run, Runs

_REFRESH_MILLISECONDS = 1000
_LONG_SECONDS, _REST_SECONDS = 0.01, 1.5
"""A refresh that took the scheduler so long is followed by a rest: only every other look then shows
what there is."""

_NO_RUN = "<h1>No run yet</h1><p>The first run on this cluster will be shown here.</p>"
_STATE_COLOURS = {"running": "#ef7d30", "converged": "#3a9a50", "finished": "#3a9a50"}


def put_up(runs: Runs, scheduler: Any) -> tuple[str | None, str]:
    """Put the pages into a scheduler's dashboard; return the path of the first, or None and why."""
    web: Any = getattr(scheduler, "http_application", None)
    found = [app for app in getattr(web, "applications", ()) if hasattr(app, "app_paths")]
    if not found:
        return None, "the scheduler serves no dashboard; it lacks Bokeh, or was told not to"
    dask_pages = found[0]
    try:
        from distributed.dashboard.core import BokehApplication
        from distributed.dashboard.scheduler import template_variables
        from tornado.ioloop import IOLoop

        pages = {"/training": partial(_page, runs)} | {
            f"/individual-training-{name}": partial(_single, runs, part)
            for name, part in PARTS.items()
        }
        for stale in found[1:]:
            if "/training" in stale.app_paths:
                web.applications.remove(stale)
                stale.stop()
        shared = template_variables(scheduler)
        ours = BokehApplication(
            pages,
            scheduler,
            prefix=dask_pages.prefix.strip("/"),
            template_variables=shared,
        )
        web.add_application(ours)
        ours.initialize(IOLoop.current())
        ours.start()
        # The list of single plots is of the first application's paths.
        dask_pages.applications.update(ours.applications)
        if "training" not in shared["pages"]:
            shared["pages"].insert(1, "training")
        urls = {plot["url"] for plot in shared["plots"]}
        shared["plots"] += [
            {"url": path[1:], "name": path.removeprefix("/individual-").replace("-", " ").title()}
            for path in pages
            if path != "/training" and path[1:] not in urls
        ]
        shared["plots"].sort(key=lambda plot: plot["name"])
    except (ImportError, AttributeError, KeyError, TypeError, ValueError) as error:
        return None, f"this version of distributed has another kind of dashboard ({error})"
    return f"{dask_pages.prefix.rstrip('/')}/training", ""


class _Text:
    """A piece of the page in HTML, which `write` makes of a run, or of its `inputs` alone.

    Until the first run the piece shows the text `before`.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[Run], str],
        inputs: Callable[[Run], Any] = lambda run: (run.identity, run.runs.version),
        before: str = "",
    ) -> None:
        from bokeh.models import Div

        self.root = Div(
            name=f"training_{name}",
            text=before,
            sizing_mode="stretch_width",
            stylesheets=[_STYLE],
        )
        self._write = write
        self.inputs = inputs

    def show(self, run: Run) -> None:
        """Show what there is."""
        self.root.text = self._write(run)


def _head(run: Run) -> str:
    """Return what the run is, how far it is, and its figures."""
    about, steps = run.about, run.steps.rows
    last = dict(zip(STEPS, steps[-1], strict=True)) if steps else {}
    most = about["most_passes"]
    # A sample that a solver looked at counts too, so that there may be more than was asked for.
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
    judged = f" &middot; {others:,} validation rows" if others else ""
    return (
        f"<h1>{escape(about['model'])} <span>by {escape(about['solver'])}, batch size "
        f"{escape(about['batch_size'])}</span> <b style='background:{colour}'>{escape(run.state)}"
        f"</b></h1><p>{escape(about['data'])} &middot; {about['n_rows']:,} rows &times; "
        f"{about['n_features']:,} features{judged}</p>"
        f"<div class='bar'><i style='width:{run.share:.1%};background:{colour}'></i></div>"
        f"<p>{run.share:.0%}{of_pass} &middot; {run.left}</p><section>{cells}</section>"
    )


def _validation(run: Run, last: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return the figure of the validation rows, where there are any."""
    loss = last.get("validation_loss", nan)
    if not run.about["validation_rows"]:
        return []
    return [("validation loss", "&ndash;" if isnan(loss) else f"{loss:.6g}")]


def _plan(run: Run) -> str:
    """Return the table of the plan: what is projected to be held, term by term."""
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


def _events(run: Run) -> str:
    """Return what happened: to workers and tasks, and what the run noted of itself."""
    items = "".join(
        f"<tr><td>{strftime('%H:%M:%S', localtime(when))}</td><td>{escape(text[:300])}</td></tr>"
        for when, text in run.events
    )
    nothing = "<tr><td>None so far.</td></tr>"
    return f"<h2>Events</h2><table>{items or nothing}</table>"


class _View:
    """One opened document: its parts, and which run they show.

    Dask's periodic callback holds it weakly, so that it ends with its document.
    """

    def __init__(self, runs: Runs, parts: Sequence[Any]) -> None:
        self._runs = runs
        self._parts = parts
        self.chosen: str | None = None
        self._seen: tuple[Any, ...] = ()
        self._inputs: list[Any] = [None] * len(parts)
        self._rest_until = 0.0

    @property
    def run(self) -> Run | None:
        """The run that was chosen, else the newest."""
        return self._runs.get(self.chosen or "") or next(reversed(self._runs.values()), None)

    def update(self) -> None:
        """Show what has changed since the last time, unless that took long."""
        if perf_counter() >= self._rest_until:
            self.refresh()

    def refresh(self) -> None:
        """Show what has changed since the last time."""
        run = self.run
        now = (self._runs.version, run)
        if run is None or now == self._seen:
            return
        self._seen, began = now, perf_counter()
        for i, part in enumerate(self._parts):
            inputs = part.inputs(run)
            if inputs != self._inputs[i]:
                self._inputs[i] = inputs
                part.show(run)
        if perf_counter() - began > _LONG_SECONDS:
            self._rest_until = perf_counter() + _REST_SECONDS


class _Choice:
    """Which run is shown: the newest, or another."""

    def __init__(self) -> None:
        from bokeh.models import Select

        self.root = Select(
            name="training_choice",
            value="",
            options=[("", "the newest run")],
            width=260,
            visible=False,
        )

    @staticmethod
    def inputs(run: Run) -> Any:
        """Return what there is to choose from."""
        return list(run.runs)

    def show(self, run: Run) -> None:
        """Show what there is."""
        runs = [(one.identity, one.label) for one in reversed(run.runs.values())]
        self.root.options = [("", "the newest run"), *runs]
        self.root.visible = len(runs) > 1


def _page(runs: Runs, _: Any, extra: Mapping[str, Any], doc: Any) -> None:
    """Make the Training page."""
    from distributed.dashboard.components.scheduler import env

    choice = _Choice()
    plots: list[Any] = [Loss(), Rate(), Memory(), Time(), Steps()]
    texts = [
        _Text("head", _head, before=_NO_RUN),
        _Text("plan", _plan, lambda run: run.identity),
        _Text("events", _events, lambda run: (run.identity, list(run.events))),
    ]
    view = _View(runs, [choice, *plots, *texts])

    def choose(_attribute: str, _old: str, identity: str) -> None:
        view.chosen = identity
        view.refresh()

    choice.root.on_change("value", choose)
    _open(doc, view, [part.root for part in (choice, *plots, *texts)], "Training")
    doc.template = env.from_string(_TEMPLATE)
    doc.template_variables.update(extra)


def _single(
    runs: Runs,
    make: Callable[[], Any],
    _: Any,
    __: Mapping[str, Any],
    doc: Any,
) -> None:
    """Make the page of a single plot."""
    part = make()
    _open(doc, _View(runs, [part]), [part.root], part.title)


def _open(doc: Any, view: _View, roots: Sequence[Any], title: str) -> None:
    from distributed.dashboard.components import add_periodic_callback
    from distributed.dashboard.components.scheduler import BOKEH_THEME

    view.refresh()
    add_periodic_callback(doc, view, _REFRESH_MILLISECONDS)
    for root in roots:
        doc.add_root(root)
    doc.theme = BOKEH_THEME
    doc.title = f"Dask: {title}"


def _count(n: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return f"{n:.3g}"


_STYLE = """
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

_TEMPLATE = """{% extends "base.html" %}
{% block extra_resources %}
<style>
#training { display: grid; grid-template-columns: 1fr; gap: 14px 18px; padding: 6px 8px 24px; }
#training > div { min-width: 0; }
#training .head { display: flex; gap: 18px; align-items: flex-start; }
#training .head > div:first-child { flex: 1; min-width: 0; }
#training .plot { height: 270px; }
@media (max-width: 991px) {
  #training .head { flex-direction: column; align-items: stretch; }
}
@media (min-width: 992px) {
  #training { grid-template-columns: 1fr 1fr; }
  #training .wide { grid-column: 1 / span 2; }
}
</style>
{% endblock %}
{% block content %}
{% from macros import embed %}
<div id="training">
  <div class="wide head"><div>{{ embed(roots.training_head) }}</div>
    <div>{{ embed(roots.training_choice) }}</div></div>
  <div class="plot">{{ embed(roots.training_loss) }}</div>
  <div class="plot">{{ embed(roots.training_rate) }}</div>
  <div class="plot">{{ embed(roots.training_memory) }}</div>
  <div class="plot">{{ embed(roots.training_time) }}</div>
  <div class="plot">{{ embed(roots.training_steps_tabs) }}</div>
  <div>{{ embed(roots.training_plan) }}</div>
  <div class="wide">{{ embed(roots.training_events) }}</div>
</div>
{{ plot_script }}
{% endblock %}
"""
