"""Activations: what the hidden units of a network make of their inputs.

An activation is a frozen dataclass without fields. As of a loss, the same source of `value` and
`slope` serves NumPy arrays and compiled loops: ufuncs and operators alone.
"""

from dataclasses import dataclass
from math import pi, sqrt
from typing import Any, ClassVar

import numpy as np
from numpy import exp, tanh

from ooc_train.core.named_classes import Registry


@dataclass(frozen=True)
class Activation:
    """A function of the input of a hidden unit.

    Attributes
    ----------
    name : str
        The key in `ACTIVATIONS`.
    start_gain : float
        Factor of the variance of the weights that a network begins with.
    needs_input : bool
        Whether `slope` needs the input, since the value does not tell it.
    """

    name: ClassVar[str]
    start_gain: ClassVar[float] = 6.0
    needs_input: ClassVar[bool] = False

    def value(self, z: Any) -> Any:
        """Return the value at the input `z`, of its shape and type."""
        raise NotImplementedError

    def slope(self, z: Any, a: Any) -> Any:
        """Return the first derivative at the input `z`, where the value is `a`.

        `z` is not read unless the activation `needs_input`.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Relu(Activation):
    """The input if it is above 0, else 0."""

    name: ClassVar[str] = "relu"

    def value(self, z: Any) -> Any:
        """Return the value."""
        return np.maximum(z, 0.0)

    def slope(self, z: Any, a: Any) -> Any:  # noqa: ARG002 (the signature of every activation)
        """Return 1 where the input is above 0, else 0."""
        return a > 0.0


@dataclass(frozen=True)
class Tanh(Activation):
    """The hyperbolic tangent."""

    name: ClassVar[str] = "tanh"

    def value(self, z: Any) -> Any:
        """Return the value."""
        return tanh(z)

    def slope(self, z: Any, a: Any) -> Any:  # noqa: ARG002 (the signature of every activation)
        """Return the derivative."""
        return 1.0 - a * a


@dataclass(frozen=True)
class LogisticSigmoid(Activation):
    """The logistic function, from 0 to 1."""

    name: ClassVar[str] = "logistic"
    start_gain: ClassVar[float] = 2.0

    def value(self, z: Any) -> Any:
        """Return the value; the exponential is never of a number above 0."""
        e = exp(-np.abs(z))
        return (e + (z >= 0.0) * (1.0 - e)) / (1.0 + e)

    def slope(self, z: Any, a: Any) -> Any:  # noqa: ARG002 (the signature of every activation)
        """Return the derivative."""
        return a * (1.0 - a)


@dataclass(frozen=True)
class Identity(Activation):
    """The input itself: layers without an activation, which are a linear model together."""

    name: ClassVar[str] = "identity"

    def value(self, z: Any) -> Any:
        """Return the value."""
        return z

    def slope(self, z: Any, a: Any) -> Any:  # noqa: ARG002 (the signature of every activation)
        """Return 1."""
        return 0.0 * a + 1.0


_ROOT, _CUBE = sqrt(2.0 / pi), 0.044715


@dataclass(frozen=True)
class Gelu(Activation):
    """The Gaussian error linear unit, by its hyperbolic tangent (Hendrycks and Gimpel 2016).

    PyTorch has it as ``GELU(approximate="tanh")``. It is within 5e-4 of the one by the error
    function.
    """

    name: ClassVar[str] = "gelu"
    needs_input: ClassVar[bool] = True

    def value(self, z: Any) -> Any:
        """Return the value."""
        return 0.5 * z * (1.0 + tanh(_ROOT * (z + _CUBE * z * z * z)))

    def slope(self, z: Any, a: Any) -> Any:  # noqa: ARG002 (the signature of every activation)
        """Return the derivative."""
        t = tanh(_ROOT * (z + _CUBE * z * z * z))
        return 0.5 * (1.0 + t) + 0.5 * z * (1.0 - t * t) * _ROOT * (1.0 + 3.0 * _CUBE * z * z)


ACTIVATIONS: Registry[Activation] = Registry(
    "activation", "ACTIVATIONS", (Relu, Tanh, LogisticSigmoid, Identity, Gelu)
)
"""Activations by name. ``@ACTIVATIONS.add`` registers one of your own."""
