"""Adam (Kingma and Ba 2015): steps by running means of the gradient and of its square."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ooc_train.optimizers.optimizer import Optimizer, require_above_zero, require_share


def bias_factor(decay: float, age: float) -> float:
    """Return the factor against the bias of a running mean that began at zero.

    The power costs as much as a row. Where ``age * (1 - decay)`` is above 38, the power is below
    ``exp(-38)``, and its difference from 1 is 1 in float64.
    """
    if age * (1.0 - decay) > 38.0:
        return 1.0
    power: float = decay**age
    return 1.0 / (1.0 - power)


@dataclass(frozen=True)
class Adam(Optimizer):
    """The Adam optimizer, with running means corrected for their start at zero.

    Attributes
    ----------
    beta1, beta2 : float
        Decay of the running mean of the gradient, and of its square. At least 0 and below 1.
    epsilon : float
        Added to the root of the mean square. Above 0.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    name: ClassVar[str] = "adam"
    slot_powers: ClassVar[tuple[int, ...]] = (1, 2)
    in_vectors: ClassVar[bool] = True
    normalised: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share("beta1", self.beta1)
        require_share("beta2", self.beta2)
        require_above_zero("epsilon", self.epsilon)

    def prepare(self, age: float, part: float) -> tuple[float, ...]:
        """Return the weights of new values in both means, and the factors against their bias."""
        gain1, gain2 = 1.0 - self.beta1, 1.0 - self.beta2
        if part < 1.0:  # a power costs as much as a row
            gain1, gain2 = 1.0 - self.beta1**part, 1.0 - self.beta2**part
        return gain1, gain2, bias_factor(self.beta1, age), bias_factor(self.beta2, age)

    def step(self, theta: Any, g: Any, eta: float, scalars: tuple[float, ...], *slots: Any) -> Any:
        """Return the parameters and both running means after a step."""
        gain1, gain2, bias1, bias2 = scalars
        mean = slots[0] + gain1 * (g - slots[0])
        square = slots[1] + gain2 * (g * g - slots[1])
        move = bias1 * mean / (np.sqrt(bias2 * square) + self.epsilon)
        return theta - eta * move, mean, square

    def proximal_rate(self, eta: float, scalars: tuple[float, ...], *slots: Any) -> Any:
        """Return each parameter's rate over its root mean square gradient (Yun et al. 2021)."""
        return eta / (np.sqrt(scalars[3] * slots[1]) + self.epsilon)
