"""Linear models of a class."""

from dataclasses import dataclass
from math import inf
from typing import Annotated, ClassVar

from ooc_train.core.settings import Number
from ooc_train.models.linear_model import ClassWeights, L1Ratio, LinearModel
from ooc_train.objective.loss import Loss
from ooc_train.objective.losses.logistic import Logistic
from ooc_train.objective.losses.multinomial import Multinomial
from ooc_train.objective.penalty import Penalty


@dataclass(frozen=True, kw_only=True)
class LogisticModel(LinearModel):
    """Logistic regression with an elastic-net penalty; multinomial for more than two classes.

    `(l1_ratio * |w| + (1 - l1_ratio) / 2 * |w|^2) / C` is added to the sum of losses.
    """

    C: Annotated[
        float,
        Number(above=0.0, most=inf),
        "Inverse strength of the penalty, relative to the sum of losses, in the units of the data; "
        "infinity is no penalty.",
    ] = 1.0
    l1_ratio: L1Ratio = 0.0
    class_weight: ClassWeights = None

    name: ClassVar[str] = "logistic"

    @property
    def is_classifier(self) -> bool:
        """Whether y holds classes."""
        return True

    def loss_for(self, n_classes: int) -> Loss:
        """Return the logistic loss, or the multinomial one for more than two classes."""
        return Logistic() if n_classes == 2 else Multinomial()

    def penalty_for(self, total_weight: float) -> Penalty:
        """Return the penalty, of which both strengths add up to `1 / C`."""
        del total_weight
        strength, ratio = 1.0 / self.C, float(self.l1_ratio)
        return Penalty(strength * ratio, strength * (1.0 - ratio))
