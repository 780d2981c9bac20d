"""The gamma loss: half the deviance of positive amounts, with a log link.

McCullagh and Nelder 1989, chapter 8.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy import exp, log

from ooc_train.objective.loss import LogLinkLoss, Target

_FAR = 300.0
"""The logarithm of y over the prediction beyond which the loss is a straight line."""


@dataclass(frozen=True)
class Gamma(LogLinkLoss):
    """Half the deviance of y > 0 from ``mu = exp(z)``: ``y / mu - 1 - log(y / mu)``."""

    name: ClassVar[str] = "gamma"
    target: ClassVar[Target] = "positive"

    def value(self, y: Any, z: Any) -> Any:
        """Return half the deviance."""
        # No number for y = 0, as for y < 0.
        over = log(y - (y == 0.0)) - z
        near = np.minimum(over, _FAR)
        # Rounding can leave a perfect prediction a negative deviance.
        return np.maximum(exp(near) * (1.0 + (over - near)) - 1.0 - over, 0.0)

    def slope(self, y: Any, z: Any) -> Any:
        """Return the derivative by z, ``1 - y / mu``."""
        return 1.0 - exp(np.minimum(log(y - (y == 0.0)) - z, _FAR))

    def curvature(self, y: Any, z: Any) -> Any:
        """Return the second derivative by z, ``y / mu``; also on the line, to shorten steps."""
        return exp(np.minimum(log(y - (y == 0.0)) - z, _FAR))
