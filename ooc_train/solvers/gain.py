"""The guaranteed gain: a lower bound of how far more updates would lower the mean objective.

A quadratic with the loss's greatest curvature `A` lies above the smooth part of the objective, and
touches it at the current parameters (Bohning and Lindsay 1988). So any step `u` lowers the mean
objective at least to where it lowers the sum of the quadratic and the l1 penalty.

- Without l1, the best step is known. It gains `g A^-1 g / 2`, with the gradient `g`. For a sample,
  the product of the gradients of its two halves has no bias. The difference of the halves gives the
  sampling error, which is subtracted.
- With l1, coordinate descent finds a step (Friedman, Hastie and Tibshirani 2010). The bound holds
  for any step, so that descent may end early. For a sample, one half chooses the step and the other
  half measures its gain. So the mean of many samples is the gain of a step, never more than the
  best.

A model has converged when the gain is at most the tolerance, or a hundredth of the loss.
"""

from collections.abc import Sequence

import numpy as np

from ooc_train.core.partitions import Rows
from ooc_train.core.requests import Reduce
from ooc_train.core.sums import Array, Sums
from ooc_train.models.linear import LinearProblem
from ooc_train.objective.penalty import soft_threshold
from ooc_train.solvers.learning_rate import evaluated_partitions, rate_request

_SMALL_GAIN = 0.01
"""Limit of the guaranteed gain of a converged model, as a share of its loss."""

_LEAST_VARIANCE = 1e-3
"""Added to the curvature of each scaled column: of a column that hardly varies in the sample, the
curvature is not known."""

_MAX_SWEEPS, _LEAST_PROGRESS = 50, 1e-3
"""Sweeps of coordinate descent, and the share of the gain below which another sweep is not worth
it."""


def is_gain_small(gain: float, loss: float, tol: float) -> bool:
    """Return whether a guaranteed gain is at most the tolerance, or 1 % of the loss."""
    return gain <= max(tol, _SMALL_GAIN * abs(loss))


def gain_requests(problem: LinearProblem, rows: Rows, params: Array) -> tuple[Reduce, ...]:
    """Return the requests whose answers `guaranteed_gain` takes, at `params`."""
    partitions = evaluated_partitions(rows)
    everything = len(partitions) == rows.n_partitions
    half = len(partitions) if everything else -(-len(partitions) // 2)
    halves = [part for part in (partitions[:half], partitions[half:]) if part]
    evaluations = [Reduce(problem.reduction(params[None]), part, counted=False) for part in halves]
    return (*evaluations, rate_request(problem, rows, counted=False))


def guaranteed_gain(problem: LinearProblem, answers: Sequence[Sums], params: Array) -> float:
    """Return a lower bound of the decrease of the mean objective that is left at `params`.

    If the loss has no greatest curvature, the bound is 0.

    Parameters
    ----------
    answers : sequence of Sums
        The answers to `gain_requests`.
    """
    *evaluations, moments = answers
    curvature = _curvature(problem, moments)
    if curvature is None:
        return 0.0
    if not problem.theta_penalty.smooth:
        if not all(sums["weight"] > 0 for sums in evaluations):
            return 0.0  # rows without weight measure no gain
        gradients = [problem.mean_gradient(sums, params) for sums in evaluations]
        l1 = problem.theta_penalty.l1 / problem.total_weight
        return _gain_with_l1(curvature, gradients, params, l1)
    gradients = [
        problem.mean_gradient(sums, params) if sums["weight"] > 0 else np.zeros_like(params)
        for sums in evaluations
    ]
    return _smooth_gain(curvature, gradients)


def _curvature(problem: LinearProblem, sums: Sums) -> Array | None:
    """Return the greatest curvature, (columns, columns), or a diagonal that exceeds it, (columns,).

    The columns are those of the parameters: features + 1.
    """
    bound = problem.bound
    if bound is None:
        return None
    penalty = problem.theta_penalty.l2 / problem.total_weight
    has_weight = float(sums["weight"]) > 0
    if "gram" not in sums or not has_weight:
        trace = problem.n_features + 1.0
        if has_weight and not problem.theta_penalty.smooth:
            # Scales that are not the sample's own give another trace.
            trace = max(trace, float(sums["squares"]) / float(sums["weight"]))
        diagonal: Array = bound * trace + penalty
        return diagonal
    moments = sums["gram"] / float(sums["weight"])
    moments[np.diag_indices_from(moments)] += _LEAST_VARIANCE
    matrix: Array = bound * moments + np.diag(penalty)
    return matrix


def _smooth_gain(curvature: Array, gradients: Sequence[Array]) -> float:
    """Return the gain of the best step down a quadratic, less its sampling error."""
    inverse = np.linalg.inv(curvature) if curvature.ndim == 2 else None

    def product(a: Array, b: Array) -> float:
        return float((a * (b / curvature if inverse is None else b @ inverse)).sum())

    first, second = gradients[0], gradients[-1]
    difference = 0.5 * (first - second)
    return 0.5 * product(first, second) - 0.5 * product(difference, difference)


def _gain_with_l1(curvature: Array, gradients: Sequence[Array], params: Array, l1: Array) -> float:
    """Return the mean gain of steps that one half of the sample chooses, by the other half."""
    lowest = _lowest_by_column if curvature.ndim == 1 else _lowest_by_sweeps
    points = [lowest(curvature, gradient, params, l1) for gradient in gradients]
    gains = [
        _decrease(curvature, gradient, params, point, l1)
        for point, gradient in zip(points, reversed(gradients), strict=True)
    ]
    return sum(gains) / len(gains)


def _decrease(curvature: Array, gradient: Array, params: Array, point: Array, l1: Array) -> float:
    """Return by how much `point` lowers quadratic plus l1 penalty, compared with `params`."""
    step = point - params
    bend = step * curvature if curvature.ndim == 1 else step @ curvature
    penalty = l1 * (np.abs(point) - np.abs(params))
    return -float((step * (gradient + 0.5 * bend) + penalty).sum())


def _lowest_by_column(curvature: Array, gradient: Array, params: Array, l1: Array) -> Array:
    """Return the minimum of a quadratic without mixed terms plus the l1 penalty."""
    return soft_threshold(params - gradient / curvature, l1 / curvature)


def _lowest_by_sweeps(curvature: Array, gradient: Array, params: Array, l1: Array) -> Array:
    """Return a low point of any quadratic plus the l1 penalty, found by coordinate descent."""
    point, slope, gain = params.copy(), gradient.copy(), 0.0
    diagonal = np.diagonal(curvature)
    for _ in range(_MAX_SWEEPS):
        for j, steepness in enumerate(diagonal):
            before = point[:, j].copy()
            point[:, j] = soft_threshold(before - slope[:, j] / steepness, l1[j] / steepness)
            slope += (point[:, j] - before)[:, None] * curvature[j]
        previous, gain = gain, _decrease(curvature, gradient, params, point, l1)
        if gain - previous <= _LEAST_PROGRESS * gain:
            break
    return point
