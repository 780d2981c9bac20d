"""The quantile or pinball loss (Koenker and Bassett 1978), and a smoothed version of it."""

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


def _raise_if_no_share(quantile: float) -> None:
    if not 0.0 < quantile < 1.0:
        raise ValueError(f"quantile={quantile!r} is not a number above 0 and below 1")


@dataclass(frozen=True)
class Quantile(PiecewiseLinearLoss):
    """The quantile loss of r = y - z: ``quantile * r`` for r >= 0, else ``(quantile - 1) * r``.

    Attributes
    ----------
    quantile : float
        Fraction of y that the best constant prediction is above. Above 0 and below 1.
    """

    quantile: float = 0.5

    name: ClassVar[str] = "quantile"

    def __post_init__(self) -> None:
        _raise_if_no_share(self.quantile)

    def value(self, y: Any, z: Any) -> Any:
        """Return ``max(quantile * r, (quantile - 1) * r)`` with r = y - z."""
        return np.maximum(self.quantile * (y - z), (self.quantile - 1.0) * (y - z))

    def slope(self, y: Any, z: Any) -> Any:
        """Return the subgradient by z: -quantile up to z = y, 1 - quantile above (NaN if NaN)."""
        return 1.0 * (z > y) - self.quantile + 0.0 * z

    def smoothed(self, width: float) -> SmoothedLoss:
        """Return this loss with its kink smoothed."""
        return SmoothQuantile(width, self.quantile)


@dataclass(frozen=True)
class SmoothQuantile(SmoothedLoss):
    """The quantile loss with a smoothed kink: ramps of the residual and of its negative.

    Attributes
    ----------
    quantile : float
        As of `Quantile`.
    """

    quantile: float = 0.5

    name: ClassVar[str] = "smooth_quantile"

    def __post_init__(self) -> None:
        super().__post_init__()
        _raise_if_no_share(self.quantile)

    def value(self, y: Any, z: Any) -> Any:
        """Return the smoothed loss: weighted ramps of z - y and of y - z."""
        above, below = ramp(z - y, self.width), ramp(y - z, self.width)
        return (1.0 - self.quantile) * above + self.quantile * below

    def slope(self, y: Any, z: Any) -> Any:
        """Return the derivative by z, between ``-quantile`` and ``1 - quantile``."""
        return ramp_slope(z - y, self.width) - self.quantile

    def curvature(self, y: Any, z: Any) -> Any:
        """Return the second derivative by z."""
        return ramp_curvature(z - y, self.width)

    def drift(self, y: Any, z: Any) -> Any:
        """Return the derivative of `slope` by the smoothing width."""
        return ramp_drift(z - y, self.width)

    def gap(self, y: Any, z: Any) -> Any:
        """Return each row's contribution to the duality gap of the loss itself."""
        return ramp_gap(z - y, self.width)
