"""Linear models for regression: least squares with each penalty."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from ooc_train.core.settings import Flag
from ooc_train.models.linear_model import (
    Alpha,
    AlphaOfEach,
    L1Ratio,
    LinearModel,
    l2_penalty,
)
from ooc_train.models.model import LEAST_SQUARES_SOLVERS, SMOOTH_SOLVERS, UPDATES
from ooc_train.objective.loss import Loss
from ooc_train.objective.losses.squared import Squared
from ooc_train.objective.penalty import Penalty


@dataclass(frozen=True, kw_only=True)
class LeastSquares(LinearModel):
    """Least squares: the sum of `(y - z)^2 / 2`.

    Examples
    --------
    >>> from ooc_train import LeastSquares, make_data, train
    >>> store = make_data("made.zarr", rows=2_000, features=5, task="regression")
    >>> fitted, report = train(LeastSquares(), store)
    >>> report.solver, report.passes
    ('gram', 1.0)
    """

    positive: Annotated[
        bool,
        Flag(),
        "Keep weights from being below 0 (non-negative least squares), by "
        'solver="coordinate-descent". The intercept may be below 0.',
    ] = False

    name: ClassVar[str] = "linear"
    default_tol: ClassVar[float] = 1e-6
    solvers: ClassVar[tuple[str, ...]] = (*LEAST_SQUARES_SOLVERS, *SMOOTH_SOLVERS, *UPDATES)

    def loss_for(self, n_classes: int) -> Loss:
        """Return the squared loss."""
        del n_classes
        return Squared()

    def penalty_for(self, total_weight: float) -> Penalty:
        """Return a penalty of zero, which forbids negative weights if `positive`."""
        del total_weight
        return Penalty(positive=self.positive)


@dataclass(frozen=True, kw_only=True)
class RidgeModel(LeastSquares):
    """Least squares with an l2 penalty, as scikit-learn's: `alpha / 2 * |w|^2` is added.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from ooc_train import RidgeModel, train
    >>> X, y = load_diabetes(return_X_y=True)
    >>> fitted, report = train(RidgeModel(alpha=0.1), X, y=y)
    >>> print(f"{report.solver}: {report.loss:.1f}")
    gram: 1445.2
    """

    alpha: AlphaOfEach = 1.0

    name: ClassVar[str] = "ridge"
    default_tol: ClassVar[float] = 1e-4

    def penalty_for(self, total_weight: float) -> Penalty:
        """Return the l2 penalty `alpha`."""
        del total_weight
        return l2_penalty(self.alpha, positive=self.positive)


@dataclass(frozen=True, kw_only=True)
class LassoModel(LeastSquares):
    """Least squares with an l1 penalty, as scikit-learn's.

    The mean of `(y - z)^2 / 2` over rows, by weight, plus `alpha * |w|` is minimised.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from ooc_train import LassoModel, train
    >>> X, y = load_diabetes(return_X_y=True)
    >>> fitted, _ = train(LassoModel(alpha=1.0), X, y=y)
    >>> int((fitted.coef != 0).sum())
    3
    """

    alpha: Alpha = 1.0

    name: ClassVar[str] = "lasso"
    default_tol: ClassVar[float] = 1e-4
    default_max_iter: ClassVar[int] = 1000

    def penalty_for(self, total_weight: float) -> Penalty:
        """Return the l1 penalty: `alpha` times the total weight."""
        return Penalty(l1=float(self.alpha) * total_weight, positive=self.positive)


@dataclass(frozen=True, kw_only=True)
class ElasticNetModel(LeastSquares):
    """Least squares with an l1 and an l2 penalty, as scikit-learn's.

    The mean of `(y - z)^2 / 2` over rows, by weight, plus
    `alpha * (l1_ratio * |w| + (1 - l1_ratio) / 2 * |w|^2)` is minimised.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from ooc_train import ElasticNetModel, train
    >>> X, y = load_diabetes(return_X_y=True)
    >>> fitted, report = train(ElasticNetModel(alpha=0.1, l1_ratio=0.5), X, y=y)
    >>> report.solver
    'coordinate-descent'
    """

    alpha: Alpha = 1.0
    l1_ratio: L1Ratio = 0.5

    name: ClassVar[str] = "elastic-net"
    default_tol: ClassVar[float] = 1e-4
    default_max_iter: ClassVar[int] = 1000

    def penalty_for(self, total_weight: float) -> Penalty:
        """Return the penalty: `alpha` times the total weight, split between l1 and l2."""
        strength, ratio = float(self.alpha) * total_weight, float(self.l1_ratio)
        return Penalty(strength * ratio, strength * (1.0 - ratio), self.positive)
