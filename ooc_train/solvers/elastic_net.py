"""Least squares with an elastic net, by products of columns: when its descent is done.

`l1_quadratic.py` has the descent. The stopping rule is scikit-learn's: the duality gap is at most
`tol * y . y`, y centred where there is an intercept (Fercoq, Gramfort and Salmon 2015).
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
    products, cross, varies, l1, l2, start
        As of `L1Quadratic`.
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
    ) -> None:
        super().__init__(products, cross, varies, l1, l2, start)
        self._square, self._limit = square, max(tol, EPS) * square
        self.gap = self._computed_gap()

    def run(self, max_iter: float, weight: float) -> str:
        """Sweep until the gap is small; return why it is not, or nothing.

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
        excess = float((np.abs(free) / l1)[self._varies].max(initial=1.0))
        shrunk = 1.0 / excess
        residual = max(self._square - float(weights @ (self._cross + slopes)), 0.0)
        ridge = float(l2 @ weights**2)
        gap = float((l1 * np.abs(weights) - shrunk * weights * free).sum())
        return max(gap + 0.5 * (1.0 - shrunk) ** 2 * (residual + ridge), 0.0)
