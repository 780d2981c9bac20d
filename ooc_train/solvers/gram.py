"""Least squares in one pass: the Gram matrix, and the algebra on it.

`(A + diag(penalty)) V = B`, with A the products of centred, scaled columns and B those with the
outputs. Scaling keeps A's condition number near the least that any scaling of columns gives (van
der Sluis 1969), and centring by means known beforehand keeps it free of cancellation.

Where columns depend on one another and nothing penalises them, the answer of least norm in the
data's own units is returned, as `numpy.linalg.lstsq` does.
"""

from dataclasses import dataclass

import numpy as np

from ooc_train.models.linear import LinearProblem
from ooc_train.models.moments import GramSums, Moments
from ooc_train.models.sums import Array
from ooc_train.solvers.base import State, Stream


@dataclass(frozen=True)
class Gram:
    """Exact least squares, with or without an l2 penalty."""

    @property
    def slots(self) -> int:
        """Vectors of the size of `theta` that the solver holds beside it."""
        return 2

    def works(self, problem: LinearProblem) -> tuple[GramSums]:
        """Return what a pass adds up."""
        return (GramSums(problem.scaling, problem.n_outputs),)

    def start(self, problem: LinearProblem, stream: Stream, theta: Array) -> State:
        """Return the state to begin with."""
        del problem, stream
        return State(theta)

    def step(self, problem: LinearProblem, stream: Stream, state: State) -> State:
        """Return the solution."""
        del state
        (work,) = self.works(problem)
        sums = stream.reduce(work)
        moments = Moments.of(sums["gram"], problem.n_features)
        if problem.fit_intercept:
            products, cross, square = moments.covariance, moments.cross, moments.output_square
        else:
            products, cross, square = moments.second, moments.raw_cross, moments.raw_output_square
        weights = solve(products, cross, problem.penalty[:-1], problem.scaling.scale)
        intercept = np.zeros(problem.n_outputs)
        if problem.fit_intercept:
            intercept = moments.output_mean - moments.mean @ weights
        fitted = np.einsum("jk,jk->k", weights, products @ weights - 2.0 * cross)
        residual = np.maximum(square + fitted, 0.0).sum()
        return State(
            theta=np.column_stack([weights.T, intercept]),
            n_iter=1,
            updates=1,
            loss=0.5 * float(residual) / moments.weight,
            converged=True,
        )


def solve(products: Array, cross: Array, penalty: Array, scale: Array) -> Array:
    """Return V that solves `(products + diag(penalty)) V = cross`.

    Parameters
    ----------
    products : (features, features), symmetric and not negative
    cross : (features, outputs)
    penalty : (features,)
    scale : (features,), of the columns: where many V do, that of least norm of `V / scale`
    """
    if (penalty > 0).all():
        try:
            # Succeeds only where the matrix is positive definite to working precision.
            np.linalg.cholesky(products + np.diag(penalty))
        except np.linalg.LinAlgError:
            pass
        else:
            return np.asarray(np.linalg.solve(products + np.diag(penalty), cross), np.float64)
    values, vectors = np.linalg.eigh(products + np.diag(penalty))
    rank = values > values[-1] * len(values) * 10 * np.finfo(np.float64).eps
    kept, null = vectors[:, rank], vectors[:, ~rank] / scale[:, None]
    weights: Array = kept @ ((kept.T @ cross) / values[rank, None]) / scale[:, None]
    basis, _ = np.linalg.qr(null)
    return (weights - basis @ (basis.T @ weights)) * scale[:, None]
