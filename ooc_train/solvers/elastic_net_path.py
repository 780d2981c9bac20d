"""A path of elastic nets: coefficients at many strengths of the penalty, by one Gram matrix.

Strengths fall, and each descent begins at the weights of the strength before it (Friedman, Hastie
and Tibshirani 2010).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ooc_train.core.partitions import Rows
from ooc_train.core.sums import Array, Sums
from ooc_train.models.gram_sums import Moments
from ooc_train.models.linear import LinearProblem
from ooc_train.solvers.base import Holdings, State
from ooc_train.solvers.coordinate_descent import CoordinateDescent, Equations

_LEAST_ALPHA = float(np.finfo(np.float64).resolution)
"""The alphas of a grid whose largest is no more than this, as in scikit-learn."""


@dataclass(frozen=True)
class ElasticNetPath(CoordinateDescent):
    """Coordinate descent at each of many strengths, from the solution of the one before.

    The last state holds the path in `memory`: "alphas", "coef" (outputs, features, alphas),
    "intercept" (outputs, alphas), "dual_gap" and "n_iter" (alphas,), and "unmet": how many alphas
    missed the tolerance.

    Attributes
    ----------
    alphas : int or sequence of float
        Factors of the problem's penalty, in descending order; or how many of them. These are evenly
        spaced in the logarithm, from the least at which all weights are zero.
    eps : float
        Smallest alpha as a share of the largest, if `alphas` is their number.
    """

    alphas: int | Sequence[float] = 100
    eps: float = 1e-3

    @property
    def n_alphas(self) -> int:
        """Number of alphas on the path."""
        return self.alphas if isinstance(self.alphas, int) else len(self.alphas)

    def holds(self, problem: LinearProblem, rows: Rows) -> Holdings:
        """Return the memory that requests and states need, for the plan."""
        holdings = super().holds(problem, rows)
        return replace(holdings, sets=holdings.sets + 2 * self.n_alphas)

    def tell(self, problem: LinearProblem, rows: Rows, state: State, answer: Sums) -> State:
        """Return the state whose memory holds the path."""
        del rows
        moments = Moments.of(answer["gram"], problem.n_features, problem.n_outputs)
        equations = Equations.of(problem, moments)
        alphas = self._grid(problem, equations)
        l1, l2 = problem.theta_penalty.l1[:-1], problem.theta_penalty.l2[:-1]
        l2 = np.broadcast_to(l2, (problem.n_outputs, problem.n_features))
        theta = state.params
        coefs, intercepts, gaps, sweeps, unmet = [], [], [], [], dict[str, None]()
        for alpha in alphas.tolist():
            found = equations.minimum(
                alpha * l1,
                alpha * l2,
                theta[:, :-1],
                self.tol,
                self.max_iter,
                positive=problem.penalty.positive,
            )
            theta = equations.with_constant(found.weights)
            coef, intercept = problem.scaling.to_data_units(theta)
            coefs.append(coef)
            intercepts.append(intercept)
            gaps.append(found.gap.max() / equations.weight)
            sweeps.append(found.n_iter)
            if found.stalled:
                unmet[f"alpha={alpha:.3g}: {found.stalled}"] = None
        return State(
            params=theta,
            n_iter=sum(sweeps),
            updates=sum(sweeps),
            loss=equations.loss(theta[:, :-1]),
            converged=not unmet,
            stalled=next(iter(unmet), ""),
            memory={
                "alphas": alphas,
                "coef": np.stack(coefs, axis=-1),
                "intercept": np.stack(intercepts, axis=-1),
                "dual_gap": np.array(gaps),
                "n_iter": np.array(sweeps),
                "unmet": len(unmet),
            },
        )

    def _grid(self, problem: LinearProblem, equations: Equations) -> Array:
        if not isinstance(self.alphas, int):
            return np.array(self.alphas, np.float64)
        slopes = (equations.cross * equations.scale[:, None])[equations.varies]
        if not problem.penalty.positive:
            slopes = np.abs(slopes)
        largest = float(slopes.max(initial=0.0)) / problem.penalty.l1
        if largest <= _LEAST_ALPHA:
            return np.full(self.alphas, _LEAST_ALPHA)
        return np.geomspace(largest, largest * self.eps, self.alphas)
