"""y and weights that are passed apart from a store, in every form: the answers of one store."""

import gc
import os
from pathlib import Path
from typing import Any

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from ooc_train.core.temporary_folders import in_scratch, scratch_folder
from ooc_train.errors import CeilingExceeded, InvalidRun, InvalidStore, NonFiniteData
from ooc_train.estimators import LinearRegression, LogisticRegression, Ridge
from ooc_train.experiments.tradeoff import tradeoff
from ooc_train.inference.predict import evaluate
from ooc_train.inference.raw_files import evaluate_files
from ooc_train.models.regression_models import RidgeModel
from ooc_train.runtime.cluster import LocalCluster
from ooc_train.solvers.training_settings import Training
from ooc_train.store.opening.opener import open_store
from ooc_train.stream import labels_and_weights
from ooc_train.stream.inputs import read_inputs
from ooc_train.training.loop import train
from ooc_train.training.planning import plan
from tests.streams import write_store

ROWS = 700
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 3))
Y = X @ [1.0, -2.0, 0.5] + RNG.normal(size=ROWS)
LABELS = np.where(np.greater(Y, 0.3), "yes", "no")
WEIGHT = RNG.uniform(0.5, 2.0, ROWS)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """X in a store of its own, with and without a y that is not meant; y and weights elsewhere."""
    folder = tmp_path_factory.mktemp("labels_and_weights")
    write_store(folder / "X", X, chunk_rows=64, feature_names=("a", "b", "c"))
    write_store(folder / "own", X, -Y, np.ones(ROWS), chunk_rows=64, shuffled=7)
    for name, values in (("numbers", Y), ("weights", WEIGHT), ("bare", X), ("two", np.c_[Y, -Y])):
        made = zarr.create_array(
            folder / name, shape=values.shape, dtype="f8", chunks=(100, *values.shape[1:])
        )
        made[...] = values
    write_store(folder / "classes", X, (LABELS == "yes").astype(int), classes=("no", "yes"))
    write_store(folder / "due", X, Y, WEIGHT, chunk_rows=64)
    return folder


FORMS = ("array", "strided", "list", "series", "path", "text", "zarr", "dask", "dask series")


def formed(form: str, values: Any, path: Path) -> Any:
    """Values in a form that can be passed; at a path they lie already."""
    of_memory = {
        "array": lambda: values,
        "strided": lambda: np.repeat(values, 2, axis=0)[::2],
        "list": lambda: values.tolist(),
        "series": lambda: pd.Series(values, index=np.arange(ROWS)[::-1]),
        "dask": lambda: da.from_array(values, chunks=((1, 99, 250, 0, 350),)),
        "dask series": lambda: dd.from_pandas(pd.Series(values), npartitions=3),
    }
    at_rest = {
        "path": lambda: path,
        "text": lambda: str(path),
        "zarr": lambda: zarr.open_array(path, mode="r"),
    }
    return (of_memory | at_rest)[form]()


@pytest.mark.slow
@pytest.mark.parametrize("data", ["X", "bare", "own"])
@pytest.mark.parametrize("form", FORMS)
def test_values_of_any_form_are_those_that_are_read(places, form, data):
    y = formed(form, Y, places / "numbers")
    weight = formed(form, WEIGHT, places / "weights")
    inputs = read_inputs(places / data, y, weight, classifier=False)
    store = inputs.store
    assert store is not None
    np.testing.assert_array_equal(store.read("y"), Y)
    np.testing.assert_array_equal(store.read("sample_weight"), WEIGHT)
    np.testing.assert_array_equal(store.read("X"), X)


cuts = st.lists(st.integers(0, ROWS), max_size=6).map(sorted)


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(cuts)
def test_dask_arrays_however_they_are_cut(places, cuts):
    blocks = tuple(np.diff([0, *cuts, ROWS]).tolist())
    y = da.from_array(LABELS, chunks=(blocks,))
    inputs = read_inputs(places / "X", y, da.from_array(WEIGHT, chunks=(blocks,)), classifier=True)
    assert inputs.store is not None
    assert inputs.classes == ("no", "yes")
    np.testing.assert_array_equal(inputs.store.read("y"), LABELS == "yes")
    np.testing.assert_array_equal(inputs.store.read("sample_weight"), WEIGHT)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["array", "path", "dask"])
def test_the_answer_is_that_of_one_store(places, form):
    y = formed(form, Y, places / "numbers")
    weight = formed(form, WEIGHT, places / "weights")
    due, model = Ridge().fit(places / "due"), Ridge().fit(places / "bare", y, weight)
    np.testing.assert_allclose(model.coef_, due.coef_, rtol=1e-12)
    assert model.intercept_ == pytest.approx(due.intercept_)
    assert model.score(places / "bare", y, weight) == pytest.approx(due.score(places / "due"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["own", "X"])
def test_the_engine_takes_them_too(places, name):
    data, due = places / name, train(RidgeModel(), places / "due")[0]
    fitted, report = train(RidgeModel(), data, y=Y, sample_weight=WEIGHT)
    np.testing.assert_allclose(fitted.coef, due.coef, rtol=1e-12)
    metrics, _ = evaluate(fitted, data, y=Y, sample_weight=places / "weights")
    expected, _ = evaluate(due, places / "due")
    assert metrics.pop("residuals").mae == pytest.approx(expected.pop("residuals").mae)
    assert metrics == pytest.approx(expected)
    assert plan(RidgeModel(), data, y=places / "numbers", sample_weight=WEIGHT).fits
    trials = tradeoff(RidgeModel(), data, (50, "full"), training=Training(max_iter=1), y=Y).frame
    assert trials["loss"]["full"] == pytest.approx(
        np.var(Y - Ridge().fit(X, Y).predict(X)) / 2, rel=1e-9
    )
    replaced = "was passed apart, and replaces"
    shuffled = "in the order of the store, whose rows were shuffled (seed 7)"
    assert sum(replaced in note for note in report.notes) == (2 if name == "own" else 0)
    assert sum(shuffled in note for note in report.notes) == (2 if name == "own" else 0)


@pytest.mark.slow
def test_what_is_not_passed_is_the_stores_own(places):
    weighted = write_store(places / "weighted", X, Y, WEIGHT, chunk_rows=64)
    model = Ridge().fit(weighted, -Y)
    np.testing.assert_allclose(model.coef_, -Ridge().fit(places / "due").coef_, rtol=1e-12)
    twice = Ridge(standardize=True).fit(weighted, sample_weight=3 * WEIGHT[::-1])
    due = Ridge(standardize=True).fit(X, Y, 3 * WEIGHT[::-1])
    np.testing.assert_allclose(twice.coef_, due.coef_, rtol=1e-9)
    same = Ridge().fit(weighted, sample_weight=2.0)
    np.testing.assert_allclose(same.coef_, Ridge().fit(X, Y, 2.0).coef_, rtol=1e-9)


LABELLED = {
    "text": LABELS,
    "objects": LABELS.astype(object),
    "numbers": np.where(LABELS == "yes", 7, -3),
    "bytes of numbers": np.where(LABELS == "yes", 7, -3).astype("i1"),
    "booleans": LABELS == "yes",
    "column": LABELS[:, None],
    "dask": da.from_array(LABELS, chunks=((0, 300, 400),)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LABELLED)
def test_labels_of_any_type(places, name):
    y = LABELLED[name]
    model = LogisticRegression(tol=1e-8).fit(places / "X", y)
    flat = np.asarray(y).ravel()
    due = LogisticRegression(tol=1e-8).fit(X, flat)
    assert model.classes_.tolist() == due.classes_.tolist()
    assert model.classes_.dtype.kind == due.classes_.dtype.kind
    np.testing.assert_allclose(model.coef_, due.coef_, rtol=1e-6)
    assert model.score(places / "X", y) == due.score(X, flat)
    np.testing.assert_array_equal(model.predict(places / "X"), due.predict(X))


@pytest.mark.slow
def test_another_store_brings_the_names_of_its_classes(places):
    for y in (places / "classes", places / "classes" / "y", open_store(places / "classes")):
        model = LogisticRegression().fit(places / "bare", y)
        assert model.classes_.tolist() == ["no", "yes"]
        np.testing.assert_array_equal(
            model.predict(places / "bare") == "yes", model.predict(X) == "yes"
        )
        in_memory = LogisticRegression().fit(X, y)
        assert in_memory.classes_.tolist() == ["no", "yes"]


@pytest.mark.slow
def test_text_at_rest(places):
    zarr.create_array(places / "text", data=LABELS.astype("U3"), chunks=(100,), zarr_format=2)
    due = LogisticRegression(tol=1e-8).fit(X, LABELS)
    for data in (places / "bare", X, da.from_array(X, chunks=(200, 3))):
        model = LogisticRegression(tol=1e-8).fit(data, places / "text")
        assert model.classes_.tolist() == ["no", "yes"]
        np.testing.assert_allclose(model.coef_, due.coef_, rtol=1e-6)
        assert model.score(data, places / "text") == pytest.approx(due.score(X, LABELS))


def test_several_outputs(places):
    for y in (np.c_[Y, -Y], places / "two", da.from_array(np.c_[Y, -Y], chunks=(300, 1))):
        model = LinearRegression().fit(places / "X", y)
        assert model.coef_.shape == (2, 3)
        np.testing.assert_allclose(model.coef_[1], -model.coef_[0], rtol=1e-9)


@pytest.mark.slow
def test_partial_fit(places):
    due = LogisticRegression(batch_size=20, random_state=0)
    due.partial_fit(X, LABELS, classes=["no", "yes"])
    for y in (LABELS, da.from_array(LABELS, chunks=100)):
        model = LogisticRegression(batch_size=20, random_state=0)
        model.partial_fit(places / "bare", y, classes=["no", "yes"])
        assert model.classes_.tolist() == ["no", "yes"]
        np.testing.assert_allclose(model.coef_, due.coef_, rtol=1e-9)
        assert model.score(places / "bare", y) == due.score(X, LABELS)
    unseen = LogisticRegression().partial_fit(places / "bare", LABELS)
    with pytest.raises(ValueError, match="label 'other', which is not one of the classes"):
        unseen.partial_fit(places / "bare", np.where(np.arange(ROWS) == 5, "other", LABELS))


@pytest.mark.slow
def test_x_in_memory_or_of_dask_takes_arrays_at_rest(places):
    due = Ridge().fit(X, Y, WEIGHT)
    rows = da.from_array(X, chunks=(200, 3))
    for data in (X, rows):
        for y in (places / "numbers", zarr.open_array(places / "numbers", mode="r")):
            model = Ridge().fit(data, y, str(places / "weights"))
            np.testing.assert_allclose(model.coef_, due.coef_, rtol=1e-9)
            assert model.score(data, y) == pytest.approx(due.score(X, Y))


def refused(where: Path, **given: Any) -> Any:
    return read_inputs(where, classifier=False, **given)


def test_what_does_not_go_with_x_is_refused_with_both_figures(places):
    figures = "X has 700 rows and y has 699"
    cut = da.from_array(Y[:699], chunks=100)
    unknown = cut[cut > -100]
    for y in (Y[:699], Y[:699].tolist(), cut, unknown):
        with pytest.raises(ValueError, match=figures):
            refused(places / "X", y=y)
    with pytest.raises(ValueError, match="X has 700 rows and sample_weight has 10"):
        refused(places / "X", y=Y, sample_weight=WEIGHT[:10])
    short = zarr.create_array(places / "short", data=Y[:9])
    with pytest.raises(InvalidStore, match=r"X has 700 rows, and y \(.*short\) has 9"):
        refused(places / "X", y=short)
    with pytest.raises(ValueError, match=r"sample_weight has shape \(700, 2\); give one number"):
        refused(places / "X", y=Y, sample_weight=np.ones((ROWS, 2)))
    with pytest.raises(ValueError, match="y is one number, and X has 700 rows"):
        refused(places / "X", y=np.float64(3))
    with pytest.raises(ValueError, match=r"y has shape \(700, 2\): labels are one column"):
        read_inputs(places / "X", np.c_[Y, Y], classifier=True)
    with pytest.raises(InvalidStore, match="X has no y to go with"):
        refused(places / "bare", y=open_store(places / "X"))
    with pytest.raises(InvalidStore, match=r"X has no y"):
        refused(places / "X")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_cannot_be_learned_from_are_refused_with_their_row(places, bad):
    at = np.arange(ROWS) == 301
    with pytest.raises(NonFiniteData, match=r"y has (nan|inf) in row 301"):
        refused(places / "X", y=np.where(at, bad, Y))
    with pytest.raises(NonFiniteData, match=r"row 301 has (nan|inf) in sample_weight"):
        refused(places / "X", y=Y, sample_weight=np.where(at, bad, WEIGHT))
    with pytest.raises(ValueError, match="row 301 has the weight -1; weights are >= 0"):
        refused(places / "X", y=Y, sample_weight=np.where(at, -1, WEIGHT))
    with pytest.raises(ValueError, match=r"if y is a number .* --model ridge, or Ridge in Python"):
        read_inputs(places / "X", Y, classifier=True)
    with pytest.raises(ValueError, match="one class only"):
        read_inputs(places / "X", np.ones(ROWS), classifier=True)


@pytest.mark.parametrize(
    ("y", "classifier", "message"),
    [
        (np.ma.masked_array(Y, np.arange(ROWS) == 301), False, "row 301 has a masked value in y"),
        ([*Y[:301], None, *Y[302:]], False, "row 301 has None in y"),
        ([*LABELS[:301], None, *LABELS[302:]], True, "row 301 has None in y"),
        (LABELS, False, "y holds what is no number"),
        (np.datetime64("2026-01-01") + np.arange(ROWS), False, "y holds dates or durations"),
        (np.datetime64("2026-01-01") + np.arange(ROWS), True, "y holds dates or durations"),
        (["a", *range(ROWS - 1)], True, "labels of several kinds"),
    ],
)
def test_kinds_that_are_no_numbers_or_labels_are_refused(places, y, classifier, message):
    with pytest.raises(ValueError, match=message):
        read_inputs(places / "X", y, classifier=classifier)


@pytest.mark.slow
def test_a_recipe_makes_features_and_no_target_of_another_y(flights, tmp_path):
    """Raw files have the target of the store, which is not what was learned."""
    store = open_store(flights[0])
    model = Ridge().fit(store, store.read("X")[:, 0])
    raw = Path(__file__).parent.parent / "data" / "flights.parquet"
    model.predict_files(raw, tmp_path / "p.csv")
    assert len(pd.read_csv(tmp_path / "p.csv")) > store.n_rows
    with pytest.raises(InvalidRun, match="has no target to compare with"):
        evaluate_files(model, raw)


def test_temporary_arrays_are_gone_with_the_inputs(places):
    inputs = refused(places / "X", y=Y, sample_weight=WEIGHT)
    assert inputs.store is not None
    assert inputs.store.y is not None
    path = inputs.store.y.path
    assert in_scratch(path)
    assert os.path.isdir(path)
    # Read as X is: directly, a chunk a partition.
    assert inputs.store.y.direct
    assert inputs.store.y.chunk_rows == inputs.source.partition_rows == 64
    del inputs
    gc.collect()
    assert not os.path.exists(os.path.dirname(os.path.dirname(path)))


def test_nothing_lasting_is_written_by_a_refusal(places, monkeypatch):
    made = []

    def folder(owner):
        made.append(scratch_folder(owner))
        return made[-1]

    monkeypatch.setattr(labels_and_weights, "scratch_folder", folder)
    with pytest.raises(CeilingExceeded, match="a piece of y, which was passed apart"):
        refused(places / "X", y=Y, memory_ceiling="1MiB")
    with pytest.raises(NonFiniteData):
        refused(places / "X", y=np.full(ROWS, np.nan))
    gc.collect()
    assert made
    assert not any(map(os.path.exists, made))


@pytest.mark.slow
def test_workers_of_other_machines_are_reported(places):
    with (
        LocalCluster(
            n_workers=1, memory_ceiling="1GiB", dashboard_address="127.0.0.1:0"
        ) as cluster,
        cluster.get_client(),
    ):
        model = Ridge().fit(places / "X", Y, WEIGHT)
        np.testing.assert_allclose(model.coef_, Ridge().fit(X, Y, WEIGHT).coef_, rtol=1e-9)
        memory = model.report_.memory
        assert memory.measured <= memory.projected <= memory.ceiling == 2**30
        inputs = refused(places / "X", y=Y)
        assert inputs.store is not None
        assert inputs.store.y is not None
        os.rename(inputs.store.y.path, inputs.store.y.path + ".away")
        with pytest.raises(ValueError, match=r"temporary folder of this machine, .*can read"):
            train(RidgeModel(), inputs)
