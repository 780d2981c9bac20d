"""The Huber loss (Huber 1964): quadratic for small residuals, linear for large ones."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ooc_train.objective.loss import Loss


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
        if not 0.0 < self.epsilon < float("inf"):
            raise ValueError(f"epsilon={self.epsilon!r} is not a finite number above 0")

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
