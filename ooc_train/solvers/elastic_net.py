"""Coordinate descent for the elastic net, by products of columns.

A sweep minimises over one weight after the other (Friedman, Hastie and Tibshirani 2010):
`w_j = soft_threshold(x_j . (y - X w) + x_j . x_j w_j, l1_j) / (x_j . x_j + l2_j)`.
A sweep leaves out weights that are zero and stay so.

Sweeps converge slowly where columns are correlated. So once a sweep changes no sign, and every
fifth sweep, all weights that are not zero move to their common minimum at fixed signs. Where one
would change its sign, all move up to that point, and on without it (feature-sign search: Lee,
Battle, Raina and Ng 2007). Each step lowers the objective.

The stopping rule is scikit-learn's: the duality gap is at most `tol * y . y`, y centred where there
is an intercept (Fercoq, Gramfort and Salmon 2015).
"""

from math import copysign, inf

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import Array
from ooc_train.solvers.base import STALLED
from ooc_train.solvers.least_squares import EPS, dependence_threshold

_SIGNS_EVERY = 5
"""Sweeps after which the weights move together, even if signs still change."""

_MOST_MOVES = 32
"""Limit of moves in a row. Each solves equations, which takes longer than a sweep."""

_AT_BOUND = 64 * EPS
"""Share of `l1` by which rounding may lift the slope of a weight that is zero at the optimum."""


class Descent:
    """Coordinate descent for one output.

    Parameters
    ----------
    products : float64 array (features, features)
        Of the columns.
    cross, square : float64 array (features,), float
        Products of the columns and y, and the sum of squares of y.
    varies : bool array (features,)
        Whether a column takes part. The weights of others are zero.
    l1, l2 : float64 arrays (features,)
        The penalty on each weight; `l1` is above zero.
    start : float64 array (features,)
        Weights to begin from.

    Attributes
    ----------
    weights : float64 array (features,)
        The current weights.
    slopes : float64 array (features,)
        Products of the columns with the residuals: the negative gradient of the loss.
    gap : float
        The duality gap.
    n_iter : int
        Sweeps so far.
    """

    def __init__(
        self,
        products: Array,
        cross: Array,
        square: float,
        varies: NDArray[np.bool_],
        l1: Array,
        l2: Array,
        start: Array,
    ) -> None:
        self._products, self._cross, self._square = products, cross, square
        self._varies, self._l1, self._l2 = varies, l1, l2
        self._diagonal = np.diagonal(self._products)
        self.weights = np.where(self._varies, start, 0.0)
        self.slopes = self._computed_slopes()
        self.gap, self.n_iter = self._computed_gap(), 0

    def run(self, tol: float, max_iter: float, weight: float) -> str:
        """Sweep until the gap is small; return why it is not, or nothing.

        Parameters
        ----------
        tol, max_iter : float
            The gap as a share of the sum of squares of y, and the limit of sweeps.
        weight : float
            Sum of the rows' weights, by which figures in the text are divided.
        """
        limit = max(tol, EPS) * self._square
        while True:
            signs = np.sign(self.weights)
            moved = self._sweep()
            self.n_iter += 1
            self._update()
            if self.gap <= limit:
                return ""
            if self.n_iter % _SIGNS_EVERY == 0 or np.array_equal(signs, np.sign(self.weights)):
                for _ in range(_MOST_MOVES):
                    moves_on = self._move_together()
                    self._update()
                    if not moves_on:
                        break
                if self.gap <= limit:
                    return ""
            figures = (
                f"the duality gap is {self.gap / weight:.3g}, and tol times the mean square "
                f"of y is {limit / weight:.3g}"
            )
            if self.n_iter >= max_iter:
                return f"max_iter={max_iter:.0f} reached, {figures}"
            if moved <= EPS * self._square**0.5:
                return f"{STALLED}, {figures}"

    def _sweep(self) -> float:
        """Minimise over one weight after the other; return the largest change of a prediction."""
        at_most = self._l1 * (1.0 + _AT_BOUND)
        candidates = (self.weights != 0.0) | (self._varies & (np.abs(self.slopes) > at_most))
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
            size = abs(pull) - l1
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
        first = -1
        if len(towards_zero):
            lengths = -weights[towards_zero] / (root * step)[towards_zero]
            if lengths.min() < length:
                first, length = int(towards_zero[lengths.argmin()]), float(lengths.min())
        if length == inf:
            return False
        change = length * (0.5 * length * float(step @ matrix @ step) - float(downhill @ step))
        if not change < 0.0:
            return False  # rounding of a nearly singular matrix
        ends = weights + length * root * step
        ends[signs * ends < 0.0] = 0.0
        if first >= 0:
            ends[first] = 0.0
        self.weights[active] = ends
        return first >= 0

    def _update(self) -> None:
        """Compute slopes and gap anew, since sweeps add up rounding."""
        self.slopes = self._computed_slopes()
        self.gap = self._computed_gap()

    def _computed_slopes(self) -> Array:
        active = np.flatnonzero(self.weights)
        if 2 * len(active) > len(self.weights):
            fitted = self._products @ self.weights
        else:
            fitted = self.weights[active] @ self._products[active]
        slopes: Array = self._cross - fitted
        return slopes

    def _computed_gap(self) -> float:
        """Return the duality gap, by terms that lose no digits to cancellation.

        The dual point is the residuals, shrunk until no slope exceeds `l1`.
        """
        weights, slopes, l1, l2 = self.weights, self.slopes, self._l1, self._l2
        free = slopes - l2 * weights
        excess = float((np.abs(free) / l1)[self._varies].max(initial=1.0))
        shrunk = 1.0 / excess
        residual = max(self._square - float(weights @ (self._cross + slopes)), 0.0)
        ridge = float(l2 @ weights**2)
        gap = float((l1 * np.abs(weights) - shrunk * weights * free).sum())
        return max(gap + 0.5 * (1.0 - shrunk) ** 2 * (residual + ridge), 0.0)


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
