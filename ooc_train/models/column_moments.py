"""Mean and variance of each column, added up over rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import (
    Array,
    Arrays,
    ArraySpec,
    Block,
    Sums,
    Workspace,
    array_bytes,
    raise_if_not_finite,
)
from ooc_train.objective.scaling import piece_rows


@dataclass(frozen=True, eq=False)
class ColumnSums:
    """The reduction of the columns' differences from an origin, and of their squares.

    Attributes
    ----------
    origin : float64 array (features,)
        Subtracted from rows; if near the columns' means, squares lose no digits.
    """

    origin: Array

    def zeros(self) -> Sums:
        """Return the sums over no rows: arrays of zeros."""
        features = len(self.origin)
        return {"weight": np.zeros(()), "first": np.zeros(features), "second": np.zeros(features)}

    def workspace(self, rows: int) -> Workspace:
        """Return the scratch arrays of `add`, for blocks of at most `rows` rows."""
        piece = min(rows, piece_rows(len(self.origin), square=False))
        return {"shifted": ArraySpec((piece, len(self.origin)))}

    def made_bytes(self, rows: int) -> int:
        """Return the bytes that `add` allocates: a sum of columns."""
        del rows
        return 2 * array_bytes(self)

    def add(self, sums: Sums, block: Block, workspace: Arrays) -> None:
        """Add the sums over one block into `sums`, in place."""
        piece = len(workspace["shifted"])
        for start in range(0, block.n_rows, piece):
            rows = slice(start, start + piece)
            shifted = workspace["shifted"][: len(block.X[rows])]
            np.subtract(block.X[rows], self.origin, out=shifted)
            weight = np.ones(len(shifted)) if block.weight is None else block.weight[rows]
            sums["first"] += weight @ shifted
            np.multiply(shifted, shifted, out=shifted)
            sums["second"] += weight @ shifted
            sums["weight"] += weight.sum()
        if not np.isfinite(sums["second"]).all():
            raise_if_not_finite(block)

    def moments(self, sums: Sums) -> "ColumnMoments":
        """Compute the moments of the columns from the sums over all rows."""
        offset = sums["first"] / sums["weight"]
        variance = np.maximum(sums["second"] / sums["weight"] - offset**2, 0.0)
        return ColumnMoments(float(sums["weight"]), self.origin + offset, variance)


@dataclass(frozen=True, eq=False)
class ColumnMoments:
    """The total weight of some rows, and the means and population variances of columns."""

    weight: float
    mean: Array
    variance: Array

    def merged(self, other: "ColumnMoments") -> "ColumnMoments":
        """Return the moments of these rows and other rows together (Chan et al. 1983)."""
        weight = self.weight + other.weight
        share, difference = other.weight / weight, other.mean - self.mean
        variance = (1.0 - share) * self.variance + share * other.variance
        return ColumnMoments(
            weight, self.mean + share * difference, variance + share * (1.0 - share) * difference**2
        )

    def by_channel(self, channels: int) -> "ColumnMoments":
        """Return for each column the joint moments of all columns of its channel.

        A column's channel is its number modulo `channels`: channels are the last axis of a row.
        """
        means = self.mean.reshape(-1, channels)
        mean = means.mean(axis=0)
        variance = (self.variance.reshape(-1, channels) + (means - mean) ** 2).mean(axis=0)
        return replace(self, mean=np.tile(mean, len(means)), variance=np.tile(variance, len(means)))

    def permuted(self, order: NDArray[np.intp]) -> "ColumnMoments":
        """Return the moments of columns reordered as `X[:, order]`."""
        return replace(self, mean=self.mean[order], variance=self.variance[order])


Partitions = Sequence[int] | None


def moments_by_passes(
    reduce: Callable[[ColumnSums, Partitions], Sums],
    n_features: int,
    sample: Partitions,
    partitions: Partitions,
) -> ColumnMoments:
    """Return the moments of columns over some partitions, by two passes that `reduce` makes.

    The second pass is about the means of a sample, so that squares lose no digits. None stands for
    all partitions.
    """
    first = ColumnSums(np.zeros(n_features))
    second = ColumnSums(first.moments(reduce(first, sample)).mean)
    return second.moments(reduce(second, partitions))
