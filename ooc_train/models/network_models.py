"""Multi-layer perceptrons as models: what is learned, and its settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from ooc_train.augmentation.augment_setting import Augment
from ooc_train.augmentation.augmenter import Augmentations
from ooc_train.core.named_classes import plain
from ooc_train.core.schema import shown
from ooc_train.core.settings import Constraint, Count, Flag, Number
from ooc_train.core.text import counted
from ooc_train.models.linear_model import ClassWeights
from ooc_train.models.model import UPDATES, DataFigures, Model
from ooc_train.models.scale_setting import (
    CHANNEL,
    SCALES,
    channels_of,
    factor_of,
    require_one_scale,
)
from ooc_train.objective.activations import ACTIVATIONS
from ooc_train.objective.loss import Loss
from ooc_train.objective.losses.logistic import Logistic
from ooc_train.objective.losses.multinomial import Multinomial
from ooc_train.objective.losses.poisson import Poisson
from ooc_train.objective.losses.soft_multinomial import SoftMultinomial
from ooc_train.objective.losses.squared import Squared
from ooc_train.objective.scaling import Scaling

if TYPE_CHECKING:
    from ooc_train.models.network_problem import NetworkProblem

_MOST_UNITS, _MOST_LAYERS = 10**6, 100

_LOSSES: Mapping[str, type[Loss]] = MappingProxyType(
    {
        "squared_error": Squared,
        "poisson": Poisson,
        "log_loss": Logistic,
        "cross_entropy": SoftMultinomial,
    }
)
"""Losses by scikit-learn's names."""


@dataclass(frozen=True)
class LayerSizes(Constraint):
    """A constraint that accepts the units of each hidden layer, or an empty sequence."""

    kind: ClassVar[str] = "sequence of int"

    @property
    def _others(self) -> str:
        return (
            f"the units of each hidden layer, such as (128, 64): at most {_MOST_LAYERS} numbers "
            f"from 1 to {_MOST_UNITS:,}"
        )

    def _checked(self, name: str, value: Any) -> Any:
        sizes = value.tolist() if hasattr(value, "tolist") else value
        sizes = [sizes] if isinstance(sizes, Integral) else sizes
        if isinstance(sizes, str) or not isinstance(sizes, Sequence) or len(sizes) > _MOST_LAYERS:
            raise self._refused(name, value)
        units = tuple(plain(size) for size in sizes)
        for size in units:
            if isinstance(size, bool) or not isinstance(size, Integral):
                raise self._refused(name, value)
            if not 1 <= int(size) <= _MOST_UNITS:
                raise self._refused(name, value)
        return units

    def _parsed(self, name: str, text: str) -> Any:
        try:
            return tuple(int(size) for size in text.split(",") if size)
        except ValueError:
            raise ValueError(f"{name}={shown(text)} is not {self.accepted}") from None

    def to_json(self, value: Any) -> Any:
        """Convert a value to one that JSON can hold."""
        return list(value)

    @property
    def metavar(self) -> str:
        """The placeholder for the value in an option's help."""
        return "UNITS,..."


@dataclass(frozen=True, kw_only=True)
class NetworkModel(Model):
    """The base of multi-layer perceptrons.

    `alpha / (2 * rows of a batch)` times the sum of the squared weights is added to the mean loss,
    as scikit-learn has it.
    """

    hidden_layer_sizes: Annotated[tuple[int, ...], LayerSizes(), "Units of each hidden layer."] = (
        100,
    )
    activation: Annotated[
        str, Constraint(tuple(ACTIVATIONS)), "Activation of the hidden units."
    ] = "relu"
    alpha: Annotated[
        float,
        Number(least=0.0),
        "Strength of the l2 penalty on the weights, over the rows of a batch.",
    ] = 1e-4
    weight_init: Annotated[
        str,
        Constraint(("glorot", "he")),
        "Random weights to begin with, uniform within bounds. The bounds follow from the sizes of "
        'both layers ("glorot", as in scikit-learn), or from that of the layer before ("he").',
    ] = "glorot"
    average: Annotated[
        bool,
        Flag(off="no-average"),
        "Average the parameters over the updates of batches, with weights that grow as the third "
        "power of the updates. The average is less noisy than the last parameters, which "
        "scikit-learn takes.",
    ] = True
    standardize: Annotated[
        bool,
        Flag(),
        "Centre columns, and scale them to a standard deviation of 1.",
    ] = False
    scale: Annotated[
        float | str,
        SCALES,
        'Factor of all columns, such as 1/255 for pixels of 8 bits. "channel" centres and scales '
        "the pixels of images to a standard deviation of 1, by the moments of each channel. It is "
        "the last of the axes (height, width, channel).",
    ] = 1.0
    dropout: Annotated[
        float,
        Number(least=0.0, most=0.99),
        "Probability that a hidden unit is left out, drawn anew for each row of a batch. Nothing "
        "is left out of predictions and of reported losses.",
    ] = 0.0
    augment: Augment = None

    frozen_layers: Annotated[
        int,
        Count(least=0),
        "Number of layers, from the first, whose weights and biases are not learned. They stay as "
        "a run begins with them, such as those of another network.",
    ] = 0

    default_max_iter: ClassVar[int] = 200
    solvers: ClassVar[tuple[str, ...]] = ("lbfgs", *UPDATES)
    default_batch_size: ClassVar[int | str] = "auto"
    starts_at_random: ClassVar[bool] = True

    @property
    def standardizes_once(self) -> bool:
        """Whether columns are scaled by moments, since layers do not adapt to new ones."""
        return self.standardize or self.scale == CHANNEL

    def __post_init__(self) -> None:
        """Check the settings, and that at most one of them scales the columns."""
        super().__post_init__()
        require_one_scale(self.scale, standardize=self.standardize)

    def problem(self, data: DataFigures) -> "NetworkProblem":
        """Return the problem of learning the model from data."""
        # The command line makes its options of this file, and so it loads no problems.
        from ooc_train.models.network import Layers
        from ooc_train.models.network_problem import NetworkProblem

        n_outputs = data.n_targets
        if self.is_classifier:
            n_outputs = 1 if data.n_classes == 2 else data.n_classes
        sizes = (data.n_features, *self.hidden_layer_sizes, n_outputs)
        if self.frozen_layers >= len(sizes) - 1:
            raise ValueError(
                f"frozen_layers={self.frozen_layers} leaves nothing to learn of "
                f"{counted(len(sizes) - 1, 'layer')} of weights; freeze fewer"
            )
        factor = factor_of(self.scale)
        scaling = None if factor == 1.0 else Scaling.constant(factor, data.n_features)
        return NetworkProblem(
            data.n_rows,
            data.total_weight,
            float(self.alpha) * data.n_rows / (data.batch_rows or data.n_rows),
            data.class_weight,
            layers=Layers(sizes, ACTIVATIONS[self.activation]()),
            loss=self.loss_for(data.n_classes),
            weight_init=self.weight_init,
            standardize=self.standardizes_once,
            channels=channels_of(self.scale, data.row_shape),
            scaling=scaling,
            average=self.average,
            dropout=float(self.dropout) if self.hidden_layer_sizes else 0.0,
            frozen_layers=self.frozen_layers,
            augmentations=Augmentations.of(
                self.augment, data.row_shape or (data.n_features,), data.seed
            ),
        )


@dataclass(frozen=True, kw_only=True)
class MLPClassifierModel(NetworkModel):
    """A multi-layer perceptron for classification, by the logistic or multinomial loss.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from ooc_train import MLPClassifierModel, Training, train
    >>> X, y = load_digits(return_X_y=True)
    >>> settings = Training(solver="adam", batch_size=32, max_iter=3, random_state=0)
    >>> fitted, report = train(MLPClassifierModel(hidden_layer_sizes=(16,)), X, settings, y=y)
    >>> report.updates
    171
    """

    class_weight: ClassWeights = None

    name: ClassVar[str] = "mlp-classifier"

    @property
    def is_classifier(self) -> bool:
        """Whether y holds class labels."""
        return True

    def loss_for(self, n_classes: int) -> Loss:
        """Return the logistic loss, or the multinomial one for more than two classes."""
        return Logistic() if n_classes == 2 else Multinomial()


@dataclass(frozen=True, kw_only=True)
class MLPRegressorModel(NetworkModel):
    """A multi-layer perceptron for regression on one target or several.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from ooc_train import MLPRegressorModel, Training, train
    >>> X, y = load_diabetes(return_X_y=True)
    >>> settings = Training(solver="lbfgs", max_iter=5, random_state=0)
    >>> fitted, report = train(MLPRegressorModel(hidden_layer_sizes=(8,)), X, settings, y=y)
    >>> report.solver
    'lbfgs'
    """

    loss: Annotated[
        str,
        Constraint(tuple(_LOSSES)),
        'Half the squared residual; half the deviance of "poisson", whose prediction is the '
        'exponential of z; "log_loss" of targets from 0 to 1, each by itself, such as several '
        'labels of a row; or "cross_entropy" of targets that are probabilities of classes, such '
        "as the predictions of a teacher.",
    ] = "squared_error"
    temperature: Annotated[
        float,
        Number(above=0.0),
        'Of "cross_entropy": targets to the power 1 / temperature, and outputs divided by it, '
        "are softer than the probabilities themselves (Hinton et al. 2015).",
    ] = 1.0

    name: ClassVar[str] = "mlp-regressor"

    def __post_init__(self) -> None:
        """Check the settings, and that they go together."""
        super().__post_init__()
        if self.temperature != 1.0 and self.loss != "cross_entropy":
            raise ValueError(
                f"temperature={self.temperature:g} is for loss='cross_entropy', and this is "
                f"loss={self.loss!r}; leave it out"
            )

    @property
    def is_classifier(self) -> bool:
        """Whether y holds class labels."""
        return False

    def loss_for(self, n_classes: int) -> Loss:
        """Return the loss that the setting `loss` names."""
        del n_classes
        if self.loss == "cross_entropy":
            return SoftMultinomial(float(self.temperature))
        return _LOSSES[self.loss]()
