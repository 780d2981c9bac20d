"""Linear classifiers: support vector machines, ridge classifiers, and SGD by any binary loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sklearn.linear_model
import sklearn.svm
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.metaestimators import available_if

from ooc_train.core.sums import Array
from ooc_train.estimators.classification import Classifier, ProbabilisticClassifier
from ooc_train.estimators.loading import copied_to
from ooc_train.estimators.regression import as_penalties
from ooc_train.estimators.sgd_rates import STOCHASTIC_RATES, StochasticRates
from ooc_train.estimators.shared_parameters import SharedParameters, estimator_of
from ooc_train.models.classification_models import (
    LinearSVCModel,
    RidgeClassifierModel,
    SGDClassifierModel,
)
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.report import Report


class _MarginClassifier(Classifier):
    """The base of classifiers whose `intercept_` is the number 0.0 if no intercept is fitted."""

    fit_intercept: bool

    def _keep(self, fitted: Fitted, report: Report, **kept: Any) -> None:
        super()._keep(fitted, report, **kept)
        if not self.fit_intercept and not fitted.model.standardizes:
            self.intercept_ = 0.0


@estimator_of(LinearSVCModel)
@dataclass(kw_only=True, eq=False, repr=False)
class LinearSVC(_MarginClassifier, SharedParameters):
    """A linear support vector machine; several classes are separated one against the rest.

    `1 / 2 |w|^2 + C * sum(max(0, 1 - margin)^2)` is minimised. Unlike in scikit-learn, the
    intercept is not penalised. With a large `intercept_scaling`, scikit-learn hardly
    penalises its intercept.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    coef_ : ndarray of shape (1, n_features) for two classes, else (n_classes, n_features)
        Coefficients, float64 whatever X is.
    intercept_ : ndarray of shape (1,) or (n_classes,), or 0.0 if none is fitted
        Intercepts.
    n_iter_ : int
        Iterations, or epochs of updates.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from ooc_train import LinearSVC
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = LinearSVC(C=0.1).fit(X, y)
    >>> print(f"{model.score(X, y):.3f}")
    0.958
    """

    penalty: str = field(default="l2", kw_only=False)
    loss: str = field(default="squared_hinge", kw_only=False)
    C: float = 1.0
    class_weight: str | Mapping[Any, float] | None = None
    max_iter: int = 1000

    def _keep(self, fitted: Fitted, report: Report, **kept: Any) -> None:
        super()._keep(fitted, report, **kept)
        self.n_iter_ = report.n_iter

    def to_sklearn(self) -> Any:
        """Return a fitted `sklearn.svm.LinearSVC` that predicts the same."""
        self._fitted()
        return copied_to(
            sklearn.svm.LinearSVC(
                self.penalty,
                self.loss,
                tol=self.tol,
                C=self.C,
                fit_intercept=self.fit_intercept,
                class_weight=self.class_weight,
                max_iter=self.max_iter,
            ),
            self,
        )


@estimator_of(RidgeClassifierModel)
@dataclass(kw_only=True, eq=False, repr=False)
class RidgeClassifier(_MarginClassifier, SharedParameters):
    """Least squares with an l2 penalty on targets of -1 and 1, in one pass.

    More than two classes are separated one against the rest: `|y - X w - b|^2 + alpha |w|^2` is
    minimised for each, as in scikit-learn. `class_weight="balanced"` adds up the weights of rows,
    as in `LogisticRegression`; scikit-learn's RidgeClassifier counts rows.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    coef_ : ndarray of shape (n_features,) for two classes, else (n_classes, n_features)
        Coefficients, float64 whatever X is.
    intercept_ : ndarray of shape (1,) or (n_classes,), or 0.0 if none is fitted
        Intercepts.
    n_iter_ : ndarray of shape (1,) or (n_classes,)
        Iterations, or epochs of updates.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from ooc_train import RidgeClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> model = RidgeClassifier().fit(X, y)
    >>> print(f"{model.score(X, y):.3f} in {model.report_.passes:g} passes")
    1.000 in 3 passes
    """

    alpha: float | Sequence[float] | Array = field(default=1.0, kw_only=False)
    class_weight: str | Mapping[Any, float] | None = None

    def _keep(self, fitted: Fitted, report: Report, **kept: Any) -> None:
        super()._keep(fitted, report, **kept)
        self.coef_ = fitted.coef[0] if fitted.n_outputs == 1 else fitted.coef
        self.n_iter_ = np.full(fitted.n_outputs, report.n_iter, np.int32)

    def to_sklearn(self) -> Any:
        """Return a fitted `sklearn.linear_model.RidgeClassifier` that predicts the same."""
        self._fitted()
        plain = sklearn.linear_model.RidgeClassifier(
            as_penalties(self.alpha),
            fit_intercept=self.fit_intercept,
            max_iter=self.max_iter,
            tol=self.tol,
            class_weight=self.class_weight,
        )
        # Its `predict` asks for what its `fit` makes.
        plain._label_binarizer = LabelBinarizer(neg_label=-1).fit(self.classes_)  # noqa: SLF001
        return copied_to(plain, self)


def _has_probabilities(estimator: "SGDClassifier") -> bool:
    return estimator.loss in ("log_loss", "modified_huber")


@estimator_of(SGDClassifierModel, also=STOCHASTIC_RATES)
@dataclass(kw_only=True, eq=False, repr=False)
class SGDClassifier(StochasticRates, Classifier, SharedParameters):
    """A linear classifier with any binary loss; by default each update is by one row.

    The objective is scikit-learn's; its mean loss is by weight, where scikit-learn divides the
    weighted sum by the number of rows. The algorithm differs: columns are scaled on the fly, the
    learning rate "auto" follows from the data, and the model is an average of the parameters.
    With `batch_size="full"` it is solved exactly where the loss allows.

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
    intercept_ : ndarray of shape (1,) or (n_classes,)
        Intercepts.
    n_iter_ : int
        Epochs of updates, or iterations.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from ooc_train import SGDClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = SGDClassifier(loss="log_loss", max_iter=20, tol=None, random_state=0).fit(X, y)
    >>> print(model.report_.updates, "updates")
    11380 updates
    >>> model.score(X, y) > 0.95
    True
    """

    loss: str = field(default="hinge", kw_only=False)
    penalty: str | None = "l2"
    alpha: float = 1e-4
    l1_ratio: float | None = 0.15
    class_weight: str | Mapping[Any, float] | None = None
    warm_start: bool = False
    max_iter: int = 1000
    tol: float | None = 1e-3  # type: ignore[assignment] # None of no other estimator
    batch_size: int | str = 1
    power_t: float = 0.5

    predict_proba = available_if(_has_probabilities)(ProbabilisticClassifier.predict_proba)
    predict_log_proba = available_if(_has_probabilities)(ProbabilisticClassifier.predict_log_proba)

    def _keep(self, fitted: Fitted, report: Report, **kept: Any) -> None:
        super()._keep(fitted, report, **kept)
        self.n_iter_ = report.n_iter

    def to_sklearn(self) -> Any:
        """Return a fitted `sklearn.linear_model.SGDClassifier` that predicts the same."""
        self._fitted()
        return copied_to(
            sklearn.linear_model.SGDClassifier(
                self.loss,
                penalty=self.penalty,
                alpha=self.alpha,
                l1_ratio=self.l1_ratio,
                fit_intercept=self.fit_intercept,
                max_iter=self.max_iter,
                tol=self.tol,
                class_weight=self.class_weight,
                warm_start=self.warm_start,
            ),
            self,
        )
