"""The one value that is to blame for a failure: looked for after it, by a pass of its own.

A value far beyond all others is finite, so no check for NaN finds it: squares overflow, a matrix
has no eigenvalues, or one step by its row moves parameters so far that another row's loss is no
number. To compare every value with its column would cost each pass that goes well.
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
"""Values beyond have squares, and sums of them, that float64 hardly holds."""

_FAR = 1e6
"""Times what others of its column are, from which on a value is to blame for parameters that grew
without end; heavy tails of real columns reach some thousands."""

_RUN_PARTITIONS = 64
"""Leaves of a task."""


@dataclass(frozen=True, slots=True)
class Outlier:
    """A value far beyond those of its column.

    Attributes
    ----------
    value : what it is
    times : how many times what others of its column are
    row : its number within the data
    place : of the column, for messages
    """

    value: float
    times: float
    row: int
    place: str

    @property
    def error(self) -> Exception:
        """The error that tells of the value."""
        said = f"row {self.row} has {self.value:g} in {self.place}"
        if abs(self.value) > _SQUARED:
            return NonFiniteData(
                f"{said}, whose square no float64 holds; drop or correct such rows first"
            )
        return Diverged(
            f"{said}, {self.times:.0e} times what rows beside it have, and no step suits both; "
            "drop or correct such rows first"
        )


@dataclass(frozen=True)
class _Search:
    """Finds the value of a run of rows that is farthest from others of its column."""

    n_features: int

    def workspace(self, rows: int) -> Workspace:
        """Return the arrays that `run` works in, for blocks of at most `rows` rows."""
        piece = min(rows, piece_rows(self.n_features, square=False))
        return {"sizes": ArraySpec((piece, self.n_features))}

    def run(self, blocks: Iterator[Block], workspace: Arrays) -> Outlier | None:
        """Return the value that is farthest, or None where none is far."""
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
    """Return the farthest value of a piece of rows, if it is far."""
    at, columns = sizes.argmax(axis=0), np.arange(sizes.shape[1])
    largest = sizes[at, columns]
    usual = np.median(sizes, axis=0)
    # Of columns that are mostly zero, what those rows have that are not.
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
def blamed(stream: Stream) -> Iterator[None]:
    """Have an error that numbers without bounds lead to name the value that they come from.

    Raises
    ------
    NonFiniteData
        where a value is too large to be squared.
    Diverged
        where a value is many times what others of its column are, or as it was.
    numpy.linalg.LinAlgError
        as it was.
    """
    try:
        # What overflows is told of by errors of ours, here as in tasks.
        with np.errstate(over="ignore", invalid="ignore"):
            yield
    except (Diverged, np.linalg.LinAlgError) as failure:
        search = _Search(stream.source.n_features)
        runs = runs_of_partitions(stream.source, _RUN_PARTITIONS)
        worst = _worst([found for found in stream.map(search, runs) if found is not None])
        if worst is None:
            raise
        raise worst.error from failure
