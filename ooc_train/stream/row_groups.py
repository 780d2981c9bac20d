"""Groups of rows: by the values of a column of X, or by a label for each row."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import Block


@dataclass(frozen=True, eq=False)
class RowGroups:
    """The group of each row: a value that travels to workers.

    Attributes
    ----------
    labels : ndarray of shape (groups,)
        The label of each group, in ascending order.
    column : int or None
        The column of X whose values are the labels.
    codes : ndarray of shape (rows,), or None
        The group of each row of the data; None if a column tells it.
    """

    labels: NDArray[Any]
    column: int | None = None
    codes: NDArray[Any] | None = None

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return len(self.labels)

    def of_block(self, block: Block) -> NDArray[np.intp]:
        """Return the group of each row of a block, (rows,).

        Raises
        ------
        ValueError
            If a value of the column is none of the labels.
        """
        if self.codes is not None:
            return self.codes[block.row_numbers(np.arange(block.n_rows))].astype(np.intp)
        values = block.X[:, self.column or 0]
        codes = np.minimum(np.searchsorted(self.labels, values), self.n_groups - 1)
        if not np.array_equal(self.labels[codes], values):
            row = int(np.argmax(self.labels[codes] != values))
            raise ValueError(
                f"row {block.row_number(row)} has {values[row]:g} in the column of the groups, "
                "which no row had a pass before; leave the data as they are meanwhile"
            )
        return codes
