"""Modules of PyTorch: classifier and regressor."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ooc_train.estimators.classification import ProbabilisticClassifier
from ooc_train.estimators.estimator import Estimator
from ooc_train.estimators.regression import Regressor
from ooc_train.estimators.shared_parameters import TrainingParameters, estimator_of
from ooc_train.models.predictor import Predictor
from ooc_train.models.pytorch.torch_module import TorchClassifierModel, TorchRegressorModel
from ooc_train.models.pytorch.torch_predictor import TorchPredictor
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.report import Report


@dataclass(kw_only=True, eq=False, repr=False)
class _Module(Estimator, TrainingParameters):
    """The base of modules of PyTorch: parameters, and fitted attributes."""

    module: Any = field(default=None, kw_only=False)
    module_parameters: Mapping[str, Any] | None = None
    criterion: Any = None
    criterion_parameters: Mapping[str, Any] | None = None
    optimizer: Any = None
    optimizer_parameters: Mapping[str, Any] | None = None
    scheduler: Any = None
    scheduler_parameters: Mapping[str, Any] | None = None
    average: bool = False
    device: str = "auto"
    augment: Any = None
    scale: float | str = 1.0
    batch_size: Any = "auto"
    warm_start: bool = False

    def _keep_module(self, fitted: Fitted, report: Report, *, flat: bool) -> None:
        """Set the fitted attributes that classifiers and regressors share."""
        if not isinstance(fitted.predictor, TorchPredictor):
            raise TypeError(f"a {fitted.predictor.kind} model is no module")
        self.model_, self.training_ = fitted.model, fitted.training
        self.report_, self._recipe = report, fitted.recipe
        self._fitted_module = fitted.predictor
        self.state_dict_ = dict(fitted.predictor.tensors)
        self.n_iter_, self.t_, self.loss_ = report.n_iter, report.updates, report.loss
        self._flat = flat
        if fitted.predictor.spec.channel_scale:
            self.channel_mean_ = np.array(fitted.predictor.spec.channel_mean)
            self.channel_scale_ = np.array(fitted.predictor.spec.channel_scale)

    def _predictor(self) -> Predictor:
        """Return what predicts."""
        return self._fitted_module

    @property
    def _is_flat(self) -> bool:
        """Whether predictions of one output have one axis."""
        return self._flat

    @property
    def module_(self) -> Any:
        """The fitted module: a new `torch.nn.Module` on the CPU, in evaluation mode."""
        return self._fitted_module.module()


@estimator_of(TorchClassifierModel)
@dataclass(kw_only=True, eq=False, repr=False)
class TorchClassifier(ProbabilisticClassifier, _Module):
    """A module of PyTorch for classes, trained from the stream of rows.

    The module takes rows (rows, features), or ``(rows, *row_shape)`` of a store of images. It
    returns (rows, classes), or one output for two classes. Probabilities are the softmax of what it
    returns, or the logistic function of one output.

    Parameters
    ----------
    warm_start : bool
        Whether `fit` begins from the parameters of the last one.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    module_ : torch.nn.Module
        The fitted module, made anew. It takes rows as `scale` makes them.
    state_dict_ : dict of ndarray
        Its parameters and buffers.
    channel_mean_, channel_scale_ : ndarray of shape (channels,)
        By which images are centred and divided; only with `scale="channel"`.
    loss_ : float
        Mean of the criterion at the end.
    n_iter_ : int
        Iterations, or epochs of updates.
    t_ : int
        Updates.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> import torch
    >>> from ooc_train import TorchClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> def network():
    ...     layers = torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)
    ...     return torch.nn.Sequential(*layers)
    >>> model = TorchClassifier(network, batch_size=32, max_iter=5, tol=0.0, scale=1 / 16)
    >>> model = model.fit(X.astype("float32"), y)
    >>> model.score(X.astype("float32"), y) > 0.8
    True
    """

    class_weight: str | Mapping[Any, float] | None = None

    def _keep(self, fitted: Fitted, report: Report, *, flat: bool, labels: Any) -> None:
        del flat
        self._keep_module(fitted, report, flat=False)
        self._keep_classes(fitted, labels)


@estimator_of(TorchRegressorModel)
@dataclass(kw_only=True, eq=False, repr=False)
class TorchRegressor(Regressor, _Module):
    """A module of PyTorch for numbers, one or several to a row, trained from the stream of rows.

    The module takes rows (rows, features), or ``(rows, *row_shape)`` of a store of images. It
    returns (rows, outputs), or (rows,) for one output, and these are the predictions.

    Parameters
    ----------
    warm_start : bool
        Whether `fit` begins from the parameters of the last one.

    Attributes
    ----------
    module_ : torch.nn.Module
        The fitted module, made anew. It takes rows as `scale` makes them.
    state_dict_ : dict of ndarray
        Its parameters and buffers.
    channel_mean_, channel_scale_ : ndarray of shape (channels,)
        By which images are centred and divided; only with `scale="channel"`.
    loss_ : float
        Mean of the criterion at the end.
    n_iter_ : int
        Iterations, or epochs of updates.
    t_ : int
        Updates.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> import torch
    >>> from ooc_train import TorchRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> y = (y - y.mean()) / y.std()
    >>> model = TorchRegressor(torch.nn.Linear(10, 1), batch_size=32, max_iter=20, tol=0.0)
    >>> model = model.fit(X.astype("float32"), y.astype("float32"))
    >>> model.predict(X.astype("float32")).shape
    (442,)
    """

    def _keep(self, fitted: Fitted, report: Report, *, flat: bool, labels: Any) -> None:
        del labels
        self._keep_module(fitted, report, flat=flat)
