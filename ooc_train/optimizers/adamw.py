"""AdamW (Loshchilov and Hutter 2019): Adam, with a weight decay apart from the gradient."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ooc_train.optimizers.adam import Adam
from ooc_train.optimizers.optimizer import require_not_negative


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay.

    Before each step, every weight is multiplied by ``1 - eta * weight_decay``, or by 0 where that
    is negative. Intercepts are not decayed.

    The factor is the same for weights of scaled columns and for weights in the data's units. It
    pulls against steps of the size of the rate on scaled columns. So the balance is one of
    standardised columns: no scaled weight stays above ``1 / weight_decay`` in size. Columns are
    centred too, so that the decay leaves the prediction at the columns' means as it is.

    The decay is no penalty: no objective counts it, and it holds the model away from the optimum.

    Attributes
    ----------
    beta1, beta2 : float
        Decay of the running mean of the gradient, and of its square. At least 0 and below 1.
    epsilon : float
        Added to the root of the mean square. Above 0.
    weight_decay : float
        Share of each weight that a step takes away, in units of the learning rate. At least 0.
    """

    weight_decay: float = 0.01

    name: ClassVar[str] = "adamw"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_not_negative("weight_decay", self.weight_decay)

    @property
    def decay(self) -> float:
        """The weight decay, in units of the learning rate."""
        return self.weight_decay

    def retained(self, eta: float) -> Any:
        """Return the factor of each weight before a step, ``max(1 - eta * weight_decay, 0)``."""
        return np.maximum(0.0, 1.0 - eta * self.weight_decay)
