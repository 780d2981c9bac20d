"""The search for the value that made a fit fail, by a pass after the failure.

A value far beyond all others is finite, so a check for NaN doesn't find it. But its square may
overflow, or an update by its row may move the parameters so far that other losses become NaN. A
comparison of each value with its column would slow down every pass.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.partitions import runs_of_partitions
from ooc_train.core.sums import Arrays, ArraySpec, Block, Workspace
from ooc_train.errors import Diverged, NonFiniteData
from ooc_train.objective.scaling import piece_rows
from ooc_train.stream.passes import Stream

_SQUARED = 1e150
"""Larger values have squares whose sums may overflow."""

_FAR = 1e6
"""A value is an outlier from this multiple of its column's median on. Heavy tails of real columns
reach some thousands."""

_RUN_PARTITIONS = 64
"""Partitions of a task."""


@dataclass(frozen=True, slots=True)
class Outlier:
    """A value far beyond the others of its column: `times` the usual size there."""

    value: float
    times: float
    row: int
    place: str

    @property
    def error(self) -> Exception:
        """The error that reports the value."""
        found = f"row {self.row} has {self.value:g} in {self.place}"
        if abs(self.value) > _SQUARED:
            return NonFiniteData(
                f"{found}, whose square no float64 holds; drop or correct such rows first"
            )
        return Diverged(
            f"{found}, {self.times:.0e} times as much as usual in its column, and no step suits "
            "both; drop or correct such rows first"
        )


@dataclass(frozen=True)
class _Search:
    """Finds the farthest outlier of a run of rows."""

    n_features: int

    def workspace(self, rows: int) -> Workspace:
        """Return the scratch arrays of `run`, for blocks of at most `rows` rows."""
        piece = min(rows, piece_rows(self.n_features, square=False))
        return {"sizes": ArraySpec((piece, self.n_features))}

    def run(self, blocks: Iterator[Block], workspace: Arrays) -> Outlier | None:
        """Return the farthest outlier, or None."""
        found: list[Outlier] = []
        piece = len(workspace["sizes"])
        for block in blocks:
            for start in range(0, block.n_rows, piece):
                rows, row = slice(start, start + piece), block.row_number(start)
                X = block.X[rows]
                sizes = np.abs(X, out=workspace["sizes"][: len(X)], casting="unsafe")
                found += _outliers(X, sizes, row, "column {} of X")
                others = (("y", block.y), ("sample_weight", block.weight))
                for name, values in others:
                    if values is not None:
                        table = values[rows].reshape(len(X), -1)
                        found += _outliers(table, np.abs(table), row, name)
        return _worst(found)


def _outliers(
    values: NDArray[np.floating], sizes: NDArray[np.float64], row: int, place: str
) -> list[Outlier]:
    """Return the farthest outlier of a piece of rows, in a list of at most one."""
    at, columns = sizes.argmax(axis=0), np.arange(sizes.shape[1])
    largest = sizes[at, columns]
    usual = np.median(sizes, axis=0)
    # For a column that is mostly zero: the mean of all values but the largest.
    sizes[at, columns] = 0.0
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        usual = np.where(usual > 0, usual, sizes.sum(axis=0) / max(1, len(sizes) - 1))
        times = np.where(usual > 0, largest / usual, 0.0)
    times[largest > _SQUARED] = largest[largest > _SQUARED]
    column = int(times.argmax())
    if not times[column] > _FAR:
        return []
    value = float(values[at[column], column])
    found_at = row + int(at[column])
    return [Outlier(value, float(times[column]), found_at, place.format(column))]


def _worst(found: list[Outlier]) -> Outlier | None:
    return max(found, key=lambda outlier: outlier.times, default=None)


@contextmanager
def report_outliers(stream: Stream) -> Iterator[None]:
    """Replace an error of divergence by one that names the outlier, if there is one."""
    try:
        # Later checks report overflows, here as in tasks.
        with np.errstate(over="ignore", invalid="ignore"):
            yield
    except (Diverged, np.linalg.LinAlgError) as failure:
        search = _Search(stream.source.n_features)
        runs = runs_of_partitions(stream.source, _RUN_PARTITIONS)
        worst = _worst([found for found in stream.map(search, runs) if found is not None])
        if worst is None:
            raise
        raise worst.error from failure
