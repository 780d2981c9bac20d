"""Linear models for regression by other losses than least squares."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, ClassVar

from ooc_train.core.settings import Constraint, Number
from ooc_train.models.linear_model import Alpha, InverseStrength, LinearModel, StochasticModel
from ooc_train.models.model import SMOOTH_SOLVERS, UPDATES, DataFigures
from ooc_train.models.predictor import Predictor, ScaledPredictor
from ooc_train.objective.loss import Loss
from ooc_train.objective.losses.epsilon_insensitive import EpsilonInsensitive
from ooc_train.objective.losses.huber import Huber
from ooc_train.objective.losses.quantile import Quantile
from ooc_train.objective.losses.scaled_huber import FittedHuber, ScaledHuber
from ooc_train.objective.losses.squared import Squared
from ooc_train.objective.losses.squared_epsilon_insensitive import SquaredEpsilonInsensitive
from ooc_train.objective.penalty import Penalty

if TYPE_CHECKING:
    from ooc_train.models.linear import LinearProblem

_Tube = EpsilonInsensitive | SquaredEpsilonInsensitive

_TUBES: Mapping[str, type[_Tube]] = MappingProxyType(
    {loss.name: loss for loss in (EpsilonInsensitive, SquaredEpsilonInsensitive)}
)
"""The losses of support vector regression, by scikit-learn's names."""

_SGD_LOSSES: Mapping[str, type[_Tube | Huber]] = MappingProxyType({"huber": Huber, **_TUBES})
"""Losses with an epsilon, by scikit-learn's names."""


@dataclass(frozen=True, kw_only=True)
class HuberModel(LinearModel):
    """Huber regression with a fitted scale and an l2 penalty, as scikit-learn's.

    The sum of `s + h((y - z) / s) s` plus `alpha * |w|^2` is minimised, by the weights w and the
    scale s. `h(u)` is `u^2` up to epsilon, and its tangent beyond.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from ooc_train import HuberModel, train
    >>> X, y = load_diabetes(return_X_y=True)
    >>> fitted, report = train(HuberModel(), X, y=y)
    >>> report.solver
    'newton'
    """

    epsilon: Annotated[
        float,
        Number(least=1.0),
        "Residual, in units of the scale, from which on a row is an outlier.",
    ] = 1.35
    alpha: Alpha = 0.0001

    name: ClassVar[str] = "huber"
    default_tol: ClassVar[float] = 1e-5
    solvers: ClassVar[tuple[str, ...]] = ("newton", "proximal-newton", "lbfgs", "proximal-lbfgs")
    learns_by_batches: ClassVar[bool] = False

    def loss_for(self, n_classes: int) -> Loss:
        """Return Huber's loss by the predictor of y and the scale."""
        del n_classes
        return ScaledHuber(float(self.epsilon))

    def fitted_loss(self, n_classes: int, predictor: Predictor) -> Loss:
        """Return Huber's loss at the fitted scale."""
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

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from ooc_train import QuantileModel, train
    >>> X, y = load_diabetes(return_X_y=True)
    >>> fitted, report = train(QuantileModel(quantile=0.9, alpha=0.0), X, y=y)
    >>> report.solver
    'smoothing'
    """

    quantile: Annotated[
        float,
        Number(above=0.0, most=1.0),
        "Fraction of y that predictions are to be above: 0.5 is the median. Below 1.",
    ] = 0.5
    alpha: Alpha = 1.0

    name: ClassVar[str] = "quantile"
    solvers: ClassVar[tuple[str, ...]] = ("smoothing", *UPDATES)

    def __post_init__(self) -> None:
        """Check the settings, and that the quantile is below 1."""
        super().__post_init__()
        self.loss_for(0)

    def loss_for(self, n_classes: int) -> Loss:
        """Return the quantile loss."""
        del n_classes
        return Quantile(float(self.quantile))

    def penalty_for(self, total_weight: float) -> Penalty:
        """Return the l1 penalty: `alpha` times the total weight."""
        return Penalty(l1=float(self.alpha) * total_weight)


@dataclass(frozen=True, kw_only=True)
class LinearSVRModel(LinearModel):
    """Linear support vector regression: a loss of residuals beyond a tube, with an l2 penalty.

    `1 / (2 C) * |w|^2` is added to the sum of losses.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from ooc_train import LinearSVRModel, train
    >>> X, y = load_diabetes(return_X_y=True)
    >>> fitted, report = train(LinearSVRModel(C=10.0), X, y=y)
    >>> report.solver
    'smoothing'
    """

    epsilon: Annotated[
        float, Number(least=0.0), "Largest residual that costs nothing, in units of y."
    ] = 0.0
    C: InverseStrength = 1.0
    loss: Annotated[
        str,
        Constraint(tuple(_TUBES)),
        "How a row is charged for what its residual exceeds epsilon by: that itself, or the square "
        "of it.",
    ] = "epsilon_insensitive"

    name: ClassVar[str] = "linear-svr"
    solvers: ClassVar[tuple[str, ...]] = (*SMOOTH_SOLVERS, "smoothing", *UPDATES)
    default_max_iter: ClassVar[int] = 1000

    def loss_for(self, n_classes: int) -> Loss:
        """Return the epsilon-insensitive loss, or its square."""
        del n_classes
        return _TUBES[self.loss](float(self.epsilon))

    def penalty_for(self, total_weight: float) -> Penalty:
        """Return the l2 penalty `1 / C`."""
        del total_weight
        return Penalty(l2=1.0 / self.C)


@dataclass(frozen=True, kw_only=True)
class SGDRegressorModel(StochasticModel):
    """A linear model for regression by one of several losses, in batches of one row by default.

    The mean loss of a row, by weight, plus
    `alpha * (l1_ratio * |w| + (1 - l1_ratio) / 2 * |w|^2)` is minimised.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from ooc_train import SGDRegressorModel, Training, train
    >>> X, y = load_diabetes(return_X_y=True)
    >>> settings = Training(batch_size=1, max_iter=5, random_state=0)
    >>> fitted, report = train(SGDRegressorModel(), X, settings, y=y)
    >>> report.updates
    2210
    """

    loss: Annotated[
        str,
        Constraint(("squared_error", *_SGD_LOSSES)),
        "The loss of a row, by scikit-learn's name.",
    ] = "squared_error"
    epsilon: Annotated[
        float,
        Number(least=0.0),
        "Residual, in units of y, at which Huber's loss becomes linear (above 0), or up to which "
        "the epsilon-insensitive ones are 0.",
    ] = 0.1

    name: ClassVar[str] = "sgd-regressor"

    def __post_init__(self) -> None:
        """Check the settings, and that Huber's loss has an epsilon above 0."""
        super().__post_init__()
        self.loss_for(0)

    def loss_for(self, n_classes: int) -> Loss:
        """Return the loss that the setting `loss` names."""
        del n_classes
        if self.loss == "squared_error":
            return Squared()
        return _SGD_LOSSES[self.loss](float(self.epsilon))
