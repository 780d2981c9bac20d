"""Columns centred and scaled on the fly: for conditioning, folded into the weights.

Solvers work on `theta`, the weights of the columns `(x - mean) / scale` and, last, of the constant
one. Users see `coef` and `intercept` in the data's own units. The penalty stays in those units too
(its strength on a scaled weight is divided by `scale ** 2`), so that the answer does not depend on
the scaling; `standardize=True` leaves that division out, which is a `StandardScaler` put first.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import Array, Value

_PIECE_BYTES = 2 * 2**20
_LEAST_ROWS = 256
"""Rows are converted to float64 in pieces of about so many bytes: enough rows for BLAS, and to make
little of the 2 us that each call of NumPy takes; few enough for the cache."""


@dataclass(frozen=True, eq=False)
class Scaling(Value):
    """The shift and scale of each column: scaled columns are ``(x - mean) / scale``.

    Attributes
    ----------
    mean, scale : float64 arrays (features,)
    """

    mean: Array
    scale: Array

    @classmethod
    def of(
        cls,
        mean: Array,
        deviation: Array,
        *,
        centre: bool,
        origin: float | Array = 0.0,
        otherwise: float | Array = 1.0,
    ) -> "Scaling":
        """Return the scaling for columns of these means and population standard deviations.

        Parameters
        ----------
        mean, deviation : float64 arrays (features,)
            Moments of the columns.
        centre : bool
            Whether columns are centred at their means. Without an intercept nothing can take up a
            shift, so columns are then scaled by their root mean square distance from `origin`.
        origin : float or float64 array (features,)
            The centre of columns that are not centred at their means.
        otherwise : float or float64 array (features,)
            The scale of columns that never vary.
        """
        if not centre:
            deviation = np.sqrt(deviation**2 + (mean - origin) ** 2)
            mean = np.zeros_like(mean) + origin
        # A deviation that is rounding error of the mean is none (as in scikit-learn's scaler).
        constant = deviation <= 10 * np.finfo(np.float64).eps * np.abs(mean)
        return cls(mean, np.where(constant | (deviation == 0), otherwise, deviation))

    @classmethod
    def constant(cls, factor: float, n_features: int) -> "Scaling":
        """Return the scaling that multiplies every column by one factor."""
        # Broadcast arrays take no memory, which the plan has yet to grant.
        return cls(np.broadcast_to(0.0, n_features), np.broadcast_to(1.0 / factor, n_features))

    def widened(self, variance: float | Array) -> "Scaling":
        """Return the scaling by `sqrt(scale ** 2 + variance)`, which conditions loss plus penalty.

        If a column hardly varies, the penalty on its scaled weight is so steep that steps of a size
        for the loss would overshoot. This scale evens out the curvature of loss plus penalty.
        """
        return Scaling(self.mean, np.sqrt(self.scale**2 + variance))

    def permuted(self, order: NDArray[np.intp]) -> "Scaling":
        """Return the scaling of columns reordered as `X[:, order]`."""
        return Scaling(self.mean[order], self.scale[order])

    @property
    def n_features(self) -> int:
        """Number of columns of the data."""
        return len(self.mean)

    @cached_property
    def inverse(self) -> Array:
        """One over the scale, (features,)."""
        return 1.0 / self.scale

    def to_data_units(self, theta: Array) -> tuple[Array, Array]:
        """Return `coef` (..., features) and `intercept` (...,) for `theta` (..., features + 1)."""
        coef = theta[..., :-1] / self.scale
        return coef, theta[..., -1] - coef @ self.mean

    def from_data_units(self, coef: Array, intercept: Array) -> Array:
        """Return `theta` (..., features + 1): the inverse of `to_data_units`."""
        return np.concatenate(
            [coef * self.scale, (intercept + coef @ self.mean)[..., None]], axis=-1
        )

    def gradient_from_data_units(self, by_coef: Array, by_intercept: Array) -> Array:
        """Return the gradient by `theta`, given the gradients by `coef` and `intercept`."""
        centred = (by_coef - by_intercept[..., None] * self.mean) / self.scale
        return np.concatenate([centred, by_intercept[..., None]], axis=-1)

    def apply(self, X: NDArray[np.floating], out: Array) -> Array:
        """Write the scaled columns of X, and a column of ones, to `out` (rows, features + 1)."""
        scaled = out[: len(X)]
        np.subtract(X, self.mean, out=scaled[:, :-1])
        scaled[:, :-1] *= self.inverse
        scaled[:, -1] = 1.0
        return scaled


def piece_rows(columns: int, *, square: bool) -> int:
    """Return how many rows are scaled and multiplied at a time, a power of two.

    A function of the number of columns only, since where rows are cut changes the last bits. For
    sums of columns x columns, at least `columns` rows: adding up their product then costs little
    beside computing it.
    """
    fitting = 1 << (max(1, _PIECE_BYTES // (8 * columns)).bit_length() - 1)
    least = 1 << (columns - 1).bit_length() if square else _LEAST_ROWS
    return max(_LEAST_ROWS, least, fitting)


def permuted(theta: Array, order: NDArray[np.intp]) -> Array:
    """Return parameters (..., features + 1) for columns reordered as `X[:, order]`.

    The constant stays last.
    """
    return np.concatenate([theta[..., order], theta[..., -1:]], axis=-1)
