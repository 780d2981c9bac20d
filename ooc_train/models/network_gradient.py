"""What updates of a network need of its problem."""

from typing import Protocol

from ooc_train.augmentation.augmenter import Augmentations
from ooc_train.core.sums import Block
from ooc_train.kernels.specs import KernelSpec
from ooc_train.models.gradient_updates import BlockGradient
from ooc_train.models.network import Layers
from ooc_train.objective.loss import Loss
from ooc_train.objective.scaling import Scaling


class NetworkGradient(BlockGradient, Protocol):
    """What updates of a network need of its problem."""

    @property
    def layers(self) -> Layers:
        """Sizes and activation of the layers."""

    @property
    def loss(self) -> Loss:
        """Loss by the predictors z."""

    @property
    def scaling(self) -> Scaling | None:
        """Scaling of the columns; None for the identity."""

    @property
    def l2(self) -> float:
        """Strength of the penalty on the weights, in units of the sum of losses."""

    @property
    def average(self) -> bool:
        """Whether the model is an average of the parameters, not the last ones."""

    def require_targets(self, block: Block) -> None:
        """Raise `ValueError` for a y that makes no loss infinite, and is no probability."""

    @property
    def n_frozen(self) -> int:
        """Number of parameters, from the first, that stay as they are."""

    @property
    def dropout(self) -> float:
        """Probability that a hidden unit is left out of an update."""

    @property
    def augmentations(self) -> Augmentations | None:
        """How updates change rows at random; None if they do not."""

    @property
    def needs(self) -> tuple[KernelSpec, ...]:
        """Compiled kernels that losses and gradients need."""
