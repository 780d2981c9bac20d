"""The split of raw rows into training rows and test rows."""

import os
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ooc_train.store.format.pairs import StorePair, new_pair_id
from ooc_train.store.jobs.shuffle_keys import row_keys

_SPLIT_SEED = 2**63
"""Added to the seed of test rows, which makes them independent of the shuffle."""


def path_for_testing(path: str) -> str:
    """Return the path of the test store: "flights.test.zarr" beside "flights.zarr"."""
    root, extension = os.path.splitext(path.rstrip("/"))
    return f"{root}.test{extension}"


def pairs_of(outputs: Mapping[str, str]) -> dict[str, StorePair]:
    """Return the `StorePair` of a "training" and of a "testing" store; empty for one store."""
    id_, names = new_pair_id(), {name: os.path.basename(path) for name, path in outputs.items()}
    others = {"training": "testing", "testing": "training"}
    return {name: StorePair(id_, names[others[name]]) for name in names if len(names) > 1}


def rows_for_testing(rows: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """Return which of some ascending rows are test rows: one random row of each ``1 / share``.

    The share is exact to the last run, and the total number of rows needn't be known.
    """
    if share > 0.5:  # Runs would be shorter than two rows.
        return ~rows_for_testing(rows, 1 - share, seed)
    if share == 0 or not len(rows):
        return np.zeros(len(rows), bool)
    runs = np.arange(max(0, int(rows[0] * share) - 1), int(rows[-1] * share) + 2)
    # 1 / share can exceed any integer, so runs end at 2**62 at most.
    with np.errstate(over="ignore"):
        bounds = [np.ceil(np.minimum(k / share, 2.0**62)) for k in (runs, runs + 1)]
    starts, stops = (bound.astype(np.int64) for bound in bounds)
    drawn = row_keys(runs, seed + _SPLIT_SEED) % np.maximum(stops - starts, 1).astype(np.uint64)
    return np.isin(rows, starts + drawn.astype(np.int64))


def require_test_size(test_size: float) -> None:
    """Raise `ValueError` unless `test_size` is from 0 to below 1."""
    if not 0 <= test_size < 1:
        raise ValueError(f"test_size={test_size!r} should be a share of the rows, 0 to below 1")
