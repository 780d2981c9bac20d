"""Measured <= projected <= ceiling, by the report and by what the system says from outside.

In a size that fits CI; `python -m tests.benchmarks.memory` is the same on 8 GB.
"""

from pathlib import Path

import pytest

from ooc_train.store.made import make_data
from tests.watch import watch

pytestmark = pytest.mark.slow

CEILING = 512 * 2**20


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """1.2 GB of rows: more than twice the ceiling."""
    path = str(tmp_path_factory.mktemp("ceiling") / "made.zarr")
    make_data(path, rows="3M", features=100, random_state=0)
    return path


@pytest.mark.parametrize(
    "settings",
    [
        ("--model", "logistic", "--max-iter", "2"),
        ("--model", "logistic", "--solver", "lbfgs", "--max-iter", "2"),
        ("--model", "logistic", "--batch-size", "256", "--max-iter", "1"),
        ("--model", "ridge"),
    ],
    ids=lambda settings: " ".join(settings),
)
def test_a_run_keeps_below_its_projection_and_that_below_the_ceiling(
    store: str, settings: tuple[str, ...], tmp_path: Path
) -> None:
    watched = watch(
        "train", store, *settings, "--memory-ceiling", "512MiB", "--workers", "2",
        "--dashboard-address", "127.0.0.1:0",
    )  # fmt: skip
    memory = watched.report["memory"]
    assert memory["measured"] <= memory["projected"] <= memory["ceiling"] == CEILING
    assert watched.peak <= memory["projected"]
    assert watched.report["bytes_read"] > 2 * CEILING
