"""Momentum: steps down a decaying sum of the gradients so far.

The heavy ball (Polyak 1964), and Nesterov's accelerated gradient in the form of Sutskever et al.
(2013), with the parameters at the point of the gradient, as in PyTorch.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from ooc_train.optimizers.optimizer import Optimizer, require_flag, require_share


@dataclass(frozen=True)
class Momentum(Optimizer):
    """Gradient descent with momentum.

    Attributes
    ----------
    momentum : float
        Share of the last step's velocity that the next one keeps. At least 0 and below 1.
    nesterov : bool
        Whether a step looks ahead: by the gradient and the next step's share of the velocity.
    """

    momentum: float = 0.9
    nesterov: bool = False

    name: ClassVar[str] = "momentum"
    slot_powers: ClassVar[tuple[int, ...]] = (1,)
    in_vectors: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share("momentum", self.momentum)
        require_flag("nesterov", self.nesterov)
        object.__setattr__(self, "nesterov", bool(self.nesterov))  # kernels hand over 0.0 or 1.0

    @property
    def gain(self) -> float:
        """Limit of the steps under a constant gradient, over learning rate times gradient."""
        return 1.0 / (1.0 - self.momentum)

    @property
    def curvature_gain(self) -> float:
        """1: momentum makes the limit of stability no smaller.

        Steps without noise are stable up to ``2 * (1 + momentum) / curvature``, and by Nesterov up
        to ``2 * (1 + momentum) / (1 + 2 * momentum) / curvature``, which is above 4/3 (Lessard,
        Recht and Packard 2016, section 4). Closer to that limit, runs of a dozen updates end badly.
        """
        return 1.0

    def prepare(self, age: float, part: float) -> tuple[float, ...]:  # noqa: ARG002
        """Return the share of velocity kept, and the factors of gradient and velocity in a step."""
        kept = self.momentum**part
        if self.nesterov:
            return kept, 1.0, kept
        return kept, 0.0, 1.0

    def step(self, theta: Any, g: Any, eta: float, scalars: tuple[float, ...], *slots: Any) -> Any:
        """Return the parameters and the velocity after a step."""
        kept, of_gradient, of_velocity = scalars
        velocity = kept * slots[0] + g
        return theta - eta * (of_gradient * g + of_velocity * velocity), velocity

    def proximal_rate(self, eta: float, scalars: tuple[float, ...], *slots: Any) -> Any:  # noqa: ARG002
        """Return ``eta / (1 - momentum)``, the rate that a constant gradient reaches."""
        return eta / (1.0 - self.momentum)
