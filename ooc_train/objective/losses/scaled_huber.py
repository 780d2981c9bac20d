"""Huber's loss of residuals in units of their own scale, which is fitted too (Huber 1981, 7.7).

A row costs ``s + h(r / s) s``, where r is the residual, s the scale, and h(u) is ``u^2`` up to
epsilon and its tangent beyond. The cost is convex in r and s together. Without outliers, the best
scale is the root of the mean squared residual.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ooc_train.core.sums import Array
from ooc_train.objective.loss import Loss, RowwiseLoss, Target

_SMALLEST = 1e-300
"""A scale of zero would divide by zero."""


def cost(r: Any, scale: Any, epsilon: Any) -> Any:
    """Return ``scale + h(r / scale) * scale``: the loss of a residual r at a scale above 0."""
    size = np.abs(r)
    inner = np.minimum(size, epsilon * scale)
    return scale + inner * ((2.0 * size - inner) / scale)


@dataclass(frozen=True)
class FittedHuber(Loss):
    """Huber's loss of residuals in units of a scale that is known.

    Attributes
    ----------
    epsilon : float
        Residual at which the loss becomes linear, in units of the scale.
    scale : float
        The scale, in units of y.
    """

    epsilon: float
    scale: float

    name: ClassVar[str] = "fitted_huber"
    bounded_slope: ClassVar[bool] = True

    def value(self, y: Any, z: Any) -> Any:
        """Return the `cost` of the residual z - y at the known scale."""
        return cost(z - y, self.scale, self.epsilon)

    def slope(self, y: Any, z: Any) -> Any:
        """Return the derivative by z: 2 u, with u = (z - y) / scale clipped to epsilon in size."""
        return 2.0 * np.minimum(np.maximum((z - y) / self.scale, -self.epsilon), self.epsilon)


@dataclass(frozen=True)
class ScaledHuber(RowwiseLoss):
    """Huber's loss by two predictors: z[0] predicts y, and the size of z[1] is the scale.

    Attributes
    ----------
    epsilon : float
        Residual at which the loss becomes linear, in units of the scale. At least 1: otherwise a
        scale of zero could be the best.
    """

    epsilon: float = 1.35

    name: ClassVar[str] = "scaled_huber"
    target: ClassVar[Target] = "real"
    bounded_slope: ClassVar[bool] = True

    def row(self, y: Any, z: Any, out: Any) -> Any:
        """Write the derivatives by both predictors to `out`; return the loss."""
        scale = np.maximum(np.abs(z[1]), _SMALLEST)
        r, sign = z[0] - y, 1.0 - 2.0 * (z[1] < 0.0)
        u = np.minimum(np.maximum(r / scale, -self.epsilon), self.epsilon)
        out[0] = 2.0 * u
        out[1] = sign * (1.0 - u * u)
        for k in range(2, len(z)):
            out[k] = 0.0 * z[k]
        return cost(r, scale, self.epsilon)

    def curvatures(self, y: Array, z: Array) -> Iterator[Array]:
        """Yield the second derivatives (rows,) by z[0] twice, by z[1] and z[0], by z[1] twice."""
        scale = np.maximum(np.abs(z[:, 1]), _SMALLEST)
        sign = 1.0 - 2.0 * (z[:, 1] < 0.0)
        u = (z[:, 0] - y[:, 0]) / scale
        inner = 2.0 * (np.abs(u) <= self.epsilon) / scale
        yield inner
        yield -sign * u * inner
        yield u * u * inner

    def mean(self, z: Array) -> Array:
        """Return z[0], the predicted y, (rows, 1)."""
        return z[:, :1]
