"""The multinomial loss for targets that are probabilities, such as the predictions of a teacher."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ooc_train.core.sums import Array
from ooc_train.objective.loss import Loss, Target
from ooc_train.objective.losses.multinomial import probabilities, softmax


@dataclass(frozen=True)
class SoftMultinomial(Loss):
    """Cross-entropy of the softmax of the outputs from target probabilities, in nats.

    With a temperature T (Hinton, Vinyals and Dean 2015), targets and outputs are softened: targets
    to the power 1 / T, made to add up to 1, and outputs divided by T. The loss is multiplied by
    ``T**2``, so that its derivatives keep their size.

    The compiled loops have no such targets. So networks alone learn by this loss, in NumPy.

    Attributes
    ----------
    temperature : float
        Above 0; 1 leaves targets and outputs as they are.
    """

    temperature: float = 1.0

    name: ClassVar[str] = "soft_multinomial"
    target: ClassVar[Target] = "distribution"
    link: ClassVar[str] = "multinomial logit"
    bounded_slope: ClassVar[bool] = True
    shift_invariant: ClassVar[bool] = True

    @property
    def bound(self) -> float:
        """Least upper bound of the largest eigenvalue of the second derivative."""
        return 0.5

    def value(self, y: Any, z: Any) -> Any:
        """Return the loss of each row, (rows,), of y and z (rows, outputs)."""
        softened = z / self.temperature
        normaliser = softmax(softened.T, np.empty_like(softened).T)
        loss = normaliser - (self._softened(y) * softened).sum(axis=1)
        return self.temperature**2 * loss

    def slope(self, y: Any, z: Any) -> Any:
        """Return the derivative by z, (rows, outputs)."""
        return self.temperature * (probabilities(z / self.temperature) - self._softened(y))

    def _softened(self, y: Any) -> Any:
        if self.temperature == 1.0:
            return y
        softened = y ** (1.0 / self.temperature)
        return softened / softened.sum(axis=1, keepdims=True)

    def mean(self, z: Array) -> Array:
        """Return the probabilities, (rows, outputs)."""
        return probabilities(z)
