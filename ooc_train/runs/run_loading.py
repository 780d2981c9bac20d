"""Runs read from their folders, and models in any of the forms that users have."""

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ooc_train.core.files import FileKind, read_json
from ooc_train.core.schema import (
    integer,
    list_of,
    mapping,
    or_none,
    record,
    require,
    scalar,
    shown,
    texts,
)
from ooc_train.core.schema import text as is_text
from ooc_train.errors import InvalidRun, OocTrainError
from ooc_train.models.calibration import calibration_of
from ooc_train.models.model import Model
from ooc_train.models.model_registry import PREDICTORS, SAVED_MODELS
from ooc_train.models.predictor import Predictor
from ooc_train.models.pytorch.torch_predictor import TorchPredictor
from ooc_train.models.pytorch.torch_settings import made_by_keywords
from ooc_train.runs.fitted import (
    ARRAYS,
    CALIBRATED_VERSION,
    RUN_FORMAT,
    RUN_VERSION,
    TENSORS,
    Fitted,
)
from ooc_train.runs.parameters import read_arrays
from ooc_train.runs.tensor_file import read_tensors
from ooc_train.solvers.training_settings import Training
from ooc_train.tables.names import RECIPE_FILE


def as_fitted(model: Any) -> Fitted:
    """Return the fitted model, given in any of its forms.

    Parameters
    ----------
    model : Fitted, fitted estimator, str or path
        The model, or the folder of a saved run.

    Raises
    ------
    InvalidRun
        If the path holds no readable run.
    TypeError
        If `model` is anything else.
    NotFittedError
        From scikit-learn, if an estimator is not fitted yet.
    """
    if isinstance(model, Fitted):
        return model
    if isinstance(model, str | os.PathLike):
        return load_fitted(model)
    # By attribute, not isinstance: that would import scikit-learn.
    to_fitted = getattr(model, "to_fitted", None)
    if to_fitted is None:
        raise TypeError(
            f"{type(model).__name__} is no fitted model; give a fitted estimator of ooc_train, "
            "what train returned as `Fitted`, or the path of a saved run"
        )
    fitted: Fitted = to_fitted()
    return fitted


SETTINGS_FILE = "model.json"
"""Name of the file with the settings and the report of a run."""


class _DamagedError(OocTrainError):
    """Raised for a damaged file of a run."""


_ADVICE = "restore it from a copy, or train again"
_SETTINGS = FileKind("the settings of a run", 2**28, _DamagedError, _ADVICE)
_RECIPE = FileKind("the recipe of a run", 2**28, _DamagedError, _ADVICE)
_PARAMETERS = FileKind("the parameters of a run", 2**63, _DamagedError, _ADVICE)

_SCHEMA = record(
    {
        "model": mapping,
        "training": mapping,
        "predictor": is_text,
        "classes": list_of(scalar),
        "feature_names": or_none(texts(least=1)),
        "report": mapping,
    },
    optional={"row_shape": or_none(list_of(integer(1)))},
)
_ABOUT = record({"format": is_text, "format_version": integer(0)})


def load_fitted(path: str | os.PathLike[str], module: Any = None) -> Fitted:
    """Load a run folder.

    Parameters
    ----------
    path : path
        The folder.
    module : class, function or module, optional
        What makes the module of PyTorch, where the run is one of those; without it, the model can
        be described and does not predict.

    Raises
    ------
    InvalidRun
        If the folder is no run, is damaged, or was written by a later release; if the module is
        another one than that of the run.
    """
    path = os.fspath(path)
    with _explained(path):
        fitted = _loaded(path, module)
    if module is not None:
        try:
            _require_module(fitted.predictor)
        except ValueError as error:
            raise InvalidRun(f"{path}: {error}") from None
    return fitted


def run_values(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the settings and the report of a run folder, without its parameters.

    Raises
    ------
    InvalidRun
        As `load_fitted` does.
    """
    path = os.fspath(path)
    with _explained(path):
        return _values(path)


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """Raise `InvalidRun` where the files of a run can't be read."""
    try:
        yield
    except FileNotFoundError as error:
        raise InvalidRun(f"{path} is no run: {error.filename} is missing") from None
    except NotADirectoryError:
        raise InvalidRun(f"{path} is a file, and a run is a folder") from None
    except OSError as error:
        raise InvalidRun(f"{path} can't be read: {error}") from None
    except _DamagedError as error:
        raise InvalidRun(f"{path} is damaged: {error}") from None


def _require_module(predictor: Predictor) -> None:
    """Raise `ValueError` unless the predictor has a module, which has the saved tensors."""
    if not isinstance(predictor, TorchPredictor):
        raise ValueError(  # noqa: TRY004 (as for other arguments)
            f"the run holds a {predictor.kind} model, which needs no module; leave it out"
        )
    predictor.require_module()


def _values(path: str) -> dict[str, Any]:
    file = os.path.join(path, SETTINGS_FILE)
    # Infinite losses are written as Python writes them.
    found = read_json(file, _SETTINGS, constants=True)
    require(found, _ABOUT, file, _SETTINGS)
    if found["format"] != RUN_FORMAT:
        raise InvalidRun(f"{path} is no run: its format is {shown(found['format'])}")
    known = CALIBRATED_VERSION if "calibration" in found else RUN_VERSION
    if (version := found["format_version"]) != known:
        release = "a later" if version > RUN_VERSION else "an earlier"
        raise InvalidRun(
            f"{path} was written by {release} release (format {version}, this one reads "
            f"{RUN_VERSION}); install that release, or train again"
        )
    require(found, _SCHEMA, file, _SETTINGS)
    values: dict[str, Any] = found
    return values


def _loaded(path: str, module: Any) -> Fitted:
    found = _values(path)
    kind = PREDICTORS.get(found["predictor"])
    if kind is None:
        raise InvalidRun(
            f"{path} holds a {shown(found['predictor'])} model, which this release does not know; "
            "install the release that wrote it"
        )
    names = found["feature_names"]
    try:
        model = _model(found["model"], module)
        if issubclass(kind, TorchPredictor):
            tensors = read_tensors(os.path.join(path, TENSORS), _PARAMETERS)
            predictor: Predictor = kind.from_file(model, len(found["classes"]), *tensors)
        else:
            numbers = os.path.join(path, ARRAYS)
            predictor = kind.of(*read_arrays(numbers, kind.names, _PARAMETERS))
        fitted = Fitted(
            model,
            predictor,
            tuple(found["classes"]),
            None if names is None else tuple(names),
            found["report"],
            _recipe(path),
            Training(**found["training"]),
            None if found.get("row_shape") is None else tuple(found["row_shape"]),
            calibration_of(found["calibration"], predictor.n_outputs)
            if "calibration" in found
            else None,
        )
        _require_consistent(fitted)
    except (TypeError, ValueError) as error:
        raise _DamagedError(f"{error}; {_ADVICE}") from None
    return fitted


def _model(settings: Mapping[str, Any], module: Any) -> Model:
    """Make the model from saved settings, with a module where one is given."""
    others = dict(settings)
    name = others.pop("name", None)
    if not isinstance(name, str) or name not in SAVED_MODELS:
        raise ValueError(f"model={shown(name)} is not one of {', '.join(SAVED_MODELS)}")
    if "module" in others and module is not None:
        others["module"] = module
        if not made_by_keywords(module):
            others["module_parameters"] = None
    return SAVED_MODELS[name](**others)


def _recipe(path: str) -> Mapping[str, Any] | None:
    """Return the recipe of a run folder, or None; `Recipe.from_json` checks it later."""
    try:
        return read_json(os.path.join(path, RECIPE_FILE), _RECIPE)
    except FileNotFoundError:
        return None


def _require_consistent(fitted: Fitted) -> None:
    """Refuse parameters, classes and names whose shapes disagree."""
    outputs, n_classes = fitted.n_outputs, len(fitted.classes)
    if len(set(fitted.classes)) < n_classes:
        raise ValueError("a class stands twice")
    if fitted.model.is_classifier:
        if n_classes < 2 or outputs != (1 if n_classes == 2 else n_classes):
            raise ValueError(f"{outputs} predictors and {n_classes} classes")
    elif n_classes or fitted.calibration is not None:
        raise ValueError(f"{n_classes} classes, and the {fitted.model.name} model has none")
    if fitted.feature_names is not None and len(fitted.feature_names) != fitted.n_features:
        raise ValueError(f"{fitted.n_features} features and {len(fitted.feature_names)} names")
    if fitted.row_shape is not None and math.prod(fitted.row_shape) != fitted.n_features:
        raise ValueError(f"{fitted.n_features} features and rows of the shape {fitted.row_shape}")
