"""The model of any loss, registered or a user's own."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from ooc_train.core.settings import Number, Part
from ooc_train.models.linear_model import ClassWeights, LinearModel
from ooc_train.objective.loss import Loss
from ooc_train.objective.losses import LOSSES
from ooc_train.objective.penalty import Penalty


@dataclass(frozen=True, kw_only=True)
class CustomModel(LinearModel):
    """A linear predictor with any loss, and an elastic-net penalty on the weights.

    `l1 * |w| + l2 / 2 * |w|^2` is added to the sum of the rows' losses.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from ooc_train import CustomModel, LOSSES, train
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = CustomModel(loss=LOSSES["huber"](), l1=1.0)
    >>> fitted, report = train(model, X, y=y)
    >>> report.solver
    'smoothing'
    """

    loss: Annotated[
        Loss, Part(of=Loss, registry=LOSSES), "The loss of a row, registered or your own."
    ]
    l1: Annotated[
        float, Number(least=0.0), "Strength of the l1 penalty, in the units of the data."
    ] = 0.0
    l2: Annotated[
        float, Number(least=0.0), "Strength of the l2 penalty, in the units of the data."
    ] = 0.0
    class_weight: ClassWeights = None

    name: ClassVar[str] = "custom"

    def __post_init__(self) -> None:
        """Check the settings, and that they are compatible."""
        super().__post_init__()
        if self.class_weight is not None and not self.is_classifier:
            raise ValueError(
                f"class_weight is for classes, and the {self.loss.name} loss has none; leave it out"
            )

    @property
    def is_classifier(self) -> bool:
        """Whether y holds class labels."""
        return self.loss.target in ("binary", "codes")

    def loss_for(self, n_classes: int) -> Loss:
        """Return the loss; a binary loss of several classes tells each class from the rest.

        Raises
        ------
        ValueError
            If the loss is not for so many classes.
        """
        if self.loss.target == "codes" and n_classes == 2:
            raise ValueError(
                f"the {self.loss.name} loss is for more than 2 classes, and y has 2; use a binary "
                "loss, such as logistic"
            )
        return self.loss

    def penalty_for(self, total_weight: float) -> Penalty:
        """Return the elastic-net penalty."""
        del total_weight
        return Penalty(float(self.l1), float(self.l2))
