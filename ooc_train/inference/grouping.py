"""Which group each row is of: by the values of a column, found by one pass, or by labels."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.partitions import runs_of_partitions
from ooc_train.core.schema import shown
from ooc_train.core.sums import Arrays, Block, Workspace, raise_if_not_finite, total_bytes
from ooc_train.core.text import counted, listed
from ooc_train.memory.ceiling import Ceiling
from ooc_train.runtime.job import Job
from ooc_train.stream.input_data import Inputs
from ooc_train.stream.requirements import Requirements
from ooc_train.stream.row_groups import RowGroups
from ooc_train.stream.sources import Source

_MOST_GROUPS = 2**20
"""Most different values of a column that may tell groups."""

_RUN_BYTES = 64 * 2**20
"""Bytes of X of a task."""


def row_groups(
    inputs: Inputs,
    groups: Any,
    *,
    most: int = _MOST_GROUPS,
    client: Any = None,
    memory_ceiling: str | int | Ceiling | None = None,
) -> RowGroups:
    """Return the groups of rows.

    Parameters
    ----------
    inputs : Inputs
        The rows.
    groups : str, int, or array of shape (rows,)
        The name or number of a column of X, whose values one pass finds; or a label for each row.
    most : int
        Most groups.
    client, memory_ceiling
        As for `train`.

    Raises
    ------
    ValueError
        If there is no such column, if labels are missing or too few, or if there are too many
        groups.
    """
    source = inputs.source
    if isinstance(groups, str | int | np.integer) and not isinstance(groups, bool):
        column = _column(groups, inputs.feature_names, source.n_features)
        labels = _values_of(source, column, most, client, memory_ceiling)
        return RowGroups(labels, column)
    labels = np.asarray(groups)
    if labels.shape != (source.n_rows,):
        raise ValueError(
            f"groups has the shape {labels.shape}, and the data have "
            f"{counted(source.n_rows, 'row')}; give "
            "one label a row, or the name or number of a column"
        )
    if labels.dtype.kind == "O":
        labels = labels.astype(str) if all(isinstance(each, str) for each in labels) else labels
    if labels.dtype.kind not in "biufUS" or (labels.dtype.kind == "f" and np.isnan(labels).any()):
        raise ValueError("groups holds missing values, or values that are no numbers and no text")
    found, codes = np.unique(labels, return_inverse=True)
    if len(found) > most:
        raise _too_many(len(found), most)
    return RowGroups(found, codes=codes.astype(np.min_scalar_type(len(found))))


def _column(column: Any, names: tuple[str, ...] | None, n_features: int) -> int:
    if isinstance(column, str):
        if names is None or column not in names:
            known = "no names" if names is None else f"the columns {listed(names)}"
            of_values = [name for name in names or () if name.startswith(f"{column}=")]
            if of_values:
                known = (
                    f"a column for each of its values: name one, such as {shown(of_values[0])}, or "
                    "pass a label for each row"
                )
            raise ValueError(f"there is no column {shown(column)} in X, which has {known}")
        return names.index(column)
    if not 0 <= column < n_features:
        raise ValueError(
            f"there is no column {column} in X, which has {counted(n_features, 'column')}"
        )
    return int(column)


def _values_of(
    source: Source,
    column: int,
    most: int,
    client: Any,
    memory_ceiling: str | int | Ceiling | None,
) -> NDArray[Any]:
    """Return the sorted values of a column, by one pass."""
    partitions = max(1, _RUN_BYTES // (source.partition_rows * source.row_bytes))
    runs = runs_of_partitions(source, partitions)
    size = np.dtype(source.dtype).itemsize
    rows = max(stop - start for start, stop in runs)
    kept = min(source.n_rows, most + 1)
    requirements = Requirements(
        partition=total_bytes(source.buffers(1)),
        workspace=0,
        opened=3 * size * source.partition_rows + 2 * size * min(rows, 2 * most),
        result=size * min(rows, most + 1),
        results=3 * size * kept,
    )
    found = np.empty(0, source.dtype)
    with Job(source, client=client, memory_ceiling=memory_ceiling) as job:
        for part in job.stream(job.plan(requirements)).map(_Values(column, most), runs):
            found = np.union1d(found, part)
            if len(found) > most:
                raise _too_many(len(found), most)
    return found


def _too_many(n: int, most: int) -> ValueError:
    return ValueError(
        f"there are {counted(n, 'group')} or more, and the most is {most:,}; choose a column of "
        "fewer values"
    )


@dataclass(frozen=True, eq=False)
class _Values:
    """Finds the values of a column in a run of rows, up to one more than the most."""

    column: int
    most: int

    def workspace(self, rows: int) -> Workspace:
        """Return no arrays: values are few, or they are too many."""
        del rows
        return {}

    def run(self, blocks: Iterator[Block], workspace: Arrays) -> NDArray[Any]:
        """Return the sorted values of the rows."""
        del workspace
        found: NDArray[Any] | None = None
        for block in blocks:
            values = np.unique(block.X[:, self.column])
            if not np.isfinite(values).all():
                raise_if_not_finite(block)
            found = values if found is None else np.union1d(found, values)
            if len(found) > self.most:
                break
        return np.empty(0) if found is None else found[: self.most + 1]
