"""The modified Huber loss: a squared hinge that goes on as a straight line (Zhang 2004)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ooc_train.core.sums import Array
from ooc_train.objective.loss import Loss, Target


@dataclass(frozen=True)
class ModifiedHuber(Loss):
    """The squared hinge loss for margins of at least -1; for smaller ones, its tangent at -1."""

    name: ClassVar[str] = "modified_huber"
    bounded_slope: ClassVar[bool] = True
    target: ClassVar[Target] = "binary"
    link: ClassVar[str] = "truncated linear"
    bound: ClassVar[float] = 2.0

    def value(self, y: Any, z: Any) -> Any:
        """Return ``m**2`` for m <= 2, else ``4 m - 4``; m is how far the margin is below 1."""
        missing = np.maximum(1.0 - (2.0 * y - 1.0) * z, 0.0)
        squared = np.minimum(missing, 2.0)
        return squared * (2.0 * missing - squared)

    def slope(self, y: Any, z: Any) -> Any:
        """Return the derivative by z: 0 for margins of at least 1, and at most 4 in size."""
        side = 2.0 * y - 1.0
        return -2.0 * side * np.minimum(np.maximum(1.0 - side * z, 0.0), 2.0)

    def mean(self, z: Array) -> Array:
        """Return the probability p that y is 1, as ``z = 2 p - 1`` is optimal (Zhang 2004)."""
        mean: Array = 0.5 * (np.clip(z, -1.0, 1.0) + 1.0)
        return mean

    def curvature(self, y: Any, z: Any) -> Any:
        """Return the second derivative by z: 2 for margins between -1 and 1, else 0."""
        return 2.0 * (np.abs((2.0 * y - 1.0) * z) < 1.0)
