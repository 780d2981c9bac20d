"""Saved runs as fitted estimators."""

import os
from collections.abc import Mapping
from typing import Any

from ooc_train.estimators.classification import LogisticRegression
from ooc_train.estimators.estimator import NOT_OF_MODEL, LinearModel
from ooc_train.estimators.regression import LinearRegression, Ridge
from ooc_train.runs.fitted import load_fitted

_ESTIMATORS: dict[str, type[LinearModel]] = {
    "linear": LinearRegression,
    "ridge": Ridge,
    "logistic": LogisticRegression,
}


def load(path: str | os.PathLike[str]) -> Any:
    """Return the fitted estimator that `save`, or a run of the command line, wrote.

    A regression of one output is restored as if y had one axis.

    Parameters
    ----------
    path : path
        The folder.

    Returns
    -------
    LinearRegression, Ridge or LogisticRegression

    Raises
    ------
    InvalidRun
        If the folder is no saved model, is damaged, or was written by a later release.
    """
    fitted = load_fitted(path)
    estimator_class = _ESTIMATORS[fitted.model.name]
    names = set(estimator_class().get_params()) - set(NOT_OF_MODEL)
    settings = {name: getattr(fitted.model, name) for name in names}
    if isinstance(fitted.model.class_weight, Mapping):
        # JSON names labels by text.
        weights = fitted.model.class_weight
        settings["class_weight"] = {
            label: weights[str(label)] for label in fitted.classes if str(label) in weights
        }
    # Settings of the command line may be None, those of an estimator are numbers.
    settings["tol"] = fitted.model.tolerance
    if estimator_class is LogisticRegression:
        settings["max_iter"] = fitted.model.iterations
    return estimator_class(**settings)._restored(fitted, os.fspath(path))  # noqa: SLF001 (of this folder)
