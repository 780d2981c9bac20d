"""Named sums over rows: what passes return to solvers.

A loss over data is a sum over rows, and so is its gradient. A `Reduction` names the sums; a pass
adds them up partition by partition. Sums are float64, are never means, and are divided once, by the
solver.
"""

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ooc_train.errors import DROP_OR_FILL, NonFiniteData

Array = NDArray[np.float64]
Sums = dict[str, NDArray[Any]]


@dataclass(slots=True)
class Block:
    """Rows of the data, in buffers that the next block overwrites.

    Attributes
    ----------
    X : array (rows, features), float32 or float64, C-contiguous
        The features.
    y : float64 array (rows, outputs) or None
        The targets; None where the job needs none.
    weight : float64 array (rows,) or None
        The weights; None where every weight is one.
    starts : tuple of (int, int)
        Where each run of consecutive rows begins: row within the block, row within the data.
    """

    X: NDArray[np.floating]
    y: Array | None
    weight: Array | None
    starts: tuple[tuple[int, int], ...] = ((0, 0),)

    @property
    def n_rows(self) -> int:
        """Number of rows in this block."""
        return int(self.X.shape[0])

    def row_number(self, row: int) -> int:
        """Return the row number within the data of a row of the block."""
        first, start = max(pair for pair in self.starts if pair[0] <= row)
        return start + row - first

    def row_numbers(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row numbers within the data of rows of the block."""
        if len(self.starts) == 1:
            ((first, start),) = self.starts
            return rows + (start - first)
        starts = np.array(self.starts)
        run = np.searchsorted(starts[:, 0], rows, side="right") - 1
        numbers: NDArray[np.int64] = rows + (starts[:, 1] - starts[:, 0])[run]
        return numbers

    def within(self, start: int, stop: int) -> "Block":
        """Return rows `start` to `stop` of a block of consecutive rows, as a block."""
        if start <= 0 and self.n_rows <= stop:
            return self
        first = max(start, 0)
        rows = slice(first, stop)
        return Block(
            self.X[rows],
            None if self.y is None else self.y[rows],
            None if self.weight is None else self.weight[rows],
            ((0, self.row_number(first)),),
        )


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """The shape and type of an array that a job allocates."""

    shape: tuple[int, ...]
    dtype: str = "<f8"

    @property
    def nbytes(self) -> int:
        """Bytes of the array, rounded up to 64 so that arrays in one buffer stay aligned."""
        size = int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize
        return -(-size // 64) * 64


Workspace = dict[str, ArraySpec]
Arrays = dict[str, NDArray[Any]]


def total_bytes(specs: Workspace) -> int:
    """Return the total bytes of a set of array specs."""
    return sum(spec.nbytes for spec in specs.values())


class Reduction(Protocol):
    """The definition of the sums of a reduce pass; a value that is sent to the workers."""

    def zeros(self) -> Sums:
        """Return the sums over no rows: arrays of zeros."""

    def workspace(self, rows: int) -> Workspace:
        """Return the scratch arrays of `add`, as specs, for blocks of at most `rows` rows."""

    def made_bytes(self, rows: int) -> int:
        """Return the bytes that a task allocates beside sums and workspace, for such blocks."""

    def add(self, sums: Sums, block: Block, workspace: Arrays) -> None:
        """Add the sums over one block into `sums`, in place, with `workspace` as scratch."""


def nbytes(sums: Sums) -> int:
    """Return the total bytes of named sums."""
    return sum(array.nbytes for array in sums.values())


def array_bytes(value: Any) -> int:
    """Return the bytes of all arrays in a dataclass's fields, nested dataclasses included."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if is_dataclass(value):
        return sum(array_bytes(getattr(value, each.name)) for each in fields(value))
    return 0


@dataclass(frozen=True, eq=False)
class Value:
    """The base of values that are pickled without their cached properties."""

    def __getstate__(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(self)}


def add_into(total: Sums, part: Sums) -> Sums:
    """Add `part` into `total`, in place, and return `total`."""
    for name, array in part.items():
        total[name] += array
    return total


def row_weights(block: Block, class_weight: Array | None) -> Array | None:
    """Return the rows' weights times their class weights, (rows,); None where all are one."""
    if class_weight is None or block.y is None:
        return block.weight
    by_label: Array = class_weight[block.y[:, 0].astype(np.intp)]
    return by_label if block.weight is None else by_label * block.weight


def weighted(block: Block, class_weight: Array | None) -> Block:
    """Return the block with its rows' weights multiplied by their class weights."""
    if class_weight is None:
        return block
    return replace(block, weight=row_weights(block, class_weight))


def raise_if_not_finite(block: Block) -> None:
    """Raise `NonFiniteData` with the first row and column that hold NaN or infinity.

    Call this only after a sum is NaN, so that finite data needs no check of every element.
    """
    for name, values in (("X", block.X), ("y", block.y), ("sample_weight", block.weight)):
        if values is None or np.isfinite(values).all():
            continue
        table = values.reshape(len(values), -1)
        row, column = np.argwhere(~np.isfinite(table))[0]
        place = f"column {column} of X" if name == "X" else name
        raise NonFiniteData(
            f"row {block.row_number(int(row))} has {table[row, column]} in {place}; {DROP_OR_FILL}"
        )
