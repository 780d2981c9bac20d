"""Least squares with an elastic net, by products of columns: the rules that end its descent.

`l1_quadratic.py` has the descent. The stopping rule is scikit-learn's: the duality gap is at most
`tol * y . y`, y centred where there is an intercept (Fercoq, Gramfort and Salmon 2015).

Non-negative least squares without l1 has no such gap, since no scaling of the residuals is feasible
in the dual. There, the cosine of the angle between the residuals and a column decides.
"""

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import Array
from ooc_train.solvers.l1_quadratic import L1Quadratic
from ooc_train.solvers.least_squares import EPS


class Descent(L1Quadratic):
    """Coordinate descent for one output.

    Parameters
    ----------
    products, cross, varies, l1, l2, start, positive
        As of `L1Quadratic`; `l1` is above zero.
    square : float
        The sum of squares of y.
    tol : float
        The gap to stop at, as a share of the sum of squares.

    Attributes
    ----------
    gap : float
        The duality gap.
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
        tol: float,
        *,
        positive: bool = False,
    ) -> None:
        super().__init__(products, cross, varies, l1, l2, start, positive=positive)
        self._square, self._limit = square, max(tol, EPS) * square
        self.gap = self._computed_gap()

    def run(self, max_iter: float, weight: float) -> str:
        """Sweep until the gap is small enough; return why it is not, or "".

        Parameters
        ----------
        max_iter : float
            The limit of sweeps.
        weight : float
            Sum of the rows' weights, by which figures in the text are divided.
        """
        cause = self.descend(max_iter, self._square**0.5)
        return cause and (
            f"{cause}, the duality gap is {self.gap / weight:.3g}, and tol times the mean square "
            f"of y is {self._limit / weight:.3g}"
        )

    def _is_done(self) -> bool:
        self.gap = self._computed_gap()
        return self.gap <= self._limit

    def _computed_gap(self) -> float:
        """Return the duality gap, by terms that lose no digits to cancellation.

        The dual point is the residuals, shrunk until no slope exceeds `l1`.
        """
        weights, slopes, l1, l2 = self.weights, self.slopes, self._l1, self._l2
        free = slopes - l2 * weights
        pulls = free if self._positive else np.abs(free)
        excess = float((pulls / l1)[self._varies].max(initial=1.0))
        shrunk = 1.0 / excess
        residual = max(self._square - float(weights @ (self._cross + slopes)), 0.0)
        ridge = float(l2 @ weights**2)
        gap = float((l1 * np.abs(weights) - shrunk * weights * free).sum())
        return max(gap + 0.5 * (1.0 - shrunk) ** 2 * (residual + ridge), 0.0)


class NonNegative(L1Quadratic):
    """Coordinate descent for one output whose weights are at least 0, without l1.

    Parameters
    ----------
    products, cross, varies, l2, start
        As of `L1Quadratic`.
    square : float
        The sum of squares of y.
    tol : float
        The cosine to stop at.
    """

    def __init__(
        self,
        products: Array,
        cross: Array,
        square: float,
        varies: NDArray[np.bool_],
        l2: Array,
        start: Array,
        tol: float,
    ) -> None:
        none = np.zeros_like(l2)
        super().__init__(products, cross, varies, none, l2, start, positive=True)
        self._norm, self._tol = float(square**0.5), max(tol, EPS)

    def run(self, max_iter: float) -> str:
        """Sweep until the cosine is small enough; return why it is not, or ""."""
        cause = self.descend(max_iter, self._norm)
        return cause and (
            f"{cause}, the cosine of the angle between the residuals and a column is "
            f"{self._left() / self._norm:.3g}, and tol is {self._tol:.3g}"
        )

    def _left(self) -> float:
        """Return the largest violation of optimality by a column of norm 1 and the residuals.

        At the optimum, products are zero where the weight is above 0, and at most zero elsewhere.
        """
        pulls = self.slopes - self._l2 * self.weights
        left = np.where(self.weights > 0.0, np.abs(pulls), np.maximum(pulls, 0.0))
        norms = np.sqrt(self._diagonal + self._l2)
        return float((left[self._varies] / norms[self._varies]).max(initial=0.0))

    def _is_done(self) -> bool:
        return self._left() <= self._tol * self._norm
