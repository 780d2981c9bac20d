"""The gradient noise scale: how many rows a batch needs for its gradient to be worth trusting.

McCandlish, Kaplan, Amodei and the OpenAI Dota Team (2018, "An Empirical Model of Large-Batch
Training"), appendix A: with G the gradient over all there could be, and Sigma the covariance of the
gradients of single rows, the simple noise scale is tr(Sigma) / |G|^2. Batches of fewer rows point
mostly where chance has them point, those of more rows mostly all the same way.

A pass has the gradients of its partitions anyway. The squared norm of a sum over b rows is
expected to be ``b tr(Sigma) + b^2 |G|^2``: two sizes of b, that of the partitions and that of all
rows, give both, without a bias. So partitions have to be random samples, as those of a store in
random order are; where rows lie as they came, what partitions differ by counts as noise.
"""

import math
from dataclasses import dataclass

import numpy as np

from ooc_train.core.sums import Array, Arrays, ArraySpec, Block, Sums, Workspace
from ooc_train.models.linear import LinearProblem
from ooc_train.models.loss_sums import LossSums


@dataclass(frozen=True, eq=False)
class NoiseSums:
    """What `LossSums` adds up, to the same bits, and squared norms of partitions' gradients.

    Attributes
    ----------
    losses : of one or more models, their gradients among them
    fit_intercept : whether the gradient by the intercept counts
    """

    losses: LossSums
    fit_intercept: bool = True

    def zeros(self) -> Sums:
        """Return sums over no rows."""
        return self.losses.zeros() | {
            "partition_squares": np.zeros(self.losses.gradients),
            "squared_rows": np.zeros(()),
        }

    def workspace(self, rows: int) -> Workspace:
        """Return the arrays that `add` works in, for blocks of at most `rows` rows."""
        outputs, columns = self.losses.theta.shape[1:]
        shape = (self.losses.gradients, outputs, columns)
        return self.losses.workspace(rows) | {
            "partition": ArraySpec(shape),
            "partition_scaled": ArraySpec(shape),
        }

    def made_bytes(self, rows: int) -> int:
        """Return the bytes that a task makes beside sums and workspace: those of the losses."""
        return self.losses.made_bytes(rows)

    def add(self, sums: Sums, block: Block, workspace: Arrays) -> None:
        """Add the sums over one partition into `sums`, in place.

        Raises
        ------
        NonFiniteData
            where the block holds NaN or infinity.
        """
        partition, scaled = workspace["partition"], workspace["partition_scaled"]
        partition[...] = sums["gradient"]
        self.losses.add(sums, block, workspace)
        np.subtract(sums["gradient"], partition, out=partition)
        # By scaled parameters, which are those that updates change.
        scaling, by_intercept = self.losses.scaling, partition[..., -1:]
        np.multiply(by_intercept, scaling.mean, out=scaled[..., :-1])
        np.subtract(partition[..., :-1], scaled[..., :-1], out=scaled[..., :-1])
        scaled[..., :-1] *= scaling.inverse
        scaled[..., -1:] = by_intercept if self.fit_intercept else 0.0
        sums["partition_squares"] += np.einsum("mkc,mkc->m", scaled, scaled)
        sums["squared_rows"] += float(block.n_rows) ** 2


@dataclass(frozen=True, slots=True)
class NoiseScale:
    """The gradient of the mean objective, by scaled parameters, and its noise.

    Attributes
    ----------
    variance : trace of the covariance of one row's gradient, weights multiplied in
    square : squared norm of the gradient over all there could be; an estimate without a bias, so
        that it may come out at zero or less where the gradient is lost in the noise of all rows
    """

    variance: float
    square: float

    @property
    def rows(self) -> float:
        """The noise scale; infinite where the gradient can't be told from none."""
        return self.variance / self.square if self.square > 0 else math.inf


def noise_scales(problem: LinearProblem, sums: Sums, theta: Array) -> list[NoiseScale] | None:
    """Return the noise scale at each of the models of a pass, or None of a single partition.

    Parameters
    ----------
    problem : what the gradient is of: losses by the mean weight of a row, and the penalty
    sums : of `NoiseSums` over all rows
    theta : float64 array (models, outputs, features + 1)
    """
    n, squared_rows = float(sums["rows"]), float(sums["squared_rows"])
    if n * n == squared_rows:
        return None
    by_mean_weight = n / problem.total_weight
    found = []
    for model, partition_squares in enumerate(sums["partition_squares"]):
        total = problem.gradient(sums, model) * by_mean_weight
        penalty = problem.theta_penalty.gradient(theta[model]) / problem.total_weight
        if not problem.fit_intercept:
            total[:, -1] = 0.0
        partitions = float(partition_squares) * by_mean_weight**2
        square = (float((total**2).sum()) - partitions) / (n * n - squared_rows)
        variance = max(0.0, (partitions - squared_rows * square) / n)
        # The penalty moves the gradient, and has no noise.
        whole = float(((total / n + penalty) ** 2).sum())
        found.append(NoiseScale(variance, whole - variance / n))
    return found
