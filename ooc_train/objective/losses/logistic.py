"""The logistic loss: minus the log-likelihood of two classes."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy import exp, log

from ooc_train.core.sums import Array
from ooc_train.objective.loss import Loss, Target


@dataclass(frozen=True)
class Logistic(Loss):
    """Minus the log-likelihood of y in {0, 1}, in nats: ``log(1 + exp(z)) - y z``."""

    name: ClassVar[str] = "logistic"
    bounded_slope: ClassVar[bool] = True
    target: ClassVar[Target] = "binary"
    link: ClassVar[str] = "logit"
    bound: ClassVar[float] = 0.25

    def value(self, y: Any, z: Any) -> Any:
        """Return ``log(1 + exp(z)) - y z``, in nats.

        ``log(1 + e)`` with e in (0, 1] is within 1.2e-16 of the truth. NumPy has AVX-512 code for
        ``log`` and ``exp``, but a scalar loop for ``log1p`` and ``logaddexp``.
        """
        return np.maximum(z, 0.0) - y * z + log(1.0 + exp(-np.abs(z)))

    def slope(self, y: Any, z: Any) -> Any:
        """Return the derivative by z: the probability p that y is 1, less y."""
        e = exp(-np.abs(z))
        return (e + (z >= 0.0) * (1.0 - e)) / (1.0 + e) - y

    def curvature(self, y: Any, z: Any) -> Any:  # noqa: ARG002 (the signature of every loss)
        """Return the second derivative by z, ``p (1 - p)``, without cancellation in ``1 - p``."""
        e = exp(-np.abs(z))
        return e / ((1.0 + e) * (1.0 + e))

    def mean(self, z: Array) -> Array:
        """Return the probability that y is 1, to full relative precision at both ends."""
        e = exp(-np.abs(z))
        # The numerator is 1 or e, without a branch.
        p: Array = (e + (z >= 0.0) * (1.0 - e)) / (1.0 + e)
        return p
