"""Losses within passes: right for the rows so far, on every route, and without a changed bit."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ooc_train import LogisticModel, RidgeModel, Training, train
from ooc_train.models.regression_models import LassoModel
from ooc_train.runs.events import Progressed
from ooc_train.runs.report import Report
from ooc_train.stream.array_source import ArraySource
from ooc_train.stream.executors import LocalExecutor
from ooc_train.stream.inputs import read_inputs
from ooc_train.stream.partial_pass import PartialPass
from ooc_train.training import within_pass
from ooc_train.training.sample_metrics import SampleMetrics
from ooc_train.training.task import Task
from ooc_train.training.within_pass import WithinPass
from tests.kept_runs import RUNS, cut_small, require_same
from tests.streams import Shuffled

CHUNK = 20


@pytest.fixture(scope="module")
def made():
    X = np.random.default_rng(0).normal(size=(2000, 6))
    return X, (X @ np.arange(6.0) + X[:, 0] ** 2 > 1.0).astype(float)


@pytest.fixture
def often(monkeypatch):
    """A loss after each task, and tasks of a chunk."""
    cut_small(monkeypatch)
    monkeypatch.setattr(ArraySource, "partition_rows", CHUNK)
    for name in ("_SECONDS", "_LEAST_SECONDS", "_REST"):
        monkeypatch.setattr(within_pass, name, 0.0)


@pytest.fixture
def parts(monkeypatch):
    """What is done of a pass at each loss, with the loss; tasks run one after another."""

    def run(_self, function, calls, _window, name, shared=(), _results=1):
        return Shuffled(0).run(function, calls, 1, name, shared)

    monkeypatch.setattr(LocalExecutor, "run", run)
    found = []
    loss_of = WithinPass._loss

    def spy(self, part):
        found.append((part, loss_of(self, part)))
        return found[-1][1]

    monkeypatch.setattr(WithinPass, "_loss", spy)
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("name", ["newton", "smoothing", "sizes", "replicas", "rows", "network"])
def test_losses_within_passes_change_no_bit(name, made, monkeypatch):
    model, settings = RUNS[name]
    if "batch_size" in settings:
        settings = settings | {"shuffle_chunks": 1}
    training, events = Training(random_state=0, **settings), Losses()
    watched = train(model, made[0], training, y=made[1], callbacks=[events])
    with monkeypatch.context() as patch:
        patch.setattr(WithinPass, "look", lambda *_: None)
        plain = train(model, made[0], training, y=made[1])
    require_same(watched, plain)
    assert plain[1].within == ()
    points = watched[1].within
    assert [point.loss for point in points] == events.losses
    assert len(points) >= 5
    assert all(0 < point.passes <= watched[1].passes and point.loss > 0 for point in points)
    assert Report.from_json(watched[1].to_json()).within == points


@pytest.mark.usefixtures("often")
def test_of_a_full_batch_it_is_the_mean_loss_of_the_rows_so_far(made, parts):
    start, _ = train(LogisticModel(C=0.01), made[0], y=made[1])
    parts.clear()
    training = Training(solver="lbfgs", max_iter=1)
    train(LogisticModel(), made[0], training, y=made[1], start=start)
    positions = [part.position for part, _ in parts]
    first = next(i for i, n in enumerate(positions) if n > min(positions[i + 1 :], default=0))
    found = [(part.position, loss[0]) for part, loss in parts[: first + 1] if loss]
    assert len(found) > 1
    for position, loss in found:
        X, y = (each[: position * CHUNK] for each in made)
        z = X @ start.coef[0] + start.intercept[0]
        assert loss == pytest.approx(np.logaddexp(0, np.where(y, -z, z)).mean(), rel=1e-9)


@pytest.mark.usefixtures("often")
def test_of_least_squares_it_is_that_of_the_model_of_the_rows_so_far(made, parts):
    train(RidgeModel(alpha=1e-9), made[0], y=made[1])
    solved = [(part.position * CHUNK, loss[0]) for part, loss in parts if loss]
    assert len(solved) > 1
    for count, loss in solved:
        X, y = (each[:count] for each in made)
        columns = np.column_stack([X, np.ones(count)])
        left = y - columns @ np.linalg.lstsq(columns, y, rcond=None)[0]
        assert loss == pytest.approx(0.5 * float(left @ left) / count, rel=1e-4)
    _, report = train(LassoModel(alpha=0.01), made[0], y=made[1])
    assert len(report.within) > 1


class Losses:
    """Keeps the losses within passes that a callback gets."""

    def __init__(self):
        self.losses = []

    def __call__(self, event):
        if isinstance(event, Progressed) and event.loss is not None:
            self.losses.append(event.loss)


class OfSize(SimpleNamespace):
    """Stands for the rows of a stream."""

    n_features, dtype = 1000, "<f4"


def watching(n_rows):
    """The losses within the passes of updates, whose solver is not asked."""
    rows, y = np.zeros((max(n_rows, 2), 1)), np.arange(max(n_rows, 2.0)) % 2
    task: Any = Task.of(
        LogisticModel(), read_inputs(rows, y, classifier=True), Training(batch_size=1)
    )
    stream: Any = SimpleNamespace(source=OfSize(n_rows=n_rows))
    watch: Any = WithinPass(task, stream)
    watch.begin(None, None)
    return watch


def test_of_updates_it_is_that_of_the_rows_since_the_last_one():
    watch = watching(1)

    def seen(*sums):
        states = tuple({"sums": np.array(each), "counters": np.array([0, 3, 9])} for each in sums)
        return watch._loss(PartialPass(1, 10, states=states))

    assert seen([8.0, 4.0], [2.0, 1.0]) == (2.0, 6)
    assert seen([9.0, 6.0], [3.0, 3.0]) == (0.5, 6)
    assert seen([9.0, 6.0], [3.0, 3.0]) is None  # rows without weight
    watch.begin(None, None)
    assert seen([4.0, 4.0]) == (1.0, 3)


def test_tasks_behind_a_gap_count_too():
    watch = watching(1)
    watch.begin(None, SimpleNamespace(progressive_loss=None, updates=2))
    sums = {"loss": np.array([6.0, 9.0]), "weight": np.array(3.0)}
    assert watch._loss(PartialPass(0, 0, added={(0, 3): sums})) == (2.0, 2)
    assert watch._loss(PartialPass(0, 0)) is None


def test_a_loss_is_due_after_a_second_or_a_share_of_a_pass(monkeypatch):
    now = [10.0]
    monkeypatch.setattr(within_pass, "perf_counter", lambda: now[0])
    watch = watching(1000)
    state = {"sums": np.zeros(2), "counters": np.zeros(3, int)}

    def progress():
        state["sums"] = state["sums"] + 1.0
        return PartialPass(1, 10, states=(state,))

    found = []
    times = (0.05, 900), (0.3, 1), (0.35, 100), (0.6, 15), (0.7, 22), (1.75, 23), (1.9, 900)
    for seconds, rows in times:
        now[0] = 10.0 + seconds
        found.append(watch.look(progress, rows, seconds))
    assert [point and point.seconds for point in found] == [None, 0.3, None, None, 0.7, 1.75, None]


def test_losses_that_take_long_are_rare(monkeypatch):
    now, took, spent = [10.0], 0.01, 0.0
    monkeypatch.setattr(within_pass, "perf_counter", lambda: now[0])
    watch = watching(1000)

    def progress():
        nonlocal spent
        now[0] += took
        spent += took
        return PartialPass(1, 10, states=({"sums": np.ones(2), "counters": np.zeros(3, int)},))

    while now[0] < 60.0:  # rows of 5 passes a second
        now[0] += 0.01
        watch.look(progress, int(5000 * now[0]), now[0])
    assert 20 * took < spent < 0.006 * 50.0


@pytest.mark.parametrize(
    ("n_rows", "seconds", "is_read"), [(10**6, 4, False), (10**6, 6, True), (2 * 10**6, 0, True)]
)
def test_the_sample_of_a_short_run_is_not_read(n_rows, seconds, is_read, monkeypatch):
    now, reads = [10.0], []
    monkeypatch.setattr(within_pass, "perf_counter", lambda: now[0])
    monkeypatch.setattr(SampleMetrics, "read", lambda _, stream: reads.append(stream))
    rows, y = np.zeros((2, 1)), np.arange(2.0)
    task = Task.of(LogisticModel(), read_inputs(rows, y, classifier=True))
    stream: Any = SimpleNamespace(source=OfSize(n_rows=n_rows))
    watch = WithinPass(task, stream)
    now[0] += seconds
    state: Any = None
    watch.begin(None, state)
    assert bool(reads) == is_read
