"""Proximal Newton, for an l1 penalty: Newton's method whose quadratic model keeps the penalty.

A step leads to the minimum of the quadratic model of the smooth part plus the l1 penalty (Lee, Sun
and Saunders 2014). The Hessian is in memory, so the minimum costs no pass: constants are
eliminated, as they bear no penalty, and `l1_quadratic.py` finds the weights. Its weights of zero
are exact zeros. Passes, step control, and the start at a sample's optimum are those of `Newton`.

The minimum is found to nearly all digits instead of to those that a step can use (Yuan, Ho and Lin
2012), since a pass over the rows costs far more than the sweeps.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import Array
from ooc_train.models.linear import LinearProblem
from ooc_train.models.problem import Capability, Evaluation
from ooc_train.objective.penalty import ColumnPenalty
from ooc_train.solvers.l1_quadratic import L1Quadratic
from ooc_train.solvers.least_squares import EPS, dependence_threshold
from ooc_train.solvers.newton import Newton

_TOLERANCE = 1e-9
"""Subgradient of the model to stop sweeps at, as a share of that of the objective."""

_MOST_SWEEPS = 1000
"""Limit of sweeps of a step. Where it ends them, the step lowers the objective all the same."""


@dataclass(frozen=True)
class ProximalNewton(Newton):
    """Newton's method for a smooth loss with an l1 penalty, as a solver.

    Attributes
    ----------
    tol : float
        Largest entry of the least subgradient of the mean objective, by scaled parameters, to stop
        at.
    """

    name: ClassVar[str] = "proximal-newton"
    requires: ClassVar[frozenset[Capability]] = frozenset({"hessian", "prox", "moments"})

    def _step(self, problem: LinearProblem, now: Evaluation, hessian: Array) -> tuple[Array, float]:
        """Return the step to the minimum of the model, and how the l1 penalty changes over it."""
        penalty = problem.theta_penalty
        if penalty.smooth:
            return super()._step(problem, now, hessian)
        direction = _minimum(problem, now, hessian) - now.params
        return direction, penalty.l1_change(now.params, direction)


def _minimum(problem: LinearProblem, now: Evaluation, hessian: Array) -> Array:
    """Return the minimum of the quadratic model plus the l1 penalty, of the problem's shape."""
    blocks = hessian.shape[:2]
    l1 = np.tile(problem.theta_penalty.l1, (problem.n_outputs, 1)).reshape(blocks)
    theta, gradient = now.params.reshape(blocks), now.gradient.reshape(blocks)
    columns = problem.n_features + 1
    minima = [
        _block_minimum(*block, columns) for block in zip(theta, gradient, hessian, l1, strict=True)
    ]
    return np.reshape(minima, problem.shape)


def _block_minimum(theta: Array, gradient: Array, hessian: Array, l1: Array, columns: int) -> Array:
    """Return the minimum by the parameters of one block of the Hessian, (size,)."""
    places = np.arange(len(theta)).reshape(-1, columns)
    weights, constants = places[:, :-1].ravel(), places[:, -1]
    between = hessian[np.ix_(weights, constants)]
    # Singular for a softmax: a number added to all constants changes nothing.
    own = hessian[np.ix_(constants, constants)]
    inverse = np.linalg.pinv(own, dependence_threshold(len(own)), hermitian=True)
    reduced = hessian[np.ix_(weights, weights)] - between @ inverse @ between.T
    slope = gradient[weights] - between @ (inverse @ gradient[constants])
    best = _Model(reduced, slope, l1[weights], theta[weights]).minimum()
    step = np.empty_like(theta)
    step[weights] = best - theta[weights]
    step[constants] = -inverse @ (gradient[constants] + between.T @ step[weights])
    return theta + step


class _Model(L1Quadratic):
    """The quadratic model around the current weights, plus the l1 penalty.

    Parameters
    ----------
    hessian, gradient, l1, start : float64 arrays (weights, weights), and (weights,)
        Hessian and gradient of the smooth part at `start`, the penalty, and the weights there.
    """

    def __init__(self, hessian: Array, gradient: Array, l1: Array, start: Array) -> None:
        l2 = _damping(np.diagonal(hessian))
        cross = hessian @ start + l2 * start - gradient
        varies: NDArray[np.bool_] = np.ones(len(start), np.bool_)
        super().__init__(hessian, cross, varies, l1, l2, start)
        self._penalty = ColumnPenalty(l1, l2)
        rounding = 64 * EPS * float(np.abs(cross).max(initial=0.0))
        self._most_left = max(_TOLERANCE * self._left(), rounding)

    def minimum(self) -> Array:
        """Return the weights at the minimum."""
        fitted = float(self.weights @ (self._cross - self.slopes))
        self.descend(_MOST_SWEEPS, max(fitted, 0.0) ** 0.5)
        return self.weights

    def _left(self) -> float:
        """Return the largest entry of the subgradient of least size."""
        gradient = self._penalty.gradient(self.weights) - self.slopes
        left = self._penalty.least_subgradient(gradient, self.weights, 1.0)
        return float(np.abs(left).max(initial=0.0))

    def _is_done(self) -> bool:
        return self._left() <= self._most_left


def _damping(diagonal: Array) -> Array:
    """Return curvature to add around the start, (weights,), from the Hessian's diagonal.

    Damping keeps steps finite where the Hessian is singular to working precision, and moderate
    along weights without curvature. It does not move the optimum of the objective.
    """
    largest = float(diagonal.max(initial=0.0)) or 1.0
    least = dependence_threshold(len(diagonal)) * largest
    return np.where(diagonal > least, least, largest)
