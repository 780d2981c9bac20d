"""Made data: the truth that was promised, whatever the rows are cut into."""

import subprocess
import sys

import numpy as np
import pytest

from ooc_train.errors import CeilingExceeded, OutputExists
from ooc_train.objective.losses import LOSSES
from ooc_train.store.jobs import synthetic as made
from ooc_train.store.jobs import synthetic_rows as draws
from ooc_train.store.jobs.synthetic import make_data
from ooc_train.store.reading.chunks import ChunkReader


def rows_of(layout):
    out = np.empty(layout.shape, layout.dtype)
    with ChunkReader(layout) as reader:
        reader.read_rows(0, layout.n_rows, out)
    return out


def make(path, **settings):
    """Write a store, and return it with its X, its y and the truth behind them."""
    store = make_data(path, **settings)
    truth = store.attributes["made"]
    coef, intercept = np.array(truth["coef"]), np.array(truth["intercept"])
    return store, rows_of(store.X).astype(np.float64), rows_of(store.y), coef, intercept


@pytest.mark.parametrize("condition", [1.0, 100.0, 1e6])
def test_the_covariance_has_the_condition_number_that_was_asked_for(tmp_path, condition):
    _, X, *_ = make(tmp_path / "s", rows="100k", features=12, condition=condition, dtype="float64")
    assert np.linalg.cond(np.cov(X.T)) == pytest.approx(condition, rel=0.05)
    assert np.abs(X.mean(axis=0)).max() > 0.5


def test_scaling_each_column_does_not_cure_a_bad_condition(tmp_path):
    _, X, *_ = make(tmp_path / "s", rows="50k", features=20, condition=1e4, dtype="float64")
    assert np.linalg.cond(np.corrcoef(X.T)) > 1e3


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_regression_without_noise_is_the_truth(tmp_path, outputs):
    store, X, y, coef, intercept = make(
        tmp_path / "s",
        rows=3000,
        features=7,
        task="regression",
        outputs=outputs,
        condition=100,
        noise=0,
        dtype="float64",
    )
    assert coef.shape == (outputs, 7)
    assert store.y.row_shape == (() if outputs == 1 else (3,))
    np.testing.assert_allclose(y.reshape(3000, -1), X @ coef.T + intercept, atol=1e-11)


def test_signal_and_noise_of_a_regression_have_the_sizes_that_were_asked_for(tmp_path):
    settings = {"rows": "100k", "features": 9, "condition": 1e3, "task": "regression"}
    _, X, y, coef, intercept = make(tmp_path / "s", noise=0.25, **settings)
    z = X @ coef[0] + intercept[0]
    assert z.std() == pytest.approx(1, rel=0.02)
    assert (y - z).std() == pytest.approx(0.25, rel=0.02)


@pytest.mark.parametrize(("classes", "noise"), [(2, 1.0), (2, 0.3), (4, 0.5)])
def test_the_slope_of_the_loss_is_zero_at_the_truth_but_for_chance(tmp_path, classes, noise):
    store, X, y, coef, intercept = make(
        tmp_path / "s", rows="200k", features=5, condition=30, classes=classes, noise=noise
    )
    loss = LOSSES["logistic" if classes == 2 else "multinomial"]()
    z = X @ coef.T
    residual = loss.slope(y[:, None].astype(np.float64), z + intercept)
    rows = residual[:, :, None] * np.column_stack([X, np.ones(len(X))])[:, None, :]
    scores = rows.mean(axis=0) / rows.std(axis=0) * np.sqrt(len(X))
    assert np.abs(scores).max() < 4  # standard deviations, over at most 24 of them
    assert np.sqrt(z.var(axis=0).mean()) == pytest.approx(1 / noise, rel=0.02)
    assert store.classes == tuple(range(classes))
    assert store.y.dtype == "|u1"


def test_the_truth_of_a_softmax_is_centred(tmp_path):
    *_, coef, intercept = make(tmp_path / "s", rows=10, features=4, classes=3)
    np.testing.assert_allclose(coef.sum(axis=0), 0, atol=1e-12)
    assert intercept.sum() == pytest.approx(0, abs=1e-12)


HELD = """
import sys
from ooc_train.store.jobs.synthetic_rows import SyntheticSettings
from ooc_train.store.jobs.synthetic import make_synthetic_store

features, classes, path, codec = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
recipe = SyntheticSettings(features, "classification", 1, classes, 1.0, 1.0, "float32", 0)
rows = 2 * 10**7 // features
store, memory = make_synthetic_store(path, recipe, rows, codec=codec, memory_ceiling="40MiB")
print(memory.ceiling, memory.projected, memory.measured)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak can't be reset")
@pytest.mark.parametrize(("features", "classes", "codec"), [(100, 2, "none"), (20, 3, "zstd")])
def test_what_is_held_stays_under_the_ceiling(tmp_path, features, classes, codec):
    # 80 MB, three times what the ceiling leaves beside the interpreter's own growth.
    arguments = [str(features), str(classes), str(tmp_path / "a"), codec]
    ran = subprocess.run(
        [sys.executable, "-c", HELD, *arguments], capture_output=True, text=True, check=True
    )
    ceiling, projected, measured = map(int, ran.stdout.split())
    assert measured <= projected <= ceiling == 40 * 2**20


def test_a_small_ceiling_makes_fewer_blocks_at_a_time_and_the_same_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(made, "THREADS", 4)
    _, X, *_ = make(tmp_path / "a", rows=5000, features=300)
    threads = []
    blocks = draws.SyntheticSettings.blocks

    def watched(self, rows, n, **more):
        threads.append(n)
        return blocks(self, rows, n, **more)

    monkeypatch.setattr(draws.SyntheticSettings, "blocks", watched)
    for ceiling, number in (("64MiB", 4), ("26MiB", 1)):
        settings = {"rows": 5000, "features": 300, "memory_ceiling": ceiling, "overwrite": True}
        _, again, *_ = make(tmp_path / "b", **settings)
        np.testing.assert_array_equal(again, X)
        assert threads.pop() == number
    with pytest.raises(CeilingExceeded, match="raise the memory ceiling to"):
        make(tmp_path / "c", rows=5000, features=300, memory_ceiling="17MiB")
    assert not (tmp_path / "c").exists()


def test_the_data_depend_on_the_settings_and_on_nothing_else(tmp_path, monkeypatch):
    settings = {"features": 900, "condition": 50.0, "random_state": 3}
    _, X, y, *_ = make(tmp_path / "a", rows=1000, **settings)
    monkeypatch.setattr(made, "THREADS", 1)
    store, X_cut, y_cut, *_ = make(
        tmp_path / "b", rows=700, chunk_rows=60, codec="lz4", sample_weight=True, **settings
    )
    assert np.array_equal(X[:700], X_cut)
    assert np.array_equal(y[:700], y_cut)
    assert store.chunk_rows == 60
    assert len(np.unique(X[:, 0])) == 1000  # blocks differ from each other
    weight = rows_of(store.sample_weight)
    assert weight.min() >= 0.5
    assert weight.max() <= 1.5
    assert np.ptp(weight) > 0.9


def test_another_random_state_is_another_truth(tmp_path):
    _, X, _, coef, _ = make(tmp_path / "a", rows=10, random_state=0)
    store, X_other, _, coef_other, _ = make(tmp_path / "b", rows=10, random_state=1)
    assert not np.isclose(coef, coef_other).any()
    assert not np.isclose(X, X_other).any()
    assert store.shuffled == 1


def test_the_store_holds_its_settings(tmp_path):
    store = make_data(tmp_path / "s", rows="1k", features=3, condition=4.0, noise=2.0)
    noted = store.attributes["made"]
    assert {name: noted[name] for name in ("task", "condition", "noise", "random_state")} == {
        "task": "classification",
        "condition": 4.0,
        "noise": 2.0,
        "random_state": 0,
    }
    assert store.n_rows == 1000
    assert store.dtype == np.float32
    assert sum(store.class_counts or ()) == 1000


def test_progress_adds_up_to_the_rows(tmp_path):
    heard: list[tuple[str, int, float]] = []
    make_data(tmp_path / "s", rows=700, features=900, progress=lambda *at: heard.append(at))
    assert heard == sorted(heard)
    assert (heard[0], heard[-1]) == (("writing", 0, 0.0), ("writing", 700, 1.0))
    assert len(heard) > 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"rows": 0},
        {"rows": "a few"},
        {"features": 0},
        {"task": "clustering"},
        {"outputs": 0, "task": "regression"},
        {"outputs": 2},
        {"classes": 1},
        {"classes": 3, "task": "regression"},
        {"condition": 0.5},
        {"condition": np.nan},
        {"condition": 1e13},
        {"condition": 2.0, "features": 1},
        {"noise": 0},
        {"noise": -1.0, "task": "regression"},
        {"dtype": "float16"},
        {"random_state": -1},
        {"chunk_rows": 0},
        {"codec": "gzip"},
    ],
    ids=str,
)
def test_a_wrong_setting_is_named_and_nothing_is_written(tmp_path, wrong):
    name = "a few" if wrong == {"rows": "a few"} else next(iter(wrong))
    with pytest.raises(ValueError, match=name):
        make_data(tmp_path / "s", **{"rows": 10, "features": 3, **wrong})
    assert list(tmp_path.iterdir()) == []


def test_one_feature_and_one_row_will_do(tmp_path):
    store = make_data(tmp_path / "s", rows=1, features=1, task="regression")
    assert store.X.shape == (1, 1)


def test_what_lies_there_is_replaced_only_when_asked(tmp_path):
    make_data(tmp_path / "s", rows=10, features=3)
    with pytest.raises(OutputExists):
        make_data(tmp_path / "s", rows=20, features=3)
    assert make_data(tmp_path / "s", rows=20, features=3, overwrite=True).n_rows == 20
