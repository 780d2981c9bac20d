"""The gradient noise scale: about how many rows a batch needs for a useful gradient.

The simple noise scale is tr(Sigma) / |G|^2: G is the gradient over the whole population, and Sigma
the covariance of the gradients of single rows (McCandlish, Kaplan, Amodei and the OpenAI Dota Team
2018, "An Empirical Model of Large-Batch Training", appendix A). Gradients of smaller batches point
mostly in random directions; gradients of larger batches are mostly alike.

A pass computes the gradients of its partitions anyway. The squared norm of a sum over b rows has
the expectation ``b tr(Sigma) + b^2 |G|^2``. Two sizes b, those of a partition and of all rows, give
both terms without bias. So partitions have to be random samples, as in a store in random order.
Otherwise the differences between partitions count as noise.
"""

import math
from dataclasses import dataclass

import numpy as np

from ooc_train.core.sums import Array, Arrays, ArraySpec, Block, Sums, Workspace
from ooc_train.models.linear import LinearProblem
from ooc_train.models.loss_sums import LossSums


@dataclass(frozen=True, eq=False)
class NoiseSums:
    """The reduction of `LossSums`, bit for bit, and of squared norms of partitions' gradients.

    If `fit_intercept`, the norms include the gradient by the intercept.
    """

    losses: LossSums
    fit_intercept: bool = True

    def zeros(self) -> Sums:
        """Return the sums over no rows: arrays of zeros."""
        return self.losses.zeros() | {
            "partition_squares": np.zeros(self.losses.gradients),
            "squared_rows": np.zeros(()),
        }

    def workspace(self, rows: int) -> Workspace:
        """Return the scratch arrays of `add`, for blocks of at most `rows` rows."""
        outputs, columns = self.losses.theta.shape[1:]
        shape = (self.losses.gradients, outputs, columns)
        return self.losses.workspace(rows) | {
            "partition": ArraySpec(shape),
            "partition_scaled": ArraySpec(shape),
        }

    def made_bytes(self, rows: int) -> int:
        """Return the bytes that `add` allocates: those of the losses."""
        return self.losses.made_bytes(rows)

    def add(self, sums: Sums, block: Block, workspace: Arrays) -> None:
        """Add a partition's sums for the noise estimate to `sums`, in place."""
        partition, scaled = workspace["partition"], workspace["partition_scaled"]
        partition[...] = sums["gradient"]
        self.losses.add(sums, block, workspace)
        np.subtract(sums["gradient"], partition, out=partition)
        # By scaled parameters, since updates change these.
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
    variance : float
        Trace of the covariance of one row's gradient, weights included.
    square : float
        Estimated squared norm of the population's gradient. The estimate has no bias, so it may be
        zero or less if the noise of all rows is larger than the gradient.
    """

    variance: float
    square: float

    @property
    def rows(self) -> float:
        """The noise scale, in rows; infinite if the gradient is lost in noise."""
        return self.variance / self.square if self.square > 0 else math.inf


def noise_scales(problem: LinearProblem, sums: Sums, theta: Array) -> list[NoiseScale] | None:
    """Return the noise scale of each model of a pass; None where it is undetermined.

    `sums` are those of `NoiseSums` over all partitions, or over a sample of them, at the models
    `theta`. A single partition, or rows without weight, do not determine the scale.
    """
    n, squared_rows = float(sums["rows"]), float(sums["squared_rows"])
    weight = float(sums["weight"])
    if n * n == squared_rows or not weight > 0:
        return None
    by_mean_weight = n / weight
    scales = []
    for model, partition_squares in enumerate(sums["partition_squares"]):
        total = problem.gradient(sums, model) * by_mean_weight
        penalty = problem.theta_penalty.gradient(theta[model]) / problem.total_weight
        if not problem.fit_intercept:
            total[:, -1] = 0.0
        partitions = float(partition_squares) * by_mean_weight**2
        square = (float((total**2).sum()) - partitions) / (n * n - squared_rows)
        variance = max(0.0, (partitions - squared_rows * square) / n)
        # The penalty changes the gradient, but not its noise.
        whole = float(((total / n + penalty) ** 2).sum())
        scales.append(NoiseScale(variance, whole - variance / n))
    return scales
