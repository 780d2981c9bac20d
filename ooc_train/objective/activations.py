"""Activations: the functions that hidden units of a network apply to their inputs.

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
    """A function that a hidden unit applies to its input.

    Attributes
    ----------
    name : str
        The key in `ACTIVATIONS`.
    start_gain : float
        Factor of the variance of a network's initial weights.
    needs_input : bool
        Whether `slope` needs the input `z`, because the value `a` does not determine it.
    """

    name: ClassVar[str]
    start_gain: ClassVar[float] = 6.0
    needs_input: ClassVar[bool] = False

    def value(self, z: Any) -> Any:
        """Return the activation at the input `z`, of the shape and type of `z`."""
        raise NotImplementedError

    def slope(self, z: Any, a: Any) -> Any:
        """Return the derivative by the input `z`, given the value `a` there.

        `z` is not read unless the activation `needs_input`.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Relu(Activation):
    """The rectified linear unit: the input if it is above 0, else 0."""

    name: ClassVar[str] = "relu"

    def value(self, z: Any) -> Any:
        """Return ``max(z, 0)``."""
        return np.maximum(z, 0.0)

    def slope(self, z: Any, a: Any) -> Any:  # noqa: ARG002 (the signature of every activation)
        """Return the derivative by z: 1 where the input is above 0, else 0."""
        return a > 0.0


@dataclass(frozen=True)
class Tanh(Activation):
    """The hyperbolic tangent."""

    name: ClassVar[str] = "tanh"

    def value(self, z: Any) -> Any:
        """Return ``tanh(z)``."""
        return tanh(z)

    def slope(self, z: Any, a: Any) -> Any:  # noqa: ARG002 (the signature of every activation)
        """Return the derivative by z, ``1 - a**2``."""
        return 1.0 - a * a


@dataclass(frozen=True)
class LogisticSigmoid(Activation):
    """The logistic function, from 0 to 1."""

    name: ClassVar[str] = "logistic"
    start_gain: ClassVar[float] = 2.0

    def value(self, z: Any) -> Any:
        """Return ``1 / (1 + exp(-z))``, from an exponential that cannot overflow."""
        e = exp(-np.abs(z))
        return (e + (z >= 0.0) * (1.0 - e)) / (1.0 + e)

    def slope(self, z: Any, a: Any) -> Any:  # noqa: ARG002 (the signature of every activation)
        """Return the derivative by z, ``a (1 - a)``."""
        return a * (1.0 - a)


@dataclass(frozen=True)
class Identity(Activation):
    """The identity: a network of such layers is a linear model."""

    name: ClassVar[str] = "identity"

    def value(self, z: Any) -> Any:
        """Return `z` itself."""
        return z

    def slope(self, z: Any, a: Any) -> Any:  # noqa: ARG002 (the signature of every activation)
        """Return ones, the derivative by z."""
        return 0.0 * a + 1.0


_ROOT, _CUBE = sqrt(2.0 / pi), 0.044715


@dataclass(frozen=True)
class Gelu(Activation):
    """The Gaussian error linear unit, in its tanh approximation (Hendrycks and Gimpel 2016).

    PyTorch has it as ``GELU(approximate="tanh")``. The approximation is within 5e-4
    of the exact function, which uses the error function.
    """

    name: ClassVar[str] = "gelu"
    needs_input: ClassVar[bool] = True

    def value(self, z: Any) -> Any:
        """Return ``0.5 z (1 + tanh(sqrt(2 / pi) (z + 0.044715 z**3)))``."""
        return 0.5 * z * (1.0 + tanh(_ROOT * (z + _CUBE * z * z * z)))

    def slope(self, z: Any, a: Any) -> Any:  # noqa: ARG002 (the signature of every activation)
        """Return the derivative by z."""
        t = tanh(_ROOT * (z + _CUBE * z * z * z))
        return 0.5 * (1.0 + t) + 0.5 * z * (1.0 - t * t) * _ROOT * (1.0 + 3.0 * _CUBE * z * z)


ACTIVATIONS: Registry[Activation] = Registry(
    "activation", "ACTIVATIONS", (Relu, Tanh, LogisticSigmoid, Identity, Gelu)
)
"""Activations by name. ``@ACTIVATIONS.add`` registers one of your own."""
