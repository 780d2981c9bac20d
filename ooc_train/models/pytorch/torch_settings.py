"""The settings of a module of PyTorch: their constraints, and the spec that workers get."""

import json
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

import numpy as np

from ooc_train.augmentation.augmentation import Augmentation
from ooc_train.core.settings import Constraint
from ooc_train.core.sums import Array
from ooc_train.models.scale_setting import factor_of
from ooc_train.objective.scaling import Scaling

_TORCH = ("torch.nn.", "torch.optim.")


def name_of(value: Any) -> str:
    """Return the name of a class or function, or of an object's class.

    The module precedes the name, unless it is PyTorch's own.
    """
    made = value if hasattr(value, "__qualname__") else type(value)
    if made.__module__.startswith(_TORCH):
        return str(made.__qualname__)
    return f"{made.__module__}:{made.__qualname__}"


def made_by_keywords(module: Any) -> bool:
    """Return whether a module is given as a class or function, to be called with parameters."""
    return isinstance(module, type) or not hasattr(module, "state_dict")


@dataclass(frozen=True)
class Code(Constraint):
    """A constraint that accepts a class, function, object or name; a saved run has the name."""

    what: str = ""

    kind: ClassVar[str] = "callable, or str"

    @property
    def _others(self) -> str:
        return self.what

    def _checked(self, name: str, value: Any) -> Any:
        if not callable(value) and not (isinstance(value, str) and value):
            raise self._refused(name, value)
        return value

    def to_json(self, value: Any) -> Any:
        """Convert a value to its name."""
        return value if value is None or isinstance(value, str) else name_of(value)


@dataclass(frozen=True)
class Device(Constraint):
    """A constraint that accepts the name of a device of PyTorch, or "auto"."""

    @property
    def _others(self) -> str:
        return "'auto' or the name of a device of PyTorch, such as 'cpu' or 'cuda:0'"

    def _checked(self, name: str, value: Any) -> Any:
        text = value if isinstance(value, str) else str(value)
        if not text.partition(":")[0].isidentifier():
            raise self._refused(name, value)
        return text


@dataclass(frozen=True)
class Keywords(Constraint):
    """A constraint that accepts a mapping from names of parameters to values."""

    kind: ClassVar[str] = "mapping"

    @property
    def _others(self) -> str:
        return "a mapping from names of parameters to values"

    def _checked(self, name: str, value: Any) -> Any:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise self._refused(name, value)
        return dict(value)

    def to_json(self, value: Any) -> Any:
        """Convert a mapping to one that JSON can hold: other values become text."""
        return None if value is None else {key: _plain(each) for key, each in value.items()}


def _plain(value: Any) -> Any:
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        return repr(value)


class ModuleSettings(Protocol):
    """The settings from which a model's parts are made; `TorchModule` describes them."""

    @property
    def module(self) -> Any:
        """The module, or the class or function that makes it."""

    @property
    def module_parameters(self) -> Mapping[str, Any] | None:
        """Parameters by which the module is made."""

    @property
    def criterion(self) -> Any:
        """The criterion: the loss by outputs and targets."""

    @property
    def criterion_parameters(self) -> Mapping[str, Any] | None:
        """Parameters by which the criterion is made."""

    @property
    def optimizer(self) -> Any:
        """The optimizer's name, class or function."""

    @property
    def optimizer_parameters(self) -> Mapping[str, Any] | None:
        """Parameters by which the optimizer is made."""

    @property
    def scheduler(self) -> Any:
        """The scheduler's name, class or function; None without one."""

    @property
    def scheduler_parameters(self) -> Mapping[str, Any] | None:
        """Parameters by which the scheduler is made."""

    @property
    def average(self) -> bool:
        """Whether the model is an average of the parameters, not the last ones."""

    @property
    def device(self) -> str:
        """Name of the device on which the module computes."""

    @property
    def scale(self) -> float | str:
        """Factor of all columns, or "channel"."""

    @property
    def augment(self) -> tuple[Augmentation, ...] | None:
        """How updates change rows at random."""

    @property
    def is_classifier(self) -> bool:
        """Whether y holds class labels."""


@dataclass(frozen=True, eq=False)
class NetworkSpec:
    """The specification by which each process makes its network; a value sent to workers.

    Attributes
    ----------
    model : ModuleSettings
        Module and criterion.
    row_shape : tuple of int
        Shape of a row that the module takes.
    n_outputs : int
        Number of predictors z: columns of y, or 1 for two classes, else the number of classes.
    n_classes : int
        Number of classes; 0 for regression.
    token : str
        Distinguishes the networks that a process keeps.
    channel_mean, channel_scale : tuple of float
        Means and scales of the channels of images, with which rows are standardised. Empty if a
        factor scales them.
    """

    model: ModuleSettings
    row_shape: tuple[int, ...]
    n_outputs: int
    n_classes: int
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    channel_mean: tuple[float, ...] = ()
    channel_scale: tuple[float, ...] = ()

    def scaled_by(self, scaling: Scaling) -> "NetworkSpec":
        """Return the spec of rows whose channels, the columns of `scaling`, are standardised."""
        return replace(
            self,
            channel_mean=tuple(scaling.mean.tolist()),
            channel_scale=tuple(scaling.scale.tolist()),
            token=secrets.token_hex(8),
        )

    @property
    def unit(self) -> float | Array:
        """What 1 after scaling is in units of the data, of all columns or of each."""
        if not self.channel_scale:
            return 1.0 / factor_of(self.model.scale)
        pixels = math.prod(self.row_shape) // len(self.channel_scale)
        return np.tile(self.channel_scale, pixels)
