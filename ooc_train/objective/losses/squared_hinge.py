"""The squared hinge loss: the square of how far the margin is below 1."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ooc_train.objective.loss import Loss, Target


@dataclass(frozen=True)
class SquaredHinge(Loss):
    """The squared hinge loss ``max(1 - s z, 0)**2``, where s is 1 for y = 1 and -1 for y = 0."""

    name: ClassVar[str] = "squared_hinge"
    target: ClassVar[Target] = "binary"
    bound: ClassVar[float] = 2.0

    def value(self, y: Any, z: Any) -> Any:
        """Return the square of how far the margin ``s z`` is below 1."""
        missing = np.maximum(1.0 - (2.0 * y - 1.0) * z, 0.0)
        return missing * missing

    def slope(self, y: Any, z: Any) -> Any:
        """Return the derivative by z: 0 where the margin is at least 1."""
        side = 2.0 * y - 1.0
        return -2.0 * side * np.maximum(1.0 - side * z, 0.0)

    def curvature(self, y: Any, z: Any) -> Any:
        """Return the second derivative by z: 2 where the margin is below 1, else 0."""
        return 2.0 * ((2.0 * y - 1.0) * z < 1.0)
