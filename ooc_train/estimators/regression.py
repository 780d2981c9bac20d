"""Regressors of one or several numeric targets."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import sklearn.linear_model
from sklearn.base import MultiOutputMixin, RegressorMixin
from sklearn.utils.metaestimators import available_if

from ooc_train.core.sums import Array
from ooc_train.estimators.estimator import Estimator
from ooc_train.estimators.loading import copied_to
from ooc_train.estimators.shared_parameters import SharedParameters, estimator_of
from ooc_train.estimators.sparse_coefficients import SparseCoefficients
from ooc_train.estimators.with_summary import WithSummary
from ooc_train.models.regression_models import ElasticNetModel, LassoModel, LeastSquares, RidgeModel
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.report import Report
from ooc_train.stream.inputs import read_targets
from ooc_train.stream.kinds import is_dask, require_arrays
from ooc_train.stream.labels_and_weights import is_stored
from ooc_train.training.checkpoints import Checkpoint


def as_penalties(alpha: float | Sequence[float] | Array) -> float | Array:
    """Return `alpha` in a form that scikit-learn takes: a sequence becomes an array."""
    return np.asarray(alpha) if isinstance(alpha, Sequence) else alpha


class Regressor(MultiOutputMixin, RegressorMixin, Estimator):  # type: ignore[misc]
    """The base of all regressors."""

    fit_intercept: bool
    standardize: bool
    warm_start: bool = False
    n_iter_: Any
    _flattens_column: ClassVar[bool] = False
    """Whether coefficients and predictions for a y of one column have one axis."""

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
        """Fit the model.

        Parameters
        ----------
        X : store, path, Zarr, Dask array or array-like of shape (n_samples, n_features)
            The rows. A store has its own y and weights.
        y : array of shape (n_samples,) or (n_samples, n_outputs)
            Targets. If X is a store, also the path or URL of an array, a Zarr array, or another
            store; these replace y of the store.
        sample_weight : array of shape (n_samples,), or float
            Weights, in the same forms. A number is the weight of every row.
        X_val, y_val, sample_weight_val
            Validation rows, in the same forms: they evaluate each iteration or epoch, for
            `early_stopping` and the report. None for no such rows.
        checkpoint : Checkpoint, str, path or None
            Where the state of the fit is kept, so that a fit that was ended or killed goes on:
            ``Checkpoint("a.checkpoint", resume=True)``. `random_state` has to be a number, or None
            for the seed that was drawn then.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a setting or the data cannot be used. A y outside of the loss's domain is named by
            its row.
        CeilingExceeded
            If the memory ceiling is too small, before anything is read.
        """
        validation = (X_val, y_val, sample_weight_val)
        rows = (X, y, sample_weight)
        return self._fit(rows, validation, warm=self.warm_start, checkpoint=checkpoint)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = not self._single_output
        return tags

    @available_if(lambda self: self._model_class.learns_by_batches)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Learn from further rows: one pass of updates, in the order of the rows.

        Columns are scaled by the moments of all rows so far. With `batch_size="full"`, each call
        makes one update. The penalty is that of a fit to all rows so far. The model is the average
        of the parameters over all updates. A block without weight changes nothing.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a setting or the data cannot be used.
        """
        return self._partial_fit(X, y, sample_weight)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the coefficient of determination R^2, the mean over outputs.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.

        Returns
        -------
        float
        """
        if is_stored(X) or is_dask(X):
            return self._score(X, y, sample_weight)
        y, sample_weight = read_targets(y, sample_weight)
        require_arrays(X, y, sample_weight)
        return float(super().score(X, y, sample_weight))

    def _keep(
        self, fitted: Fitted, report: Report, *, flat: bool, labels: np.dtype[Any] | None
    ) -> None:
        del labels
        self.model_, self.training_ = fitted.model, fitted.training
        self.report_, self._recipe = report, fitted.recipe
        is_flat = flat or (self._flattens_column and fitted.n_outputs == 1)
        self.coef_ = fitted.coef[0] if is_flat else fitted.coef
        self.intercept_ = fitted.intercept[0] if flat else fitted.intercept
        if not self.fit_intercept and not fitted.model.standardizes:
            self.intercept_ = 0.0
        self.n_iter_ = np.full(fitted.n_outputs, report.n_iter, np.int32)


@estimator_of(LeastSquares)
@dataclass(kw_only=True, eq=False, repr=False)
class LinearRegression(Regressor, WithSummary, SharedParameters):
    """Linear regression by least squares.

    If columns are linearly dependent, the coefficients are those of least norm.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,) or (n_outputs, n_features)
        Coefficients, float64 whatever X is.
    intercept_ : float or ndarray of shape (n_outputs,)
        Intercepts.
    n_iter_ : ndarray of shape (n_outputs,)
        Iterations, or epochs of updates.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from ooc_train import LinearRegression
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = LinearRegression().fit(X, y)
    >>> print(f"{model.score(X, y):.4f} in {model.report_.passes:g} passes")
    0.5177 in 3 passes
    """

    tol: float = 1e-6
    positive: bool = False

    def to_sklearn(self) -> Any:
        """Return a fitted `sklearn.linear_model.LinearRegression` that predicts the same."""
        self._fitted()
        return copied_to(
            sklearn.linear_model.LinearRegression(
                fit_intercept=self.fit_intercept, positive=self.positive
            ),
            self,
        )


@estimator_of(RidgeModel)
@dataclass(kw_only=True, eq=False, repr=False)
class Ridge(Regressor, SharedParameters):
    """Least squares with an l2 penalty: `|y - X w - b|^2 + alpha |w|^2`, as in scikit-learn.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,) or (n_outputs, n_features)
        Coefficients, float64 whatever X is. As in scikit-learn's Ridge, a y of one column loses its
        second axis here and in predictions.
    intercept_ : float or ndarray of shape (n_outputs,)
        Intercepts.
    n_iter_ : ndarray of shape (n_outputs,)
        Iterations, or epochs of updates.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from ooc_train import Ridge
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = Ridge(alpha=0.1).fit(X, y)
    >>> print(f"{model.score(X, y):.4f}")
    0.5126
    """

    alpha: float | Sequence[float] | Array = field(default=1.0, kw_only=False)
    positive: bool = False

    _flattens_column = True

    def to_sklearn(self) -> Any:
        """Return a fitted `sklearn.linear_model.Ridge` that predicts the same."""
        self._fitted()
        plain = sklearn.linear_model.Ridge(
            as_penalties(self.alpha),
            fit_intercept=self.fit_intercept,
            max_iter=self.max_iter,
            tol=self.tol,
            positive=self.positive,
        )
        return copied_to(plain, self)


class _SparseRegressor(SparseCoefficients, Regressor):
    """The base of regressors with an l1 penalty on the mean loss."""

    _flattens_column = True

    def _keep(
        self, fitted: Fitted, report: Report, *, flat: bool, labels: np.dtype[Any] | None
    ) -> None:
        super()._keep(fitted, report, flat=flat, labels=labels)
        gaps = np.full(fitted.n_outputs, np.nan)
        # A callback asks for attributes after a step, when there is no report yet.
        found = getattr(report, "dual_gap", None)
        if found is not None:
            gaps = np.array(found)
        self.dual_gap_: Any = gaps
        if fitted.n_outputs == 1:
            self.n_iter_, self.dual_gap_ = report.n_iter, float(gaps[0])


@estimator_of(LassoModel)
@dataclass(kw_only=True, eq=False, repr=False)
class Lasso(_SparseRegressor, SharedParameters):
    """Least squares with an l1 penalty, as in scikit-learn.

    `1 / (2 n) |y - X w - b|^2 + alpha |w|` is minimised; n is the sum of the rows' weights.

    Parameters
    ----------
    warm_start : bool
        Whether `fit` begins from the coefficients of the previous fit.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,) or (n_outputs, n_features)
        Coefficients, float64 whatever X is. A y of one column loses its second axis here and in
        predictions.
    sparse_coef_ : scipy.sparse.csr_matrix of shape (n_outputs, n_features)
        The coefficients.
    intercept_ : float or ndarray of shape (n_outputs,)
        Intercepts.
    n_iter_ : int or ndarray of shape (n_outputs,)
        Sweeps, or epochs of updates.
    dual_gap_ : float or ndarray of shape (n_outputs,)
        Duality gap of the objective; NaN by a solver other than "coordinate-descent",
        as "auto" is with `alpha=0`, and for `positive=True` without l1.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from ooc_train import Lasso
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = Lasso(alpha=1.0).fit(X, y)
    >>> int((model.coef_ != 0).sum())
    3
    """

    alpha: float = field(default=1.0, kw_only=False)
    warm_start: bool = False
    positive: bool = False
    max_iter: int = 1000

    def to_sklearn(self) -> Any:
        """Return a fitted `sklearn.linear_model.Lasso` that predicts the same."""
        self._fitted()
        plain = sklearn.linear_model.Lasso(
            self.alpha,
            fit_intercept=self.fit_intercept,
            max_iter=self.max_iter,
            tol=self.tol,
            warm_start=self.warm_start,
            positive=self.positive,
        )
        return copied_to(plain, self)


@estimator_of(ElasticNetModel)
@dataclass(kw_only=True, eq=False, repr=False)
class ElasticNet(_SparseRegressor, SharedParameters):
    """Least squares with an l1 and an l2 penalty, as in scikit-learn.

    `1 / (2 n) |y - X w - b|^2 + alpha (l1_ratio |w| + (1 - l1_ratio) / 2 |w|^2)` is minimised; n is
    the sum of the rows' weights.

    Parameters
    ----------
    warm_start : bool
        Whether `fit` begins from the coefficients of the previous fit.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,) or (n_outputs, n_features)
        Coefficients, float64 whatever X is. A y of one column loses its second axis here and in
        predictions.
    sparse_coef_ : scipy.sparse.csr_matrix of shape (n_outputs, n_features)
        The coefficients.
    intercept_ : float or ndarray of shape (n_outputs,)
        Intercepts.
    n_iter_ : int or ndarray of shape (n_outputs,)
        Sweeps, or epochs of updates.
    dual_gap_ : float or ndarray of shape (n_outputs,)
        Duality gap of the objective; NaN by a solver other than "coordinate-descent",
        as "auto" is with `alpha=0` or `l1_ratio=0`, and for `positive=True` without l1.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from ooc_train import ElasticNet
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = ElasticNet(alpha=0.01, l1_ratio=0.9).fit(X, y)
    >>> print(f"{model.score(X, y):.4f}")
    0.4906
    """

    alpha: float = field(default=1.0, kw_only=False)
    l1_ratio: float = 0.5
    warm_start: bool = False
    positive: bool = False
    max_iter: int = 1000

    def to_sklearn(self) -> Any:
        """Return a fitted `sklearn.linear_model.ElasticNet` that predicts the same."""
        self._fitted()
        plain = sklearn.linear_model.ElasticNet(
            self.alpha,
            l1_ratio=self.l1_ratio,
            fit_intercept=self.fit_intercept,
            max_iter=self.max_iter,
            tol=self.tol,
            warm_start=self.warm_start,
            positive=self.positive,
        )
        return copied_to(plain, self)
