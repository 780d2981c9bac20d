"""Classifiers: labels of any type."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import sklearn.linear_model
from sklearn.base import ClassifierMixin

from ooc_train.estimators.estimator import Estimator
from ooc_train.estimators.loading import copied_to
from ooc_train.estimators.shared_parameters import SharedParameters, estimator_of
from ooc_train.estimators.sparse_coefficients import SparseCoefficients
from ooc_train.estimators.with_summary import WithSummary
from ooc_train.models.classification_models import LogisticModel
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.report import Report
from ooc_train.stream.inputs import read_targets
from ooc_train.stream.kinds import as_labels, is_dask, require_arrays
from ooc_train.stream.labels_and_weights import is_stored
from ooc_train.training.checkpoints import Checkpoint


class Classifier(ClassifierMixin, Estimator):  # type: ignore[misc]
    """The base of all classifiers."""

    warm_start: bool = False

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
        y : array of shape (n_samples,)
            Labels. If X is a store, also the path or URL of an array, a Zarr array, or another
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
            If a setting or the data cannot be used.
        CeilingExceeded
            If the memory ceiling is too small, before anything is read.
        """
        validation = (X_val, y_val, sample_weight_val)
        rows = (X, y, sample_weight)
        return self._fit(rows, validation, warm=self.warm_start, checkpoint=checkpoint)

    def partial_fit(
        self, X: Any, y: Any = None, classes: Any = None, sample_weight: Any = None
    ) -> Self:
        """Learn from further rows: one pass of updates, in the order of the rows.

        Columns are scaled by the moments of all rows so far. With `batch_size="full"`, each call
        makes one update. The penalty is that of a fit to all rows so far. The model is the average
        of the parameters over all updates. A block without weight changes nothing.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.
        classes : array of shape (n_classes,), optional
            All labels of all calls; needed by the first call, unless X is a store.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a setting or the data cannot be used.
        """
        known = self._labels()
        if classes is not None:
            classes = np.unique(as_labels(classes))
            if known is not None and not np.array_equal(classes, known):
                raise ValueError(
                    f"classes={classes.tolist()} are not those of the first call, "
                    f"{known.tolist()}; leave them out, or fit anew"
                )
        elif known is None and not is_stored(X):
            raise ValueError("classes must be passed on the first call to partial_fit.")
        return self._partial_fit(X, y, sample_weight, known if classes is None else classes)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the accuracy: the share of rows, by weight, whose predicted class is right.

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
        return float(super().score(X, None if y is None else as_labels(y), sample_weight))

    def _keep(
        self, fitted: Fitted, report: Report, *, flat: bool, labels: np.dtype[Any] | None
    ) -> None:
        del flat
        self.model_, self.training_ = fitted.model, fitted.training
        self.report_, self._recipe = report, fitted.recipe
        self._keep_classes(fitted, labels)
        self.coef_, self.intercept_ = fitted.coef, fitted.intercept
        self.n_iter_: Any = np.full(1, report.n_iter, np.int32)

    def _keep_classes(self, fitted: Fitted, labels: np.dtype[Any] | None) -> None:
        # Blocks of y may hold text of different widths, which the type of one could cut short.
        kept = None if labels is None or labels.kind in "US" else labels
        self.classes_ = np.asarray(fitted.classes, kept)

    def decision_function(self, X: Any, *, out: str | os.PathLike[str] | None = None) -> Any:
        """Return the linear predictors; for two classes, the predictor of the second class.

        Parameters
        ----------
        X : store, path, Zarr, Dask array or array-like of shape (n_samples, n_features)
            The rows.
        out : path, optional
            A store to write, with the array "decision"; None returns predictions.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
            A lazy Dask array if X is a Dask array; `out` if it was passed.
        """
        return self._predict(X, "decision", out)


class ProbabilisticClassifier(Classifier):
    """The base of classifiers whose predictors give probabilities."""

    def predict_proba(self, X: Any, *, out: str | os.PathLike[str] | None = None) -> Any:
        """Return the probability of each class, in the order of `classes_`.

        Parameters
        ----------
        X : store, path, Zarr, Dask array or array-like of shape (n_samples, n_features)
            The rows.
        out : path, optional
            A store to write, with the array "probability"; None returns predictions.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            A lazy Dask array if X is a Dask array; `out` if it was passed.
        """
        return self._predict(X, "probability", out)

    def predict_log_proba(self, X: Any, *, out: str | os.PathLike[str] | None = None) -> Any:
        """Return the logarithm of the probability of each class, in the order of `classes_`.

        It is finite where the probability itself is too small for a float64.

        Parameters
        ----------
        X : store, path, Zarr, Dask array or array-like of shape (n_samples, n_features)
            The rows.
        out : path, optional
            A store to write, with the array "log_probability"; None returns predictions.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            A lazy Dask array if X is a Dask array; `out` if it was passed.
        """
        return self._predict(X, "log_probability", out)


@estimator_of(LogisticModel)
@dataclass(kw_only=True, eq=False, repr=False)
class LogisticRegression(
    SparseCoefficients, ProbabilisticClassifier, WithSummary, SharedParameters
):
    """Logistic regression with an elastic-net penalty; multinomial for more than two classes.

    `(l1_ratio |w| + (1 - l1_ratio) / 2 |w|^2) / C` is added to the sum of losses.

    Parameters
    ----------
    warm_start : bool
        Whether `fit` begins from the coefficients of the previous fit.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    coef_ : ndarray of shape (1, n_features) for two classes, else (n_classes, n_features)
        Coefficients, float64 whatever X is.
    sparse_coef_ : scipy.sparse.csr_matrix of the shape of `coef_`
        The coefficients.
    intercept_ : ndarray of shape (1,) or (n_classes,)
        Intercepts.
    n_iter_ : ndarray of shape (1,)
        Iterations, or epochs of updates.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from ooc_train import LogisticRegression
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = LogisticRegression().fit(X, y)
    >>> print(f"{model.score(X, y):.3f} by {model.report_.solver}")
    0.958 by newton
    >>> model.predict_proba(X[:2]).round(3)
    array([[1., 0.],
           [1., 0.]])
    """

    C: float = 1.0
    l1_ratio: float = 0.0
    class_weight: str | Mapping[Any, float] | None = None
    warm_start: bool = False
    max_iter: int = 100

    def to_sklearn(self) -> Any:
        """Return a fitted `sklearn.linear_model.LogisticRegression` that predicts the same."""
        self._fitted()
        plain = sklearn.linear_model.LogisticRegression(
            C=self.C,
            l1_ratio=self.l1_ratio,
            solver="lbfgs" if self.l1_ratio == 0 else "saga",
            tol=self.tol,
            fit_intercept=self.fit_intercept,
            class_weight=self.class_weight,
            max_iter=self.max_iter,
        )
        return copied_to(plain, self)
