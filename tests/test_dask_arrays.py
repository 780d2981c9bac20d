"""Dask arrays, however they are cut: predictions, fits and what is written are NumPy's."""

from itertools import pairwise

import dask.array
import numpy as np
import pytest
import zarr
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st

from ooc_train.core.partitions import partitions_within, rows_of, sample_partitions
from ooc_train.estimators.classification import LogisticRegression
from ooc_train.estimators.regression import LinearRegression, Ridge
from ooc_train.runtime import clients
from ooc_train.runtime.cluster import LocalCluster
from ooc_train.stream.array_source import ArraySource
from ooc_train.stream.dask_source import dask_source

ROWS = 60
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 3))
CLASSES = np.array(["early", "late", "never"])[RNG.integers(0, 3, ROWS)]
VALUES = X @ [2.0, -1.0, 0.5] + RNG.normal(size=ROWS)
WEIGHT = RNG.uniform(0, 2, ROWS)


@pytest.fixture(scope="module", autouse=True)
def _inline():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clients, "inside_another_job", lambda: True)
        yield


def blocks_of(cuts):
    """The rows of each block, between rows at which an array is cut: some twice, or at an end."""
    return tuple(stop - start for start, stop in pairwise([0, *sorted(cuts), ROWS]))


cuttings = st.lists(st.integers(0, ROWS), max_size=8).map(blocks_of)
HARD = [(0, ROWS), (ROWS, 0), (0, 0, ROWS, 0), (10, 7, 0, 3, 40), (1,) * 10 + (50,)]


def cut(array, rows):
    return dask.array.from_array(array, chunks=(rows, *array.shape[1:]))


def written(path, kind):
    return zarr.open_array(path / kind, mode="r")[:]


# ------------------------------------------------------------------- whatever the cuts, as NumPy


@pytest.fixture(scope="module")
def fitted():
    return LogisticRegression().fit(X, CLASSES), LinearRegression().fit(X, VALUES)


def predicts_as_numpy(fitted, rows, path):
    classifier, regressor = fitted
    D = cut(X, rows)
    assert classifier.predict(D).compute().tolist() == classifier.predict(X).tolist()
    np.testing.assert_allclose(
        classifier.predict_proba(D).compute(), classifier.predict_proba(X), rtol=1e-12
    )
    classifier.predict_proba(D, out=path / "p.zarr")
    np.testing.assert_allclose(
        written(path / "p.zarr", "probability"), classifier.predict_proba(X), rtol=1e-12
    )
    regressor.predict(D, out=path / "r.zarr")
    np.testing.assert_allclose(
        written(path / "r.zarr", "prediction")[:, 0], regressor.predict(X), rtol=1e-12
    )


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(rows=cuttings)
def test_any_cutting_predicts_and_writes_as_numpy_does(fitted, tmp_path_factory, rows):
    predicts_as_numpy(fitted, rows, tmp_path_factory.mktemp("cut"))


@pytest.mark.parametrize("rows", HARD)
def test_hard_cuttings_predict_and_write_as_numpy_does(fitted, tmp_path, rows):
    predicts_as_numpy(fitted, rows, tmp_path)


def fits_as_numpy(rows, others):
    D, labels, values, weight = (
        cut(array, by)
        for array, by in ((X, rows), (CLASSES, others), (VALUES, others), (WEIGHT, others))
    )
    expected = LogisticRegression(tol=1e-10).fit(X, CLASSES, WEIGHT)
    found = LogisticRegression(tol=1e-10).fit(D, labels, weight)
    assert found.classes_.tolist() == expected.classes_.tolist()
    np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-6)
    np.testing.assert_allclose(
        Ridge().fit(D, values).coef_, Ridge().fit(X, VALUES).coef_, rtol=1e-10
    )
    # Updates take rows as they lie, so batches are the same whatever the cuts.
    one, other = (
        Ridge(batch_size=7, learning_rate=0.01).partial_fit(*data)
        for data in ((X, VALUES), (D, values))
    )
    np.testing.assert_allclose(other.coef_, one.coef_, rtol=1e-9)
    assert found.score(D, labels) == pytest.approx(expected.score(X, CLASSES), rel=1e-12)


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(rows=cuttings, others=cuttings)
def test_any_cutting_fits_as_numpy_does(rows, others):
    fits_as_numpy(rows, others)


@pytest.mark.slow
@pytest.mark.parametrize("rows", HARD)
def test_hard_cuttings_fit_as_numpy_does(rows):
    fits_as_numpy(rows, rows)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", ["full", "chunk", 7])
@pytest.mark.parametrize("rows", HARD)
def test_hard_cuttings_learn_by_every_batch_size(rows, batch_size):
    model = Ridge(solver="sgd", batch_size=batch_size, random_state=0)
    model.fit(cut(X, rows), VALUES)
    assert model.score(X, VALUES) > 0.5
    assert model.report_.n_rows == ROWS


@pytest.mark.slow
def test_on_a_cluster_too(tmp_path):
    numbers = np.stack([np.arange(1000.0), np.ones(1000)], axis=1)
    identity = LinearRegression().fit(numbers, numbers[:, 0])
    D = dask.array.from_array(numbers, chunks=((100, 7, 0, 293, 600), 2))
    with (
        LocalCluster(n_workers=2, memory_ceiling="4GiB", dashboard_address="127.0.0.1:0") as made,
        Client(made, set_as_default=False) as client,
        pytest.MonkeyPatch.context() as patch,
        client.as_current(),
    ):
        patch.setattr(clients, "inside_another_job", lambda: False)
        identity.predict(D, out=tmp_path / "p.zarr")
        again = LinearRegression().fit(D, numbers[:, 0])
        # Scans too: what comes in messages may lie askew, and compiled loops refuse that.
        learned = Ridge(batch_size=10).partial_fit(D, numbers[:, 0])
    found = written(tmp_path / "p.zarr", "prediction")[:, 0]
    np.testing.assert_allclose(found, numbers[:, 0], atol=1e-9)
    np.testing.assert_allclose(again.coef_, identity.coef_, rtol=1e-9)
    alone = Ridge(batch_size=10).partial_fit(D, numbers[:, 0])
    np.testing.assert_allclose(learned.coef_, alone.coef_, rtol=1e-12)


# ------------------------------------------------------------------------------- leaves and rows


@given(rows=cuttings, data=st.data())
def test_partitions_hold_the_rows_that_are_asked_for(rows, data):
    source = dask_source(cut(X, rows))
    assert source.n_partitions == np.count_nonzero(rows)
    start = data.draw(st.integers(0, ROWS - 1))
    stop = data.draw(st.integers(start + 1, ROWS))
    ends = np.cumsum([count for count in rows if count])
    due = {int(np.searchsorted(ends, row, side="right")) for row in range(start, stop)}
    assert set(partitions_within(source, start, stop)) == due


@pytest.mark.parametrize("rows", HARD)
def test_a_sample_of_partitions_of_different_sizes_holds_rows_enough(rows):
    source = dask_source(cut(X, rows))
    for wanted in (1, 20, 60):
        assert 2 * rows_of(source, sample_partitions(source, wanted)) >= wanted


def test_a_sample_of_equal_partitions_is_as_many_as_the_rows_call_for(monkeypatch):
    monkeypatch.setattr("ooc_train.stream.array_source.default_chunk_rows", lambda *_: 8)
    source = ArraySource(X)
    assert sample_partitions(source, 20) == (1, 4, 6)
    assert rows_of(source, (1, 7)) == 8 + 4
    assert list(partitions_within(source, 7, 17)) == [0, 1, 2]


# -------------------------------------------------------------------- arrays that say what is not


def test_blocks_of_other_rows_than_the_array_says_are_refused():
    lying = cut(X, (30, 30)).map_blocks(lambda block: block[:20], dtype=float, chunks=((30, 30), 3))
    with pytest.raises(ValueError, match=r"block of X from row 0 on has 20 rows.* says 30; call X"):
        LinearRegression().fit(lying, VALUES)


def test_blocks_of_a_wider_type_than_the_array_says_are_refused():
    lying = cut(X, (30, 30)).map_blocks(lambda block: block, dtype="f4")
    with pytest.raises(ValueError, match=r"block of X from row 0 on is float64.*X\.astype"):
        LinearRegression().fit(lying, VALUES)


def test_fits_change_no_setting_of_dask_that_other_threads_have(monkeypatch):
    """`Client.as_current` sets Dask's scheduler for all threads: two that overlap leave it set."""
    found, set_config = [], dask.config.set

    def listening(*args, **settings):
        found.extend([*settings, *(name for each in args for name in each)])
        return set_config(*args, **settings)

    rng = np.random.default_rng(0)
    X = dask.array.from_array(rng.normal(size=(300, 3)), chunks=(100, 3))
    y = dask.array.from_array(rng.normal(size=300), chunks=100)
    monkeypatch.setattr(clients, "inside_another_job", lambda: False)
    Ridge().fit(X, y)  # which starts the private cluster
    monkeypatch.setattr(dask.config, "set", listening)
    Ridge().fit(X, y)
    assert "scheduler" not in found
