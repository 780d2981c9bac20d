"""The mean of y: models whose loss has a log link begin at its logarithm."""

from dataclasses import dataclass

import numpy as np

from ooc_train.core.sums import Array, Arrays, Block, Sums, Workspace, raise_if_not_finite
from ooc_train.objective.loss import Loss, raise_if_outside


@dataclass(frozen=True)
class TargetSums:
    """The reduction of y and, if wanted, of squares of y.

    Attributes
    ----------
    loss : Loss
        The loss, whose domain y must be in.
    n_outputs : int
        Number of columns of y.
    squares : bool
        Whether squares of y are added up too.
    """

    loss: Loss
    n_outputs: int
    squares: bool = False

    def zeros(self) -> Sums:
        """Return the sums over no rows: arrays of zeros."""
        sums: Sums = {"weight": np.zeros(()), "first": np.zeros(self.n_outputs)}
        return sums | {"second": np.zeros(self.n_outputs)} if self.squares else sums

    def workspace(self, rows: int) -> Workspace:
        """Return no scratch arrays."""
        del rows
        return {}

    def made_bytes(self, rows: int) -> int:
        """Return the bytes that `add` allocates: a weight for each row, and an array like y."""
        return rows * (8 + 8 * self.n_outputs)

    def add(self, sums: Sums, block: Block, workspace: Arrays) -> None:
        """Add the sums over one block into `sums`, in place."""
        del workspace
        if block.y is None:
            raise ValueError("a loss needs y, and these data have none")
        weight = np.ones(block.n_rows) if block.weight is None else block.weight
        sums["weight"] += weight.sum()
        sums["first"] += weight @ block.y
        if self.squares:
            sums["second"] += weight @ block.y**2
        if not np.isfinite(sums["first"]).all():
            raise_if_not_finite(block)
        raise_if_outside(self.loss, block)

    def mean(self, sums: Sums) -> Array | None:
        """Return the mean of each column of y, (outputs,); None without weight."""
        if not sums["weight"] > 0:
            return None
        mean: Array = sums["first"] / sums["weight"]
        return mean

    def deviation(self, sums: Sums) -> Array:
        """Return the standard deviation of each column of y, (outputs,); 0 without squares.

        If y lies far from zero, only the first digits are right.
        """
        if not self.squares:
            return np.zeros(self.n_outputs)
        variance = sums["second"] / sums["weight"] - (sums["first"] / sums["weight"]) ** 2
        deviation: Array = np.sqrt(np.maximum(variance, 0.0))
        return deviation
