"""The squared loss of support vector regression: the square of the residual beyond a tube."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ooc_train.objective.loss import Loss
from ooc_train.objective.losses.epsilon_insensitive import raise_if_no_tube


@dataclass(frozen=True)
class SquaredEpsilonInsensitive(Loss):
    """The squared epsilon-insensitive loss, ``max(|z - y| - epsilon, 0)**2``.

    Attributes
    ----------
    epsilon : float
        Largest residual that costs nothing, in units of y. At least 0.
    """

    epsilon: float = 0.1

    name: ClassVar[str] = "squared_epsilon_insensitive"
    bound: ClassVar[float] = 2.0

    def __post_init__(self) -> None:
        raise_if_no_tube(self.epsilon)

    def value(self, y: Any, z: Any) -> Any:
        """Return the square of the residual's excess over `epsilon`."""
        excess = np.maximum(np.abs(z - y) - self.epsilon, 0.0)
        return excess * excess

    def slope(self, y: Any, z: Any) -> Any:
        """Return the derivative by z: 0 within the tube ``|z - y| <= epsilon``."""
        above = np.maximum(z - y - self.epsilon, 0.0)
        return 2.0 * (above - np.maximum(y - z - self.epsilon, 0.0))

    def curvature(self, y: Any, z: Any) -> Any:
        """Return the second derivative by z: 2 beyond the tube, else 0."""
        return 2.0 * (np.abs(z - y) > self.epsilon)
