"""Named sums over rows: the one currency between data and solvers.

A loss over data is a sum over rows, and so is its gradient. A `Work` says which sums; a pass adds
them up partition by partition. Sums are float64 from the first row, are never means, and are
divided once, by whoever asked for them.
"""

from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ooc_train.errors import NonFiniteData

Array = NDArray[np.float64]
Sums = dict[str, NDArray[Any]]


@dataclass(slots=True)
class Block:
    """Some rows of the data, lying in buffers that the next block will overwrite.

    Attributes
    ----------
    X : array (rows, features), float32 or float64, C-contiguous
    y : float64 array (rows, outputs), or None where the job needs none
    weight : float64 array (rows,), or None where every row weighs one
    starts : for each run of consecutive rows of the data, its first row within the block and
        within the data
    """

    X: NDArray[np.floating]
    y: Array | None
    weight: Array | None
    starts: tuple[tuple[int, int], ...] = ((0, 0),)

    @property
    def n_rows(self) -> int:
        """Rows in this block."""
        return int(self.X.shape[0])

    def row_number(self, row: int) -> int:
        """Return the number within the data of a row of the block."""
        first, start = max(pair for pair in self.starts if pair[0] <= row)
        return start + row - first

    def within(self, start: int, stop: int) -> "Block":
        """Return the rows of a block of consecutive ones whose numbers are in a range."""
        first = self.row_number(0)
        if start <= first and first + self.n_rows <= stop:
            return self
        rows = slice(max(start - first, 0), stop - first)
        return Block(
            self.X[rows],
            None if self.y is None else self.y[rows],
            None if self.weight is None else self.weight[rows],
            ((0, max(start, first)),),
        )


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """The shape and type of one array that a job needs room for."""

    shape: tuple[int, ...]
    dtype: str = "<f8"

    @property
    def nbytes(self) -> int:
        """Bytes of the array, rounded up so that arrays that lie side by side stay aligned."""
        size = int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize
        return -(-size // 64) * 64


Workspace = dict[str, ArraySpec]
Arrays = dict[str, NDArray[Any]]


def total_bytes(specs: Workspace) -> int:
    """Return the bytes of a set of arrays."""
    return sum(room.nbytes for room in specs.values())


class Reduction(Protocol):
    """What a reduce pass adds up: a value that travels to the workers."""

    def zeros(self) -> Sums:
        """Return sums over no rows."""
        ...

    def workspace(self, rows: int) -> Workspace:
        """Return the arrays that `add` works in, for blocks of at most `rows` rows."""
        ...

    def add(self, sums: Sums, block: Block, workspace: Arrays) -> None:
        """Add the sums over one block into `sums`, in place, working in `workspace`."""
        ...


def nbytes(sums: Sums) -> int:
    """Return the bytes that named sums hold."""
    return sum(array.nbytes for array in sums.values())


def array_bytes(value: Any) -> int:
    """Return the bytes of the arrays among the fields of a value, and of those in them."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if is_dataclass(value):
        return sum(array_bytes(getattr(value, each.name)) for each in fields(value))
    return 0


@dataclass(frozen=True, eq=False)
class Value:
    """A value that travels without what was worked out from its fields, and kept."""

    def __getstate__(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(self)}


def add_into(total: Sums, part: Sums) -> Sums:
    """Add `part` into `total`, in place, and return `total`."""
    for name, array in part.items():
        total[name] += array
    return total


def row_weights(block: Block, class_weight: Array | None) -> Array | None:
    """Return the weight of each row, class weights multiplied in, or None where all weigh one."""
    if class_weight is None or block.y is None:
        return block.weight
    by_label: Array = class_weight[block.y[:, 0].astype(np.intp)]
    return by_label if block.weight is None else by_label * block.weight


def raise_if_not_finite(block: Block) -> None:
    """Raise `NonFiniteData` with the first row and column, where the block holds NaN or infinity.

    Called when a sum came out as NaN, so that the common case pays for no look at every element.
    """
    for name, values in (("X", block.X), ("y", block.y), ("sample_weight", block.weight)):
        if values is None or np.isfinite(values).all():
            continue
        table = values.reshape(len(values), -1)
        row, column = np.argwhere(~np.isfinite(table))[0]
        place = f"column {column} of X" if name == "X" else name
        raise NonFiniteData(
            f"row {block.row_number(int(row))} has {table[row, column]} in {place}; "
            "drop or fill such rows first"
        )
