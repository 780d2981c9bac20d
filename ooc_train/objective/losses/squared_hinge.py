"""The squared hinge loss: the square of the margin that is missing to 1."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ooc_train.objective.loss import Loss, Target


@dataclass(frozen=True)
class SquaredHinge(Loss):
    """The square of how far z falls short of a margin of 1 on the side of y in {0, 1}."""

    name: ClassVar[str] = "squared_hinge"
    target: ClassVar[Target] = "binary"
    bound: ClassVar[float] = 2.0

    def value(self, y: Any, z: Any) -> Any:
        """Return the square of the missing margin."""
        missing = np.maximum(1.0 - (2.0 * y - 1.0) * z, 0.0)
        return missing * missing

    def slope(self, y: Any, z: Any) -> Any:
        """Return the slope: 0 where the margin is reached."""
        side = 2.0 * y - 1.0
        return -2.0 * side * np.maximum(1.0 - side * z, 0.0)

    def curvature(self, y: Any, z: Any) -> Any:
        """Return 2 where the margin isn't reached, else 0."""
        return 2.0 * ((2.0 * y - 1.0) * z < 1.0)
