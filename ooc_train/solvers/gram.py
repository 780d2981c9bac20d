"""Least squares in one pass: the Gram matrix of the scaled columns, and its solution.

`(A + diag(penalty)) V = B`: A holds the products of centred, scaled columns, and B the products of
columns and outputs. The scaling keeps the condition number of A near the lowest that any scaling
gives (van der Sluis 1969). Centring by means that are known beforehand avoids cancellation.

The condition number of A is the square of that of the columns, so rounding in A hides digits that
float64 rows still hold. If A is badly conditioned, refining passes follow. A refining pass adds up
products of columns in a basis in which they are nearly orthonormal, as Cholesky QR does (Fukaya et
al. 2020). It also adds up the residuals at the current coefficients, computed with more digits
(Demmel et al. 2006).

A direction counts as undetermined where the scaled columns' singular value is at most
`10 features eps` of the largest, with eps of float64. Rows of float32 hold fewer digits: there the
limit is the root of that number, which one pass can resolve. `least_squares.py` has the algebra.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.partitions import Rows
from ooc_train.core.requests import Reduce
from ooc_train.core.sums import Array, Reduction, Sums
from ooc_train.core.text import counted
from ooc_train.models.gram_sums import Moments
from ooc_train.models.linear import LinearProblem
from ooc_train.models.problem import Capability
from ooc_train.objective.scaling import Scaling
from ooc_train.solvers.base import Holdings, Precision, State
from ooc_train.solvers.least_squares import (
    EPS,
    Spectrum,
    decimal_digits,
    dependence_threshold,
    is_definite,
    root_of,
    solve,
    solve_each,
    with_least_norm,
    without_rounding,
)

_MAX_CONDITION = 1e6
"""Condition number of the products up to which one pass gives at least nine digits."""

_TARGET_ERROR = 1e-12
"""Estimated error of the scaled coefficients at which refining ends."""

_MAX_REFINING = 3
"""Limit of refining passes."""

MAX_REFINED_FEATURES = 1024
"""Limit of columns for refining passes, whose tasks each carry a square matrix of them."""

_REFINING = "refining"
"""Phase in which the next answer refines the solution."""


@dataclass(frozen=True)
class Gram:
    """The solver of least squares, with or without an l2 penalty, by its normal equations."""

    name: ClassVar[str] = "gram"
    requires: ClassVar[frozenset[Capability]] = frozenset({"gram", "smooth"})

    def holds(self, problem: LinearProblem, rows: Rows) -> Holdings:
        """Return the memory that requests and states need, for the plan."""
        del rows
        features, outputs = problem.n_features, problem.n_outputs
        reductions: tuple[Reduction, ...] = (problem.gram_sums(),)
        if features <= MAX_REFINED_FEATURES:
            basis = np.broadcast_to(0.0, (features, features))
            coef = np.broadcast_to(0.0, (outputs, features))
            reductions += (problem.residual_sums(problem.scaling, basis, coef, coef[:, 0]),)
        return Holdings(reductions, sets=6, algebra=6 * 8 * (features + 1 + outputs) ** 2)

    def init(self, problem: LinearProblem, rows: Rows, params: Array) -> State:
        """Return the initial state, at the parameters `params`."""
        del problem, rows
        return State(params)

    def ask(self, problem: LinearProblem, rows: Rows, state: State) -> Reduce:
        """Return the request for products of columns, or for residuals at the current solution."""
        del rows
        if state.phase != _REFINING:
            return Reduce(problem.gram_sums())
        current = _Refinement.of(problem, state)
        basis, _ = current.bases()
        return Reduce(
            problem.residual_sums(current.scaling, basis, current.coef, current.intercept)
        )

    def tell(self, problem: LinearProblem, rows: Rows, state: State, answer: Sums) -> State:
        """Return the state at the solution, or a state that asks for a refining pass."""
        if state.phase == _REFINING:
            return _Refinement.of(problem, state).tell(problem, rows, state, answer)
        moments = Moments.of(answer["gram"], problem.n_features, problem.n_outputs)
        products, cross, square = normal_equations(problem, moments)
        penalty, scale = problem.theta_penalty.l2[..., :-1], problem.scaling.scale
        spectrum = None
        if penalty.ndim == 2:
            weights = solve_each(products, cross, penalty, scale)
        else:
            definite = is_definite(products, penalty)
            spectrum = None if definite else Spectrum.of(products, penalty)
            weights = solve(products, cross, penalty, scale, spectrum)
        intercept = np.zeros(problem.n_outputs)
        if problem.fit_intercept:
            intercept = moments.output_mean - moments.mean @ weights
        fitted = np.einsum("jk,jk->k", weights, products @ weights - 2.0 * cross)
        residual = np.maximum(square + fitted, 0.0).sum()
        solution = State(
            params=np.column_stack([weights.T, intercept]),
            n_iter=1,
            updates=1,
            loss=0.5 * float(residual) / moments.weight,
            converged=True,
        )
        # A constant column leaves a direction undetermined that no pass can refine.
        constant = constant_columns(problem.scaling, products, moments.weight)
        if penalty.ndim == 2:
            return _with_precision_of_each(solution, products, penalty, constant)
        if spectrum is None:
            if problem.n_features > MAX_REFINED_FEATURES:
                return solution  # computing the condition would take longer than the solution
            condition = float(np.linalg.cond(products + np.diag(penalty), 1))
            if condition <= _MAX_CONDITION:
                digits = decimal_digits(EPS * condition)
                return replace(
                    solution, precision=Precision(condition**0.5, problem.n_features, digits)
                )
            spectrum = Spectrum.of(products, penalty)
        precision = spectrum.precision()
        unresolved = int(np.count_nonzero(~spectrum.kept)) - int(np.count_nonzero(constant))
        may_resolve_more = unresolved > 0 and rows.dtype == "<f8"
        if not may_resolve_more and precision.condition**2 <= _MAX_CONDITION:
            return replace(solution, precision=precision)
        if problem.n_features > MAX_REFINED_FEATURES:
            note = (
                f"the coefficients have about {counted(precision.digits, 'digit', '.0f')}: the "
                "columns depend on "
                f"one another; up to {MAX_REFINED_FEATURES:,} of them would be refined"
            )
            return replace(solution, precision=precision, note=note)
        centre = problem.scaling.mean
        if problem.fit_intercept:
            centre = centre + scale * moments.mean
        coef, intercept = problem.scaling.to_data_units(solution.params)
        error = 1.0 if may_resolve_more else spectrum.error
        return _Refinement(Scaling(centre, scale), spectrum, coef, intercept, error).state(solution)


def _with_precision_of_each(
    solution: State, products: Array, penalties: Array, constant: NDArray[np.bool_]
) -> State:
    """Return the solution by a penalty for each output, with the precision of the worst.

    No pass refines it: each output would need a basis of its own.
    """
    if len(products) > MAX_REFINED_FEATURES:
        return solution  # computing the conditions would take longer than the solution
    spectra = [Spectrum.of(products, penalty) for penalty in np.unique(penalties, axis=0)]
    precision = min(
        (each.precision() for each in spectra), key=lambda each: (each.rank, each.digits)
    )
    solution = replace(solution, precision=precision)
    unresolved = max(np.count_nonzero(~each.kept) for each in spectra)
    if precision.condition**2 <= _MAX_CONDITION and unresolved <= np.count_nonzero(constant):
        return solution
    note = (
        "the columns depend on one another: a fit with one alpha for all outputs would be refined"
    )
    return replace(solution, note=note)


def normal_equations(problem: LinearProblem, moments: Moments) -> tuple[Array, Array, Array]:
    """Return products of columns, of columns and outputs, and squares of outputs.

    All are centred where the model has an intercept.
    """
    if problem.fit_intercept:
        return moments.covariance, moments.cross, moments.output_square
    return moments.second, moments.raw_cross, moments.raw_output_square


def constant_columns(scaling: Scaling, products: Array, weight: float) -> NDArray[np.bool_]:
    """Return whether each column varies by no more than rounding, (features,).

    Parameters
    ----------
    scaling : Scaling
        Scaling of the columns.
    products : float64 array (features, features)
        Products of scaled columns, from `normal_equations`.
    weight : float
        Sum of the rows' weights.
    """
    mean = scaling.mean / scaling.scale
    constant: NDArray[np.bool_] = np.diagonal(products) <= weight * (10 * EPS * mean) ** 2
    return constant


@dataclass(frozen=True, eq=False)
class _Refinement:
    """A solution that further passes refine.

    Attributes
    ----------
    scaling : Scaling
        Scaling of the columns, by the means of all rows.
    spectrum : Spectrum
        Singular values of the columns, by the passes so far.
    coef, intercept : float64 array (outputs, features), float64 array (outputs,)
        The current solution, in the data's units.
    error : float
        Estimated relative error of the coefficients; 1 where rows may determine directions that
        the products of columns leave undetermined.
    passes : int
        Number of refining passes done.
    """

    scaling: Scaling
    spectrum: Spectrum
    coef: Array
    intercept: Array
    error: float
    passes: int = 0

    @classmethod
    def of(cls, problem: LinearProblem, state: State) -> "_Refinement":
        """Return the solution that a solver's state holds."""
        memory = dict(state.memory)
        scaling = Scaling(memory.pop("centre"), problem.scaling.scale)
        spectrum = Spectrum(
            memory.pop("squares"), memory.pop("vectors"), memory.pop("threshold"), memory["error"]
        )
        return cls(scaling, spectrum, **memory)

    def state(self, solution: State) -> State:
        """Return the solver's state that holds this solution and asks for another pass."""
        memory = {
            "centre": self.scaling.mean,
            "squares": self.spectrum.squares,
            "vectors": self.spectrum.vectors,
            "threshold": self.spectrum.threshold,
            "coef": self.coef,
            "intercept": self.intercept,
            "error": self.error,
            "passes": self.passes,
        }
        return replace(solution, phase=_REFINING, memory=memory)

    def bases(self) -> tuple[Array, Array]:
        """Return the basis in which the columns are nearly orthonormal, and its inverse."""
        spectrum = self.spectrum
        return spectrum.vectors / spectrum.lengths, (spectrum.vectors * spectrum.lengths).T

    def tell(self, problem: LinearProblem, rows: Rows, state: State, answer: Sums) -> State:
        """Return the state after a refining pass."""
        scale, features = self.scaling.scale, problem.n_features
        penalty = problem.theta_penalty.l2[:-1]
        _, inverse = self.bases()
        moments = Moments.of(answer["gram"], features, problem.n_outputs)
        products, cross, square = normal_equations(problem, moments)
        root, target = root_of(products, cross)
        threshold = dependence_threshold(features) ** (2 if rows.dtype == "<f8" else 1)
        root, target = without_rounding(root @ inverse, target, threshold)
        stacked = np.vstack([root, np.diag(np.sqrt(penalty))])
        right = np.vstack([target, -np.sqrt(penalty)[:, None] * (self.coef * scale).T])
        left, values, right_vectors = np.linalg.svd(stacked, full_matrices=False)
        spectrum = Spectrum(values**2, right_vectors.T, threshold)
        kept = spectrum.kept
        step = right_vectors[kept].T @ ((left[:, kept].T @ right) / values[kept, None])
        coef = with_least_norm(self.coef.T + step / scale[:, None], spectrum, scale).T
        change = (coef - self.coef) * scale
        intercept = self.intercept
        if problem.fit_intercept:
            mean = moments.mean @ inverse
            intercept = intercept + moments.output_mean - change @ mean
            intercept = intercept - (coef - self.coef) @ self.scaling.mean
        fitted = root @ change.T
        residual = square + np.einsum("jk,jk->k", fitted, fitted - 2.0 * target)
        passes = self.passes + 1
        error = min(1.0, self.error * min(1.0, EPS * spectrum.condition * features**0.5))
        if error > _TARGET_ERROR and passes < _MAX_REFINING:
            return _Refinement(self.scaling, spectrum, coef, intercept, error, passes).state(state)
        return replace(
            state,
            phase="",
            memory={},
            params=problem.scaling.from_data_units(coef, intercept),
            loss=0.5 * float(np.maximum(residual, 0.0).sum()) / moments.weight,
            precision=replace(spectrum, error=error).precision(),
            note="columns nearly depend on one another: refined by " + counted(passes, "more pass"),
        )
