"""Metadata that no writer would write: one line that names the file, or the rows as they are."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from ooc_train.errors import CorruptChunk, InvalidStore
from ooc_train.store.jobs.rechunk import rechunk_store
from ooc_train.store.jobs.shuffle import shuffle_store
from ooc_train.store.opening.opener import open_store
from tests.sealing import as_earlier_release, reseal
from tests.test_bad_input import FEATURES, ROWS, foreign_store, own_store, rows
from tests.test_core_files import lay

X, Y = rows()
NUMBERS = {"X": X, "y": Y, "sample_weight": np.ones(ROWS)}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A store of each kind, to be copied."""
    folder = tmp_path_factory.mktemp("stores")
    own_store(folder / "ours")
    foreign_store(folder / "v3", **NUMBERS)
    group = zarr.create_group(folder / "v2", zarr_format=2)
    for name, values in NUMBERS.items():
        group.create_array(name, data=values, chunks=(100, *values.shape[1:]))
    group = zarr.create_group(folder / "columns")  # which the direct route doesn't read
    for name, values in NUMBERS.items():
        chunks = (100, 2)[: values.ndim]
        group.create_array(name, data=values, chunks=chunks)
    return folder


@pytest.fixture
def copied(stores, tmp_path):
    return lambda kind: shutil.copytree(stores / kind, tmp_path / f"{kind}.zarr")


def changed(path, value, *place):
    """Write a JSON file with another value at a place; `GONE` for none."""
    found = json.loads(path.read_text())
    inside = found
    for key in place[:-1]:
        inside = inside[key]
    if value is GONE:
        del inside[place[-1]]
    else:
        inside[place[-1]] = value
    path.write_text(json.dumps(found))


GONE = object()
CHUNK = ("chunk_grid", "configuration", "chunk_shape")
SHARDING = ("codecs", 0, "configuration")

LONG_TEXT = {"name": "fixed_length_utf32", "configuration": {"length_bytes": 2**40}}

OF_ARRAYS = [
    ("v3", ("shape",), "x", "shape is 'x', which is no list"),
    ("v3", ("shape",), [-1, FEATURES], r"shape\[0\] is -1, which is no whole number"),
    ("v3", ("shape",), [10**30, FEATURES], r"shape\[0\] is 10+, which is no whole"),
    ("v3", ("shape",), [ROWS], "has chunks .* of an array of 1 axes|names 2 axes of 1"),
    ("v3", ("data_type",), GONE, "data_type is missing"),
    ("v3", ("data_type",), 3, "data_type is 3, which is no object"),
    ("v3", ("data_type",), "|V8", "can't be opened as Zarr"),
    (
        "v3",
        ("data_type",),
        {"name": "fixed_length_utf32", "configuration": {"length_bytes": []}},
        "Za",
    ),
    ("v3", ("chunk_grid",), {"name": "regular"}, "chunk_grid.configuration is None"),
    ("v3", ("chunk_grid", "name"), "ragged", "can't be opened as Zarr"),
    ("v3", CHUNK, [0, FEATURES], r"chunk_shape\[0\] is 0, which is no whole number from 1"),
    ("v3", CHUNK, [32], r"has chunks \[32\] of an array of 2 axes"),
    ("v3", CHUNK, [float("nan"), FEATURES], r"chunk_shape\[0\] is nan"),
    ("v3", ("codecs",), [], "codecs has 0 items"),
    ("v3", ("codecs",), ["feature"], "can't be opened as Zarr"),
    ("v3", ("codecs", 0, "name"), GONE, r"codecs\[0\].name is missing"),
    ("v3", ("codecs", 0, "configuration"), "x", "configuration is 'x', which is no object"),
    ("v3", ("chunk_key_encoding",), {}, "chunk_key_encoding.name is missing"),
    ("v3", ("chunk_key_encoding", "configuration"), {"separator": "../"}, "Zarr"),
    ("v3", ("dimension_names",), 3, "dimension_names is 3, which is no list"),
    ("v3", ("dimension_names",), [3, None], r"dimension_names\[0\] is 3, which is no text"),
    ("v3", ("attributes",), [], r"attributes is \[\], which is no object"),
    ("v3", ("attributes", "_FillValue"), 10**400, ""),
    ("v3", ("attributes", "_FillValue"), {}, "_FillValue={}, which is no value"),
    ("v3", ("attributes", "valid_min"), -(10**400), ""),
    ("v3", ("attributes", "_Unsigned"), [], r"_Unsigned=\[\]"),
    ("v3", ("attributes", "_ARRAY_DIMENSIONS"), 3, "has 3 for the names of its axes"),
    ("v3", ("attributes", "_nczarr_array"), {"dimrefs": {}}, "has {} for the names of its axes"),
    ("v3", ("zarr_format",), 4, "zarr_format is 4, which is no 3"),
    ("v3", ("node_type",), "folder", "node_type is 'folder', which is no one of 'array', 'group'"),
    ("ours", (*SHARDING, "chunk_shape"), [33, FEATURES], "of chunks .33, 3., and not whole ones"),
    ("ours", (*SHARDING, "codecs"), GONE, "sharding_indexed.configuration.codecs is missing"),
    ("ours", (*SHARDING, "index_codecs"), ["feature"], "X"),
    ("v2", ("shape",), None, "shape is None, which is no list"),
    ("v2", ("chunks",), [0, FEATURES], r"chunks\[0\] is 0, which is no whole number from 1"),
    ("v2", ("chunks",), [100], r"has chunks \[100\] of an array of 2 axes"),
    ("v2", ("dtype",), "|O", "can't be opened as Zarr"),
    ("v2", ("dtype",), [], "can't be opened as Zarr"),
    ("v2", ("compressor",), {"id": "pickle"}, "can't be opened as Zarr"),
    ("v2", ("filters",), 3, "can't be opened as Zarr"),
    ("v2", ("zarr_format",), True, "zarr_format is True, which is no 2"),
]


@pytest.mark.parametrize(("kind", "place", "value", "message"), OF_ARRAYS)
def test_metadata_of_an_array_are_refused_or_true(copied, kind, place, value, message):
    path = copied(kind)
    changed(path / "X" / (".zarray" if kind == "v2" else "zarr.json"), value, *place)
    if kind == "ours":
        reseal(path)
    if not message:
        np.testing.assert_array_equal(open_store(path).read("X"), X)
        return
    with pytest.raises(InvalidStore, match=message) as caught:
        open_store(path).read("X")
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text


OF_MANIFESTS = [
    (("n_rows",), -1, "attributes.n_rows is -1"),
    (("n_rows",), 10**400, "attributes.n_rows is a number of 1,329 bits"),
    (("format_version",), "1", "attributes.format_version is '1'"),
    (("feature_names",), 3, "attributes.feature_names is 3"),
    (("classes",), [[0], [1]], r"attributes.classes\[0\] is \[0\]"),
    (("classes",), [0, 0], "the manifest names no class, or one twice"),
    (("class_counts",), [1], "counts the rows of 1 class, and names 2"),
    (("shuffled",), "x", "attributes.shuffled is 'x'"),
    (("attributes",), None, "attributes.attributes is None"),
    (("recipe",), "x", "attributes.recipe is 'x'"),
    (("statistics",), {}, "attributes.statistics.mean is missing"),
    (("statistics", "mean"), ["0"] * FEATURES, r"statistics.mean\[0\] is '0'"),
    (("statistics", "mean"), [0.0], "has statistics of"),
    (("statistics", "scale"), [float("nan")] * FEATURES, r"statistics.scale\[0\] is nan"),
    (("statistics", "scale"), [-1.0] * FEATURES, "has a scale that is less than 0"),
    (("statistics", "weight"), [], r"statistics.weight is \[\]"),
]


@pytest.mark.parametrize(("place", "value", "message"), OF_MANIFESTS)
def test_a_manifest_of_other_values_is_refused(copied, place, value, message):
    path = copied("ours")
    changed(path / "zarr.json", value, "attributes", *place)
    reseal(path)
    with pytest.raises(InvalidStore, match=message) as caught:
        open_store(path)
    assert str(path) in str(caught.value)


def read_all(path, **settings):
    store = open_store(path, **settings)
    return store.read("X"), store.read("y")


@pytest.mark.timeout(30)
@pytest.mark.parametrize("what", ["folder", "pipe", "device"])
@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("ours", "zarr.json"),
        ("ours", "X/zarr.json"),
        ("ours", "X/c/0/0"),
        ("v3", "y/zarr.json"),
        ("v3", "y/c/0"),
        ("columns", "X/c/0/0"),
        ("v2", ".zgroup"),
        ("v2", "X/.zarray"),
        ("v2", "X/.zattrs"),
        ("v2", "X/0.0"),
    ],
)
@pytest.mark.parametrize("fill_missing", [False, True])
def test_what_is_no_file_is_refused_without_waiting(copied, kind, file, what, fill_missing):
    path = copied(kind)
    (path / file).unlink()
    lay(path / file, what)
    with pytest.raises((InvalidStore, CorruptChunk), match=rf"is a {what}, and no file") as caught:
        read_all(path, fill_missing=fill_missing)
    assert str(path / Path(file).parts[0]) in str(caught.value)
    assert Path(file).name in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "file"), [("v3", "X/c/0/0"), ("v2", "X/0.0"), ("ours", "X/c/0/0")]
)
def test_a_chunk_of_a_terabyte_is_not_taken_in(copied, kind, file):
    path = copied(kind)
    os.truncate(path / file, 10**12)
    with pytest.raises(CorruptChunk, match=r"1,000,000,000,000 bytes|checksum"):
        open_store(path).read("X")


@pytest.mark.parametrize("kind", ["v3", "v2"])
def test_an_array_without_its_metadata_is_not_left_out(copied, kind):
    path = copied(kind)
    (path / "sample_weight" / ("zarr.json" if kind == "v3" else ".zarray")).unlink()
    with pytest.raises(InvalidStore, match=r"sample_weight has no metadata of Zarr, and the store"):
        open_store(path)
    assert open_store(path, sample_weight=None).n_rows == ROWS


def test_deep_metadata_are_refused_in_a_line(copied):
    path = copied("v3")
    Path(path, "zarr.json").write_text('{"a":' * 100_000)
    with pytest.raises(InvalidStore, match=r"v3.zarr/zarr.json "):
        open_store(path)


@pytest.mark.parametrize("rewrite", [rechunk_store, shuffle_store])
def test_a_store_of_ours_that_others_encoded_anew_is_rewritten(copied, tmp_path, rewrite):
    # As the first release wrote it, whose manifest has no checksums; in chunks that zarr reads.
    path = as_earlier_release(copied("ours"))
    shutil.rmtree(path / "X")
    zarr.open_group(path).create_array("X", data=X, chunks=(100, 2))
    made, _ = rewrite(path, tmp_path / "out.zarr")
    found = made.read("X")
    if made.row_id is not None:
        found = found[np.argsort(made.read("row_id"))]
    np.testing.assert_array_equal(found, X)
