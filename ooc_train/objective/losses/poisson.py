"""The Poisson loss: half the deviance of counts, with a log link (McCullagh and Nelder 1989)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy import exp, log

from ooc_train.objective.loss import LogLinkLoss, Target

_FAR = 300.0
"""The predictor beyond which the loss is a straight line."""


@dataclass(frozen=True)
class Poisson(LogLinkLoss):
    """Half the deviance of y >= 0 from ``mu = exp(z)``: ``mu - y + y (log y - z)``."""

    name: ClassVar[str] = "poisson"
    target: ClassVar[Target] = "nonnegative"

    def value(self, y: Any, z: Any) -> Any:
        """Return half the deviance."""
        near = np.minimum(z, _FAR)
        # The logarithm of y = 0 is multiplied by 0: that of 1 does as well, and is finite.
        rest = y * (log(y + (y == 0.0)) - z) - y
        # Rounding can leave a perfect prediction a negative deviance.
        return np.maximum(exp(near) * (1.0 + (z - near)) + rest, 0.0)

    def slope(self, y: Any, z: Any) -> Any:
        """Return the derivative by z: the prediction ``mu`` less y."""
        return exp(np.minimum(z, _FAR)) - y

    def curvature(self, y: Any, z: Any) -> Any:  # noqa: ARG002 (the signature of every loss)
        """Return the second derivative by z, ``mu``; also on the line, to shorten steps."""
        return exp(np.minimum(z, _FAR))
