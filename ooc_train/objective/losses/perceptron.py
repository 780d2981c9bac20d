"""The loss of the perceptron: how far a predictor is on the wrong side of zero."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ooc_train.objective.loss import PiecewiseLinearLoss, Target


@dataclass(frozen=True)
class Perceptron(PiecewiseLinearLoss):
    """The perceptron loss ``max(-s z, 0)``, where s is 1 for y = 1 and -1 for y = 0."""

    name: ClassVar[str] = "perceptron"
    target: ClassVar[Target] = "binary"

    def value(self, y: Any, z: Any) -> Any:
        """Return the distance of z from 0 if the sign of z is wrong, else 0."""
        return np.maximum((1.0 - 2.0 * y) * z, 0.0)

    def slope(self, y: Any, z: Any) -> Any:
        """Return the subgradient by z: -s where ``s z <= 0``, else 0 (NaN if z is NaN)."""
        side = 2.0 * y - 1.0
        return -side * (side * z <= 0.0) + 0.0 * z
