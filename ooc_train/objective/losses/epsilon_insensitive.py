"""The loss of support vector regression (Vapnik 1995), and a smoothed version of it."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ooc_train.objective.loss import PiecewiseLinearLoss
from ooc_train.objective.ramps import (
    SmoothedLoss,
    ramp,
    ramp_curvature,
    ramp_drift,
    ramp_gap,
    ramp_slope,
)

__all__ = ["EpsilonInsensitive", "SmoothEpsilonInsensitive", "raise_if_no_tube"]


def raise_if_no_tube(epsilon: float) -> None:
    """Raise `ValueError` unless `epsilon` is a finite number of at least 0."""
    if not 0.0 <= epsilon < float("inf"):
        raise ValueError(f"epsilon={epsilon!r} is not a finite number of at least 0")


@dataclass(frozen=True)
class EpsilonInsensitive(PiecewiseLinearLoss):
    """The epsilon-insensitive loss, ``max(|z - y| - epsilon, 0)``.

    Attributes
    ----------
    epsilon : float
        Largest residual that costs nothing, in units of y. At least 0.
    """

    epsilon: float = 0.1

    name: ClassVar[str] = "epsilon_insensitive"

    def __post_init__(self) -> None:
        raise_if_no_tube(self.epsilon)

    def value(self, y: Any, z: Any) -> Any:
        """Return how far the residual z - y exceeds `epsilon` in size, else 0."""
        return np.maximum(np.abs(z - y) - self.epsilon, 0.0)

    def slope(self, y: Any, z: Any) -> Any:
        """Return the subgradient by z: the residual's sign beyond the tube, else 0 (NaN if NaN)."""
        return 1.0 * (z - y > self.epsilon) - 1.0 * (y - z > self.epsilon) + 0.0 * z

    def smoothed(self, width: float) -> SmoothedLoss:
        """Return this loss with its two kinks smoothed."""
        return SmoothEpsilonInsensitive(width, self.epsilon)


@dataclass(frozen=True)
class SmoothEpsilonInsensitive(SmoothedLoss):
    """The epsilon-insensitive loss with smoothed kinks: a ramp on each side of the tube.

    Attributes
    ----------
    epsilon : float
        As of `EpsilonInsensitive`.
    """

    epsilon: float = 0.1

    name: ClassVar[str] = "smooth_epsilon_insensitive"
    kinks: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        raise_if_no_tube(self.epsilon)

    def value(self, y: Any, z: Any) -> Any:
        """Return the smoothed loss: the sum of both ramps."""
        return ramp(z - y - self.epsilon, self.width) + ramp(y - z - self.epsilon, self.width)

    def slope(self, y: Any, z: Any) -> Any:
        """Return the derivative of the loss by the prediction z, between -1 and 1."""
        above = ramp_slope(z - y - self.epsilon, self.width)
        return above - ramp_slope(y - z - self.epsilon, self.width)

    def curvature(self, y: Any, z: Any) -> Any:
        """Return the second derivative by z."""
        above = ramp_curvature(z - y - self.epsilon, self.width)
        return above + ramp_curvature(y - z - self.epsilon, self.width)

    def drift(self, y: Any, z: Any) -> Any:
        """Return the derivative of `slope` by the smoothing width."""
        above = ramp_drift(z - y - self.epsilon, self.width)
        return above - ramp_drift(y - z - self.epsilon, self.width)

    def gap(self, y: Any, z: Any) -> Any:
        """Return each row's contribution to the duality gap of the loss itself."""
        above = ramp_gap(z - y - self.epsilon, self.width)
        return above + ramp_gap(y - z - self.epsilon, self.width)
