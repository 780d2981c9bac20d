"""The models with a linear predictor `z = X @ w + b`.

To add one: its class, and its line in `MODELS`.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np

from ooc_train.core.named_classes import Registry, plain
from ooc_train.core.schema import shown
from ooc_train.core.settings import Constraint, Flag, Number, Part
from ooc_train.models.model import DataFigures, Model
from ooc_train.objective.loss import Loss
from ooc_train.objective.losses import LOSSES
from ooc_train.objective.losses.gamma import Gamma
from ooc_train.objective.losses.logistic import Logistic
from ooc_train.objective.losses.multinomial import Multinomial
from ooc_train.objective.losses.poisson import Poisson
from ooc_train.objective.losses.squared import Squared
from ooc_train.objective.losses.tweedie import Tweedie
from ooc_train.objective.penalty import NO_PENALTY, Penalty
from ooc_train.objective.scaling import Scaling

if TYPE_CHECKING:
    from ooc_train.models.linear import LinearProblem

_WEIGHT = Number(least=0.0)


@dataclass(frozen=True)
class ClassWeight(Constraint):
    """None, "balanced", or a mapping from labels to weights."""

    words: tuple[str | None, ...] = (None, "balanced")

    kind: ClassVar[str] = "mapping"

    @property
    def _others(self) -> str:
        return "a mapping from labels to weights"

    def _checked(self, name: str, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise self._refused(name, value)
        for label, weight in value.items():
            _WEIGHT.check(f"{name} of {shown(label)}", weight)
        return value

    def _parsed(self, name: str, text: str) -> Any:
        pairs = [part.rpartition("=") for part in text.split(",")]
        try:
            weights = {label: float(weight) for label, _, weight in pairs}
        except ValueError:
            weights = {}
        if "" in weights or len(weights) != len(pairs):
            raise ValueError(
                f"{name}={shown(text)} is not 'balanced' or the weights of labels, such as "
                "no=1,yes=5"
            )
        return weights

    def to_json(self, value: Any) -> Any:
        """Return the value as one of JSON, which names labels by text."""
        if not isinstance(value, Mapping):
            return value
        return {str(plain(label)): plain(weight) for label, weight in value.items()}

    @property
    def metavar(self) -> str:
        """The accepted values, in the help of an option."""
        return "balanced|LABEL=W,..."


_Alpha = Annotated[float, Number(least=0.0), "Strength of the penalty, in the units of the data."]
_ClassWeights = Annotated[
    str | Mapping[Any, float] | None,
    ClassWeight(),
    'Weight of each class by its label; "balanced" is in inverse proportion to its rows.',
]
"""Settings that several models have."""


@dataclass(frozen=True, kw_only=True)
class LinearModel(Model):
    """The base of all models with a linear predictor."""

    fit_intercept: Annotated[
        bool, Flag(), "Whether there is an intercept. It is not penalised."
    ] = True
    standardize: Annotated[
        bool, Flag(), "Whether the penalty is on the weights of standardised columns."
    ] = False

    @property
    def is_classifier(self) -> bool:
        """Whether y holds classes."""
        return False

    @abstractmethod
    def penalty_for(self, total_weight: float) -> Penalty:
        """Return the penalty on the weights, in the data's units, added to the sum of losses.

        Parameters
        ----------
        total_weight : float
            Sum of the rows' weights, by which models whose `alpha` stands beside the mean loss
            multiply it.
        """

    def problem(self, data: DataFigures) -> "LinearProblem":
        """Return the problem of learning the model from data; its scaling is the identity."""
        # The command line makes its options of this file, and so it loads no kernels.
        from ooc_train.models.linear import LinearProblem

        n_outputs = data.n_targets
        if self.is_classifier:
            n_outputs = 1 if data.n_classes == 2 else data.n_classes
        # Broadcast arrays take no memory, which the plan has yet to grant.
        identity = Scaling(
            np.broadcast_to(0.0, data.n_features), np.broadcast_to(1.0, data.n_features)
        )
        return LinearProblem(
            self.loss_for(data.n_classes),
            n_outputs,
            data.n_rows,
            data.total_weight,
            identity,
            self.penalty_for(data.total_weight),
            self.fit_intercept,
            self.standardize,
            data.class_weight,
        )


@dataclass(frozen=True, kw_only=True)
class LeastSquares(LinearModel):
    """Least squares: the sum of `(y - z)^2 / 2`."""

    name: ClassVar[str] = "linear"
    default_tol: ClassVar[float] = 1e-6

    def loss_for(self, n_classes: int) -> Loss:
        """Return the squared loss."""
        del n_classes
        return Squared()

    def penalty_for(self, total_weight: float) -> Penalty:
        """Return no penalty."""
        del total_weight
        return NO_PENALTY


@dataclass(frozen=True, kw_only=True)
class RidgeModel(LeastSquares):
    """Least squares with an l2 penalty, as scikit-learn's: `alpha / 2 * |w|^2` is added."""

    alpha: _Alpha = 1.0

    name: ClassVar[str] = "ridge"
    default_tol: ClassVar[float] = 1e-4

    def penalty_for(self, total_weight: float) -> Penalty:
        """Return the l2 penalty `alpha`."""
        del total_weight
        return Penalty(l2=float(self.alpha))


@dataclass(frozen=True, kw_only=True)
class LassoModel(LeastSquares):
    """Least squares with an l1 penalty, as scikit-learn's.

    The mean of `(y - z)^2 / 2` over rows, by weight, plus `alpha * |w|` is minimised.
    """

    alpha: _Alpha = 1.0

    name: ClassVar[str] = "lasso"
    default_tol: ClassVar[float] = 1e-4
    default_max_iter: ClassVar[int] = 1000

    def penalty_for(self, total_weight: float) -> Penalty:
        """Return the l1 penalty: `alpha` times the total weight."""
        return Penalty(l1=float(self.alpha) * total_weight)


@dataclass(frozen=True, kw_only=True)
class ElasticNetModel(LeastSquares):
    """Least squares with an l1 and an l2 penalty, as scikit-learn's.

    The mean of `(y - z)^2 / 2` over rows, by weight, plus
    `alpha * (l1_ratio * |w| + (1 - l1_ratio) / 2 * |w|^2)` is minimised.
    """

    alpha: _Alpha = 1.0
    l1_ratio: Annotated[
        float, Number(least=0.0, most=1.0), "Share of the l1 penalty; the rest is l2."
    ] = 0.5

    name: ClassVar[str] = "elastic-net"
    default_tol: ClassVar[float] = 1e-4
    default_max_iter: ClassVar[int] = 1000

    def penalty_for(self, total_weight: float) -> Penalty:
        """Return the penalty: both strengths times the total weight."""
        strength, ratio = float(self.alpha) * total_weight, float(self.l1_ratio)
        return Penalty(strength * ratio, strength * (1.0 - ratio))


@dataclass(frozen=True, kw_only=True)
class LogisticModel(LinearModel):
    """Logistic regression with an l2 penalty: `1 / (2 C) * |w|^2` is added to the sum of losses.

    It is multinomial for more than two classes.
    """

    C: Annotated[
        float,
        Number(above=0.0, most=inf),
        "Inverse strength of the penalty, relative to the sum of losses, in the units of the data; "
        "infinity is no penalty.",
    ] = 1.0
    class_weight: _ClassWeights = None

    name: ClassVar[str] = "logistic"

    @property
    def is_classifier(self) -> bool:
        """Whether y holds classes."""
        return True

    def loss_for(self, n_classes: int) -> Loss:
        """Return the logistic loss, or the multinomial one for more than two classes."""
        return Logistic() if n_classes == 2 else Multinomial()

    def penalty_for(self, total_weight: float) -> Penalty:
        """Return the l2 penalty `1 / C`."""
        del total_weight
        return Penalty(l2=1.0 / self.C)


@dataclass(frozen=True, kw_only=True)
class LogLinkModel(LinearModel):
    """The base of generalised linear models: the objective of scikit-learn's.

    It is half the mean deviance, by weight, plus `alpha / 2 * |w|^2`.
    """

    alpha: _Alpha = 1.0

    def penalty_for(self, total_weight: float) -> Penalty:
        """Return the l2 penalty `alpha` for each unit of weight."""
        return Penalty(l2=float(self.alpha) * total_weight)


@dataclass(frozen=True, kw_only=True)
class PoissonModel(LogLinkModel):
    """Poisson regression of counts and rates, y >= 0, with a log link and an l2 penalty.

    The objective is half the mean deviance plus `alpha / 2 * |w|^2`.
    """

    name: ClassVar[str] = "poisson"

    def loss_for(self, n_classes: int) -> Loss:
        """Return the Poisson loss."""
        del n_classes
        return Poisson()


@dataclass(frozen=True, kw_only=True)
class GammaModel(LogLinkModel):
    """Gamma regression of amounts, y > 0, with a log link and an l2 penalty.

    The objective is half the mean deviance plus `alpha / 2 * |w|^2`.
    """

    name: ClassVar[str] = "gamma"

    def loss_for(self, n_classes: int) -> Loss:
        """Return the gamma loss."""
        del n_classes
        return Gamma()


@dataclass(frozen=True, kw_only=True)
class TweedieModel(LogLinkModel):
    """Tweedie regression, of any power of the variance, with an l2 penalty.

    The objective is half the mean deviance plus `alpha / 2 * |w|^2`.
    """

    power: Annotated[
        float,
        Number(least=0.0),
        "Power of the mean that the variance of y is in proportion to: 0 is least squares, 1 "
        "Poisson, 2 gamma, between them amounts of which some are 0, 3 inverse Gaussian.",
    ] = 0.0
    link: Annotated[
        str,
        Constraint(("auto", "identity", "log")),
        'What the linear predictor is of the mean: itself, or its logarithm. "auto" is "identity" '
        'for power 0 and else "log".',
    ] = "auto"

    name: ClassVar[str] = "tweedie"

    def __post_init__(self) -> None:
        """Check the settings, and that they go together."""
        super().__post_init__()
        if 0.0 < self.power < 1.0:
            raise ValueError(
                f"power={self.power:g} is between 0 and 1, where no distribution is; use 0, or a "
                "number of at least 1"
            )
        fitting = "identity" if self.power == 0.0 else "log"
        if self.link not in ("auto", fitting):
            raise ValueError(
                f"link={self.link!r} with power={self.power:g} makes an objective with several "
                f'minima, or predictions outside of the domain; use link="{fitting}"'
            )

    def loss_for(self, n_classes: int) -> Loss:
        """Return the loss of the power."""
        del n_classes
        by_power: dict[float, Loss] = {0.0: Squared(), 1.0: Poisson(), 2.0: Gamma()}
        return by_power.get(self.power) or Tweedie(float(self.power))


@dataclass(frozen=True, kw_only=True)
class CustomModel(LinearModel):
    """A linear predictor with any loss, and an elastic-net penalty on the weights.

    `l1 * |w| + l2 / 2 * |w|^2` is added to the sum of the rows' losses.
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
    class_weight: _ClassWeights = None

    name: ClassVar[str] = "custom"

    def __post_init__(self) -> None:
        """Check the settings, and that they go together."""
        super().__post_init__()
        if self.class_weight is not None and not self.is_classifier:
            raise ValueError(
                f"class_weight is for classes, and the {self.loss.name} loss has none; leave it out"
            )

    @property
    def is_classifier(self) -> bool:
        """Whether y holds classes."""
        return self.loss.target in ("binary", "codes")

    def loss_for(self, n_classes: int) -> Loss:
        """Return the loss.

        Raises
        ------
        ValueError
            If the loss is not for so many classes.
        """
        if self.loss.target == "binary" and n_classes != 2:
            raise ValueError(
                f"the {self.loss.name} loss is for 2 classes, and y has {n_classes}; use a loss of "
                "codes, such as multinomial"
            )
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


MODELS: Registry[Model] = Registry(
    "model",
    "MODELS",
    (
        LeastSquares,
        RidgeModel,
        LassoModel,
        ElasticNetModel,
        LogisticModel,
        PoissonModel,
        GammaModel,
        TweedieModel,
        CustomModel,
    ),
)
"""Models by name."""
