"""The pages of the dashboard: how a scheduler gets them, and one view for each open page."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any

from ooc_train.monitoring.dashboard.page_style import STYLE, TEMPLATE, WIDGETS
from ooc_train.monitoring.dashboard.page_texts import (
    EVENTS,
    HEAD,
    NO_RUN,
    PLAN,
    RUNS,
    SETTINGS,
    event_values,
    head_values,
    plan_values,
    runs_values,
    settings_values,
)
from ooc_train.monitoring.dashboard.panels import OVER, SINGLE_PANELS, Loss, MemoryTabs, Steps
from ooc_train.monitoring.dashboard.resource_panels import Rate, Time
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

    def refresh(self, *, again: bool = False) -> None:
        """Redraw the parts whose data changed; `again` if a control was used."""
        run = self.run
        now = (self._runs.version, run)
        if run is None or (now == self._seen and not again):
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
            width=250,
            visible=False,
            stylesheets=[WIDGETS],
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


class _Compared:
    """Selects the runs whose losses are drawn beside those of the shown run."""

    def __init__(self) -> None:
        from bokeh.models import MultiChoice

        self.root = MultiChoice(
            name="training_compared",
            placeholder="compare with",
            max_width=640,
            sizing_mode="stretch_width",
            visible=False,
            stylesheets=[WIDGETS],
        )
        self._known: set[str] = set()

    @staticmethod
    def inputs(run: Run) -> Any:
        """Return the identities of the run and of those that compare with it."""
        return run.identity, [one.identity for one in run.runs.values() if one.compares_with(run)]

    def show(self, run: Run) -> None:
        """List the runs that compare with the run; new ones are drawn."""
        others = [one for one in run.runs.values() if one.compares_with(run) and one is not run]
        names = [one.identity for one in others]
        kept = [name for name in names if name in self.root.value or name not in self._known]
        self._known = {*self._known, *names} & set(run.runs)
        self.root.options = [(one.identity, one.label) for one in others]
        self.root.value = kept
        self.root.visible = bool(others)


def _page(runs: Runs, _: Any, extra: Mapping[str, Any], doc: Any) -> None:
    """Make the Training page in a new Bokeh document."""
    from bokeh.models import RadioButtonGroup
    from distributed.dashboard.components.scheduler import env

    choice, compared, loss = _Choice(), _Compared(), Loss()
    plots: list[Any] = [loss, Rate(), MemoryTabs(), Time(), Steps()]
    texts = [
        _Text("head", HEAD, head_values, before=NO_RUN),
        _Text("runs", RUNS, runs_values, _by_points),
        _Text("settings", SETTINGS, settings_values, lambda run: run.identity),
        _Text("plan", PLAN, plan_values, lambda run: run.identity),
        _Text("events", EVENTS, event_values, lambda run: (run.identity, list(run.events))),
    ]
    view = _View(runs, [choice, compared, *plots, *texts])
    buttons = []
    for name, labels, act in (
        ("over", OVER, loss.over),
        ("scale", ("linear", "log"), loss.scale),
    ):
        group = RadioButtonGroup(
            name=f"training_{name}", labels=list(labels), active=0, stylesheets=[WIDGETS]
        )
        group.on_change("active", partial(_press, labels, act))
        buttons.append(group)

    def choose(_attribute: str, _old: str, identity: str) -> None:
        view.chosen = identity
        view.refresh(again=True)

    def compare(_attribute: str, _old: Sequence[str], chosen: Sequence[str]) -> None:
        if view.run is not None:
            loss.compare(chosen, view.run)
            view.refresh(again=True)

    choice.root.on_change("value", choose)
    compared.root.on_change("value", compare)
    roots = [part.root for part in (choice, compared, *plots, *texts)]
    _open(doc, view, [*roots, *buttons], "Training")
    doc.template = env.from_string(TEMPLATE)
    doc.template_variables.update(extra)


def _by_points(run: Run) -> Any:
    """Return a value that changes with the state or the losses of a run."""
    runs = run.runs.values()
    return run.identity, [(one.identity, one.state, *one.counts) for one in runs]


def _press(
    labels: Sequence[str], act: Callable[[str], None], _attribute: str, _old: int, active: int
) -> None:
    """Act on a button that was pressed."""
    act(labels[active])


def _single(runs: Runs, make: Callable[[], Any], _: Any, __: Mapping[str, Any], doc: Any) -> None:
    """Make the page of a single plot in a new Bokeh document."""
    part = make()
    _open(doc, _View(runs, [part]), [part.root], part.title)


def _open(doc: Any, view: _View, roots: Sequence[Any], title: str) -> None:
    from distributed.dashboard.components import add_periodic_callback
    from distributed.dashboard.components.scheduler import BOKEH_THEME

    view.refresh()
    add_periodic_callback(doc, view, _REFRESH_MILLISECONDS)
    # The document looks for what hangs together once, and not again with each root.
    with doc.models.freeze():
        for root in roots:
            doc.add_root(root)
    doc.theme = BOKEH_THEME
    doc.title = f"Dask: {title}"
