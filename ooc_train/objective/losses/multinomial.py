"""The multinomial loss: minus the log-likelihood of the classes, by the softmax of the outputs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy import exp, log

from ooc_train.core.sums import Array
from ooc_train.objective.loss import RowwiseLoss

__all__ = ["Multinomial", "probabilities", "softmax"]


def softmax(z: Any, out: Any) -> Any:
    """Write the probabilities of the classes to `out`; return the logarithm of their normaliser.

    Parameters
    ----------
    z, out : (classes, ...) array
        Classes first; `out` may be `z` itself.

    Returns
    -------
    (...) array
        ``log(sum_k exp(z[k]))``, in nats.
    """
    top = z[0]
    for k in range(1, len(z)):
        top = np.maximum(top, z[k])
    total = 0.0 * top
    for k in range(len(z)):
        out[k] = exp(z[k] - top)
        total = total + out[k]
    for k in range(len(z)):
        out[k] = out[k] / total
    return top + log(total)


def probabilities(z: Array) -> Array:
    """Return the probabilities of the classes, the softmax of each row: (rows, classes)."""
    out = np.empty_like(z)
    softmax(z.T, out.T)
    return out


@dataclass(frozen=True)
class Multinomial(RowwiseLoss):
    """Minus the log-likelihood of the classes, in nats."""

    name: ClassVar[str] = "multinomial"
    bounded_slope: ClassVar[bool] = True
    link: ClassVar[str] = "multinomial logit"
    bound: ClassVar[float] = 0.5
    shift_invariant: ClassVar[bool] = True

    def row(self, y: Any, z: Any, out: Any) -> Any:
        """Write the derivatives by z, probability less indicator, to `out`; return the loss."""
        own = 0.0 * z[0]
        for k in range(len(z)):
            own = own + (y == k) * z[k]
        normaliser = softmax(z, out)
        for k in range(len(z)):
            out[k] = out[k] - (y == k)
        return normaliser - own

    def curvatures(self, y: Array, z: Array) -> Iterator[Array]:  # noqa: ARG002
        """Yield the second derivative by z of classes a and b, (rows,), for every a and b <= a."""
        p = probabilities(z)
        for a, b in self.output_pairs(z.shape[1]):
            yield p[:, a] * (1.0 - p[:, a]) if a == b else -p[:, a] * p[:, b]

    def mean(self, z: Array) -> Array:
        """Return the probabilities of the classes, (rows, classes)."""
        return probabilities(z)
