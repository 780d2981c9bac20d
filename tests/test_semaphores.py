"""Semaphores and temporary folders of commands that were killed: the next command removes them."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ooc_train.core import semaphores
from ooc_train.core.semaphores import named_semaphores, remove_dead_semaphores
from ooc_train.store.jobs.synthetic import make_data

pytestmark = pytest.mark.alone

SHARED = Path("/dev/shm")


def of(pid):
    """The names of semaphores that a process made for others to find."""
    return sorted(path.name for path in SHARED.glob(f"sem.ooc_train-*-{pid}-*"))


@pytest.fixture
def killed():
    """The number of a process that made two semaphores and was killed, its tracker with it."""
    code = (
        "import multiprocessing, os, signal, sys, time\n"
        "from ooc_train.core.semaphores import named_semaphores\n"
        "spawning = multiprocessing.get_context('spawn')\n"
        "with named_semaphores(): locks = spawning.Lock(), spawning.Lock()\n"
        "os.killpg(0, signal.SIGKILL)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], start_new_session=True, env=environment
    )
    assert process.wait() == -signal.SIGKILL
    assert len(of(process.pid)) == 2
    yield process.pid
    for name in of(process.pid):
        (SHARED / name).unlink()


def test_semaphores_of_the_killed_are_removed_and_no_others(killed):
    strange = SHARED / f"sem.mp-test{os.getpid()}"
    strange.touch()
    try:
        with named_semaphores():
            lock = multiprocessing.get_context("spawn").Lock()
        remove_dead_semaphores()
        assert of(killed) == []
        assert len(of(os.getpid())) == 1
        assert strange.exists()
        del lock
    finally:
        strange.unlink()


def test_another_process_of_the_same_number_or_of_another_container_is_told_apart(
    killed, monkeypatch
):
    with monkeypatch.context() as changed:
        changed.setattr(semaphores, "_namespace", lambda: 1)
        remove_dead_semaphores()  # of that namespace alone
    assert len(of(killed)) == 2
    [first, second] = of(killed)
    # As though the number had been given to a process that lives: this one.
    stale = first.replace(f"-{killed}-", f"-{os.getpid()}-")
    os.rename(SHARED / first, SHARED / stale)
    assert stale in of(os.getpid())
    remove_dead_semaphores()
    assert (of(killed), stale in of(os.getpid())) == ([], False)
    assert second


@pytest.mark.parametrize("with_joblib", [False, True])
def test_names_are_pythons_own_outside(with_joblib):
    code = (
        "import multiprocessing\n"
        f"{'import joblib' if with_joblib else ''}\n"
        "from ooc_train.core.semaphores import named_semaphores\n"
        "lock = multiprocessing.get_context('spawn').Lock\n"
        "with named_semaphores():\n"
        "    with named_semaphores(): first = lock()\n"
        "    second = lock()\n"
        "print(*(each._semlock.name.split('-')[0] for each in (first, second, lock())))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    own = "/loky" if with_joblib else "/mp"
    assert done.stdout.split() == ["/ooc_train", "/ooc_train", own]


@pytest.mark.slow
@pytest.mark.parametrize("again", ["info", "train"])
def test_the_command_after_a_killed_one_removes_what_that_left(tmp_path, again):
    temporary, home = tmp_path / "temporary", tmp_path / "home"
    temporary.mkdir()
    home.mkdir()
    make_data(tmp_path / "a.zarr", rows=1000, features=3, random_state=0)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(temporary), "HOME": str(home),
        "OOC_TRAIN_CACHE_DIR": os.environ.get("OOC_TRAIN_CACHE_DIR")
        or os.path.expanduser("~/.cache/ooc_train"),
    }  # fmt: skip
    ours = (sys.executable, "-m", "ooc_train")
    options = ("--workers", "1", "--dashboard-address", "127.0.0.1:0", "--batch-size", "1")
    train = [*ours, "train", str(tmp_path / "a.zarr"), *options]
    with subprocess.Popen(
        [*train, "--max-iter", "1000000", "--tol", "0"], cwd=home, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        assert any(line.startswith("training") for line in running.stdout)
        os.killpg(running.pid, signal.SIGKILL)
    assert of(running.pid)
    assert [path.name.startswith("ooc_train.cluster-") for path in temporary.iterdir()] == [True]
    command = {
        "info": [*ours, "info", str(tmp_path / "a.zarr")],
        "train": [*train, "--max-iter", "1"],
    }
    done = subprocess.run(
        command[again], cwd=home, env=environment, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert of(running.pid) == []
    # Nor is anything where the command was run, at home, or where temporary files go.
    assert [*temporary.iterdir(), *home.iterdir()] == []
