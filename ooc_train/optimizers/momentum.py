"""Heavy-ball momentum (Polyak 1964): steps down a decaying sum of the gradients so far."""

from dataclasses import dataclass
from typing import Any, ClassVar

from ooc_train.optimizers.optimizer import Optimizer, require_share


@dataclass(frozen=True)
class Momentum(Optimizer):
    """Gradient descent with heavy-ball momentum.

    Attributes
    ----------
    momentum : float
        Share of the last step's velocity that the next one keeps. At least 0 and below 1.
    """

    momentum: float = 0.9

    name: ClassVar[str] = "momentum"
    slot_powers: ClassVar[tuple[int, ...]] = (1,)

    def __post_init__(self) -> None:
        require_share("momentum", self.momentum)

    @property
    def gain(self) -> float:
        """Learning rates that a constant gradient moves the parameters by, a step, in the end."""
        return 1.0 / (1.0 - self.momentum)

    def prepare(self, age: float, part: float) -> tuple[float, ...]:  # noqa: ARG002
        """Return the share of the velocity that is kept."""
        return (self.momentum**part,)

    def step(self, theta: Any, g: Any, eta: float, scalars: tuple[float, ...], *slots: Any) -> Any:
        """Return the parameters and the velocity after a step."""
        velocity = scalars[0] * slots[0] + g
        return theta - eta * velocity, velocity

    def proximal_rate(self, eta: float, scalars: tuple[float, ...], *slots: Any) -> Any:  # noqa: ARG002
        """Return the rate of the whole velocity that a constant gradient gathers."""
        return eta / (1.0 - self.momentum)
