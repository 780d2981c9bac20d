"""Generalised linear models: a distribution of y, and a link from its mean to z."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from ooc_train.core.settings import Constraint, Number
from ooc_train.models.linear_model import Alpha, LinearModel
from ooc_train.models.model import LEAST_SQUARES_SOLVERS, SMOOTH_SOLVERS, UPDATES
from ooc_train.objective.loss import Loss
from ooc_train.objective.losses.gamma import Gamma
from ooc_train.objective.losses.poisson import Poisson
from ooc_train.objective.losses.squared import Squared
from ooc_train.objective.losses.tweedie import Tweedie
from ooc_train.objective.penalty import Penalty


@dataclass(frozen=True, kw_only=True)
class LogLinkModel(LinearModel):
    """The base of generalised linear models, with scikit-learn's objective.

    The objective is half the mean deviance, weighted by row, plus `alpha / 2 * |w|^2`.
    """

    alpha: Alpha = 1.0

    def penalty_for(self, total_weight: float) -> Penalty:
        """Return the l2 penalty `alpha` for each unit of weight."""
        return Penalty(l2=float(self.alpha) * total_weight)


@dataclass(frozen=True, kw_only=True)
class PoissonModel(LogLinkModel):
    """Poisson regression of counts and rates, y >= 0, with a log link and an l2 penalty.

    The objective is half the mean deviance plus `alpha / 2 * |w|^2`.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from ooc_train import PoissonModel, train
    >>> X, y = load_diabetes(return_X_y=True)
    >>> fitted, report = train(PoissonModel(), X, y=y)
    >>> report.solver
    'newton'
    """

    name: ClassVar[str] = "poisson"
    solvers: ClassVar[tuple[str, ...]] = (*SMOOTH_SOLVERS, "updates")

    def loss_for(self, n_classes: int) -> Loss:
        """Return the Poisson loss."""
        del n_classes
        return Poisson()


@dataclass(frozen=True, kw_only=True)
class GammaModel(LogLinkModel):
    """Gamma regression of amounts, y > 0, with a log link and an l2 penalty.

    The objective is half the mean deviance plus `alpha / 2 * |w|^2`.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from ooc_train import GammaModel, train
    >>> X, y = load_diabetes(return_X_y=True)
    >>> fitted, report = train(GammaModel(), X, y=y)
    >>> report.solver
    'newton'
    """

    name: ClassVar[str] = "gamma"
    solvers: ClassVar[tuple[str, ...]] = (*SMOOTH_SOLVERS, "updates")

    def loss_for(self, n_classes: int) -> Loss:
        """Return the gamma loss."""
        del n_classes
        return Gamma()


@dataclass(frozen=True, kw_only=True)
class TweedieModel(LogLinkModel):
    """Tweedie regression, of any power of the variance, with an l2 penalty.

    The objective is half the mean deviance plus `alpha / 2 * |w|^2`.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from ooc_train import TweedieModel, train
    >>> X, y = load_diabetes(return_X_y=True)
    >>> fitted, report = train(TweedieModel(power=1.5), X, y=y)
    >>> report.solver
    'newton'
    """

    power: Annotated[
        float,
        Number(least=0.0),
        "Power of the mean that the variance of y is in proportion to. 0 is least squares, 1 "
        "Poisson, 2 gamma, 3 inverse Gaussian; from 1 to 2, some amounts may be 0.",
    ] = 0.0
    link: Annotated[
        str,
        Constraint(("auto", "identity", "log")),
        'What the linear predictor is of the mean: itself, or its logarithm. "auto" is "identity" '
        'for power 0 and else "log".',
    ] = "auto"

    name: ClassVar[str] = "tweedie"
    solvers: ClassVar[tuple[str, ...]] = (*LEAST_SQUARES_SOLVERS, *SMOOTH_SOLVERS, *UPDATES)

    def __post_init__(self) -> None:
        """Check the settings, and that they are compatible."""
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
        """Return the loss of `power`: squared for 0, Poisson for 1, gamma for 2, else Tweedie."""
        del n_classes
        by_power: dict[float, Loss] = {0.0: Squared(), 1.0: Poisson(), 2.0: Gamma()}
        return by_power.get(self.power) or Tweedie(float(self.power))
