"""Generalised linear models: counts, rates and positive amounts, with a log link."""

from dataclasses import dataclass
from typing import Any

import sklearn.linear_model

from ooc_train.estimators.loading import copied_to
from ooc_train.estimators.regression import Regressor
from ooc_train.estimators.shared_parameters import SharedParameters, estimator_of
from ooc_train.estimators.with_summary import WithSummary
from ooc_train.inference.predict import evaluate
from ooc_train.models.generalized_linear_models import GammaModel, PoissonModel, TweedieModel
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.report import Report


class _DevianceRegressor(Regressor, WithSummary):
    """The base of estimators that minimise a deviance."""

    alpha: float
    warm_start: bool
    max_iter: int | None
    tol: float

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return D^2, the share of the deviance that the model explains.

        D^2 is 1 for perfect predictions, and 0 if all predictions are the mean of y. For least
        squares, D^2 is R^2.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.

        Returns
        -------
        float
        """
        fitted = self._fitted()
        inputs = self._validated(X, y, sample_weight, first=False).inputs
        metrics, _ = evaluate(fitted, inputs, memory_ceiling=self.memory_ceiling)
        return float(metrics["d2"] if "d2" in metrics else metrics["r2"])

    def _keep(self, fitted: Fitted, report: Report, **kept: Any) -> None:
        super()._keep(fitted, report, **kept)
        self.n_iter_: Any = report.n_iter

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        try:
            loss = self._settings()[0].loss_for(0)
        except ValueError:  # settings that `fit` refuses
            return tags
        tags.target_tags.positive_only = loss.target != "real"
        return tags

    def _fitted_copy(self, plain: Any) -> Any:
        """Return an estimator of scikit-learn with the fitted attributes of this one."""
        self._fitted()
        plain._base_loss = plain._get_loss()  # noqa: SLF001 (its own `fit` does, for `predict`)
        return copied_to(plain, self)


@estimator_of(PoissonModel)
@dataclass(kw_only=True, eq=False, repr=False)
class PoissonRegressor(_DevianceRegressor, SharedParameters):
    """Poisson regression of counts and rates y >= 0, with a log link and an l2 penalty.

    Half the mean deviance plus `alpha / 2 * |w|^2` is minimised, as in scikit-learn.

    Parameters
    ----------
    warm_start : bool
        Whether `fit` begins from the coefficients of the previous fit.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,) or (n_outputs, n_features)
        Coefficients of the logarithm of the mean, float64 whatever X is.
    intercept_ : float or ndarray of shape (n_outputs,)
        Intercepts.
    n_iter_ : int
        Iterations, or epochs of updates.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from ooc_train import PoissonRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = PoissonRegressor(alpha=0.0).fit(X, y)
    >>> print(f"{model.score(X, y):.3f} of the deviance is explained")
    0.513 of the deviance is explained
    """

    alpha: float = 1.0
    warm_start: bool = False
    max_iter: int = 100

    def to_sklearn(self) -> Any:
        """Return a fitted `sklearn.linear_model.PoissonRegressor` that predicts the same."""
        return self._fitted_copy(
            sklearn.linear_model.PoissonRegressor(
                alpha=self.alpha,
                fit_intercept=self.fit_intercept,
                max_iter=self.max_iter,
                tol=self.tol,
            )
        )


@estimator_of(GammaModel)
@dataclass(kw_only=True, eq=False, repr=False)
class GammaRegressor(_DevianceRegressor, SharedParameters):
    """Gamma regression of amounts y > 0, with a log link and an l2 penalty.

    Half the mean deviance plus `alpha / 2 * |w|^2` is minimised, as in scikit-learn.

    Parameters
    ----------
    warm_start : bool
        Whether `fit` begins from the coefficients of the previous fit.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,) or (n_outputs, n_features)
        Coefficients of the logarithm of the mean, float64 whatever X is.
    intercept_ : float or ndarray of shape (n_outputs,)
        Intercepts.
    n_iter_ : int
        Iterations, or epochs of updates.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from ooc_train import GammaRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = GammaRegressor(alpha=0.0).fit(X, y)
    >>> print(f"{model.score(X, y):.3f} of the deviance is explained")
    0.479 of the deviance is explained
    """

    alpha: float = 1.0
    warm_start: bool = False
    max_iter: int = 100

    def to_sklearn(self) -> Any:
        """Return a fitted `sklearn.linear_model.GammaRegressor` that predicts the same."""
        return self._fitted_copy(
            sklearn.linear_model.GammaRegressor(
                alpha=self.alpha,
                fit_intercept=self.fit_intercept,
                max_iter=self.max_iter,
                tol=self.tol,
            )
        )


@estimator_of(TweedieModel)
@dataclass(kw_only=True, eq=False, repr=False)
class TweedieRegressor(_DevianceRegressor, SharedParameters):
    """Tweedie regression: the variance of y is proportional to a power of its mean.

    Half the mean deviance plus `alpha / 2 * |w|^2` is minimised, as in scikit-learn. Powers below
    0 and between 0 and 1 are refused, and so is a link that gives the objective several minima.

    Parameters
    ----------
    warm_start : bool
        Whether `fit` begins from the coefficients of the previous fit.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,) or (n_outputs, n_features)
        Coefficients of the linear predictor, float64 whatever X is.
    intercept_ : float or ndarray of shape (n_outputs,)
        Intercepts.
    n_iter_ : int
        Iterations, or epochs of updates.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from ooc_train import TweedieRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = TweedieRegressor(power=1.5, alpha=0.0).fit(X, y)
    >>> print(f"{model.score(X, y):.3f} of the deviance is explained")
    0.499 of the deviance is explained
    """

    power: float = 0.0
    alpha: float = 1.0
    link: str = "auto"
    warm_start: bool = False
    max_iter: int = 100

    def to_sklearn(self) -> Any:
        """Return a fitted `sklearn.linear_model.TweedieRegressor` that predicts the same."""
        return self._fitted_copy(
            sklearn.linear_model.TweedieRegressor(
                power=self.power,
                alpha=self.alpha,
                link=self.link,
                fit_intercept=self.fit_intercept,
                max_iter=self.max_iter,
                tol=self.tol,
            )
        )
