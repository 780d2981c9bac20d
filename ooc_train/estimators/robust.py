"""Regressors by other losses than the squared one: Huber, quantile, epsilon-insensitive, SGD."""

import os
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import sklearn.linear_model
import sklearn.svm
from numpy.typing import NDArray

from ooc_train.core.sums import Array
from ooc_train.estimators.loading import copied_to
from ooc_train.estimators.regression import Regressor
from ooc_train.estimators.sgd_rates import STOCHASTIC_RATES, StochasticRates
from ooc_train.estimators.shared_parameters import SharedParameters, estimator_of
from ooc_train.models.predictor import ScaledPredictor
from ooc_train.models.robust_models import (
    HuberModel,
    LinearSVRModel,
    QuantileModel,
    SGDRegressorModel,
)
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.report import Report
from ooc_train.stream.kinds import is_dask
from ooc_train.stream.labels_and_weights import is_stored
from ooc_train.training.checkpoints import Checkpoint


class _RobustRegressor(Regressor):
    """The base of regressors whose `n_iter_` is one number for all outputs."""

    def _keep(self, fitted: Fitted, report: Report, **kept: Any) -> None:
        super()._keep(fitted, report, **kept)
        self.n_iter_: Any = report.n_iter


@estimator_of(HuberModel)
@dataclass(kw_only=True, eq=False, repr=False)
class HuberRegressor(_RobustRegressor, SharedParameters):
    """Huber regression with an l2 penalty, which also fits the scale of residuals.

    The sum of `s + h((y - z) / s) s` plus `alpha |w|^2` is minimised over the coefficients w
    and the scale s, as in scikit-learn. `h(u)` is `u^2` up to epsilon, and its tangent beyond. y
    has one column. A fit reads all rows before each step, so there is no `partial_fit`.

    Parameters
    ----------
    warm_start : bool
        Whether `fit` begins from the coefficients and the scale of the previous fit.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,)
        Coefficients, float64 whatever X is.
    intercept_ : float
        Intercept.
    scale_ : float
        The scale of residuals, in units of y.
    outliers_ : bool ndarray of shape (n_samples,)
        Whether the residual of a row exceeds epsilon times the scale. Set only after a fit to
        arrays in memory; for other data, compare y with `predict`.
    n_iter_ : int
        Iterations.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from ooc_train import HuberRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = HuberRegressor().fit(X, y)
    >>> print(f"{model.scale_:.1f}")
    37.4
    """

    epsilon: float = 1.35
    alpha: float = 0.0001
    warm_start: bool = False
    max_iter: int = 100
    tol: float = 1e-5

    _single_output: ClassVar[bool] = True
    _flattens_column: ClassVar[bool] = True

    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
        checkpoint: Checkpoint | str | os.PathLike[str] | None = None,
    ) -> Self:
        """Fit the model; see `LinearRegression.fit`."""
        validation = {"X_val": X_val, "y_val": y_val, "sample_weight_val": sample_weight_val}
        super().fit(X, y, sample_weight, **validation, checkpoint=checkpoint)
        if not (is_stored(X) or is_dask(X) or is_stored(y) or is_dask(y)):
            residuals = np.abs(np.asarray(y, np.float64).ravel() - self.predict(X))
            self.outliers_: NDArray[np.bool_] = residuals > self.scale_ * self.epsilon
        return self

    def _keep(self, fitted: Fitted, report: Report, **kept: Any) -> None:
        super()._keep(fitted, report, **kept)
        scale: Array = fitted.predictor.arrays["scale"]
        self.scale_: float = float(scale[0])
        if hasattr(self, "outliers_"):
            del self.outliers_  # those of other rows

    def _fitted(self) -> Fitted:
        fitted = super()._fitted()
        plain, scale = fitted.linear, np.array([self.scale_])
        return replace(fitted, predictor=ScaledPredictor(plain.coef, plain.intercept, scale))

    def to_sklearn(self) -> Any:
        """Return a fitted `sklearn.linear_model.HuberRegressor` that predicts the same."""
        self._fitted()
        plain = sklearn.linear_model.HuberRegressor(
            epsilon=self.epsilon,
            alpha=self.alpha,
            fit_intercept=self.fit_intercept,
            max_iter=self.max_iter,
            tol=self.tol,
            warm_start=self.warm_start,
        )
        plain.scale_ = self.scale_
        if hasattr(self, "outliers_"):
            plain.outliers_ = self.outliers_.copy()
        return copied_to(plain, self)


@estimator_of(QuantileModel)
@dataclass(kw_only=True, eq=False, repr=False)
class QuantileRegressor(_RobustRegressor, SharedParameters):
    """Regression of a quantile of y, with an l1 penalty, as in scikit-learn.

    The mean of the quantile loss, by weight, plus `alpha |w|` is minimised. The duality gap is at
    most `tol` times the objective. Each column of y has a model of its own.

    Parameters
    ----------
    warm_start : bool
        Whether `fit` begins from the coefficients of the previous fit.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,) or (n_outputs, n_features)
        Coefficients, float64 whatever X is.
    intercept_ : float or ndarray of shape (n_outputs,)
        Intercepts.
    n_iter_ : int
        Iterations, or epochs of updates.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from ooc_train import QuantileRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = QuantileRegressor(quantile=0.9, alpha=0.0).fit(X, y)
    >>> print(f"{(y <= model.predict(X)).mean():.2f}")
    0.90
    """

    quantile: float = 0.5
    alpha: float = 1.0
    warm_start: bool = False
    max_iter: int = 100

    def to_sklearn(self) -> Any:
        """Return a fitted `sklearn.linear_model.QuantileRegressor` that predicts the same."""
        self._fitted()
        plain = sklearn.linear_model.QuantileRegressor(
            quantile=self.quantile, alpha=self.alpha, fit_intercept=self.fit_intercept
        )
        return copied_to(plain, self)


@estimator_of(LinearSVRModel)
@dataclass(kw_only=True, eq=False, repr=False)
class LinearSVR(_RobustRegressor, SharedParameters):
    """Linear support vector regression.

    `1 / 2 |w|^2 + C * sum(max(0, |y - z| - epsilon))`, or the same with the square of the maximum,
    is minimised. Unlike in scikit-learn, the intercept is not penalised. With a large
    `intercept_scaling`, scikit-learn hardly penalises its intercept. The first loss has kinks,
    which are smoothed until the duality gap is at most `tol` times the objective. The second loss
    takes a few passes of Newton's method. Each column of y has a model of its own.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,) or (n_outputs, n_features)
        Coefficients, float64 whatever X is. A y of one column loses its second axis here and in
        predictions.
    intercept_ : ndarray of shape (n_outputs,), or 0.0 if none is fitted
        Intercepts.
    n_iter_ : int
        Iterations, or epochs of updates.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from ooc_train import LinearSVR
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = LinearSVR(C=100.0).fit(X, y)
    >>> print(f"{model.score(X, y):.2f}")
    0.48
    """

    epsilon: float = 0.0
    C: float = 1.0
    loss: str = "epsilon_insensitive"
    max_iter: int = 1000

    _flattens_column: ClassVar[bool] = True

    def _keep(self, fitted: Fitted, report: Report, **kept: Any) -> None:
        super()._keep(fitted, report, **kept)
        if self.fit_intercept or fitted.model.standardizes:
            self.intercept_ = fitted.intercept

    def to_sklearn(self) -> Any:
        """Return a fitted `sklearn.svm.LinearSVR` that predicts the same."""
        self._fitted()
        plain = sklearn.svm.LinearSVR(
            epsilon=self.epsilon,
            tol=self.tol,
            C=self.C,
            loss=self.loss,
            fit_intercept=self.fit_intercept,
            max_iter=self.max_iter,
        )
        return copied_to(plain, self)


@estimator_of(SGDRegressorModel, also=STOCHASTIC_RATES)
@dataclass(kw_only=True, eq=False, repr=False)
class SGDRegressor(StochasticRates, _RobustRegressor, SharedParameters):
    """A linear regressor with one of several losses; by default each update is by one row.

    The objective is scikit-learn's; its mean loss is by weight, where scikit-learn divides the
    weighted sum by the number of rows. The algorithm differs: columns are scaled on the fly, the
    learning rate "auto" follows from the data, and the model is an average of the parameters.
    With `batch_size="full"` it is solved exactly. Each column of y has a model of its own.

    With "huber" and "epsilon_insensitive", an update moves predictions by no more than a step of
    the learning rate, however far y is. So scale y to a few units, as for scikit-learn's, or use
    `batch_size="full"`.

    Parameters
    ----------
    warm_start : bool
        Whether `fit` begins from the coefficients of the previous fit.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,) or (n_outputs, n_features)
        Coefficients, float64 whatever X is. A y of one column loses its second axis here and in
        predictions.
    intercept_ : ndarray of shape (n_outputs,)
        Intercepts.
    n_iter_ : int
        Epochs of updates, or iterations.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from ooc_train import SGDRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = SGDRegressor(max_iter=20, tol=None, random_state=0).fit(X, y)
    >>> print(f"{model.score(X, y):.2f}")
    0.51
    """

    loss: str = field(default="squared_error", kw_only=False)
    penalty: str | None = "l2"
    alpha: float = 1e-4
    l1_ratio: float | None = 0.15
    epsilon: float = 0.1
    warm_start: bool = False
    max_iter: int = 1000
    tol: float | None = 1e-3  # type: ignore[assignment] # None of no other estimator
    batch_size: int | str = 1

    _flattens_column: ClassVar[bool] = True

    def _keep(self, fitted: Fitted, report: Report, **kept: Any) -> None:
        super()._keep(fitted, report, **kept)
        self.intercept_ = fitted.intercept

    def to_sklearn(self) -> Any:
        """Return a fitted `sklearn.linear_model.SGDRegressor` that predicts the same."""
        self._fitted()
        plain = sklearn.linear_model.SGDRegressor(
            self.loss,
            penalty=self.penalty,
            alpha=self.alpha,
            l1_ratio=self.l1_ratio,
            fit_intercept=self.fit_intercept,
            max_iter=self.max_iter,
            tol=self.tol,
            epsilon=self.epsilon,
            warm_start=self.warm_start,
        )
        return copied_to(plain, self)
