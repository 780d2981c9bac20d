"""Adagrad (Duchi, Hazan and Singer 2011): steps by the root of the sum of squared gradients."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ooc_train.optimizers.optimizer import Optimizer, require_above_zero


@dataclass(frozen=True)
class Adagrad(Optimizer):
    """Adagrad in its diagonal form: one sum of squared gradients for each parameter.

    Steps become shorter with the root of their number, and so a constant learning rate serves.
    An incomplete batch adds its share of the square.

    Attributes
    ----------
    epsilon : float
        Added to the root of the sum of squares. Above 0.
    """

    epsilon: float = 1e-10

    name: ClassVar[str] = "adagrad"
    slot_powers: ClassVar[tuple[int, ...]] = (2,)
    in_vectors: ClassVar[bool] = True
    normalised: ClassVar[bool] = True
    slowing: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_above_zero("epsilon", self.epsilon)

    def prepare(self, age: float, part: float) -> tuple[float, ...]:  # noqa: ARG002
        """Return `part`, the share of a full batch that the batch has."""
        return (part,)

    def step(self, theta: Any, g: Any, eta: float, scalars: tuple[float, ...], *slots: Any) -> Any:
        """Return the parameters and the sum of squares after a step."""
        squares = slots[0] + scalars[0] * (g * g)
        return theta - eta * g / (np.sqrt(squares) + self.epsilon), squares

    def proximal_rate(self, eta: float, scalars: tuple[float, ...], *slots: Any) -> Any:  # noqa: ARG002
        """Return each parameter's rate of the proximal step (Duchi et al. 2011, section 5.1)."""
        return eta / (np.sqrt(slots[0]) + self.epsilon)
