"""Least squares with an elastic-net penalty: coordinate descent on the Gram matrix, in one pass.

The pass adds up products of all pairs of scaled columns (`gram.py`); `elastic_net.py` has the
descent. Several outputs are solved one by one. Without an l1 penalty, the solution is that of
`least_squares.py`.
"""

from dataclasses import dataclass
from math import inf
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.partitions import Rows
from ooc_train.core.requests import Reduce
from ooc_train.core.sums import Array, Sums
from ooc_train.models.gram_sums import Moments
from ooc_train.models.linear import LinearProblem
from ooc_train.models.problem import Capability
from ooc_train.solvers.base import Holdings, Precision, State
from ooc_train.solvers.elastic_net import Descent, NonNegative
from ooc_train.solvers.gram import MAX_REFINED_FEATURES, constant_columns, normal_equations
from ooc_train.solvers.least_squares import (
    EPS,
    decimal_digits,
    dependence_threshold,
    solve_each,
)


@dataclass(frozen=True)
class CoordinateDescent:
    """The solver of least squares with an l1 and an l2 penalty.

    Attributes
    ----------
    tol : float
        Duality gap at which sweeps end, as a share of the sum of squares of y.
    max_iter : float
        Limit of sweeps.
    """

    tol: float
    max_iter: float = inf

    name: ClassVar[str] = "coordinate-descent"
    requires: ClassVar[frozenset[Capability]] = frozenset({"gram"})

    def holds(self, problem: LinearProblem, rows: Rows) -> Holdings:
        """Return the memory that requests and states need, for the plan."""
        del rows
        features, outputs = problem.n_features, problem.n_outputs
        algebra = 7 * 8 * (features + 1 + outputs) ** 2
        return Holdings((problem.gram_sums(),), sets=6, algebra=algebra)

    def init(self, problem: LinearProblem, rows: Rows, params: Array) -> State:
        """Return the initial state, at the parameters `params`."""
        del problem, rows
        return State(params)

    def ask(self, problem: LinearProblem, rows: Rows, state: State) -> Reduce:
        """Return the request for the products of all pairs of columns."""
        del rows, state
        return Reduce(problem.gram_sums())

    def tell(self, problem: LinearProblem, rows: Rows, state: State, answer: Sums) -> State:
        """Return the state at the solution."""
        del rows
        moments = Moments.of(answer["gram"], problem.n_features, problem.n_outputs)
        equations = Equations.of(problem, moments)
        l1, l2 = problem.theta_penalty.l1[:-1], problem.theta_penalty.l2[..., :-1]
        l2 = np.broadcast_to(l2, (problem.n_outputs, problem.n_features))
        found = equations.minimum(
            l1,
            l2,
            state.params[:, :-1],
            self.tol,
            self.max_iter,
            positive=problem.penalty.positive,
        )
        return State(
            params=equations.with_constant(found.weights),
            n_iter=found.n_iter,
            updates=found.n_iter,
            loss=equations.loss(found.weights),
            converged=not found.stalled,
            stalled=found.stalled,
            precision=equations.precision(found.weights, l2),
            dual_gap=None if np.isnan(found.gap).any() else found.gap / equations.weight,
        )


@dataclass(frozen=True, eq=False)
class Minimum:
    """The result of coordinate descent.

    Attributes
    ----------
    weights : float64 array (outputs, features)
        Weights of the scaled columns.
    gap : float64 array (outputs,)
        Duality gap of the objective, which is a sum over rows. NaN of non-negative least squares
        without l1.
    n_iter : int
        Number of sweeps; of several outputs, the largest.
    stalled : str
        Why the tolerance was not reached; empty if it was.
    """

    weights: Array
    gap: Array
    n_iter: int
    stalled: str


@dataclass(frozen=True, eq=False)
class Equations:
    """The normal equations of least squares.

    Attributes
    ----------
    products : float64 array (features, features)
        Products of scaled columns.
    cross : float64 array (features, outputs)
        Products of scaled columns and outputs.
    square : float64 array (outputs,)
        Sums of squares of the outputs.
    varies : bool array (features,)
        Whether a column varies by more than rounding. The weights of others are zero.
    scale : float64 array (features,)
        Scales of the columns.
    mean, output_mean : float64 array (features,), float64 array (outputs,)
        Means of scaled columns and outputs; zeros without an intercept.
    weight : float
        Sum of the rows' weights.
    """

    products: Array
    cross: Array
    square: Array
    varies: NDArray[np.bool_]
    scale: Array
    mean: Array
    output_mean: Array
    weight: float

    @classmethod
    def of(cls, problem: LinearProblem, moments: Moments) -> "Equations":
        """Make the equations of a problem from the moments of its rows."""
        products, cross, square = normal_equations(problem, moments)
        centred = float(problem.fit_intercept)
        return cls(
            products,
            cross,
            np.maximum(square, 0.0),
            ~constant_columns(problem.scaling, products, moments.weight),
            problem.scaling.scale,
            centred * moments.mean,
            centred * moments.output_mean,
            moments.weight,
        )

    def with_constant(self, weights: Array) -> Array:
        """Return weights (outputs, features) with the best constants: (outputs, features + 1)."""
        return np.column_stack([weights, self.output_mean - weights @ self.mean])

    def loss(self, weights: Array) -> float:
        """Return the mean loss of a row, by weight."""
        slopes = self.cross.T - weights @ self.products
        fitted = np.einsum("kj,kj->k", weights, self.cross.T + slopes)
        return 0.5 * float(np.maximum(self.square - fitted, 0.0).sum()) / self.weight

    def minimum(
        self,
        l1: Array,
        l2: Array,
        start: Array,
        tol: float,
        max_iter: float,
        *,
        positive: bool = False,
    ) -> Minimum:
        """Return the minimum of the objective under a penalty on each column.

        Parameters
        ----------
        l1 : float64 array (features,)
        l2 : float64 array (outputs, features)
            The penalty on each column.
        start : float64 array (outputs, features)
            Weights to begin from.
        tol, max_iter : float
            As of `CoordinateDescent`.
        positive : bool
            Whether weights below 0 are forbidden.
        """
        if not l1.any():
            if positive:
                return self._non_negative_minimum(l2, start, tol, max_iter)
            return self._smooth_minimum(l2)
        descents = [
            Descent(
                self.products,
                self.cross[:, k],
                float(self.square[k]),
                self.varies,
                l1,
                l2[k],
                start[k],
                tol,
                positive=positive,
            )
            for k in range(len(start))
        ]
        causes = [each.run(max_iter, self.weight) for each in descents]
        return Minimum(
            np.array([each.weights for each in descents]),
            np.array([each.gap for each in descents]),
            max(each.n_iter for each in descents),
            next(filter(None, causes), ""),
        )

    def _non_negative_minimum(
        self, l2: Array, start: Array, tol: float, max_iter: float
    ) -> Minimum:
        """Return the minimum without l1 whose weights are at least 0."""
        # A y that never varies is rounded as its mean is.
        rounding = self.weight * (10 * EPS * self.output_mean) ** 2
        squares = np.maximum(self.square, rounding).tolist()
        descents = [
            NonNegative(self.products, self.cross[:, k], squares[k], self.varies, l2[k], first, tol)
            for k, first in enumerate(start)
        ]
        causes = [each.run(max_iter) for each in descents]
        return Minimum(
            np.array([each.weights for each in descents]),
            np.full(len(start), np.nan),
            max(each.n_iter for each in descents),
            next(filter(None, causes), ""),
        )

    def _smooth_minimum(self, l2: Array) -> Minimum:
        """Return the minimum without l1; the gap is that to the minimum of the quadratic."""
        weights = solve_each(self.products, self.cross, l2, self.scale)
        left = self.cross - self.products @ weights - l2.T * weights
        gap = 0.5 * (left * solve_each(self.products, left, l2, self.scale)).sum(axis=0)
        return Minimum(weights.T, np.abs(gap), 1, "")

    def precision(self, weights: Array, l2: Array) -> Precision | None:
        """Return how well rows determine the weights that are not zero.

        Of several outputs, that with the fewest digits. None if all weights are zero, or if so many
        are not that computing the condition would take longer than the solution.
        """
        found = [
            self._precision_of(np.flatnonzero(row), penalty)
            for row, penalty in zip(weights, l2, strict=True)
        ]
        return min(filter(None, found), key=lambda each: each.digits, default=None)

    def _precision_of(self, active: NDArray[np.intp], l2: Array) -> Precision | None:
        if not 0 < len(active) <= MAX_REFINED_FEATURES:
            return None
        root = 1.0 / np.sqrt(np.diagonal(self.products)[active] + l2[active])
        matrix = self.products[np.ix_(active, active)] + np.diag(l2[active])
        squares = np.linalg.eigvalsh(matrix * np.outer(root, root))
        kept = squares[squares > dependence_threshold(len(active)) * squares[-1]]
        condition = float(kept[-1] / kept[0])
        return Precision(condition**0.5, len(kept), decimal_digits(EPS * condition))
