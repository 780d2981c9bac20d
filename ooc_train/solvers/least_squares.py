"""Algebra of least squares: solutions by products of columns, and which directions they determine.

Columns that depend on one another leave some directions undetermined. Where no penalty decides, the
solution of least norm in the data's units is returned, as `numpy.linalg.lstsq` does.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import Array
from ooc_train.solvers.base import Precision

EPS = float(np.finfo(np.float64).eps)
"""Distance from 1 to the next number of float64."""


def dependence_threshold(features: int) -> float:
    """Return the share of the largest singular value up to which a direction is undetermined."""
    return features * 10 * EPS


def decimal_digits(error: float) -> float:
    """Return how many decimal digits are right, given a relative error."""
    return float(-np.log10(max(error, EPS)))


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Singular values of the scaled columns, penalty included.

    Attributes
    ----------
    squares : float64 array (features,)
        Squares of the singular values.
    vectors : float64 array (features, features)
        Right singular vectors, one a column.
    threshold : float
        Share of the largest square up to which a direction is undetermined.
    error : float
        Estimated relative error of the coefficients.
    """

    squares: Array
    vectors: Array
    threshold: float
    error: float = 1.0

    @classmethod
    def of(cls, products: Array, penalty: Array) -> "Spectrum":
        """Make the spectrum from products of columns, (features, features), and the penalty."""
        squares, vectors = np.linalg.eigh(products + np.diag(penalty))
        spectrum = cls(squares, vectors, dependence_threshold(len(squares)))
        return replace(spectrum, error=min(1.0, EPS * spectrum.condition**2))

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Whether the columns determine each direction, (features,)."""
        kept: NDArray[np.bool_] = self.squares > self.squares.max() * self.threshold
        return kept

    @property
    def condition(self) -> float:
        """Condition number of the columns, along the directions kept."""
        kept = self.squares[self.kept]
        return float(np.sqrt(kept.max() / kept.min())) if len(kept) else 1.0

    @property
    def lengths(self) -> Array:
        """Singular values, at least the root of the threshold, (features,)."""
        lengths: Array = np.sqrt(np.maximum(self.squares, self.squares.max() * self.threshold))
        return np.where(lengths > 0.0, lengths, 1.0)

    def precision(self) -> Precision:
        """Return condition, rank and digits, for the report."""
        rank = int(np.count_nonzero(self.kept))
        return Precision(self.condition, rank, decimal_digits(self.error))


def is_definite(products: Array, penalty: Array) -> bool:
    """Return whether the penalty makes the matrix positive definite to working precision."""
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
    """Return V that solves `(products + diag(penalty)) V = cross`, (features, outputs).

    Parameters
    ----------
    products : float64 array (features, features)
        A symmetric matrix without negative eigenvalues.
    cross : float64 array (features, outputs)
        The right-hand sides.
    penalty : float64 array (features,)
        The l2 penalty of each column.
    scale : float64 array (features,)
        Scales of the columns. Of several solutions, `V / scale` has the least norm.
    spectrum : Spectrum or None
        Singular values of the matrix; None where the matrix is positive definite.
    """
    if spectrum is None:
        return np.asarray(np.linalg.solve(products + np.diag(penalty), cross), np.float64)
    kept = spectrum.kept
    vectors, squares = spectrum.vectors[:, kept], spectrum.squares[kept]
    weights: Array = vectors @ ((vectors.T @ cross) / squares[:, None])
    return with_least_norm(weights / scale[:, None], spectrum, scale) * scale[:, None]


def solve_each(products: Array, cross: Array, penalties: Array, scale: Array) -> Array:
    """Return V (features, outputs), whose column k solves the equations with output k's penalty.

    Parameters
    ----------
    products, cross, scale :
        As of `solve`.
    penalties : float64 array (outputs, features)
        The l2 penalty of each column for each output.
    """
    weights = np.empty_like(cross)
    distinct, group = np.unique(penalties, axis=0, return_inverse=True)
    for k, penalty in enumerate(distinct):
        outputs = group == k
        definite = is_definite(products, penalty)
        spectrum = None if definite else Spectrum.of(products, penalty)
        weights[:, outputs] = solve(products, cross[:, outputs], penalty, scale, spectrum)
    return weights


def with_least_norm(coef: Array, spectrum: Spectrum, scale: Array) -> Array:
    """Return the coefficients (features, outputs) without their undetermined directions."""
    undetermined = spectrum.vectors[:, ~spectrum.kept] / scale[:, None]
    basis, _ = np.linalg.qr(undetermined)
    least: Array = coef - basis @ (basis.T @ coef)
    return least


def root_of(products: Array, cross: Array) -> tuple[Array, Array]:
    """Return R and T that solve `R.T @ R = products` and `R.T @ T = cross`.

    Columns are scaled to norm 1 first, so that rounding is in proportion to each.
    """
    norms = np.sqrt(np.diagonal(products))
    norms = np.where(norms > 0.0, norms, 1.0)
    squares, vectors = np.linalg.eigh(products / np.outer(norms, norms))
    lengths = np.sqrt(np.maximum(squares, 0.0))
    resolved = squares > squares.max() * len(squares) * EPS
    target = (vectors.T @ (cross / norms[:, None])) / np.where(resolved, lengths, np.inf)[:, None]
    return lengths[:, None] * vectors.T * norms, target


def without_rounding(root: Array, target: Array, threshold: float) -> tuple[Array, Array]:
    """Return the root and its target, rotated, with undetermined directions set to zero.

    Otherwise their rounding would outweigh a small penalty.
    """
    left, values, right = np.linalg.svd(root)
    values = np.where(values**2 > values.max() ** 2 * threshold, values, 0.0)
    rotated: Array = np.where(values > 0.0, 1.0, 0.0)[:, None] * (left.T @ target)
    return values[:, None] * right, rotated
