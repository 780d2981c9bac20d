"""The Tweedie loss: half the deviance of a power variance, with a log link (Jorgensen 1987)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy import exp, log

from ooc_train.objective.loss import LogLinkLoss, Target

_FAR = 300.0
"""The largest exponent; the loss is a straight line beyond."""


@dataclass(frozen=True)
class Tweedie(LogLinkLoss):
    """Half the deviance of y from ``mu = exp(z)``, where the variance of y is ``mu ** power``.

    Powers from 1 to 2 are for amounts of which some are 0, such as claims. From 2 on, y is above 0,
    and the loss is not convex in z.

    Attributes
    ----------
    power : float
        Power of the variance. Above 1, and not 2: `Poisson` and `Gamma` are those of 1 and 2.
    """

    power: float = 1.5

    name: ClassVar[str] = "tweedie"

    def __post_init__(self) -> None:
        if not 1.0 < self.power < float("inf") or self.power == 2.0:
            raise ValueError(
                f"power={self.power!r} is not a finite number above 1, and other than 2; use the "
                "poisson loss for 1, and the gamma loss for 2"
            )

    @property
    def target(self) -> Target:  # type: ignore[override] # that of the power
        """Domain of y: at least 0 for a power below 2, else above 0."""
        return "nonnegative" if self.power < 2.0 else "positive"

    @property
    def convex(self) -> bool:
        """Whether the loss is convex in z: for a power below 2."""
        return self.power < 2.0

    def value(self, y: Any, z: Any) -> Any:
        """Return half the deviance."""
        a, b = 2.0 - self.power, 1.0 - self.power
        far = _FAR / np.maximum(-b, 1.0)
        near = np.minimum(np.maximum(z, -far), far)
        first, second = exp(a * near), exp(b * near)
        # The logarithm of y = 0 is multiplied by 0: that of 1 does as well, and is finite. Where y
        # is above 0, that of -1 makes the loss no number.
        one = 1.0 - 2.0 * (self.power > 2.0)
        perfect = exp(b * log(y + one * (y == 0.0)))
        value = first / a - y / b * (second - perfect / a)
        # Rounding can leave a perfect prediction a negative deviance.
        return np.maximum(value + (first - y * second) * (z - near), 0.0)

    def slope(self, y: Any, z: Any) -> Any:
        """Return the derivative by z, ``mu ** (2 - power) - y mu ** (1 - power)``."""
        a, b = 2.0 - self.power, 1.0 - self.power
        far = _FAR / np.maximum(-b, 1.0)
        near = np.minimum(np.maximum(z, -far), far)
        return exp(a * near) - y * exp(b * near)

    def curvature(self, y: Any, z: Any) -> Any:
        """Return the second derivative by z; on the linear part, that where the part begins."""
        a, b = 2.0 - self.power, 1.0 - self.power
        far = _FAR / np.maximum(-b, 1.0)
        near = np.minimum(np.maximum(z, -far), far)
        return a * exp(a * near) - b * y * exp(b * near)
