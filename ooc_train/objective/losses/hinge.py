"""The hinge loss: how far a predictor falls short of a margin of 1; and the same smoothed."""

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
    """How far z falls short of a margin of 1 on the side of y in {0, 1}."""

    name: ClassVar[str] = "hinge"
    target: ClassVar[Target] = "binary"

    def value(self, y: Any, z: Any) -> Any:
        """Return the missing margin."""
        return np.maximum(1.0 - (2.0 * y - 1.0) * z, 0.0)

    def slope(self, y: Any, z: Any) -> Any:
        """Return minus the side of y where the margin isn't reached, else 0; NaN for a NaN."""
        side = 2.0 * y - 1.0
        return -side * (side * z < 1.0) + 0.0 * z

    def smoothed(self, width: float) -> SmoothedLoss:
        """Return the loss with its kink smoothed."""
        return SmoothHinge(width)


@dataclass(frozen=True)
class SmoothHinge(SmoothedLoss):
    """The hinge loss with a smoothed kink: a ramp of the missing margin."""

    name: ClassVar[str] = "smooth_hinge"
    target: ClassVar[Target] = "binary"

    def value(self, y: Any, z: Any) -> Any:
        """Return the ramp of the missing margin."""
        return ramp(1.0 - (2.0 * y - 1.0) * z, self.width)

    def slope(self, y: Any, z: Any) -> Any:
        """Return the slope, on the side of 0 that y is not on."""
        side = 2.0 * y - 1.0
        return -side * ramp_slope(1.0 - side * z, self.width)

    def curvature(self, y: Any, z: Any) -> Any:
        """Return the second derivative."""
        return ramp_curvature(1.0 - (2.0 * y - 1.0) * z, self.width)

    def drift(self, y: Any, z: Any) -> Any:
        """Return the derivative of the slope by the width."""
        side = 2.0 * y - 1.0
        return -side * ramp_drift(1.0 - side * z, self.width)

    def gap(self, y: Any, z: Any) -> Any:
        """Return the share of a row in the duality gap."""
        return ramp_gap(1.0 - (2.0 * y - 1.0) * z, self.width)
