"""Measured <= projected <= ceiling, by the report and by what the system says from outside.

Every job there is, in sizes that fit CI; `python -m tests.benchmarks.memory` does the same on data
of eight times the ceiling.
"""

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ooc_train.units import format_bytes
from tests.watch import Watched, watch

pytestmark = pytest.mark.slow

MIB = 2**20
CEILING, TIMES = 384 * MIB, 3
SMALL = 128 * MIB
"""Of jobs that one process does."""

ADDRESS = ("--dashboard-address", "127.0.0.1:0")


def kept(watched: Watched, ceiling: int) -> None:
    """Hold a command to its ceiling."""
    memory = watched.report["memory"]
    assert memory["measured"] <= memory["projected"] <= memory["ceiling"] == ceiling
    assert watched.peak <= memory["projected"]
    # Libraries that processes of others share now would be the run's own if those ended.
    planned = memory["projected"] - memory["terms"].get("libraries", 0)
    assert planned <= 1.25 * max(memory["measured"], watched.peak)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A place for 2 GB, given back at the end."""
    folder = tmp_path_factory.mktemp("ceiling")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def store(folder: Path) -> str:
    """Rows of several times the ceiling."""
    rows = str(TIMES * CEILING // 400)
    path = str(folder / "made.zarr")
    watch("make-data", path, "--rows", rows, "--features", "100")
    return path


@pytest.mark.parametrize(
    "settings",
    [
        ("--model", "logistic", "--max-iter", "1"),
        ("--model", "logistic", "--solver", "lbfgs", "--max-iter", "2"),
        ("--model", "logistic", "--batch-size", "chunk", "--max-iter", "1"),
        ("--model", "logistic", "--batch-size", "256", "--solver", "adam", "--max-iter", "1"),
        ("--model", "logistic", "--batch-size", "1", "--max-iter", "1"),
        ("--model", "linear", "--batch-size", "16", "--max-iter", "1"),
        ("--model", "ridge"),
    ],
    ids=lambda settings: " ".join(settings),
)
def test_training(store: str, settings: tuple[str, ...]) -> None:
    resources = ("--memory-ceiling", format_bytes(CEILING), "--workers", "2", *ADDRESS)
    watched = watch("train", store, *settings, *resources)
    kept(watched, CEILING)
    assert watched.report["bytes_read"] >= TIMES * CEILING


@pytest.fixture(scope="module")
def run(store: str, folder: Path) -> str:
    """A run to evaluate and predict with."""
    out = str(folder / "ridge.run")
    watch("train", store, "--model", "ridge", "--out", out, *ADDRESS)
    return out


def test_evaluating_and_predicting(store: str, run: str, folder: Path) -> None:
    resources = ("--memory-ceiling", format_bytes(CEILING), "--workers", "2", *ADDRESS)
    for command in ("evaluate", run, store), ("predict", run, store, str(folder / "p.zarr")):
        kept(watch(*command, *resources), CEILING)


def test_shuffling(folder: Path) -> None:
    path, out = str(folder / "small.zarr"), str(folder / "shuffled.zarr")
    watch("make-data", path, "--rows", str(TIMES * SMALL // 400), "--features", "100")
    watched = watch("shuffle", path, out, "--memory-ceiling", format_bytes(SMALL))
    memory = watched.report["memory"]
    assert memory["measured"] <= memory["projected"] <= memory["ceiling"] == SMALL
    assert watched.peak <= memory["projected"]


def control_group() -> str:
    """Return the folder of the memory control group that we are in, where we may make others."""
    root = "/sys/fs/cgroup/memory"
    if os.access(root, os.W_OK) and os.path.exists(f"{root}/memory.limit_in_bytes"):
        return root
    pytest.skip("no memory control group (version 1) can be made here")


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group that holds no more than the ceiling."""
    path = Path(control_group()) / f"ooc_train-{os.getpid()}"
    path.mkdir()
    try:
        (path / "memory.limit_in_bytes").write_text(str(CEILING))
        # Where swap is counted too: none.
        if (path / "memory.memsw.limit_in_bytes").exists():
            (path / "memory.memsw.limit_in_bytes").write_text(str(CEILING))
        yield path
    finally:
        _leave(path)


def _leave(group: Path) -> None:
    """Remove a control group once its last process is gone, which may end after the command."""
    for _ in range(300):
        try:
            return group.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            time.sleep(0.1)
    left = (group / "cgroup.procs").read_text().split()
    pytest.fail(f"processes {left} outlived the command by half a minute")


def test_the_kernel_is_the_judge(store: str, run: str, group: Path, folder: Path) -> None:
    out = str(folder / "judged.zarr")
    resources = ["--memory-ceiling", format_bytes(CEILING), "--workers", "2", *ADDRESS]
    for command in (
        ["train", store, "--model", "logistic", "--batch-size", "256", "--max-iter", "1"],
        ["predict", run, store, out],
    ):
        # The shell enters the group, and what it becomes and starts is in it from then on.
        enter = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
        words = [sys.executable, "-m", "ooc_train", *command, *resources, "--quiet"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            ["/bin/sh", "-c", enter, str(group), *words],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert int((group / "memory.max_usage_in_bytes").read_text()) <= CEILING
