"""Checkpoints: a run that goes on takes the steps of one that was never ended, to the same bits."""

import json
import os
import shutil
import threading
import tracemalloc
from concurrent.futures import wait
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits

from ooc_train import (
    Checkpoint,
    CustomModel,
    ElasticNetModel,
    HuberRegressor,
    LocalCluster,
    LogisticModel,
    LogisticRegression,
    OutputExists,
    QuantileModel,
    RidgeModel,
    SGDClassifier,
    Stop,
    TorchModule,
    Training,
    make_data,
    train,
)
from ooc_train.errors import InvalidRun
from ooc_train.objective.losses.huber import Huber
from ooc_train.runs.events import Noted, Progressed, Stepped
from ooc_train.runs.run_loading import load_fitted
from ooc_train.solvers.early_stopping import EarlyStopping
from ooc_train.stream.inputs import read_inputs
from ooc_train.stream.partial_pass import PartialPass
from ooc_train.training import checkpoint_files, checkpoint_writing, checkpoints, run_identity
from tests.kept_runs import BATCHES, MLP, RUNS, cut_small, require_same

ROOT = Path(__file__).parent.parent
DIGITS, CLASSES = load_digits(return_X_y=True)
DIGITS, CLASSES = DIGITS[:600] / 16, CLASSES[:600]
DIABETES, TARGET = load_diabetes(return_X_y=True)

NO_STEPS = {"steps": [], "every": 0, "count": 1}


def rows_after_going_on(read):
    """A callback that notes the rows of a run after it went on from a checkpoint."""

    def callback(event):
        if isinstance(event, Noted) and event.text.startswith("went on"):
            read.clear()  # those that scale columns are read again
        if isinstance(event, Progressed):
            read.append(event.rows)

    return callback


class Killed(BaseException):
    """Ends a fit as a kill does: nothing after it is run."""


def killed_after(monkeypatch, writes):
    """End the process, as it were, after so many checkpoints."""
    write = checkpoints.CheckpointFolder.write
    count = [0]

    def and_end(*given):
        write(*given)
        count[0] += 1
        if count[0] == writes:
            raise Killed

    monkeypatch.setattr(checkpoints.CheckpointFolder, "write", and_end)


def ended_at(n_iter):
    """A callback that ends a run after so many iterations."""

    def callback(event):
        if isinstance(event, Stepped) and event.n_iter >= n_iter:
            raise Stop("enough")

    return callback


@pytest.mark.filterwarnings("ignore:.*not converged")
@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("at", [1, 3])
def test_a_run_goes_on_to_the_same_bits(tmp_path, name, at):
    model, settings = RUNS[name]
    training, rows = Training(**settings | {"random_state": 5}), {"y": CLASSES}
    due = train(model, DIGITS, training, **rows)
    place = tmp_path / "a.checkpoint"
    _, report = train(model, DIGITS, training, callbacks=[ended_at(at)], checkpoint=place, **rows)
    assert report.n_iter <= max(at, due[1].n_iter)
    found = train(model, DIGITS, training, checkpoint=Checkpoint(place, resume=True), **rows)
    require_same(found, due)
    # What has ended stays as it is.
    again = train(model, DIGITS, training, checkpoint=Checkpoint(place, resume=True), **rows)
    require_same(again, due)


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        (RidgeModel(), {}),
        (ElasticNetModel(alpha=0.1), {}),
        (QuantileModel(alpha=0.01), {"max_iter": 30}),
        (CustomModel(loss=Huber(2.0)), {}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_models_of_numbers_go_on(tmp_path, model, settings):
    training, place = Training(**settings), tmp_path / "a.checkpoint"
    due = train(model, DIABETES, training, y=TARGET)
    train(model, DIABETES, training, y=TARGET, callbacks=[ended_at(1)], checkpoint=place)
    resumed = Checkpoint(place, resume=True)
    require_same(train(model, DIABETES, training, y=TARGET, checkpoint=resumed), due)


@pytest.mark.filterwarnings("ignore:.*not converged")
def test_a_module_of_pytorch_goes_on_with_its_optimizer_and_scheduler(tmp_path):
    torch = pytest.importorskip("torch")

    def network():
        layers = torch.nn.Linear(64, 16), torch.nn.Dropout(0.2), torch.nn.Linear(16, 10)
        return torch.nn.Sequential(*layers)

    schedule: dict[str, Any] = {"scheduler": "StepLR", "scheduler_parameters": {"step_size": 2}}
    model = TorchModule(network, classifier=True, optimizer="AdamW", **schedule)
    training, place = Training(random_state=1, **BATCHES), tmp_path / "a.checkpoint"
    X = DIGITS.astype("f4")
    due = train(model, X, training, y=CLASSES)
    train(model, X, training, y=CLASSES, callbacks=[ended_at(3)], checkpoint=place)
    resumed = Checkpoint(place, resume=True)
    require_same(train(model, X, training, y=CLASSES, checkpoint=resumed), due)


@pytest.mark.parametrize("metric", [None, "accuracy"])
@pytest.mark.parametrize("at", [2, 4, 9])
def test_early_stopping_goes_on_with_its_patience_and_the_best(tmp_path, metric, at):
    rule = EarlyStopping(patience=3, metric=metric)
    training = Training(
        solver="sgd",
        batch_size=4,
        learning_rate=0.5,
        early_stopping=rule,
        validation_fraction=0.3,
        max_iter=40,
        tol=0.0,
    )
    place, X, y = tmp_path / "a.checkpoint", DIGITS[:, ::2], CLASSES
    _, report = train(LogisticModel(), X, training, y=y, callbacks=[ended_at(at)], checkpoint=place)
    # The seed was drawn: whoever goes on has the rows of then, without naming it.
    due = train(LogisticModel(), X, replace(training, random_state=report.random_state), y=y)
    assert due[1].best is not None
    resumed = Checkpoint(place, resume=True)
    found = train(LogisticModel(), X, training, y=y, checkpoint=resumed)
    require_same(found, due)
    assert found[1].best is not None
    assert found[1].best.n_iter == due[1].best.n_iter


def test_times_and_passes_decide_how_often_it_is_written(tmp_path, monkeypatch):
    written, write = [], checkpoints.CheckpointFolder.write

    def noted(folder, task, snapshot):
        written.append(snapshot.state.n_iter)
        write(folder, task, snapshot)

    monkeypatch.setattr(checkpoints.CheckpointFolder, "write", noted)
    training = Training(solver="sgd", batch_size=32, max_iter=4, tol=0.0)
    for every, due in (
        (0, [1, 2, 3, 4, 4]),
        ("1h", [4]),
        ("1 pass", [1, 2, 3, 4, 4]),
        # Two passes lie before the first epoch: for the learning rate, and for the loss.
        ("2 passes", [1, 3, 4]),
        ("3passes", [1, 4, 4]),
    ):
        place = Checkpoint(tmp_path / str(every), every=every)
        train(LogisticModel(), DIGITS, training, y=CLASSES, checkpoint=place)
        assert written == due, every
        written.clear()
    # A run that goes on counts from its checkpoint.
    place = Checkpoint(tmp_path / "3passes", every="2 passes", resume=True)
    longer = replace(training, max_iter=7, random_state=None)
    train(LogisticModel(), DIGITS, longer, y=CLASSES, checkpoint=place)
    assert written == [6, 7]
    for every in ("soon", "0 passes", "-1 passes"):
        with pytest.raises(ValueError, match=every):
            Checkpoint("a", every=every)


@pytest.mark.filterwarnings("ignore:.*not converged", "ignore:sgd")
@pytest.mark.parametrize(
    ("estimator", "y"),
    [
        (SGDClassifier(random_state=3, max_iter=5, tol=0.0), CLASSES),
        (SGDClassifier(max_iter=5, tol=0.0), CLASSES),
        (LogisticRegression(), CLASSES),
        (HuberRegressor(), CLASSES * 1.0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_estimator_goes_on(tmp_path, monkeypatch, estimator, y):
    place, other = tmp_path / "a.checkpoint", clone(estimator)
    killed_after(monkeypatch, 2)
    with pytest.raises(Killed):
        clone(estimator).fit(DIGITS, y, checkpoint=Checkpoint(place, 0))
    estimator.fit(DIGITS, y, checkpoint=Checkpoint(place, 0, resume=True))
    assert any("went on from a checkpoint of" in note for note in estimator.report_.notes)
    other.set_params(random_state=estimator.report_.random_state).fit(DIGITS, y)
    assert_array_equal(estimator.coef_, other.coef_)
    with pytest.raises(OutputExists):
        estimator.fit(DIGITS, y, checkpoint=place)


@pytest.mark.parametrize("role", ["y", "sample_weight"])
def test_y_and_weights_apart_from_a_store_are_compared(tmp_path, role):
    make_data(tmp_path / "a.zarr", rows=2_000, features=4)
    training = Training(solver="lbfgs", max_iter=1)
    values = np.arange(2_000) % 2
    apart: dict[str, Any] = {role: values}
    place, data = tmp_path / "a.checkpoint", str(tmp_path / "a.zarr")
    train(LogisticModel(), data, training, checkpoint=place, **apart)
    resumed = Checkpoint(place, resume=True)
    with pytest.raises(InvalidRun, match="targets of the data"):
        train(LogisticModel(), data, training, checkpoint=resumed, **apart | {role: 1 - values})
    found = train(LogisticModel(), data, training, checkpoint=resumed, **apart)
    assert found[1].n_iter == 1


@pytest.mark.parametrize(("dtype", "features"), [("f4", 3), ("f8", 40_000), ("u1", 3)])
def test_rows_of_another_writers_store_are_compared(tmp_path, dtype, features):
    """It has no id: another X under the same y was gone on with."""
    rng = np.random.default_rng(0)
    X = (10 * rng.random((60, features))).astype(dtype)
    training = Training(solver="lbfgs", max_iter=1)
    path, place = str(tmp_path / "a.zarr"), tmp_path / "a.checkpoint"

    def write(values: Any) -> None:
        group = zarr.open_group(path, mode="w")
        group.create_array("X", data=values, chunks=(7, features))
        group.create_array("y", data=np.arange(60) % 2, chunks=(60,))

    write(X)
    train(LogisticModel(), path, training, checkpoint=place)
    resumed = Checkpoint(place, resume=True)
    write(X[::-1])
    with pytest.raises(InvalidRun, match="features of the data"):
        train(LogisticModel(), path, training, checkpoint=resumed)
    write(X)
    assert train(LogisticModel(), path, training, checkpoint=resumed)[1].n_iter == 1


# Within passes


@pytest.fixture(scope="module")
def chunked(tmp_path_factory):
    """A store of many chunks, which tests read by many tasks."""
    path = tmp_path_factory.mktemp("chunked") / "a.zarr"
    make_data(path, rows=520, features=6, chunk_rows=40, random_state=0)
    return str(path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*not converged")
@pytest.mark.parametrize(
    "name",
    [
        *("newton", "lbfgs", "smoothing", "gradient descent", "adagrad", "replicas", "plateau"),
        *("sizes", "network by lbfgs", "dropout"),
    ],
)
def test_a_run_that_is_killed_within_a_pass_goes_on_there(tmp_path, monkeypatch, chunked, name):
    model, settings = RUNS[name]
    training = Training(**settings | {"random_state": 5})
    cut_small(monkeypatch)
    within: list[bool] = []
    write = checkpoints.CheckpointFolder.write

    def noting(*given):
        within.append(given[2].begun is not None)
        write(*given)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints.CheckpointFolder, "write", noting)
        due = train(model, chunked, training, checkpoint=Checkpoint(tmp_path / "due", 0))
    assert sum(within) > len(within) / 2
    rng, place = np.random.default_rng(len(name)), tmp_path / "a.checkpoint"
    resumed = Checkpoint(place, 0, resume=True)
    for _ in range(2):
        with monkeypatch.context() as patched:
            killed_after(patched, int(rng.integers(1, len(within) // 2)))
            with pytest.raises(Killed):
                train(model, chunked, training, checkpoint=resumed)
    kept = json.loads((place / max(os.listdir(place)) / "checkpoint.json").read_text())
    read: list[int] = []
    found = train(
        model, chunked, training, callbacks=[rows_after_going_on(read)], checkpoint=resumed
    )
    require_same(found, due)
    assert min(read) >= kept["progress"]["rows"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"solver": "adam"} | BATCHES, {"solver": "lbfgs"}], ids=str)
def test_a_stopped_run_goes_on_where_it_was_within_the_pass(
    tmp_path, monkeypatch, chunked, settings
):
    rule = EarlyStopping(patience=3)
    training = Training(
        **settings | {"random_state": 0, "max_iter": 7},
        early_stopping=rule,
        validation_fraction=0.3,
    )
    cut_small(monkeypatch)
    due = train(LogisticModel(), chunked, training)
    n_rows, place = due[1].n_rows, tmp_path / "a.checkpoint"
    read: list[int] = []

    def within(event):
        if isinstance(event, Progressed) and event.rows >= 3.5 * n_rows:
            raise Stop("three and a half passes")

    cut = train(LogisticModel(), chunked, training, callbacks=[within], checkpoint=place)
    assert cut[1].n_iter < due[1].n_iter
    assert "three and a half passes" in cut[1].notes
    assert "three and a half passes" in cut[1].ended
    resumed = Checkpoint(place, resume=True)
    found = train(
        LogisticModel(),
        chunked,
        training,
        callbacks=[rows_after_going_on(read)],
        checkpoint=resumed,
    )
    require_same(found, due)
    assert min(read) > 3.5 * n_rows
    assert "went on from a checkpoint of iteration" in " ".join(found[1].notes)
    assert "three and a half passes" not in found[1].notes


@pytest.mark.filterwarnings("ignore:.*not converged")
@pytest.mark.parametrize(
    ("settings", "is_within"),
    [
        ({"solver": "lbfgs", "max_iter": 3}, True),
        ({"solver": "adam", "shuffle_chunks": 2} | BATCHES, True),
        # All rows are shuffled together: it goes on from the end of an epoch.
        ({"solver": "adam"} | BATCHES, False),
    ],
    ids=str,
)
def test_a_run_on_arrays_that_is_killed_within_a_pass(tmp_path, monkeypatch, settings, is_within):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30_000, 20))
    y, training = (X[:, 0] > rng.normal(size=30_000)) * 1, Training(**settings, random_state=5)
    cut_small(monkeypatch)
    epochs, write = [], checkpoints.CheckpointFolder.write

    def noting(*given):
        begun = given[2].begun
        epochs.append(begun is not None and (settings["solver"] == "lbfgs" or bool(begun.states)))
        write(*given)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints.CheckpointFolder, "write", noting)
        due = train(LogisticModel(), X, training, y=y, checkpoint=Checkpoint(tmp_path / "due", 0))
    assert any(epochs) == is_within
    place = tmp_path / "a.checkpoint"
    resumed = Checkpoint(place, 0, resume=True)
    with monkeypatch.context() as patched:
        killed_after(patched, epochs.index(True) + 1 if is_within else 3)
        with pytest.raises(Killed):
            train(LogisticModel(), X, training, y=y, checkpoint=resumed)
    require_same(train(LogisticModel(), X, training, y=y, checkpoint=resumed), due)


def test_sums_of_every_shape_are_kept():
    rng = np.random.default_rng(0)

    def sums():
        return {"weight": np.asarray(rng.normal()), "own rate": rng.normal(size=3)}

    whole = PartialPass(5, 40, (sums(), sums()), {(2, 0): sums(), (0, 4): sums()}, (sums(),))
    found = PartialPass.from_arrays(whole.to_arrays())
    assert (found.position, found.rows) == (5, 40)
    assert list(found.nodes) == list(whole.nodes)
    for theirs, ours in (
        *zip(found.sums, whole.sums, strict=True),
        *((found.nodes[node], whole.nodes[node]) for node in whole.nodes),
        *zip(found.states, whole.states, strict=True),
    ):
        assert list(theirs) == list(ours)
        for name, array in ours.items():
            assert theirs[name].shape == array.shape
            assert_array_equal(theirs[name], array)


# Refusals


@pytest.fixture
def kept(tmp_path):
    """A checkpoint, and what it is of."""
    training = Training(solver="adam", batch_size=32, max_iter=2, tol=0.0, random_state=0)
    place = tmp_path / "a.checkpoint"
    train(LogisticModel(), DIGITS, training, y=CLASSES, checkpoint=place)
    return place, LogisticModel(), DIGITS, training, CLASSES


@pytest.mark.parametrize(
    ("what", "changes", "said"),
    [
        (1, LogisticModel(C=2.0), r"C of the model is 2.0 now, and was 1.0"),
        (1, MLP, "name of the model is 'mlp-classifier' now, and was 'logistic'"),
        (2, DIGITS + 1e-9, "contents of the data is"),
        (2, DIGITS[:, ::2], "columns of the data is 32 now, and was 64"),
        (2, DIGITS.astype("f4"), "type of the data is '<f4' now, and was '<f8'"),
        (3, {"batch_size": 16}, "batch_size of the training is 16 now, and was 32"),
        (3, {"solver": "sgd"}, "solver of the training is"),
        (3, {"random_state": 1}, "random_state of the training is 1 now, and was 0"),
        (4, CLASSES[::-1], "contents of the data is"),
    ],
)
def test_another_run_is_refused_with_the_difference(kept, what, changes, said):
    given: Any = list(kept)
    given[what] = replace(kept[3], **changes) if isinstance(changes, dict) else changes
    place, model, X, training, y = given
    with pytest.raises(InvalidRun, match=said):
        train(model, X, training, y=y, checkpoint=Checkpoint(place, resume=True))


def test_rows_of_many_columns_are_compared_without_copies_of_many():
    X = np.ones((100, 100_000), "f4")
    inputs = read_inputs(X, np.arange(100.0), classifier=False)
    tracemalloc.start()
    run_identity._data(inputs)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 2**20


def test_limits_may_be_others_unless_rates_follow_from_them(tmp_path, kept):
    place, model, X, training, y = kept
    longer = replace(training, max_iter=5)
    due = train(model, X, longer, y=y)
    resumed = Checkpoint(place, resume=True)
    require_same(train(model, X, longer, y=y, checkpoint=resumed), due)
    cosine = replace(training, learning_rate="cosine:0.01")
    other = tmp_path / "cosine"
    train(model, X, cosine, y=y, checkpoint=other)
    with pytest.raises(InvalidRun, match="max_iter of the training is 5 now, and was 2"):
        train(model, X, replace(cosine, max_iter=5), y=y, checkpoint=Checkpoint(other, resume=True))


def test_places_that_are_taken(tmp_path, kept):
    place, model, X, training, y = kept
    with pytest.raises(OutputExists, match="go on from it with resume=True"):
        train(model, X, training, y=y, checkpoint=place)
    (tmp_path / "mine" / "2024").mkdir(parents=True)
    (tmp_path / "mine" / "2024" / "notes").touch()
    for resume in (False, True):
        with pytest.raises(OutputExists):
            train(model, X, training, y=y, checkpoint=Checkpoint(tmp_path / "mine", resume=resume))
    # The first start of a script that always goes on.
    fresh = Checkpoint(tmp_path / "fresh", resume=True)
    train(model, X, training, y=y, checkpoint=fresh)
    assert os.listdir(tmp_path / "fresh") == ["000001"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v | {"format_version": 2}, "was written by a later release"),
        (lambda v: v | {"format_version": "1"}, "format_version"),
        (lambda v: v | {"arrays": v["arrays"] | {"state/params": "|O"}}, "of the type '|O'"),
        (lambda v: v | {"arrays": v["arrays"] | {"state/gone": "<f8"}}, "gone"),
        (lambda v: v | {"arrays": {}}, "holds no state of a run"),
        (lambda v: v | {"arrays": {}, "scalars": {}}, "holds no state of a run"),
        (
            lambda v: (
                v | {"progress": v["progress"] | {"steps": {"steps": [], "every": 0, "count": 1}}}
            ),
            "steps of the checkpoint",
        ),
        (lambda v: v | {"scalars": {"state/other": 1}}, "no state of a run"),
        (lambda v: v | {"progress": v["progress"] | {"rows": -1}}, "rows"),
        (lambda v: v | {"progress": v["progress"] | {"steps": {}}}, "steps of the checkpoint"),
        (lambda v: v | {"about": {}}, "is a checkpoint of another run"),
        (lambda _: {}, "format"),
    ],
)
def test_damaged_settings_are_refused(kept, change, said):
    place, model, X, training, y = kept
    file = place / "000001" / "checkpoint.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with pytest.raises(InvalidRun, match=said):
        train(model, X, training, y=y, checkpoint=Checkpoint(place, resume=True))


def test_damaged_arrays_are_refused(kept):
    place, model, X, training, y = kept
    file = place / "000001" / "state.npz"
    whole = file.read_bytes()
    for broken in (whole[: len(whole) // 2], whole[:900] + b"\x01" + whole[901:], b"", None):
        if broken is None:
            file.unlink()
        else:
            file.write_bytes(broken)
        with pytest.raises(InvalidRun):
            train(model, X, training, y=y, checkpoint=Checkpoint(place, resume=True))


def test_the_last_two_stay_and_one_before_serves_for_a_damaged_one(tmp_path):
    training = Training(solver="adam", batch_size=32, max_iter=5, tol=0.0, random_state=0)
    place, rows = tmp_path / "a.checkpoint", {"y": CLASSES}
    due = train(LogisticModel(), DIGITS, replace(training, max_iter=8), **rows)
    for keep, left in (
        (1, ["000006"]),
        (2, ["000005", "000006"]),
        (3, ["000004", "000005", "000006"]),
    ):
        where = tmp_path / f"{keep}"
        train(LogisticModel(), DIGITS, training, checkpoint=Checkpoint(where, 0, keep=keep), **rows)
        assert sorted(os.listdir(where)) == left
    train(LogisticModel(), DIGITS, training, checkpoint=Checkpoint(place, 0), **rows)
    # The end of the run wrote the state of the fifth epoch once more: the fourth is to serve.
    shutil.rmtree(place / "000005")
    (tmp_path / "3" / "000004").rename(place / "000005")
    whole = (place / "000006" / "state.npz").read_bytes()
    (place / "000006" / "state.npz").write_bytes(whole[:-200])
    resumed = Checkpoint(place, resume=True)
    found = train(
        LogisticModel(), DIGITS, replace(training, max_iter=8), checkpoint=resumed, **rows
    )
    require_same(found, due)
    (said,) = [note for note in found[1].notes if "is damaged" in note]
    assert "000006" in said
    assert any("went on from a checkpoint of iteration 4" in note for note in found[1].notes)
    for name in os.listdir(place):
        (place / name / "checkpoint.json").write_text("{}")
    with pytest.raises(InvalidRun, match="000007"):
        train(LogisticModel(), DIGITS, training, checkpoint=resumed, **rows)
    with pytest.raises(ValueError, match="keep=0"):
        Checkpoint(place, keep=0)


def test_one_process_at_a_time_writes_checkpoints(kept):
    place, model, X, training, y = kept
    resumed = Checkpoint(place, resume=True)
    with (
        checkpoints.CheckpointFolder(resumed),
        pytest.raises(OutputExists, match="another process writes checkpoints"),
    ):
        train(model, X, training, y=y, checkpoint=resumed)


def test_a_run_replaces_the_one_it_goes_on_from_and_no_other(tmp_path, kept):
    place, model, X, training, y = kept
    out, longer = tmp_path / "run", replace(training, max_iter=3)
    resumed = Checkpoint(place, resume=True)
    train(model, X, longer, y=y, checkpoint=resumed, out=out)
    train(model, X, replace(training, max_iter=4), y=y, checkpoint=resumed, out=out)
    assert load_fitted(out).report["n_iter"] == 4
    train(model, X, training, y=y, out=out, overwrite=True)
    with pytest.raises(OutputExists, match="is another run than that of"):
        train(model, X, longer, y=y, checkpoint=resumed, out=out)
    assert load_fitted(out).report["n_iter"] == 2
    # Checkpoints are replaced as runs are.
    with pytest.raises(OutputExists, match="holds checkpoints of a run already"):
        train(model, X, longer, y=y, checkpoint=place)
    train(LogisticModel(C=2.0), X, longer, y=y, checkpoint=place, out=out, overwrite=True)
    assert sorted(os.listdir(place)) == ["000001"]


def test_a_full_disk_leaves_the_checkpoint_before(kept, monkeypatch):
    place, model, X, training, y = kept
    kept = place / "000001"
    before = {name: (kept / name).read_bytes() for name in os.listdir(kept)}

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="the disk is full"):
        train(
            model,
            X,
            replace(training, max_iter=9),
            y=y,
            checkpoint=Checkpoint(place, every=0, resume=True),
        )
    assert {name: (kept / name).read_bytes() for name in os.listdir(kept)} == before
    assert os.listdir(place) == [kept.name]


# The thread that writes


@pytest.fixture
def writer(tmp_path, monkeypatch):
    """A writer whose thread acquires a semaphore for each checkpoint, and that semaphore."""
    go_on, write = threading.Semaphore(0), checkpoint_files.write_checkpoint

    def waiting(*given):
        assert go_on.acquire(timeout=60)
        write(*given)

    monkeypatch.setattr(checkpoint_writing, "write_checkpoint", waiting)
    return checkpoint_writing.CheckpointWriter(str(tmp_path), 2), go_on


def values(rows):
    """What a checkpoint holds besides arrays."""
    run: dict[str, Any] = {"id": "a", "seed": 0, "every": 1, "training": {}}
    progress = {"rows": rows, "rows_before": 0, "seconds": 0.0, "learning_rate": None}
    return {
        "about": {},
        "run": run | {"store": None, "validation": None},
        "progress": progress | {"notes": [], "steps": {}, "goals": {}},
    }


def test_a_checkpoint_has_the_state_of_its_moment_while_the_run_goes_on(tmp_path, writer):
    writer, go_on = writer
    params = np.arange(5.0)
    for rows in (1, 2, 3):
        writer.begin(partial(values, rows), {"state": {"params": params}})
        assert len(checkpoint_files.checkpoint_numbers(str(tmp_path))) == min(rows - 1, 2)
        params += 1.0  # as sums are added up, and states updated, in place
        go_on.release()
    writer.close()
    assert sorted(os.listdir(tmp_path)) == ["000002", "000003"]
    last = checkpoint_files.last_checkpoint(str(tmp_path))
    assert last is not None
    assert last.values["progress"]["rows"] == 3
    assert_array_equal(last.parts["state"]["params"], np.arange(5.0) + 2.0)
    assert not [each for each in threading.enumerate() if "checkpoint" in each.name]


def test_a_run_waits_for_checkpoints_too_large_to_copy(tmp_path, writer):
    writer, go_on = writer
    large = np.ones(checkpoint_writing._COPIED_BYTES // 8 + 1)
    go_on.release(2)
    tracemalloc.start()
    writer.begin(partial(values, 1), {"state": {"params": large[:-1]}})
    writer.finish()
    with_copy = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    writer.begin(partial(values, 2), {"state": {"params": large}})
    without = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert with_copy > without + large.nbytes // 2
    # It is whole by now.
    assert checkpoint_files.checkpoint_numbers(str(tmp_path)) == [1, 2]
    writer.close()


@pytest.mark.parametrize("how", ["check", "begin", "finish", "close"])
def test_the_run_learns_that_a_checkpoint_could_not_be_written(tmp_path, writer, monkeypatch, how):
    writer, go_on = writer

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    writer.begin(partial(values, 1), {"state": {"params": np.ones(3)}})
    writer.check()  # it is not written yet
    go_on.release(2)
    wait((writer._writing,))
    given: tuple[Any, ...] = (partial(values, 2), {"state": {}}) if how == "begin" else ()
    with pytest.raises(OSError, match="the disk is full"):
        getattr(writer, how)(*given)
    writer.close()  # the error was told
    assert os.listdir(tmp_path) == []


def test_an_error_of_a_run_tells_of_a_checkpoint_that_failed_too(tmp_path, monkeypatch, kept):
    place, model, X, training, y = kept

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    def failing(event):
        if isinstance(event, Stepped):
            monkeypatch.setattr(np, "savez", full)  # for the checkpoint that follows
        elif isinstance(event, Progressed) and np.savez is full:
            raise Killed

    longer, resumed = replace(training, max_iter=9), Checkpoint(place, 0, resume=True)
    with pytest.raises(Killed) as raised:
        train(model, X, longer, y=y, checkpoint=resumed, callbacks=[failing])
    assert "the last checkpoint could not be written: " in raised.value.__notes__[0]


# Processes


@pytest.mark.slow
@pytest.mark.parametrize("settings", [BATCHES | {"solver": "adam"}, {"solver": "lbfgs"}], ids=str)
def test_another_cluster_goes_on_to_the_same_bits(tmp_path, settings):
    make_data(tmp_path / "a.zarr", rows=30_000, features=20)
    training = Training(**settings | {"random_state": 1, "max_iter": 6, "tol": 0.0})
    place, data = tmp_path / "a.checkpoint", str(tmp_path / "a.zarr")
    due = train(LogisticModel(), data, training)
    train(LogisticModel(), data, training, callbacks=[ended_at(2)], checkpoint=place)
    with (
        LocalCluster(
            n_workers=2, memory_ceiling="400MiB", dashboard_address="127.0.0.1:0"
        ) as cluster,
        cluster.get_client() as client,
    ):
        resumed = Checkpoint(place, resume=True)
        found = train(LogisticModel(), data, training, checkpoint=resumed, client=client)
    require_same(found, due)
