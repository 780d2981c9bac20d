"""The Huber loss (Huber 1964): quadratic for small residuals, linear for large ones; and wider."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ooc_train.objective.loss import Loss
from ooc_train.objective.ramps import SmoothedLoss

__all__ = ["Huber", "SmoothHuber"]


def _raise_if_no_epsilon(epsilon: float) -> None:
    if not 0.0 < epsilon < float("inf"):
        raise ValueError(f"epsilon={epsilon!r} is not a finite number above 0")


@dataclass(frozen=True)
class Huber(Loss):
    """Half the squared residual up to `epsilon`, and its tangent beyond.

    Attributes
    ----------
    epsilon : float
        Residual at which the loss becomes linear, in units of y. Above 0.
    """

    epsilon: float = 1.35

    name: ClassVar[str] = "huber"
    bounded_slope: ClassVar[bool] = True
    bound: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        _raise_if_no_epsilon(self.epsilon)

    def value(self, y: Any, z: Any) -> Any:
        """Return ``r**2 / 2`` up to ``|r| = epsilon``, ``epsilon (|r| - epsilon / 2)`` beyond."""
        size = np.abs(z - y)
        quadratic = np.minimum(size, self.epsilon)
        return quadratic * (size - 0.5 * quadratic)

    def slope(self, y: Any, z: Any) -> Any:
        """Return the residual, cut off at epsilon on both sides."""
        return np.minimum(np.maximum(z - y, -self.epsilon), self.epsilon)

    def curvature(self, y: Any, z: Any) -> Any:
        """Return 1 where the loss is quadratic, else 0."""
        return 1.0 * (np.abs(z - y) <= self.epsilon)

    def smoothed(self, width: float) -> SmoothedLoss:
        """Return the loss with more rows where it has curvature."""
        return SmoothHuber(width, self.epsilon)


@dataclass(frozen=True)
class SmoothHuber(SmoothedLoss):
    """The Huber loss, quadratic up to a larger residual, and with the same slopes beyond.

    Where few residuals are below epsilon, Newton's method learns nothing of the others. Here they
    have a share in the curvature, until `width` is small. The quadratic part ends at
    ``epsilon + 2 width / epsilon``. The loss lies above Huber's, by the width at most.

    Attributes
    ----------
    epsilon : float
        As of `Huber`.
    """

    epsilon: float = 1.35

    name: ClassVar[str] = "smooth_huber"
    kinks: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        _raise_if_no_epsilon(self.epsilon)

    @property
    def bound(self) -> float:
        """Least upper bound of the second derivative, that of the quadratic part."""
        return self.epsilon / (self.epsilon + 2.0 * self.width / self.epsilon)

    def value(self, y: Any, z: Any) -> Any:
        """Return the line of Huber's loss, and half a share of the square of what is left to it."""
        end = self.epsilon + 2.0 * self.width / self.epsilon
        size = np.abs(z - y)
        left = np.maximum(end - size, 0.0)
        return self.epsilon * (size - 0.5 * self.epsilon) + 0.5 * self.epsilon / end * left * left

    def slope(self, y: Any, z: Any) -> Any:
        """Return a share of the residual, up to epsilon in size."""
        end = self.epsilon + 2.0 * self.width / self.epsilon
        return self.epsilon / end * np.minimum(np.maximum(z - y, -end), end)

    def curvature(self, y: Any, z: Any) -> Any:
        """Return the share where the loss is quadratic, else 0."""
        end = self.epsilon + 2.0 * self.width / self.epsilon
        return self.epsilon / end * (np.abs(z - y) <= end)

    def drift(self, y: Any, z: Any) -> Any:
        """Return the derivative of the slope by the width."""
        end = self.epsilon + 2.0 * self.width / self.epsilon
        return -2.0 / end / end * (z - y) * (np.abs(z - y) <= end)

    def gap(self, y: Any, z: Any) -> Any:
        """Return the share of a row in the duality gap."""
        end = self.epsilon + 2.0 * self.width / self.epsilon
        size = np.abs(z - y)
        due, slope = np.minimum(size, self.epsilon), self.epsilon / end * np.minimum(size, end)
        return np.maximum(due - slope, 0.0) * (size - 0.5 * (due + slope))
