"""Measured <= projected <= ceiling, by the report and by what the system says from outside.

Every job there is, in sizes that fit CI; `python -m tests.benchmarks.memory` does the same on data
of eight times the ceiling.
"""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from ooc_train.cli import app
from ooc_train.core.units import format_bytes
from ooc_train.store.jobs.synthetic import make_data
from tests.watch import (
    Judge,
    Warden,
    Watched,
    control_group,
    groups_can_be_made,
    judge,
    look_at,
    warden,
    watch,
    write_csv,
)

pytestmark = pytest.mark.slow

MIB = 2**20
CEILING, TIMES = 384 * MIB, 3
SMALL = 128 * MIB
"""Of jobs that one process does."""

RAW_CEILING, RAW_TIMES = 224 * MIB, 3
"""Of ingest, and how many times that a raw file is."""

ADDRESS = ("--dashboard-address", "127.0.0.1:0")
RESOURCES = ("--memory-ceiling", format_bytes(CEILING), "--workers", "2", *ADDRESS)


def kept(watched: Watched, ceiling: int) -> None:
    """Hold a command to its ceiling."""
    memory = watched.report["memory"]
    assert memory["measured"] <= memory["projected"] <= memory["ceiling"] == ceiling
    assert watched.peak <= memory["projected"]
    # Libraries that processes of others share now would be the run's own if those ended.
    planned = memory["projected"] - memory["terms"].get("shared libraries", 0)
    assert planned <= 1.25 * max(memory["measured"], watched.peak)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A place on the disk for 2 GB, given back at the end.

    Not one of pytest's: these may lie in memory, which the kernel charges to who writes there.
    """
    with TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def store(folder: Path) -> str:
    """Rows of several times the ceiling."""
    rows = str(TIMES * CEILING // 400)
    path = str(folder / "made.zarr")
    watch("make-data", path, "--rows", rows, "--features", "100")
    return path


def compiled(store: str, settings: tuple[str, ...]) -> None:
    """Compile what a run needs, in processes of its own, which no ceiling counts."""
    planned = CliRunner().invoke(app, ["plan", store, *settings, "--quiet", *ADDRESS])
    assert planned.exit_code == 0, planned.output


@pytest.mark.parametrize(
    "settings",
    [
        ("--model", "logistic", "--max-iter", "1"),
        ("--model", "logistic", "--solver", "lbfgs", "--max-iter", "2"),
        ("--model", "logistic", "--batch-size", "256", "--solver", "adam", "--max-iter", "1"),
        ("--model", "logistic", "--batch-size", "1", "--max-iter", "1"),
    ],
    ids=lambda settings: " ".join(settings),
)
def test_training(store: str, settings: tuple[str, ...]) -> None:
    compiled(store, settings)
    watched = watch("train", store, *settings, *RESOURCES)
    kept(watched, CEILING)
    assert watched.report["bytes_read"] >= TIMES * CEILING


@pytest.fixture(scope="module")
def ridge(store: str, folder: Path) -> tuple[str, Watched]:
    """A run to evaluate and predict with, and how it was trained."""
    out, settings = str(folder / "ridge.run"), ("--model", "ridge")
    compiled(store, settings)
    return out, watch("train", store, *settings, "--out", out, *RESOURCES)


def test_training_in_one_pass(ridge: tuple[str, Watched]) -> None:
    kept(ridge[1], CEILING)
    assert ridge[1].report["bytes_read"] >= TIMES * CEILING


def test_training_in_lanes_that_is_judged_by_validation_rows(store: str) -> None:
    settings = ("--model", "logistic", "--batch-size", "16", "--replicas", "2", "--max-iter", "1")
    watched = watch("train", store, *settings, "--validation", store, *RESOURCES)
    kept(watched, CEILING)
    assert watched.report["replicas"] == 2
    assert watched.report["bytes_read"] >= 2 * TIMES * CEILING


WIDE = {
    "lbfgs": (("--model", "logistic", "--solver", "lbfgs", "--max-iter", "6"), 500_000, 2),
    "sgd": (("--model", "logistic", "--batch-size", "8", "--max-iter", "2"), 500_000, 2),
    "adam": (
        ("--model", "logistic", "--batch-size", "8", "--solver", "adam", "--max-iter", "2"),
        500_000,
        2,
    ),
    "replicas": (
        ("--model", "logistic", "--batch-size", "4", "--replicas", "2", "--max-iter", "2"),
        500_000,
        2,
    ),
    "newton": (("--model", "logistic", "--solver", "newton", "--max-iter", "3"), 1_500, 2),
    "gram": (("--model", "ridge"), 1_500, 0),
    "classes": (("--model", "logistic", "--solver", "lbfgs", "--max-iter", "3"), 500, 1_000),
    "one column": (("--model", "logistic", "--max-iter", "2"), 1, 2),
}


def made(folder: Path, features: int, classes: int) -> str:
    """Make a few rows of many columns, or of many classes."""
    path = folder / f"{features} {classes}.zarr"
    if not path.exists():
        rows = max(64, 2 * classes)
        task = {"task": "regression"} if classes == 0 else {"classes": classes}
        make_data(path, rows=rows, features=features, **task)
    return str(path)


@pytest.fixture(scope="module")
def other_writers(folder: Path) -> str:
    """A store of zarr-python's, of two compressed chunks, which are read as a whole."""
    X = np.random.default_rng(0).normal(size=(250_000, 40)).astype("f4")
    group = zarr.create_group(folder / "other.zarr")
    group.create_array("X", data=X, chunks=(125_000, 40))
    group.create_array("y", data=(X[:, 0] > 0).astype("i1"), chunks=(125_000,), fill_value=-1)
    return str(folder / "other.zarr")


@pytest.mark.parametrize(
    ("settings", "ceiling"),
    [(("--batch-size", "64"), 440), (("--batch-size", "64"), 370), ((), 310)],
)
def test_large_chunks_of_another_writer(
    other_writers: str, settings: tuple[str, ...], ceiling: int
) -> None:
    command = ("train", other_writers, "--model", "logistic", "--max-iter", "2", *settings)
    watched = watch(*command, "--memory-ceiling", f"{ceiling}MiB", *ADDRESS)
    memory = watched.report["memory"]
    assert memory["measured"] <= memory["projected"] <= memory["ceiling"] == ceiling * MIB
    assert watched.peak <= memory["projected"]


@pytest.mark.parametrize("case", WIDE)
def test_many_parameters_under_the_smallest_ceiling(folder: Path, case: str) -> None:
    settings, features, classes = WIDE[case]
    store = made(folder, features, classes)
    workers = ("--workers", "2")
    plan = watch("plan", store, *settings, *workers).report
    ceiling = plan["smallest_ceiling"]
    resources = ("--memory-ceiling", format_bytes(ceiling), *workers, *ADDRESS)
    watched = watch("train", store, *settings, *resources)
    memory = watched.report["memory"]
    assert memory["measured"] <= memory["projected"] <= memory["ceiling"] == ceiling
    assert watched.peak <= memory["projected"]
    if case not in ("lbfgs", "gram", "one column"):  # one of each way to solve is enough
        return
    too_small = plan["smallest_ceiling"] - 32 * MIB
    with pytest.raises(RuntimeError, match="raise the memory ceiling"):
        watch(
            "train", store, *settings, *resources[2:], "--memory-ceiling", format_bytes(too_small)
        )


def test_predicting_a_thousand_classes(folder: Path) -> None:
    store, out = made(folder, 500, 1_000), str(folder / "classes.run")
    resources = ("--memory-ceiling", format_bytes(512 * MIB), "--workers", "2", *ADDRESS)
    settings = ("--model", "logistic", "--batch-size", "64", "--max-iter", "1")
    watch("train", store, *settings, "--out", out, *resources)
    for command in (
        ("evaluate", out, store),
        ("predict", out, store, str(folder / "classes.p.zarr"), "--proba"),
    ):
        watched = watch(*command, *resources)
        memory = watched.report["memory"]
        assert memory["measured"] <= memory["projected"] <= memory["ceiling"]
        assert watched.peak <= memory["projected"]


def test_evaluating_and_predicting(store: str, ridge: tuple[str, Watched], folder: Path) -> None:
    run, _ = ridge
    for command in ("evaluate", run, store), ("predict", run, store, str(folder / "p.zarr")):
        kept(watch(*command, *RESOURCES), CEILING)


def test_shuffling(folder: Path) -> None:
    path, out = str(folder / "small.zarr"), str(folder / "shuffled.zarr")
    watch("make-data", path, "--rows", str(TIMES * SMALL // 400), "--features", "100")
    watched = watch("shuffle", path, out, "--memory-ceiling", format_bytes(SMALL))
    memory = watched.report["memory"]
    assert memory["measured"] <= memory["projected"] <= memory["ceiling"] == SMALL
    assert watched.peak <= memory["projected"]


@contextmanager
def judged(limit: int) -> Iterator[Judge]:
    """Make a judge of a limit; at its end, nothing was ended by it."""
    with judge(limit) as group:
        yield group
        assert group.killed == 0
        assert 0 < group.peak <= limit


def test_the_kernel_is_the_judge(store: str, ridge: tuple[str, Watched], folder: Path) -> None:
    run, _ = ridge
    with judged(CEILING) as group:
        for command in (
            ("train", store, "--model", "logistic", "--batch-size", "256", "--max-iter", "1"),
            ("predict", run, store, str(folder / "judged.zarr")),
        ):
            kept(watch(*command, *RESOURCES, group=group), CEILING)


def test_the_kernel_is_the_judge_of_ingesting(folder: Path) -> None:
    raw = str(folder / "raw.csv")
    assert write_csv(raw, RAW_TIMES * RAW_CEILING) >= RAW_TIMES * RAW_CEILING
    limit = format_bytes(RAW_CEILING)
    with judged(RAW_CEILING) as group:
        watched = watch(
            "ingest", raw, str(folder / "raw.zarr"), "--target", "y", "--memory-ceiling", limit,
            group=group,
        )  # fmt: skip
        memory = watched.report["memory"]
        assert memory["measured"] <= memory["projected"] <= memory["ceiling"] == RAW_CEILING
        # It was filled: what was read and written was on its account.
        assert group.peak > 0.9 * RAW_CEILING or isinstance(group, Warden)


@pytest.fixture(scope="module")
def small(folder: Path) -> str:
    """Rows that need no room to speak of."""
    path = str(folder / "few.zarr")
    watch("make-data", path, "--rows", "20000", "--features", "20")
    return path


@pytest.mark.parametrize(
    ("limit", "workers", "source"),
    [
        (300, None, "what the job needs"),
        (500, None, "what is available"),
        (800, None, "half of what is available"),
        (800, 2, "half of what is available"),
        (2048, 2, "half of what is available"),
    ],
)
def test_the_default_ceiling_in_a_container(
    small: str, limit: int, workers: int | None, source: str
) -> None:
    given = () if workers is None else ("--workers", str(workers))
    with judged(limit * MIB) as group:
        watched = watch("train", small, "--model", "logistic", *given, *ADDRESS, group=group)
        memory = watched.report["memory"]
        assert memory["measured"] <= memory["projected"] <= memory["ceiling"] <= 0.8 * limit * MIB
        assert source in memory["ceiling_source"]


def test_a_container_that_is_too_small_is_told_of(small: str) -> None:
    command = ("train", small, "--model", "logistic", *ADDRESS)
    share = r"80 % of what is available.* or use fewer workers"
    with judged(300 * MIB) as group, pytest.raises(RuntimeError, match=share):
        watch(*command, "--workers", "2", group=group)
    beforehand = r"error: .* MiB of memory are available, and a scheduler"
    with judged(120 * MIB) as group, pytest.raises(RuntimeError, match=beforehand):
        watch(*command, group=group)


JUDGES = [warden, *([control_group] if groups_can_be_made() else [])]


@pytest.mark.parametrize("made", JUDGES)
def test_a_judge_ends_what_needs_more(made: Callable[[int], AbstractContextManager[Judge]]) -> None:
    for needed, killed in ((16 * MIB, 0), (128 * MIB, 1)):
        with made(64 * MIB) as group:
            code = f"import time; held = bytes([1]) * {needed}; time.sleep(1 + 30 * {killed})"
            done, _ = look_at(sys.executable, "-c", code, group=group)
            assert done.returncode == -signal.SIGKILL * killed
            assert group.killed == killed


def test_commands_are_told_of_a_judge_that_is_not_the_kernel(small: str) -> None:
    with warden(400 * MIB) as group:
        watched = watch("train", small, "--model", "logistic", *ADDRESS, group=group)
    assert watched.report["memory"]["ceiling"] <= 0.8 * 400 * MIB
    assert 0 < group.peak <= watched.report["memory"]["projected"]
    small_one = r"error: .* MiB of memory are available, and a scheduler"
    with warden(120 * MIB) as group, pytest.raises(RuntimeError, match=small_one):
        watch("train", small, "--model", "logistic", *ADDRESS, group=group)
