"""The quadratic model of L-BFGS plus an l1 penalty, and its minimum.

The pairs of L-BFGS make the Hessian `B = base I + W.T diag(signs) W` with two rows of W for a pair
(Nocedal and Wright 2006, equation 7.24: the updates of BFGS, one after the other). A product with
B, or a solution on any subset of the weights, takes time in proportion to the weights.

The minimum is found by rounds of two steps, each of which lowers the model:
- a proximal gradient step, which decides which weights are zero, and the signs of the others;
- the step to the minimum over the others at these signs, projected where signs change, and halved
  until it lowers the model (Keskar, Nocedal, Oeztoprak and Waechter 2016).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import Array
from ooc_train.objective.penalty import ColumnPenalty

_TOLERANCE = 1e-2
"""Subgradient of the model to stop at, as a share of that of the objective."""

_MOST_ROUNDS = 50
"""Limit of rounds. The step lowers the objective after any number of them."""

_SHORTEST = 1e-3
"""Shortest step to the minimum at fixed signs, as a share of the full one."""


@dataclass(frozen=True, eq=False)
class LowRankModel:
    """The Hessian `base I + rows.T diag(signs) rows`, which is positive definite.

    Attributes
    ----------
    base : float
        Curvature along the directions that no pair has.
    rows : float64 array (rank, parameters)
        Two for each pair.
    signs : float64 array (rank,)
        1 or -1.
    """

    base: float
    rows: Array
    signs: Array

    @classmethod
    def of(cls, pairs: tuple[tuple[Array, Array], ...]) -> "LowRankModel":
        """Make the model from pairs of steps and changes of the gradient, the newest last."""
        step, change = pairs[-1]
        base = float((change**2).sum() / (step * change).sum())
        rows, signs = np.empty((2 * len(pairs), step.size)), np.tile([1.0, -1.0], len(pairs))
        used = 0
        for step, change in pairs:
            mapped = cls(base, rows[:used], signs[:used]).times(step.ravel())
            curvature = float(step.ravel() @ mapped)
            if curvature > 0.0:  # but for rounding
                rows[used] = change.ravel() / np.sqrt((step * change).sum())
                rows[used + 1] = mapped / np.sqrt(curvature)
                used += 2
        return cls(base, rows[:used], signs[:used])

    def times(self, step: Array) -> Array:
        """Return the Hessian times a step, (parameters,)."""
        product: Array = self.base * step + (self.signs * (self.rows @ step)) @ self.rows
        return product

    def minimum(self, start: Array, gradient: Array, l1: Array) -> Array:
        """Return an approximate minimum of the model around `start` plus the l1 penalty.

        Parameters
        ----------
        start, gradient : float64 arrays (parameters,)
            The centre of the model, and the gradient of the smooth part there.
        l1 : float64 array (parameters,)
            The penalty on each parameter.
        """
        penalty = ColumnPenalty(l1, np.zeros_like(l1))
        raising = self.rows[self.signs > 0.0]
        # No curvature of the model is above this one.
        largest = self.base + float(np.linalg.eigvalsh(raising @ raising.T)[-1])
        here, slope = start, gradient
        limit = _TOLERANCE * np.abs(penalty.least_subgradient(slope, here, 1.0)).max()
        for _ in range(_MOST_ROUNDS):
            here = penalty.prox(here - slope / largest, 1.0 / largest)
            here = self._moved_at_signs(start, gradient, penalty, here)
            slope = gradient + self.times(here - start)
            if np.abs(penalty.least_subgradient(slope, here, 1.0)).max() <= limit:
                break
        return here

    def _moved_at_signs(
        self, start: Array, gradient: Array, penalty: ColumnPenalty, here: Array
    ) -> Array:
        """Return `here` moved towards the minimum at fixed signs; zeros stay."""
        l1, signs = penalty.l1, np.sign(here)
        free = (here != 0.0) | (l1 == 0.0)
        mapped = self.times(here - start)
        slope = free * (gradient + mapped + l1 * signs)
        value = (here - start) @ (gradient + 0.5 * mapped) + l1 @ np.abs(here)
        step = self._solved(slope, free)
        length = 1.0
        while length >= _SHORTEST:
            ends = here - length * step
            ends[(l1 > 0.0) & (np.sign(ends) != signs)] = 0.0
            moved = ends - start
            if moved @ (gradient + 0.5 * self.times(moved)) + l1 @ np.abs(ends) < value:
                return ends
            length /= 2.0
        return here

    def _solved(self, right: Array, free: NDArray[np.bool_]) -> Array:
        """Return the solution by the rows and columns of the Hessian that are free, else zero.

        The formula is that of Sherman, Morrison and Woodbury.
        """
        part = self.rows * free
        core = np.diag(self.signs) + (part @ self.rows.T) / self.base
        inner = np.linalg.lstsq(core, part @ right / self.base)[0]
        solution: Array = (right - inner @ part) / self.base
        return solution
