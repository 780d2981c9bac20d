"""Saved runs as fitted estimators, and fitted estimators as estimators of scikit-learn."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import sklearn.linear_model

from ooc_train.core.settings import settings_of
from ooc_train.errors import InvalidRun
from ooc_train.estimators.calibrated import CalibratedClassifier
from ooc_train.estimators.shared_parameters import ESTIMATORS
from ooc_train.runs.run_loading import load_fitted
from ooc_train.solvers.training_settings import Training


def load(path: str | os.PathLike[str], *, module: Any = None) -> Any:
    """Return the fitted estimator that `save`, or a run of the command line, wrote.

    A regression of one output is restored as if y had one axis.

    Parameters
    ----------
    path : path
        The folder.
    module : class, function or torch.nn.Module, optional
        What makes the module of a `TorchClassifier` or `TorchRegressor`, whose code is no part of
        the folder. Its parameters by keywords are those that were saved.

    Returns
    -------
    estimator
        Of the class that has the name of the model; a `CalibratedClassifier` of it, where the run
        has a calibration.

    Raises
    ------
    InvalidRun
        If the folder is no saved model, is damaged, was written by a later release, or holds a
        model that has no estimator.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from ooc_train import LogisticRegression, load
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> path = LogisticRegression().fit(X, y).save("cancer.run")
    >>> load("cancer.run").predict(X[:3])
    array([0, 0, 0])
    """
    fitted = load_fitted(path, module)
    model, training = fitted.model, fitted.training
    if type(model) not in ESTIMATORS:
        raise InvalidRun(
            f"{os.fspath(path)} holds a {model.name} model, which has no estimator; use predict, "
            "evaluate or predict_store with its path"
        )
    estimator_class = ESTIMATORS[type(model)]
    names = set(estimator_class().get_params()) & {
        *settings_of(type(model)),
        *settings_of(Training),
    }
    settings = {name: getattr(model if hasattr(model, name) else training, name) for name in names}
    if isinstance(model.class_weight, Mapping):
        # JSON names labels by text.
        weights = model.class_weight
        settings["class_weight"] = {
            label: weights[str(label)] for label in fitted.classes if str(label) in weights
        }
    # Settings of the command line may be None, those of an estimator are numbers.
    if training.tol is None:
        settings["tol"] = model.default_tol
    if training.max_iter is None:
        settings["max_iter"] = estimator_class().max_iter
    plain = replace(fitted, calibration=None)
    estimator = estimator_class(**settings)._restored(plain, os.fspath(path))  # noqa: SLF001 (of this folder)
    if fitted.calibration is None:
        return estimator
    return CalibratedClassifier._restored(estimator, fitted)  # noqa: SLF001


_OF_ONE_TARGET = (
    sklearn.linear_model.SGDRegressor,
    sklearn.linear_model.PoissonRegressor,
    sklearn.linear_model.GammaRegressor,
    sklearn.linear_model.TweedieRegressor,
)
"""Estimators of scikit-learn that would predict nonsense, or fail, with several rows of `coef_`."""


def copied_to(plain: Any, estimator: Any) -> Any:
    """Return `plain`, of scikit-learn, with copies of the fitted attributes of `estimator`.

    Raises
    ------
    ValueError
        If it predicts one target alone, and the estimator several.
    """
    if isinstance(plain, _OF_ONE_TARGET) and np.ndim(estimator.coef_) > 1:
        raise ValueError(
            f"scikit-learn's {type(plain).__name__} predicts one target, and this one "
            f"{len(estimator.coef_):,}; fit one estimator for each column of y, or predict with "
            "this one"
        )
    for name in ("coef_", "intercept_", "n_iter_", "n_features_in_", "classes_", "dual_gap_"):
        if hasattr(estimator, name):
            value = getattr(estimator, name)
            setattr(plain, name, value.copy() if isinstance(value, np.ndarray) else value)
    if hasattr(estimator, "feature_names_in_"):
        plain.feature_names_in_ = estimator.feature_names_in_.copy()
    return plain
