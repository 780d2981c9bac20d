"""What other writers mean by attributes and names of axes: decoded or refused, in both formats."""

import base64
import math
import struct
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import MemoryStore

from ooc_train.errors import InvalidStore, NonFiniteData
from ooc_train.models.classification_models import LogisticModel
from ooc_train.models.regression_models import RidgeModel
from ooc_train.runtime import clients
from ooc_train.solvers.training_settings import Training
from ooc_train.store.format.conventions import decode_attributes
from ooc_train.store.format.dimensions import require_rows_first
from ooc_train.store.opening import nodes
from ooc_train.store.opening.opener import open_store
from ooc_train.store.reading.chunks import ChunkReader
from ooc_train.training.loop import train

ROWS, COLUMNS, CHUNK = 64, 8, 16
X = np.random.default_rng(0).integers(-100, 100, (ROWS, COLUMNS))
Y = np.arange(ROWS) % 3
BOTH = pytest.mark.parametrize("zarr_format", [2, 3])


@pytest.fixture(autouse=True)
def inline(monkeypatch):
    monkeypatch.setattr(clients, "inside_another_job", lambda: True)


def group(folder, zarr_format=3, name="a", **arrays):
    """Write a group of arrays: (values, attributes, further settings) by name."""
    made = zarr.create_group(folder / f"{name}.zarr", zarr_format=zarr_format)
    for role, (values, attributes, *further) in arrays.items():
        chunks = (CHUNK, *values.shape[1:])
        more = further[0] if further else {}
        with zarr.config.set({"array.write_empty_chunks": True}):
            made.create_array(role, data=values, chunks=chunks, attributes=attributes, **more)
    return str(folder / f"{name}.zarr")


def double(value):
    """A float as xarray writes it into attributes in format 3."""
    return base64.standard_b64encode(struct.pack("<d", value)).decode()


def xarray_fill(zarr_format, dims, value, dtype):
    """(attributes, settings) by which xarray declares a missing value of its arrays."""
    if zarr_format == 2:
        return {"_ARRAY_DIMENSIONS": list(dims)}, {"fill_value": value}
    code = double(value) if np.dtype(dtype).kind == "f" else value
    return {"_FillValue": code}, {"dimension_names": dims}


def read(layout):
    """All values of an array."""
    out = np.empty(layout.shape, layout.dtype)
    with ChunkReader(layout) as reader:
        reader.read_rows(0, layout.n_rows, out)
    return out


# Missing values


@BOTH
@pytest.mark.parametrize(("dtype", "fill"), [("i2", -32768), ("f4", -9999.0), ("f8", 1e20)])
def test_a_fill_value_of_xarray_is_refused_where_it_is_met(tmp_path, zarr_format, dtype, fill):
    values = X.astype(dtype)
    values[37, 5] = fill
    about = xarray_fill(zarr_format, ("sample", "feature"), fill, dtype)
    store = open_store(group(tmp_path, zarr_format, X=(values, *about), y=(Y, {})))
    with pytest.raises(NonFiniteData, match=r"row 37 has -?[\d.e+]+ in column 5 of X") as caught:
        train(LogisticModel(), store, Training(max_iter=1))
    assert ("fill_value" if zarr_format == 2 else "_FillValue") in str(caught.value)
    assert open_store(store.path, X="X").X.missing_values is not None


@BOTH
def test_a_fill_value_that_no_row_holds_changes_no_bit(tmp_path, zarr_format):
    about = xarray_fill(zarr_format, ("sample", "feature"), -9999.0, "f4")
    values = X.astype("f4")
    declared = group(tmp_path, zarr_format, "a", X=(values, *about), y=(Y, {}))
    plain = group(tmp_path, zarr_format, "b", X=(values, {}), y=(Y, {}))
    model, training = LogisticModel(), Training(max_iter=3)
    coef, due = (train(model, path, training)[0].coef for path in (declared, plain))
    np.testing.assert_array_equal(coef, due)


@BOTH
def test_a_masked_y_gains_no_class(tmp_path, zarr_format):
    y = Y.astype("i4")
    y[[20, 50]] = -1
    about = xarray_fill(zarr_format, ("sample",), -1, "i4")
    path = group(tmp_path, zarr_format, X=(X.astype("f4"), {}), y=(y, *about))
    with pytest.raises(NonFiniteData, match=r"row 20 has -1 in y, which the array's "):
        train(LogisticModel(), path, Training(max_iter=1))
    with pytest.raises(NonFiniteData, match=r"row 20 has -1 in y"):
        train(RidgeModel(), path)


def test_missing_weights(tmp_path):
    weight = np.ones(ROWS, "f8")
    weight[3] = -1
    path = group(tmp_path, X=(X, {}), y=(Y, {}), sample_weight=(weight, {"missing_value": -1}))
    with pytest.raises(NonFiniteData, match=r"row 3 has -1.0 in sample_weight.*missing_value"):
        train(LogisticModel(), path, Training(max_iter=1))


def test_the_zarr_fill_value_of_other_arrays_is_a_number(tmp_path):
    """Format 3, and format 2 of others than xarray: a fill value is what was not written."""
    for zarr_format in (2, 3):
        path = group(tmp_path, zarr_format, f"{zarr_format}", X=(X * 0, {}, {"fill_value": 0}))
        assert open_store(path).X.missing_values is None
        assert not read(open_store(path).X).any()


# Signedness


@BOTH
@pytest.mark.parametrize("sharded", [False, True])
def test_unsigned_numbers_in_signed_types(tmp_path, zarr_format, sharded):
    values = (X % 251).astype("u1")
    shards = {"shards": (2 * CHUNK, COLUMNS)} if sharded and zarr_format == 3 else {}
    for i, attributes in enumerate(
        ({"_Unsigned": "true"}, {"_Unsigned": "true", "_FillValue": -1})
    ):
        path = group(tmp_path, zarr_format, f"{i}", X=(values.view("i1"), attributes, shards))
        np.testing.assert_array_equal(read(open_store(path).X), values)
    values[9, 2] = 255
    path = group(tmp_path, zarr_format, "c", X=(values.view("i1"), attributes, shards))
    with pytest.raises(NonFiniteData, match="row 9 has 255 in column 2 of X"):
        read(open_store(path).X)


def test_signed_numbers_in_unsigned_types(tmp_path):
    path = group(tmp_path, X=(X.astype("i1").view("u1"), {"_Unsigned": "false"}))
    np.testing.assert_array_equal(read(open_store(path).X), X)


# Axes


@BOTH
@pytest.mark.parametrize(
    ("of_X", "of_y", "message"),
    [
        (("feature", "sample"), ("sample",), r"X has the dimensions \('feature', 'sample'\)"),
        (("feature", "sample"), None, r"write it transposed, as X.transpose\('sample'"),
        (("b", "a"), ("a",), "rows come first"),
        (("var", "obs"), ("obs",), "rows come first"),
        (("time", "band"), ("station",), "'time' of X, 'station' of y"),
        (("a", "b"), ("a",), None),
        (("band", "pixel"), ("band",), None),
        (("sample", "feature"), ("sample",), None),
        (("x", "y"), None, None),
        (None, ("sample",), None),
        ((None, "feature"), ("sample",), None),
    ],
)
def test_rows_come_first_by_the_names_of_axes(tmp_path, zarr_format, of_X, of_y, message):
    square = np.arange(64.0).reshape(8, 8)

    def named(dims):
        if dims is None:
            return {}, {"fill_value": None} if zarr_format == 2 else {}
        if zarr_format == 2:
            return {"_ARRAY_DIMENSIONS": list(dims)}, {"fill_value": None}
        return {}, {"dimension_names": dims}

    path = group(tmp_path, zarr_format, X=(square, *named(of_X)), y=(np.arange(8), *named(of_y)))
    if message is None:
        assert open_store(path).n_rows == 8
        return
    with pytest.raises(InvalidStore, match=message):
        open_store(path)
    if of_X == ("feature", "sample"):
        with pytest.raises(InvalidStore, match=message):
            open_store(f"{path}/X")
        with pytest.raises(InvalidStore, match="rows come first"):
            open_store(path, y=None)


def test_outputs_that_lie_transposed(tmp_path):
    axes = {"dimension_names": ("output", "sample")}
    for dims in (None, ("sample", "feature")):
        of_y: tuple[Any, ...] = (np.eye(ROWS), {}, axes)
        path = group(tmp_path, name=str(dims), X=(X, {}, {"dimension_names": dims}), y=of_y)
        with pytest.raises(InvalidStore, match=r"y has the dimensions \('output', 'sample'\)"):
            open_store(path)


def test_axes_of_arrays_that_are_named(tmp_path):
    axes = {"dimension_names": ("a", "b")}
    y = np.arange(ROWS)
    others: dict[str, Any] = {name: (y, {}, {"dimension_names": (name,)}) for name in "abc"}
    path = group(tmp_path, data=(np.eye(ROWS), {}, axes), **others)
    assert open_store(path, X="data", y="a").n_rows == ROWS
    for name, message in (("b", "rows come first"), ("c", "'a' of X, 'c' of y")):
        with pytest.raises(InvalidStore, match=message):
            open_store(path, X="data", y=name)


def test_axes_that_netcdf_names(tmp_path):
    attributes = {"_nczarr_array": {"dimrefs": ["/feature", "/sample"], "storage": "chunked"}}
    with pytest.raises(InvalidStore, match="rows come first"):
        open_store(group(tmp_path, 2, X=(X, attributes)))


@given(st.permutations(["sample", "feature"]), st.sampled_from([None, "sample", "feature"]))
def test_every_order_of_axes(of_X, of_y):
    dimensions = {"X": tuple(of_X), "y": None if of_y is None else (of_y,)}
    right = of_X[0] == ("sample" if of_y is None else of_y)
    if right:
        require_rows_first("a", dimensions)
        return
    with pytest.raises(InvalidStore, match="rows come first"):
        require_rows_first("a", dimensions)


# Every attribute of CF

REFUSED = {
    "scale_factor": 0.1,
    "add_offset": 5,
    "calendar": "noleap",
    "units": "days since 2000-01-01",
    "dtype": "timedelta64[ns]",
    "flag_masks": [1, 2],
    "compress": "lat lon",
    "categories": "__categories/cell",
}
MISSING = {
    "_FillValue": 7,
    "missing_value": [5, 7],
    "valid_range": [-100, 6],
    "valid_min": 8,
    "valid_max": 6,
}
HARMLESS = {
    "actual_range": [0, 9],
    "ancillary_variables": "a",
    "axis": "X",
    "bounds": "b",
    "cell_measures": "area: a",
    "cell_methods": "time: mean",
    "climatology": "c",
    "comment": "7",
    "coordinates": "lat lon",
    "grid_mapping": "crs",
    "history": "made",
    "long_name": "7 days since then",
    "positive": "up",
    "references": "7",
    "source": "7",
    "standard_name": "air_temperature",
    "title": "7",
    "units": "days",
    "encoding-type": "array",
}
UNREADABLE = {"_FillValue": "seven", "missing_value": {}, "valid_range": 3, "_Unsigned": "perhaps"}
NUMBERS = st.sampled_from(["i1", "i2", "i4", "i8", "u1", "u2", "f2", "f4", "f8"])


def array_of(zarr_format, dtype, attributes, sharded=False):
    """An array of the numbers 8 to 15 but for one 7 in row 3, column 1, in memory."""
    values = np.full((8, 2), 9, dtype)
    values[3, 1] = 7
    return zarr.create_array(
        MemoryStore(),
        data=values,
        chunks=(2, 2),
        shards=(4, 2) if sharded and zarr_format == 3 else None,
        zarr_format=zarr_format,
        attributes=attributes,
    )


def read_array(array):
    """What a reader hands out of an array that zarr-python has open."""
    return read(nodes.Node("a", None, array).layout("X"))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([*REFUSED.items(), *UNREADABLE.items()]), st.sampled_from([2, 3]), NUMBERS)
def test_attributes_that_give_values_another_meaning_are_refused(attribute, zarr_format, dtype):
    array = array_of(zarr_format, dtype, dict([attribute]))
    with pytest.raises(InvalidStore, match=attribute[0]):
        read_array(array)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([*MISSING.items()]), st.sampled_from([2, 3]), NUMBERS, st.booleans())
def test_attributes_that_declare_values_missing_are_decoded(attribute, zarr_format, dtype, sharded):
    array = array_of(zarr_format, dtype, dict([attribute]), sharded)
    row = 0 if attribute[0] in ("valid_range", "valid_max") else 3
    with pytest.raises(NonFiniteData, match=rf"row {row} has .* of X, which .*{attribute[0]}"):
        read_array(array)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from(sorted(HARMLESS)), st.none(), min_size=1),
    st.sampled_from([2, 3]),
    NUMBERS,
)
def test_attributes_that_tell_of_values_change_none(names, zarr_format, dtype):
    array = array_of(zarr_format, dtype, {name: HARMLESS[name] for name in names})
    np.testing.assert_array_equal(read_array(array), array[:])


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["i1", "u1", "i2", "u2", "i8"]),
    st.sampled_from([None, "true", "false"]),
    st.integers(-(2**15), 2**16 - 1),
)
def test_fill_values_compare_by_their_bits(dtype, unsigned, fill):
    """A value of the type at rest means the same bits in the type that is meant."""
    at_rest = np.dtype(dtype)
    attributes = {"_FillValue": fill} | ({} if unsigned is None else {"_Unsigned": unsigned})
    meant, declared = decode_attributes(attributes, at_rest, "a")
    assert meant.itemsize == at_rest.itemsize
    limits = np.iinfo(at_rest)
    if limits.min <= fill <= limits.max:
        assert declared is not None
        as_meant = np.array(fill, at_rest).view(meant)[()]
        assert declared.missing == (("_FillValue", as_meant),)
    elif declared is not None:
        assert declared.missing == (("_FillValue", fill),)


@given(st.floats(width=32))
def test_floats_in_attributes_of_format_3(value):
    for said in (double(value), value):
        _, declared = decode_attributes({"_FillValue": said}, np.dtype("f4"), "a")
        if math.isnan(value):
            assert declared is None
        else:
            assert declared is not None
            assert declared.missing == (("_FillValue", value),)
