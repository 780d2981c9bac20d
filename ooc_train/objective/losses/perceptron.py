"""The loss of the perceptron: how far a predictor is on the wrong side of zero."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ooc_train.objective.loss import PiecewiseLinearLoss, Target


@dataclass(frozen=True)
class Perceptron(PiecewiseLinearLoss):
    """How far z is from 0 on the side that y in {0, 1} is not on."""

    name: ClassVar[str] = "perceptron"
    target: ClassVar[Target] = "binary"

    def value(self, y: Any, z: Any) -> Any:
        """Return the distance, 0 on the right side."""
        return np.maximum((1.0 - 2.0 * y) * z, 0.0)

    def slope(self, y: Any, z: Any) -> Any:
        """Return minus the side of y on the wrong side and at 0, else 0; NaN for a NaN."""
        side = 2.0 * y - 1.0
        return -side * (side * z <= 0.0) + 0.0 * z
