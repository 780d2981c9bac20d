"""Metrics within passes, of a sample of rows, and losses within updates on arrays in memory."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, r2_score, roc_auc_score

from ooc_train import (
    DifferentiallyPrivate,
    LogisticModel,
    Progressed,
    RidgeModel,
    Training,
    plan,
    train,
)
from ooc_train.core.sums import Block
from ooc_train.runs.report import Report
from ooc_train.stream import tasks
from ooc_train.stream.array_source import ArraySource
from ooc_train.stream.inputs import read_inputs
from ooc_train.training import sample_metrics, within_pass
from ooc_train.training.sample_metrics import SampleMetrics
from ooc_train.training.task import Task
from tests.kept_runs import MLP, cut_small, require_same
from tests.streams import write_store

CHUNK = 40


@pytest.fixture(scope="module")
def made():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 6))
    return X, (X @ np.arange(6.0) + 4.0 * rng.normal(size=len(X)) > 1.0).astype(float)


@pytest.fixture
def often(monkeypatch):
    """Points after each task, tasks of a chunk, and samples of a few rows."""
    cut_small(monkeypatch)
    monkeypatch.setattr(ArraySource, "partition_rows", CHUNK)
    monkeypatch.setattr(sample_metrics, "_LEAST_ROWS", 2 * CHUNK)
    monkeypatch.setattr(sample_metrics, "_SHARE", 50)
    for name in ("_SECONDS", "_LEAST_SECONDS", "_REST", "_SAMPLE_SECONDS"):
        monkeypatch.setattr(within_pass, name, 0.0)


@pytest.fixture
def samples(monkeypatch):
    """What each evaluation of a sample is of, and what it gives."""
    found = []
    evaluated = SampleMetrics._evaluated

    def spy(self, problem, params, block):
        known = evaluated(self, problem, params, block)
        found.append((problem.predictor(params), block, known))
        return known

    monkeypatch.setattr(SampleMetrics, "_evaluated", spy)
    return found


PRIVATE = Training(
    solver=DifferentiallyPrivate(1.0, 0.7), batch_size=10, learning_rate=0.1, max_iter=1
)
EPOCH = {"max_iter": 2, "tol": 0.0, "shuffle_chunks": 1}
RUNS: dict[str, tuple[Any, dict[str, Any]]] = {
    "newton": (LogisticModel(), {"solver": "newton"}),
    "batches": (LogisticModel(), {"batch_size": 32} | EPOCH),
    "replicas": (
        LogisticModel(),
        {"batch_size": 8, "max_iter": 3, "shuffle_chunks": 1, "replicas": 2},
    ),
    "network": (MLP, {"batch_size": 32} | EPOCH),
    "ridge": (RidgeModel(), {}),
}


class Events(list[Any]):
    """Keeps all events."""

    def __call__(self, event):
        self.append(event)


@pytest.mark.slow
@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("name", RUNS)
def test_metrics_are_those_of_the_sample_and_change_no_bit(name, made, samples, monkeypatch):
    (X, y), (model, settings) = made, RUNS[name]
    events: Any = Events()
    training = Training(random_state=0, **settings)
    watched = train(model, X, training, y=y, callbacks=[events])
    points = watched[1].within
    told = [each.metrics for each in events if isinstance(each, Progressed) and each.loss]
    assert [point.metrics for point in points] == told
    names = {"accuracy", "roc_auc"} if model.is_classifier else {"r2"}
    assert sum(set(point.metrics) == names for point in points) > len(points) // 2
    assert samples
    # Two of 100 chunks, all of whose rows are taken.
    expected = np.concatenate([X[start : start + CHUNK] for start in (1000, 3000)])
    for predictor, block, known in samples[::20]:
        np.testing.assert_array_equal(block.X, expected)
        z = predictor.decision(block.X)[:, 0]
        if model.is_classifier:
            assert known["accuracy"] == pytest.approx(accuracy_score(block.y, z > 0))
            assert known["roc_auc"] == pytest.approx(roc_auc_score(block.y, z), abs=0.01)
        else:
            assert known["r2"] == pytest.approx(r2_score(block.y[:, 0], z))
    last = points[-1].metrics
    assert last == samples[-1][2]
    assert min(last.values()) > {"network": 0.0, "ridge": 0.2}.get(name, 0.7)
    assert Report.from_json(watched[1].to_json()).within == points
    monkeypatch.setattr(SampleMetrics, "_sample_partitions", lambda _: ())
    plain = train(model, X, training, y=y)
    require_same(watched, plain)
    assert not any(point.metrics for point in plain[1].within)
    assert watched[1].passes == plain[1].passes  # the rows of the sample do not count


@pytest.mark.usefixtures("often")
def test_the_sample_of_a_share_of_a_store_is_rows_of_it(made, samples, tmp_path, monkeypatch):
    X, y = made
    monkeypatch.setattr(sample_metrics, "_SHARE", 20)
    store = write_store(tmp_path / "made.zarr", X, y, chunk_rows=CHUNK, shuffled=0)
    training = Training(solver="lbfgs", max_iter=3, random_state=0, validation_fraction=0.3)
    _, report = train(LogisticModel(), store, training)
    assert any(point.metrics for point in report.within)
    numbers = {row.tobytes(): i for i, row in enumerate(X)}
    _, block, _ = samples[0]
    found = [numbers[row.tobytes()] for row in block.X]
    assert len(found) == 3 * CHUNK
    assert found == sorted(found)


def test_the_plan_holds_the_sample(made, tmp_path, monkeypatch):
    store = write_store(tmp_path / "made.zarr", *made, chunk_rows=CHUNK)
    monkeypatch.setattr(sample_metrics, "_LEAST_ROWS", 2 * CHUNK)
    monkeypatch.setattr(sample_metrics, "_SHARE", 50)
    terms = {term.name: term for term in plan(LogisticModel(), store).projection.terms}
    assert terms["sample"].bytes >= 2 * CHUNK * 6 * 8
    few = (made[0][:99], made[1][:99])
    joined = plan(LogisticModel(), store, validation=read_inputs(*few, classifier=True))
    assert {term.name: term for term in joined.projection.terms}["sample"] == terms["sample"]
    terms = {term.name: term for term in plan(LogisticModel(), store, PRIVATE).projection.terms}
    assert "sample" not in terms


@pytest.mark.parametrize(
    ("rows", "features", "why"),
    [(99 * CHUNK, 6, "few chunks"), (100 * CHUNK, 6, "few rows in one"), (20_000, 40, "wide")],
)
def test_small_or_wide_data_have_no_sample(rows, features, why, monkeypatch):
    monkeypatch.setattr(ArraySource, "partition_rows", CHUNK)
    monkeypatch.setattr(sample_metrics, "_BYTES", 2**13 if why == "wide" else 2**22)
    X = np.ones((rows, features))
    task = Task.of(RidgeModel(), read_inputs(X, X[:, 0], classifier=False))
    assert SampleMetrics(task.model, task.problem, task.inputs).nbytes == 0
    assert task.requirements().sample == 0


@pytest.mark.parametrize(
    ("chunks", "shuffled", "rows"), [(99, 0, CHUNK), (10, 0, CHUNK), (9, 0, 0), (99, None, 0)]
)
def test_one_chunk_is_the_sample_of_a_small_shuffled_store(
    chunks, shuffled, rows, made, tmp_path, monkeypatch
):
    monkeypatch.setattr(sample_metrics, "_LEAST_ROWS", CHUNK)
    X, y = (each[: chunks * CHUNK] for each in made)
    store = write_store(tmp_path / "made.zarr", X, y, chunk_rows=CHUNK, shuffled=shuffled)
    task = Task.of(LogisticModel(), read_inputs(store, classifier=True))
    metrics = SampleMetrics(task.model, task.problem, task.inputs)
    taken = [task.inputs.source.first_row(each) for each in metrics._partitions]
    assert taken == [CHUNK * (chunks // 2)] * bool(rows)
    assert bool(task.requirements().sample) == bool(rows)


def test_a_sample_that_cannot_be_evaluated_ends_no_run(made, monkeypatch):
    monkeypatch.setattr(ArraySource, "partition_rows", CHUNK)
    monkeypatch.setattr(sample_metrics, "_LEAST_ROWS", 2 * CHUNK)
    task = Task.of(LogisticModel(), read_inputs(*made, classifier=True))
    metrics = SampleMetrics(task.model, task.problem, task.inputs)
    assert metrics.values(task.problem, task.problem.initial()) == {}
    metrics._block = replace(_block(made), X=np.full((4, 6), np.nan))
    assert metrics.values(task.problem, task.problem.initial()) == {}
    metrics._block = _block(made)
    assert set(metrics.values(task.problem, task.problem.initial())) == {"accuracy", "roc_auc"}


def _block(made):
    return Block(made[0][:4], made[1][:4, None], None)


def _in_pieces(monkeypatch, rows):
    monkeypatch.setattr(tasks, "_FIRST_PIECE_ROWS", rows)
    monkeypatch.setattr(tasks, "_PIECE_SECONDS", 0.0)
    for name in ("_SECONDS", "_LEAST_SECONDS", "_REST"):
        monkeypatch.setattr(within_pass, name, 0.0)


BALANCED = LogisticModel(class_weight="balanced")
IN_MEMORY = {
    "rows": (BALANCED, 1),
    "batches of 3": (LogisticModel(), 3),
    "batches of 4": (LogisticModel(), 4),
    "batches of 50": (BALANCED, 50),
    "network": (replace(MLP, class_weight="balanced"), 50),
    "dropout": (replace(MLP, dropout=0.3), 50),
    "l1": (LogisticModel(C=0.1, l1_ratio=1.0), 7),
}


@pytest.mark.parametrize("name", IN_MEMORY)
def test_updates_on_arrays_in_memory_tell_losses_within_an_epoch(name, made, monkeypatch):
    (X, y), (model, batch_size) = made, IN_MEMORY[name]
    training = Training(batch_size=batch_size, max_iter=2, tol=0.0, random_state=0)
    plain = train(model, X, training, y=y)
    assert plain[1].within == ()
    _in_pieces(monkeypatch, 1)
    events: Any = Events()
    watched = train(model, X, training, y=y, callbacks=[events])
    require_same(watched, plain)
    points = watched[1].within
    assert len(points) >= 2 * (4000 // np.lcm(batch_size, 12)) - 2
    epoch = [point for point in points if point.passes < points[0].passes + 0.999]
    piece = epoch[1].updates - epoch[0].updates
    assert {b.updates - a.updates for a, b in pairwise(epoch)} == {piece}
    rows = [event.rows for event in events if isinstance(event, Progressed)]
    assert rows == sorted(rows)
    assert rows[-1] == round(watched[1].passes * len(X))


def test_the_loss_within_an_epoch_is_that_of_rows_before_their_update(made, monkeypatch):
    X, y = made
    _in_pieces(monkeypatch, 1200)
    training = Training(batch_size=1200, max_iter=1, learning_rate=1e-300, solver="sgd")
    _, report = train(LogisticModel(), X, training, y=y)
    assert [point.updates for point in report.within] == [1, 2]
    for point in report.within:
        assert point.loss == pytest.approx(np.log(2.0))


def test_private_updates_are_cut_nowhere(made, monkeypatch):
    _in_pieces(monkeypatch, 1)
    _, report = train(LogisticModel(), made[0], PRIVATE, y=made[1])
    assert report.within == ()
