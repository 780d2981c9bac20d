"""Linear models for classification."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, ClassVar

from ooc_train.core.settings import Constraint
from ooc_train.models.linear_model import (
    AlphaOfEach,
    ClassWeights,
    InverseStrength,
    L1Ratio,
    LinearModel,
    StochasticModel,
    l2_penalty,
)
from ooc_train.models.model import LEAST_SQUARES_SOLVERS, SMOOTH_SOLVERS, UPDATES, DataFigures
from ooc_train.objective.loss import Loss
from ooc_train.objective.losses.hinge import Hinge
from ooc_train.objective.losses.logistic import Logistic
from ooc_train.objective.losses.modified_huber import ModifiedHuber
from ooc_train.objective.losses.multinomial import Multinomial
from ooc_train.objective.losses.perceptron import Perceptron
from ooc_train.objective.losses.squared_hinge import SquaredHinge
from ooc_train.objective.losses.squared_margin import SquaredMargin
from ooc_train.objective.penalty import Penalty

if TYPE_CHECKING:
    from ooc_train.models.linear import LinearProblem

_HINGES: Mapping[str, type[Loss]] = MappingProxyType(
    {loss.name: loss for loss in (SquaredHinge, Hinge)}
)

_SGD_LOSSES: Mapping[str, type[Loss]] = MappingProxyType(
    {
        "hinge": Hinge,
        "log_loss": Logistic,
        "modified_huber": ModifiedHuber,
        "squared_hinge": SquaredHinge,
        "perceptron": Perceptron,
        "squared_error": SquaredMargin,
    }
)
"""Losses by scikit-learn's names."""


@dataclass(frozen=True, kw_only=True)
class ClassificationModel(LinearModel):
    """The base of linear models for classification."""

    class_weight: ClassWeights = None

    @property
    def is_classifier(self) -> bool:
        """Whether y holds class labels."""
        return True


@dataclass(frozen=True, kw_only=True)
class LogisticModel(ClassificationModel):
    """Logistic regression with an elastic-net penalty; multinomial for more than two classes.

    `(l1_ratio * |w| + (1 - l1_ratio) / 2 * |w|^2) / C` is added to the sum of losses.

    Examples
    --------
    >>> from ooc_train import LogisticModel, make_data, train
    >>> store = make_data("made.zarr", rows=2_000, features=5, classes=3)
    >>> fitted, _ = train(LogisticModel(C=0.1), store)
    >>> fitted.classes, fitted.coef.shape
    ((0, 1, 2), (3, 5))
    """

    C: InverseStrength = 1.0
    l1_ratio: L1Ratio = 0.0

    name: ClassVar[str] = "logistic"
    solvers: ClassVar[tuple[str, ...]] = (*SMOOTH_SOLVERS, *UPDATES)

    def loss_for(self, n_classes: int) -> Loss:
        """Return the logistic loss, or the multinomial one for more than two classes."""
        return Logistic() if n_classes == 2 else Multinomial()

    def penalty_for(self, total_weight: float) -> Penalty:
        """Return the elastic-net penalty, whose two strengths add up to `1 / C`."""
        del total_weight
        strength, ratio = 1.0 / self.C, float(self.l1_ratio)
        return Penalty(strength * ratio, strength * (1.0 - ratio))


@dataclass(frozen=True, kw_only=True)
class OneVsRestModel(ClassificationModel):
    """The base of models whose binary loss tells each of more than two classes from the rest.

    Class weights then hold in the problem of a row's own class alone, as in liblinear and in
    scikit-learn's estimators of these names.
    """

    def problem(self, data: DataFigures) -> "LinearProblem":
        """Return the problem of learning the model from data."""
        return replace(super().problem(data), own_class_weight=data.n_classes > 2)


@dataclass(frozen=True, kw_only=True)
class LinearSVCModel(OneVsRestModel):
    """A linear support vector machine: a hinge loss of the margin.

    `1 / (2 C) * |w|^2`, or `1 / C * |w|`, is added to the sum of losses. More than two classes are
    told apart one against the rest.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from ooc_train import LinearSVCModel, train
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> fitted, report = train(LinearSVCModel(loss="hinge", C=0.1), X, y=y)
    >>> report.solver
    'smoothing'
    """

    penalty: Annotated[str, Constraint(("l2", "l1")), "Norm of the weights that is penalised."] = (
        "l2"
    )
    loss: Annotated[
        str,
        Constraint(tuple(_HINGES)),
        "How a row is charged for the margin that it lacks to 1: the square of it, or itself.",
    ] = "squared_hinge"
    C: InverseStrength = 1.0

    name: ClassVar[str] = "linear-svc"
    solvers: ClassVar[tuple[str, ...]] = (*SMOOTH_SOLVERS, "smoothing", *UPDATES)
    default_max_iter: ClassVar[int] = 1000

    def loss_for(self, n_classes: int) -> Loss:
        """Return the hinge or squared hinge loss."""
        del n_classes
        return _HINGES[self.loss]()

    def penalty_for(self, total_weight: float) -> Penalty:
        """Return the penalty of strength `1 / C`."""
        del total_weight
        strength = 1.0 / self.C
        return Penalty(l2=strength) if self.penalty == "l2" else Penalty(l1=strength)


@dataclass(frozen=True, kw_only=True)
class RidgeClassifierModel(ClassificationModel):
    """Least squares of targets of -1 and 1 with an l2 penalty: `alpha / 2 * |w|^2` is added.

    Of more than two classes, each has a model against the rest (one-vs-rest).

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from ooc_train import RidgeClassifierModel, train
    >>> X, y = load_wine(return_X_y=True)
    >>> fitted, report = train(RidgeClassifierModel(), X, y=y)
    >>> report.solver, fitted.classes
    ('gram', (0, 1, 2))
    """

    alpha: AlphaOfEach = 1.0

    name: ClassVar[str] = "ridge-classifier"
    solvers: ClassVar[tuple[str, ...]] = (*LEAST_SQUARES_SOLVERS, *SMOOTH_SOLVERS, *UPDATES)

    def loss_for(self, n_classes: int) -> Loss:
        """Return half the squared residual of targets of -1 and 1."""
        del n_classes
        return SquaredMargin()

    def penalty_for(self, total_weight: float) -> Penalty:
        """Return the l2 penalty `alpha`."""
        del total_weight
        return l2_penalty(self.alpha)


@dataclass(frozen=True, kw_only=True)
class SGDClassifierModel(OneVsRestModel, StochasticModel):
    """A linear classifier by any binary loss, which learns by batches of one row by default.

    The mean loss of a row, by weight, plus
    `alpha * (l1_ratio * |w| + (1 - l1_ratio) / 2 * |w|^2)` is minimised. Of more than two classes,
    each has a model against the rest (one-vs-rest).

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from ooc_train import SGDClassifierModel, Training, train
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> settings = Training(batch_size=1, max_iter=5, random_state=0)
    >>> fitted, report = train(SGDClassifierModel(loss="modified_huber"), X, settings, y=y)
    >>> report.updates
    2845
    """

    loss: Annotated[
        str, Constraint(tuple(_SGD_LOSSES)), "The loss of a row, by scikit-learn's name."
    ] = "hinge"

    name: ClassVar[str] = "sgd-classifier"

    def loss_for(self, n_classes: int) -> Loss:
        """Return the binary loss that the setting `loss` names."""
        del n_classes
        return _SGD_LOSSES[self.loss]()
