"""Linear models of a number by other losses than least squares."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from ooc_train.core.settings import Number
from ooc_train.models.linear_model import Alpha, LinearModel
from ooc_train.models.model import DataFigures
from ooc_train.models.predictor import Predictor, ScaledPredictor
from ooc_train.objective.loss import Loss
from ooc_train.objective.losses.quantile import Quantile
from ooc_train.objective.losses.scaled_huber import FittedHuber, ScaledHuber
from ooc_train.objective.penalty import Penalty

if TYPE_CHECKING:
    from ooc_train.models.linear import LinearProblem


@dataclass(frozen=True, kw_only=True)
class HuberModel(LinearModel):
    """Huber regression, whose scale is fitted too, with an l2 penalty; as scikit-learn's.

    The sum of `s + h((y - z) / s) s` plus `alpha * |w|^2` is minimised, by the weights w and the
    scale s. `h(u)` is `u^2` up to epsilon, and its tangent beyond.
    """

    epsilon: Annotated[
        float,
        Number(least=1.0),
        "Residual, in units of the scale, from which on a row is an outlier.",
    ] = 1.35
    alpha: Alpha = 0.0001

    name: ClassVar[str] = "huber"
    default_tol: ClassVar[float] = 1e-5
    learns_by_batches: ClassVar[bool] = False

    def loss_for(self, n_classes: int) -> Loss:
        """Return the loss by y's predictor and the scale."""
        del n_classes
        return ScaledHuber(float(self.epsilon))

    def fitted_loss(self, n_classes: int, predictor: Predictor) -> Loss:
        """Return the loss at the scale that was learned."""
        if not isinstance(predictor, ScaledPredictor):
            return super().fitted_loss(n_classes, predictor)
        return FittedHuber(float(self.epsilon), float(predictor.scale[0]))

    def penalty_for(self, total_weight: float) -> Penalty:
        """Return the l2 penalty, twice `alpha`."""
        del total_weight
        return Penalty(l2=2.0 * float(self.alpha))

    def problem(self, data: DataFigures) -> "LinearProblem":
        """Return the problem of learning the model from data.

        Raises
        ------
        ValueError
            If y has several columns, whose scales would differ.
        """
        from ooc_train.models.scale_problem import ScaleProblem

        if data.n_targets > 1:
            raise ValueError(
                f"a huber model has one scale, and y has {data.n_targets} columns; fit one model "
                "for each column"
            )
        return ScaleProblem.of(super().problem(data))


@dataclass(frozen=True, kw_only=True)
class QuantileModel(LinearModel):
    """Regression of a quantile of y, with an l1 penalty; as scikit-learn's.

    The mean of the quantile loss, by weight, plus `alpha * |w|` is minimised.
    """

    quantile: Annotated[
        float,
        Number(above=0.0, most=1.0),
        "Share of y that predictions are to be above: 0.5 is the median. Below 1.",
    ] = 0.5
    alpha: Alpha = 1.0

    name: ClassVar[str] = "quantile"

    def __post_init__(self) -> None:
        """Check the settings; the loss refuses a quantile of 1."""
        super().__post_init__()
        self.loss_for(0)

    def loss_for(self, n_classes: int) -> Loss:
        """Return the quantile loss."""
        del n_classes
        return Quantile(float(self.quantile))

    def penalty_for(self, total_weight: float) -> Penalty:
        """Return the l1 penalty: `alpha` times the total weight."""
        return Penalty(l1=float(self.alpha) * total_weight)
