"""The Training page: what it shows of real runs, on every kind of scheduler, and what is sent.

Pages are opened as a browser opens them, by HTTP and a WebSocket; their documents are looked at.
"""

import asyncio
import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import cloudpickle
import distributed
import numpy as np
import pytest
from bokeh.client import pull_session
from bokeh.document import Document
from bokeh.embed import file_html
from bokeh.resources import INLINE
from hypothesis import given
from hypothesis import strategies as st

from ooc_train.memory.processes import ProcessMemory
from ooc_train.models.classification_models import LogisticModel
from ooc_train.monitoring import driver as driver_module
from ooc_train.monitoring.dashboard import page as page_module
from ooc_train.monitoring.dashboard.page_texts import head_values, runs_values
from ooc_train.monitoring.dashboard.panel_parts import bytes_text
from ooc_train.monitoring.dashboard.panels import SINGLE_PANELS, MemoryTabs, Steps
from ooc_train.monitoring.dashboard.plugin import HANDLER, NAME, TrainingPlugin
from ooc_train.monitoring.dashboard.run_series import (
    METRICS,
    POINTS,
    PROFILE,
    PROGRESS,
    STEPS,
    Run,
    Runs,
    Series,
    process_name,
    reading_limit,
)
from ooc_train.monitoring.driver import TrainingPage
from ooc_train.runs.events import Compiling, Ended, Noted, Progressed, Started, Stepped
from ooc_train.runs.history import LossPoint
from ooc_train.runtime.clients import training_link
from ooc_train.runtime.cluster import LocalCluster
from ooc_train.solvers.training_settings import Training
from ooc_train.store.jobs.synthetic import make_data
from ooc_train.store.opening.opener import open_store
from ooc_train.stream.inputs import read_inputs
from ooc_train.training import sample_metrics
from ooc_train.training.loop import train

SINGLE = (
    "loss",
    "rate",
    "time",
    "memory",
    "memory-now",
    "metrics",
    "gradient-norm",
    "learning-rate",
    "batch-size",
)
LOGISTIC = LogisticModel()
BATCHES = Training(batch_size=256, max_iter=5, random_state=0)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("dashboard") / "made.zarr"
    make_data(path, rows=20_000, features=10, random_state=0)
    return str(path)


def new_cluster():
    return LocalCluster(n_workers=1, memory_ceiling="2GiB", dashboard_address="127.0.0.1:0")


@pytest.fixture(scope="module")
def shared_cluster():
    """A cluster with the runs of all tests that look at their newest run alone."""
    with new_cluster() as local:
        yield local


@pytest.fixture
def shared_client(shared_cluster):
    with shared_cluster.get_client() as client:
        yield client


@pytest.fixture
def cluster():
    """A cluster that has seen no run."""
    with new_cluster() as local:
        yield local


@pytest.fixture
def client(cluster):
    with cluster.get_client() as client:
        yield client


class Listener:
    """Keeps every event, and the link of the page."""

    def __init__(self):
        self.events = []

    def __call__(self, event):
        if not isinstance(event, Compiling):  # that depends on what is in the cache
            self.events.append(event)

    @property
    def page(self):
        return self.events[0].training_page


def fit(data, client, training=BATCHES, **settings):
    """Train, and return the page's link and the report."""
    listener = Listener()
    _, report = train(LOGISTIC, data, training, client=client, callbacks=[listener], **settings)
    return listener.page, report


def get(link, page="training"):
    base = link.rpartition("/")[0]
    with urllib.request.urlopen(f"{base}/{page}", timeout=30) as answer:
        assert answer.status == 200
        return answer.read().decode()


@contextmanager
def opened(link, page="training"):
    """The document of a page, as a browser has it."""
    session = pull_session(url=link.rpartition("/")[0] + "/" + page)
    try:
        yield session.document
    finally:
        session.close()


def data_of(document, source):
    return document.get_model_by_name(f"training_{source}_data").data


def text_of(document, name):
    return document.get_model_by_name(f"training_{name}").text


def plugin_of(cluster):
    return cluster.scheduler.plugins[NAME]


def equal(document, report):
    """Whether the page's values are the report's."""
    steps = data_of(document, "steps")
    assert list(steps["loss"]) == list(report.loss_history)
    assert steps["updates"][-1] == report.updates
    assert steps["passes"][-1] == report.passes
    assert steps["n_iter"][-1] == report.n_iter
    profile = data_of(document, "profile")
    assert dict(zip(profile["part"], profile["seconds"], strict=True)) == report.profile
    memory = data_of(document, "memory")
    shown = dict(zip(memory["process"], memory["peak"], strict=True))
    peaks = {process.name: process.peak for process in report.memory.processes}
    assert shown == peaks | {"all": report.memory.measured}
    head = text_of(document, "head")
    for figure in (f"{report.loss:.6g}", f"{report.updates:,}", f"{report.passes:.4g}"):
        assert f"<dd>{figure}" in head


@pytest.mark.slow
def test_a_run_is_on_its_page(made, shared_cluster, shared_client):
    link, report = fit(made, shared_client)
    assert link == shared_cluster.dashboard_link.replace("/status", "/training")
    assert report.notes == (report.shortfall,)  # five epochs are few
    assert '<a href="training">Training</a>' in get(link)
    assert '<a href="training">Training</a>' in get(link, "status")
    plots = json.loads(get(link, "individual-plots.json"))
    for name in SINGLE:
        path = f"individual-training-{name}"
        assert plots[f"Individual Training {name.replace('-', ' ').title()}"] == f"/{path}"
        assert f'<a href="{path}">' in get(link, "status")
        with opened(link, path) as document:
            assert document.roots
    with opened(link) as document:
        equal(document, report)
        head = text_of(document, "head")
        assert "logistic <span>by sgd, batch size 256</span>" in head
        assert "finished" in head
        assert "<dd>256</dd>" in head
        plan = text_of(document, "plan")
        assert all(f"<td>{term}</td>" in plan for term in report.memory.terms)


@pytest.mark.slow
def test_the_page_can_be_opened_before_the_first_run(made, cluster, client):
    link = cluster.training_link
    assert '<a href="training">Training</a>' in get(link)
    assert training_link(client) == training_link() == link
    assert distributed.Client.current() is client  # and not one made to ask
    page, report = fit(made, client)
    assert page == link
    assert len(pages_of(cluster)) == 1
    with opened(link) as document:
        equal(document, report)


@pytest.mark.slow
def test_the_rate_stands_beside_what_reading_alone_would_reach(made, shared_client):
    link, report = fit(made, shared_client)
    timings = report.profile["reading"] + report.profile["decoding"]
    turns = 2  # threads of a scan
    store = open_store(made)
    due = report.passes * store.n_rows * store.row_bytes * turns / timings
    with opened(link) as document:
        assert f"<small>of {bytes_text(due)} by reading alone<" in text_of(document, "head")
        plot = document.get_model_by_name("training_rate")
        (line,) = (each for each in plot.center if type(each).__name__ == "Span")
        highest = max(data_of(document, "rate")["rate"])
        # A limit is no lower than what is drawn.
        assert line.location == pytest.approx(max(due / store.row_bytes, highest), rel=0.01)
        assert plot.y_range.end >= 1.1 * highest
        (told,) = (each.text for each in plot.above if "reading alone" in each.text)
        # Far above, it is told of and not drawn.
        assert line.visible is (line.location <= plot.y_range.end)
        assert ("dashed" in told) is line.visible


@pytest.mark.slow
def test_a_full_batch_has_a_gradient_and_no_learning_rate(made, shared_client):
    link, report = fit(made, shared_client, Training())
    with opened(link) as document:
        equal(document, report)
        assert "converged" in text_of(document, "head")
        assert "learning rate" not in text_of(document, "head")
        steps = data_of(document, "steps")
        assert np.all(np.isnan(steps["learning_rate"]))
        assert steps["gradient_norm"][-1] < 1e-4


@pytest.mark.slow
def test_the_loss_of_validation_rows_is_on_the_page(made, client):
    link, report = fit(made, client, validation=made)
    with opened(link) as document:
        equal(document, report)
        head = text_of(document, "head")
        assert f"<dt>validation loss</dt><dd>{report.validation_loss:.6g}<" in head
        assert "20,000 validation rows" in head
        judged = [step.validation_loss for step in report.history]
        assert list(data_of(document, "steps")["validation_loss"]) == judged
        plot = document.get_model_by_name("training_loss")
        own, dashed = plot.renderers[:2]
        assert dashed.glyph.line_dash.value == [10, 6]
        assert list(dashed.data_source.data[dashed.glyph.ys.field][0]) == judged
        assert list(own.data_source.data[own.glyph.ys.field][0]) == list(report.loss_history)
        assert any("dashed" in each.text for each in plot.above)
    link, _ = fit(made, client)
    with opened(link) as document:
        assert "validation" not in text_of(document, "head")
        assert "validating" not in data_of(document, "profile")["part"]


@pytest.mark.slow
def test_what_a_run_notes_is_among_its_events(made, shared_client, tmp_path):
    link, report = fit(made, shared_client, out=tmp_path / "<b>a.run")
    with opened(link) as document:
        events = text_of(document, "events")
    told = [
        f"learning rate {report.learning_rate:.4g}",
        "stopped: max_iter=5",
        "&lt;b&gt;a.run",
    ]
    # The newest first.
    assert sorted(told, key=events.index) == told[::-1]


def pages_of(cluster):
    applications = cluster.scheduler.http_application.applications
    return [app for app in applications[1:] if "/training" in getattr(app, "app_paths", ())]


@pytest.mark.slow
def test_two_runs_leave_one_page_with_both(made, cluster, client):
    _, first = fit(made, client)
    with distributed.Client(cluster) as other:
        link, second = fit(made, other, replace(BATCHES, batch_size=1000))
    assert len(pages_of(cluster)) == 1
    assert get(link, "status").count('<a href="training">') == 1
    assert get(link, "status").count('<a href="individual-training-loss">') == 1
    runs = list(plugin_of(cluster).runs.values())
    losses = [tuple(run.steps.columns(STEPS)["loss"]) for run in runs]
    assert losses == [first.loss_history, second.loss_history]
    with opened(link) as document:
        equal(document, second)
        (lines,) = (r for r in document.get_model_by_name("training_loss").renderers[:1])
        assert [tuple(line) for line in lines.data_source.data["loss"]] == losses
        choice = document.get_model_by_name("training_choice")
        identities = [run.identity for run in reversed(runs)]
        assert [identity for identity, _ in choice.options] == ["", *identities]


@pytest.mark.slow
def test_a_page_that_an_earlier_plugin_left_is_replaced(made, cluster, client):
    fit(made, client)
    (stale,) = pages_of(cluster)
    client.unregister_scheduler_plugin(NAME)
    with distributed.Client(cluster) as other:
        link, report = fit(made, other)
    (page,) = pages_of(cluster)
    assert page is not stale
    assert get(link, "status").count('<a href="training">') == 1
    with opened(link) as document:
        equal(document, report)


@pytest.mark.slow
def test_another_version_of_the_plugin_makes_room(made, cluster, client):
    class Old(distributed.SchedulerPlugin):  # type: ignore[misc] # untyped base
        pass

    cluster.scheduler.add_plugin(Old(), name="ooc_train-training-0")
    fit(made, client)
    assert [name for name in cluster.scheduler.plugins if "training" in name] == [NAME]


@pytest.mark.slow
def test_names_from_data_are_escaped(made, shared_client, tmp_path):
    path = tmp_path / "<script>alert(1)<&script>.zarr"
    shutil.copytree(made, path)
    link, _ = fit(path, shared_client)
    with opened(link) as document:
        texts = [text_of(document, name) for name in ("head", "plan", "events")]
    assert "&lt;script&gt;alert(1)&lt;&amp;script&gt;.zarr" in texts[0]
    assert not any("<script" in text for text in texts)


@pytest.mark.slow
def test_what_ends_a_run_is_on_the_page(made, shared_client):
    class Breaks(Listener):
        def __call__(self, event):
            super().__call__(event)
            if isinstance(event, Stepped):
                raise RuntimeError("no <b>more</b>")  # noqa: TRY004

    breaks = Breaks()
    with pytest.raises(RuntimeError):
        train(LOGISTIC, made, BATCHES, client=shared_client, callbacks=[breaks])
    with opened(breaks.page) as document:
        assert "RuntimeError: no &lt;b&gt;more&lt;/b&gt;" in text_of(document, "head")


@pytest.mark.slow
def test_the_prefix_of_the_dashboard_is_kept(made):
    with (
        distributed.LocalCluster(
            n_workers=1,
            processes=False,
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"http_prefix": "/dask"},
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        link, report = fit(made, client)
        assert urlsplit(link).path == "/dask/training"
        assert training_link(client) == link
        assert '<a href="training">Training</a>' in get(link)
        with opened(link) as document:
            steps = data_of(document, "steps")
            assert tuple(steps["loss"]) == report.loss_history
            # The worker lives in this process, which is told of once.
            assert data_of(document, "memory")["process"] == ["all", "driver"]
        with pytest.raises(urllib.error.HTTPError):
            get(link.replace("/dask/", "/"))


@pytest.mark.slow
def test_the_methods_that_dask_calls_take_what_it_passes():
    # Dask swallows what its plugins raise.
    theirs = dict(inspect.getmembers(distributed.SchedulerPlugin, inspect.isfunction))
    own = {name: each for name, each in vars(TrainingPlugin).items() if name in theirs}
    assert {"transition", "add_worker", "remove_worker", "remove_client"} <= set(own)
    for name, method in own.items():
        expected = list(inspect.signature(theirs[name]).parameters)
        found = inspect.signature(method).parameters
        open_ended = any(each.kind is each.VAR_KEYWORD for each in found.values())
        accepted = len([each for each in found.values() if each.kind is not each.VAR_KEYWORD])
        assert accepted == len(expected) or open_ended, name


@pytest.mark.slow
def test_a_lost_worker_and_its_tasks_are_events(made, cluster, client):
    pids = list(client.run(os.getpid).values())

    class Kills(Listener):
        def __call__(self, event):
            super().__call__(event)
            if isinstance(event, Stepped) and event.n_iter == 2:
                os.kill(pids[0], signal.SIGKILL)

    kills = Kills()
    train(LOGISTIC, made, BATCHES, client=client, callbacks=[kills])
    with opened(kills.page) as document:
        events = text_of(document, "events")
    assert " was lost" in events
    assert " joined " in events


@pytest.mark.slow
def test_a_driver_that_disconnects_is_shown(cluster):
    client = cluster.get_client()
    page = TrainingPage(client, None, lambda: ProcessMemory(1, "driver", 1, 1))
    page.__enter__()
    page(started())
    page._delivered(10.0)
    client.close()
    (run,) = plugin_of(cluster).runs.values()
    wait_for(lambda: run.state != "running")
    assert run.state == "driver disconnected"


@pytest.mark.slow
def test_workers_tell_what_they_hold_with_their_heartbeats(made, shared_cluster, shared_client):
    fit(made, shared_client, replace(BATCHES, max_iter=1))
    (worker,) = shared_cluster.scheduler.workers.values()
    (pid,) = shared_client.run(os.getpid).values()
    wait_for(lambda: worker.metrics.get("ooc_train", [""])[0] == process_name(pid))
    _, current, peak = worker.metrics["ooc_train"]
    assert 50 * 2**20 < current <= peak < 2**30


@pytest.mark.slow
def test_a_worker_that_does_not_tell_is_shown_as_dask_sees_it(cluster, client):
    page = TrainingPage(client, None, lambda: ProcessMemory(1, "driver", 2, 1))
    with page:
        page(started())
        page._delivered(10.0)
        (worker,) = cluster.scheduler.workers.values()
        wait_for(lambda: worker.metrics.get("memory"))
        (run,) = plugin_of(cluster).runs.values()

        def is_shown():
            page(Progressed(10, 0.1))
            page._delivered(10.0)
            return len(run.memory()) > 1

        wait_for(is_shown)
        names = [name for name, _, _ in run.memory()]
        assert names == ["all", "driver", f"worker {worker.name}"]
        assert run.memory()[2][1] > 10 * 2**20


@pytest.mark.slow
def test_the_cluster_inside_this_process_has_its_page_too(made):
    link, report = fit(made, None)
    assert link.startswith("http://127.0.0.1:")
    with opened(link) as document:
        assert tuple(data_of(document, "steps")["loss"]) == report.loss_history


@pytest.mark.slow
def test_arrays_in_memory_have_no_page(client, cluster):
    X = np.random.default_rng(0).normal(size=(1000, 3))
    train(LOGISTIC, read_inputs(X, (X[:, 0] > 0).astype(float), classifier=True))
    assert NAME not in cluster.scheduler.plugins


@pytest.mark.slow
def test_nothing_stays_registered_by_value(made, shared_client):
    fit(made, shared_client)
    assert cloudpickle.list_registry_pickle_by_value() == set()


# Schedulers in a process of their own.


@contextmanager
def apart(without, *arguments):
    """A scheduler that lacks a package, and a worker that has it; gives a client."""
    blocked = (
        f"import sys; sys.modules[{without!r}] = None\n"
        "from distributed.cli.dask_scheduler import main; main()"
    )
    address = ("--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0")
    processes = []

    def start(*command, **settings):
        processes.append(
            subprocess.Popen(
                [sys.executable, *command], stderr=subprocess.PIPE, text=True, **settings
            )
        )
        return processes[-1]

    try:
        scheduler = start("-c", blocked, *address, *arguments)
        assert scheduler.stderr is not None
        for line in scheduler.stderr:
            if "Scheduler at:" in line:
                tcp = line.split()[-1]
                break
        else:
            pytest.fail("the scheduler did not start")
        drain(scheduler)
        worker = start(
            "-m", "distributed.cli.dask_worker", tcp, "--nthreads", "1", "--no-nanny",
            "--no-dashboard", "--host", "127.0.0.1",
        )  # fmt: skip
        drain(worker)
        with distributed.Client(tcp) as client:
            yield client
    finally:
        for process in reversed(processes):
            process.kill()
        for process in processes:
            process.wait(timeout=30)
            if process.stderr is not None:
                process.stderr.close()


def drain(process):
    """Read on, so that the process is not held up by a full pipe."""
    threading.Thread(target=process.stderr.read, daemon=True).start()


@pytest.mark.slow
def test_a_scheduler_that_lacks_the_package_shows_the_page(made):
    with apart("ooc_train") as client:
        with pytest.raises(ModuleNotFoundError):
            client.run_on_scheduler(__import__, "ooc_train")
        link, report = fit(made, client)
        assert report.notes == (report.shortfall,)  # five epochs are few
        assert '<a href="training">Training</a>' in get(link, "status")
        assert (
            "/individual-training-loss" in json.loads(get(link, "individual-plots.json")).values()
        )
        with opened(link) as document:
            equal(document, report)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("without", "arguments"), [("bokeh", ()), ("ooc_train", ("--no-dashboard",))]
)
def test_without_a_dashboard_training_goes_on_and_says_so(made, without, arguments):
    with apart(without, *arguments) as client:
        page, report = fit(made, client)
        assert training_link(client) is None
    assert page is None
    assert report.n_iter == 5
    (note,) = set(report.notes) - {report.shortfall}
    assert note.startswith("no Training page: the scheduler serves no dashboard")


# What is sent, and when.


def started(**settings):
    about: Any = {
        "model": "logistic", "solver": "sgd", "batch_size": "256", "n_rows": 1000,
        "n_features": 3, "max_iter": 10, "dashboard": None, "ceiling": 2**30,
        "projected": 2**29, "explanation": "", "row_bytes": 40, "solver_passes": 10.0,
    }  # fmt: skip
    return Started(**about | settings)


def stepped(n_iter, loss=0.5):
    return Stepped(n_iter, float(n_iter), n_iter, loss, None, n_iter / 100)


class Scheduler:
    """Takes messages as a scheduler does, when it is let."""

    def __init__(self):
        self.messages = []
        self.let = threading.Event()
        self.let.set()
        self.most = self.under_way = 0
        self.breaks: Exception | None = None

    async def take(self, kind, values=None, **_):
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        while not self.let.is_set():
            await asyncio.sleep(0.001)
        self.under_way -= 1
        if self.breaks:
            raise self.breaks
        self.messages.append((kind, values))
        return {"page": "/training", "why": ""}


class FakeClient:
    id = "client"
    registered = 0

    def __init__(self, loop):
        self.scheduler = Scheduler()
        setattr(self.scheduler, HANDLER, self.scheduler.take)
        self.loop = type("Loop", (), {"asyncio_loop": loop})()

    def sync(self, function, *, callback_timeout, **arguments):
        call = asyncio.run_coroutine_threadsafe(function(**arguments), self.loop.asyncio_loop)
        return call.result(callback_timeout)

    def register_plugin(self, *_):
        self.registered += 1
        assert "ooc_train.monitoring.dashboard" in cloudpickle.list_registry_pickle_by_value()


@pytest.fixture
def fake():
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield FakeClient(loop)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(driver_module, "perf_counter", lambda: now[0])
    return now


def driver():
    return ProcessMemory(7, "driver", 200, 100)


def losses(messages):
    return [row[STEPS.index("loss")] for kind, values in messages if kind != "start" and values
            for row in values["steps"]]  # fmt: skip


def test_five_messages_a_second_at_most_and_every_step_arrives(fake, clock):
    with TrainingPage(fake, "http://127.0.0.1:1/status", driver) as page:
        assert page.link == "http://127.0.0.1:1/training"
        page(started())
        for i in range(1000):
            page._delivered(10.0)
            page(stepped(i, loss=float(i)))
            clock[0] += 0.01
        page(Ended(True, 10.0))
    kinds = [kind for kind, _ in fake.scheduler.messages]
    assert kinds[:2] == ["ask", "start"]
    assert kinds[-1] == "end"
    assert 45 <= kinds.count("update") <= 51
    assert losses(fake.scheduler.messages) == [float(i) for i in range(1000)]


def test_what_is_noted_is_sent_once_and_never_in_heaps(fake, clock):
    with TrainingPage(fake, None, driver) as page:
        page(started())
        page._delivered(10.0)
        for i in range(2):
            clock[0] += 1.0
            page(Noted(f"a {i}", 0.1))
            page._delivered(10.0)
        fake.scheduler.let.clear()
        for i in range(1000):
            clock[0] += 1.0
            page(Noted(f"b {i}", 0.2))
        fake.scheduler.let.set()
        page(Ended(True, 1.0))
    noted = [
        values["notes"] for kind, values in fake.scheduler.messages if kind in ("update", "end")
    ]
    assert noted[:2] == [["a 0"], ["a 1"]]
    assert noted[-1][-1] == "b 999"
    assert sum(map(len, noted)) <= 2 + 1 + 50


def test_one_message_is_under_way_and_a_slow_scheduler_holds_up_nothing(fake, clock):
    with TrainingPage(fake, None, driver) as page:
        page(started())
        page._delivered(10.0)
        fake.scheduler.let.clear()
        for i in range(100):
            page(stepped(i, loss=float(i)))
            clock[0] += 1.0
        assert fake.scheduler.most == 1
        assert [kind for kind, _ in fake.scheduler.messages] == ["ask", "start"]
        fake.scheduler.let.set()
        page(Ended(True, 10.0))
    assert fake.scheduler.most == 1
    assert losses(fake.scheduler.messages) == [float(i) for i in range(100)]


def test_what_is_sent_is_plain(fake, clock):
    with TrainingPage(fake, None, driver) as page:
        page(started())
        page._delivered(10.0)
        page(replace(stepped(1), loss=np.float64(0.5), profile={"reading": np.float64(1.0)}))
        page(Ended(True, 10.0))

    def types(value):
        if isinstance(value, dict):
            return set().union(*(types(part) for part in value.values()))
        if isinstance(value, list | tuple):
            return set().union(*(types(part) for part in value))
        return {type(value)}

    found = set().union(*(types(values) for _, values in fake.scheduler.messages))
    assert found <= {int, float, str, type(None)}


@pytest.mark.parametrize("error", [OSError("gone"), TimeoutError("gone")])
def test_a_scheduler_that_fails_ends_the_page_and_not_the_run(fake, clock, error):
    with TrainingPage(fake, None, driver) as page:
        page(started())
        page._delivered(10.0)
        fake.scheduler.breaks = error
        for i in range(10):
            page(stepped(i))
            page._delivered(10.0)
            clock[0] += 1.0
        page(Ended(True, 10.0))
    assert page.notes == [f"no Training page: {type(error).__name__}: gone"]
    fake.scheduler.breaks = None
    with TrainingPage(fake, "http://127.0.0.1:1/status", driver) as page:
        assert page.link is not None
    assert fake.registered == 2


def test_a_client_that_is_closed_ends_the_page_and_not_the_run(clock):
    loop = asyncio.new_event_loop()
    loop.close()
    page = TrainingPage(FakeClient(loop), None, driver)
    page(started())
    page(stepped(1))
    page(Ended(True, 1.0))
    assert page.notes == ["no Training page: RuntimeError: Event loop is closed"]


def test_a_run_without_a_cluster_has_no_page():
    with TrainingPage(None, None, driver) as page:
        for event in (started(), Progressed(5, 1.0), stepped(1), Ended(True, 1.0)):
            page(event)
    assert page.link is None
    assert page.notes == []


# What is kept.


@given(st.integers(1, 500), st.integers(2, 30))
def test_a_series_is_bounded_spread_evenly_and_has_both_ends(n, limit):
    series = Series(limit)
    for i in range(n):
        series.append((float(i),))
    kept = [int(row[0]) for row in series.rows]
    assert len(kept) <= limit + 1
    assert len(kept) >= min(n, limit // 2)
    assert kept[0] == 0
    assert kept[-1] == n - 1
    assert len(set(np.diff(kept[:-1]))) <= 1


def run_of(rows, seconds, **about):
    values = driver_module._settings(started(**about))
    run = Run(Runs(), "run", "client", values)
    for row, second in zip(rows, seconds, strict=True):
        run.progress.append((second, row, *(0.0,) * len(PROFILE)))
    return run


@pytest.mark.parametrize(
    ("about", "share", "left"),
    [
        ({}, 0.25, "30 s left"),
        ({"max_passes": 5.0}, 0.5, "10 s left"),
        ({"max_seconds": 12.5}, 0.8, "2.5 s left"),
        ({"solver_passes": None}, 0.5, "2 s left in this pass"),
        ({"solver_passes": 1.0}, 1.0, "0 s left"),
    ],
)
def test_how_far_a_run_is_and_how_long_it_goes_on(about, share, left):
    run = run_of([1000, 2500], [4.0, 10.0], **about)
    assert run.share == pytest.approx(share)
    assert run.left == left


def test_the_rate_is_of_the_last_seconds_and_of_all_once_it_is_over():
    run = run_of([0, 1000, 2000, 6000], [1.0, 10.0, 16.0, 20.0])
    assert run.rate == 1000.0
    run.state = "converged"
    assert run.rate == 300.0


@pytest.mark.parametrize(
    ("nbytes", "seconds", "threads", "due"),
    [(6e9, 3.0, 2, 4e9), (6e9, 3.0, 1, 2e9), (0.0, 0.0, 2, None), (6e9, 0.0, 2, None)],
)
def test_what_reading_alone_would_reach(nbytes, seconds, threads, due):
    assert reading_limit(nbytes, seconds, threads) == due


def test_the_limit_of_a_run_is_of_what_its_threads_read_and_decoded():
    run = run_of([], [], threads=3)
    assert run.reading_limit is None
    timings = {"reading": 0.5, "decoding": 0.25, "computing": 9.0, "validating": 7.0}
    run.progress.append((4.0, 1000.0, *(timings.get(name, 1.0) for name in PROFILE)))
    # 40 bytes a row, by `started`.
    assert run.reading_limit == 1000 * 40 * 3 / 0.75


def test_rows_that_come_in_together_make_no_rate_of_their_own():
    run = run_of([100, 200, 300, 300, 600, 601], [0.6, 0.6001, 1.2, 1.5, 1.9, 1.9001])
    assert run.rows_over_time() == [(0.0, 0.0), (0.6, 100.0), (1.2, 300.0), (1.9001, 601.0)]
    assert run_of([5], [0.1]).rows_over_time() == [(0.0, 0.0), (0.1, 5.0)]
    assert run_of([], []).rows_over_time() == [(0.0, 0.0)]


def test_the_columns_of_messages_are_those_of_the_events():
    names = set(Stepped.__dataclass_fields__)
    assert set(STEPS) <= names
    assert PROGRESS[:2] == ("seconds", "rows")
    assert set(POINTS) - set(METRICS) == set(LossPoint.__dataclass_fields__) - {"metrics"}
    assert METRICS == sample_metrics.METRICS


def test_a_failed_run_is_told_of_in_a_word_and_tabs_without_data_are_disabled():
    runs = run_of_points(0)
    (run,) = runs.values()
    part = Steps()
    part.show(run)
    assert [panel.disabled for panel in part.root.tabs] == [True] * 4
    run.state = "Diverged: the loss <b>is</b> no number"
    values = head_values(run)
    assert (values["state"], values["error"]) == ("failed", run.state)
    assert [cells[-7] for _, _, cells in runs_values(run)["rows"]] == ["failed"]
    for state in ("running", "converged", "finished", "driver disconnected"):
        run.state = state
        assert (head_values(run)["state"], head_values(run)["error"]) == (state, "")
    (run,) = run_of_points(2).values()
    part.show(run)
    assert [panel.disabled for panel in part.root.tabs] == [False] * 4


def test_the_line_of_losses_within_passes_breaks_where_a_pass_has_none():
    runs = run_of_points(1)
    run = runs["run"]
    for passes, loss in ((0.9, 0.4), (10.2, 0.3), (10.7, 0.2)):
        run.within.append((passes, 1, passes, loss, *(np.nan,) * 3))
    panel = SINGLE_PANELS["loss"]()
    page_module._View(runs, [panel]).refresh()
    (thin,) = panel.lines.data["within"]
    np.testing.assert_array_equal(thin, [0.6, 0.4, np.nan, 0.3, 0.2])
    (over,) = panel.lines.data["within_passes"]
    np.testing.assert_array_equal(over, [0.5, 0.9, np.nan, 10.2, 10.7])
    # Rows that were dropped part their neighbours, and a line joins these.
    series = Series(limit=4)
    for i in range(10):
        series.append((float(i),))
    assert series.rows[:2] == [(0.0,), (4.0,)]
    kept = series.broken_columns(("passes",))["passes"]
    np.testing.assert_array_equal(kept, [0.0, 4.0, 8.0, 9.0])


def test_the_page_counts_no_rows_of_earlier_processes_into_the_rate(fake, clock):
    with TrainingPage(fake, None, driver) as page:
        page(replace(started(), spent=(5500, 100.0)))
        page._delivered(10.0)
        for rows, seconds in ((5000, 101.0), (5600, 102.0)):
            clock[0] += 1.0
            page(Progressed(rows, seconds))
            page._delivered(10.0)
    sent = [values or {} for _, values in fake.scheduler.messages]
    progress = [tuple(each["progress"][:2]) for each in sent if "progress" in each]
    assert progress[:2] == [(100.0, 5500), (102.0, 5600)]


def test_metrics_within_a_pass_are_on_the_page(fake, clock):
    with TrainingPage(fake, None, driver) as page:
        page(started())
        page._delivered(10.0)
        clock[0] += 1.0
        page(Progressed(500, 0.5, loss=0.5, updates=7, metrics={"accuracy": 0.9}))
        page._delivered(10.0)
    rows = [
        row for _, values in fake.scheduler.messages for row in (values or {}).get("within", ())
    ]
    np.testing.assert_equal(rows, [[0.5, 7.0, 0.5, 0.5, 0.9, np.nan, np.nan]])
    runs = Runs()
    runs["run"] = run = Run(runs, "run", "client", driver_module._settings(started()))
    part = Steps()
    part.show(run)
    assert part.root.active == 0
    run.steps.append([{"learning_rate": 0.1}.get(name, 1.0) for name in STEPS])
    part.show(run)
    assert part.root.tabs[part.root.active].title == "Gradient norm"
    assert "accuracy" not in str(head_values(run)["figures"])
    for row in (*rows, [0.6, 8.0, 0.6, 0.4, np.nan, np.nan, np.nan]):
        run.within.append(row)
    part.show(run)
    drawn = part.parts[0].source.data
    assert drawn["label"] == ["accuracy"]
    assert [list(values) for values in (*drawn["xs"], *drawn["ys"])] == [[0.5], [0.9]]
    (tile,) = [figure for figure in head_values(run)["figures"] if figure[0] == "accuracy"]
    assert tile[1] == "0.9000"


# What a page sends.


class Opened:
    """A page on a run that is over and one that goes on; `sent` is what a browser would get."""

    def __init__(self):
        self.runs = Runs()
        for name in ("over", "on"):
            values = driver_module._settings(started(validation_rows=10))
            self.runs[name] = Run(self.runs, name, "client", values)
        self.step("over", 1.0)
        self.document = Document()
        self.sent: list[Any] = []
        page_module._page(self.runs, None, {}, self.document)
        (self.view,) = self.document.components
        self.document.callbacks.on_change(self.sent.append)

    def step(self, name, loss):
        known = self.runs[name]
        known.steps.append([{"loss": loss, "passes": 1.0}.get(column, 0.5) for column in STEPS])
        self.runs.version += 1

    def progress(self, seconds):
        self.runs["on"].progress.append((seconds, 100 * seconds, *(seconds,) * len(PROFILE)))
        self.runs.version += 1

    def names(self):
        found = {getattr(event.model, "name", None) for event in self.sent}
        self.sent.clear()
        return found


def names_of_view():
    """What its methods see: no more the module's, once a scheduler of this process has had them."""
    return page_module._View.refresh.__globals__


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setitem(names_of_view(), "_LONG_SECONDS", 1e9)


@pytest.mark.usefixtures("quick")
def test_a_page_sends_what_has_changed_and_no_more():
    page = Opened()
    page.view.update()
    assert page.sent == []
    page.progress(1.0)
    page.view.update()
    changed = page.names()
    assert {"training_head", "training_rate_data", "training_profile_data"} <= changed
    assert changed & {"training_steps_data", "training_memory_data", "training_plan"} == set()
    # The axes and the limit seldom move.
    page.progress(2.0)
    page.view.update()
    assert page.names() == {"training_head", "training_rate_data", "training_profile_data"}
    page.runs["on"].events.appendleft((0.0, "lost"))
    page.runs.version += 1
    page.view.update()
    assert page.names() == {"training_events"}


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_step_sends_the_line_of_its_run_alone_and_leaves_what_a_new_page_has():
    page = Opened()
    for loss in (0.75, 0.5):
        page.step("on", loss)
        page.view.update()
    patches = [event.patches for event in page.sent if hasattr(event, "patches")]
    assert [[index for index, _ in patch["loss"]] for patch in patches] == [[1], [1]]
    fresh = Document()
    page_module._page(page.runs, None, {}, fresh)
    lines = [
        document.get_model_by_name("training_loss").renderers[0].data_source.data
        for document in (page.document, fresh)
    ]
    for name in ("passes", "loss", "validation_loss"):
        for ours, theirs in zip(*(data[name] for data in lines), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert list(lines[0]["loss"][1]) == [0.75, 0.5]


def test_a_refresh_that_takes_long_is_followed_by_a_rest_that_a_choice_ends(monkeypatch):
    now = [0.0]

    def clock():
        now[0] += 0.02
        return now[0]

    monkeypatch.setitem(names_of_view(), "perf_counter", clock)
    page = Opened()
    page.progress(1.0)
    page.view.update()
    assert page.sent == []
    choice = page.document.get_model_by_name("training_choice")
    choice.value = "over"
    choice.value = ""
    assert "training_rate_data" in page.names()
    page.progress(2.0)
    now[0] += 1.5
    page.view.update()
    assert "training_rate_data" in page.names()


def wait_for(condition, seconds=30.0):
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            pytest.fail("it did not come about")
        time.sleep(0.02)


# In a browser.


def shown(browser, name, what):
    """Return what a model of the page has in the browser, or None before it is there."""
    return browser.execute_script(
        "const open = window.Bokeh && Bokeh.documents[0];"
        f"const model = open && open.get_model_by_name('training_{name}');"
        f"if (!model) return null; const value = model.{what};"
        "return value.length === undefined || typeof value === 'string' ? value"
        " : Array.from(value);"
    )


def text_in(browser, name):
    """Return the text that a reader sees of a piece of the page."""
    return browser.execute_script(
        "const views = [...document.querySelectorAll('*')].filter(e => e.shadowRoot);"
        "return views.map(e => e.shadowRoot.querySelector(arguments[0]))"
        ".filter(e => e).map(e => e.innerText).join('\\n');",
        name,
    )


def run_of_points(n):
    """All runs, the newest of which has `n` steps so far, or None where there is no run."""
    runs = Runs()
    if n is not None:
        runs["run"] = run = Run(runs, "run", "client", driver_module._settings(started()))
        for i in range(1, n + 1):
            run.steps.append([{"passes": i, "loss": 0.5 / i}.get(name, 0.1) for name in STEPS])
            run.progress.append((float(i), 100.0 * i, *(0.1,) * len(PROFILE)))
            run.processes = {str(j): (f"worker {j}", 2**28, 2**29) for j in range(i)}
            run.within.append((i - 0.5, i, i - 0.5, 0.6 / i, 0.9, 0.95, np.nan))
            run.sample_memory()
    return runs


def painted(browser, plots):
    """Whether every plot has been painted; an answer says that the tab is not frozen."""
    script = (
        "const [done] = arguments; const open = window.Bokeh && Bokeh.documents[0];"
        "requestAnimationFrame(() => requestAnimationFrame(() => done("
        "open && open.is_idle && document.readyState == 'complete')));"
    )
    count = "return Bokeh.documents[0]._all_models.size"
    return browser.execute_async_script(script) and browser.execute_script(count) > plots


def complaints(browser):
    return [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]


@pytest.mark.slow
def test_a_plot_of_any_number_of_points_leaves_the_browser_alive(browser, tmp_path):
    roots = []
    for n in (None, 0, 1, 2):
        runs = run_of_points(n)
        for make in (*SINGLE_PANELS.values(), MemoryTabs, Steps):
            part = make()
            page_module._View(runs, [part]).refresh()
            roots.append(part.root)
    path = tmp_path / "plots.html"
    path.write_text(file_html(roots, INLINE, "plots"))
    browser.get(path.as_uri())
    wait_for(lambda: painted(browser, len(roots)))
    assert complaints(browser) == []


@pytest.mark.slow
def test_the_page_before_the_first_run_in_a_browser(made, cluster, client, browser):
    browser.get(cluster.training_link)
    wait_for(lambda: painted(browser, 10))
    assert text_in(browser, "h1") == "No run yet"
    _, report = fit(made, client)
    wait_for(lambda: shown(browser, "steps_data", "data.loss") == list(report.loss_history))
    wait_for(lambda: text_in(browser, "h1 b") == "finished")
    assert complaints(browser) == []


def test_a_rate_is_drawn_from_where_it_begins_to_where_it_ends():
    for rows, seconds, rates in (
        ([], [], []),
        ([100], [2.0], [50.0]),
        ([100, 300], [2.0, 4.0], [50.0, 100.0]),
    ):
        part = SINGLE_PANELS["rate"]()
        part.show(run_of(rows, seconds))
        data = part.source.data
        edges = [0.0, *seconds]
        assert list(data["seconds"]) == [x for pair in pairwise(edges) for x in pair]
        assert list(data["rate"]) == [rate for rate in rates for _ in range(2)]
        assert list(data["bytes"]) == [40 * rate for rate in data["rate"]]


@pytest.mark.slow
def test_the_page_in_a_browser(made, client, browser):
    """It opens halfway with all that was, moves on, and ends at the report's values."""
    _, before = fit(made, client, replace(BATCHES, max_iter=2))
    halfway = []

    class Opens(Listener):
        def __call__(self, event):
            super().__call__(event)
            if isinstance(event, Stepped):
                time.sleep(0.25)  # so that the step before is sent with this one
            if isinstance(event, Stepped) and event.n_iter == 3:
                browser.get(self.page)
                wait_for(lambda: len(shown(browser, "steps_data", "data.loss") or ()) >= 2)
                halfway.append(shown(browser, "steps_data", "data.loss"))
                halfway.append(text_in(browser, "h1 b"))

    opens = Opens()
    _, report = train(LOGISTIC, made, BATCHES, client=client, callbacks=[opens])
    assert halfway[0] == list(report.loss_history[: len(halfway[0])])
    assert len(halfway[0]) < len(report.loss_history)
    assert halfway[1] == "running"
    wait_for(lambda: text_in(browser, "h1 b") == "finished")
    assert shown(browser, "steps_data", "data.loss") == list(report.loss_history)
    assert shown(browser, "steps_data", "data.updates")[-1] == report.updates
    assert shown(browser, "profile_data", "data.seconds") == list(report.profile.values())
    figures = text_in(browser, "section").split("\n")
    for name, figure in (
        ("loss", f"{report.loss:.6g}"),
        ("updates", f"{report.updates:,}"),
        ("pass", f"{report.passes:.4g}"),
        ("rows per update", "256"),
    ):
        assert figures[figures.index(name) + 1] == figure
    # An earlier run can be chosen.
    script = "const m = Bokeh.documents[0].get_model_by_name('training_choice');"
    browser.execute_script(script + "m.value = m.options.at(-1)[0];")
    wait_for(lambda: shown(browser, "steps_data", "data.loss") == list(before.loss_history))
    links = browser.find_elements("css selector", ".navbar a")
    assert [link.text for link in links].count("Training") == 1
    assert complaints(browser) == []


def press(browser, root, label):
    """Click a button of a widget of the page, as a user does."""
    browser.execute_script(
        "const all = (node) => [...node.querySelectorAll('*')].flatMap("
        "e => e.shadowRoot ? [e, ...all(e.shadowRoot)] : [e]);"
        "const [model, label] = arguments;"
        "const view = Bokeh.index.find_one_by_id(Bokeh.documents[0].get_model_by_name(model).id);"
        "all(view.shadow_el).find(e => e.childElementCount == 0 && e.textContent.trim() == label)"
        ".click();",
        f"training_{root}",
        label,
    )


@pytest.mark.slow
def test_each_control_of_the_page_in_a_browser(made, cluster, client, browser, tmp_path):
    """Axis, scale, runs compared and shown, tabs, folded texts and theme do as they are asked."""
    shutil.copytree(made, tmp_path / "other.zarr")
    _, apart = fit(tmp_path / "other.zarr", client, replace(BATCHES, max_iter=2))
    for size in (256, 1000):
        link, _ = fit(made, client, replace(BATCHES, batch_size=size))
    other, first, second = plugin_of(cluster).runs
    browser.get(link)
    wait_for(lambda: painted(browser, 10))
    wait_for(lambda: shown(browser, "compared", "value") == [first])
    # Runs on other data are not in the plot.
    assert len(shown(browser, "lines_data", "data.loss")) == 2

    press(browser, "over", "seconds")
    wait_for(lambda: shown(browser, "loss", "below[0].axis_label") == "seconds")
    assert shown(browser, "loss", "renderers[0].glyph.xs.field") == "seconds"
    drawn = "return Bokeh.index.find_one_by_id(Bokeh.documents[0].get_model_by_name("
    drawn += "'training_loss').id).frame.y_scale.type"
    press(browser, "scale", "log")
    wait_for(lambda: shown(browser, "loss", "y_scale.type") == "LogScale")
    wait_for(lambda: browser.execute_script(drawn) == "LogScale")
    press(browser, "scale", "linear")
    wait_for(lambda: shown(browser, "loss", "y_scale.type") == "LinearScale")

    script = "Bokeh.documents[0].get_model_by_name('training_compared').value = [];"
    browser.execute_script(script)
    wait_for(lambda: len(shown(browser, "lines_data", "data.loss")) == 1)
    script = "Bokeh.documents[0].get_model_by_name('training_choice').value = arguments[0];"
    browser.execute_script(script, other)
    wait_for(lambda: shown(browser, "steps_data", "data.loss") == list(apart.loss_history))
    assert not shown(browser, "compared", "visible")
    table = shown(browser, "runs", "text")
    assert table.count('class="apart"') == 2
    assert "<th>batch_size</th>" in table
    assert "<th>max_iter</th>" in table
    browser.execute_script(script, second)
    wait_for(lambda: shown(browser, "compared", "visible"))

    press(browser, "memory_tabs", "By process: now (dark), at most (light)")
    wait_for(lambda: shown(browser, "memory_tabs", "active") == 1)
    press(browser, "steps_tabs", "Gradient norm")
    wait_for(lambda: shown(browser, "steps_tabs", "active") == 1)
    press(browser, "steps_tabs", "Learning rate")
    wait_for(lambda: shown(browser, "steps_tabs", "active") == 2)
    for name in ("plan", "settings"):
        assert text_in(browser, "details").count("\n") <= 3
        browser.execute_script(
            "const view = Bokeh.index.find_one_by_id(Bokeh.documents[0].get_model_by_name("
            "arguments[0]).id); view.shadow_el.querySelector('summary').click();",
            f"training_{name}",
        )
        wait_for(lambda: text_in(browser, "details[open] table"))
        browser.execute_script(
            "const view = Bokeh.index.find_one_by_id(Bokeh.documents[0].get_model_by_name("
            "arguments[0]).id); view.shadow_el.querySelector('summary').click();",
            f"training_{name}",
        )
    ground = "return getComputedStyle(document.body).backgroundColor"
    seen = []
    for _ in range(2):
        browser.find_element("id", "theme").click()
        wait_for(lambda: browser.execute_script(ground) not in seen)
        seen.append(browser.execute_script(ground))
        ink = shown(browser, "loss", "below[0].axis_label_text_color")
        assert ink.startswith("#")
    reset = "const view = Bokeh.index.find_one_by_id(Bokeh.documents[0].get_model_by_name("
    reset += "'training_loss').id); view.model.x_range.setv({start: 1, end: 2}); view.reset();"
    reset += "return view.model.x_range.end;"
    assert browser.execute_script(reset) != 2
    assert complaints(browser) == []


@pytest.mark.slow
def test_prometheus_finds_the_runs_at_the_schedulers_metrics(made, shared_client):
    parser = pytest.importorskip("prometheus_client.parser")
    link, report = fit(made, shared_client, replace(BATCHES, max_iter=2))
    _, second = fit(made, shared_client)
    families = parser.text_string_to_metric_families(get(link, "metrics"))
    told = [sample for family in families for sample in family.samples]
    # A scheduler of another test, in this process, may tell of its own runs too.
    losses = [sample for sample in told if sample.name == "ooc_train_loss"]
    assert {sample.value for sample in losses} >= {report.loss, second.loss}
    *_, run = [sample.labels for sample in losses if sample.value == report.loss]
    assert run | {"model": "logistic", "solver": "sgd", "batch_size": "256"} == run

    def of_first(name, **labels):
        due = run | labels
        return [
            s.value
            for s in told
            if s.name == f"ooc_train_{name}" and due.items() <= s.labels.items()
        ]

    assert of_first("loss") == [report.loss]
    assert of_first("updates_total") == [report.updates]
    assert of_first("rows_total") == [report.passes * report.n_rows]
    assert of_first("running") == [0]
    for activity in report.profile:
        assert of_first("seconds_total", activity=activity) == [report.profile[activity]]
    assert of_first("memory_bytes", figure="ceiling") == [report.memory.ceiling]
    assert of_first("memory_bytes", figure="projected") == [report.memory.projected]
    assert sum(of_first("memory_bytes", figure="peak")) == report.memory.measured
