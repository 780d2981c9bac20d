"""Regressors: numbers, one or several to a row."""

from typing import Any, ClassVar, Self

import numpy as np
import sklearn.linear_model
from sklearn.base import MultiOutputMixin, RegressorMixin

from ooc_train.estimators.estimator import LinearModel
from ooc_train.memory.ceiling import Ceiling
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.report import Report
from ooc_train.stream.inputs import in_memory
from ooc_train.stream.kinds import is_dask, require_arrays
from ooc_train.stream.labels_and_weights import is_stored


class _Regressor(MultiOutputMixin, RegressorMixin, LinearModel):  # type: ignore[misc]
    """What the regressors share."""

    fit_intercept: bool
    _flattens_column: ClassVar[bool] = False
    """Whether a y of one column has coefficients and predictions of one axis."""

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit the model.

        Parameters
        ----------
        X : store, path, Zarr, Dask array or array-like of shape (n_samples, n_features)
            A store brings its own y and weights, unless others are given.
        y : array of shape (n_samples,) or (n_samples, n_outputs); beside a store also the path or
            URL of an array, a Zarr array, or another store, which take the place of the store's own
        sample_weight : array of shape (n_samples,), likewise, or a number

        Returns
        -------
        self

        Raises
        ------
        ValueError
            naming the setting that cannot be used, or what is wrong with the data.
        CeilingExceeded
            before anything is read, where the memory ceiling is too small.
        """
        return self._fit(X, y, sample_weight)

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Learn from some more rows: one pass of updates, in the order in which they lie.

        Columns are scaled by the moments of the rows so far. `batch_size="full"` is one update a
        call. The penalty is that of a fit to all rows handed over so far, and the model is the
        average of the parameters over all updates so far. A block without weight changes nothing.

        Parameters
        ----------
        X, y, sample_weight : as for `fit`

        Returns
        -------
        self

        Raises
        ------
        ValueError
            naming the setting that cannot be used, or what is wrong with the data.
        """
        return self._partial_fit(X, y, sample_weight)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the coefficient of determination R^2, the mean over outputs.

        Parameters
        ----------
        X : store, path, Zarr, Dask array or array-like of shape (n_samples, n_features)
        y : array of shape (n_samples,) or (n_samples, n_outputs); a store brings its own,
            unless another is given, as for `fit`
        sample_weight : array of shape (n_samples,); a store brings its own,
            unless another is given, as for `fit`

        Returns
        -------
        float
        """
        if is_stored(X) or is_dask(X):
            return self._score(X, y, sample_weight)
        y, sample_weight = in_memory(y, sample_weight)
        require_arrays(X, y, sample_weight)
        return float(super().score(X, y, sample_weight))

    def _keep(
        self, fitted: Fitted, report: Report, *, flat: bool, labels: np.dtype[Any] | None
    ) -> None:
        del labels
        self.model_, self.report_, self._recipe = fitted.model, report, fitted.recipe
        is_flat = flat or (self._flattens_column and fitted.n_outputs == 1)
        self.coef_ = fitted.coef[0] if is_flat else fitted.coef
        self.intercept_ = fitted.intercept[0] if flat else fitted.intercept
        if not fitted.model.fit_intercept:
            self.intercept_ = 0.0
        self.n_iter_ = np.full(fitted.n_outputs, report.n_iter, np.int32)


class LinearRegression(_Regressor):
    """Least squares.

    Where columns depend on one another, the coefficients are those of least norm.

    Parameters
    ----------
    fit_intercept : whether there is a free constant
    max_iter : most iterations, or epochs of updates; None is 100
    tol : tolerance of the solvers that iterate
    solver : "auto", "gram" (exact, in one pass), "lbfgs", "sgd" or "adam"
    batch_size : rows per update: "full", "chunk", or a number of rows
    standardize : whether columns are standardised first; without a penalty it changes the path only
    shuffle_chunks : chunks that are mixed row by row where batches are drawn; "auto" is 1 for data
        that lie in random order
    replicas : shares of the rows that `fit` learns from at the same time by batches, and averages:
        the answer is that of as many replicas on any cluster
    memory_ceiling : bytes, or text such as "1GiB", that a fit may hold; None is the cluster's, else
        half of what is available
    learning_rate : of updates, on scaled columns: "auto", or a constant
    random_state : seed of the order of rows

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,) or (n_outputs, n_features), float64 whatever X is
    intercept_ : float or ndarray of shape (n_outputs,)
    n_iter_ : ndarray of shape (n_outputs,), iterations, or epochs of updates
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,), where the columns have names
    report_ : Report of the last fit: its passes, loss and memory
    history_ : pandas.DataFrame of its steps: passes, updates, loss, gradient_norm, ...
    model_ : Model, the settings that were used
    """

    _name = "linear"

    def __init__(
        self,
        *,
        fit_intercept: bool = True,
        max_iter: int | None = None,
        tol: float = 1e-6,
        solver: str = "auto",
        batch_size: int | str = "full",
        standardize: bool = False,
        shuffle_chunks: int | str = "auto",
        replicas: int = 1,
        memory_ceiling: str | int | Ceiling | None = None,
        learning_rate: float | str = "auto",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.fit_intercept = fit_intercept
        self.max_iter = max_iter
        self.tol = tol
        self.solver = solver
        self.batch_size = batch_size
        self.standardize = standardize
        self.shuffle_chunks = shuffle_chunks
        self.replicas = replicas
        self.memory_ceiling = memory_ceiling
        self.learning_rate = learning_rate
        self.random_state = random_state

    def to_sklearn(self) -> Any:
        """Return a fitted `sklearn.linear_model.LinearRegression` that predicts the same."""
        self._fitted()
        return self._copy_to(
            sklearn.linear_model.LinearRegression(fit_intercept=self.fit_intercept)
        )


class Ridge(_Regressor):
    """Least squares with an l2 penalty: `|y - X w - b|^2 + alpha |w|^2`, as scikit-learn's.

    Parameters
    ----------
    alpha : strength of the penalty, in the data's units
    fit_intercept : whether there is a free constant
    max_iter : most iterations, or epochs of updates; None is 100
    tol : tolerance of the solvers that iterate
    solver : "auto", "gram" (exact, in one pass), "lbfgs", "sgd" or "adam"
    batch_size : rows per update: "full", "chunk", or a number of rows
    standardize : whether columns are standardised first, so that the penalty is on those
    shuffle_chunks : chunks that are mixed row by row where batches are drawn; "auto" is 1 for data
        that lie in random order
    replicas : shares of the rows that `fit` learns from at the same time by batches, and averages:
        the answer is that of as many replicas on any cluster
    memory_ceiling : bytes, or text such as "1GiB", that a fit may hold; None is the cluster's, else
        half of what is available
    learning_rate : of updates, on scaled columns: "auto", or a constant
    random_state : seed of the order of rows

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,) or (n_outputs, n_features), float64 whatever X is; as
        scikit-learn's Ridge does, a y of one column loses its second axis here and in predictions
    intercept_ : float or ndarray of shape (n_outputs,)
    n_iter_ : ndarray of shape (n_outputs,), iterations, or epochs of updates
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,), where the columns have names
    report_ : Report of the last fit: its passes, loss and memory
    history_ : pandas.DataFrame of its steps: passes, updates, loss, gradient_norm, ...
    model_ : Model, the settings that were used
    """

    _name = "ridge"
    _flattens_column = True

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        fit_intercept: bool = True,
        max_iter: int | None = None,
        tol: float = 1e-4,
        solver: str = "auto",
        batch_size: int | str = "full",
        standardize: bool = False,
        shuffle_chunks: int | str = "auto",
        replicas: int = 1,
        memory_ceiling: str | int | Ceiling | None = None,
        learning_rate: float | str = "auto",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.max_iter = max_iter
        self.tol = tol
        self.solver = solver
        self.batch_size = batch_size
        self.standardize = standardize
        self.shuffle_chunks = shuffle_chunks
        self.replicas = replicas
        self.memory_ceiling = memory_ceiling
        self.learning_rate = learning_rate
        self.random_state = random_state

    def to_sklearn(self) -> Any:
        """Return a fitted `sklearn.linear_model.Ridge` that predicts the same."""
        self._fitted()
        plain = sklearn.linear_model.Ridge(
            self.alpha, fit_intercept=self.fit_intercept, max_iter=self.max_iter, tol=self.tol
        )
        return self._copy_to(plain)
