"""The Training page of the Dask dashboard: runs as they go, on the scheduler that they use.

A scheduler plugin keeps what drivers send of their runs, thinned, and puts a second Bokeh
application beside the dashboard's own: the page at `/training`, and single plots under More. Pages
look at what is kept, so that one which is opened halfway shows a whole run, and none costs anything
while nobody looks.

The file imports nothing of ooc_train: it travels by value to schedulers that lack the package. Nor
does it import Bokeh before it has found that the scheduler has a dashboard.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from html import escape
from socket import gethostname
from time import localtime, strftime, time
from typing import Any

import numpy as np
from distributed import SchedulerPlugin

HANDLER = "ooc_train_training"
"""What drivers call on the scheduler."""

_FAMILY = "ooc_train-training-"
NAME = _FAMILY + "1"
"""The plugin's name, whose number changes with what drivers send."""

WORKER_METRIC = "ooc_train"
"""What workers report with their heartbeats: process, bytes it holds, and the most it held."""

STEPS = ("n_iter", "passes", "updates", "loss", "gradient_norm", "learning_rate", "seconds")
PROFILE = ("reading", "decoding", "computing", "waiting", "dask")
PROGRESS = ("seconds", "rows", *PROFILE)
"""The columns of what is sent: of a step, and of how far a run is (both since it began)."""

_MOST_ROWS = 500
_MOST_RUNS = 8
_MOST_EVENTS = 50
_MOST_PROCESSES = 24
_REFRESH_MILLISECONDS = 1000
_APART_SECONDS, _MOST_INTERVALS = 0.5, 200
_RATE_SECONDS = 5.0
"""The rate of a run that goes on is that of its last seconds."""

_COLOURS = (
    "#1f77b4", "#ef7d30", "#3a9a50", "#8a63b8", "#b5563b", "#d166a0", "#6b7280", "#17a2b8",
)  # fmt: skip
_PROFILE_COLOURS = ("#4c86b8", "#7fc0bd", "#5fa55a", "#e3c04b", "#ef7d30")
_TICKS = {"base": 1024, "mantissas": [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]}
_CEILING_COLOUR, _PROJECTED_COLOUR = "#c0392b", "#7f7f7f"
_STATE_COLOURS = {"running": "#ef7d30", "converged": "#3a9a50", "finished": "#3a9a50"}


class Series:
    """Rows of numbers, of which never more than a limit is kept: at it, every other goes.

    The first row and the last are always there.

    Examples
    --------
    >>> series = Series(limit=4)
    >>> for i in range(10):
    ...     series.append((float(i),))
    >>> series.rows
    [(0.0,), (4.0,), (8.0,), (9.0,)]
    """

    def __init__(self, limit: int = _MOST_ROWS) -> None:
        self.rows: list[tuple[float, ...]] = []
        self._limit = limit
        self._every = 1
        self._count = 0
        self._table: Any = None

    def append(self, row: Sequence[float]) -> None:
        """Take in a row."""
        self._table = None
        if self._count and (self._count - 1) % self._every:
            self.rows.pop()  # it was there only for being the last
        self.rows.append(tuple(row))
        self._count += 1
        if len(self.rows) > self._limit:
            self._every *= 2
            last = self.rows[-1]
            self.rows = self.rows[::2]
            if self.rows[-1] is not last:
                self.rows.append(last)

    def columns(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the columns by their names, each an array."""
        if self._table is None:  # runs that are over are drawn again beside those that go on
            self._table = np.array(self.rows, dtype=float).reshape(len(self.rows), len(names)).T
        return dict(zip(names, self._table, strict=True))


class Run:
    """What is known of one run.

    Attributes
    ----------
    runs : all that the scheduler knows of, this one among them, the newest last
    identity, number : a name and a number that no other run has
    about : what the driver said of it when it began
    client : the name of the client that it runs on
    steps, progress : rows of the columns `STEPS` and `PROGRESS`
    processes : by address, a process's name, bytes now, and the most bytes that it held
    events : time and text of what happened to workers and tasks meanwhile, newest first
    state : "running", "converged", "finished" by a limit, or what ended it
    """

    def __init__(
        self, runs: "dict[str, Run]", identity: str, client: str, about: Mapping[str, Any]
    ) -> None:
        self.runs = runs
        # The next colour, whichever of the runs before are still here.
        self.number: int = max((run.number for run in runs.values()), default=-1) + 1
        self.identity = identity
        self.client = client
        self.about = about
        self.begun = time()
        self.steps, self.progress = Series(), Series()
        self.processes: dict[str, tuple[str, int, int]] = {}
        self.events: deque[tuple[float, str]] = deque(maxlen=_MOST_EVENTS)
        self.state = "running"

    @property
    def seconds(self) -> float:
        """Seconds from the beginning of the run to the last that was heard of it."""
        return self.progress.rows[-1][0] if self.progress.rows else 0.0

    @property
    def rows(self) -> float:
        """Rows read so far."""
        return self.progress.rows[-1][1] if self.progress.rows else 0.0

    @property
    def passes(self) -> float:
        """Rows read over rows there are."""
        return self.rows / float(self.about["n_rows"])

    @property
    def label(self) -> str:
        """The run in a few words, as in a legend."""
        about = self.about
        started = strftime("%H:%M:%S", localtime(self.begun))
        return f"{about['model']} {about['solver']} {about['batch_size']}, {started}"

    @property
    def rate(self) -> float:
        """Rows a second: of the last seconds, or of the whole run once it is over."""
        known = self.progress.rows
        before: tuple[float, ...] = (0.0, 0.0)
        if self.state == "running":
            recent = (row for row in known if row[0] >= self.seconds - _RATE_SECONDS)
            before = next(recent) if len(known) > 1 else before
        seconds = self.seconds - before[0]
        return (self.rows - before[1]) / seconds if seconds > 0 else 0.0

    def rows_over_time(self) -> list[tuple[float, float]]:
        """Return seconds and rows read by then, from the beginning on, some time apart.

        Tasks come in a few at a time, and a rate from one to the next would say nothing.
        """
        apart = max(_APART_SECONDS, self.seconds / _MOST_INTERVALS)
        kept = [(0.0, 0.0)]
        for seconds, rows, *_ in self.progress.rows:
            if rows > kept[-1][1]:
                if len(kept) > 1 and kept[-1][0] - kept[-2][0] < apart:
                    kept.pop()
                kept.append((seconds, rows))
        if len(kept) > 2 and kept[-1][0] - kept[-2][0] < apart:
            del kept[-2]
        return kept

    @property
    def share(self) -> float:
        """How far the run is, or where its length is not known the pass, from 0 to 1."""
        if self.state != "running":
            return 1.0
        most = self.about["most_passes"]
        done = self.passes % 1 if most is None else self.passes / max(most, 1e-9)
        if self.about["max_seconds"]:
            done = max(done if most else 0.0, self.seconds / self.about["max_seconds"])
        return min(done, 1.0)

    @property
    def left(self) -> str:
        """How long the run, or where its length is not known the pass, will go on for."""
        if self.state != "running":
            return f"took {_duration(self.seconds)}"
        if not self.rows:
            return "starting"
        most, within = self.about["most_passes"], ""
        remaining = 1 - self.passes % 1 if most is None else max(most - self.passes, 0.0)
        left = self.seconds / self.passes * remaining
        limit = self.about["max_seconds"]
        if limit and limit - self.seconds < left:
            left = max(limit - self.seconds, 0.0)
        elif most is None:
            within = " in this pass"
        return f"{_duration(left)} left{within}"

    def memory(self) -> list[tuple[str, int, int]]:
        """Return name, bytes now and peak of each process, the sum of them first."""
        found = sorted(self.processes.values(), key=lambda row: (row[0] != "driver", -row[2]))
        total = ("all", sum(row[1] for row in found), sum(row[2] for row in found))
        # The largest, in an order that does not change while they grow.
        return [total, *sorted(found[:_MOST_PROCESSES], key=_in_order)]


class TrainingPlugin(SchedulerPlugin):  # type: ignore[misc] # untyped base
    """Keeps what drivers send of their runs, and shows it beside Dask's own pages.

    Attributes
    ----------
    page : the page's path, or None where the scheduler has no dashboard
    why : why there is none
    version : a number that changes with whatever there is to see
    runs : the newest last
    """

    name = NAME
    idempotent = True

    def __init__(self) -> None:
        self.page: str | None = None
        self.why = ""
        self.version = 0
        self.runs: dict[str, Run] = {}
        self._retried = ("", 0)

    async def start(self, scheduler: Any) -> None:
        """Take the place of what an earlier plugin left, and put up the page."""
        self.scheduler = scheduler
        # Another version's: taking a plugin away calls none of its methods.
        for name in [name for name in scheduler.plugins if name.startswith(_FAMILY)]:
            scheduler.remove_plugin(name)
        scheduler.handlers[HANDLER] = self.receive
        self.page, self.why = put_up(self, scheduler)
        _export(self)

    def receive(
        self, kind: str, run: str = "", client: str = "", values: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Take in what a driver says of a run.

        Parameters
        ----------
        kind : "asked", whether there is a page; "begun", "moved" or "ended", of a run
        run, client : which run, and the client that it runs on
        values : numbers and names, as `ooc_train.watching` sends them
        """
        values = values or {}
        if kind == "begun":
            self.runs[run] = Run(self.runs, run, client, values)
            for old in [r for r in self.runs.values() if r.state != "running"][:-_MOST_RUNS]:
                del self.runs[old.identity]
        elif run in self.runs:
            known = self.runs[run]
            for row in values["steps"]:
                known.steps.append(row)
            known.progress.append(values["progress"])
            self._look_at_memory(known, values)
            if kind == "ended":
                known.state = values["state"]
        self.version += 1
        return {"page": self.page, "why": self.why}

    def _look_at_memory(self, run: Run, values: Mapping[str, Any]) -> None:
        if values["memory"]:
            run.processes = {str(i): (*row,) for i, row in enumerate(values["memory"])}
        elif values["driver"]:
            process, now, peak = values["driver"]
            found = {"": ("driver", now, peak)}
            for address, worker in self.scheduler.workers.items():
                reported = worker.metrics.get(WORKER_METRIC)
                if reported is None:
                    # One that joined later: what the system says, and the most of it that was seen.
                    now = int(worker.metrics.get("memory", 0))
                    reported = "", now, max(now, run.processes.get(address, ("", 0, 0))[2])
                # A worker within the driver's process is told of already.
                if reported[0] != process:
                    found[address] = (f"worker {worker.name}", reported[1], reported[2])
            run.processes = found

    def tell(self, text: str) -> None:
        """Note what happened, with every run that goes on."""
        for run in self.runs.values():
            if run.state == "running":
                run.events.appendleft((time(), text))
                self.version += 1

    def transition(
        self, key: Any, start: str, finish: str, *_: Any, stimulus_id: str, **more: Any
    ) -> None:
        """Note a task that failed, and count those that go back to be tried again."""
        if finish == "erred" and start == "processing":
            self.tell(f"task {key} failed: {more.get('exception_text') or 'its worker was lost'}")
        elif finish == "released" and start == "processing":
            same = self._retried[0] == stimulus_id
            self._retried = (stimulus_id, self._retried[1] + 1 if same else 1)

    def add_worker(self, scheduler: Any, worker: str) -> None:
        """Note a worker that came."""
        self.tell(f"worker {scheduler.workers[worker].name} joined ({worker})")

    def remove_worker(self, scheduler: Any, worker: str, *, stimulus_id: str, **_: Any) -> None:
        """Note a worker that is gone; its tasks have gone back before."""
        del scheduler
        stimulus, retried = self._retried
        again = f"; tasks tried again: {retried}" if stimulus == stimulus_id else ""
        self.tell(f"worker {worker} was lost{again}")

    def remove_client(self, scheduler: Any, client: str) -> None:
        """Take the runs of a driver that is gone as ended."""
        del scheduler
        for run in self.runs.values():
            if run.client == client and run.state == "running":
                run.state = "its driver is gone"
                self.version += 1


class _Metrics:
    """The runs as Prometheus asks for them, at the scheduler's `/metrics`."""

    def __init__(self, plugin: TrainingPlugin) -> None:
        self._plugin = plugin

    def describe(self) -> list[Any]:
        """Return nothing: what is told depends on the runs, and on whether there are any."""
        return []

    def collect(self) -> list[Any]:
        """Return what is known of each run by now; nothing of a scheduler that has ended."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        run_labels = ["run", "model", "solver", "batch_size"]
        families = {
            "rows": CounterMetricFamily("ooc_train_rows", "Rows read", labels=run_labels),
            "updates": CounterMetricFamily(
                "ooc_train_updates", "Updates of the parameters", labels=run_labels
            ),
            "seconds": CounterMetricFamily(
                "ooc_train_seconds",
                "Seconds of all threads, by what they went on",
                labels=[*run_labels, "activity"],
            ),
            "loss": GaugeMetricFamily(
                "ooc_train_loss", "Mean loss of a row, last known", labels=run_labels
            ),
            "running": GaugeMetricFamily(
                "ooc_train_running", "1 while the run goes on", labels=run_labels
            ),
            "memory": GaugeMetricFamily(
                "ooc_train_memory_bytes",
                "What a process holds (now) and held (peak); what all may (projected, ceiling)",
                labels=[*run_labels, "process", "figure"],
            ),
        }
        if str(getattr(self._plugin.scheduler, "status", "")) == "Status.running":
            for run in self._plugin.runs.values():
                _add_metrics(families, run)
        return list(families.values())


def _add_metrics(families: Mapping[str, Any], run: Run) -> None:
    about = run.about
    labels = [run.identity, about["model"], about["solver"], about["batch_size"]]
    families["rows"].add_metric(labels, run.rows)
    families["running"].add_metric(labels, float(run.state == "running"))
    if run.steps.rows:
        last = dict(zip(STEPS, run.steps.rows[-1], strict=True))
        families["updates"].add_metric(labels, last["updates"])
        families["loss"].add_metric(labels, last["loss"])
    if run.progress.rows:
        spent = dict(zip(PROGRESS, run.progress.rows[-1], strict=True))
        for activity in PROFILE:
            families["seconds"].add_metric([*labels, activity], spent[activity])
    for name, now, peak in run.processes.values():
        families["memory"].add_metric([*labels, name, "now"], now)
        families["memory"].add_metric([*labels, name, "peak"], peak)
    for figure in ("projected", "ceiling"):
        families["memory"].add_metric([*labels, "all", figure], about[figure])


def _export(plugin: TrainingPlugin) -> None:
    """Have the scheduler's `/metrics` tell of the runs, where prometheus_client is installed."""
    try:
        from prometheus_client import REGISTRY
    except ImportError:
        return
    # The registry is the process's, and a scheduler before this one may have left its own there:
    # that has ended, and tells nothing any more.
    REGISTRY.register(_Metrics(plugin))


def process_name(pid: int) -> str:
    """Return a name for a process of this machine that no other of the cluster has."""
    return f"{gethostname()} {pid}"


def put_up(plugin: TrainingPlugin, scheduler: Any) -> tuple[str | None, str]:
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

        pages = {"/training": partial(_page, plugin)} | {
            f"/individual-training-{name}": partial(_single, plugin, part)
            for name, part in _PARTS.items()
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


class _Loss:
    """The loss of every run over its passes; a dot for each step of the one that is shown."""

    title, name = "Loss over passes", "loss"

    def __init__(self) -> None:
        from bokeh.models import ColumnDataSource, HoverTool

        self.lines = ColumnDataSource({"x": [], "y": [], "colour": [], "label": [], "width": []})
        self.steps = ColumnDataSource(
            {name: [] for name in STEPS} | {"colour": []}, name="training_steps_data"
        )
        self.root = _figure(self, x_axis_label="passes")
        self.root.multi_line(
            "x", "y", source=self.lines, line_color="colour", line_width="width",
            legend_field="label",
        )  # fmt: skip
        dots = self.root.scatter("passes", "loss", source=self.steps, size=5, color="colour")
        tips = [
            ("loss", "@loss{0.000000}"),
            ("pass", "@passes{0.00}"),
            ("updates", "@updates{0,0}"),
        ]
        self.root.add_tools(HoverTool(renderers=[dots], tooltips=tips))
        _quiet_legend(self.root)

    def show(self, run: Run) -> None:
        """Show what there is."""
        lines: dict[str, list[Any]] = {name: [] for name in self.lines.data}
        for one in run.runs.values():
            columns = one.steps.columns(STEPS)
            lines["x"].append(columns["passes"])
            lines["y"].append(columns["loss"])
            lines["colour"].append(_colour(one))
            lines["label"].append(one.label)
            lines["width"].append(2.5 if one is run else 1.2)
        self.lines.data = lines
        steps = run.steps.columns(STEPS)
        self.steps.data = steps | {"colour": [_colour(run)] * len(run.steps.rows)}


class _Rate:
    """Rows a second, and bytes, over the seconds of the run."""

    title, name = "Rows per second", "rate"

    def __init__(self) -> None:
        from bokeh.models import (
            BasicTicker,
            ColumnDataSource,
            CustomJSTickFormatter,
            HoverTool,
            LinearAxis,
            NumeralTickFormatter,
            Range1d,
        )

        self.source = ColumnDataSource({"seconds": [], "rate": [], "bytes": []})
        self.root = _figure(self, x_axis_label="seconds", y_range=Range1d(0, 1))
        self.root.yaxis.formatter = CustomJSTickFormatter(
            code="return tick >= 1e6 ? tick / 1e6 + ' M' : tick >= 1e3 ? tick / 1e3 + ' k' : tick"
        )
        self.bytes_range = Range1d(0, 1)
        self.root.extra_y_ranges = {"bytes": self.bytes_range}
        axis = LinearAxis(
            y_range_name="bytes",
            axis_label="bytes per second",
            ticker=BasicTicker(**_TICKS),
            formatter=NumeralTickFormatter(format="0.[0] ib"),
        )
        self.root.add_layout(axis, "right")
        style = {"source": self.source, "color": _COLOURS[0]}
        self.root.varea_step("seconds", 0, "rate", step_mode="before", fill_alpha=0.15, **style)
        line = self.root.step("seconds", "rate", mode="before", line_width=1.5, **style)
        tips = [
            ("second", "@seconds{0.0}"),
            ("rows/s", "@rate{0,0}"),
            ("bytes/s", "@bytes{0.0 ib}"),
        ]
        self.root.add_tools(HoverTool(renderers=[line], tooltips=tips, mode="vline"))

    def show(self, run: Run) -> None:
        """Show what there is."""
        seconds, rows = np.array(run.rows_over_time()).T
        rate = np.diff(rows) / np.maximum(np.diff(seconds), 1e-9)
        # A step is drawn to the left of its point.
        rate = np.append(rate[:1], rate) if len(rate) else np.zeros(1)
        nbytes = run.about["row_bytes"]
        self.source.data = {"seconds": seconds, "rate": rate, "bytes": rate * nbytes}
        self.root.y_range.end = top = 1.1 * max([1.0, *rate])
        self.bytes_range.end = top * max(1, nbytes)


class _Time:
    """What the seconds of all threads went on."""

    title, name = "Where the time goes (seconds of all threads)", "time"

    def __init__(self) -> None:
        from bokeh.models import ColumnDataSource, HoverTool, LabelSet, Range1d

        names = ("part", "seconds", "share", "colour", "text")
        self.source = ColumnDataSource({name: [] for name in names}, name="training_profile_data")
        self.root = _figure(self, x_range=Range1d(0, 1), y_range=list(reversed(PROFILE)))
        bars = self.root.hbar("part", right="seconds", source=self.source, height=0.7)
        bars.glyph.fill_color = bars.glyph.line_color = "colour"
        label = {"x": "seconds", "y": "part", "text": "text", "source": self.source}
        self.root.add_layout(
            LabelSet(**label, x_offset=6, text_baseline="middle", text_font_size="12px")
        )
        tips = [("", "@part"), ("seconds", "@seconds{0.000}"), ("share", "@share{0.0 %}")]
        self.root.add_tools(HoverTool(renderers=[bars], tooltips=tips))

    def show(self, run: Run) -> None:
        """Show what there is."""
        seconds = run.progress.rows[-1][2:] if run.progress.rows else (0.0,) * len(PROFILE)
        total = sum(seconds) or 1.0
        self.source.data = {
            "part": list(PROFILE),
            "seconds": list(seconds),
            "share": [part / total for part in seconds],
            "colour": list(_PROFILE_COLOURS),
            "text": [f"{part / total:.0%}" for part in seconds],
        }
        # The longest bar leaves room for its percentage.
        self.root.x_range.end = 1.15 * max([*seconds, 1e-3])


class _Memory:
    """What each process holds and held at most, and all of them against projection and ceiling."""

    title, name = "Memory now (dark) and at most (light)", "memory"

    def __init__(self) -> None:
        from bokeh.models import (
            BasicTicker,
            ColumnDataSource,
            FactorRange,
            HoverTool,
            NumeralTickFormatter,
            Range1d,
            Span,
        )

        names = ("process", "now", "peak", "colour")
        self.source = ColumnDataSource({name: [] for name in names}, name="training_memory_data")
        self.root = _figure(self, x_range=Range1d(0, 1), y_range=FactorRange(factors=["all"]))
        self.root.xaxis.formatter = NumeralTickFormatter(format="0 ib")
        self.root.xaxis.ticker = BasicTicker(**_TICKS)
        peaks = self.root.hbar("process", right="peak", source=self.source, height=0.7)
        peaks.glyph.update(fill_color="colour", fill_alpha=0.3, line_color="colour")
        now = self.root.hbar("process", right="now", source=self.source, height=0.7)
        now.glyph.update(fill_color="colour", line_color=None)
        tips = [("", "@process"), ("now", "@now{0.0 ib}"), ("peak", "@peak{0.0 ib}")]
        self.root.add_tools(HoverTool(renderers=[peaks], tooltips=tips))
        style = {"dimension": "height", "line_width": 2}
        self.projected = Span(line_color=_PROJECTED_COLOUR, line_dash="dashed", **style)
        self.ceiling = Span(line_color=_CEILING_COLOUR, **style)
        self.root.add_layout(self.projected)
        self.root.add_layout(self.ceiling)

    def show(self, run: Run) -> None:
        """Show what there is."""
        found = run.memory()
        names = _distinct([name for name, _, _ in found])
        self.root.y_range.factors = names[::-1]
        self.source.data = {
            "process": names,
            "now": [now for _, now, _ in found],
            "peak": [peak for _, _, peak in found],
            "colour": ["#4a5568", *(_COLOURS[0] for _ in names[1:])],
        }
        projected, ceiling = run.about["projected"], run.about["ceiling"]
        self.projected.location, self.ceiling.location = projected, ceiling
        self.root.title.text = (
            f"{self.title}; projected {_bytes(projected)} (dashed), ceiling {_bytes(ceiling)} (red)"
        )
        most = max(found[0][2], projected)
        # A ceiling far above what is held would leave bars of no length.
        self.root.x_range.end = 1.08 * max(most, min(ceiling, 4 * most))


class _Step:
    """The largest entry of the gradient, or the learning rate, over passes."""

    def __init__(self, name: str, title: str) -> None:
        from bokeh.models import ColumnDataSource

        self.name, self.title, self._column = name, title, name.replace("-", "_")
        self.source = ColumnDataSource({"x": [], "y": []})
        kind = "log" if name == "gradient-norm" else "linear"
        self.root = _figure(self, x_axis_label="passes", y_axis_type=kind)
        self.root.line("x", "y", source=self.source, line_width=2, color=_COLOURS[0])
        self.root.scatter("x", "y", source=self.source, size=5, color=_COLOURS[0])

    def show(self, run: Run) -> None:
        """Show what there is."""
        columns = run.steps.columns(STEPS)
        # The end of an exact fit is a gradient of zero, which a logarithmic axis has no place for.
        known = columns[self._column] > 0
        self.source.data = {"x": columns["passes"][known], "y": columns[self._column][known]}


class _Steps:
    """Gradient norm and learning rate, in tabs, of which one that has something to show is open."""

    name = "steps"

    def __init__(self) -> None:
        from bokeh.models import TabPanel, Tabs

        self._parts = (_gradient_norm(), _learning_rate())
        panels = [TabPanel(child=part.root, title=part.title) for part in self._parts]
        for part in self._parts:
            part.root.title = None
        self.root = Tabs(tabs=panels, sizing_mode="stretch_both", name="training_steps_tabs")
        self._shown = ""

    def show(self, run: Run) -> None:
        """Show what there is."""
        for part in self._parts:
            part.show(run)
        if run.identity != self._shown and run.steps.rows:
            self._shown = run.identity
            self.root.active = int(not len(self._parts[0].source.data["x"]))


def _gradient_norm() -> _Step:
    return _Step("gradient-norm", "Gradient norm")


def _learning_rate() -> _Step:
    return _Step("learning-rate", "Learning rate")


_PARTS: dict[str, Callable[[], Any]] = {
    "loss": _Loss,
    "rate": _Rate,
    "time": _Time,
    "memory": _Memory,
    "gradient-norm": _gradient_norm,
    "learning-rate": _learning_rate,
}
"""The single plots, by the end of their addresses."""


class _Text:
    """A piece of the page in HTML, which `write` makes of a run."""

    def __init__(self, name: str, write: Callable[[Run], str]) -> None:
        from bokeh.models import Div

        self.root = Div(name=f"training_{name}", sizing_mode="stretch_width", stylesheets=[_STYLE])
        self._write = write

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
    figures = [
        ("pass", passes),
        ("updates", f"{last.get('updates', 0):,.0f}"),
        ("loss", f"{last['loss']:.6g}" if last else "&ndash;"),
        ("rows/s", _count(run.rate)),
        ("bytes/s", _bytes(int(run.rate * about["row_bytes"]))),
        ("rows per update", f"{about['rows_per_update']:,}"),
    ]
    if last and last["learning_rate"] > 0:
        figures.append(("learning rate", f"{last['learning_rate']:.3g}"))
    of = f" <small>of {_bytes(about['ceiling'])}</small>"
    held = _bytes(memory[2]) if memory[2] else "&ndash;"
    figures.append(("memory, peak", held + of))
    cells = "".join(f"<dl><dt>{name}</dt><dd>{value}</dd></dl>" for name, value in figures)
    colour = _STATE_COLOURS.get(run.state, _CEILING_COLOUR)
    is_pass = run.state == "running" and most is None and not about["max_seconds"]
    of_pass = " of this pass" if is_pass else ""
    return (
        f"<h1>{escape(about['model'])} <span>by {escape(about['solver'])}, batch size "
        f"{escape(about['batch_size'])}</span> <b style='background:{colour}'>{escape(run.state)}"
        f"</b></h1><p>{escape(about['data'])} &middot; {about['n_rows']:,} rows &times; "
        f"{about['n_features']:,} features</p>"
        f"<div class='bar'><i style='width:{run.share:.1%};background:{colour}'></i></div>"
        f"<p>{run.share:.0%}{of_pass} &middot; {run.left}</p><section>{cells}</section>"
    )


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
        f"<tr class='{escape(name)}'><td>{escape(name)}</td><td>{_bytes(size)}</td>"
        f"<td>{escape(why)}</td></tr>"
        for name, size, why in rows
    )
    return f"<h2>The plan</h2><table>{cells}</table>"


def _events(run: Run) -> str:
    """Return what happened to workers and tasks."""
    items = "".join(
        f"<tr><td>{strftime('%H:%M:%S', localtime(when))}</td><td>{escape(text[:300])}</td></tr>"
        for when, text in run.events
    )
    nothing = "<tr><td>No worker lost, no task failed.</td></tr>"
    return f"<h2>Events</h2><table>{items or nothing}</table>"


class _View:
    """One opened document: its parts, and which run they show.

    Dask's periodic callback holds it weakly, so that it ends with its document.
    """

    def __init__(self, plugin: TrainingPlugin, parts: Sequence[Any]) -> None:
        self._plugin = plugin
        self._parts = parts
        self.chosen: str | None = None
        self._seen: tuple[Any, ...] = ()

    @property
    def run(self) -> Run | None:
        """The run that was chosen, else the newest."""
        runs = self._plugin.runs
        return runs.get(self.chosen or "") or next(reversed(runs.values()), None)

    def update(self) -> None:
        """Show what has changed since the last time."""
        run = self.run
        now = (self._plugin.version, run)
        if run is None or now == self._seen:
            return
        self._seen = now
        for part in self._parts:
            part.show(run)


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

    def show(self, run: Run) -> None:
        """Show what there is."""
        runs = [(one.identity, one.label) for one in reversed(run.runs.values())]
        self.root.options = [("", "the newest run"), *runs]
        self.root.visible = len(runs) > 1


def _page(plugin: TrainingPlugin, _: Any, extra: Mapping[str, Any], doc: Any) -> None:
    """Make the Training page."""
    from distributed.dashboard.components.scheduler import env

    choice = _Choice()
    plots: list[Any] = [_Loss(), _Rate(), _Memory(), _Time(), _Steps()]
    texts = [_Text("head", _head), _Text("plan", _plan), _Text("events", _events)]
    view = _View(plugin, [choice, *plots, *texts])

    def choose(_attribute: str, _old: str, identity: str) -> None:
        view.chosen = identity
        view.update()

    choice.root.on_change("value", choose)
    _open(doc, view, [part.root for part in (choice, *plots, *texts)], "Training")
    doc.template = env.from_string(_TEMPLATE)
    doc.template_variables.update(extra)


def _single(
    plugin: TrainingPlugin,
    make: Callable[[], Any],
    _: Any,
    __: Mapping[str, Any],
    doc: Any,
) -> None:
    """Make the page of a single plot."""
    part = make()
    _open(doc, _View(plugin, [part]), [part.root], part.title)


def _open(doc: Any, view: _View, roots: Sequence[Any], title: str) -> None:
    from distributed.dashboard.components import add_periodic_callback
    from distributed.dashboard.components.scheduler import BOKEH_THEME

    view.update()
    add_periodic_callback(doc, view, _REFRESH_MILLISECONDS)
    for root in roots:
        doc.add_root(root)
    doc.theme = BOKEH_THEME
    doc.title = f"Dask: {title}"


def _figure(part: Any, **settings: Any) -> Any:
    from bokeh.plotting import figure

    return figure(
        title=part.title,
        name=f"training_{part.name}",
        tools="",
        toolbar_location=None,
        sizing_mode="stretch_both",
        min_height=120,
        min_border_left=66,
        min_border_right=16,
        **settings,
    )


def _quiet_legend(plot: Any, place: str = "top_right") -> None:
    plot.legend.update(
        location=place, background_fill_alpha=0.7, border_line_color=None, padding=4, spacing=0,
        label_text_font_size="11px", glyph_width=16,
    )  # fmt: skip


def _colour(run: Run) -> str:
    return _COLOURS[run.number % len(_COLOURS)]


def _in_order(row: tuple[str, int, int]) -> tuple[bool, int, str]:
    """Return what sorts the driver first, and worker 2 before worker 10."""
    return row[0] != "driver", len(row[0]), row[0]


def _distinct(names: Sequence[str]) -> list[str]:
    """Return the names, numbered where one comes again: an axis takes each but once."""
    return [
        name if name not in names[:i] else f"{name} ({names[:i].count(name) + 1})"
        for i, name in enumerate(names)
    ]


def _count(n: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return f"{n:.3g}"


def _bytes(n: float) -> str:
    size, units = float(n), ["B", "KiB", "MiB", "GiB", "TiB"]
    while abs(size) >= 1000 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:.3g} {units[0]}"


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


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
section { display: flex; flex-wrap: wrap; gap: 6px 34px; margin-top: 10px; }
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
