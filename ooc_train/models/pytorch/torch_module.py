"""Modules of PyTorch as models: their settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from ooc_train.augmentation.augment_setting import Augment
from ooc_train.core.optional_packages import needed_package
from ooc_train.core.settings import Flag
from ooc_train.models.linear_model import ClassWeights
from ooc_train.models.model import DataFigures, Model
from ooc_train.models.pytorch.torch_settings import Code, Device, Keywords, name_of
from ooc_train.models.scale_setting import CHANNEL, SCALES
from ooc_train.objective.loss import Loss
from ooc_train.objective.losses.logistic import Logistic
from ooc_train.objective.losses.multinomial import Multinomial
from ooc_train.objective.losses.squared import Squared

if TYPE_CHECKING:
    from ooc_train.models.pytorch.torch_problem import TorchProblem

_OF_CLASSES = (
    *("CrossEntropyLoss", "NLLLoss", "BCEWithLogitsLoss", "MultiMarginLoss"),
    *("cross_entropy", "nll_loss", "binary_cross_entropy_with_logits", "multi_margin_loss"),
)
"""Criteria of `torch.nn` and its `functional` whose targets are classes."""


@dataclass(frozen=True, kw_only=True)
class ModuleModel(Model):
    """The base of modules of PyTorch; `TorchModule` says what a module takes and returns."""

    module: Annotated[
        Any,
        Code((None,), "a subclass of torch.nn.Module, a function that makes a module, or a module"),
        "The module: a class, or a function that makes one, or a module to begin from.",
    ] = field(default=None, kw_only=False)
    module_parameters: Annotated[
        Mapping[str, Any] | None, Keywords((None,)), "Parameters of that class or function."
    ] = None
    criterion: Annotated[
        Any,
        Code((None,), "a loss of torch.nn, by class, name or object, or a function of both"),
        "The loss: a class or object of torch.nn with reduction 'mean' or 'none', or its name. Or "
        "a function of output and target that returns the mean, or a loss for each row. None is "
        "CrossEntropyLoss for classes, and MSELoss for numbers.",
    ] = None
    criterion_parameters: Annotated[
        Mapping[str, Any] | None,
        Keywords((None,)),
        "Parameters of a criterion that is a class or a function.",
    ] = None
    optimizer: Annotated[
        Any,
        Code((None,), "a class of torch.optim or its name"),
        "The optimizer: a class of torch.optim, or its name. None is Adam, unless `solver` names "
        "one of ooc_train.",
    ] = None
    optimizer_parameters: Annotated[
        Mapping[str, Any] | None,
        Keywords((None,)),
        "Its parameters. Its lr is the learning rate 'auto' of the training.",
    ] = None
    scheduler: Annotated[
        Any,
        Code((None,), "a class of torch.optim.lr_scheduler or its name"),
        "What changes the learning rate after each epoch: a class of torch.optim.lr_scheduler, or "
        "its name. `schedule` of the training changes it with each update.",
    ] = None
    scheduler_parameters: Annotated[
        Mapping[str, Any] | None, Keywords((None,)), "Its parameters."
    ] = None
    average: Annotated[
        bool,
        Flag(),
        "Average the parameters over the updates of batches, with weights that grow as the third "
        "power of the updates, instead of taking the last parameters.",
    ] = False
    device: Annotated[
        str,
        Device(),
        'Where the module computes. "auto" is the accelerator that is there, or else the CPU.',
    ] = "auto"
    augment: Augment = None
    scale: Annotated[
        float | str,
        SCALES,
        "What the module takes: all columns times a factor, such as 1/255 for pixels of 8 bits. "
        '"channel" centres and scales the pixels of images to a standard deviation of 1, by the '
        "moments of each channel. It is the last of the axes (height, width, channel).",
    ] = 1.0

    solvers: ClassVar[tuple[str, ...]] = ("lbfgs", "updates")
    default_batch_size: ClassVar[int | str] = "auto"
    starts_at_random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the settings, and that they are compatible."""
        super().__post_init__()
        for part in ("module", "criterion", "optimizer", "scheduler"):
            made, parameters = getattr(self, part), getattr(self, f"{part}_parameters")
            own = made is None if part in ("module", "scheduler") else False
            if parameters and own:
                raise ValueError(f"{part}_parameters={parameters} go with a {part}; give one")

    @property
    def standardizes_once(self) -> bool:
        """Whether columns are scaled by moments, since layers do not adapt to new ones."""
        return self.scale == CHANNEL

    def loss_for(self, n_classes: int) -> Loss:
        """Return the loss that turns outputs into predictions, and that `evaluate` reports."""
        if not self.is_classifier:
            return Squared()
        return Logistic() if n_classes == 2 else Multinomial()

    def problem(self, data: DataFigures) -> "TorchProblem":
        """Return the problem of learning the model from data.

        Raises
        ------
        ValueError
            If the module or the criterion cannot be made, or does not fit the data.
        """
        with needed_package("torch", "models of PyTorch"):
            from ooc_train.models.pytorch.torch_problem import TorchProblem

        return TorchProblem.of(self, data)


@dataclass(frozen=True, kw_only=True)
class TorchModule(ModuleModel):
    """A module of PyTorch, trained from the stream of rows.

    The module takes rows (rows, features), or ``(rows, *row_shape)`` if a row has several axes, as
    floats of the type of its parameters, scaled by `scale`. For numbers it returns (rows, outputs),
    or (rows,) for one output. For k classes it returns (rows, k), or (rows, 1) or (rows,) for two
    classes. The objective is the mean of the criterion over rows, by their weights.

    Predictions of numbers are what the module returns. Probabilities of classes are the softmax of
    what it returns, or the logistic function of one output.

    `Training` says how it is learned. `solver="auto"` is the `optimizer`, at any batch size; other
    solvers are those of ooc_train, with `solver="lbfgs"` for all rows. Sums over all rows take the
    module in its evaluation mode.
    """

    classifier: Annotated[
        bool | None,
        Flag((None,)),
        "Whether y holds classes. None is whether the criterion is one of torch.nn for classes.",
    ] = None
    class_weight: ClassWeights = None

    name: ClassVar[str] = "torch"

    def __post_init__(self) -> None:
        """Check the settings, and that they are compatible."""
        super().__post_init__()
        if self.class_weight is not None and not self.is_classifier:
            raise ValueError("class_weight is for classes, and this model has none; leave it out")

    @property
    def is_classifier(self) -> bool:
        """Whether y holds class labels."""
        if self.classifier is not None:
            return self.classifier
        if self.criterion is None:
            return False
        name = self.criterion if isinstance(self.criterion, str) else name_of(self.criterion)
        return name.rpartition(".")[2] in _OF_CLASSES


@dataclass(frozen=True, kw_only=True)
class TorchClassifierModel(ModuleModel):
    """A module of PyTorch for classification; see `TorchModule`.

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_digits
    >>> from ooc_train import TorchClassifierModel, Training, train
    >>> X, y = load_digits(return_X_y=True)
    >>> model = TorchClassifierModel(torch.nn.Linear(64, 10))
    >>> settings = Training(batch_size=32, max_iter=2, random_state=0)
    >>> fitted, report = train(model, X.astype("float32"), settings, y=y)
    >>> report.n_iter
    2
    """

    class_weight: ClassWeights = None

    name: ClassVar[str] = "torch-classifier"

    @property
    def is_classifier(self) -> bool:
        """Whether y holds class labels."""
        return True


@dataclass(frozen=True, kw_only=True)
class TorchRegressorModel(ModuleModel):
    """A module of PyTorch for regression on one target or several; see `TorchModule`.

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_diabetes
    >>> from ooc_train import TorchRegressorModel, Training, train
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = TorchRegressorModel(torch.nn.Linear(10, 1))
    >>> settings = Training(batch_size=32, max_iter=2, random_state=0)
    >>> fitted, report = train(model, X.astype("float32"), settings, y=y)
    >>> report.n_iter
    2
    """

    name: ClassVar[str] = "torch-regressor"

    @property
    def is_classifier(self) -> bool:
        """Whether y holds class labels."""
        return False
