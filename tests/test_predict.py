"""Predictions out of core: rows without a prediction are refused with row and column."""

from typing import Any

import dask.array
import numpy as np
import pytest
import zarr

from ooc_train import make_data
from ooc_train.errors import NonFiniteData
from ooc_train.estimators.classification import LogisticRegression
from ooc_train.estimators.regression import LinearRegression
from ooc_train.inference.predict import evaluate, predict, predict_store
from ooc_train.models.classification_models import LogisticModel
from ooc_train.models.predictor import LinearPredictor
from ooc_train.models.regression_models import LeastSquares
from ooc_train.runs.fitted import Fitted
from ooc_train.runtime import clients

ROWS, ROW, COLUMN = 120, 50, 1
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 3))
LABELS = np.where(X[:, 0] > 0, "yes", "no")
VALUES = 2.0 * X[:, 0] + RNG.normal(size=ROWS)


@pytest.fixture(autouse=True)
def _inline(monkeypatch):
    monkeypatch.setattr(clients, "inside_another_job", lambda: True)


@pytest.fixture(scope="module")
def classifier():
    return LogisticRegression().fit(X, LABELS)


@pytest.fixture(scope="module")
def regressor():
    return LinearRegression().fit(X, VALUES)


def with_value(value):
    bad = X.copy()
    bad[ROW, COLUMN] = value
    return bad


def store_of(path, rows, y=VALUES):
    group = zarr.create_group(path)
    for name, values in (("X", rows), ("y", y)):
        group.create_array(
            name, shape=values.shape, chunks=(32, *values.shape[1:]), dtype=values.dtype
        )[...] = values
    return path


BAD = [np.nan, np.inf, -np.inf]
SAID = (
    r"^row 50 has ((nan|inf|-inf) in column 1 of X; drop or fill such rows first"
    r"|nan in column 1 of X; drop or fill such rows \(--missing .* rechunk .* --missing drop)$"
)


@pytest.mark.slow
@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function"])
@pytest.mark.parametrize("name", ["classifier", "regressor"])
def test_a_row_with_a_number_that_is_none_has_no_prediction(tmp_path, request, name, method, value):
    predicts = getattr(request.getfixturevalue(name), method, None)
    if predicts is None:
        return
    store = store_of(tmp_path / "a.zarr", with_value(value))
    blocks = dask.array.from_array(with_value(value), chunks=(17, 3))
    with pytest.raises(NonFiniteData, match=SAID):
        predicts(store)
    with pytest.raises(NonFiniteData, match=SAID):
        predicts(blocks).compute(scheduler="synchronous")
    for data, ends in ((store, (".zarr", ".csv", ".parquet")), (blocks, (".zarr",))):
        for end in ends:
            with pytest.raises(NonFiniteData, match=SAID):
                predicts(data, out=tmp_path / f"out{end}")
            assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


def test_where_blocks_do_not_know_their_rows_they_count_by_themselves(classifier):
    blocks = dask.array.from_array(with_value(np.nan), chunks=(17, 3))
    unknown = blocks[dask.array.ones(ROWS, chunks=17, dtype=bool)]
    with pytest.raises(NonFiniteData, match=r"^in block 2, by its own count: row 16 has nan in c"):
        classifier.predict(unknown).compute(scheduler="synchronous")


@pytest.mark.parametrize("value", BAD)
def test_it_is_seen_whatever_the_coefficients(value):
    # Zero hides no NaN, and the infinite row would count as a hit.
    fitted = Fitted(
        LogisticModel(), LinearPredictor(np.array([[1.0, 0.0, 0.0]]), np.zeros(1)), (0, 1)
    )
    for rows in (with_value(value), np.asarray(with_value(value), np.float32)):
        with pytest.raises(NonFiniteData, match=SAID):
            predict(fitted, rows)


@pytest.mark.parametrize("value", BAD)
def test_scores_and_metrics_have_no_such_row(tmp_path, regressor, classifier, value):
    path = store_of(tmp_path / "a.zarr", with_value(value))
    labels = store_of(tmp_path / "b.zarr", with_value(value), (LABELS == "yes").astype("u1"))
    plain = LogisticRegression().fit(X, LABELS == "yes").to_fitted()
    numbers = Fitted(plain.model, plain.predictor, (0, 1))
    blocks = dask.array.from_array(with_value(value), chunks=(17, 3))
    for scored in (
        lambda: regressor.score(path),
        lambda: regressor.score(blocks, VALUES),
        lambda: classifier.score(blocks, LABELS),
        lambda: evaluate(numbers, labels),
    ):
        with pytest.raises(NonFiniteData, match=SAID):
            scored()


def test_a_prediction_that_no_float64_holds_is_refused(tmp_path):
    # The true prediction is 0; infinity less infinity would be NaN.
    rows = X.copy()
    rows[ROW] = [1e308, -9e307, 0.0]
    fitted = Fitted(LeastSquares(), LinearPredictor(np.array([[90.0, 100.0, 1.0]]), np.zeros(1)))
    said = r"^row 50 has 1e\+308 in column 0 of X, and no float64 holds its prediction; drop or"
    with pytest.raises(NonFiniteData, match=said):
        predict(fitted, rows)
    with pytest.raises(NonFiniteData, match=said):
        predict_store(fitted, store_of(tmp_path / "a.zarr", rows), tmp_path / "out.zarr")


def test_small_stores_are_shared_by_several_threads(tmp_path):
    store = make_data(tmp_path / "a.zarr", rows=1000, features=3, chunk_rows=50)
    assert store.X.shard_rows >= 1000  # one shard would be one task
    fitted = Fitted(LeastSquares(), LinearPredictor(np.ones((1, 3)), np.zeros(1)))
    predict_store(fitted, store, tmp_path / "out.zarr")
    found: Any = zarr.open_group(tmp_path / "out.zarr", mode="r")["prediction"]
    assert found.shards[0] == 250
    np.testing.assert_array_equal(found[:], predict(fitted, store))
