"""Kinks smoothed: ``max(r, 0)`` becomes ``(r + sqrt(r^2 + width^2)) / 2``.

A piecewise linear loss is a sum of ramps and a linear function. With each ramp smoothed, it has
derivatives of any order, and curvature everywhere. It lies above the loss, by half the width of a
ramp at most (Chen and Harker 1993; Kanzow 1996).

The slopes of the smoothed loss are a point of the dual problem, wherever its gradient is zero. So
the duality gap there is a sum over rows, of `ramp_gap`: how much a ramp exceeds the straight line
of that slope (Rockafellar 1970, section 31). It falls with about the square of the width.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ooc_train.objective.loss import Loss

__all__ = ["SmoothedLoss", "ramp", "ramp_curvature", "ramp_drift", "ramp_gap", "ramp_slope"]


def ramp(r: Any, width: Any) -> Any:
    """Return ``(r + s) / 2`` with ``s = sqrt(r^2 + width^2)``, without cancellation."""
    size = np.abs(r)
    return np.maximum(r, 0.0) + 0.5 * width * width / (size + np.sqrt(r * r + width * width))


def ramp_slope(r: Any, width: Any) -> Any:
    """Return the derivative of `ramp` by r, between 0 and 1."""
    return 0.5 + 0.5 * r / np.sqrt(r * r + width * width)


def ramp_curvature(r: Any, width: Any) -> Any:
    """Return the second derivative of `ramp` by r; at most ``1 / (2 width)``."""
    s = np.sqrt(r * r + width * width)
    return 0.5 * (width / s) * (width / s) / s


def ramp_drift(r: Any, width: Any) -> Any:
    """Return the derivative of `ramp_slope` by the width."""
    s = np.sqrt(r * r + width * width)
    return -0.5 * (r / s) * (width / s) / s


def ramp_gap(r: Any, width: Any) -> Any:
    """Return ``max(r, 0) - r * ramp_slope(r)``, without cancellation: at least 0."""
    size, s = np.abs(r), np.sqrt(r * r + width * width)
    return 0.5 * size * (width / s) * (width / (s + size))


@dataclass(frozen=True)
class SmoothedLoss(Loss):
    """A smooth approximation of a loss with kinks in its value, or (Huber) in its derivative.

    Attributes
    ----------
    width : float
        Width of the smoothing: at r = `width` a ramp has a third of its peak curvature. Above 0.
    kinks : int
        Number of ramps in the loss. The smoothed loss exceeds the loss itself by at most half the
        width for each ramp.
    """

    width: float = 1.0

    bounded_slope: ClassVar[bool] = True
    kinks: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 0.0 < self.width < float("inf"):
            raise ValueError(f"width={self.width!r} is not a finite number above 0")

    @property
    def bound(self) -> float:
        """Least upper bound of the second derivative, reached where all kinks coincide."""
        return self.kinks / (2.0 * self.width)

    def drift(self, y: Any, z: Any) -> Any:
        """Return the derivative of `slope` by the smoothing width, of the shape of `z`."""
        raise NotImplementedError

    def gap(self, y: Any, z: Any) -> Any:
        """Return each row's contribution to the duality gap of the loss itself, see `ramp_gap`.

        Parameters
        ----------
        y, z : array
            Targets and predictors, of one shape.

        Returns
        -------
        array
            Of the same shape, at least 0.
        """
        raise NotImplementedError
