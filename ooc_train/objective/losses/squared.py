"""Half the squared residual: least squares."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ooc_train.core.sums import Array
from ooc_train.objective.loss import Loss


@dataclass(frozen=True)
class Squared(Loss):
    """Half the squared residual."""

    name: ClassVar[str] = "squared"
    constant_curvature: ClassVar[bool] = True
    bound: ClassVar[float] = 1.0

    def value(self, y: Any, z: Any) -> Any:
        """Return half the squared residual."""
        return 0.5 * (z - y) * (z - y)

    def slope(self, y: Any, z: Any) -> Any:
        """Return the derivative by z: the residual z - y."""
        return z - y

    def curvature(self, y: Any, z: Any) -> Any:  # noqa: ARG002 (the signature of every loss)
        """Return ones, the second derivative by z."""
        return np.ones_like(z)

    def outputs(self, y: Array, n_outputs: int) -> Array:
        """Return the targets of the predictors, (rows, outputs), by y or by class codes."""
        return self.targets(y, n_outputs)
