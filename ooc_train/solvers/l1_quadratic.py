"""The minimum of a quadratic plus an elastic net: coordinate descent, and moves of all weights.

`w A w / 2 - b w + sum_j (l1_j |w_j| + l2_j w_j^2 / 2)` is minimised; A has no negative eigenvalue.
A sweep minimises over one weight after the other (Friedman, Hastie and Tibshirani 2010):
`w_j = soft_threshold(b_j - A_j w + A_jj w_j, l1_j) / (A_jj + l2_j)`.
A sweep leaves out weights that are zero and stay so.

Sweeps converge slowly where columns of A are correlated. So once a sweep changes no sign, and every
fifth sweep, all weights that are not zero move to their common minimum at fixed signs. Where some
would change their sign, all move up to the first such point, and on without that weight
(feature-sign search: Lee, Battle, Raina and Ng 2007); or farther, if that lowers the objective
more, while weights whose sign would change stop at zero. Each step lowers the objective.
"""

from abc import ABC, abstractmethod
from math import copysign, inf
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import Array
from ooc_train.solvers.base import STALLED
from ooc_train.solvers.least_squares import EPS, dependence_threshold

_SIGNS_EVERY = 5
"""Sweeps after which the weights move together, even if signs still change."""

_MOST_MOVES = 32
"""Limit of moves in a row. Each solves equations, which takes longer than a sweep."""

_PARTS, _FURTHEST = (1.0, 1 / 2, 1 / 4, 1 / 16), 2.0**20
"""Shares of the step to the minimum that are tried, and limit of a step that has no end, by the
length at which the first sign changes."""

_AT_BOUND = 64 * EPS
"""Share of `l1` by which rounding may lift the slope of a weight that is zero at the optimum."""


class L1Quadratic(ABC):
    """A quadratic with an elastic net, and the descent to its minimum.

    Subclasses say when the descent is done.

    Parameters
    ----------
    products : float64 array (features, features)
        A of the quadratic; of least squares, the products of the columns.
    cross : float64 array (features,)
        b of the quadratic; of least squares, the products of the columns and y.
    varies : bool array (features,)
        Whether a weight takes part. Others are zero.
    l1, l2 : float64 arrays (features,)
        The penalty on each weight.
    start : float64 array (features,)
        Weights to begin from.
    positive : bool
        Whether weights below 0 are forbidden.

    Attributes
    ----------
    weights : float64 array (features,)
        The current weights.
    slopes : float64 array (features,)
        The negative gradient of the quadratic; of least squares, the products of the columns with
        the residuals.
    n_iter : int
        Number of sweeps so far.
    """

    def __init__(
        self,
        products: Array,
        cross: Array,
        varies: NDArray[np.bool_],
        l1: Array,
        l2: Array,
        start: Array,
        *,
        positive: bool = False,
    ) -> None:
        self._positive = positive
        self._products, self._cross = products, cross
        self._varies, self._l1, self._l2 = varies, l1, l2
        self._diagonal = np.diagonal(self._products)
        allowed = self._varies & (start > 0.0) if positive else self._varies
        self.weights = np.where(allowed, start, 0.0)
        self.slopes = self._computed_slopes()
        self.n_iter = 0

    @abstractmethod
    def _is_done(self) -> bool:
        """Return whether the weights are near enough to the minimum."""

    def descend(self, max_iter: float, size: float) -> str:
        """Sweep until the descent is done; return why it ended before, or "".

        Parameters
        ----------
        max_iter : float
            The limit of sweeps.
        size : float
            The root of `w A w` for weights of typical size. Descent ends when a sweep changes it by
            rounding only.
        """
        while True:
            signs = np.sign(self.weights)
            moved = self._sweep()
            self.n_iter += 1
            self.slopes = self._computed_slopes()  # since sweeps add up rounding
            if self._is_done():
                return ""
            if self.n_iter % _SIGNS_EVERY == 0 or np.array_equal(signs, np.sign(self.weights)):
                for _ in range(_MOST_MOVES):
                    moves_on = self._move_together()
                    self.slopes = self._computed_slopes()
                    if not moves_on:
                        break
                if self._is_done():
                    return ""
            if self.n_iter >= max_iter:
                return f"max_iter={max_iter:.0f} reached"
            if moved <= EPS * size:
                return STALLED

    def _sweep(self) -> float:
        """Minimise over one weight after the other; return the largest change of a prediction."""
        at_most = self._l1 * (1.0 + _AT_BOUND)
        pulls = self.slopes if self._positive else np.abs(self.slopes)
        candidates = (self.weights != 0.0) | (self._varies & (pulls > at_most))
        columns = np.flatnonzero(candidates)
        weights, slopes = self.weights, self.slopes
        largest = 0.0
        for j, l1, l2, square in zip(
            columns.tolist(),
            self._l1[columns].tolist(),
            self._l2[columns].tolist(),
            self._diagonal[columns].tolist(),
            strict=True,
        ):
            old = float(weights[j])
            pull = float(slopes[j]) + square * old
            size = (pull if self._positive else abs(pull)) - l1
            new = copysign(size / (square + l2), pull) if size > 0.0 else 0.0
            if new != old:
                weights[j] = new
                slopes -= (new - old) * self._products[j]
                largest = max(largest, abs(new - old) * square**0.5)
        return largest

    def _move_together(self) -> bool:
        """Move the weights that are not zero to their minimum, or until one of them is zero.

        Returns whether one of them is zero now, and another move may lower the objective.
        """
        active = np.flatnonzero(self.weights)
        if not len(active):
            return False
        weights, l2 = self.weights[active], self._l2[active]
        signs = np.sign(weights)
        root = 1.0 / np.sqrt(self._diagonal[active] + l2)
        matrix = self._products[np.ix_(active, active)]
        matrix[np.diag_indices_from(matrix)] += l2
        matrix *= root
        matrix *= root[:, None]
        downhill = root * (self.slopes[active] - self._l1[active] * signs - l2 * weights)
        step, length = _step_down(matrix, downhill)
        towards_zero = np.flatnonzero(signs * step < 0.0)
        lengths = -weights[towards_zero] / (root * step)[towards_zero]
        nearest = float(lengths.min(initial=inf))
        if min(nearest, length) == inf:
            return False

        def moved(length: float) -> tuple[float, Array]:
            """Return the change of the objective, and the weights: 0 where they change sign."""
            ends = weights + length * root * step
            ends[signs * ends < 0.0] = 0.0
            if length == nearest:
                ends[towards_zero[lengths.argmin()]] = 0.0
            change = (ends - weights) / root
            return float(change @ (0.5 * (matrix @ change) - downhill)), ends

        shorter = (part * min(length, _FURTHEST * nearest) for part in _PARTS)
        tried = [moved(part) for part in shorter if part > nearest]
        change, ends = min([*tried, moved(min(length, nearest))], key=itemgetter(0))
        if not change < 0.0:
            return False  # rounding of a nearly singular matrix
        self.weights[active] = ends
        return not ends.all()

    def _computed_slopes(self) -> Array:
        active = np.flatnonzero(self.weights)
        if 2 * len(active) > len(self.weights):
            fitted = self._products @ self.weights
        else:
            fitted = self.weights[active] @ self._products[active]
        slopes: Array = self._cross - fitted
        return slopes


def _step_down(matrix: Array, downhill: Array) -> tuple[Array, float]:
    """Return a step that lowers a quadratic, and how many times it may be taken.

    It leads to the minimum, and may be taken once. Where the quadratic falls along a direction
    without curvature, the step is that direction, without a limit.
    """
    try:
        np.linalg.cholesky(matrix)
        return np.asarray(np.linalg.solve(matrix, downhill), np.float64), 1.0
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(matrix)
    kept = values > values[-1] * dependence_threshold(len(values))
    along = vectors.T @ downhill
    flat: Array = vectors[:, ~kept] @ along[~kept]
    if flat @ flat > EPS * (downhill @ downhill):
        return flat, inf
    step: Array = vectors[:, kept] @ (along[kept] / values[kept])
    return step, 1.0
