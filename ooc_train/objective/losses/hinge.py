"""The hinge loss of support vector machines, and a smoothed version of it."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ooc_train.objective.loss import PiecewiseLinearLoss, Target
from ooc_train.objective.ramps import (
    SmoothedLoss,
    ramp,
    ramp_curvature,
    ramp_drift,
    ramp_gap,
    ramp_slope,
)


@dataclass(frozen=True)
class Hinge(PiecewiseLinearLoss):
    """The hinge loss ``max(1 - s z, 0)``, where s is 1 for y = 1 and -1 for y = 0."""

    name: ClassVar[str] = "hinge"
    target: ClassVar[Target] = "binary"

    def value(self, y: Any, z: Any) -> Any:
        """Return how far the margin ``s z`` is below 1, else 0."""
        return np.maximum(1.0 - (2.0 * y - 1.0) * z, 0.0)

    def slope(self, y: Any, z: Any) -> Any:
        """Return the subgradient by z: -s where the margin is below 1, else 0 (NaN if z is NaN)."""
        side = 2.0 * y - 1.0
        return -side * (side * z < 1.0) + 0.0 * z

    def smoothed(self, width: float) -> SmoothedLoss:
        """Return this loss with its kink smoothed."""
        return SmoothHinge(width)


@dataclass(frozen=True)
class SmoothHinge(SmoothedLoss):
    """The hinge loss with a smoothed kink: a ramp of ``1 - s z``, see `Hinge`."""

    name: ClassVar[str] = "smooth_hinge"
    target: ClassVar[Target] = "binary"

    def value(self, y: Any, z: Any) -> Any:
        """Return the smoothed loss: the ramp of ``1 - s z``."""
        return ramp(1.0 - (2.0 * y - 1.0) * z, self.width)

    def slope(self, y: Any, z: Any) -> Any:
        """Return the derivative by z: from 0 to -1 for y = 1, from 0 to 1 for y = 0."""
        side = 2.0 * y - 1.0
        return -side * ramp_slope(1.0 - side * z, self.width)

    def curvature(self, y: Any, z: Any) -> Any:
        """Return the second derivative by z."""
        return ramp_curvature(1.0 - (2.0 * y - 1.0) * z, self.width)

    def drift(self, y: Any, z: Any) -> Any:
        """Return the derivative of `slope` by the smoothing width."""
        side = 2.0 * y - 1.0
        return -side * ramp_drift(1.0 - side * z, self.width)

    def gap(self, y: Any, z: Any) -> Any:
        """Return each row's contribution to the duality gap of the loss itself."""
        return ramp_gap(1.0 - (2.0 * y - 1.0) * z, self.width)
