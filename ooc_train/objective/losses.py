"""Losses by the linear predictor z: what a row costs, its slope and its curvature.

A loss is defined once. The functions of the pointwise losses are made of NumPy ufuncs and operators
alone, so the same source serves whole arrays and, compiled by numba in `kernels.py`, one scalar at
a time. `softmax` indexes classes first for the same reason: ``z[k]`` is a column of rows to NumPy
and one number to the compiled kernel. `exp` and `log` are names of this module, so that kernels can
put vectorisable ones in their place: sources take ``exp`` of x <= 0 and ``log`` of x >= 1 alone.

To add a pointwise loss: its functions and an entry of `LOSSES` here, its parts in
`compiled/parts.py`, and there a branch of `_vector_slope` in `full_batch.py` and of each loop over
losses in `scanning.py` and `quads.py`.

Every loss is stable for predictors up to 1e4 in size, raises no floating-point warning, and turns a
predictor that is NaN into a NaN.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy import exp, log
from numpy.typing import NDArray

__all__ = ["LOSSES", "Array", "Loss", "probabilities", "softmax"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss by the linear predictor z, to be summed over rows.

    Attributes
    ----------
    name : str
        The key in `LOSSES`.
    code : int
        What the compiled kernels know it by.
    value, gradient, hessian : callable
        ``f(y, z)``: the loss, and its first and second derivative by z. Of a pointwise loss y, z
        and the result all have the same shape; for the multinomial see `multinomial_value`.
        ``hessian`` is None where the second derivative isn't diagonal: it is made from `mean`.
    mean : callable
        ``f(z)``: the expected y, which is the inverse of the link function.
    curvature : float
        The least upper bound of the second derivative (of its largest eigenvalue).
    link : str
        The link function, by the name that generalised linear models give it.
    constant_curvature : bool
        Whether the second derivative is the same everywhere.
    """

    name: str
    code: int
    value: Callable[[Array, Array], Array]
    gradient: Callable[[Array, Array], Array]
    hessian: Callable[[Array, Array], Array] | None
    mean: Callable[[Array], Array]
    curvature: float
    link: str
    constant_curvature: bool = False


def squared_value(y: Array, z: Array) -> Array:
    """Half the squared residual."""
    return 0.5 * (z - y) * (z - y)


def squared_gradient(y: Array, z: Array) -> Array:
    """Return the residual."""
    return z - y


def squared_hessian(y: Array, z: Array) -> Array:  # noqa: ARG001 (the signature of every loss)
    """One for every row."""
    return np.ones_like(z)


def identity(z: Array) -> Array:
    """Return the predictor itself."""
    return z


def logistic_value(y: Array, z: Array) -> Array:
    """Minus the log-likelihood of y in {0, 1}, in nats: ``log(1 + exp(z)) - y z``.

    ``log(1 + e)`` with e in (0, 1] is within 1.2e-16 of the truth, and NumPy has AVX-512 code for
    ``log`` and ``exp`` where ``log1p`` and ``logaddexp`` take a scalar loop.
    """
    return np.maximum(z, 0.0) - y * z + log(1.0 + exp(-np.abs(z)))


def logistic_mean(z: Array) -> Array:
    """Probability that y is 1, to full relative precision at both ends."""
    e = exp(-np.abs(z))
    return (e + (z >= 0.0) * (1.0 - e)) / (1.0 + e)  # the numerator is 1 or e, without a branch


def logistic_gradient(y: Array, z: Array) -> Array:
    """Probability that y is 1, less y."""
    e = exp(-np.abs(z))
    return (e + (z >= 0.0) * (1.0 - e)) / (1.0 + e) - y


def logistic_hessian(y: Array, z: Array) -> Array:  # noqa: ARG001 (the signature of every loss)
    """``p (1 - p)``, without the cancellation of ``1 - p``."""
    e = exp(-np.abs(z))
    return e / ((1.0 + e) * (1.0 + e))


def softmax(z: Array, out: Array) -> Array:
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
    normaliser: Array = top + log(total)
    return normaliser


def probabilities(z: Array) -> Array:
    """Probabilities of the classes, the softmax of `z`: (rows, classes) to (rows, classes)."""
    out = np.empty_like(z)
    softmax(z.T, out.T)
    return out


def _codes(y: Array, z: Array) -> NDArray[np.intp]:
    """Codes of the classes as indices, one a row: a column would broadcast to rows x rows."""
    return y.reshape(len(z)).astype(np.intp)


def multinomial_value(y: Array, z: Array) -> Array:
    """Minus the log-likelihood of the classes, in nats.

    Parameters
    ----------
    y : (rows,) or (rows, 1) array
        Codes of the classes, whole numbers from 0.
    z : (rows, classes) array

    Returns
    -------
    (rows,) array
    """
    return softmax(z.T, np.empty_like(z).T) - z[np.arange(len(z)), _codes(y, z)]


def multinomial_gradient(y: Array, z: Array) -> Array:
    """Probabilities less the indicator of the class: (rows, classes), adding up to 0 in a row."""
    out = probabilities(z)
    out[np.arange(len(z)), _codes(y, z)] -= 1.0
    return out


def hinge_value(y: Array, z: Array) -> Array:
    """Return how far z falls short of a margin of 1 on the side of y in {0, 1}."""
    return np.maximum(1.0 - (2.0 * y - 1.0) * z, 0.0)


def hinge_gradient(y: Array, z: Array) -> Array:
    """Return the side of y, turned round, where the margin isn't reached; a NaN for a NaN."""
    side = 2.0 * y - 1.0
    return -side * (side * z < 1.0) + 0.0 * z


def hinge_hessian(y: Array, z: Array) -> Array:  # noqa: ARG001 (the signature of every loss)
    """Zero wherever there is a second derivative."""
    return np.zeros_like(z)


SQUARED = Loss(
    name="squared",
    code=0,
    value=squared_value,
    gradient=squared_gradient,
    hessian=squared_hessian,
    mean=identity,
    curvature=1.0,
    link="identity",
    constant_curvature=True,
)
LOGISTIC = Loss(
    name="logistic",
    code=1,
    value=logistic_value,
    gradient=logistic_gradient,
    hessian=logistic_hessian,
    mean=logistic_mean,
    curvature=0.25,
    link="logit",
)
MULTINOMIAL = Loss(
    name="multinomial",
    code=2,
    value=multinomial_value,
    gradient=multinomial_gradient,
    hessian=None,
    mean=probabilities,
    curvature=0.5,
    link="multinomial logit",
)
HINGE = Loss(
    name="hinge",
    code=3,
    value=hinge_value,
    gradient=hinge_gradient,
    hessian=hinge_hessian,
    mean=identity,
    curvature=1.0,  # it has none to bound: that of a squared hinge, half as steep, for step sizes
    link="identity",
)

LOSSES = MappingProxyType({loss.name: loss for loss in (SQUARED, LOGISTIC, MULTINOMIAL, HINGE)})
