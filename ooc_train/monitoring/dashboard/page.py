"""The pages of the dashboard: how a scheduler gets them, and one view for each open page."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any

from ooc_train.monitoring.dashboard.page_texts import (
    EVENTS,
    HEAD,
    NO_RUN,
    PLAN,
    STYLE,
    event_values,
    head_values,
    plan_values,
)
from ooc_train.monitoring.dashboard.panels import SINGLE_PANELS, Loss, Steps
from ooc_train.monitoring.dashboard.resource_panels import Memory, Rate, Time
from ooc_train.monitoring.dashboard.run_series import Run, Runs

_REFRESH_MILLISECONDS = 1000
_LONG_SECONDS, _REST_SECONDS = 0.01, 1.5
"""After a refresh longer than `_LONG_SECONDS`, the page is not redrawn for `_REST_SECONDS`."""


def install_pages(runs: Runs, scheduler: Any) -> tuple[str | None, str]:
    """Add the pages to a scheduler's dashboard; return the first's path, or None and a reason."""
    web: Any = getattr(scheduler, "http_application", None)
    found = [app for app in getattr(web, "applications", ()) if hasattr(app, "app_paths")]
    if not found:
        return None, "the scheduler serves no dashboard: it lacks Bokeh, or its dashboard is off"
    dask_pages = found[0]
    try:
        from distributed.dashboard.core import BokehApplication
        from distributed.dashboard.scheduler import template_variables
        from tornado.ioloop import IOLoop

        pages = {"/training": partial(_page, runs)} | {
            f"/individual-training-{name}": partial(_single, runs, part)
            for name, part in SINGLE_PANELS.items()
        }
        for stale in found[1:]:
            if "/training" in stale.app_paths:
                web.applications.remove(stale)
                stale.stop()
        shared = template_variables(scheduler)
        ours = BokehApplication(
            pages, scheduler, prefix=dask_pages.prefix.strip("/"), template_variables=shared
        )
        web.add_application(ours)
        ours.initialize(IOLoop.current())
        ours.start()
        # Dask lists the single plots of the first application only.
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
    """A text of the page: a template of HTML, and a function from a run to the template's values.

    `inputs` identifies the shown data. Until the first run the text is `before`.
    """

    def __init__(
        self,
        name: str,
        template: str,
        values: Callable[[Run], Mapping[str, Any]],
        inputs: Callable[[Run], Any] = lambda run: (run.identity, run.runs.version),
        before: str = "",
    ) -> None:
        from bokeh.models import Div
        from jinja2 import Environment

        self.root = Div(
            name=f"training_{name}", text=before, sizing_mode="stretch_width", stylesheets=[STYLE]
        )
        self._template = Environment(autoescape=True).from_string(template)
        self._values = values
        self.inputs = inputs

    def show(self, run: Run) -> None:
        """Render the text for a run."""
        self.root.text = self._template.render(self._values(run))


class _View:
    """An open page: its parts and the selected run.

    Dask's periodic callback holds it by a weak reference, so it ends with its document.
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
        """The selected run, else the newest."""
        return self._runs.get(self.chosen or "") or next(reversed(self._runs.values()), None)

    def update(self) -> None:
        """Refresh the page, unless it rests after a refresh that took long."""
        if perf_counter() >= self._rest_until:
            self.refresh()

    def refresh(self) -> None:
        """Redraw the parts whose data changed."""
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
    """Selects the run to show: the newest, or another."""

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
        """Return the identities of the runs."""
        return list(run.runs)

    def show(self, run: Run) -> None:
        """List the runs to choose from; hide the list if there is one run."""
        runs = [(one.identity, one.label) for one in reversed(run.runs.values())]
        self.root.options = [("", "the newest run"), *runs]
        self.root.visible = len(runs) > 1


def _page(runs: Runs, _: Any, extra: Mapping[str, Any], doc: Any) -> None:
    """Make the Training page in a new Bokeh document."""
    from distributed.dashboard.components.scheduler import env

    choice = _Choice()
    plots: list[Any] = [Loss(), Rate(), Memory(), Time(), Steps()]
    texts = [
        _Text("head", HEAD, head_values, before=NO_RUN),
        _Text("plan", PLAN, plan_values, lambda run: run.identity),
        _Text("events", EVENTS, event_values, lambda run: (run.identity, list(run.events))),
    ]
    view = _View(runs, [choice, *plots, *texts])

    def choose(_attribute: str, _old: str, identity: str) -> None:
        view.chosen = identity
        view.refresh()

    choice.root.on_change("value", choose)
    _open(doc, view, [part.root for part in (choice, *plots, *texts)], "Training")
    doc.template = env.from_string(_TEMPLATE)
    doc.template_variables.update(extra)


def _single(runs: Runs, make: Callable[[], Any], _: Any, __: Mapping[str, Any], doc: Any) -> None:
    """Make the page of a single plot in a new Bokeh document."""
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
