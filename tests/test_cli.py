"""The command line: what it says where, how it ends, and that it does what Python does."""

import json
import os
import pty
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from ooc_train import cli
from ooc_train.cli import parsers
from ooc_train.cli.command_help import EXAMPLES, called
from ooc_train.cli.model_options import ModelOptions
from ooc_train.core.atomic import PartialOutput
from ooc_train.core.output_kinds import FILE, STORE
from ooc_train.core.settings import settings_of
from ooc_train.core.units import parse_bytes
from ooc_train.inference.outputs import Outputs
from ooc_train.inference.predict import evaluate
from ooc_train.memory.ceiling import Ceiling
from ooc_train.models.classification_models import (
    LinearSVCModel,
    LogisticModel,
    RidgeClassifierModel,
    SGDClassifierModel,
)
from ooc_train.models.custom_model import CustomModel
from ooc_train.models.model_registry import MODELS
from ooc_train.models.regression_models import RidgeModel
from ooc_train.models.robust_models import LinearSVRModel, SGDRegressorModel
from ooc_train.monitoring import interrupts
from ooc_train.monitoring.callbacks import ConsoleBar
from ooc_train.objective.losses.squared_hinge import SquaredHinge
from ooc_train.optimizers.momentum import Momentum
from ooc_train.optimizers.schedules import Cosine
from ooc_train.runs.events import Stepped
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.run_loading import load_fitted
from ooc_train.runtime.cluster import LocalCluster, workers_within
from ooc_train.solvers.early_stopping import EarlyStopping
from ooc_train.solvers.training_settings import Training
from ooc_train.store.jobs.synthetic import make_data
from ooc_train.store.opening.opener import open_store
from ooc_train.store.writing.writer import StoreWriter
from tests.sealing import reseal
from tests.streams import write_store

ROOT = Path(__file__).parent.parent
COMMANDS = tuple(cli._MODULES)
COMMAND = [sys.executable, "-m", "ooc_train"]


def here(*arguments):
    """Run a command in this process."""
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def start(*arguments, **settings):
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)], cwd=ROOT, text=True, **settings
    )  # fmt: skip


def apart(*arguments, **settings):
    """Run a command in a process of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start(*arguments, **pipes, **settings) as process:
        out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def in_words(text):
    """What typer shows in a box, as one line."""
    return " ".join(re.sub("[│╭╮╰╯─]", " ", text).split())


def rows_of(path, name="X"):
    array: zarr.Array = zarr.open_array(str(path), path=name, mode="r")
    return np.asarray(array[:])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "made.zarr"
    make_data(path, rows=20_000, features=10)
    return str(path)


@pytest.fixture(scope="module")
def scheduler():
    """The address of a cluster, which saves a command starting its own."""
    with LocalCluster(n_workers=1, dashboard_address="127.0.0.1:0") as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def run(tmp_path_factory, made, scheduler):
    """A run that `train` saved."""
    path = tmp_path_factory.mktemp("runs") / "a.run"
    result = here("train", made, "--scheduler", scheduler, "--quiet", "--out", path)
    assert result.exit_code == 0, result.output
    return str(path)


# Options


def test_options_are_the_settings_of_all_models_and_of_training():
    options = {field.name: field.default for field in fields(ModelOptions)}
    assert options.pop("model") is None
    owners = (*MODELS.values(), Training, EarlyStopping)
    theirs = {name for cls in owners for name in settings_of(cls)}
    assert set(options) == theirs
    assert ModelOptions().made() == (LogisticModel(), Training())


def test_options_reach_the_model():
    options: dict[str, Any] = {"alpha": 3.0, "fit_intercept": False, "batch_size": 7, "tol": 0.5}
    made = ModelOptions(model="ridge", **options).made()
    assert made == (
        RidgeModel(alpha=3.0, fit_intercept=False),
        Training(batch_size=7, tol=0.5),
    )


@pytest.mark.slow
def test_loss_solver_and_schedule_have_options_of_their_own(made, scheduler, tmp_path):
    run = str(tmp_path / "a.run")
    told = here(
        "train", made, "--model", "custom", "--loss", "squared_hinge", "--l2", "0.5",
        "--no-intercept", "--solver", "momentum:momentum=0.8", "--schedule", "cosine:last=0.1",
        "--learning-rate", "0.05", "--batch-size", "100", "--max-iter", "2", "--random-state", "3",
        "--out", run,
        "--scheduler", scheduler, "--quiet",
    )  # fmt: skip
    assert told.exit_code == 0, told.stderr
    fitted = load_fitted(run)
    assert fitted.model == CustomModel(loss=SquaredHinge(), l2=0.5, fit_intercept=False)
    assert fitted.training == Training(
        solver=Momentum(0.8), schedule=Cosine(0.1), learning_rate=0.05, batch_size=100, max_iter=2,
        random_state=3,
    )  # fmt: skip
    assert fitted.intercept[0] == 0.0


@pytest.mark.slow
def test_a_learning_rate_may_name_its_schedule(made, scheduler, tmp_path):
    run = str(tmp_path / "a.run")
    told = here(
        "train", made, "--learning-rate", "cosine:0.05,last=0.1,warmup=3", "--batch-size", "100",
        "--max-iter", "2", "--random-state", "3", "--out", run, "--scheduler", scheduler, "--quiet",
    )  # fmt: skip
    assert told.exit_code == 0, told.stderr
    training = load_fitted(run).training
    assert training is not None
    assert (training.learning_rate, training.schedule) == (0.05, Cosine(0.1, warmup=3.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--alpha", "1"],
            "--alpha is for the ridge, lasso, elastic-net, ridge-classifier, sgd-classifier, ",
        ),
        (
            ["--model", "linear", "--C", "1"],
            "--C is for the logistic, linear-svc and linear-svr model, and this is linear",
        ),
        (
            ["--loss", "hinge"],
            "--loss is for the linear-svc, sgd-classifier, linear-svr, sgd-regr",
        ),
        (
            ["--model", "linear-svc", "--loss", "huber"],
            "--loss huber is not 'squared_hinge' or 'hinge'",
        ),
        (
            ["--model", "custom", "--loss", "huge"],
            "huge is not a Loss; did you mean 'huber'?",
        ),
        (["--l1", "1"], "--l1 is for the custom model, and this is logistic"),
        (["--alpha", "1"], "model, and this is logistic; --C sets its penalty"),
        (["--model", "custom"], "--model custom needs --loss"),
        (
            ["--model", "ridge", "--class-weight", "balanced"],
            "--class-weight is for the logistic, linear-svc, ridge-classifier, sgd-classifier,",
        ),
        (["--solver", "gram"], "--solver gram needs the loss of least squares"),
        (["--solver", "newton", "--schedule", "cosine"], "--schedule cosine is for updates"),
    ],
)
def test_options_of_another_model_are_refused(made, arguments, message):
    result = here("train", made, *arguments)
    assert result.exit_code == 1
    assert message in result.stderr


@pytest.mark.slow
def test_no_penalty_is_infinite_in_options_and_in_what_is_saved(made, scheduler, tmp_path):
    run = str(tmp_path / "a.run")
    told = here("train", made, "--C", "inf", "--out", run, "--json", "--scheduler", scheduler)
    assert told.exit_code == 0, told.stderr
    about = json.loads(here("info", run, "--json").stdout)
    assert about["model"]["C"] == "inf"
    assert load_fitted(run).model == LogisticModel(C=np.inf)


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (parsers.batch_sizes, "1, 20k,chunk,full", (1, 20_000, "chunk", "full")),
        (parsers.address, "0.0.0.0:80", "0.0.0.0:80"),
    ],
)
def test_options_that_are_read(read, text, value):
    assert read(text) == value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--batch-size", "half"],
            "batch_size='half' is not 'full' or 'chunk' or 'auto' or a whole number of",
        ),
        (["--batch-size", "-1"], "batch_size='-1' is not 'full' or 'chunk' or"),
        (["--batch-size", "1.5"], "batch_size='1.5' is not 'full' or 'chunk' or"),
        (["--learning-rate", "fast"], "learning_rate='fast' is not 'auto' or a number"),
        (["--learning-rate", "optimal"], "scikit-learn's 'optimal' is not there"),
        (["--schedule", "cosine:first=2"], "has warmup, over, last, and not 'first'"),
        (["--shuffle-chunks", "all"], "shuffle_chunks='all' is not 'auto' or a whole number"),
        (["--class-weight", "yes"], "class_weight='yes' is not 'balanced' or the weights"),
        (["--class-weight", "a=1,a=2"], "class_weight='a=1,a=2' is not 'balanced' or"),
        (["--memory-ceiling", "lots"], "'lots' is not a number of bytes such as"),
        (["--max-passes", "nan"], "max_passes=nan is not None or a number above 0"),
        (["--max-passes", "-1"], "max_passes=-1.0 is not None or a number above 0"),
        (["--max-seconds", "soon"], "'soon' is not a duration such as"),
        (["--max-seconds", "0"], "max_seconds=0.0 is not None or a number above 0"),
        (["--target-loss", "low"], "target_loss='low' is not None or a number"),
        (
            ["--validation-fraction", "1"],
            "validation_fraction=1.0 is not None or a number above 0 a",
        ),
        (["--patience", "0"], "patience=0 is not a whole number of at least 1"),
        (["--dashboard-address", "here"], "'here' is not HOST:PORT, such as 127.0.0.1:8787"),
        (["--model", "logisitc"], "did you mean 'logistic'?"),
        (["--model", "forest"], "model='forest' is not one of linear, ridge, lasso, elastic-net, "),
        (["--workers", "0"], "Invalid value for '--workers'"),
        (["--workers", "many"], "Invalid value for '--workers'"),
        (["--speed", "high"], "No such option: --speed"),
        (["--scheduler", "tcp://127.0.0.1:9", "--workers", "2"], "--workers is for workers that"),
        (["--scheduler", "tcp://127.0.0.1:9", "--insecure"], "--insecure is for workers that"),
    ],
)
def test_a_wrong_call_ends_with_2(made, arguments, message):
    result = here("train", made, *arguments)
    assert result.exit_code == 2
    assert message in in_words(result.stderr)
    assert result.stdout == ""


@pytest.mark.slow
def test_help_is_immediate():
    code = "import sys, ooc_train.cli; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"dask", "rich", "zarr", "bokeh", "llvmlite", "numba", "sklearn", "pyarrow"}
    assert heavy & set(loaded) == set()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code, out, err = apart("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (code, err) == (0, "")
    assert all(name in out for name in COMMANDS)
    # Of the processor, for the machine may be busy with other things.
    assert after.ru_utime - before.ru_utime < 1.0


def test_every_option_is_explained():
    for command in COMMANDS:
        result = here(command, "--help")
        assert result.exit_code == 0
        assert "--json" in result.output
        # An option's row begins with its name, and goes on with its type and what it is for.
        for row in re.findall(r"^│[ *]+--.*│$", result.output, re.MULTILINE):
            assert len(row.strip("│ *").split()) > 2, row


def test_lines_of_help_end_where_the_terminal_ends():
    shown = CliRunner().invoke(cli.app, ["split", "-h"], terminal_width=200, env={"COLUMNS": "200"})
    assert "and its arrays. Other commands read it as a store, and need no" in shown.stdout


def test_help_keeps_words_in_brackets():
    assert "or '.[onnx]' in a clone" in in_words(here("export", "--help").stdout)


def test_the_help_of_a_model_has_its_options_alone():
    of_ridge = in_words(here("train", "--model", "ridge", "-h").stdout)
    of_logistic = in_words(here("train", "--help").stdout)
    of_networks = in_words(here("plan", "--model=mlp-classifier", "--help").stdout)
    assert "--alpha" in of_ridge
    assert "--C" not in of_ridge
    assert "--C" in of_logistic
    assert "--alpha" not in of_logistic
    assert "--no-intercept" in of_logistic
    assert "--hidden-layer-sizes" in of_networks
    assert "--no-intercept" not in of_networks
    assert all(f" {name}" in of_logistic for name in MODELS)
    # Of a name that is misspelt, the options of all.
    assert "--hidden-layer-sizes" in in_words(here("train", "--model", "rigde", "-h").stdout)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_help_has_examples_that_are_calls_of_the_command(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "late.run").mkdir()
    (tmp_path / "late.run" / "config.toml").touch()
    examples = EXAMPLES[command]
    text = in_words(here(command, "-h").stdout)
    assert "Any>" not in text
    for example in examples:
        assert in_words(example) in text
        named, arguments = called(example)
        assert named == command
        found = cli._Commands().get_command(None, command)
        found.make_context(command, arguments)  # else a usage error


def test_the_version_is_that_of_the_package():
    result = here("--version")
    assert result.stdout == f"ooc-train {version('ooc_train')}\n"
    assert result.exit_code == 0


# Errors


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (["info", "nothing.zarr"], "StoreNotFound", "there is nothing at"),
        (["train", "nothing.zarr"], "StoreNotFound", "there is nothing at"),
        (["train", "MADE", "--batch-size", "20001"], "ValueError", "more than the 20,000 rows"),
        (
            ["train", "MADE", "--solver", "lbfgs", "--batch-size", "9"],
            "ValueError",
            "or --solver sgd",
        ),
        (["train", "MADE", "--memory-ceiling", "999TiB"], "ValueError", "give at most that"),
        (["train", "MADE", "--out", "MADE"], "OutputExists", "choose another name"),
        (["train", "MADE", "--out", "MADE", "--overwrite"], "OutputExists", "is no run"),
        (["plan", "MADE", "--solver", "gram"], "ValueError", "--solver gram needs the loss of"),
        (["evaluate", "nothing.run", "MADE"], "InvalidRun", "model.json is missing"),
        (["predict", "nothing.run", "MADE", "out.zarr"], "InvalidRun", "model.json is missing"),
        (["make-data", "MADE", "--rows", "10"], "OutputExists", "exists"),
        (["shuffle", "nothing.zarr", "new.zarr"], "StoreNotFound", "there is nothing at"),
        (["shuffle", "MADE", "MADE"], "ValueError", "is the store that is read"),
        (["demo", "--memory-ceiling", "999TiB"], "ValueError", "give at most that"),
        (["train", "MADE", "--out", "s3://bucket/a.run"], "ValueError", "is a URL, and output is"),
        (["train", "MADE", "--plot", "s3://bucket/a.png"], "ValueError", "is a URL, and output is"),
        (["make-data", "s3://bucket/a", "--rows", "9"], "ValueError", "is a URL, and output is"),
        (["shuffle", "MADE", "gs://bucket/a.zarr"], "ValueError", "is a URL, and output is"),
        (["rechunk", "MADE", "s3://bucket/a.zarr"], "ValueError", "is a URL, and output is"),
        (["tradeoff", "MADE", "--out", "s3://bucket/a"], "ValueError", "is a URL, and output is"),
        (["ingest", "FLIGHTS", "s3://b/a", "--target", "late"], "ValueError", "is a URL, and"),
        (["demo", "--dir", "s3://bucket/a"], "ValueError", "is a URL, and output is"),
        (["make-data", "new.zarr", "--rows", "0"], "ValueError", "--rows 0 should be at least 1"),
    ],
)
def test_a_failure_ends_with_1_and_a_line(made, tmp_path, arguments, kind, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = {"MADE": made, "FLIGHTS": str(ROOT / "data" / "flights.parquet")}
    arguments = [places.get(argument, argument) for argument in arguments]
    result = here(*arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert message in result.stderr
    told = here(*arguments, "--json")
    assert told.exit_code == 1
    assert json.loads(told.stdout)["error"] == kind
    assert message in json.loads(told.stdout)["message"]
    shown = here(*arguments, "--traceback")
    assert type(shown.exception).__name__ == kind
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("use solver='sgd' or a batch_size", "use --solver sgd or a --batch-size"),
        ('use learning_rate="auto" or a smaller one', "use --learning-rate auto or a smaller one"),
        ("class_weight={'a': 1} leaves", "--class-weight {'a': 1} leaves"),
        ("model='a b' is none", "--model 'a b' is none"),
        ("name it, as in X='data' or y=label", "name it, as in --x data or --y label"),
        ("open_store(path, fill_missing=True) reads", "--fill-missing reads"),
        ("tol=0.5. batch_size=256, C=1.5e-05", "--tol 0.5. --batch-size 256, --C 1.5e-05"),
        # Not of this command, and within what data are called.
        ("dtype='f4' in /a/y=3/batch_size/x", "dtype='f4' in /a/y=3/batch_size/x"),
    ],
)
def test_messages_name_options_where_python_has_arguments(said, told, tmp_path, monkeypatch):
    def fail(path, **_: Any) -> None:
        raise ValueError(said)

    monkeypatch.setattr("ooc_train.store.opening.opener.open_store", fail)
    result = here("train", tmp_path)
    assert result.stderr == f"error: {told}\n"
    assert json.loads(here("train", tmp_path, "--json").stdout)["message"] == told


def test_errors_hold_no_markup_and_steer_no_terminal(tmp_path):
    path = tmp_path / "[red]\x1b[31m:smile:.zarr"
    result = here("info", path)
    assert result.stderr == f"error: there is nothing at {tmp_path}/[red]\\x1b[31m:smile:.zarr\n"


def test_arrays_without_a_group_are_named_by_options(tmp_path):
    for name, values in (("X", np.eye(4)), ("y", np.arange(4))):
        zarr.create_array(tmp_path / name, data=values)
    refused = here("train", tmp_path)
    assert refused.exit_code == 1
    assert "that of y from there, as --y ../y" in refused.stderr
    assert "name it, as --y NAME, or put one" in here("train", tmp_path / "X").stderr


@pytest.mark.slow
def test_chunks_that_were_left_out_are_filled_by_a_flag(tmp_path, scheduler):
    """zarr-python leaves out chunks of nothing but zeros, as of labels that are sorted."""
    rng = np.random.default_rng(0)
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("X", data=rng.standard_normal((64, 3)), chunks=(8, 3))
    group.create_array("y", data=(np.arange(64) >= 32).astype("u1"), chunks=(8,))
    store, run = tmp_path / "a.zarr", tmp_path / "a.run"
    validated = ("--validation", store, "--scheduler", scheduler, "--max-iter", 2)
    for command in (
        ("rechunk", store, tmp_path / "r.zarr"),
        ("shuffle", store, tmp_path / "s.zarr"),
        ("plan", store, *validated),
        ("train", store, "--out", run, *validated),
        ("evaluate", run, store, "--scheduler", scheduler),
        ("tradeoff", store, "--batch-sizes", "full", *validated),
        ("predict", run, store, tmp_path / "p.csv"),
        ("predict", run, store, tmp_path / "p.zarr", "--scheduler", scheduler),
        ("info", store),
    ):
        if command[0] not in ("info", "predict"):
            refused = here(*command)
            assert refused.exit_code == 1
            assert "--fill-missing reads such chunks as that value" in refused.stderr
        assert here(*command, "--fill-missing").exit_code == 0, command


@pytest.mark.slow
def test_data_that_are_damaged_end_a_run_with_1_and_a_line(tmp_path, scheduler):
    store = make_data(tmp_path / "a.zarr", rows=5000, features=10)
    out = tmp_path / "a.run"
    arguments = ("train", store.path, "--scheduler", scheduler, "--quiet", "--out", out)
    shard = Path(store.X.shard_path(0))
    blob = bytearray(shard.read_bytes())
    blob[100] ^= 1
    shard.write_bytes(blob)
    damaged = here(*arguments)
    assert (damaged.exit_code, damaged.stdout) == (1, "")
    assert damaged.stderr.startswith(f"error: X, chunk 0 (rows 0 to {store.chunk_rows - 1}) in ")
    assert len(damaged.stderr.splitlines()) == 1
    shard.unlink()
    assert "its file is missing" in here(*arguments).stderr
    X = np.ones((100, 2))
    X[70, 1] = np.nan
    group = zarr.create_group(tmp_path / "b.zarr")
    group.create_array("X", data=X)
    group.create_array("y", data=np.arange(100) % 2)
    arguments = ("train", tmp_path / "b.zarr", *arguments[2:])
    not_finite = here(*arguments)
    assert (not_finite.exit_code, not_finite.stdout) == (1, "")
    assert not_finite.stderr.startswith("error: row 70 has nan in column 1 of X; drop or fill")
    assert not out.exists()


# Commands


def test_info(made, flights):
    result = here("info", flights[0], "--columns", "2")
    assert result.exit_code == 0
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines() if line)
    assert lines["rows"] == "261,877"
    assert lines["features"] == "146 of float32"
    assert lines["classes"] == "False (199,687 rows), True (62,190 rows)"
    assert lines["order"] == "shuffled with seed 0"
    assert lines["codec"] == "blosc, checksums"
    assert "... and 144 more" in result.stdout
    found = json.loads(here("info", flights[0], "--json", "--columns", "1").stdout)
    assert found["n_rows"] == 261_877
    assert found["class_counts"] == [199_687, 62_190]
    assert [column["name"] for column in found["columns"]] == ["dep_delay"]
    assert found["columns"][0]["mean"] == pytest.approx(12.526, abs=1e-3)
    assert found["bytes"] > found["bytes_at_rest"] > 0
    # Eight bytes a row are its number in the file.
    decoded = found["bytes"] + 8 * found["n_rows"]
    assert found["ratio"] == pytest.approx(decoded / found["bytes_at_rest"])
    assert f"ratio {found['ratio']:.3g}" in lines["bytes"]
    assert (found["dtype"], found["y_dtype"], found["row_id"]) == ("float32", "uint8", True)
    assert lines["y"] == "1 column of uint8"
    assert (found["format_version"], found["generation"]) == (2, 1)
    assert lines["format"] == "version 2, 1 commit"


def test_info_tells_of_raw_columns(flights, made, tmp_path):
    result = here("info", flights[0], "--columns", "3")
    lines = [re.split("  +", line) for line in result.stdout.splitlines()]
    assert ["raw column", "is a", "type", "features"] in lines
    assert ["late", "target", "bool"] in lines
    assert ["dep_delay", "number", "int16", "1"] in lines
    assert ["month", "category", "int8", "12"] in lines
    assert "... and 7 more (--columns 10)" in result.stdout
    found = json.loads(here("info", flights[0], "--json").stdout)["raw_columns"]
    assert len(found) == 10
    assert sum(column["features"] or 0 for column in found) == 146
    assert json.loads(here("info", made, "--json").stdout)["raw_columns"] is None
    damaged = shutil.copytree(flights[1], tmp_path / "damaged.zarr")
    manifest = json.loads((damaged / "zarr.json").read_text())
    del manifest["attributes"]["recipe"]["columns"][0]["kind"]
    (damaged / "zarr.json").write_text(json.dumps(manifest))
    reseal(damaged)
    result = here("info", damaged)
    assert result.exit_code == 1
    assert "its recipe is damaged (columns[0].kind is missing); ingest again" in result.stderr


def test_info_escapes_what_names_hold(tmp_path):
    path = tmp_path / "a.zarr"
    with StoreWriter(
        path,
        n_features=1,
        dtype="float32",
        y_dtype="uint8",
        feature_names=["\x1b[31m[red]<b>\nrows      9"],
        classes=["no\r", "y\x00s"],
    ) as writer:
        writer.write(np.ones((3, 1), np.float32), np.array([0, 1, 1], np.uint8))
        writer.commit()
    result = here("info", path)
    assert result.exit_code == 0
    assert "no\\r (1 row), y\\x00s (2 rows)" in result.stdout
    assert "\\x1b[31m[red]<b>\\nrows      9  " in result.stdout
    assert result.stdout.replace("\n", "").isprintable()
    assert len(re.findall("^rows ", result.stdout, re.MULTILINE)) == 1
    found = json.loads(here("info", path, "--json").stdout)
    assert found["classes"] == ["no\r", "y\x00s"]


def test_info_on_a_run(run):
    result = here("info", run)
    assert result.exit_code == 0
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert lines["model"] == "logistic by newton, batch size full"
    assert lines["features"] == "10"
    assert lines["classes"] == "0, 1"
    assert lines["rows"] == "20,000 training rows"
    assert lines["memory"].startswith("ceiling ")
    assert "note" not in lines
    found = json.loads(here("info", run, "--json").stdout)
    assert found["model"]["name"] == found["report"]["model"] == "logistic"
    assert found["classes"] == [0, 1]


def test_info_on_a_run_has_its_validation_loss_and_notes(made, scheduler, tmp_path):
    settings = ("--validation-fraction", "0.2", "--max-passes", "2", "--solver", "lbfgs")
    out = tmp_path / "a.run"
    trained = here("train", made, *settings, "--out", out, "--scheduler", scheduler, "--quiet")
    assert trained.exit_code == 0, trained.stderr
    lines = dict(line.split(maxsplit=1) for line in here("info", out).stdout.splitlines())
    assert re.search(r"\(validation 0\.\d+\), tolerance not reached$", lines["log-loss"])
    assert lines["note"].startswith("not converged: max_passes=2 reached")


def test_info_on_the_zarr_of_others(tmp_path):
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("X", data=np.ones((10, 2), ">f8"), chunks=(4, 1))
    result = here("info", tmp_path / "a.zarr")
    assert result.exit_code == 0
    assert "by zarr-python" in result.stdout
    assert "none: one file for each chunk" in result.stdout
    found = json.loads(here("info", tmp_path / "a.zarr", "--json").stdout)
    assert found["n_outputs"] == 0
    assert found["columns"] is found["classes"] is found["codec"] is found["y_dtype"] is None
    assert (found["format_version"], found["generation"], found["row_id"]) == (0, 0, False)
    assert "by another writer" in result.stdout


def test_make_data(tmp_path):
    path = tmp_path / "a.zarr"
    settings = ("--rows", "3k", "--features", 4, "--random-state", 5, "--codec", "lz4")
    result = here("make-data", path, *settings)
    assert result.exit_code == 0
    told, saved = result.stdout.splitlines()
    assert told.startswith("3,000 rows x 4 features (49.8 KiB) | memory: ceiling ")
    assert saved == f"saved in {path}"
    make_data(tmp_path / "b.zarr", rows=3000, features=4, random_state=5)
    np.testing.assert_array_equal(rows_of(path), rows_of(tmp_path / "b.zarr"))
    again = here("make-data", path, *settings, "--overwrite", "--task", "regression", "--json")
    found = json.loads(again.stdout)
    assert found["classes"] is None
    assert found["memory"]["measured"] <= found["memory"]["projected"]
    small = here("make-data", path, *settings, "--overwrite", "--memory-ceiling", "20MiB")
    assert small.exit_code == 1
    assert "error: the job needs" in small.stderr
    assert rows_of(path).shape == (3000, 4)


def test_rechunk(made, tmp_path):
    out = tmp_path / "out.zarr"
    settings = ("--chunk-rows", "3k", "--codec", "lz4", "--dtype", "float64")
    result = here("rechunk", made, out, *settings, "--memory-ceiling", "4GiB")
    assert result.exit_code == 0, result.output
    told, saved = result.stdout.splitlines()
    assert told.startswith("20,000 rows (1.54 MiB) in 7 chunks of 234 KiB | memory: ceiling 4 GiB")
    assert saved == f"saved in {out}"
    np.testing.assert_array_equal(rows_of(out), rows_of(made))
    assert rows_of(out).dtype == np.float64
    again = here("rechunk", made, out)
    assert again.exit_code == 1
    assert "out.zarr exists" in again.stderr
    over = here("rechunk", made, out, "--overwrite", "--json", "--quiet")
    assert (over.exit_code, over.stderr) == (0, "")
    found = json.loads(over.stdout)
    assert (found["codec"], found["dtype"], found["shuffled"]) == ("raw", "float32", 0)
    assert found["memory"]["measured"] <= found["memory"]["projected"]
    wrong = here("rechunk", made, out, "--overwrite", "--dtype", "text")
    assert wrong.exit_code == 1
    assert "--dtype text is no type of numbers" in wrong.stderr


def test_shuffle(made, tmp_path):
    out = tmp_path / "out.zarr"
    result = here("shuffle", made, out, "--random-state", 3, "--memory-ceiling", "4GiB")
    assert result.exit_code == 0, result.output
    told, saved = result.stdout.splitlines()
    assert told.startswith("20,000 rows (801 KiB) shuffled with seed 3 | memory: ceiling 4 GiB, ")
    assert saved == f"saved in {out}"
    ids = rows_of(out, "row_id")
    assert (ids != np.arange(20_000)).any()
    np.testing.assert_array_equal(rows_of(out), rows_of(made)[ids])
    again = here("shuffle", made, out, "--random-state", 4)
    assert again.exit_code == 1
    assert "out.zarr exists" in again.stderr
    assert "--overwrite" in in_words(here("shuffle", "--help").stdout)
    over = here("shuffle", made, out, "--random-state", 4, "--overwrite", "--json", "--quiet")
    assert (over.exit_code, over.stderr) == (0, "")
    found = json.loads(over.stdout)
    assert (found["n_rows"], found["shuffled"], found["row_id"]) == (20_000, 4, True)
    memory = found["memory"]
    assert memory["measured"] <= memory["projected"] <= memory["ceiling"]
    assert (rows_of(out, "row_id") != ids).any()


def test_plan(made, scheduler):
    result = here("plan", made, "--scheduler", scheduler, "--memory-ceiling", "4GiB")
    assert result.exit_code == 0, result.stderr
    assert re.search(r"^ceiling +4 GiB  given$", result.stdout, re.MULTILINE)
    assert (
        "it fits: the smallest ceiling that would do at each start with 1 worker is"
        in result.stdout
    )
    small = here("plan", made, "--scheduler", scheduler, "--memory-ceiling", "99MiB", "--json")
    assert small.exit_code == 1
    found = json.loads(small.stdout)
    assert found["fits"] is False
    assert found["ceiling"] == 99 * 2**20 < found["smallest_ceiling"]
    assert found["projected"] == sum(found["terms"].values())
    assert (found["model"], found["solver"], found["batch_size"]) == ("logistic", "newton", "full")


def test_a_ceiling_that_cannot_be_kept_is_refused(made, scheduler, tmp_path):
    out = tmp_path / "a.run"
    result = here(
        "train", made, "--scheduler", scheduler, "--memory-ceiling", "99MiB", "--out", out, "--json"
    )
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"] == "CeilingExceeded"
    assert "its memory ceiling is 99 MiB (given); raise the memory ceiling" in result.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("cores", "ceiling", "kernels", "workers"),
    [
        (2, "1GiB", True, 2),
        (2, "512MiB", True, 2),
        # The plan ends those that it has no room for.
        (8, "512MiB", False, 5),
        (8, "512MiB", True, 3),
        (8, "1GiB", True, 8),
        (8, "8GiB", True, 8),
        (8, "64MiB", False, 1),
    ],
)
def test_a_small_ceiling_does_not_fail_for_many_cores(
    monkeypatch, cores, ceiling, kernels, workers
):
    monkeypatch.setattr("dask.system.CPU_COUNT", cores)
    whole = Ceiling(parse_bytes(ceiling), "given", whole_process=True)
    assert workers_within(whole, kernels=kernels) == workers


@pytest.mark.slow
def test_workers_are_as_many_as_the_ceiling_has_room_for(made, monkeypatch):
    monkeypatch.setattr("dask.system.CPU_COUNT", 4)
    address = ("--dashboard-address", "127.0.0.1:0", "--json")
    found = json.loads(here("plan", made, "--memory-ceiling", "4GiB", *address).stdout)
    assert found["terms"]["headroom"] == (24 + 4 * 8) * 2**20
    small = json.loads(here("plan", made, "--memory-ceiling", "210MiB", *address).stdout)
    assert small["terms"]["headroom"] == (24 + 8) * 2**20


@pytest.mark.slow
def test_evaluate(made, run, scheduler, tmp_path):
    result = here("evaluate", run, made, "--scheduler", scheduler, "--json", "--quiet")
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert set(found) == {
        "n_rows", "loss", "accuracy", "log_loss", "roc_auc", "roc_auc_error", "brier", "ece",
        "by_class", "plot", "report", "memory",
    }  # fmt: skip
    by_class = found["by_class"]
    assert sum(map(sum, by_class["confusion"])) == 20_000
    assert by_class["roc_auc"] == [found["roc_auc"]]
    assert found["n_rows"] == 20_000
    assert 0.6 < found["accuracy"] < found["roc_auc"] < 1
    drawn = ("--plot", tmp_path / "classes.png")
    text = here("evaluate", run, made, "--scheduler", scheduler, *drawn).stdout
    assert re.search(r"^class +precision +recall +f1 +support\n0 +0\.\d+", text, re.MULTILINE)
    assert f"drawn in {drawn[1]}\n" in text
    assert drawn[1].read_bytes().startswith(b"\x89PNG")
    assert here("evaluate", run, made, *drawn).exit_code == 1
    assert re.search(r"^roc_auc +0\.\d+  within ", text, re.MULTILINE)
    assert re.search(r"^memory: ceiling .*, projected .*, measured ", text, re.MULTILINE)


def test_predict(made, run, scheduler, tmp_path):
    out = tmp_path / "out.zarr"
    result = here("predict", run, made, out, "--proba", "--scheduler", scheduler, "--quiet")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.endswith(f"saved in {out}: prediction, probability\n")
    fitted = load_fitted(run)
    z = fitted.predictor.decision(rows_of(made))
    np.testing.assert_allclose(rows_of(out, "probability"), Outputs.of(fitted).probabilities(z))
    np.testing.assert_array_equal(rows_of(out, "prediction"), Outputs.of(fitted).codes(z))
    again = here("predict", run, made, out, "--scheduler", scheduler)
    assert again.exit_code == 1
    assert "exists" in again.stderr


@pytest.mark.parametrize("name", ["p.zarr", "p.csv", "p.parquet"])
def test_one_writes_predictions_at_a_time_and_remains_are_cleared(
    made, run, scheduler, name, tmp_path
):
    command = ("predict", run, made, tmp_path / name, "--scheduler", scheduler, "--quiet")
    kind = STORE if name == "p.zarr" else FILE
    with PartialOutput(tmp_path / name, kind) as other:
        result = here(*command)
        assert result.exit_code == 1
        assert "error: another process is writing" in result.stderr
        assert os.path.lexists(other.partial_path)
        # As if that process were killed.
        (Path(other.partial_path, "half") if kind is STORE else Path(other.partial_path)).touch()
        if kind is FILE:
            Path(other.partial_path).write_text("half")
        os.close(other._lock)
        other._lock = -1
    result = here(*command[:-1])
    assert result.exit_code == 0, result.stderr
    assert "note: removed what an earlier process, which was killed, left beside" in result.stderr
    assert os.listdir(tmp_path) == [name]


def test_a_run_that_appears_meanwhile_costs_no_model(made, scheduler, tmp_path, monkeypatch):
    out, real = tmp_path / "a.run", Fitted.save_as

    def late(fitted, *given):
        shutil.copytree(made, out)
        return real(fitted, *given)

    monkeypatch.setattr(Fitted, "save_as", late)
    result = here("train", made, "--out", out, "--scheduler", scheduler, "--json")
    assert result.exit_code == 1
    saved = str(tmp_path / "a-1.run")
    assert json.loads(result.stdout)["out"] == saved
    assert f"{out} was made or changed by another process while this one was" in result.stderr
    assert f"what this one made is saved in {saved}" in result.stderr
    assert load_fitted(saved).n_features == 10
    assert open_store(out).n_rows == 20_000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["p.csv", "p.parquet"])
@pytest.mark.parametrize("before", [False, True])
def test_predictions_on_a_full_disk_leave_what_was_there(made, run, name, before, tmp_path):
    out = tmp_path / name
    if before:
        out.write_text("old")

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    # What a writer still holds as it is closed fails, too.
    command = ("predict", run, made, out, "--overwrite", "--quiet")
    code, _, stderr = apart(*command, preexec_fn=full)
    assert code == 1
    assert re.fullmatch(r"error: .*the file would be larger than the limit.*\n", stderr), stderr
    assert os.listdir(tmp_path) == ([name] if before else [])
    assert not before or out.read_text() == "old"


@pytest.mark.parametrize(
    "out", ["s3://bucket/p.zarr", "s3://bucket/p.csv", "s3://bucket/p.parquet"]
)
def test_predictions_are_written_to_local_places(made, run, out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = here("predict", run, made, out, "--quiet")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {out} is a URL, and output is written to local")
    report = here("report", run, "--out", "s3://bucket/a.html")
    assert "is a URL, and output is written to local" in report.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_model_that_is_not_saved_is_noted_before_and_after(made, scheduler, tmp_path):
    address = ("--max-iter", "1", "--scheduler", scheduler)
    result = here("train", made, *address)
    assert "note: without --out the model will not be saved\n" in result.stderr
    assert result.stdout.endswith("the model was not saved; --out RUN saves it\n")
    kept = here("train", made, "--out", tmp_path / "a.run", *address)
    assert "not be kept" not in kept.stderr
    assert "not kept" not in kept.stdout


def test_a_regression_does_not_learn_the_codes_of_classes(scheduler, tmp_path):
    rng = np.random.default_rng(0)
    X, codes = rng.normal(size=(100, 2)), np.arange(100) % 2
    for name, classes in (("text", ("no", "yes")), ("others", (3, 7)), ("same", (0, 1))):
        write_store(tmp_path / name, X, codes, chunk_rows=10, classes=classes)
    for name, listed in (("text", "'no', 'yes'"), ("others", "3, 7")):
        for model in ("ridge", "linear"):
            result = here("train", tmp_path / name, "--model", model)
            assert result.exit_code == 1
            assert f"has the classes {listed} as codes from 0" in result.stderr
            assert "or train a classifier: --model logistic" in result.stderr
    result = here("train", tmp_path / "same", "--model", "ridge", "--scheduler", scheduler)
    note = "note: y holds the classes 0, 1, which the regression takes as numbers\n"
    assert note in result.stderr
    assert note in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "model", "solver"),
    [
        (["linear-svr", "--epsilon", "0.1"], LinearSVRModel(epsilon=0.1), "smoothing"),
        (
            ["linear-svr", "--loss", "squared_epsilon_insensitive", "--C", "0.5"],
            LinearSVRModel(loss="squared_epsilon_insensitive", C=0.5),
            "newton",
        ),
        (
            ["sgd-regressor", "--loss", "huber", "--penalty", "l1", "--max-iter", "2"],
            SGDRegressorModel(loss="huber", penalty="l1"),
            "sgd",
        ),
        (
            ["sgd-regressor", "--batch-size", "full", "--alpha", "0.1"],
            SGDRegressorModel(alpha=0.1),
            "gram",
        ),
    ],
)
def test_regressors_by_other_losses_are_models(tmp_path, scheduler, options, model, solver):
    data, out = tmp_path / "made.zarr", tmp_path / "a.run"
    make_data(data, rows=2000, features=5, task="regression")
    result = here("train", data, "--model", *options, "--out", out, "--scheduler", scheduler)
    assert result.exit_code == 0, result.stderr
    fitted = load_fitted(out)
    assert fitted.model == model
    assert fitted.report["solver"] == solver
    if "--batch-size" not in options:
        assert fitted.training.batch_size == model.default_batch_size
    measured = json.loads(here("evaluate", out, data, "--json", "--scheduler", scheduler).stdout)
    assert measured["r2"] > 0.2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "model", "passes"),
    [
        (["linear-svc", "--C", "0.5"], LinearSVCModel(C=0.5), "passes, squared hinge loss "),
        (
            ["linear-svc", "--loss", "hinge", "--batch-size", "chunk", "--max-iter", "2"],
            LinearSVCModel(loss="hinge"),
            "passes, hinge loss ",
        ),
        (
            ["sgd-classifier", "--loss", "log_loss", "--max-iter", "2"],
            SGDClassifierModel(loss="log_loss"),
            "passes, logistic loss ",
        ),
        (
            ["ridge-classifier", "--class-weight", "balanced"],
            RidgeClassifierModel(class_weight="balanced"),
            "1 pass, half squared error ",
        ),
    ],
)
def test_classifiers_by_margins_are_models(tmp_path, scheduler, options, model, passes):
    data, out = tmp_path / "made.zarr", tmp_path / "a.run"
    make_data(data, rows=2000, features=5, classes=3)
    result = here("train", data, "--model", *options, "--out", out, "--scheduler", scheduler)
    assert result.exit_code == 0, result.stderr
    assert passes in result.stdout
    assert load_fitted(out).model == model
    assert load_fitted(out).coef.shape == (3, 5)
    if "--batch-size" not in options:
        assert load_fitted(out).training.batch_size == model.default_batch_size
    assert re.search(r"(loss|error) +[\d.]+", here("info", out).stdout, re.MULTILINE)
    measured = json.loads(here("evaluate", out, data, "--json", "--scheduler", scheduler).stdout)
    assert measured["accuracy"] > 0.5


@pytest.mark.slow
def test_probabilities_of_no_classes(made, scheduler, tmp_path):
    out = tmp_path / "a.run"
    result = here("train", made, "--model", "ridge", "--out", out, "--scheduler", scheduler)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("1 pass, half squared error 0.")
    refused = here("predict", out, made, tmp_path / "out.zarr", "--proba")
    assert refused.exit_code == 1
    assert "--proba needs classes" in refused.stderr
    found = json.loads(here("evaluate", out, made, "--scheduler", scheduler, "--json").stdout)
    assert set(found) == {
        "n_rows", "loss", "r2", "mse", "mae", "residuals", "plot", "report", "memory",
    }  # fmt: skip


@pytest.mark.slow
def test_a_plot_of_the_memory(made, scheduler, tmp_path):
    plot = tmp_path / "a.svg"
    arguments = ("train", made, "--scheduler", scheduler, "--max-iter", "2", "--plot", plot)
    result = here(*arguments)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.endswith(f"drawn in {plot}\n")
    assert "<svg" in plot.read_text()
    again = here(*arguments)
    assert (again.exit_code, again.stdout) == (1, "")
    assert "a.svg exists already; choose another name, or replace it by --overwrite" in again.stderr
    assert "dashboard" not in again.stderr  # refused before anything is begun
    over = json.loads(here(*arguments, "--overwrite", "--json", "--quiet").stdout)
    assert over["plot"] == str(plot)
    timeline = over["memory"]["timeline"]
    assert list(timeline["processes"]) == ["driver", "worker 0"]
    assert {len(held) for held in timeline["processes"].values()} == {len(timeline["seconds"])}
    assert [step["n_iter"] for step in over["history"]] == [0, 1, 2]
    wrong = here(*arguments[:-1], tmp_path / "a.gif")
    assert wrong.exit_code == 1
    assert "ends with none of .png, .svg, .pdf" in wrong.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "cause"),
    [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGHUP, 129, "the end of its terminal")],
)
@pytest.mark.parametrize("as_json", [True, False])
def test_a_stopped_run_is_reported_and_saved(
    made, scheduler, tmp_path, monkeypatch, number, status, cause, as_json
):
    def press(_, event):
        if isinstance(event, Stepped) and event.n_iter == 2:
            signal.raise_signal(number)

    monkeypatch.setattr(ConsoleBar, "__call__", press)
    monkeypatch.setattr(interrupts, "_last_request", -1e9)
    out = tmp_path / "a.run"
    result = here(
        "train", made, "--scheduler", scheduler, "--solver", "lbfgs", "--tol", "0", "--out", out,
        "--quiet", *(["--json"] if as_json else []),
    )  # fmt: skip
    assert result.exit_code == status, result.output
    fitted = load_fitted(out)
    note = f"stopped by {cause} before its end"
    assert (fitted.report["n_iter"], fitted.report["notes"]) == (2, [note])
    *asked, told = result.stderr.splitlines()
    assert told == (
        f"the run was stopped by {cause} after 3 passes; its current state is saved in {out}"
    )
    assert len(asked) == (number == signal.SIGINT)
    if as_json:
        found = json.loads(result.stdout)
        assert (found["n_iter"], found["notes"], found["out"]) == (2, [note], str(out))
    else:
        assert f"note: {note}\n" in result.stdout
        assert result.stdout.endswith(f"saved in {out}\n")


# The whole of it, in processes of its own


@pytest.mark.slow
def test_the_story_of_a_run(flights, tmp_path):
    out = tmp_path / "late.run"
    code, told, shown = apart(
        "train", flights[0], "--model", "logistic", "--memory-ceiling", "512MiB", "--out", out,
        "--workers", 2,
    )  # fmt: skip
    assert code == 0, shown
    report, end, solver, where, saved = told.splitlines()
    size = r"[\d.]+ MiB"
    assert re.fullmatch(
        rf"[\d.]+ passes, log-loss 0\.2\d+ \| "
        rf"memory: ceiling 512 MiB, projected {size}, measured {size}",
        report,
    )
    assert end.startswith("converged after ")
    assert solver == "solver: newton (a smooth loss, and 147 parameters: at most 512)"
    spent = "(reading|decoding|computing|waiting|dask|evaluating)"
    assert re.fullmatch(rf"time spent: {spent} \d+ %(, {spent} \d+ %)*", where)
    assert saved == f"saved in {out}"
    dashboard, page, about, *plan = shown.splitlines()
    assert re.fullmatch(r"dashboard  http://127\.0\.0\.1:\d+/[\w-]{22}/status", dashboard)
    assert page == dashboard.replace("dashboard", "training ").replace("/status", "/training")
    assert about == "logistic by newton, batch size full: 261,877 rows x 146 features"
    assert plan[0].startswith("baseline ")
    # Nothing else: the plan, and a line a step.
    rest = [line for line in plan if not re.match(r"[a-z ]+ +-?[\d.]+ (B|KiB|MiB|GiB)", line)]
    assert all(re.match(r"(pass \d+|[\d.]+ pass(es)?)  (loss|\d)", line) for line in rest)
    assert evaluate(load_fitted(out), flights[1])[0]["roc_auc"] > 0.9


@pytest.mark.slow
def test_one_json_object_and_nothing_else(made):
    code, told, shown = apart(
        "train", made, "--batch-size", "256", "--max-iter", "3", "--random-state", "1", "--workers",
        "1", "--json", "--quiet",
    )  # fmt: skip
    assert (code, shown) == (0, "")
    report = json.loads(told)
    assert {
        "model", "solver", "batch_size", "n_rows", "n_features", "passes", "updates", "bytes_read",
        "seconds", "rows_per_second", "loss", "converged", "memory", "out",
    } <= set(report)  # fmt: skip
    assert (report["solver"], report["batch_size"], report["updates"]) == ("sgd", 256, 3 * 79)
    memory = report["memory"]
    assert memory["baseline"] < memory["measured"] <= memory["projected"] <= memory["ceiling"]
    names = [process["name"] for process in memory["processes"]]
    assert names == ["driver", "worker 0"]
    assert memory["measured"] == sum(process["peak"] for process in memory["processes"])


# Steps so small that there is always something to gain.
ENDLESS = ("--solver", "sgd", "--learning-rate", "1e-7", "--tol", "0", "--max-iter", "1000000")


@contextmanager
def on_a_terminal(*arguments):
    """A command on a terminal of its own: gives both. It is ended, whatever becomes of the test."""
    terminal, other = pty.openpty()
    process = start(
        *arguments, "--dashboard-address", "127.0.0.1:0",
        stdin=other, stdout=other, stderr=other, start_new_session=True,
    )  # fmt: skip
    os.close(other)
    try:
        yield process, terminal
    finally:
        with suppress(OSError):
            os.close(terminal)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def plain_lines(shown):
    """What a terminal shows, as lines without what moves its cursor."""
    return re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", shown).splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", ["full", "1"])
def test_ctrl_c_saves_the_run_and_ends_with_a_line(made, batch_size, tmp_path):
    """As a terminal does it: the signal goes to every process of the group."""
    out = tmp_path / "a.run"
    settings = ("--batch-size", batch_size, *ENDLESS, "--out", out)
    with on_a_terminal("train", made, *settings) as (process, terminal):
        shown = read_until(terminal, "loss ")
        os.killpg(process.pid, signal.SIGINT)
        shown += read_until(terminal, None)
        assert process.wait(60) == 130
    lines = plain_lines(shown)
    assert lines[-1].endswith("interrupted")
    assert any(line.startswith("stopping after this step") for line in lines)
    assert f"saved in {out}" in lines
    assert "Traceback" not in shown
    assert "WARNING" not in shown
    assert load_fitted(out).report["notes"] == ["stopped by Ctrl-C before its end"]


@pytest.mark.slow
def test_a_second_ctrl_c_interrupts_at_once(made, tmp_path):
    out = tmp_path / "a.run"
    settings = (*ENDLESS, "--out", out)
    with on_a_terminal("train", made, *settings) as (process, terminal):
        shown = read_until(terminal, "loss ")
        os.killpg(process.pid, signal.SIGINT)
        shown += read_until(terminal, "stopping after this step")
        os.killpg(process.pid, signal.SIGINT)
        shown += read_until(terminal, None)
        assert process.wait(60) == 130
    assert plain_lines(shown)[-1].endswith("interrupted")
    assert "Traceback" not in shown


@pytest.mark.slow
def test_a_terminal_that_is_closed_ends_a_run_that_is_saved(made, tmp_path):
    out = tmp_path / "a.run"
    settings = ("--batch-size", "1", *ENDLESS, "--out", out)
    with on_a_terminal("train", made, *settings) as (process, terminal):
        read_until(terminal, "loss ")
        os.close(terminal)
        os.killpg(process.pid, signal.SIGHUP)
        assert process.wait(60) == 129
    notes = load_fitted(out).report["notes"]
    assert notes == ["stopped by the end of its terminal before its end"]


@pytest.mark.slow
@pytest.mark.parametrize(("closed", "status"), [("stderr", 0), ("stdout", 1)])
def test_a_pipe_that_nobody_reads(made, tmp_path, closed, status):
    """Progress that can't be shown stops no run; results that can't be told are a failure."""
    out, other = tmp_path / "a.run", tmp_path / "other"
    with (
        other.open("w") as file,
        start(
            "train", made, "--batch-size", "256", "--max-iter", "3", "--workers", 1, "--out", out,
            "--dashboard-address", "127.0.0.1:0",
            **{"stdout": file, "stderr": file} | {closed: subprocess.PIPE},
        ) as process,
    ):  # fmt: skip
        getattr(process, closed).close()
        assert process.wait(120) == status
    assert load_fitted(out).report["n_iter"] == 3
    told = other.read_text()
    assert "Traceback" not in told
    assert "Exception" not in told
    assert (f"saved in {out}" in told) is (closed == "stderr")


def read_until(terminal, word):
    """What a terminal shows until there is a word, or until nobody writes to it any more."""
    shown, deadline = "", time.monotonic() + 120
    while word is None or word not in shown:
        assert time.monotonic() < deadline, shown
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                shown += os.read(terminal, 2**16).decode(errors="replace")
            except OSError:  # Linux's way to say that it was closed
                break
    return shown
