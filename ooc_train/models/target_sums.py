"""The mean of y, added up over rows: losses with a log link begin at its logarithm."""

from dataclasses import dataclass

import numpy as np

from ooc_train.core.sums import Array, Arrays, Block, Sums, Workspace, raise_if_not_finite
from ooc_train.objective.loss import Loss, raise_if_outside


@dataclass(frozen=True)
class TargetSums:
    """Sums of y.

    Attributes
    ----------
    loss : Loss
        Its domain has all of y.
    n_outputs : int
        Columns of y.
    """

    loss: Loss
    n_outputs: int

    def zeros(self) -> Sums:
        """Return sums over no rows."""
        return {"weight": np.zeros(()), "first": np.zeros(self.n_outputs)}

    def workspace(self, rows: int) -> Workspace:
        """Return no scratch arrays."""
        del rows
        return {}

    def made_bytes(self, rows: int) -> int:
        """Return the bytes that `add` allocates: a weight for each row, and a comparison."""
        return rows * (8 + self.n_outputs)

    def add(self, sums: Sums, block: Block, workspace: Arrays) -> None:
        """Add the sums over one block into `sums`, in place."""
        del workspace
        if block.y is None:
            raise ValueError("a loss needs y, and these data have none")
        weight = np.ones(block.n_rows) if block.weight is None else block.weight
        sums["weight"] += weight.sum()
        sums["first"] += weight @ block.y
        if not np.isfinite(sums["first"]).all():
            raise_if_not_finite(block)
        raise_if_outside(self.loss, block)

    def mean(self, sums: Sums) -> Array | None:
        """Return the mean of each column of y, (outputs,); None without weight."""
        if not sums["weight"] > 0:
            return None
        mean: Array = sums["first"] / sums["weight"]
        return mean
