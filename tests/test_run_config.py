"""`ooc-train train --config`: a run's settings file says the whole run, or there is none."""

import tomllib
from dataclasses import fields, replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from typer.testing import CliRunner

from ooc_train import (
    Checkpoint,
    LocalCluster,
    LogisticModel,
    Training,
    cli,
    make_data,
    open_store,
    train,
)
from ooc_train.cli.model_options import ModelOptions
from ooc_train.models.classification_models import LinearSVCModel
from ooc_train.models.model_registry import MODELS
from ooc_train.models.network_models import MLPClassifierModel
from ooc_train.objective.losses.huber import Huber
from ooc_train.optimizers.differential_privacy import DifferentiallyPrivate
from ooc_train.optimizers.momentum import Momentum
from ooc_train.optimizers.schedules import Steps
from ooc_train.runs.run_loading import load_fitted
from ooc_train.solvers.early_stopping import EarlyStopping
from ooc_train.stream.inputs import read_inputs
from ooc_train.training.run_config import config_of
from ooc_train.training.task import Task


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "a.zarr"
    make_data(path, rows=5_000, features=3)
    return path


def here(*arguments):
    """Run a command in this process."""
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def call(tmp_path, text, *more):
    """The parameters of a call with a settings file."""
    file = tmp_path / "config.toml"
    file.write_text(text, encoding="utf-8")
    found = cli._Commands().get_command(None, "train")
    return found.make_context("train", ["--config", str(file), *more]).params


def made(params):
    return ModelOptions(**{each.name: params[each.name] for each in fields(ModelOptions)}).made()


def file_of(task):
    text = config_of(task)
    assert text is not None
    return text


def task_of(store, model, training=None, **given):
    inputs = read_inputs(store, classifier=model.is_classifier, **given)
    return Task.of(model, inputs, Training() if training is None else training)


@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith("torch")])
def test_the_file_of_each_model_makes_the_same_model(store, tmp_path, name):
    needed = {"loss": Huber()} if name == "custom" else {}
    model = MODELS[name](**needed)
    positive = any(word in name for word in ("gamma", "poisson", "tweedie"))
    if not model.is_classifier and not positive:
        make_data(tmp_path / "r.zarr", rows=100, features=3, task="regression")
        store = tmp_path / "r.zarr"
    task = task_of(store, model, y=np.arange(5_000) + 1.0) if positive else task_of(store, model)
    if positive:
        assert config_of(task) is None  # its y is an array
        task = replace(task, inputs=replace(task.inputs, store=open_store(store)))
    params = call(tmp_path, file_of(task))
    assert params["store"] == str(store)
    again, training = made(params)
    assert again.settings() == model.settings()
    assert training.settings() == task.training.settings() | {
        "random_state": task.settings.seed if task.training.draws(model) else None
    }


@pytest.mark.parametrize(
    ("model", "training"),
    [
        (
            LogisticModel(C=1, fit_intercept=False, class_weight={0: 1, 1: 2.5}),
            Training(
                solver=Momentum(momentum=0.8, nesterov=True),
                batch_size=7,
                schedule=Steps(at=(0.5, 0.75)),
                learning_rate=0.1,
                max_seconds=90,
                target_loss=-1e-9,
                random_state=2**100,
            ),
        ),
        (LogisticModel(C=float("inf"), scale=1 / 255), Training(batch_size="exp:32..full")),
        (MLPClassifierModel(hidden_layer_sizes=()), Training(batch_size=8, random_state=0)),
        (LinearSVCModel(loss="hinge"), Training(max_passes=2.5)),
    ],
)
def test_the_file_keeps_settings_of_every_kind(store, tmp_path, model, training):
    text = file_of(task_of(store, model, training))
    again, found = made(call(tmp_path, text))
    assert again.settings() == model.settings()
    due = training.settings()
    assert found.settings() == due | {"random_state": tomllib.loads(text).get("random-state")}


def test_the_rule_of_early_stopping_and_held_out_rows_are_kept(tmp_path):
    make_data(tmp_path / "a.zarr", rows=60_000, features=20)
    rule = EarlyStopping(patience=2, metric="roc_auc", restore_best=False)
    training = Training(batch_size=9, early_stopping=rule, validation_fraction=0.5)
    text = file_of(task_of(tmp_path / "a.zarr", LogisticModel(), training))
    found = made(call(tmp_path, text))[1]
    assert found.early_stopping == rule
    assert found.validation_fraction == 0.5
    assert 'metric = "roc_auc"\nkeep-last = true\n' in text


def test_arrays_of_other_names_are_kept(store, tmp_path):
    opened = open_store(store, y=store / "y", sample_weight=None)
    params = call(tmp_path, file_of(task_of(opened, LogisticModel())))
    assert params["y"] == str(store / "y")
    assert params["no_weights"] is True
    validation = open_store(store, X=str(store / "X"))
    task = Task.of(LogisticModel(), read_inputs(store, classifier=True), Training(), validation)
    assert f'validation = "{store}"' in file_of(task)
    # No option names an array of the validation rows alone.
    validation = open_store(store, sample_weight=None)
    task = Task.of(LogisticModel(), read_inputs(store, classifier=True), Training(), validation)
    assert config_of(task) is None


def test_a_file_holds_no_password_of_a_url(store):
    opened = open_store(store)
    inputs = read_inputs(store, classifier=True)
    for secret in ("s3://key:secret@host/a.zarr", "https://host/a.zarr?token=secret"):
        hidden = replace(inputs, store=replace(opened, path=secret))
        text = file_of(Task.of(LogisticModel(), hidden))
        assert "secret" not in text
        assert "store =" not in text
        assert "give it on the command line" in text
        assert config_of(Task.of(LogisticModel(), inputs, Training(), hidden)) is None


def test_a_run_that_no_command_can_repeat_has_no_file(store, tmp_path):
    X, y = open_store(store).read("X"), open_store(store).read("y")
    model, training = LogisticModel(), Training(max_iter=1)
    first, _ = train(model, store, training, out=tmp_path / "first")
    train(model, store, training, out=tmp_path / "of_a_value", start=first)
    train(model, store, training, y=1 - y, out=tmp_path / "of_an_array")
    train(model, X, training, y=y, out=tmp_path / "of_arrays")
    found = [each.parent.name for each in tmp_path.glob("*/config.toml")]
    assert found == ["first"]


@pytest.mark.slow
def test_a_run_that_began_from_another_names_it_and_its_parameters(store, tmp_path):
    model, first = LogisticModel(), tmp_path / "first.run"
    updates = Training(batch_size=50, learning_rate=0.01, max_iter=1, tol=0.0, random_state=0)
    train(model, store, updates, out=first)
    begun, _ = train(model, store, updates, out=tmp_path / "a.run", start=first)
    text = (tmp_path / "a.run" / "config.toml").read_text()
    found = tomllib.loads(text)
    assert found["start"] == str(first)
    few = ("--workers", 1, "--quiet", "--dashboard-address", "127.0.0.1:0")
    call = ("train", "--config", tmp_path / "a.run" / "config.toml", *few)
    result = here(*call, "--out", tmp_path / "b.run")
    assert result.exit_code == 0, result.stderr
    assert_array_equal(load_fitted(tmp_path / "b.run").coef, begun.coef)
    assert (tmp_path / "b.run" / "config.toml").read_text() == text

    train(model, store, replace(updates, max_iter=2), out=first, overwrite=True)
    result = here(*call, "--out", tmp_path / "c.run")
    assert result.exit_code == 1
    assert f"than those that the run of the settings file began from ({found['start-digest']})" in (
        " ".join(result.stderr.split())
    )
    result = here("train", store, "--start-digest", "0")
    assert result.exit_code == 2


def test_a_run_that_was_ended_goes_on_to_the_file_of_its_start(store, tmp_path):
    model, training = LogisticModel(), Training(batch_size=50, max_iter=1, tol=0, random_state=0)
    first, _ = train(model, store, training, out=tmp_path / "first")
    starts = {"of_a_run": tmp_path / "first", "of_a_value": first}
    for name, start in starts.items():
        place = Checkpoint(tmp_path / f"{name}.checkpoint", resume=True)
        train(model, store, training, checkpoint=place, start=start)
        more = replace(training, max_iter=2)
        train(model, store, more, checkpoint=place, out=tmp_path / name)
    found = tomllib.loads((tmp_path / "of_a_run" / "config.toml").read_text())
    assert found["start"] == str(tmp_path / "first")
    assert not (tmp_path / "of_a_value" / "config.toml").exists()


def test_the_seed_of_private_updates_is_in_no_file(store):
    private = DifferentiallyPrivate(noise_multiplier=1.0, max_grad_norm=1.0)
    for seed in (None, 7):
        training = Training(
            solver=private, batch_size=100, learning_rate=0.1, max_iter=1, random_state=seed
        )
        assert config_of(task_of(store, LogisticModel(), training)) is None


def test_options_of_the_call_win_over_those_of_the_file(tmp_path):
    text = 'store = "a"\nC = 2\nno-intercept = true\nmax-iter = 3\noverwrite = true\nworkers = 1\n'
    params = call(tmp_path, text, "b", "--C", "5", "--threads", "2")
    assert (params["store"], params["C"], params["max_iter"]) == ("b", 5.0, 3)
    assert params["fit_intercept"] is False
    assert (params["overwrite"], params["workers"], params["threads"]) == (True, 1, 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max-itr = 3", "no option 'max-itr'; did you mean 'max-iter'"),
        ("zzzzz = 3", "no option 'zzzzz'; keys are the long names of options"),
        ("resume = 'a.run'", "no option 'resume'"),
        ("config = 'a.toml'", "no option 'config'"),
        ("[train]\nC = 3", "no option 'train'"),
        ("C = [3]", "C = [3] is neither text nor a number"),
        ("C = true", "C = True is neither text nor a number"),
        ("verbose = 1", "verbose = 1 is neither true nor false"),
        ("C = 'much'", "--C"),
        ("C = 1 2", "(at line 1"),
        ("C = 1\nC = 2", "Cannot overwrite a value"),
        ("C = '\udcff'", "codec can't decode"),
    ],
)
def test_a_file_that_is_wrong_is_refused(tmp_path, text, said):
    file = tmp_path / "a.toml"
    file.write_bytes(text.encode(errors="surrogateescape"))
    result = here("train", "a.zarr", "--config", file)
    assert result.exit_code == 2
    lines = [line.strip("│ ") for line in result.stderr.splitlines()]
    assert said in " ".join(lines)


def test_a_file_that_is_none_is_refused(tmp_path):
    for path, said in ((tmp_path, "folder"), (tmp_path / "none", "there is nothing")):
        result = here("train", "a.zarr", "--config", path)
        assert result.exit_code == 2
        assert said in result.stderr
    (tmp_path / "a.toml").write_text("C = 1")
    result = here("train", "--resume", "a.run", "--config", tmp_path / "a.toml")
    assert result.exit_code == 2
    assert "leave --config out" in result.stderr


@pytest.mark.slow
def test_a_run_is_repeated_to_the_same_bits(tmp_path):
    make_data(tmp_path / "a.zarr", rows=60_000, features=20)
    first, again = tmp_path / "first.run", tmp_path / "again.run"
    given = ("--batch-size", 100, "--max-iter", 2, "--validation-fraction", 0.3, "--patience", 1)
    with LocalCluster(n_workers=1, dashboard_address="127.0.0.1:0") as cluster:
        resources = ("--scheduler", cluster.scheduler_address, "--quiet")
        told = here("train", tmp_path / "a.zarr", *given, "--out", first, *resources)
        assert told.exit_code == 0, told.stderr
        text = (first / "config.toml").read_text()
        told = here("train", "--config", first / "config.toml", "--out", again, *resources)
        assert told.exit_code == 0, told.stderr
    assert (again / "config.toml").read_text() == text
    due = load_fitted(first).predictor.arrays
    for name, array in load_fitted(again).predictor.arrays.items():
        assert_array_equal(array, due[name])
