"""The Huber loss (Huber 1964), and a version of it with a wider quadratic part."""

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
    """The Huber loss: half the squared residual up to `epsilon`, and its tangent beyond.

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
        """Return ``r**2 / 2`` up to ``|r| = epsilon``, and the tangent beyond, for r = z - y."""
        size = np.abs(z - y)
        quadratic = np.minimum(size, self.epsilon)
        return quadratic * (size - 0.5 * quadratic)

    def slope(self, y: Any, z: Any) -> Any:
        """Return the derivative by z: the residual z - y, clipped to [-epsilon, epsilon]."""
        return np.minimum(np.maximum(z - y, -self.epsilon), self.epsilon)

    def curvature(self, y: Any, z: Any) -> Any:
        """Return the second derivative by z: 1 where the loss is quadratic, else 0."""
        return 1.0 * (np.abs(z - y) <= self.epsilon)

    def smoothed(self, width: float) -> SmoothedLoss:
        """Return this loss with a wider quadratic part, where more rows have curvature."""
        return SmoothHuber(width, self.epsilon)


@dataclass(frozen=True)
class SmoothHuber(SmoothedLoss):
    """The Huber loss, quadratic up to a larger residual, and with the same slopes beyond.

    Rows with residuals above epsilon have no curvature in Huber's loss, so Newton's method learns
    nothing from them. Here more rows have curvature, until `width` is small. The quadratic part
    ends at ``end = epsilon + 2 width / epsilon``. The loss exceeds Huber's, by the width at most.

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
        """Return Huber's line plus ``epsilon / (2 end) * max(end - |r|, 0)**2``, with r = z - y."""
        end = self.epsilon + 2.0 * self.width / self.epsilon
        size = np.abs(z - y)
        left = np.maximum(end - size, 0.0)
        return self.epsilon * (size - 0.5 * self.epsilon) + 0.5 * self.epsilon / end * left * left

    def slope(self, y: Any, z: Any) -> Any:
        """Return the derivative by z: ``epsilon / end * r`` up to ``|r| = end``, then constant."""
        end = self.epsilon + 2.0 * self.width / self.epsilon
        return self.epsilon / end * np.minimum(np.maximum(z - y, -end), end)

    def curvature(self, y: Any, z: Any) -> Any:
        """Return the second derivative by z: ``epsilon / end`` on the quadratic part, else 0."""
        end = self.epsilon + 2.0 * self.width / self.epsilon
        return self.epsilon / end * (np.abs(z - y) <= end)

    def drift(self, y: Any, z: Any) -> Any:
        """Return the derivative of `slope` by the smoothing width."""
        end = self.epsilon + 2.0 * self.width / self.epsilon
        return -2.0 / end / end * (z - y) * (np.abs(z - y) <= end)

    def gap(self, y: Any, z: Any) -> Any:
        """Return each row's contribution to the duality gap of Huber's loss."""
        end = self.epsilon + 2.0 * self.width / self.epsilon
        size = np.abs(z - y)
        due, slope = np.minimum(size, self.epsilon), self.epsilon / end * np.minimum(size, end)
        return np.maximum(due - slope, 0.0) * (size - 0.5 * (due + slope))
