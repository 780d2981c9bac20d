"""Least squares in one pass: the Gram matrix, and the algebra on it.

`(A + diag(penalty)) V = B`, with A the products of centred, scaled columns and B those with the
outputs. Scaling keeps A's condition number near the least that any scaling of columns gives (van
der Sluis 1969), and centring by means known beforehand keeps it free of cancellation.

A has the square of the columns' condition number: its rounding hides what rows of float64 still
hold. Where that number calls for it, refining passes follow. Each adds up the products of columns
in a basis in which they are nearly orthonormal, as Cholesky QR does (Fukaya et al. 2020), with the
residuals at the coefficients found so far, computed with more digits (Demmel et al. 2006).

Where columns depend on one another and nothing penalises them, the answer of least norm in the
data's own units is returned, as `numpy.linalg.lstsq` does. A direction counts as dependent where
the scaled columns' singular value is at most `10 features eps` of the largest, with eps of float64.
Rows of float32 hold less: there it is the root of that number, which one pass can tell.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.partitions import Rows
from ooc_train.core.requests import Reduce
from ooc_train.core.sums import Array, Reduction, Sums
from ooc_train.models.linear import LinearProblem
from ooc_train.models.moments import GramSums, Moments, ResidualSums
from ooc_train.models.problem import Capability
from ooc_train.objective.scaling import Scaling
from ooc_train.solvers.base import Holdings, Precision, State

_EPS = float(np.finfo(np.float64).eps)

_CONDITION = 1e6
"""Condition number of the products up to which one pass gives nine digits and more."""

_ENOUGH = 1e-12
"""Estimated error of the scaled coefficients at which no further pass refines them."""

_MOST_REFINING = 3
"""Refining passes at most."""

WIDEST = 1024
"""Columns up to which passes refine: the basis, a square matrix, travels with each task."""

_REFINING = "refining"
"""The phase after the solution by products of columns."""


@dataclass(frozen=True)
class Gram:
    """Exact least squares, with or without an l2 penalty."""

    name: ClassVar[str] = "gram"
    requires: ClassVar[frozenset[Capability]] = frozenset({"gram"})

    def holds(self, problem: LinearProblem, rows: Rows) -> Holdings:
        """Return what requests and states take."""
        del rows
        features, outputs = problem.n_features, problem.n_outputs
        reductions: tuple[Reduction, ...] = (GramSums(problem.scaling, outputs),)
        if features <= WIDEST:
            basis = np.broadcast_to(0.0, (features, features))
            coef = np.broadcast_to(0.0, (outputs, features))
            reductions += (ResidualSums(problem.scaling, basis, coef, coef[:, 0]),)
        return Holdings(reductions, sets=6, algebra=6 * 8 * (features + 1 + outputs) ** 2)

    def init(self, problem: LinearProblem, rows: Rows, params: Array) -> State:
        """Return the state to begin with."""
        del problem, rows
        return State(params)

    def ask(self, problem: LinearProblem, rows: Rows, state: State) -> Reduce:
        """Return the request for products of columns, or for residuals at the solution so far."""
        del rows
        if state.phase != _REFINING:
            return Reduce(GramSums(problem.scaling, problem.n_outputs))
        found = _Refined.of(problem, state)
        basis, _ = found.bases()
        return Reduce(ResidualSums(found.scaling, basis, found.coef, found.intercept))

    def tell(self, problem: LinearProblem, rows: Rows, state: State, answer: Sums) -> State:
        """Return the solution, or what the next pass refines."""
        if state.phase == _REFINING:
            return _Refined.of(problem, state).tell(problem, rows, state, answer)
        moments = Moments.of(answer["gram"], problem.n_features)
        if problem.fit_intercept:
            products, cross, square = moments.covariance, moments.cross, moments.output_square
        else:
            products, cross, square = moments.second, moments.raw_cross, moments.raw_output_square
        penalty, scale = problem.theta_penalty.l2[:-1], problem.scaling.scale
        definite = _is_definite(products, penalty)
        spectrum = None if definite else Spectrum.of(products, penalty)
        weights = solve(products, cross, penalty, scale, spectrum)
        intercept = np.zeros(problem.n_outputs)
        if problem.fit_intercept:
            intercept = moments.output_mean - moments.mean @ weights
        fitted = np.einsum("jk,jk->k", weights, products @ weights - 2.0 * cross)
        residual = np.maximum(square + fitted, 0.0).sum()
        found = State(
            params=np.column_stack([weights.T, intercept]),
            n_iter=1,
            updates=1,
            loss=0.5 * float(residual) / moments.weight,
            converged=True,
        )
        if spectrum is None:
            if problem.n_features > WIDEST:
                return found  # even the condition takes longer than the solution
            condition = float(np.linalg.cond(products + np.diag(penalty), 1))
            if condition <= _CONDITION:
                digits = _digits(_EPS * condition)
                return replace(
                    found, precision=Precision(condition**0.5, problem.n_features, digits)
                )
            spectrum = Spectrum.of(products, penalty)
        precision = spectrum.precision()
        # Columns that never vary are known to hold nothing.
        mean = problem.scaling.mean / scale
        idle = np.diagonal(products) <= moments.weight * (10 * _EPS * mean) ** 2
        unresolved = int(np.count_nonzero(~spectrum.kept)) - int(np.count_nonzero(idle))
        hidden = unresolved > 0 and rows.dtype == "<f8"
        if not hidden and precision.condition**2 <= _CONDITION:
            return replace(found, precision=precision)
        if problem.n_features > WIDEST:
            note = (
                f"the coefficients have about {precision.digits:.0f} digits: the columns depend on "
                f"one another; up to {WIDEST:,} of them would be refined"
            )
            return replace(found, precision=precision, note=note)
        centre = problem.scaling.mean
        if problem.fit_intercept:
            centre = centre + scale * moments.mean
        coef, intercept = problem.scaling.to_data_units(found.params)
        refined = _Refined(
            Scaling(centre, scale), spectrum, coef, intercept, 1.0 if hidden else spectrum.error
        )
        return refined.state(found)


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Singular values of scaled columns, penalty included, as far as they are known.

    Attributes
    ----------
    squares : of the singular values, (features,)
    vectors : (features, features), of which each column belongs to a value
    least : share of the largest square up to which a direction counts as dependent on others
    error : estimated relative error of the coefficients
    """

    squares: Array
    vectors: Array
    least: float
    error: float = 1.0

    @classmethod
    def of(cls, products: Array, penalty: Array) -> "Spectrum":
        """Return what the products of columns tell."""
        squares, vectors = np.linalg.eigh(products + np.diag(penalty))
        found = cls(squares, vectors, _dependent(len(squares)))
        return replace(found, error=min(1.0, _EPS * found.condition**2))

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Which directions the columns determine."""
        kept: NDArray[np.bool_] = self.squares > self.squares.max() * self.least
        return kept

    @property
    def condition(self) -> float:
        """Condition number of the columns, along the directions kept."""
        kept = self.squares[self.kept]
        return float(np.sqrt(kept.max() / kept.min())) if len(kept) else 1.0

    @property
    def lengths(self) -> Array:
        """Singular values, none below what can be told from zero."""
        lengths: Array = np.sqrt(np.maximum(self.squares, self.squares.max() * self.least))
        return np.where(lengths > 0.0, lengths, 1.0)

    def precision(self) -> Precision:
        """Return condition, rank and digits, for the report."""
        rank = int(np.count_nonzero(self.kept))
        return Precision(self.condition, rank, _digits(self.error))


def _digits(error: float) -> float:
    """Return how many decimal digits a relative error leaves."""
    return float(-np.log10(max(error, _EPS)))


def _dependent(features: int) -> float:
    """Return the share of the largest singular value up to which columns of float64 depend."""
    return features * 10 * _EPS


def _is_definite(products: Array, penalty: Array) -> bool:
    """Whether the penalty makes the matrix positive definite to working precision."""
    if not (penalty > 0).all():
        return False
    try:
        np.linalg.cholesky(products + np.diag(penalty))
    except np.linalg.LinAlgError:
        return False
    return True


def solve(
    products: Array, cross: Array, penalty: Array, scale: Array, spectrum: Spectrum | None = None
) -> Array:
    """Return V that solves `(products + diag(penalty)) V = cross`.

    Parameters
    ----------
    products : (features, features), symmetric and not negative
    cross : (features, outputs)
    penalty : (features,)
    scale : (features,), of the columns: where many V do, that of least norm of `V / scale`
    spectrum : of the matrix, or None where it is positive definite
    """
    if spectrum is None:
        return np.asarray(np.linalg.solve(products + np.diag(penalty), cross), np.float64)
    kept = spectrum.kept
    vectors, squares = spectrum.vectors[:, kept], spectrum.squares[kept]
    weights: Array = vectors @ ((vectors.T @ cross) / squares[:, None])
    return _of_least_norm(weights / scale[:, None], spectrum, scale) * scale[:, None]


def _of_least_norm(coef: Array, spectrum: Spectrum, scale: Array) -> Array:
    """Return coefficients (features, outputs) less what they have of directions not kept."""
    null = spectrum.vectors[:, ~spectrum.kept] / scale[:, None]
    basis, _ = np.linalg.qr(null)
    least: Array = coef - basis @ (basis.T @ coef)
    return least


@dataclass(frozen=True, eq=False)
class _Refined:
    """A solution that further passes refine.

    Attributes
    ----------
    scaling : of the columns, by the means of all rows
    spectrum : of the columns, as far as it is known
    coef, intercept : the solution so far, in the data's units
    error : estimated relative error of the coefficients; 1 where rows may hold directions that the
        products of columns did not
    passes : refining passes so far
    """

    scaling: Scaling
    spectrum: "Spectrum"
    coef: Array
    intercept: Array
    error: float
    passes: int = 0

    @classmethod
    def of(cls, problem: LinearProblem, state: State) -> "_Refined":
        """Return the solution that a state remembers."""
        memory = dict(state.memory)
        scaling = Scaling(memory.pop("centre"), problem.scaling.scale)
        spectrum = Spectrum(
            memory.pop("squares"), memory.pop("vectors"), memory.pop("least"), memory["error"]
        )
        return cls(scaling, spectrum, **memory)

    def state(self, found: State) -> State:
        """Return the state that remembers this solution, and asks for another pass."""
        memory = {
            "centre": self.scaling.mean,
            "squares": self.spectrum.squares,
            "vectors": self.spectrum.vectors,
            "least": self.spectrum.least,
            "coef": self.coef,
            "intercept": self.intercept,
            "error": self.error,
            "passes": self.passes,
        }
        return replace(found, phase=_REFINING, memory=memory)

    def bases(self) -> tuple[Array, Array]:
        """Return the basis in which the columns are nearly orthonormal, and its inverse."""
        spectrum = self.spectrum
        return spectrum.vectors / spectrum.lengths, (spectrum.vectors * spectrum.lengths).T

    def tell(self, problem: LinearProblem, rows: Rows, state: State, answer: Sums) -> State:
        """Return the state after a pass over the residuals."""
        scale, features = self.scaling.scale, problem.n_features
        penalty = problem.theta_penalty.l2[:-1]
        _, inverse = self.bases()
        moments = Moments.of(answer["gram"], features)
        products, cross, square = moments.covariance, moments.cross, moments.output_square
        if not problem.fit_intercept:
            products, cross, square = moments.second, moments.raw_cross, moments.raw_output_square
        root, target = _root(products, cross)
        least = _dependent(features) ** (2 if rows.dtype == "<f8" else 1)
        triangle, target = _without_rounding(root @ inverse, target, least)
        stacked = np.vstack([triangle, np.diag(np.sqrt(penalty))])
        right = np.vstack([target, -np.sqrt(penalty)[:, None] * (self.coef * scale).T])
        left, values, turned = np.linalg.svd(stacked, full_matrices=False)
        spectrum = Spectrum(values**2, turned.T, least)
        kept = spectrum.kept
        step = turned[kept].T @ ((left[:, kept].T @ right) / values[kept, None])
        coef = _of_least_norm(self.coef.T + step / scale[:, None], spectrum, scale).T
        change = (coef - self.coef) * scale
        intercept = self.intercept
        if problem.fit_intercept:
            mean = moments.mean @ inverse
            intercept = intercept + moments.output_mean - change @ mean
            intercept = intercept - (coef - self.coef) @ self.scaling.mean
        fitted = triangle @ change.T
        residual = square + np.einsum("jk,jk->k", fitted, fitted - 2.0 * target)
        passes = self.passes + 1
        error = min(1.0, self.error * min(1.0, _EPS * spectrum.condition * features**0.5))
        if error > _ENOUGH and passes < _MOST_REFINING:
            return _Refined(self.scaling, spectrum, coef, intercept, error, passes).state(state)
        return replace(
            state,
            phase="",
            memory={},
            params=problem.scaling.from_data_units(coef, intercept),
            loss=0.5 * float(np.maximum(residual, 0.0).sum()) / moments.weight,
            precision=replace(spectrum, error=error).precision(),
            note=f"columns nearly depend on one another: refined by {passes} more "
            + ("pass" if passes == 1 else "passes"),
        )


def _without_rounding(triangle: Array, target: Array, least: float) -> tuple[Array, Array]:
    """Return the triangle and its target, rotated, less what is rounding of dependent columns.

    Beside a small penalty, rounding would decide what the penalty is to decide.
    """
    left, values, right = np.linalg.svd(triangle)
    values = np.where(values**2 > values.max() ** 2 * least, values, 0.0)
    rotated: Array = np.where(values > 0.0, 1.0, 0.0)[:, None] * (left.T @ target)
    return values[:, None] * right, rotated


def _root(products: Array, cross: Array) -> tuple[Array, Array]:
    """Return R and T of `R.T @ R = products` and `R.T @ T = cross`, rounding to scale."""
    norms = np.sqrt(np.diagonal(products))
    norms = np.where(norms > 0.0, norms, 1.0)
    squares, vectors = np.linalg.eigh(products / np.outer(norms, norms))
    lengths = np.sqrt(np.maximum(squares, 0.0))
    told = squares > squares.max() * len(squares) * _EPS
    target = (vectors.T @ (cross / norms[:, None])) / np.where(told, lengths, np.inf)[:, None]
    return lengths[:, None] * vectors.T * norms, target
