"""What is set of a module of PyTorch: constraints of the settings, and values that workers take."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from ooc_train.core.settings import Constraint

_TORCH = ("torch.nn.", "torch.optim.")


def name_of(value: Any) -> str:
    """Return the name of a class or function, or of an object's class; short for PyTorch's own."""
    made = value if hasattr(value, "__qualname__") else type(value)
    if made.__module__.startswith(_TORCH):
        return str(made.__qualname__)
    return f"{made.__module__}:{made.__qualname__}"


def made_by_keywords(module: Any) -> bool:
    """Return whether a module is given as a class or function, which takes parameters."""
    return isinstance(module, type) or not hasattr(module, "state_dict")


@dataclass(frozen=True)
class Code(Constraint):
    """A class, a function or an object; a saved run has its name alone."""

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
        """Return the name."""
        return value if value is None or isinstance(value, str) else name_of(value)


@dataclass(frozen=True)
class Device(Constraint):
    """The name of a device of PyTorch, or "auto"."""

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
    """Parameters by name."""

    kind: ClassVar[str] = "mapping"

    @property
    def _others(self) -> str:
        return "a mapping from names of parameters to values"

    def _checked(self, name: str, value: Any) -> Any:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise self._refused(name, value)
        return dict(value)

    def to_json(self, value: Any) -> Any:
        """Return the mapping, with text in place of values that JSON has not."""
        return None if value is None else {key: _plain(each) for key, each in value.items()}


def _plain(value: Any) -> Any:
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        return repr(value)


class ModuleSettings(Protocol):
    """The settings of a model that its parts are made of; `TorchModule` describes them."""

    @property
    def module(self) -> Any:
        """What makes the module."""

    @property
    def module_parameters(self) -> Mapping[str, Any] | None:
        """Its parameters."""

    @property
    def criterion(self) -> Any:
        """The loss."""

    @property
    def criterion_parameters(self) -> Mapping[str, Any] | None:
        """Its parameters."""

    @property
    def optimizer(self) -> Any:
        """The optimizer."""

    @property
    def optimizer_parameters(self) -> Mapping[str, Any] | None:
        """Its parameters."""

    @property
    def scheduler(self) -> Any:
        """The scheduler."""

    @property
    def scheduler_parameters(self) -> Mapping[str, Any] | None:
        """Its parameters."""

    @property
    def average(self) -> bool:
        """Whether the model is an average of the parameters."""

    @property
    def device(self) -> str:
        """Where the module computes."""

    @property
    def is_classifier(self) -> bool:
        """Whether y holds classes."""


@dataclass(frozen=True, eq=False)
class NetworkSpec:
    """What a process needs to make a network of its own: a value that is sent to workers.

    Attributes
    ----------
    model : ModuleSettings
        Module and criterion.
    row_shape : tuple of int
        Shape of a row that the module takes.
    n_outputs : int
        Predictors z of a row: columns of y, or 1 for two classes, else the number of classes.
    n_classes : int
        Classes; 0 for numbers.
    token : str
        Tells networks apart that processes keep.
    """

    model: ModuleSettings
    row_shape: tuple[int, ...]
    n_outputs: int
    n_classes: int
    token: str = field(default_factory=lambda: secrets.token_hex(8))
