"""The hinge loss: how far a predictor falls short of a margin of 1."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ooc_train.objective.loss import Loss, Target


@dataclass(frozen=True)
class Hinge(Loss):
    """How far z falls short of a margin of 1 on the side of y in {0, 1}."""

    name: ClassVar[str] = "hinge"
    bounded_slope: ClassVar[bool] = True
    target: ClassVar[Target] = "binary"
    smooth: ClassVar[bool] = False
    bound: ClassVar[float] = 1.0
    """The hinge has no bound of its own. This one, of half a squared hinge, sets step sizes."""

    def value(self, y: Any, z: Any) -> Any:
        """Return the missing margin."""
        return np.maximum(1.0 - (2.0 * y - 1.0) * z, 0.0)

    def slope(self, y: Any, z: Any) -> Any:
        """Return minus the side of y where the margin isn't reached, else 0; NaN for a NaN."""
        side = 2.0 * y - 1.0
        return -side * (side * z < 1.0) + 0.0 * z

    def curvature(self, y: Any, z: Any) -> Any:  # noqa: ARG002 (the signature of every loss)
        """Return zeros, the second derivative wherever there is one."""
        return np.zeros_like(z)
