"""Our estimators where dask-ml, Dask and joblib run them: no one waits for another for ever."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dask
import dask.array as da
import joblib
import numpy as np
import pytest
from dask_ml.model_selection import GridSearchCV
from dask_ml.preprocessing import StandardScaler
from dask_ml.wrappers import Incremental, ParallelPostFit
from distributed import Client
from numpy.typing import NDArray
from sklearn.model_selection import cross_val_score

from ooc_train import LocalCluster, LogisticRegression, Ridge, StoreWriter

Array = NDArray[Any]
ROWS, FEATURES = 4000, 6


def made() -> tuple[Array, Array]:
    rng = np.random.default_rng(5)
    X = rng.standard_normal((ROWS, FEATURES)) * np.logspace(-1, 1, FEATURES)
    z = X @ (rng.standard_normal(FEATURES) / np.logspace(-1, 1, FEATURES))
    return X, (rng.random(ROWS) < 1 / (1 + np.exp(-z))).astype(np.int64)


def chunked(rows: int = 700) -> tuple[Any, Any]:
    X, y = made()
    return da.from_array(X, chunks=(rows, FEATURES)), da.from_array(y, chunks=rows)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    X, y = made()
    path = str(tmp_path_factory.mktemp("dask_ml") / "rows.zarr")
    with StoreWriter(
        path, n_features=FEATURES, dtype="float64", y_dtype="uint8", chunk_rows=256, classes=[0, 1]
    ) as writer:
        writer.write(X, y)
        writer.commit()
    return path


@pytest.fixture(scope="module")
def cluster() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=2, dashboard_address="127.0.0.1:0") as local,
        Client(local) as client,
    ):
        yield client


@pytest.mark.slow
@pytest.mark.parametrize("model", [LogisticRegression(tol=1e-8), Ridge(batch_size=64)])
def test_a_fit_takes_dask_arrays_that_dask_ml_has_scaled(model):
    X, y = chunked()
    scaled = StandardScaler().fit_transform(X)
    found = model.set_params(random_state=0).fit(scaled, y)
    assert found.predict(scaled).compute().shape == (ROWS,)
    assert 0 < found.score(scaled, y) < 1
    if isinstance(model, LogisticRegression):
        expected = LogisticRegression(tol=1e-8).fit(scaled.compute(), y.compute())
        np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-6)
        assert any("Dask arrays" in note for note in found.report_.memory.notes)


def test_parallel_post_fit():
    X, y = chunked()
    model = ParallelPostFit(LogisticRegression()).fit(*made())
    plain = model.estimator
    for method in ("predict", "predict_proba"):
        found = getattr(model, method)(X)
        assert isinstance(found, da.Array)
        np.testing.assert_array_equal(found.compute(), getattr(plain, method)(X.compute()))
    assert model.score(X, y, compute=True) == pytest.approx(plain.score(X, y))


@pytest.mark.parametrize("batch_size", [1, 64, "full"])
def test_incremental(batch_size):
    X, y = chunked()
    scaled = StandardScaler().fit_transform(X)
    estimator = LogisticRegression(batch_size=batch_size)
    model = Incremental(estimator, shuffle_blocks=False, assume_equal_chunks=True)
    model.fit(scaled, y, classes=[0, 1])
    by_hand = LogisticRegression(batch_size=batch_size)
    parts, labels = scaled.compute(), y.compute()
    for start in range(0, ROWS, 700):
        part = slice(start, start + 700)
        by_hand.partial_fit(parts[part], labels[part], classes=[0, 1])
    np.testing.assert_allclose(model.estimator_.coef_, by_hand.coef_, rtol=1e-9)
    assert model.score(scaled, y) > 0.6


def test_incremental_regression():
    X, y = chunked()
    model = Incremental(Ridge(batch_size=32), shuffle_blocks=False).fit(X, y.astype(float))
    assert model.predict(X).compute().shape == (ROWS,)


def test_a_search_of_dask_ml():
    search = GridSearchCV(LogisticRegression(), {"C": [0.01, 1.0]}, cv=2, scheduler="threads")
    search.fit(*made())
    assert set(search.best_params_) == {"C"}


# Where we are run by others


def fitted(data: Any, y: Any = None, **settings: Any) -> Array:
    coef: Array = LogisticRegression(**settings).fit(data, y).coef_
    return coef


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_workers_of_joblib(store, backend):
    X, y = made()
    found = joblib.Parallel(n_jobs=2, backend=backend)(
        [joblib.delayed(fitted)(X, y), joblib.delayed(fitted)(store)] * 2
    )
    expected = [fitted(X, y), fitted(store)] * 2
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_tasks_of_dask(store, cluster):
    expected = fitted(store)
    futures = [cluster.submit(fitted, store, pure=False) for _ in range(4)]
    for coef in cluster.gather(futures):
        np.testing.assert_array_equal(coef, expected)
    delayed = dask.delayed(fitted)(*chunked())
    np.testing.assert_allclose(delayed.compute(), fitted(*made()), rtol=1e-9)


@pytest.mark.slow
def test_dask_arrays_within_a_task_of_dask(cluster):
    def inside() -> Array:
        X, y = chunked()
        return fitted(X, y)

    np.testing.assert_allclose(cluster.submit(inside).result(300), fitted(*chunked()), rtol=1e-12)


@pytest.mark.slow
def test_the_active_client_takes_a_store_and_dask_arrays(store, cluster):
    model = LogisticRegression().fit(store)
    assert len(model.report_.memory.processes) == 3
    np.testing.assert_allclose(fitted(*chunked()), fitted(*made()), rtol=1e-9)


@pytest.mark.slow
def test_joblib_on_dask(cluster):
    with joblib.parallel_backend("dask"):
        scores = cross_val_score(LogisticRegression(), *made(), cv=3)
    assert scores.min() > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", ["full", 50])
def test_fits_of_other_sizes_at_the_same_time(store, batch_size):
    """One plan's limit must not hold for another's buffers."""
    rng = np.random.default_rng(0)
    tasks: list[tuple[Any, ...]] = [(store, None)]
    for features in (2, 40, 150):
        X = rng.standard_normal((3000, features))
        tasks.append((X, (X[:, 0] + rng.standard_normal(3000) > 0).astype(int)))
    settings: dict[str, Any] = {"batch_size": batch_size, "random_state": 0, "max_iter": 20}
    expected = [fitted(*task, **settings) for task in tasks]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda task: fitted(*task, **settings), tasks * 5))
    for i, coef in enumerate(found):
        np.testing.assert_array_equal(coef, expected[i % len(tasks)])
