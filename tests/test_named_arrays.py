"""Arrays outside of their store: found by name, path, URL or object, or refused."""

import os

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from ooc_train import cli
from ooc_train.errors import InvalidStore, StoreNotFound
from ooc_train.models.regression_models import RidgeModel
from ooc_train.runs.run_loading import load_fitted
from ooc_train.runtime.cluster import LocalCluster
from ooc_train.store.jobs.rechunk import rechunk_store
from ooc_train.store.jobs.rewriting_commands import rechunk_command, shuffle_command
from ooc_train.store.jobs.shuffle import shuffle_store
from ooc_train.store.jobs.store_records import arrays_of
from ooc_train.store.opening.opener import open_store
from ooc_train.training.loop import train
from tests.sealing import edit
from tests.streams import write_store

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
Y = X @ [1.0, -2.0, 0.5] + 3
CODES = np.arange(60) * 7 % 3 % 2
WEIGHT = RNG.uniform(0.5, 2.0, 60)


def group(path, zarr_format=3, **arrays):
    made = zarr.create_group(path, zarr_format=zarr_format)
    for name, values in arrays.items():
        made.create_array(
            name,
            data=values,
            chunks=(20, *values.shape[1:]),
            config={"write_empty_chunks": True},
        )
    return made


@pytest.fixture
def two(tmp_path, monkeypatch):
    """X in one group, y and weights in another, under names of their own; called from here."""
    monkeypatch.chdir(tmp_path)
    group(tmp_path / "one", X=X)
    return group(tmp_path / "two", target=Y, y=CODES, w=WEIGHT)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    "place",
    [
        "../two/target",
        "two/target",
        "./two/target",
        "HERE/two/target",
        "file://HERE/two/target",
        "array",
    ],
)
def test_an_array_is_found_by_any_way_to_it(tmp_path, monkeypatch, place, zarr_format):
    monkeypatch.chdir(tmp_path)
    group(tmp_path / "one", zarr_format, X=X)
    made = group(tmp_path / "two", zarr_format, target=Y)
    given = made["target"] if place == "array" else place.replace("HERE", str(tmp_path))
    for path in ("one", "one/X"):
        # From an array, paths begin there too.
        if path == "one/X" and place.startswith("../"):
            given = "../" + place
        store = open_store(path, y=given)
        assert store.y is not None
        assert store.y.path == str(tmp_path / "two" / "target")
        np.testing.assert_array_equal(store.read("y"), Y)


def test_names_in_the_group_come_first_and_the_default_is_looked_for_there_alone(two, tmp_path):
    group(tmp_path / "y", y=Y)
    assert open_store("one").y is None
    group(tmp_path / "three", X=X, two=Y)
    assert open_store("three", y="two").path == str(tmp_path / "three")
    np.testing.assert_array_equal(open_store("three", y="two").read("y"), Y)


def test_a_group_stands_for_its_array_of_that_role(two):
    np.testing.assert_array_equal(open_store("one", y="../two").read("y"), CODES)
    with pytest.raises(InvalidStore, match=r"two is a group without an array 'X' \(it has 'ta"):
        open_store("one", X="../two")


def test_another_store_of_ours_brings_its_classes_and_counts_its_rows(two, tmp_path):
    write_store(tmp_path / "ours", X, CODES, classes=("no", "yes"))
    for place in ("ours", "ours/y", zarr.open_array(tmp_path / "ours" / "y")):
        store = open_store("one", y=place)
        assert store.classes == ("no", "yes")
        assert store.class_counts == tuple(np.bincount(CODES).tolist())
    edit(tmp_path / "ours", n_rows=50)
    with pytest.raises(InvalidStore, match=r"X has 60 rows, and y \(.*ours/y\) has 50"):
        open_store("one", y="ours")


def test_what_the_manifest_knows_goes_with_the_array_that_it_knows_it_of(two, tmp_path):
    ours = write_store(
        tmp_path / "ours",
        X,
        CODES,
        WEIGHT,
        classes=("no", "yes"),
        feature_names=("a", "b", "c"),
        recipe={"target": {"name": "late"}, "columns": []},
    )
    for name, values in (("X2", X[:, :2]), ("y2", Y), ("w2", WEIGHT[::-1].copy())):
        zarr.open_group(tmp_path / "ours").create_array(
            name, data=values, chunks=(20, 2)[: values.ndim]
        )
    by_y = open_store("ours", y="y2")
    assert (by_y.classes, by_y.class_counts) == (None, None)
    assert by_y.statistics is not None
    assert by_y.recipe == {"target": None, "columns": []}
    by_weight = open_store("ours", sample_weight="w2")
    assert (by_weight.statistics, by_weight.classes) == (None, ours.classes)
    by_X = open_store("ours", X="X2")
    assert (by_X.feature_names, by_X.statistics, by_X.recipe) == (None, None, None)
    assert (by_X.classes, by_X.n_features) == (ours.classes, 2)
    assert by_X.row_id == ours.row_id
    elsewhere = open_store("one", X="../ours")
    assert (elsewhere.feature_names, elsewhere.y) == (("a", "b", "c"), None)


def test_weights_that_are_named_are_those_that_count(two, tmp_path):
    """The statistics of a store hold for its own weights, and were used for any."""
    write_store(tmp_path / "ours", X, Y, np.ones(60))
    weight = np.where(np.arange(60) < 30, 1e-3, 5.0)
    zarr.open_group(tmp_path / "ours").create_array("w2", data=weight, chunks=(20,))
    fitted, _ = train(RidgeModel(standardize=True), open_store("ours", sample_weight="w2"))
    write_store(tmp_path / "due", X, Y, weight)
    due, _ = train(RidgeModel(standardize=True), "due")
    np.testing.assert_allclose(fitted.coef, due.coef, rtol=1e-12)


def test_what_is_not_there_is_refused_with_what_is(two):
    with pytest.raises(InvalidStore, match=r"two has no array 'X' \(it has 'target', 'w', 'y'\)"):
        open_store("two")
    with pytest.raises(InvalidStore, match=r"one has no array 'label' \(it has 'X'\); name"):
        open_store("one", y="label")
    with pytest.raises(StoreNotFound, match="there is nothing at /nowhere/y"):
        open_store("one", y="/nowhere/y")
    with pytest.raises(InvalidStore, match="is an array, so it is X itself"):
        open_store("one/X", X="../X")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": Y[:59]}, r"X has 60 rows, and y \(.*more/y\) has 59"),
        ({"y": Y.reshape(60, 1, 1)}, r"more/y: y has shape \(60, 1, 1\)"),
        ({"sample_weight": X}, r"more/sample_weight: sample_weight has shape \(60, 3\)"),
        ({"sample_weight": WEIGHT[:10]}, r"X has 60 rows, and sample_weight \(.*\) has 10"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_with_both_figures(two, tmp_path, arrays, message):
    group(tmp_path / "more", **arrays)
    weight = "../more/sample_weight" if "sample_weight" in arrays else None
    with pytest.raises(InvalidStore, match=message):
        open_store("one", y="../more/y" if "y" in arrays else None, sample_weight=weight)


def test_a_store_is_written_anew_with_the_arrays_that_were_named(two, tmp_path):
    source = open_store("one", y="../two/target", sample_weight="../two/w")
    for write in (rechunk_store, shuffle_store):
        made, _ = write(source, tmp_path / f"{write.__name__}.zarr")
        order = made.read("row_id") if made.row_id is not None else np.arange(60)
        np.testing.assert_array_equal(made.read("X"), X[order])
        np.testing.assert_array_equal(made.read("y"), Y[order])
        np.testing.assert_array_equal(made.read("sample_weight"), WEIGHT[order])
        for out in ("two", "two/w", "."):
            with pytest.raises(ValueError, match="that is read; write to another place"):
                write(source, out, overwrite=True)


def test_commands_that_are_advised_name_the_same_arrays(two, tmp_path):
    group(tmp_path / "o'ne", data=X, target=Y)
    source = open_store("o'ne", X="data", y="target", sample_weight="two/w")
    for command in (rechunk_command, shuffle_command):
        told = command(source.path, arrays_of(source))
        assert told.endswith(f" --x data --y target --weight {tmp_path}/two/w")
    bare = open_store("one/X")
    assert "--x" not in rechunk_command(bare.path, arrays_of(bare))


# The command line


@pytest.fixture(scope="module")
def scheduler():
    """The address of a cluster, which saves a command starting its own."""
    with LocalCluster(n_workers=1, dashboard_address="127.0.0.1:0") as cluster:
        yield cluster.scheduler_address


def here(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.mark.slow
def test_every_command_that_opens_a_store_takes_names(two, tmp_path, scheduler):
    group(tmp_path / "a", data=X, target=Y, w=WEIGHT)
    named = ("--x", "data", "--y", "target", "--weight", "w")
    assert "a has no array 'X' (it has 'data', 'target', 'w')" in here("info", "a").stderr
    for command in (
        ("info", "a"),
        ("plan", "a", "--model", "ridge"),
        ("train", "a", "--model", "ridge", "--out", "a.run"),
        ("train", "a", "--model", "ridge", "--validation", "a"),
        ("evaluate", "a.run", "a"),
        ("shuffle", "a", "shuffled.zarr"),
        ("rechunk", "a", "rechunked.zarr"),
        ("tradeoff", "a", "--model", "ridge", "--batch-sizes", "20,full", "--max-iter", "1"),
    ):
        on = ("--scheduler", scheduler) if command[0] not in ("info", "shuffle", "rechunk") else ()
        result = here(*command, *named, *on, "--quiet")
        assert result.exit_code == 0, (command, result.stderr)
    result = here("predict", "a.run", "a", "p.csv", "--x", "data")
    assert result.exit_code == 0, result.stderr
    due, _ = train(RidgeModel(), write_store(tmp_path / "due", X, Y, WEIGHT))
    np.testing.assert_allclose(load_fitted("a.run").coef, due.coef, rtol=1e-9)
    np.testing.assert_array_equal(open_store("rechunked.zarr").read("sample_weight"), WEIGHT)
    assert "weights   none" in here("info", "a", *named[:4]).stdout
    assert "weights   none" in here("info", "rechunked.zarr", "--no-weights").stdout


def test_what_cannot_be_named_is_refused(two, tmp_path):
    (tmp_path / "a.csv").write_text("a\n1\n")
    write_store(tmp_path / "ours", X, Y)
    train(RidgeModel(), "ours", out="a.run")
    for command, message in (
        (("evaluate", "a.run", "a.csv", "--y", "b"), "not for raw files"),
        (("predict", "a.run", "a.csv", "p.csv", "--x", "b"), "not for raw files"),
        (("info", "one", "--y", "label"), "one has no array 'label' (it has 'X')"),
        (("info", "two", "--x", "w"), "X has shape (60,)"),
        (("info", "one", "--weight", "two/w", "--no-weights"), "leave one of them out"),
    ):
        result = here(*command)
        assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
        assert message in result.stderr


def test_validation_rows_have_arrays_of_their_own(two, tmp_path):
    """A path from here would be the y of the rows that are learned from, for both."""
    group(tmp_path / "other", X=X[::-1].copy())
    missing, apart = f"there is nothing at {tmp_path}/other/two/target", "rows of its own"
    for place, told in (("two/target", missing), (os.path.abspath("two/target"), apart)):
        command = ("train", "one", "--model", "ridge", "--y", place, "--validation", "other")
        result = here(*command, "--quiet")
        assert result.exit_code == 1, result.stdout
        assert told in result.stderr


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_arrays_within_groups_are_listed_with_how_to_name_them(tmp_path, zarr_format):
    made = zarr.create_group(tmp_path / "a.zarr", zarr_format=zarr_format)
    made.create_array("measured/values", data=X, chunks=X.shape)
    made.create_array("measured/kind", data=CODES, chunks=CODES.shape)
    listed = r"it has 'measured/kind', 'measured/values'\); name the array that is X"
    with pytest.raises(InvalidStore, match=listed + ", or its path, as X=NAME"):
        open_store(tmp_path / "a.zarr")
    told = CliRunner().invoke(cli.app, ["info", str(tmp_path / "a.zarr")])
    assert "as --x NAME" in " ".join(told.stderr.split())
    found = open_store(tmp_path / "a.zarr", X="measured/values", y="measured/kind")
    assert found.n_rows == len(X)
