"""The learning rate "auto" of updates: how large it is at first, and how it falls.

SGD begins with the largest rate that is stable in the mean for rows in random order,
`B / (beta (r + (B - 1) lam))`: `beta` is the loss's greatest curvature, `lam` the largest
eigenvalue of the scaled second moments, and `r` the mean squared norm of a scaled row. So single
rows learn by `1 / (beta r)` and all rows at once by `1 / (beta lam)` (Jain et al. 2018,
Parallelizing SGD, theorem 1), less what the penalty adds to the curvature. The term in `r` is there
for the noise of the rows of a batch, the term in `lam` for the curvature.

The model is the average of the parameters over the updates, so the rate has no need to fall towards
the end of a run, which nobody knows beforehand. For the squared loss the average has no bias at a
constant rate (Bach and Moulines 2013). The slopes of that loss grow with the error, and rows of
large norm could blow it up; so `r` is the mean fourth power of the norms over the mean square,
which is the same number for normal rows. For other losses the average is biased, by the square of
the noise. There the term in `r` grows with the root of the number of updates, as though batches
grew, and the term in `lam` stays: the rate falls only as far as it is bounded by noise.

Adam's steps are of the size of the rate whatever the gradient. Its rate is in proportion to the
root of the batch size (Malladi et al. 2022) and, beyond 100 features, to one over the root of
their number, since the steps of all features add up in a predictor.

The constants were chosen on made and real data (`tests/benchmarks/anytime.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np

from ooc_train.core.sums import Array, Sums
from ooc_train.models.linear import LinearProblem
from ooc_train.models.moments import NormSums
from ooc_train.optimizers.optimizer import Optimizer
from ooc_train.solvers.base import Stream
from ooc_train.stream.sources import Source, sample_partitions

__all__ = ["Rate", "automatic_rate", "certain_gain", "evaluated_partitions", "norms"]

_SAMPLE_PARTITIONS = 32
_SAMPLE_ROWS = 2**15
WIDEST = 2048
"""Up to so many features the largest eigenvalue is computed; beyond, it is bounded by the trace."""

_FALLS, _LEAST_FALL = 0.05, 10.0
"""Horizon of SGD in epochs, but at least so many rows for each parameter of an output: with fewer,
the rate would fall before the parameters have left the start behind."""

_ADAM_RATE, _ADAM_ROWS, _ADAM_FEATURES, _ADAM_LARGEST = 0.03, 32, 100, 0.25
_ADAM_FALLS, _ADAM_LEAST_FALL = 0.25, 1000.0
"""Horizon of Adam in epochs, but at least so many updates."""

_EVALUATED_ROWS, _EVALUATED_BYTES, _LEAST_EVALUATED = 2**17, 2**26, 4
"""Rows by which a model is evaluated after each epoch, and their bytes at most; partitions at
least. A loss of so many rows is within half a percent of that of all."""

_LEAST_VARIANCE = 1e-3
"""Added to the curvature by each scaled column: a column that hardly varies in a sample tells
nothing of what can be gained by it."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A learning rate: `eta0 / (1 + noise * (sqrt(1 + t / horizon) - 1))` after t updates.

    Attributes
    ----------
    eta0 : of the first update
    noise : share of the rate's bound that falls with the root of t; 0 is a constant rate
    horizon : updates after which that share has fallen to `1 / sqrt(2)`
    """

    eta0: float
    noise: float = 0.0
    horizon: float = 1.0


def norms(problem: LinearProblem) -> NormSums:
    """Return what the automatic rate adds up over a sample of rows."""
    with_gram = problem.n_features <= WIDEST
    return NormSums(problem.scaling, problem.class_weight, problem.fit_intercept, with_gram)


def _sampled(problem: LinearProblem, stream: Stream, *, counted: bool = True) -> Sums:
    """Return the norms of a sample of rows."""
    source = stream.source
    partitions = sample_partitions(
        source, min(_SAMPLE_ROWS, _SAMPLE_PARTITIONS * source.partition_rows)
    )
    return stream.reduce(norms(problem), partitions, counted=counted)


def sgd_rate(
    problem: LinearProblem, stream: Stream, batch_size: int, per_epoch: float | None
) -> Rate:
    """Return the rate of gradient descent on batches, from a sample of the rows.

    Parameters
    ----------
    per_epoch : updates of an epoch; None where nobody knows how many rows will come
    """
    source, sums = stream.source, _sampled(problem, stream)
    weight, rows = float(sums["weight"]), float(sums["rows"])
    if not weight > 0:
        raise ValueError(
            f"the {rows:,.0f} rows that the learning rate is chosen by weigh nothing; give a "
            "learning_rate"
        )
    squares = float(sums["squares"])
    square = squares / weight * rows * float(sums["squared_weight"]) / weight**2
    whole = batch_size >= source.n_rows
    if problem.loss.constant_curvature and squares > 0 and not whole:
        square = max(square, float(sums["quartic"]) * rows / weight / squares)
    largest = problem.n_features + 1.0
    if "gram" in sums:
        largest = float(np.linalg.eigvalsh(sums["gram"] / weight)[-1])
    penalty = batch_size * float(problem.theta_penalty.l2.max()) / problem.total_weight
    noise = problem.loss.require_bound() * square
    steepness = noise + problem.loss.require_bound() * (batch_size - 1) * largest + penalty
    # Batches of all rows have no noise.
    falls = 0.0 if problem.loss.constant_curvature or whole else noise / steepness
    least = _LEAST_FALL * (problem.n_features + 1) / batch_size
    return Rate(batch_size / steepness, falls, max(1.0, least, _FALLS * (per_epoch or 0.0)))


def adam_rate(problem: LinearProblem, batch_size: int, per_epoch: float | None) -> Rate:
    """Return the rate of Adam."""
    largest = min(_ADAM_LARGEST, _ADAM_RATE * sqrt(batch_size / _ADAM_ROWS))
    eta0 = largest * min(1.0, sqrt(_ADAM_FEATURES / problem.n_features))
    return Rate(eta0, 1.0, max(_ADAM_LEAST_FALL, _ADAM_FALLS * (per_epoch or 0.0)))


def automatic_rate(
    optimizer: Optimizer,
    problem: LinearProblem,
    stream: Stream,
    batch_size: int,
    per_epoch: float | None,
) -> Rate:
    """Return the learning rate "auto" of an optimizer."""
    if optimizer.normalised:
        return adam_rate(problem, batch_size, per_epoch)
    rate = sgd_rate(problem, stream, batch_size, per_epoch)
    return replace(rate, eta0=rate.eta0 / optimizer.gain)


def evaluated_partitions(source: Source) -> Sequence[int]:
    """Return the partitions, spread evenly, by which a model is evaluated after each epoch.

    They are all partitions where that costs little beside an epoch of updates.
    """
    rows = min(_EVALUATED_ROWS, _EVALUATED_BYTES // max(1, source.row_bytes))
    return sample_partitions(source, max(rows, _LEAST_EVALUATED * source.partition_rows))


def certain_gain(problem: LinearProblem, stream: Stream, theta: Array) -> float:
    """Return by how much the mean objective can be lowered at least, less what a sample can err by.

    A quadratic with the loss's greatest curvature lies above the objective, and its lowest point is
    `g A^-1 g / 2` below that at `theta`: `g` is the gradient, `A` the curvature (Bohning and
    Lindsay 1988). Of a sample, the product of the gradients of its two halves has no bias, and
    their difference tells its error.
    """
    partitions = evaluated_partitions(stream.source)
    half = (
        len(partitions)
        if len(partitions) == stream.source.n_partitions
        else -(-len(partitions) // 2)
    )
    halves = [part for part in (partitions[:half], partitions[half:]) if part]
    gradients = [_mean_gradient(problem, stream, theta, part) for part in halves]
    first, second = gradients[0], gradients[-1]
    by_curvature = _by_curvature(problem, _sampled(problem, stream, counted=False))
    gain = 0.5 * float((first * by_curvature(second)).sum())
    apart = 0.5 * (first - second)
    return gain - 0.5 * float((apart * by_curvature(apart)).sum())


def _by_curvature(problem: LinearProblem, sums: Sums) -> Callable[[Array], Array]:
    """Return what divides a gradient (outputs, features + 1) by the greatest curvature."""
    penalty = problem.theta_penalty.l2 / problem.total_weight
    if "gram" not in sums or not sums["weight"] > 0:
        bound = problem.loss.require_bound() * (problem.n_features + 1.0) + penalty
        return lambda gradient: gradient / bound
    moments = sums["gram"] / float(sums["weight"])
    moments[np.diag_indices_from(moments)] += _LEAST_VARIANCE
    factor = np.linalg.inv(problem.loss.require_bound() * moments + np.diag(penalty))
    return lambda gradient: gradient @ factor


def _mean_gradient(
    problem: LinearProblem, stream: Stream, theta: Array, partitions: Sequence[int]
) -> Array:
    sums = stream.reduce(problem.sums(theta[None]), partitions, counted=False)
    return problem.mean_gradient(sums, theta) if sums["weight"] > 0 else np.zeros_like(theta)
