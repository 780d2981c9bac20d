"""`ooc-train train --resume RUN`: a command that was ended or killed goes on."""

import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from numpy.testing import assert_array_equal
from typer.testing import CliRunner

from ooc_train import Checkpoint, LogisticModel, Training, cli, make_data, train
from ooc_train.cli.options import ResourceOptions
from ooc_train.cli.train_command import _way_on
from ooc_train.runs.run_loading import load_fitted
from ooc_train.training.checkpoints import CheckpointFolder

ROOT = Path(__file__).parent.parent
RESOURCES = ("--dashboard-address", "127.0.0.1:0", "--memory-ceiling", "400MiB", "--quiet")
SETTINGS = ("--solver", "adam", "--batch-size", "2", "--tol", "0", "--random-state", "3")


def words(*given):
    return [sys.executable, "-m", "ooc_train", "train", *map(str, given), *RESOURCES]


def run(*given):
    return subprocess.run(words(*given), cwd=ROOT, check=False, capture_output=True, text=True)


def require_same_parameters(found, due):
    arrays = load_fitted(due).predictor.arrays
    for name, array in load_fitted(found).predictor.arrays.items():
        assert_array_equal(array, arrays[name])


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A store, a run of two epochs over it with a checkpoint, and one of four."""
    folder = tmp_path_factory.mktemp("ended")
    make_data(folder / "a.zarr", rows=20_000, features=10)
    for out, most in (("due", 4), ("run", 2)):
        kept = ("--checkpoint-every", "1h") if out == "run" else ()
        place = ("--out", folder / out, "--workers", 1, "--max-iter", most)
        ran = run(folder / "a.zarr", *SETTINGS, *place, *kept)
        assert ran.returncode == 0, ran.stderr
    way_on = f"go on, with twice the limit: ooc-train train --resume {folder / 'run'} --max-iter 4"
    assert way_on in ran.stdout.splitlines()
    return folder


@pytest.mark.parametrize(
    ("end", "way_on"),
    [
        ("max_iter=2000000 reached", "twice the limit: {} --max-iter 4000000"),
        ("max_passes=2.5 reached", "twice the limit: {} --max-passes 5"),
        ("max_seconds=90 reached", "twice the limit: {} --max-seconds 180"),
        ("target_loss=0.3 reached", "a lower target: {} --target-loss LOSS"),
        ("early stopping, 5 evaluations in a row have not improved the validation loss", None),
    ],
)
def test_the_command_that_goes_on_is_whole(end, way_on):
    report: Any = SimpleNamespace(ended=end, saved_in="a b/k.run")
    command = "ooc-train train --resume 'a b/k.run'"
    due = "" if way_on is None else f"go on, with {way_on.format(command)}"
    assert _way_on(report, interrupted=False) == due
    assert _way_on(report, interrupted=True) == f"go on: {command}"


def test_a_checkpoint_is_refused_before_a_cluster_starts(tmp_path, monkeypatch):
    store, out = str(tmp_path / "a.zarr"), tmp_path / "run"
    make_data(store, rows=2_000, features=4)
    training = Training(solver="sgd", batch_size=32, max_iter=2, tol=0.0)
    place = Checkpoint(tmp_path / "run.checkpoint")
    train(LogisticModel(), store, training, checkpoint=place)
    started = []

    def client(*_, **__):
        started.append(1)
        raise ValueError("a cluster starts")

    monkeypatch.setattr(ResourceOptions, "client", client)

    def refused(*given):
        found = CliRunner().invoke(cli.app, ["train", *map(str, given)])
        assert found.exit_code == 1
        return str(found.exception) + found.output

    assert "C of the model is 2.0 now" in refused("--resume", out, "--C", "2")
    assert "holds checkpoints of a run" in refused(store, "--out", out, "--checkpoint-every", "1h")
    with CheckpointFolder(Checkpoint(tmp_path / "run.checkpoint", resume=True)):
        assert "another process writes checkpoints" in refused("--resume", out)
    train(LogisticModel(), store, training, out=out)
    assert "is another run than that of" in refused("--resume", out)
    damaged = tmp_path / "run.checkpoint" / "000001" / "state.npz"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-200])
    assert "000001" in refused("--resume", out)
    damaged.write_bytes(whole)
    assert not started
    assert "a cluster starts" in refused("--resume", out, "--overwrite")
    assert os.listdir(tmp_path / "run.checkpoint") == ["000001"]


@pytest.mark.slow
def test_other_settings_are_refused_by_name(ended, tmp_path):
    make_data(tmp_path / "b.zarr", rows=20_000, features=10, random_state=5)
    for given, said in (
        (("--C", "2"), "the model is 2.0 now, and was 1.0"),
        (("--batch-size", "3"), "--batch-size"),
        (("--model", "ridge"), "--model ridge is another model than the logistic"),
        (("--positive",), "--positive is for the"),
        (("--out", ended / "other"), "leave --out out"),
        ((tmp_path / "b.zarr",), "contents of the data is"),
        (("--weight", "y"), "arrays of the data is"),
    ):
        ran = run(*given, "--resume", ended / "run")
        assert ran.returncode == 1, (given, ran.stderr)
        assert said in ran.stderr
    assert load_fitted(ended / "run").report["n_iter"] == 2


@pytest.mark.slow
def test_a_finished_run_goes_on_by_a_higher_limit_with_other_resources(ended):
    ran = run("--resume", f"{ended / 'run'}/", "--max-iter", 4, "--workers", 2)
    assert ran.returncode == 0, ran.stderr
    require_same_parameters(ended / "run", ended / "due")
    assert sorted(os.listdir(ended)) == ["a.zarr", "due", "run", "run.checkpoint"]
    # Limits that were passed last are kept.
    assert load_fitted(ended / "run").training.max_iter == 4
    ran = run("--resume", ended / "run")
    assert ran.returncode == 0, ran.stderr
    assert "time spent: \n" not in ran.stdout
    # The run that lies there may be another one since.
    ran = run(ended / "a.zarr", *SETTINGS, "--out", ended / "run", "--overwrite", "--max-iter", 1)
    assert ran.returncode == 0, ran.stderr
    ran = run("--resume", ended / "run")
    assert ran.returncode == 1
    assert "is another run than that of" in ran.stderr


@pytest.mark.slow
def test_calls_without_a_run_to_go_on_with(tmp_path, ended):
    for given, status, said in (
        ((), 2, "STORE is missing, or --resume RUN"),
        (("--resume", tmp_path / "gone"), 1, "holds no checkpoint, so there is no run"),
        ((tmp_path, "--checkpoint-every", "5min"), 1, "--checkpoint-every needs --out RUN"),
        (("--resume", ended / "due"), 1, f"--start {ended / 'due'} begins a new run from its"),
    ):
        ran = run(*given)
        assert ran.returncode == status, ran.stderr
        assert said in " ".join(ran.stderr.replace("│", " ").split())


@pytest.mark.slow
def test_a_run_of_python_goes_on_by_the_command_if_its_rows_are_a_store(tmp_path):
    make_data(tmp_path / "a.zarr", rows=2_000, features=4)
    training = Training(solver="sgd", batch_size=32, max_iter=2, tol=0.0)
    place = tmp_path / "run.checkpoint"
    train(LogisticModel(), str(tmp_path / "a.zarr"), training, checkpoint=place)
    ran = run("--resume", tmp_path / "run", "--max-iter", 3)
    assert ran.returncode == 0, ran.stderr
    assert load_fitted(tmp_path / "run").report["n_iter"] == 3
    other = Checkpoint(tmp_path / "other.checkpoint")
    train(LogisticModel(), [[0.0], [1.0]], Training(), y=[0, 1], checkpoint=other)
    ran = run("--resume", tmp_path / "other")
    assert ran.returncode == 1
    assert "is one of Python" in ran.stderr


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store, and a run of ten epochs over it that nothing ended."""
    folder = tmp_path_factory.mktemp("whole")
    make_data(folder / "a.zarr", rows=400_000, features=10)
    ran = run(folder / "a.zarr", *SETTINGS, "--max-iter", 10, "--out", folder / "due")
    assert ran.returncode == 0, ran.stderr
    return folder


@pytest.mark.slow
def test_a_command_that_is_ended_again_and_again_goes_on(tmp_path, whole):
    begin = (whole / "a.zarr", *SETTINGS, "--workers", 1, "--max-iter", 10, "--out")
    place = tmp_path / "found.checkpoint"

    def newest():
        return max(os.listdir(place), default="") if place.exists() else ""

    signals = [signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT]
    given: tuple[Any, ...] = (*begin, tmp_path / "found", "--checkpoint-every", "0s")
    while True:
        before = newest()
        process = subprocess.Popen(words(*given), cwd=ROOT)
        while signals and process.poll() is None:
            if newest() > before and newest().isdecimal():
                process.send_signal(signals.pop())
                break
            time.sleep(0.01)
        if process.wait(60) in (0, 1, 2):
            break
        given = ("--resume", tmp_path / "found")
    assert process.returncode == 0
    assert not signals
    require_same_parameters(tmp_path / "found", whole / "due")
    assert load_fitted(tmp_path / "found").report["n_iter"] == 10
    assert sorted(os.listdir(tmp_path)) == ["found", "found.checkpoint"]
    assert len(os.listdir(place)) == 2


def processes_of(pid):
    return psutil.Process(pid).children(recursive=True)


@pytest.mark.slow
def test_a_driver_killed_alone_leaves_no_worker_and_a_resume_may_start_at_once(tmp_path, whole):
    begin = (whole / "a.zarr", *SETTINGS, "--workers", 2, "--max-iter", 10, "--out")
    place = tmp_path / "found.checkpoint"
    process = subprocess.Popen(
        words(*begin, tmp_path / "found", "--checkpoint-every", "0s"), cwd=ROOT
    )
    while not (place.exists() and any(name.isdecimal() for name in os.listdir(place))):
        assert process.poll() is None
        time.sleep(0.01)
    workers = processes_of(process.pid)
    assert len(workers) > 2  # and the process that removes semaphores
    process.kill()  # its own process alone
    process.wait()
    ran = run("--resume", tmp_path / "found", "--workers", 2)
    assert ran.returncode == 0, ran.stderr
    require_same_parameters(tmp_path / "found", whole / "due")
    assert sorted(os.listdir(tmp_path)) == ["found", "found.checkpoint"]
    # A process that ended may wait for whoever is the parent of orphans here.
    left = [each for each in workers if each.is_running() and each.status() != "zombie"]
    assert not left
    semaphores = Path("/dev/shm")
    if semaphores.exists():
        assert not [each for each in os.listdir(semaphores) if f"-{process.pid}-" in each]


@pytest.mark.slow
def test_a_closed_terminal_leaves_a_checkpoint_from_which_the_run_goes_on(tmp_path, whole):
    given = words(
        whole / "a.zarr", *SETTINGS, "--workers", 2, "--max-iter", 10, "--out", tmp_path / "run"
    )
    given.remove("--quiet")
    given += ["--checkpoint-every", "1h"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execv(given[0], given)
    said = b""
    # The bar may begin with a later pass than the first, if the machine is fast.
    while not re.search(rb"pass [1-9] of 10", said):
        said += os.read(terminal, 10_000)
    workers = processes_of(pid)
    os.close(terminal)  # SIGHUP for the driver and its workers
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    assert os.listdir(tmp_path / "run.checkpoint") == ["000001"]
    assert load_fitted(tmp_path / "run").report["n_iter"] < 10
    psutil.wait_procs(workers, 60)
    ran = run("--resume", tmp_path / "run")
    assert ran.returncode == 0, ran.stderr
    require_same_parameters(tmp_path / "run", whole / "due")
