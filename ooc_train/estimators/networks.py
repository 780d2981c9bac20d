"""Multi-layer perceptrons: classifier and regressor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import sklearn.neural_network
from sklearn.preprocessing import LabelBinarizer

from ooc_train.core.schema import shown
from ooc_train.core.settings import Flag, Number, Setting
from ooc_train.estimators.classification import ProbabilisticClassifier
from ooc_train.estimators.estimator import Estimator
from ooc_train.estimators.loading import copied_to
from ooc_train.estimators.regression import Regressor
from ooc_train.estimators.shared_parameters import TrainingParameters, estimator_of
from ooc_train.estimators.validation import EARLY_STOPPING, Rows, with_validation_share
from ooc_train.models.network import Layers
from ooc_train.models.network_models import MLPClassifierModel, MLPRegressorModel
from ooc_train.models.network_predictor import NetworkPredictor
from ooc_train.models.predictor import Predictor
from ooc_train.objective.activations import ACTIVATIONS
from ooc_train.optimizers.adam import Adam
from ooc_train.optimizers.momentum import Momentum
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.report import Report
from ooc_train.solvers.training_settings import EXACT

_SHARE = Number(least=0.0)

_ACTIVATIONS = ("identity", "logistic", "tanh", "relu")
_LOSSES = (None, "squared_error", "poisson")
"""What scikit-learn's networks have."""

NETWORK_RATES: Mapping[str, Setting] = MappingProxyType(
    {
        "learning_rate_init": Setting(
            Number((None,), above=0.0),
            'Rate of `learning_rate="constant"` and "invscaling". None is "auto": 0.001, and 0.01 '
            "for gradient descent without momentum.",
        ),
        "power_t": Setting(
            Number(above=0.0),
            'Power of `learning_rate="invscaling"`: the n-th update has '
            "`learning_rate_init / n**power_t`.",
        ),
        "momentum": Setting(
            _SHARE, 'Of `solver="sgd"`: share of the velocity that the next step keeps.'
        ),
        "nesterovs_momentum": Setting(Flag(), "Whether the momentum is Nesterov's."),
        "beta_1": Setting(_SHARE, 'Of `solver="adam"`: decay of the running mean of the gradient.'),
        "beta_2": Setting(_SHARE, "Decay of the running mean of its square."),
        "epsilon": Setting(Number(above=0.0), "Added to the root of the mean square."),
        "early_stopping": EARLY_STOPPING,
    }
)
"""What is declared of the parameters that become `solver` and `learning_rate`."""


@dataclass(kw_only=True, eq=False, repr=False)
class _Network(Estimator, TrainingParameters):
    """The base of multi-layer perceptrons: scikit-learn's parameters, and its fitted attributes."""

    hidden_layer_sizes: Sequence[int] = field(default=(100,), kw_only=False)
    activation: str = "relu"
    alpha: float = 1e-4
    weight_init: str = "glorot"
    average: bool = True
    standardize: bool = False
    scale: float | str = 1.0
    dropout: float = 0.0
    frozen_layers: int = 0
    augment: Any = None
    batch_size: Any = "auto"
    max_iter: int = 200
    warm_start: bool = False
    learning_rate_init: float | None = None
    power_t: float = 0.5
    momentum: float = 0.9
    nesterovs_momentum: bool = True
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8

    def _parameters(self, validation: Rows) -> dict[str, Any]:
        """Return the parameters; scikit-learn's words become an optimizer and a learning rate.

        Raises
        ------
        ValueError
            If one of them cannot be used.
        """
        parameters = super()._parameters(validation)
        own = {
            name: setting.constraint.check(name, parameters[name])
            for name, setting in NETWORK_RATES.items()
        }
        solver = parameters["solver"]
        if solver == "sgd":
            if own["momentum"]:
                parameters["solver"] = Momentum(own["momentum"], own["nesterovs_momentum"])
        elif solver == "adam":
            parameters["solver"] = Adam(own["beta_1"], own["beta_2"], own["epsilon"])
        elif isinstance(solver, str) and solver in EXACT and parameters["batch_size"] == "auto":
            parameters["batch_size"] = "full"
        rate, first = parameters["learning_rate"], own["learning_rate_init"]
        if rate in ("constant", "invscaling"):
            settings = [repr(first or 1e-3)]
            settings += [f"power_t={own['power_t']!r}"] if rate == "invscaling" else []
            parameters["learning_rate"] = f"{rate}:{','.join(settings)}"
        elif first is not None:
            if rate != "auto":
                raise ValueError(
                    f"learning_rate_init={first!r} goes with learning_rate='constant' or "
                    f"'invscaling', and this is learning_rate={shown(rate)}; leave one of them out"
                )
            parameters["learning_rate"] = first
        return with_validation_share(parameters, validation)

    def _keep_layers(self, fitted: Fitted, report: Report, *, flat: bool) -> None:
        """Set the fitted attributes that classifiers and regressors share."""
        predictor = fitted.predictor
        if not isinstance(predictor, NetworkPredictor):
            raise TypeError(f"a {predictor.kind} model is no network")
        self.model_, self.training_ = fitted.model, fitted.training
        self.report_, self._recipe = report, fitted.recipe
        layers = predictor.layers.views(predictor.params)
        self.coefs_ = [weights for weights, _ in layers]
        self.intercepts_ = [biases for _, biases in layers]
        self.n_layers_, self.n_outputs_ = len(predictor.layers.sizes), fitted.n_outputs
        link = fitted.loss.link
        names = {"logit": "logistic", "multinomial logit": "softmax", "log": "exp"}
        self.out_activation_ = names.get(link, "identity")
        self.n_iter_, self.t_, self.loss_ = report.n_iter, report.updates, report.loss
        # A callback asks for attributes after a step, when there is no report yet.
        self.loss_curve_ = [step.loss for step in getattr(report, "history", (report,))]
        self.best_loss_ = min(self.loss_curve_, default=report.loss)
        self._flat = flat

    def _plain(self, kind: type, loss: str | None = None) -> Any:
        """Return a fitted network of scikit-learn, of a class, with copies of the layers.

        Raises
        ------
        ValueError
            If scikit-learn has no such activation or loss.
        """
        self._fitted()
        if self.activation not in _ACTIVATIONS or loss not in _LOSSES:
            raise ValueError(
                f"scikit-learn has no network with activation={self.activation!r}"
                + ("" if loss is None else f" and loss={loss!r}")
                + "; ooc_train.export writes a graph of ONNX"
            )
        plain = kind(
            hidden_layer_sizes=self.hidden_layer_sizes,
            activation=self.activation,
            alpha=self.alpha,
            max_iter=self.max_iter,
            tol=self.tol,
            **({} if loss is None else {"loss": loss}),
        )
        copied_to(plain, self)
        plain.coefs_ = [weights.copy() for weights in self.coefs_]
        plain.intercepts_ = [biases.copy() for biases in self.intercepts_]
        for name in ("n_layers_", "n_outputs_", "out_activation_", "loss_", "best_loss_", "t_"):
            setattr(plain, name, getattr(self, name))
        return plain

    def _predictor(self) -> Predictor:
        """Return what predicts, by the fitted attributes, which users may have changed."""
        sizes = (self.coefs_[0].shape[0], *(weights.shape[1] for weights in self.coefs_))
        layers = zip(self.coefs_, self.intercepts_, strict=True)
        params = [np.ravel(part) for layer in layers for part in layer]
        activation = ACTIVATIONS[self.model_.settings()["activation"]]()
        return NetworkPredictor(Layers(sizes, activation), np.concatenate(params, dtype=np.float64))

    @property
    def _is_flat(self) -> bool:
        """Whether predictions of one output have one axis."""
        return self._flat


@estimator_of(MLPClassifierModel, also=NETWORK_RATES)
@dataclass(kw_only=True, eq=False, repr=False)
class MLPClassifier(ProbabilisticClassifier, _Network):
    """A multi-layer perceptron for classes, trained by updates or by L-BFGS.

    Two classes have one output and the logistic loss; more have one output each, and the
    multinomial loss.

    Parameters
    ----------
    warm_start : bool
        Whether `fit` begins from the parameters of the last one.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    coefs_ : list of ndarray of shape (units before, units)
        Weights of each layer.
    intercepts_ : list of ndarray of shape (units,)
        Biases of each layer.
    loss_ : float
        Mean loss at the end, without the penalty.
    loss_curve_ : list of float
        Mean loss after each iteration or epoch.
    best_loss_ : float
        The least of them.
    n_iter_ : int
        Iterations, or epochs of updates.
    t_ : int
        Updates.
    n_layers_ : int
        Layers, with that of the features.
    n_outputs_ : int
        Outputs.
    out_activation_ : str
        Function of the last layer: "logistic" or "softmax".

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from ooc_train import MLPClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> model = MLPClassifier((32,), batch_size=32, max_iter=10, tol=0.0, random_state=0)
    >>> model = model.fit(X, y)
    >>> model.score(X, y) > 0.9
    True
    """

    class_weight: str | Mapping[Any, float] | None = None

    def _keep(self, fitted: Fitted, report: Report, *, flat: bool, labels: Any) -> None:
        del flat
        self._keep_layers(fitted, report, flat=False)
        self._keep_classes(fitted, labels)

    def to_sklearn(self) -> Any:
        """Return a fitted `sklearn.neural_network.MLPClassifier` that predicts the same."""
        plain = self._plain(sklearn.neural_network.MLPClassifier)
        plain._label_binarizer = LabelBinarizer().fit(self.classes_)  # noqa: SLF001 (as its fit does)
        return plain


@estimator_of(MLPRegressorModel, also=NETWORK_RATES)
@dataclass(kw_only=True, eq=False, repr=False)
class MLPRegressor(Regressor, _Network):
    """A multi-layer perceptron for numbers, one or several to a row.

    Parameters
    ----------
    warm_start : bool
        Whether `fit` begins from the parameters of the last one.

    Attributes
    ----------
    coefs_ : list of ndarray of shape (units before, units)
        Weights of each layer.
    intercepts_ : list of ndarray of shape (units,)
        Biases of each layer.
    loss_ : float
        Mean loss at the end, without the penalty.
    loss_curve_ : list of float
        Mean loss after each iteration or epoch.
    best_loss_ : float
        The least of them.
    n_iter_ : int
        Iterations, or epochs of updates.
    t_ : int
        Updates.
    n_layers_ : int
        Layers, with that of the features.
    n_outputs_ : int
        Outputs.
    out_activation_ : str
        Function of the last layer: "identity", or by the loss "exp" ("poisson"), "logistic"
        ("log_loss") or "softmax" ("cross_entropy").

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from ooc_train import MLPRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> y = (y - y.mean()) / y.std()
    >>> model = MLPRegressor((16,), batch_size=32, max_iter=60, tol=0.0, random_state=0)
    >>> model = model.fit(X, y)
    >>> print(f"{model.score(X, y):.1f}")
    0.4
    """

    loss: str = "squared_error"
    temperature: float = 1.0

    def _keep(self, fitted: Fitted, report: Report, *, flat: bool, labels: Any) -> None:
        del labels
        self._keep_layers(fitted, report, flat=flat)

    def to_sklearn(self) -> Any:
        """Return a fitted `sklearn.neural_network.MLPRegressor` that predicts the same."""
        return self._plain(sklearn.neural_network.MLPRegressor, self.loss)
