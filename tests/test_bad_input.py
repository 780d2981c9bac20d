"""Whatever is wrong with data, settings, runs or places is said in a line, with the way out."""

import gc
import io
import json
import math
import os
import re
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import zarr
from distributed import Client
from typer.testing import CliRunner

from ooc_train import cli
from ooc_train.core.partitions import spread
from ooc_train.errors import (
    CeilingExceeded,
    ClusterError,
    CorruptChunk,
    InvalidRun,
    InvalidStore,
    MissingMainGuard,
    NonFiniteData,
    OutputExists,
    StoreNotFound,
)
from ooc_train.estimators import load
from ooc_train.inference.predict import evaluate, predict_store
from ooc_train.models.classification_models import LogisticModel
from ooc_train.models.custom_model import CustomModel
from ooc_train.models.model_registry import MODELS
from ooc_train.models.regression_models import RidgeModel
from ooc_train.monitoring.callbacks import History
from ooc_train.monitoring.run_page import run_page
from ooc_train.objective.losses.squared import Squared
from ooc_train.runs.run_loading import load_fitted
from ooc_train.runtime import clients
from ooc_train.runtime.cluster import LocalCluster
from ooc_train.solvers.training_settings import Training
from ooc_train.store.opening.opener import open_store
from ooc_train.store.writing.writer import StoreWriter
from ooc_train.training.loop import train
from tests.accesses import accesses
from tests.test_core_files import lay

CHUNK, CHUNKS, FEATURES = 32, 100, 3
ROWS = CHUNK * CHUNKS
UNSEEN_CHUNK = next(i for i in range(50, CHUNKS) if i not in set(spread(CHUNKS, 32)))
BAD_ROW = UNSEEN_CHUNK * CHUNK + 5
"""A row that no sample of the columns looks at: only the solver can find what is wrong with it."""

LOGISTIC, TRAINING = LogisticModel(), Training(max_iter=2, random_state=0)


def rows(n=ROWS):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, FEATURES)).astype(np.float32)
    return X, (X[:, 0] + rng.logistic(size=n) > 0).astype(np.uint8)


def own_store(path, codec="none", **settings):
    """A store of ours; settings are the writer's."""
    X, y = rows()
    settings = {"classes": [0, 1], "y_dtype": "uint8"} | settings
    with StoreWriter(
        path, n_features=FEATURES, chunk_rows=CHUNK, shard_rows=20 * CHUNK, codec=codec, **settings
    ) as writer:
        writer.write(X, y)
        return writer.commit()


def foreign_store(path, **arrays):
    """A Zarr group as others write it: no statistics, no checksums, and whatever values."""
    group = zarr.create_group(path)
    for name, values in arrays.items():
        chunks = (CHUNK, *values.shape[1:])
        group.create_array(name, shape=values.shape, dtype=values.dtype, chunks=chunks)[...] = (
            values
        )
    return str(path)


@pytest.fixture(scope="module")
def cluster_client():
    with (
        LocalCluster(n_workers=1, memory_ceiling="4GiB", dashboard_address="127.0.0.1:0") as made,
        Client(made, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture(params=["inline", "cluster"])
def client(request, monkeypatch):
    """Where passes run: in this thread (None), or on a worker."""
    if request.param == "cluster":
        return request.getfixturevalue("cluster_client")
    monkeypatch.setattr(clients, "inside_another_job", lambda: True)
    return None


@pytest.fixture
def inline(monkeypatch):
    monkeypatch.setattr(clients, "inside_another_job", lambda: True)


def says(caught, *words):
    """Hold an error to one line that names each of the words."""
    message = str(caught.value)
    first = message.splitlines()[0]
    assert all(word in first for word in words), message
    return message


# Stores


def test_no_such_store(tmp_path):
    with pytest.raises(StoreNotFound) as caught:
        train(LOGISTIC, tmp_path / "nothing.zarr", TRAINING)
    says(caught, "there is nothing at", "nothing.zarr")


def test_a_folder_that_is_no_store(tmp_path):
    with pytest.raises(InvalidStore) as caught:
        train(LOGISTIC, tmp_path, TRAINING)
    says(caught, str(tmp_path), "is a folder that holds nothing, and no Zarr")


def test_a_store_without_y(tmp_path):
    with pytest.raises(InvalidStore) as caught:
        train(LOGISTIC, foreign_store(tmp_path / "a.zarr", X=rows()[0]), TRAINING)
    says(caught, "a.zarr has no y", "put one into the store")


def test_x_and_y_of_different_lengths(tmp_path):
    X, y = rows()
    with pytest.raises(InvalidStore) as caught:
        train(LOGISTIC, foreign_store(tmp_path / "a.zarr", X=X, y=y[:-1]), TRAINING)
    says(caught, f"y has {ROWS - 1:,} rows, X has {ROWS:,}")


def test_one_class_only(tmp_path):
    X, y = rows()
    with pytest.raises(ValueError, match="y has one class only, 7: a classifier needs at least 2"):
        train(LOGISTIC, foreign_store(tmp_path / "a.zarr", X=X, y=np.full_like(y, 7)), TRAINING)


def test_classes_of_which_one_has_rows(tmp_path):
    X, _ = rows()
    with StoreWriter(
        tmp_path / "a.zarr", n_features=FEATURES, classes=["no", "yes"], y_dtype="uint8"
    ) as writer:
        writer.write(X, np.ones(ROWS, np.uint8))
        writer.commit()
    with pytest.raises(ValueError, match="y has one class only, 'yes'"):
        train(LOGISTIC, tmp_path / "a.zarr", TRAINING)


def test_a_store_of_a_later_format(tmp_path):
    path = own_store(tmp_path / "a.zarr").path
    metadata = json.loads(Path(path, "zarr.json").read_text())
    metadata["attributes"]["format_version"] = 99
    Path(path, "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(InvalidStore) as caught:
        open_store(path)
    says(caught, "format version 99", "update ooc_train")


# Damage


def flipped(blob, position):
    blob = bytearray(blob)
    blob[position] ^= 4
    return bytes(blob)


DAMAGE = {
    "missing": (lambda _: None, "its file is missing"),
    "zero-length": (lambda _: b"", "too short for an index"),
    "truncated": (lambda blob: blob[:-10], "checksum"),
    "a bit of a chunk": (lambda blob: flipped(blob, 70), "checksum"),
    "a bit of the index": (lambda blob: flipped(blob, -10), "the index of its shard has checksum"),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("batch_size", ["full", 64])
@pytest.mark.parametrize("array", ["X", "y"])
def test_damage_ends_training_with_its_place(tmp_path, client, damage, batch_size, array):
    store = own_store(tmp_path / "a.zarr")
    shard = Path(getattr(store, array).shard_path(1))
    change, reason = DAMAGE[damage]
    blob = change(shard.read_bytes())
    shard.unlink()
    if blob is not None:
        shard.write_bytes(blob)
    training = Training(batch_size=batch_size, max_iter=2, random_state=0)
    with pytest.raises(CorruptChunk) as caught:
        train(LOGISTIC, store, training, client=client)
    says(caught, f"{array}, chunk", "(rows ", str(shard), reason, "restore that file")


def test_a_damaged_compressed_chunk(tmp_path, client):
    store = own_store(tmp_path / "a.zarr", codec="lz4")
    shard = Path(store.X.shard_path(0))
    shard.write_bytes(flipped(shard.read_bytes(), 70))
    with pytest.raises(CorruptChunk) as caught:
        train(LOGISTIC, store, TRAINING, client=client)
    says(caught, "X, chunk 0 (rows 0 to 31)", "checksum")


def test_a_damaged_chunk_ends_evaluation_and_prediction_too(tmp_path, client):
    store = own_store(tmp_path / "a.zarr")
    fitted, _ = train(LOGISTIC, store, TRAINING, client=client)
    shard = Path(store.X.shard_path(1))
    shard.write_bytes(flipped(shard.read_bytes(), 70))
    with pytest.raises(CorruptChunk, match="X, chunk 20"):
        evaluate(fitted, store, client=client)
    with pytest.raises(CorruptChunk, match="X, chunk 20"):
        predict_store(fitted, store, tmp_path / "out.zarr", client=client)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


# Numbers that are none


@pytest.mark.slow
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("batch_size", ["full", "chunk", 256, 1])
@pytest.mark.parametrize("name", ["logistic", "ridge"])
def test_a_number_that_is_none_in_x(tmp_path, inline, value, batch_size, name):
    X, y = rows()
    X[BAD_ROW, 1] = value
    path = foreign_store(tmp_path / "a.zarr", X=X, y=y)
    training = Training(batch_size=batch_size, max_iter=3, random_state=0)
    with pytest.raises(NonFiniteData) as caught:
        train(MODELS[name](), path, training)
    says(caught, f"row {BAD_ROW} has {value} in column 1 of X", "drop or fill")


@pytest.mark.parametrize("solver", ["lbfgs", "newton", "sgd", "adam"])
def test_every_solver_finds_it(tmp_path, inline, solver):
    X, y = rows()
    X[BAD_ROW, 2] = np.nan
    path = foreign_store(tmp_path / "a.zarr", X=X, y=y)
    with pytest.raises(NonFiniteData, match=f"row {BAD_ROW} has nan in column 2 of X"):
        train(LogisticModel(), path, Training(solver=solver, max_iter=3))


def test_it_is_found_on_a_cluster(tmp_path, cluster_client):
    X, y = rows()
    X[BAD_ROW, 2] = np.nan
    path = foreign_store(tmp_path / "a.zarr", X=X, y=y)
    with pytest.raises(NonFiniteData, match=f"row {BAD_ROW} has nan in column 2 of X"):
        train(LOGISTIC, path, TRAINING, client=cluster_client)


@pytest.mark.parametrize("batch_size", ["full", 256, 1])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_none_in_y(tmp_path, inline, batch_size, value):
    X, y = rows()
    y = y.astype(np.float64)
    y[BAD_ROW] = value
    path = foreign_store(tmp_path / "a.zarr", X=X, y=y)
    with pytest.raises(NonFiniteData) as caught:
        train(RidgeModel(), path, Training(batch_size=batch_size, max_iter=2, random_state=0))
    says(caught, f"row {BAD_ROW} has {value} in y")


@pytest.mark.parametrize("array", ["y", "sample_weight"])
def test_a_label_or_weight_that_is_none(tmp_path, inline, array):
    X, y = rows()
    arrays = {"X": X, "y": y.astype(np.float64), "sample_weight": np.ones(ROWS)}
    arrays[array][BAD_ROW] = np.nan
    with pytest.raises(NonFiniteData) as caught:
        train(LOGISTIC, foreign_store(tmp_path / "a.zarr", **arrays), TRAINING)
    says(caught, f"row {BAD_ROW} has nan in {array}")


@pytest.mark.parametrize("where", ["X", "y"])
def test_evaluation_finds_it(tmp_path, inline, where):
    X, y = rows()
    fitted, _ = train(RidgeModel(), foreign_store(tmp_path / "a.zarr", X=X, y=y))
    y = y.astype(np.float64)
    (X if where == "X" else y)[BAD_ROW] = np.nan
    with pytest.raises(NonFiniteData, match=f"row {BAD_ROW} has nan in"):
        evaluate(fitted, foreign_store(tmp_path / "b.zarr", X=X, y=y))


# The ceiling


def test_a_ceiling_too_small_for_one_chunk(tmp_path, client):
    n = 60_000
    X, y = np.zeros((n, 50)), np.arange(n) % 2
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("X", data=X, chunks=X.shape)
    group.create_array("y", data=y.astype("u1"), chunks=y.shape)
    with pytest.raises(CeilingExceeded) as caught:
        train(LOGISTIC, tmp_path / "a.zarr", TRAINING, client=client, memory_ceiling="28MiB")
    message = says(caught, "its memory ceiling is 28 MiB (given)", "raise the memory ceiling to")
    assert "buffers" in message


def test_a_ceiling_above_what_the_machine_has(tmp_path, inline):
    with pytest.raises(ValueError, match=r"'999 TiB' is 999 TiB, but this machine .* give at most"):
        train(LOGISTIC, own_store(tmp_path / "a.zarr"), TRAINING, memory_ceiling="999 TiB")


@pytest.mark.parametrize(
    ("ceiling", "message"),
    [("lots", "'lots' is not a number of bytes such as"), (0, "leaves no memory at all")],
)
def test_a_ceiling_that_is_none(tmp_path, inline, ceiling, message):
    with pytest.raises(ValueError, match=message):
        train(LOGISTIC, own_store(tmp_path / "a.zarr"), TRAINING, memory_ceiling=ceiling)


# Settings


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, "half", True, None, math.nan])
def test_a_batch_size_that_is_none(batch_size):
    with pytest.raises(ValueError, match=r"batch_size=.* is not 'full' or 'chunk' or 'auto' or a"):
        Training(batch_size=batch_size)


def test_a_batch_of_more_rows_than_there_are(tmp_path, inline):
    training = Training(batch_size=ROWS + 1)
    with pytest.raises(ValueError, match="batch_size=3,201 is more than the 3,200 rows there are"):
        train(LOGISTIC, own_store(tmp_path / "a.zarr"), training)


def test_a_batch_of_all_rows_is_full(tmp_path, inline):
    store = own_store(tmp_path / "a.zarr")
    one, other = (
        train(
            LogisticModel(), store, Training(solver="sgd", batch_size=b, max_iter=2, random_state=0)
        )
        for b in ("full", ROWS)
    )
    np.testing.assert_array_equal(one[0].coef, other[0].coef)


@pytest.mark.parametrize("setting", [{"learning_rate": 0.1}, {"shuffle_chunks": 8}])
def test_a_setting_of_updates_is_nothing_to_an_exact_solver(tmp_path, inline, setting):
    (name,) = setting
    with pytest.raises(ValueError, match=f"{name}=.* is for updates"):
        train(LOGISTIC, own_store(tmp_path / "a.zarr"), Training(**setting))


@pytest.mark.parametrize("batch_size", ["chunk", 256, 1])
@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
def test_an_exact_solver_has_no_batches(solver, batch_size):
    with pytest.raises(ValueError, match=f"solver='{solver}' reads all rows .*solver='sgd'"):
        Training(solver=solver, batch_size=batch_size)


@pytest.mark.parametrize(
    ("of", "settings", "message"),
    [
        (LogisticModel, {"C": 0}, "C=0 is not a number above 0"),
        (LogisticModel, {"C": -math.inf}, "C=-inf is not a number above 0"),
        (Training, {"tol": -1e-3}, "tol=-0.001 is not None or a number of at least 0"),
        (Training, {"max_iter": 0}, "max_iter=0 is not None or a whole number of at least 1"),
        (
            Training,
            {"learning_rate": "fast"},
            "learning_rate='fast' is not 'auto' or a number above 0",
        ),
        (Training, {"learning_rate": 0.0}, "learning_rate=0.0 is not 'auto' or a number above 0"),
        (
            LogisticModel,
            {"class_weight": "even"},
            "class_weight='even' is not None or 'balanced' or a mapping",
        ),
        (
            CustomModel,
            {"loss": Squared(), "class_weight": "balanced"},
            "class_weight is for classes",
        ),
        (Training, {"shuffle_chunks": 0}, "shuffle_chunks=0 is not 'auto' or a whole number"),
        (
            Training,
            {"replicas": 2},
            "replicas=2 is for updates by batches, and batch_size='full' reads all",
        ),
    ],
)
def test_a_setting_that_cannot_be_used(of, settings, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        of(**settings)


def test_a_setting_of_another_model():
    settings: dict[str, Any] = {"class_weight": "balanced"}
    with pytest.raises(TypeError, match="unexpected keyword argument 'class_weight'"):
        RidgeModel(**settings)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--model", "lars"], 2, "model='lars' is not one of"),
        (
            ["--model", "ridge", "--class-weight", "balanced"],
            1,
            "mlp-classifier and custom model, and this is ridge",
        ),
    ],
)
def test_options_of_a_model_that_cannot_be_used(tmp_path, options, code, message):
    told = CliRunner().invoke(cli.app, ["train", str(tmp_path / "nothing"), *options])
    assert told.exit_code == code
    assert message in told.stderr


def test_a_solver_that_does_not_fit_the_model(tmp_path, inline):
    message = (
        "solver='gram' needs the loss of least squares, which this problem does not "
        "have; use 'newton' or "
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        train(LOGISTIC, own_store(tmp_path / "a.zarr"), Training(solver="gram"))


def test_the_weight_of_a_label_that_is_no_class(tmp_path, inline):
    model = LogisticModel(class_weight={"maybe": 2.0})
    with pytest.raises(ValueError, match=r"class_weight names 'maybe', which is not one of \[0, 1"):
        train(model, own_store(tmp_path / "a.zarr"))


# Runs


@pytest.fixture
def run(tmp_path, inline):
    train(LOGISTIC, own_store(tmp_path / "a.zarr"), TRAINING, out=tmp_path / "a.run")
    return tmp_path / "a.run"


def changed(run, **changes):
    path = run / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_run_that_is_not_there(tmp_path):
    with pytest.raises(InvalidRun, match=r"is no run: .*model\.json is missing"):
        load_fitted(tmp_path / "nothing.run")


def test_a_run_of_another_number_of_features(run, tmp_path):
    path = foreign_store(tmp_path / "b.zarr", X=rows()[0][:, :2], y=rows()[1])
    fitted = load_fitted(run)
    with pytest.raises(InvalidRun, match=r"trained on 3 features and .* has 2"):
        evaluate(fitted, path)
    with pytest.raises(InvalidRun, match=r"trained on 3 features and .* has 2"):
        predict_store(fitted, path, tmp_path / "out.zarr")


def test_a_run_of_other_classes(run, tmp_path):
    X, y = rows()
    path = foreign_store(tmp_path / "b.zarr", X=X, y=y + 4)
    with pytest.raises(InvalidStore, match=r"label 4.* not one of the model's classes \[0, 1\]"):
        evaluate(load_fitted(run), path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "another"}, "is no run: its format is 'another'"),
        ({"format_version": 99}, "written by a later release .format 99.*install that release"),
        ({"model": {"name": "forest"}}, "is damaged: model='forest' is not one of"),
        ({"model": {"name": "ridge", "depth": 3}}, "is damaged: .*depth"),
        ({"model": 3}, "is damaged"),
        ({"classes": [0, 1, 2]}, "is damaged"),
        ({"classes": None}, "is damaged"),
        ({"feature_names": ["a"]}, "is damaged"),
        ({"format_version": "one"}, "is damaged"),
    ],
)
def test_a_run_whose_settings_are_damaged(run, changes, message):
    changed(run, **changes)
    with pytest.raises(InvalidRun, match=message) as caught:
        load_fitted(run)
    says(caught, "a.run")


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff\xfe"])
@pytest.mark.parametrize("file", ["model.json", "parameters.npz"])
def test_a_run_whose_files_are_damaged(run, file, content):
    (run / file).unlink()
    if content is not None:
        (run / file).write_bytes(content)
    with pytest.raises(InvalidRun) as caught:
        load_fitted(run)
    says(caught, "a.run", "is no run" if content is None else "is damaged")


def test_a_run_whose_numbers_are_cut_short(run):
    blob = (run / "parameters.npz").read_bytes()
    for length in range(0, len(blob), 37):
        (run / "parameters.npz").write_bytes(blob[:length])
        with pytest.raises(InvalidRun, match="is damaged"):
            load_fitted(run)


@pytest.mark.parametrize(
    "arrays",
    [
        {"coef": np.ones((1, 3))},
        {"coef": np.ones(3), "intercept": np.ones(1)},
        {"coef": np.ones((2, 3)), "intercept": np.ones(1)},
        {"coef": np.array([["a"]]), "intercept": np.ones(1)},
        {"coef": np.array([[{}]], object), "intercept": np.ones(1)},
    ],
)
def test_a_run_with_other_numbers(run, arrays):
    np.savez(run / "parameters.npz", **arrays)
    with pytest.raises(InvalidRun, match="is damaged"):
        load_fitted(run)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("what", ["folder", "pipe", "device"])
@pytest.mark.parametrize("file", ["model.json", "parameters.npz", "recipe.json"])
def test_a_run_with_something_else_in_the_place_of_a_file(run, file, what):
    (run / file).unlink(missing_ok=True)
    lay(run / file, what)
    with pytest.raises(InvalidRun) as caught:
        load_fitted(run)
    says(caught, "a.run is damaged", file, f"is a {what}, and no file", "restore it from a copy")


@pytest.mark.parametrize(
    "report", [{}, {"memory": 3}, "history", "timeline", {"seconds": None}, {"notes": "a"}]
)
def test_a_run_whose_report_is_damaged_predicts_and_says_so(run, report):
    about = json.loads((run / "model.json").read_text())
    if report == "history":
        about["report"]["history"] = [{}]
    elif report == "timeline":
        timeline = about["report"]["memory"]["timeline"]
        timeline["processes"] = {"a": [1] * (len(timeline["seconds"]) + 1)}
    else:
        about["report"] = about["report"] | report if report else {}
    (run / "model.json").write_text(json.dumps(about))
    assert load_fitted(run).coef.shape == (1, FEATURES)
    for read in (load, lambda path: run_page(load_fitted(path), str(path))):
        with pytest.raises(InvalidRun) as caught:
            read(run)
        says(caught, "a.run has no readable training report: ", "train again")


# Archives of numbers


def members(**contents):
    """An archive of these members, which are arrays or bytes."""
    blob = io.BytesIO()
    with zipfile.ZipFile(blob, "w", contents.pop("packing", zipfile.ZIP_STORED)) as archive:
        for name, content in contents.items():
            if isinstance(content, np.ndarray):
                held = io.BytesIO()
                np.save(held, content)
                content = held.getvalue()
            archive.writestr(f"{name}.npy", content)
    return blob.getvalue()


def claiming(shape, dtype="<f8"):
    """An array of NumPy's that says that it has a shape, and 3 numbers."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(24)


COEF, INTERCEPT = np.ones((1, FEATURES)), np.ones(1)
BOMB = np.zeros((1, 12_500_000))
ARCHIVES = {
    "packed": ({"coef": BOMB, "packing": zipfile.ZIP_DEFLATED}, "coef.npy is compressed"),
    "huge": ({"coef": claiming(f"(1, {10**14})")}, "needs 800,000,000,000,000 bytes"),
    "code": ({"coef": claiming("__import__('os')")}, "the header of an array is"),
    "brackets": ({"coef": claiming("(" * 300)}, "the header of an array is"),
    "objects": ({"coef": claiming("(1, 3)", "|O")}, "the header of an array is"),
    "a type of a later NumPy": ({"coef": claiming("(1, 3)", "<f16")}, "the header of an array is"),
    "no numbers": ({"coef": b""}, "lacks the header of NumPy's format"),
    "missing": ({}, "it has 0 members named coef.npy"),
    "not finite": ({"coef": COEF * np.nan}, "are not finite"),
    "empty": ({"coef": np.ones((1, 0))}, "coefficients (1, 0)"),
}


@pytest.mark.parametrize("damage", ARCHIVES)
def test_a_run_whose_archive_lies(run, damage):
    coef, reason = ARCHIVES[damage]
    (run / "parameters.npz").write_bytes(members(**coef, intercept=INTERCEPT))
    tracemalloc.start()
    with pytest.raises(InvalidRun) as caught:
        load_fitted(run)
    assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    tracemalloc.stop()
    says(caught, "a.run is damaged", reason)


def test_a_run_whose_archive_has_a_table_of_contents_without_end(run):
    blob = members(coef=COEF, intercept=INTERCEPT)
    end = bytearray(blob[-22:])
    end[12:20] = struct.pack("<II", 2**31, len(blob))
    with open(run / "parameters.npz", "wb") as file:
        file.write(blob)
        file.truncate(len(blob) + 2**31)
        file.seek(0, os.SEEK_END)
        file.write(end)
    with pytest.raises(InvalidRun) as caught:
        load_fitted(run)
    says(caught, "its table of contents claims 2,147,483,648 bytes")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["f8", ">f4", "i2", "u8", "?"])
def test_an_archive_of_other_numbers_is_read(run, dtype, order):
    coef = np.asarray(np.arange(FEATURES)[np.newaxis] % 2, dtype, order=order)
    np.savez(run / "parameters.npz", coef=coef, intercept=INTERCEPT)
    found = load_fitted(run).coef
    assert found.dtype == np.float64
    assert found.tolist() == [[0, 1, 0]]


# Places to write to


def test_an_output_that_exists_already(run, tmp_path):
    store = tmp_path / "a.zarr"
    with pytest.raises(
        OutputExists,
        match=r"a\.run exists already; choose another name, or replace it by overwrite=True",
    ):
        train(LOGISTIC, store, TRAINING, out=run)
    with pytest.raises(OutputExists, match=r"a\.zarr is no run, so it is not written over"):
        train(LOGISTIC, store, TRAINING, out=store, overwrite=True)
    before = sorted(path.stat().st_mtime_ns for path in store.rglob("*"))
    with pytest.raises(OutputExists, match=r"a\.zarr"):
        predict_store(load_fitted(run), store, store)
    assert before == sorted(path.stat().st_mtime_ns for path in store.rglob("*"))


def test_a_run_in_a_folder_that_is_a_file(tmp_path, inline):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="no run can be saved there; choose another place"):
        train(LOGISTIC, own_store(tmp_path / "a.zarr"), TRAINING, out=tmp_path / "file/a.run")


def test_a_run_in_a_folder_that_is_made(tmp_path, inline):
    train(LOGISTIC, own_store(tmp_path / "a.zarr"), TRAINING, out=tmp_path / "b/c/a.run")
    assert [path.name for path in (tmp_path / "b/c").iterdir()] == ["a.run"]


READ_ONLY = "/sys/kernel"
"""A place where nobody can write, root included."""


def test_a_read_only_place(tmp_path, inline):
    store = own_store(tmp_path / "a.zarr")
    heard = History()
    with pytest.raises(OSError, match=f"no run can be saved there; .*{READ_ONLY}/a.run"):
        train(LOGISTIC, store, TRAINING, out=f"{READ_ONLY}/a.run", callbacks=[heard])
    assert heard == []
    fitted, _ = train(LOGISTIC, store, TRAINING)
    with pytest.raises(OSError, match=READ_ONLY):
        predict_store(fitted, store, f"{READ_ONLY}/a.zarr")


def test_a_store_that_may_only_be_read(tmp_path, inline):
    store = own_store(tmp_path / "a.zarr")
    for path in [tmp_path / "a.zarr", *Path(store.path).rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    with accesses() as found:  # root may write anywhere
        train(LOGISTIC, store.path, TRAINING)
    inside = [access for access in found if access[1].startswith(store.path)]
    assert ("open", f"{store.path}/zarr.json", False) in inside
    assert [access for access in inside if access[2]] == []


# Clusters


@pytest.mark.parametrize(
    ("address", "way_out"),
    [
        ("tcp://127.0.0.1:9", "such as tcp://127.0.0.1:8786"),
        ("no://127.0.0.1:9", "such as tcp://127.0.0.1:8786"),
        ("tls://127.0.0.1:9", "distributed.comm.tls"),
    ],
)
def test_an_address_where_no_cluster_answers(monkeypatch, address, way_out):
    monkeypatch.setattr(clients, "_CONNECT_SECONDS", 0.3)
    with pytest.raises(ClusterError) as caught:
        clients.connect(address)
    says(caught, f"no cluster answers at {address}", way_out)
    assert dask.config.get("scheduler", None) is None
    # One that is left open is closed when Python frees it: if another client starts at that moment,
    # distributed waits for itself.
    # By their types: objects of other libraries, such as PyTorch's, warn when they are asked more.
    held: list[Any] = [each for each in gc.get_objects() if issubclass(type(each), Client)]
    assert {each.status for each in held if each._start_arg == address} <= {"closed"}


@pytest.mark.slow
def test_a_script_without_its_guard_gets_one_line(tmp_path):
    script = tmp_path / "fit.py"
    script.write_text(
        "from ooc_train.runtime.cluster import LocalCluster\n"
        "with LocalCluster(n_workers=2, dashboard_address='127.0.0.1:0'): print('ran')\n"
    )
    result = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == (
        'fit.py starts processes: put what it does under if __name__ == "__main__": '
        "(the workers could not be started)\n"
    )


@pytest.mark.slow
def test_a_missing_guard_can_be_caught():
    assert issubclass(MissingMainGuard, ClusterError)
