"""Following a store: its rows are learned once, in order, whatever is appended or killed when."""

import os
import shutil
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ooc_train import (
    CeilingExceeded,
    Checkpoint,
    Diverged,
    InvalidRun,
    InvalidStore,
    LeastSquares,
    LogisticModel,
    MLPClassifierModel,
    NonFiniteData,
    OutputExists,
    PoissonModel,
    SGDRegressorModel,
    Stepped,
    Stop,
    StoreAppender,
    StoreWriter,
    Training,
    follow,
    open_store,
    train,
)
from ooc_train.errors import StoreChanged
from ooc_train.following import follower
from ooc_train.following.drift import DriftTest
from ooc_train.following.follow_settings import Following
from ooc_train.optimizers import OPTIMIZERS
from ooc_train.optimizers.averaging import average_every, average_share
from ooc_train.runs.events import Noted
from ooc_train.runs.run_loading import load_fitted
from ooc_train.store.writing import appender, rows
from tests.kept_runs import torch_run
from tests.killing import run_forked

RNG = np.random.default_rng(0)
ROWS, CHUNK = 1_500, 37
X = RNG.normal(size=(ROWS, 6)).astype("f4") * [1, 10, 1, 1, 0.1, 1] + [0, 5, 0, 0, 0, 0]
SIGNAL = X @ [1, -0.1, 0.5, 0, 3, -1]
NOISY = SIGNAL + RNG.normal(size=ROWS)
Y = (SIGNAL + RNG.normal(size=ROWS) > 0).astype(np.uint8)
WEIGHT = RNG.uniform(0.5, 2, ROWS)
SMALL = Following(window=100, first_rows=200)
SGD = Training(batch_size=32)
MLP = MLPClassifierModel(hidden_layer_sizes=(8,), dropout=0.2)


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch):
    """Small calls, and appends that do not wait for the disk."""
    for module in (appender, rows):
        for name in ("sync_file", "sync_folder"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, lambda *_: None)
    monkeypatch.setattr(follower, "_FIRST_BYTES", 1)


def written(path, stop=ROWS, y=Y, *, x=X, weighted=False, chunk=CHUNK):
    classes: dict[str, Any] = {"classes": ["no", "yes"]} if y.dtype == np.uint8 else {}
    with StoreWriter(
        path, n_features=x.shape[1], chunk_rows=chunk, shard_rows=4 * chunk, dtype=x.dtype,
        sample_weight=weighted, **classes,
    ) as writer:  # fmt: skip
        writer.write(*block(0, stop, y, x=x, weighted=weighted))
        writer.commit()
    return path


def block(start, stop, y=Y, *, x=X, weighted=False):
    part = slice(start, stop)
    return x[part], y[part], *((WEIGHT[part],) if weighted else ())


def blocks(start, sizes, *given, stop=ROWS, **more):
    """Blocks of rows whose sizes are drawn."""
    while start < stop:
        end = min(start + next(sizes), stop)
        yield block(start, end, *given, **more)
        start = end


def drawn(seed, most):
    rng = np.random.default_rng(seed)
    while True:
        yield int(rng.integers(1, most))


class Kept(list[Any]):
    """A callback that keeps all events."""

    def __call__(self, event):
        self.append(event)


def require_same(one, other):
    """Two results are those of the same rows, to the bit."""
    for name, array in one.fitted.predictor.arrays.items():
        assert_array_equal(array, other.fitted.predictor.arrays[name])
    kept = [[replace(step, seconds=0.0) for step in each.report.history] for each in (one, other)]
    assert kept[0] == kept[1]
    for name in ("rows", "progressive_loss", "drifts"):
        assert getattr(one, name) == getattr(other, name)
    assert one.report.updates == other.report.updates


CASES: dict[str, tuple[Any, Any]] = {
    **{f"{n} rows": (LogisticModel(), Training(batch_size=n)) for n in (1, 2, 3, 5)},
    **{name: (LogisticModel(), replace(SGD, solver=name)) for name in OPTIMIZERS},
    "cosine": (LogisticModel(), replace(SGD, learning_rate="cosine:0.1,over=30,warmup=5,last=0.1")),
    "l1": (LogisticModel(l1_ratio=1.0, C=0.1), replace(SGD, solver="adam")),
    "network": (MLP, replace(SGD, solver="adam", learning_rate="invscaling:0.01")),
    "torch": (torch_run()[0], SGD),
}
CASES = {name: (model, replace(how, random_state=5)) for name, (model, how) in CASES.items()}


@pytest.mark.parametrize("name", CASES)
def test_neither_appends_nor_ends_change_a_bit(tmp_path, name):
    model, how = CASES[name]
    due = follow(model, written(tmp_path / "due.zarr"), how, SMALL, idle=0)
    assert due.rows == ROWS - ROWS % (how.batch_size if how.batch_size > 4 else 12)
    assert due.rows + due.waiting_rows == ROWS
    store, out, found = written(tmp_path / "a.zarr", 130), tmp_path / "run", None
    settings: dict[str, Any] = {"training": how, "following": SMALL, "out": out}
    feed = blocks(130, drawn(1, 150))
    while found is None or found.rows < due.rows:
        found = follow(model, store, **settings, rows=feed, max_rows=430)
    require_same(due, found)
    assert load_fitted(out).report["n_rows"] == due.rows
    assert sorted(os.listdir(tmp_path)) == ["a.zarr", "due.zarr", "run", "run.checkpoint"]


def plain_loop(y, rate, size, window):
    """Stochastic gradient descent row by row: its averaged coefficients, and losses of windows."""
    first = X[: SMALL.first_rows].astype(float)
    scaled = np.column_stack([(X - first.mean(axis=0)) / first.std(axis=0), np.ones(len(X))])
    theta, average, entries, losses = np.zeros(7), np.zeros(7), 0, np.zeros(len(X))
    for update, start in enumerate(range(0, len(X) // size * size, size), 1):
        batch = slice(start, start + size)
        away = scaled[batch] @ theta - y[batch]
        losses[batch] = away**2 / 2
        theta = theta - rate * (away @ scaled[batch]) / size
        if update % average_every(size) == 0:
            entries += 1
            average = average + average_share(entries) * (theta - average)
    if update % average_every(size):
        average = average + average_share(entries + 1) * (theta - average)
    whole = len(X) // size * size // window * window
    return average[:-1] / first.std(axis=0), losses[:whole].reshape(-1, window).mean(axis=1)


@pytest.mark.parametrize("size", [1, 8])
def test_losses_and_parameters_are_those_of_a_plain_loop(tmp_path, size):
    model, window = SGDRegressorModel(penalty=None), 96
    store = written(tmp_path / "a.zarr", y=NOISY, x=X.astype(float), chunk=40)
    how = Training(batch_size=size, solver="sgd", learning_rate=0.02)
    found = follow(model, store, how, replace(SMALL, window=window), idle=0)
    coef, losses = plain_loop(NOISY, 0.02, size, window)
    assert_allclose(found.fitted.coef[0], coef, rtol=1e-9)
    steps = found.report.history
    found_losses: Any = [step.progressive_loss for step in steps]
    assert_allclose(found_losses, losses, rtol=1e-9)
    assert found.progressive_loss == pytest.approx(losses.mean())
    weights = 0.5 ** (np.arange(len(losses))[::-1] / 10)
    assert steps[-1].loss == found.report.loss == pytest.approx(np.average(losses, weights=weights))
    assert [step.n_iter for step in steps] == list(range(1, len(losses) + 1))
    assert [step.updates for step in steps] == [step.n_iter * window // size for step in steps]


@pytest.mark.slow
def test_a_thousand_appends_are_one_run_over_the_final_store(tmp_path):
    due = follow(LogisticModel(), written(tmp_path / "due.zarr"), SGD, SMALL, idle=0)
    store = written(tmp_path / "a.zarr", 500)
    feed = blocks(500, iter([1] * 1_000))
    found = follow(LogisticModel(), store, SGD, SMALL, rows=feed)
    assert found.report.ended == "the rows ended"
    require_same(due, found)


def test_weights_replay_and_drift_change_no_bit_by_appends_either(tmp_path):
    y = np.where(np.arange(ROWS) < 1_200, Y, 1 - Y).astype(np.uint8)
    following = replace(SMALL, window=32, replay=0.5, rate_after_drift=0.7)
    how, model = replace(SGD, batch_size=16, random_state=3), LogisticModel(C=0.01)
    given: dict[str, Any] = {"y": y, "weighted": True}
    events = Kept()
    store = written(tmp_path / "due.zarr", **given)
    due = follow(model, store, how, following, idle=0, callbacks=(events,))
    notes = [event.text for event in events if isinstance(event, Noted)]
    assert [row for row in due.drifts if 1_200 < row <= 1_400], due.drifts
    assert f"drift: the progressive loss has risen before row {due.drifts[-1]:,}" in notes
    assert any(note.startswith("the learning rate begins anew") for note in notes)
    assert any(note.startswith("drift: the progressive loss rose") for note in due.report.notes)
    assert due.report.updates == 93 + 23 * 2  # 46 windows, and a replay after every second
    store, out = written(tmp_path / "a.zarr", 300, **given), tmp_path / "run"
    for most in (100, 555, 590, None):
        feed = blocks(300 if most == 100 else open_store(store).n_rows, drawn(2, 99), **given)
        found = follow(model, store, how, following, out=out, rows=feed, max_rows=most)
    require_same(due, found)


@pytest.mark.parametrize("replay", [0.0, 1.0])
def test_a_rate_that_diverges_is_lowered_where_it_did(tmp_path, replay):
    x = X * np.where(np.arange(ROWS) < 650, 1, 30)[:, None].astype("f4")
    following, how = replace(SMALL, replay=replay), replace(SGD, solver="sgd", random_state=1)
    signal = x @ np.ones(6, "f4")
    model = LeastSquares()
    due = follow(model, written(tmp_path / "due.zarr", y=signal, x=x), how, following, idle=0)
    assert any("is too large for rows after row" in note for note in due.report.notes)
    store, out = written(tmp_path / "a.zarr", 690, signal, x=x), tmp_path / "run"
    feed = blocks(690, drawn(2, 50), signal, x=x)
    for most in (685, 50, None):
        found = follow(model, store, how, following, out=out, rows=feed, max_rows=most)
    require_same(due, found)
    with pytest.raises(Diverged, match="a smaller one"):
        follow(model, store, replace(how, learning_rate=1.0), following, idle=0)


def test_rows_that_jump_are_no_divergence(tmp_path):
    y = SIGNAL + np.where(np.arange(ROWS) < 650, 0, 1e4)
    how = replace(SGD, solver="sgd", learning_rate=0.05)
    found = follow(LeastSquares(), written(tmp_path / "a.zarr", y=y), how, SMALL, idle=0)
    assert not any("too large" in note for note in found.report.notes)
    losses: Any = [step.progressive_loss for step in found.report.history]
    assert losses[4] < 1 < 1e6 < losses[5]
    assert losses[-1] < 0.5 * losses[5]


def test_only_new_rows_are_read(tmp_path):
    store, out = written(tmp_path / "a.zarr", 1_000), tmp_path / "run"
    follow(LogisticModel(), store, SGD, SMALL, out=out, idle=0)
    learned = sorted((store / "X" / "c").iterdir())[2:6]  # rows of shards that are not first rows
    for shard in learned:
        shutil.rmtree(shard) if shard.is_dir() else shard.unlink()
    with StoreAppender(store) as grown:
        grown.write(*block(1_000, ROWS))
        grown.commit()
    found = follow(LogisticModel(), store, SGD, SMALL, out=out, idle=0)
    whole = follow(LogisticModel(), written(tmp_path / "b.zarr"), SGD, SMALL, idle=0)
    require_same(whole, found)
    assert found.new_rows == whole.rows - 992
    card = (out / "card.md").read_text(encoding="utf-8")
    assert f"| data | a.zarr: {found.rows:,} x 6 " in card
    assert "| losses | of rows before their updates" in card


def test_a_bad_row_ends_it_and_what_was_learned_before_is_kept(tmp_path):
    store, out = written(tmp_path / "a.zarr", 1_000), tmp_path / "run"

    def bad(step):
        if isinstance(step, Stepped) and step.n_iter == 5:
            raise NonFiniteData("row 505 has nan")

    with pytest.raises(NonFiniteData):
        follow(LogisticModel(), store, SGD, SMALL, out=out, idle=0, callbacks=(bad,))
    assert load_fitted(out).report["n_rows"] >= 500
    found = follow(LogisticModel(), store, SGD, SMALL, out=out, idle=0)
    require_same(follow(LogisticModel(), store, SGD, SMALL, idle=0), found)


def test_a_stop_is_saved_and_another_call_goes_on(tmp_path):
    store, out = written(tmp_path / "a.zarr"), tmp_path / "run"
    events = Kept()

    def stop(event):
        if isinstance(event, Stepped):
            raise Stop("enough")

    found = follow(LogisticModel(), store, SGD, SMALL, out=out, callbacks=(stop,))
    assert (found.report.ended, found.report.saved_in) == ("enough", str(out))
    assert 0 < found.rows < ROWS
    found = follow(LogisticModel(), store, SGD, SMALL, out=out, idle="0s", callbacks=(events,))
    assert f"went on from row {found.rows - found.new_rows:,}" in [
        event.text for event in events if isinstance(event, Noted)
    ]
    require_same(follow(LogisticModel(), store, SGD, SMALL, idle=0), found)


def test_what_is_not_the_same_is_refused(tmp_path):
    model, store, out = LogisticModel(), written(tmp_path / "a.zarr"), tmp_path / "run"
    follow(model, store, SGD, SMALL, out=out, max_rows=320)
    for other, said in (
        ((model, store, replace(SGD, batch_size=16), SMALL), "batch_size of the training"),
        ((model, store, SGD, replace(SMALL, window=50)), "window of the following"),
        ((model, store, SGD, replace(SMALL, first_rows=300)), "rows of the data"),
        ((LogisticModel(C=2.0), store, SGD, SMALL), "C of the model"),
        ((model, written(tmp_path / "b.zarr"), SGD, SMALL), "contents of the data"),
    ):
        with pytest.raises(InvalidRun, match=said):
            follow(*other, out=out, idle=0)
    checkpoint = Checkpoint(f"{out}.checkpoint", resume=True)
    with pytest.raises(InvalidRun, match="of another run"):
        train(model, store, SGD, checkpoint=checkpoint)
    assert follow(model, store, SGD, SMALL, out=out, overwrite=True, max_rows=64).rows == 64
    train(model, store, replace(SGD, max_iter=1), out=tmp_path / "other")
    with pytest.raises(OutputExists):
        follow(model, store, SGD, SMALL, out=tmp_path / "other", idle=0)


def test_settings_and_stores_that_do_not_fit_are_refused(tmp_path):
    store = written(tmp_path / "a.zarr", 300)
    for how, said in (
        (Training(), "batch_size='full' has no meaning"),
        (replace(SGD, max_iter=3), "max_iter is for train"),
        (Training(solver="newton"), "batch_size='full'"),
        (replace(SGD, schedule="plateau"), "follow makes one pass"),
        (Training(batch_size="exp:16..full"), "follow makes one pass"),
        (replace(SGD, schedule="linear", learning_rate=0.1), "over how many"),
    ):
        with pytest.raises(ValueError, match=said):
            follow(LogisticModel(), store, how, SMALL, idle=0)
    with pytest.raises(ValueError, match=r"has 300 rows, and following begins with 1,000"):
        follow(LogisticModel(), store, idle=0)
    with pytest.raises(ValueError, match="max_rows=0"):
        follow(LogisticModel(), store, max_rows=0)
    numbers = written(tmp_path / "b.zarr", 300, Y.astype(float))
    with pytest.raises(InvalidStore, match="does not name its classes"):
        follow(LogisticModel(), numbers, SGD, SMALL, idle=0)


def test_a_store_that_is_replaced_is_noticed(tmp_path):
    store = written(tmp_path / "a.zarr", 500)

    def replaced(event):
        if isinstance(event, Stepped) and event.n_iter == 1:
            shutil.rmtree(store)
            written(store, 600)

    with pytest.raises(StoreChanged, match="another store took the place"):
        follow(LogisticModel(), store, SGD, SMALL, callbacks=(replaced,))


def test_memory_stays_below_the_projection_and_the_ceiling(tmp_path):
    x = RNG.normal(size=(40_000, 100)).astype("f4")
    store = written(tmp_path / "a.zarr", 40_000, np.resize(Y, 40_000), x=x)
    found = follow(LogisticModel(), store, SGD, idle=0, memory_ceiling="200MiB")
    memory = found.report.memory
    assert memory.measured <= memory.projected <= memory.ceiling
    with pytest.raises(CeilingExceeded):
        follow(LogisticModel(), store, SGD, idle=0, memory_ceiling="1KiB")


def test_page_test_notices_a_rise_and_no_outlier():
    test = DriftTest()
    noise = RNG.normal(0, 0.1, 400)
    losses = np.concatenate([2 * 0.9 ** np.arange(200), np.zeros(200)]) + 1 + noise
    assert not any(test.add(loss) for loss in losses)
    assert not test.add(50.0)
    again = DriftTest(test.values)
    rises = [test.add(1.5 + 0.1 * z) for z in RNG.normal(size=10)]
    assert any(rises)
    assert not all(rises)
    assert again.values != test.values


def follow_to_the_end(store, out):
    warnings.simplefilter("ignore")  # what a killed process left is removed
    follow(LogisticModel(), store, SGD, SMALL, out=out, publish_every=0, idle=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork")
def test_killed_followers_go_on_to_the_same_bits(tmp_path):
    store = written(tmp_path / "a.zarr")
    due = follow(LogisticModel(), store, SGD, SMALL, idle=0)
    for seconds in (0.05, 0.1, 0.2, 0.3):
        run_forked(follow_to_the_end, store, tmp_path / "run", kill_after=seconds)
    run_forked(follow_to_the_end, store, tmp_path / "run")
    found = load_fitted(tmp_path / "run")
    assert_array_equal(found.coef, due.fitted.coef)
    assert found.report["n_rows"] == due.rows
    assert sorted(os.listdir(tmp_path)) == ["a.zarr", "run", "run.checkpoint"]


def test_an_end_before_the_first_batch_is_saved_too(tmp_path):
    store, out = written(tmp_path / "a.zarr", 300), tmp_path / "run"

    def stop(event):
        raise Stop

    found = follow(LogisticModel(), store, SGD, SMALL, out=out, callbacks=(stop,))
    assert (found.rows, found.report.ended) == (0, "a callback stopped it")
    assert np.isnan(found.progressive_loss)
    assert not load_fitted(out).coef.any()
    found = follow(LogisticModel(), store, SGD, SMALL, out=out, idle=0)
    require_same(follow(LogisticModel(), store, SGD, SMALL, idle=0), found)
    assert "288 rows, 288 of them new" in repr(found)
    assert "progressive loss" in found._repr_html_()


def test_blocks_wait_for_another_appender(tmp_path):
    store = written(tmp_path / "a.zarr", 300)
    other, looks = StoreAppender(store), Kept()

    def ends(event):
        looks(event)
        if len(looks) == 8:
            other.discard()

    feed = blocks(300, drawn(1, 150))
    found = follow(LogisticModel(), store, SGD, SMALL, rows=feed, callbacks=(ends,))
    assert found.rows == ROWS // 32 * 32


def test_a_second_follower_for_the_same_place_is_refused(tmp_path):
    store, out = written(tmp_path / "a.zarr", 300), tmp_path / "run"

    def second(event):
        if isinstance(event, Stepped) and event.n_iter == 1:
            with pytest.raises(OutputExists, match="another process"):
                follow(LogisticModel(), store, SGD, SMALL, out=out, idle=0)

    assert follow(LogisticModel(), store, SGD, SMALL, out=out, idle=0, callbacks=(second,)).rows


def test_a_loss_with_a_log_link_begins_at_the_mean_of_the_first_rows(tmp_path):
    y, model, how = np.exp(0.1 * NOISY), PoissonModel(), replace(SGD, random_state=5)
    due = follow(model, written(tmp_path / "due.zarr", y=y), how, SMALL, idle=0)
    store, feed = written(tmp_path / "a.zarr", 250, y), blocks(250, drawn(3, 90), y)
    require_same(due, follow(model, store, how, SMALL, rows=feed))
