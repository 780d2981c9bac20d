"""Missing values of a store that is rewritten: rows that are dropped, values that are filled."""

import shlex
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.testing import assert_allclose, assert_array_equal

from ooc_train import (
    LogisticModel,
    Training,
    open_store,
    rechunk_store,
    shuffle_store,
    train,
    verify_store,
)
from ooc_train.errors import CeilingExceeded, NonFiniteData
from ooc_train.runtime import clients

RNG = np.random.default_rng(0)
ROWS, FEATURES = 5_000, 4
X = RNG.normal(3, 2, (ROWS, FEATURES)).astype("f4")
HOLES = RNG.random(X.shape) < [0.02, 0.3, 0.0, 0.0]
HOLES[7] = [True, True, False, False]
Y = (X[:, 2] > 3).astype("i8")
WEIGHT = RNG.uniform(0, 2, ROWS)


def foreign(path, values=None, y=Y, attributes=None, **more):
    """A store of another writer."""
    group = zarr.open_group(path, mode="w")
    values = np.where(HOLES, np.float32(np.nan), X) if values is None else values
    arrays = {"X": values, "y": y, "sample_weight": WEIGHT} | more
    for name, each in arrays.items():
        made = group.create_array(
            name, data=each, chunks=(300, *each.shape[1:]), config={"write_empty_chunks": True}
        )
        if name == "X" and attributes:
            made.attrs.update(attributes)
    return path


def rewritten(path, out, missing, **settings):
    """The new store, and what was told."""
    told: list[str] = []
    made, _ = rechunk_store(path, out, missing=missing, warn=told.append, **settings)
    verify = verify_store(made)
    assert verify.damages == ()
    return made, told


@pytest.mark.parametrize("chunk_rows", [64, 7, None])
def test_dropped_rows_leave_the_others_with_their_numbers(tmp_path, chunk_rows):
    path = foreign(tmp_path / "a.zarr")
    made, told = rewritten(path, tmp_path / "b.zarr", "drop", chunk_rows=chunk_rows)
    kept = np.flatnonzero(~HOLES.any(axis=1))
    assert len(kept) < 4000
    for name, due in (("X", X), ("y", Y), ("sample_weight", WEIGHT), ("row_id", np.arange(ROWS))):
        assert_array_equal(made.read(name), due[kept], strict=False)
    assert f"{ROWS - len(kept):,} rows with missing values left out" in told[0]
    mean = np.average(X[kept], axis=0, weights=WEIGHT[kept])
    assert_allclose(made.statistics.mean, mean, rtol=1e-6)


def test_rows_keep_the_ids_that_they_have(tmp_path):
    whole, _ = rechunk_store(foreign(tmp_path / "a.zarr", X), tmp_path / "ids.zarr", missing="drop")
    y = np.where(HOLES[:, 0], np.nan, Y * 2.5)
    zarr.open_group(tmp_path / "other", mode="w").create_array("y", data=y)
    source = open_store(whole.path, y="../other/y")
    assert source.statistics is not None
    made, _ = rewritten(source, tmp_path / "b.zarr", "drop")
    kept = np.flatnonzero(~HOLES[:, 0])
    assert_array_equal(made.read("row_id"), kept)
    assert_array_equal(made.read("y"), y[kept])
    # The statistics of all rows are not those of the rows that are left.
    assert made.statistics.weight == pytest.approx(WEIGHT[kept].sum())


@pytest.mark.parametrize("kind", ["f4", "f8", "f2"])
@pytest.mark.parametrize("missing", ["mean", "median"])
def test_filled_values_are_those_of_the_column(tmp_path, missing, kind):
    values = np.where(HOLES, np.nan, X).astype(kind)
    path = foreign(tmp_path / "a.zarr", values)
    made, told = rewritten(path, tmp_path / "b.zarr", missing)
    fill = getattr(np, f"nan{missing}")(values.astype("f8"), axis=0)
    due = np.where(HOLES, fill, values).astype(kind)
    assert_allclose(made.read("X"), due, rtol=1e-6 if kind != "f2" else 1e-3)
    assert_array_equal(made.read("X")[~HOLES], values[~HOLES])
    assert (made.n_rows, made.row_id) == (ROWS, None)
    assert f"{HOLES.sum():,} missing values replaced by the {missing} of the column" in told[0]
    assert made.statistics.minimum[2] == values[:, 2].min()


def test_a_median_of_few_values_and_of_images(tmp_path):
    values = np.where(HOLES, np.nan, X).reshape(ROWS, 2, 2)
    values[:, 0, 1] = np.nan
    values[10:13, 0, 1] = [5, 1, 2]
    made, _ = rewritten(foreign(tmp_path / "a.zarr", values), tmp_path / "b.zarr", "median")
    assert made.row_shape == (2, 2)
    assert_array_equal(np.unique(made.read("X")[:, 0, 1]), [1, 2, 5])
    assert np.median(made.read("X")[:, 0, 1]) == 2


def test_what_metadata_declare_to_be_missing(tmp_path):
    values = np.where(HOLES, -999, X * 100).astype("i2")
    marked = {"_FillValue": -999, "_ARRAY_DIMENSIONS": ["row", "column"], "valid_min": -900}
    path = foreign(tmp_path / "a.zarr", values, attributes=marked)
    with pytest.raises(
        NonFiniteData, match=r"mean or median\): ooc-train rechunk .* --missing drop$"
    ):
        train(LogisticModel(), path)
    made, _ = rewritten(path, tmp_path / "b.zarr", "drop")
    assert_array_equal(made.read("X"), values[~HOLES.any(axis=1)])
    with pytest.raises(ValueError, match=r"fills X of int16 with fractions.*missing='drop'"):
        rechunk_store(path, tmp_path / "c.zarr", missing="mean")


@pytest.mark.parametrize("missing", ["drop", "mean", "median"])
def test_infinity_is_no_missing_value(tmp_path, missing):
    values = np.where(HOLES, np.float32(np.nan), X)
    values[4321, 2] = -np.inf
    path = foreign(tmp_path / "a.zarr", values)
    for job in (rechunk_store, shuffle_store):
        with pytest.raises(NonFiniteData, match="row 4321 has -inf in column 2 of X, and infin"):
            job(path, tmp_path / "b.zarr", missing=missing)
    assert not (tmp_path / "b.zarr").exists()


@pytest.mark.parametrize("missing", ["mean", "median"])
def test_what_cannot_be_filled(tmp_path, missing):
    y = np.where(np.arange(ROWS) == 3456, np.nan, Y)
    with pytest.raises(NonFiniteData, match=r"row 3456 has no y.*missing='drop'"):
        rechunk_store(foreign(tmp_path / "a.zarr", y=y), tmp_path / "b.zarr", missing=missing)
    values = X.copy()
    values[:, 1] = np.nan
    path = foreign(tmp_path / "a.zarr", values)
    with pytest.raises(ValueError, match="column 1 of X has no value in any row"):
        rechunk_store(path, tmp_path / "b.zarr", missing=missing)
    with pytest.raises(ValueError, match=r"every row of .* has a missing value"):
        rechunk_store(path, tmp_path / "b.zarr", missing="drop")
    wrong: Any = "zero"
    with pytest.raises(ValueError, match="missing='zero' is none of 'error', 'drop'"):
        rechunk_store(path, tmp_path / "b.zarr", missing=wrong)
    assert not (tmp_path / "b.zarr").exists()


@pytest.mark.parametrize("missing", ["drop", "median"])
def test_a_shuffle_treats_them_alike(tmp_path, missing):
    path = foreign(tmp_path / "a.zarr")
    due, _ = rewritten(path, tmp_path / "b.zarr", missing)
    told: list[str] = []
    made, _ = shuffle_store(path, tmp_path / "c.zarr", missing=missing, warn=told.append)
    order = np.argsort(made.read("row_id"))
    for name in ("X", "y", "sample_weight"):
        assert_array_equal(made.read(name)[order], due.read(name))
    assert len(told) == 1


def test_the_ceiling_holds_what_is_planned(tmp_path):
    path = foreign(tmp_path / "a.zarr")
    for missing in ("drop", "mean", "median"):
        with pytest.raises(CeilingExceeded, match="missing values"):
            rechunk_store(path, tmp_path / "b.zarr", missing=missing, memory_ceiling="18MiB")
    assert not (tmp_path / "b.zarr").exists()


@pytest.fixture(autouse=True)
def inline(monkeypatch):
    monkeypatch.setattr(clients, "inside_another_job", lambda: True)


def run(*arguments):
    """Run a command in a process of its own, whose baseline the ceiling of the command is for."""
    return subprocess.run(
        [sys.executable, "-m", "ooc_train", *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", ["full", 32])
def test_the_error_has_the_command_that_mends_it(tmp_path, batch_size):
    path = foreign(tmp_path / "a.zarr")
    training = Training(batch_size=batch_size, max_iter=2, random_state=0)
    with pytest.raises(NonFiniteData, match=r"row \d+ has nan in column \d of X; drop") as caught:
        train(LogisticModel(), path, training)
    command = shlex.split(str(caught.value).partition("ooc-train ")[2])
    assert command[-2:] == ["--missing", "drop"]
    result = run(*command)
    assert result.returncode == 0, result.stderr
    train(LogisticModel(), command[2], training)
    result = run(*command[:-1], "median", "--overwrite")
    assert result.returncode == 0, result.stderr
    assert "replaced by the median" in result.stdout + result.stderr


def test_a_label_that_is_missing_has_a_command_and_infinity_has_none(tmp_path):
    y = np.where(np.arange(ROWS) == 3456, np.nan, Y)
    path = foreign(tmp_path / "a.zarr", X, y)
    with pytest.raises(
        NonFiniteData, match=r"row 3456 has nan in y; drop such rows: .* --missing drop$"
    ):
        train(LogisticModel(), path)
    values = X.copy()
    values[5, 1] = np.inf
    with pytest.raises(NonFiniteData, match="row 5 has inf in column 1 of X; drop or fill such"):
        train(LogisticModel(), foreign(tmp_path / "b.zarr", values))
