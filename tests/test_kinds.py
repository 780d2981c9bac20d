"""Kinds of objects and values: what is taken as numbers or labels, and how the rest is refused."""

import datetime as dt
from typing import Any

import dask
import dask.array
import dask.bag
import dask.dataframe
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import zarr
from hypothesis import given
from hypothesis import strategies as st

from ooc_train.errors import NonFiniteData
from ooc_train.estimators.classification import LogisticRegression
from ooc_train.estimators.regression import LinearRegression, Ridge
from ooc_train.runtime import clients
from ooc_train.stream.classes import codes_of
from ooc_train.stream.kinds import as_labels, as_numbers, require_arrays

ROWS = 60
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 3))
Y = (X[:, 0] + RNG.normal(size=ROWS) > 0).astype(int)
D = dask.array.from_array(X, chunks=((17, 0, 40, 3), 3))
DATES = np.datetime64("2020-01-01") + np.arange(ROWS * 3).reshape(ROWS, 3)
FRAME = pd.DataFrame(X, columns=["a", "b", "c"])
DAYS = pd.date_range("2020", periods=ROWS)


@pytest.fixture(autouse=True, scope="module")
def _inline():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clients, "inside_another_job", lambda: True)
        yield


def objects(function):
    return np.array([function(code) for code in Y.tolist()], object)


def lazy(values):
    return dask.array.from_array(np.asarray(values), chunks=25)


def at(row, value, values):
    changed = np.asarray(values, object).copy()
    changed[row] = value
    return changed


# ---------------------------------------------------------------------------------------- labels


@pytest.mark.slow
@pytest.mark.parametrize(
    ("y", "classes", "kind"),
    [
        (objects(int), [0, 1], "i"),
        (objects(bool), [False, True], "b"),
        (objects(np.int8), [0, 1], "i"),
        (objects(lambda code: 2**53 + code), [2**53, 2**53 + 1], "i"),
        (objects(lambda code: 2**63 + code), [2**63, 2**63 + 1], "u"),
        (objects(lambda code: 1.0 if code else 2), [1, 2], "if"),
        (Y + np.int64(2**53), [2**53, 2**53 + 1], "i"),
        (Y.astype(np.uint64) + np.uint64(2**63), [2**63, 2**63 + 1], "u"),
        (pd.Series(Y).astype("Int64"), [0, 1], "i"),
        (pd.Series(Y == 1).astype("boolean"), [False, True], "b"),
        (pd.Series(np.where(Y, "b", "a")).astype("string"), ["a", "b"], "OU"),
        (pd.Series(np.where(Y, "b", "a")).astype("category"), ["a", "b"], "OU"),
    ],
)
def test_labels_are_what_their_objects_are(y, classes, kind):
    expected = LogisticRegression().fit(X, Y)
    swapped = isinstance(y, np.ndarray) and y[Y == 1][0] < y[Y == 0][0]
    for data, labels in ((X, y), (D, lazy(y))):
        found = LogisticRegression().fit(data, labels)
        assert found.classes_.tolist() == classes
        assert found.classes_.dtype.kind in kind
        np.testing.assert_allclose(
            found.coef_, -expected.coef_ if swapped else expected.coef_, rtol=1e-5
        )
        predicted = np.asarray(found.predict(data)).tolist()
        assert predicted == found.classes_[expected.predict(X) ^ swapped].tolist()
        assert found.score(data, labels) == pytest.approx(expected.score(X, Y))


@pytest.mark.parametrize("first", [2**53, 2**63])
def test_labels_of_a_store_are_told_apart_beyond_what_float64_holds(tmp_path, first):
    y = Y.astype(np.uint64) + np.uint64(first)
    group = zarr.create_group(tmp_path / "a.zarr")
    for name, values in (("X", X), ("y", y if first > 2**62 else y.astype(np.int64))):
        group.create_array(
            name, shape=values.shape, dtype=values.dtype, chunks=(16, *values.shape[1:])
        )[...] = values
    found = LogisticRegression().fit(tmp_path / "a.zarr")
    assert found.classes_.tolist() == [first, first + 1]
    expected = LogisticRegression().fit(X, Y)
    due = [first + code for code in expected.predict(X).tolist()]
    assert found.predict(tmp_path / "a.zarr").tolist() == due
    assert found.score(tmp_path / "a.zarr") == expected.score(X, Y)


@pytest.mark.slow
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, unique=True), st.data())
def test_codes_of_large_labels_are_places(labels, data):
    y = data.draw(st.lists(st.sampled_from(labels), max_size=20))
    assert codes_of(np.array(labels), np.array(y, np.int64)).tolist() == [
        labels.index(value) for value in y
    ]


def test_codes_of_labels_of_another_type_of_number_are_places():
    labels, y = np.array([2**63, 3], np.uint64), np.array([3, 3], np.int64)
    assert codes_of(labels, y).tolist() == [1, 1]
    assert codes_of(np.array([-1, 3]), np.array([3], np.uint8)).tolist() == [1]


MIXED = r"^y holds labels of several kinds, such as .* in row \d+ and .* in row \d+; make them one"


@pytest.mark.parametrize(
    ("y", "error", "said"),
    [
        (at(37, None, Y), NonFiniteData, "^row 37 has None in y; drop or fill"),
        (at(37, pd.NA, Y), NonFiniteData, "^row 37 has <NA> in y; drop or fill"),
        (at(37, np.nan, Y), NonFiniteData, "^row 37 has nan in y; drop or fill"),
        (at(37, None, np.where(Y, "b", "a")), NonFiniteData, "^row 37 has None in y"),
        (at(37, "a", Y), ValueError, MIXED),
        (at(37, True, Y), ValueError, MIXED),
        (objects(lambda code: 2**70 + code), ValueError, "which no one type of number holds"),
        (objects(lambda code: 2**53 + 1 if code else 0.0), ValueError, "no one type of number"),
        (objects(lambda code: frozenset([code])), ValueError, "y holds labels of type frozenset"),
        (np.where(Y, b"b", b"a"), ValueError, r"y is of \|S1, and labels are .*astype\(str\)"),
        (Y + 1j, ValueError, "^Complex data not supported: y is of complex128"),
        (np.ma.masked_array(Y, np.arange(ROWS) == 37), NonFiniteData, "^row 37 has a masked val"),
    ],
)
def test_labels_that_are_none_are_refused_alike_in_memory_and_in_blocks(y, error, said):
    blocks = dask.array.from_array(y, chunks=25)
    for data, labels in ((X, y), (D, blocks)):
        with pytest.raises(error, match=said):
            LogisticRegression().fit(data, labels)
        with pytest.raises(error, match=said):
            LogisticRegression().partial_fit(data, labels, classes=[0, 1])


def test_lists_of_mixed_labels_are_no_text():
    with pytest.raises(ValueError, match=MIXED):
        LogisticRegression().fit(X, ["a", *Y.tolist()[1:]])
    assert as_labels(["b", "a"]).dtype.kind == "U"


def test_text_of_any_length_is_text():
    """NumPy's StringDType, as zarr-python hands out text, which scikit-learn does not take."""
    text = np.where(Y > 0, "yes", "no")
    y = text.astype(np.dtypes.StringDType())
    model = LogisticRegression().fit(X, y)
    assert model.classes_.tolist() == ["no", "yes"]
    assert model.score(X, y) == LogisticRegression().fit(X, text).score(X, text)
    missing = y.astype(np.dtypes.StringDType(na_object=None))
    missing[7] = None
    with pytest.raises(NonFiniteData, match="row 7"):
        LogisticRegression().fit(X, missing)


def test_kinds_that_differ_between_blocks_are_mixed():
    y = dask.array.concatenate([lazy(objects(int)[:30]), lazy(objects(str)[30:])])
    with pytest.raises(ValueError, match=MIXED):
        LogisticRegression().fit(D, y)


def test_labels_and_classes_that_are_objects_learn_block_by_block():
    by_block = LogisticRegression(batch_size=5)
    for rows in (slice(0, 30), slice(30, 60)):
        by_block.partial_fit(X[rows], objects(int)[rows], classes=np.array([0, 1], object))
    assert by_block.classes_.tolist() == [0, 1]
    assert by_block.score(X, objects(int)) > 0.6


# --------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("value", [None, pd.NA])
def test_outcomes_and_weights_that_are_missing_are_named_by_their_row(value):
    bad = at(37, value, np.ones(ROWS))
    with pytest.raises(NonFiniteData, match=r"^row 37 has (None|<NA>) in y"):
        Ridge().fit(X, bad)
    with pytest.raises(NonFiniteData, match=r"^row 37 has (None|<NA>) in y"):
        Ridge().fit(D, lazy(bad))
    with pytest.raises(NonFiniteData, match=r"^row 37 has (None|<NA>) in sample_weight"):
        Ridge().fit(D, X[:, 0], lazy(bad))


@pytest.mark.parametrize("model", [Ridge, LogisticRegression])
def test_a_weight_of_a_dask_array_that_is_none_is_named_by_its_row(model):
    weight = np.ones(ROWS)
    weight[37] = np.nan
    with pytest.raises(NonFiniteData, match=r"^row 37 has nan in sample_weight"):
        model().fit(D, Y, lazy(weight))
    scalar, ones = (model().fit(D, Y, weight) for weight in (2.0, np.full(ROWS, 2.0)))
    np.testing.assert_array_equal(scalar.coef_, ones.coef_)


def test_masked_rows_are_not_taken_for_what_lies_below():
    masked = np.ma.masked_array(X, np.zeros(X.shape, bool))
    np.testing.assert_array_equal(
        Ridge().fit(masked, Y).coef_, Ridge().fit(dask.array.from_array(masked), Y).coef_
    )
    masked[37, 1] = np.ma.masked
    fitted, blocks = Ridge().fit(X, Y), dask.array.from_array(masked, chunks=25)
    for act in (
        lambda: Ridge().fit(masked, Y),
        lambda: Ridge().fit(blocks, Y),
        lambda: fitted.predict(masked),
        lambda: fitted.predict(blocks).compute(scheduler="synchronous"),
    ):
        with pytest.raises(NonFiniteData, match=r"^row 37 has a masked value in column 1 of X"):
            act()


def test_objects_and_text_that_are_numbers_are_numbers():
    expected = Ridge().fit(X, Y)
    for same in (X.astype(object), X.astype(str)):
        blocks = dask.array.from_array(same, chunks=(25, 3))
        np.testing.assert_allclose(Ridge().fit(blocks, Y).coef_, expected.coef_, rtol=1e-12)
        np.testing.assert_allclose(expected.predict(blocks), expected.predict(X), rtol=1e-12)
    with pytest.raises(ValueError, match=r"^X holds what is no number: could not convert string"):
        as_numbers(np.array([["a"]]), "X", np.float64)
    with pytest.raises(ValueError, match=r"^X holds complex numbers .* X\.real"):
        Ridge().fit(D + 1j, Y)


# ----------------------------------------------------------------------------------------- dates

SAID = r"^{} holds dates or durations .*{}and as numbers they would depend on their unit; give par"
TABLES: dict[str, Any] = {
    "days": DATES,
    "nanoseconds": DATES.astype("M8[ns]"),
    "durations": DATES - DATES[0],
    "objects": DATES.astype(object),
    "NumPy's objects": np.array([[np.datetime64("2020")] * 3] * ROWS, object),
    "list": DATES.tolist(),
}
FRAMES = {
    "frame": FRAME.assign(b=DAYS),
    "zone": FRAME.assign(b=DAYS.tz_localize("UTC")),
    "duration": FRAME.assign(b=DAYS - DAYS[0]),
    "period": FRAME.assign(b=DAYS.to_period("D")),
    "objects": FRAME.assign(b=[dt.date(2020, 1, 1)] * ROWS),
}


@pytest.mark.parametrize("name", TABLES)
def test_dates_in_x_are_refused(name):
    values, fitted = TABLES[name], LinearRegression().fit(X, Y)
    blocks = dask.array.from_array(np.asarray(values), chunks=(25, 3))
    for act in (
        lambda: Ridge().fit(values, Y),
        lambda: Ridge().fit(blocks, Y),
        lambda: Ridge().partial_fit(values, Y),
        lambda: fitted.predict(values),
        lambda: fitted.predict(blocks).compute(scheduler="synchronous"),
        lambda: fitted.score(values, Y),
    ):
        with pytest.raises(ValueError, match=SAID.format("X", "")):
            act()


@pytest.mark.parametrize("name", FRAMES)
def test_dates_in_a_frame_are_refused_with_their_column(name):
    for act in (Ridge().fit, Ridge().partial_fit, Ridge().fit(FRAME, Y).score):
        with pytest.raises(ValueError, match=SAID.format("X", "in column 'b', ")):
            act(FRAMES[name], Y)


@pytest.mark.parametrize("model", [Ridge, LogisticRegression])
@pytest.mark.parametrize("values", [DATES[:, 0], DAYS - DAYS[0], DAYS.to_series(index=range(ROWS))])
def test_dates_in_y_and_weights_are_refused(model, values):
    for data, given_as in ((X, values), (D, lazy(values))):
        with pytest.raises(ValueError, match=SAID.format("y", "")):
            model().fit(data, given_as)
        with pytest.raises(ValueError, match=SAID.format("sample_weight", "")):
            model().fit(data, Y, given_as)


# ---------------------------------------------------------------------------------------- frames


def named(module, name, **attributes):
    """An object of a class of another library, as it is known here: by module and name."""
    made = type(name, (), {"__module__": module, "__dask_graph__": lambda _: None} | attributes)
    return made()


DASK_FRAME = dask.dataframe.from_pandas(FRAME, npartitions=3)
DASK_SERIES = dask.dataframe.from_pandas(pd.Series(Y), npartitions=3)
OBJECTS = {
    "DataFrame of Dask": (DASK_FRAME, r"X\.to_dask_array\(lengths=True\)"),
    "Bag of Dask": (dask.bag.from_sequence([1, 2]), r"X\.to_dataframe\(\)\.to_dask_array"),
    "DelayedLeaf of Dask": (dask.delayed(X), r"dask\.array\.from_delayed\(X, shape, dtype\)"),
    "LazyFrame of polars": (named("polars.lazyframe.frame", "LazyFrame"), r"X\.collect\(\)"),
    "DataArray of xarray": (named("xarray.core.dataarray", "DataArray"), r"X\.data, with rows fir"),
    "Dataset of xarray": (named("xarray.core.dataset", "Dataset"), r"X\[variable\]\.data, with ro"),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_frames_are_told_what_makes_an_array_of_them(tmp_path, name):
    values, makes = OBJECTS[name]
    classifier, regressor = LogisticRegression().fit(X, Y), Ridge().fit(X, Y)
    for act in (
        lambda: LogisticRegression().fit(values, Y),
        lambda: LogisticRegression().partial_fit(values, Y, classes=[0, 1]),
        lambda: classifier.predict(values),
        lambda: classifier.predict(values, out=tmp_path / "out.zarr"),
        lambda: classifier.predict_proba(values),
        lambda: classifier.score(values, Y),
        lambda: regressor.score(values, Y),
        lambda: Ridge().plan(values, Y),
    ):
        with pytest.raises(TypeError, match=f"^X is a {name}, which is no array; {makes}"):
            act()


def test_a_series_of_dask_beside_a_dask_array():
    for act in (Ridge().fit, Ridge().partial_fit, Ridge().fit(X, Y).score):
        with pytest.raises(TypeError, match=r"^y is a Series of Dask.*y\.to_dask_array\(lengths=T"):
            act(D, DASK_SERIES)
    with pytest.raises(TypeError, match=r"^sample_weight is a Series of Dask"):
        Ridge().fit(D, Y, DASK_SERIES)
    # Rows in memory take it as NumPy does.
    np.testing.assert_array_equal(Ridge().fit(X, DASK_SERIES).coef_, Ridge().fit(X, Y).coef_)
    with pytest.raises(TypeError, match=r"^y is a DelayedLeaf of Dask"):
        Ridge().fit(X, dask.delayed(Y))


def test_lengths_that_are_not_known_are_asked_for():
    for arguments in ((D, DASK_SERIES.values), (D, Y, DASK_SERIES.values)):
        name = "y" if len(arguments) == 2 else "sample_weight"
        said = rf"^the Dask array {name} does not know its rows; call {name}\.compute_chunk_sizes"
        with pytest.raises(ValueError, match=said):
            LogisticRegression().fit(*arguments)


@pytest.mark.parametrize("says_so", [True, False])
def test_sparse_blocks_are_refused(says_so):
    meta = {} if says_so else {"meta": np.zeros((0, 0))}
    blocks = D.map_blocks(scipy.sparse.csr_array, dtype=float, **meta)
    said = r"^X is a Dask array of blocks of csr_array, which are sparse.*block\.toarray\(\)"
    with pytest.raises(TypeError, match=said):
        Ridge().fit(blocks, Y)
    with pytest.raises(TypeError, match=said):
        Ridge().fit(X, Y).predict(blocks).compute(scheduler="synchronous")


def test_no_rows_are_too_few(tmp_path):
    for act in (
        lambda: LogisticRegression().fit(D[:0], Y[:0]),
        lambda: LogisticRegression().partial_fit(D[:0], Y[:0], classes=[0, 1]),
        lambda: Ridge().fit(X, Y).score(D[:0], Y[:0]),
        lambda: Ridge().fit(X, Y).predict(D[:0], out=tmp_path / "out.zarr"),
    ):
        with pytest.raises(ValueError, match=r"^X has 0 rows and 3 columns; give some of both"):
            act()
    with pytest.raises(ValueError, match=r"^X has 60 rows and 0 columns; give some of both"):
        Ridge().fit(D[:, :0], Y)
    assert Ridge().fit(X, Y).predict(D[:0]).compute().shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((D[:, 0], Y), r"^X has shape \(60,\); give one row a sample"),
        ((D, np.stack([Y, Y], axis=1)), r"^y has shape \(60, 2\): labels are one column"),
        ((D, Y[:, None, None]), r"^y has shape \(60, 1, 1\); give one row a sample"),
        ((D, Y, np.ones((ROWS, 1))), r"^sample_weight has shape \(60, 1\); give one number a row"),
        ((D, Y[1:]), r"^X has 60 rows and y has the shape \(59,\)"),
    ],
)
def test_shapes_that_do_not_fit_a_dask_array(arguments, said):
    with pytest.raises(ValueError, match=said):
        LogisticRegression().fit(*arguments)


def test_what_is_usable_is_let_through():
    for values in (X, FRAME, X.tolist(), D, scipy.sparse.csr_array(X)):
        require_arrays(values, Y, np.ones(ROWS))
