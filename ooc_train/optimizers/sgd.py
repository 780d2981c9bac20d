"""Gradient descent: a step down the gradient."""

from dataclasses import dataclass
from typing import Any, ClassVar

from ooc_train.optimizers.optimizer import Optimizer


@dataclass(frozen=True)
class Sgd(Optimizer):
    """Stochastic gradient descent."""

    name: ClassVar[str] = "sgd"
    slot_powers: ClassVar[tuple[int, ...]] = ()
    in_vectors: ClassVar[bool] = True
    linear: ClassVar[bool] = True

    def prepare(self, age: float, part: float) -> tuple[float, ...]:  # noqa: ARG002
        """Return no scalars."""
        return ()

    def step(self, theta: Any, g: Any, eta: float, scalars: tuple[float, ...], *slots: Any) -> Any:  # noqa: ARG002
        """Return the parameters after a step."""
        return (theta - eta * g,)
