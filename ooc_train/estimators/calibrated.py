"""Classifiers with probabilities that validation rows have calibrated."""

import os
from copy import copy
from typing import Any, Self

from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from ooc_train.estimators.estimator import Estimator
from ooc_train.inference.calibrate import calibrate
from ooc_train.inference.outputs import Kind
from ooc_train.memory.ceiling import Ceiling
from ooc_train.memory.measured import MemoryReport
from ooc_train.models.calibration import Calibration, Method
from ooc_train.runs.fitted import Fitted
from ooc_train.stream.inputs import read_targets
from ooc_train.stream.kinds import as_labels, is_dask, require_arrays
from ooc_train.stream.labels_and_weights import is_stored


class CalibratedClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc] # untyped bases
    """A fitted classifier, and the calibration of its probabilities on validation rows.

    It is `CalibratedClassifierCV(FrozenEstimator(estimator))` of scikit-learn, out of core.
    `ooc_train.calibrate` states formulas and sources.

    Parameters
    ----------
    estimator : fitted classifier of ooc_train
        The classifier, also within a `FrozenEstimator`. It stays as it is.
    method : {"sigmoid", "temperature", "isotonic"}
        The kind of calibration.
    memory_ceiling : int, str or None
        As for the classifier.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    calibration_ : Calibration
        What was learned: `slope` and `offset`, `inverse`, or `points`.
    memory_ : MemoryReport
        The memory of the fit.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, where the columns have names.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from ooc_train import CalibratedClassifier, LinearSVC
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = LinearSVC(C=0.1).fit(X[:400], y[:400])
    >>> calibrated = CalibratedClassifier(model, method="sigmoid").fit(X[400:], y[400:])
    >>> calibrated.predict_proba(X[400:402]).round(2)
    array([[0.99, 0.01],
           [0.01, 0.99]])
    """

    classes_: Any
    calibration_: Calibration
    memory_: MemoryReport

    def __init__(
        self,
        estimator: Any,
        method: Method = "sigmoid",
        *,
        memory_ceiling: str | int | Ceiling | None = None,
    ) -> None:
        self.estimator = estimator
        self.method = method
        self.memory_ceiling = memory_ceiling

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Learn the calibration.

        Parameters
        ----------
        X, y, sample_weight
            Rows that the classifier did not learn from, as for its `fit`.

        Returns
        -------
        self

        Raises
        ------
        TypeError
            If `estimator` is no classifier of ooc_train.
        NotFittedError
            From scikit-learn, if it is not fitted yet.
        ValueError
            If the rows have other features or labels, or cannot calibrate: see `calibrate`.
        CeilingExceeded
            If the memory ceiling is too small, before a pass begins.
        """
        given = self.estimator
        given = given.estimator if isinstance(given, FrozenEstimator) else given
        if not isinstance(given, Estimator):
            raise TypeError(
                f"{type(given).__name__} is no classifier of ooc_train; scikit-learn's "
                "CalibratedClassifierCV calibrates others"
            )
        fitted = given.to_fitted()
        inputs = given._validated(X, y, sample_weight, first=False, classes=fitted.classes).inputs  # noqa: SLF001
        found, self.memory_ = calibrate(
            fitted, inputs, self.method, memory_ceiling=self.memory_ceiling
        )
        return self._keep(given, found)

    def _keep(self, estimator: Estimator, fitted: Fitted) -> Self:
        """Set the fitted attributes from a classifier, and from it with its calibration."""
        if fitted.calibration is None:
            raise ValueError("the model has no calibration")
        self.calibration_ = fitted.calibration
        self._calibrated: Any = copy(estimator)
        self._calibrated._calibration = fitted.calibration  # noqa: SLF001
        for name in ("classes_", "n_features_in_", "feature_names_in_"):
            if hasattr(estimator, name):
                setattr(self, name, getattr(estimator, name))
        return self

    @classmethod
    def _restored(cls, estimator: Estimator, fitted: Fitted) -> Self:
        """Return the classifier of a saved model with a calibration."""
        method = None if fitted.calibration is None else fitted.calibration.method
        return cls(estimator, method or "sigmoid")._keep(estimator, fitted)  # noqa: SLF001

    def _predict(self, X: Any, kind: Kind, out: str | os.PathLike[str] | None) -> Any:
        check_is_fitted(self)
        return self._calibrated._predict(X, kind, out)  # noqa: SLF001

    def predict(self, X: Any, *, out: str | os.PathLike[str] | None = None) -> Any:
        """Return the class of the largest calibrated probability; `X`, `out` as of `estimator`."""
        return self._predict(X, "prediction", out)

    def predict_proba(self, X: Any, *, out: str | os.PathLike[str] | None = None) -> Any:
        """Return calibrated probabilities, (n_samples, n_classes); `X`, `out` as of `estimator`."""
        return self._predict(X, "probability", out)

    def predict_log_proba(self, X: Any, *, out: str | os.PathLike[str] | None = None) -> Any:
        """Return logarithms of calibrated probabilities; of isotonic ones some are -infinity."""
        return self._predict(X, "log_probability", out)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the accuracy; `X`, `y` and `sample_weight` are as for `fit`."""
        check_is_fitted(self)
        if is_stored(X) or is_dask(X):
            return float(self._calibrated._score(X, y, sample_weight))  # noqa: SLF001
        y, sample_weight = read_targets(y, sample_weight)
        require_arrays(X, y, sample_weight)
        return float(super().score(X, None if y is None else as_labels(y), sample_weight))

    def to_fitted(self) -> Fitted:
        """Return the calibrated model as plain numbers and settings, as `calibrate` does."""
        check_is_fitted(self)
        fitted: Fitted = self._calibrated.to_fitted()
        return fitted

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the calibrated model to a folder, which `load`, `predict` and `evaluate` read.

        Raises
        ------
        OutputExists
            If the path exists and may not be replaced.
        """
        self.to_fitted().save(path, overwrite=overwrite)
