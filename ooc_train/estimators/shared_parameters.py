"""Parameters that all estimators share, and their check against a model's settings."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from ooc_train.core.settings import EXAMPLES, Setting, defaults_of, described, settings_of
from ooc_train.memory.ceiling import Ceiling
from ooc_train.models.model import Model
from ooc_train.optimizers.differential_privacy import DifferentiallyPrivate
from ooc_train.optimizers.optimizer import Optimizer
from ooc_train.optimizers.schedule import Schedule
from ooc_train.runs.events import Callback
from ooc_train.solvers.batch_schedules import BatchSchedule
from ooc_train.solvers.early_stopping import EarlyStopping
from ooc_train.solvers.plateaus import PATIENCE
from ooc_train.solvers.training_settings import Training, training_settings

_MEMORY_CEILING = """\
memory_ceiling : int, str or None
    Bytes, or text such as "1GiB", that a fit may hold. None is the ceiling of the cluster, else
    half of what is available.
verbose : bool
    Show a bar on the terminal or in the notebook, and lines elsewhere.
callbacks : tuple of Callback
    Functions that receive the events of fits, such as `History()` or
    `JsonLines("fit.jsonl")`."""

_ATTRIBUTES = """\
n_features_in_ : int
    Number of features.
feature_names_in_ : ndarray of shape (`n_features_in_`,)
    Names of the features, where the columns have names.
report_ : Report
    Passes, loss and memory of the last fit.
history_ : pandas.DataFrame
    Steps of the last fit: passes, updates, loss, gradient_norm, ...
model_ : Model
    What was learned.
training_ : Training
    How it was learned.
"""

_OWN_DEFAULTS = ("tol", "max_iter", "batch_size")
"""Settings whose default an estimator has from its model."""

NOT_SETTINGS = ("memory_ceiling", "warm_start", "verbose", "callbacks")
"""Parameters of estimators that neither `Model` nor `Training` has."""


@dataclass(kw_only=True, eq=False, repr=False)
class TrainingParameters:
    """Parameters of every estimator: those of `Training`, the ceiling, and what watches fits."""

    max_iter: int | None = None
    tol: float = 1e-4
    solver: str | Optimizer | DifferentiallyPrivate = "auto"
    batch_size: int | str | BatchSchedule = "full"
    shuffle_chunks: int | str = "auto"
    replicas: int = 1
    memory_ceiling: str | int | Ceiling | None = None
    learning_rate: float | str = "auto"
    schedule: str | Schedule = "auto"
    random_state: int | np.random.RandomState | None = None
    max_passes: float | None = None
    max_seconds: float | None = None
    target_loss: float | None = None
    early_stopping: bool | EarlyStopping = False
    validation_fraction: float | None = None
    n_iter_no_change: int = PATIENCE
    verbose: bool = False
    callbacks: tuple[Callback, ...] = ()


@dataclass(kw_only=True, eq=False, repr=False)
class SharedParameters(TrainingParameters):
    """Parameters of every estimator of a linear model: those of `LinearModel` too."""

    fit_intercept: bool = True
    standardize: bool = False
    scale: float | str = 1.0


Estimator = TypeVar("Estimator", bound=type)

ESTIMATORS: dict[type[Model], type] = {}
"""The estimator of each model."""


def estimator_of(
    model: type[Model], also: Mapping[str, Setting] = MappingProxyType({})
) -> Callable[[Estimator], Estimator]:
    """Return a decorator that makes a class the estimator of a model.

    The class gets the model's descriptions of its parameters, and `load` returns it for saved runs.

    Parameters
    ----------
    model : type
        The class of models.
    also : mapping
        Further parameters of the class, which it turns into settings.

    Raises
    ------
    TypeError
        From the decorator, if a setting of the model or of `Training` is no parameter of the class,
        or has another default there.
    """

    def decorate(cls: Estimator) -> Estimator:
        settings = {**settings_of(model), **settings_of(Training)}
        expected, found = defaults_of(model) | defaults_of(Training), defaults_of(cls)
        if strangers := set(found) - {*settings, *also, *NOT_SETTINGS}:
            raise TypeError(f"{cls.__name__} has {', '.join(strangers)}, and {model.__name__} not")
        for name in settings:
            if name not in found:
                raise TypeError(f"{cls.__name__} lacks {name} of {model.__name__}")
            if found[name] != expected[name] and name not in _OWN_DEFAULTS:
                raise TypeError(f"{cls.__name__} has another {name} than {model.__name__}")
        if found["tol"] != model.default_tol:
            raise TypeError(f"{cls.__name__} has another tol than {model.__name__}")
        if found["max_iter"] not in (None, model.default_max_iter):
            raise TypeError(f"{cls.__name__} has another max_iter than {model.__name__}")
        if found["batch_size"] != model.default_batch_size:
            raise TypeError(f"{cls.__name__} has another batch_size than {model.__name__}")
        doc, *examples = inspect.cleandoc(cls.__doc__ or "").partition(EXAMPLES)
        head, title, attributes = doc.partition("Attributes\n----------\n")
        known = {**settings, **training_settings(model), **also}
        parameters = described({name: known[name] for name in found if name in known})
        own = head.partition("Parameters\n----------\n")[2].rstrip()
        head = head.partition("Parameters\n----------\n")[0].rstrip()
        sections = "\n".join(filter(None, [own, parameters, _MEMORY_CEILING]))
        cls.__doc__ = (
            f"{head}\n\nParameters\n----------\n{sections}\n\n"
            f"{title}{attributes.rstrip()}\n{_ATTRIBUTES.rstrip()}" + "".join(examples)
        )
        cls._model_class = model  # type: ignore[attr-defined]
        ESTIMATORS[model] = cls
        return cls

    return decorate


def settings_from(cls: type, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return those parameters of an estimator that are fields of a class of settings."""
    names = {field.name for field in fields(cls)}
    return {name: value for name, value in parameters.items() if name in names}
