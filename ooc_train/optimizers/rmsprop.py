"""RMSprop (Tieleman and Hinton 2012): steps by a running root mean square of the gradient."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ooc_train.optimizers.optimizer import Optimizer, require_above_zero, require_share


@dataclass(frozen=True)
class Rmsprop(Optimizer):
    """RMSprop, without momentum.

    The mean square begins at zero and is not corrected, as in the lecture: the first step is
    ``1 / sqrt(1 - rho)`` times as long as later ones.

    Attributes
    ----------
    rho : float
        Decay of the running mean of the squared gradient. At least 0 and below 1.
    epsilon : float
        Added to the root of the mean square. Above 0.
    """

    rho: float = 0.99
    epsilon: float = 1e-8

    name: ClassVar[str] = "rmsprop"
    slot_powers: ClassVar[tuple[int, ...]] = (2,)
    in_vectors: ClassVar[bool] = True
    normalised: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share("rho", self.rho)
        require_above_zero("epsilon", self.epsilon)

    @property
    def first_step(self) -> float:
        """Size of the first step, in units of the learning rate."""
        return float(1.0 / np.sqrt(1.0 - self.rho))

    def prepare(self, age: float, part: float) -> tuple[float, ...]:  # noqa: ARG002
        """Return the weight of the new squared gradient in the running mean."""
        if part < 1.0:
            return (1.0 - self.rho**part,)
        return (1.0 - self.rho,)

    def step(self, theta: Any, g: Any, eta: float, scalars: tuple[float, ...], *slots: Any) -> Any:
        """Return the parameters and the running mean square after a step."""
        square = slots[0] + scalars[0] * (g * g - slots[0])
        return theta - eta * g / (np.sqrt(square) + self.epsilon), square

    def proximal_rate(self, eta: float, scalars: tuple[float, ...], *slots: Any) -> Any:  # noqa: ARG002
        """Return each parameter's rate over its root mean square gradient (Yun et al. 2021)."""
        return eta / (np.sqrt(slots[0]) + self.epsilon)
