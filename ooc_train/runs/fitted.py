"""The result of a run: parameters in the units of the data, and their predictions.

A run is a folder. `model.json` holds the settings, the class labels, the feature names and the
report. `parameters.npz` holds the numbers; of a module of PyTorch `parameters.safetensors`, and the
module's code is no part of the run. `recipe.json` exists if the features were made from raw
columns. No file can hold code, and nothing is unpickled.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ooc_train.core.atomic import PartialOutput
from ooc_train.core.files import FileKind, read_json
from ooc_train.core.output_kinds import RUN, explain_os_errors
from ooc_train.core.renames import sync_file, sync_folder
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
from ooc_train.core.sums import Array
from ooc_train.errors import InvalidRun, OocTrainError
from ooc_train.models.model import Model
from ooc_train.models.model_registry import PREDICTORS, SAVED_MODELS
from ooc_train.models.predictor import LinearPredictor, Predictor
from ooc_train.models.pytorch.torch_predictor import TorchPredictor
from ooc_train.models.pytorch.torch_settings import made_by_keywords
from ooc_train.objective.loss import Loss
from ooc_train.runs.parameters import read_arrays
from ooc_train.runs.tensor_file import read_tensors, write_tensors
from ooc_train.solvers.training_settings import AUTOMATIC, Training
from ooc_train.stream.feature_names import column_order, require_row_shape
from ooc_train.tables.names import RECIPE_FILE

RUN_FORMAT = "ooc_train.run"
RUN_VERSION = 3

_ARRAYS, _TENSORS = "parameters.npz", "parameters.safetensors"

Label = str | int | float | bool


@dataclass(frozen=True, eq=False)
class Fitted:
    """A model and its learned parameters.

    Attributes
    ----------
    model : Model
        The kind of model that was learned, with its settings.
    predictor : Predictor
        The learned parameters, in the units of the data.
    classes : tuple of str, int, float or bool
        Class labels; the label of code i in y is at index i. Empty for regression.
    feature_names : tuple of str or None
        Names of the features, or None.
    report : mapping
        Figures of the run, in JSON's types.
    recipe : mapping or None
        Encoding of raw columns into features, in JSON's types, or None.
    training : Training
        How the model was learned.
    row_shape : tuple of int or None
        Shape of a training row of several axes, as of an image, whose values are the features.
    """

    model: Model
    predictor: Predictor
    classes: tuple[Label, ...] = ()
    feature_names: tuple[str, ...] | None = None
    report: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] | None = None
    training: Training = AUTOMATIC
    row_shape: tuple[int, ...] | None = None

    def bare(self) -> "Fitted":
        """Return a copy without report and recipe, as workers need it to predict."""
        return replace(self, report={}, recipe=None)

    @property
    def n_features(self) -> int:
        """Number of features."""
        return self.predictor.n_features

    @property
    def nbytes(self) -> int:
        """Bytes of the parameters."""
        return sum(array.nbytes for array in self.predictor.arrays.values())

    @property
    def n_outputs(self) -> int:
        """Number of predictors z of each row."""
        return self.predictor.n_outputs

    @property
    def linear(self) -> LinearPredictor:
        """The predictor of a linear model.

        Raises
        ------
        TypeError
            If the model is of another kind.
        """
        if not isinstance(self.predictor, LinearPredictor):
            raise TypeError(f"a {self.predictor.kind} model has no coefficients")
        return self.predictor

    @property
    def coef(self) -> Array:
        """Coefficients of a linear model, shape (outputs, features)."""
        return self.linear.coef

    @property
    def intercept(self) -> Array:
        """Intercepts of a linear model, shape (outputs,)."""
        return self.linear.intercept

    @property
    def loss(self) -> Loss:
        """The loss that was minimised."""
        return self.model.fitted_loss(len(self.classes), self.predictor)

    def for_columns(
        self,
        names: tuple[str, ...] | None,
        n_features: int,
        what: str,
        row_shape: tuple[int, ...] | None = None,
    ) -> "Fitted":
        """Return the model with its coefficients in the column order of other data.

        Columns are matched by name if both sides have names, otherwise by position.

        Parameters
        ----------
        names, n_features, row_shape
            Feature names of the data, their number, and the shape of rows of several axes.
        what : str
            Name of the data in messages.

        Raises
        ------
        InvalidRun
            With the names or shapes that differ, or with both numbers of features.
        """
        try:
            require_row_shape(self.row_shape, row_shape, model="the model", data=what)
            order = column_order(self.feature_names, names, model="the model", data=what)
        except ValueError as error:
            raise InvalidRun(str(error)) from None
        if order is not None:
            return replace(self, predictor=self.predictor.permuted(order), feature_names=names)
        if n_features != self.n_features:
            raise InvalidRun(
                f"the model was trained on {self.n_features:,} features and {what} has "
                f"{n_features:,}; use data with the same columns"
            )
        return self

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the run folder; it appears complete or not at all.

        Raises
        ------
        OutputExists, OSError, ValueError
            As `PartialOutput` does.
        """
        with PartialOutput(path, RUN, overwrite=overwrite) as output:
            self.save_as(output)

    def save_as(self, output: PartialOutput) -> str:
        """Write the run folder into an open output, and return its final path.

        If another process has taken the path meanwhile, the run is saved under a neighbouring name.
        """
        folder = output.partial_path
        with explain_os_errors(output.path):
            if isinstance(self.predictor, TorchPredictor):
                write_tensors(os.path.join(folder, _TENSORS), *self.predictor.to_file())
            else:
                with open(os.path.join(folder, _ARRAYS), "wb") as file:
                    np.savez(file, allow_pickle=False, **self.predictor.arrays)
                    sync_file(file)
            written = {"model.json": self._to_json(), RECIPE_FILE: self.recipe}
            for name, values in written.items():
                if values is not None:
                    with open(os.path.join(folder, name), "w", encoding="utf-8") as text:
                        json.dump(values, text, indent=2)
                        sync_file(text)
            sync_folder(folder)
        return output.commit(elsewhere=True)

    def _to_json(self) -> dict[str, Any]:
        return {
            "format": RUN_FORMAT,
            "format_version": RUN_VERSION,
            "model": {"name": self.model.name, **self.model.settings()},
            "training": self.training.settings(),
            "predictor": self.predictor.kind,
            "classes": list(self.classes),
            "feature_names": self.feature_names and list(self.feature_names),
            "row_shape": self.row_shape and list(self.row_shape),
            "report": dict(self.report),
        }


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
    try:
        fitted = _loaded(path, module)
    except FileNotFoundError as error:
        raise InvalidRun(f"{path} is no run: {error.filename} is missing") from None
    except NotADirectoryError:
        raise InvalidRun(f"{path} is a file, and a run is a folder") from None
    except OSError as error:
        raise InvalidRun(f"{path} can't be read: {error}") from None
    except _DamagedError as error:
        raise InvalidRun(f"{path} is damaged: {error}") from None
    if module is not None:
        try:
            _require_module(fitted.predictor)
        except ValueError as error:
            raise InvalidRun(f"{path}: {error}") from None
    return fitted


def _require_module(predictor: Predictor) -> None:
    """Raise `ValueError` unless the predictor has a module, which has the saved tensors."""
    if not isinstance(predictor, TorchPredictor):
        raise ValueError(  # noqa: TRY004 (as for other arguments)
            f"the run holds a {predictor.kind} model, which needs no module; leave it out"
        )
    predictor.require_module()


def _loaded(path: str, module: Any) -> Fitted:
    file = os.path.join(path, "model.json")
    # Infinite losses are written as Python writes them.
    found = read_json(file, _SETTINGS, constants=True)
    require(found, _ABOUT, file, _SETTINGS)
    if found["format"] != RUN_FORMAT:
        raise InvalidRun(f"{path} is no run: its format is {shown(found['format'])}")
    if (version := found["format_version"]) != RUN_VERSION:
        release = "a later" if version > RUN_VERSION else "an earlier"
        raise InvalidRun(
            f"{path} was written by {release} release (format {version}, this one reads "
            f"{RUN_VERSION}); install that release, or train again"
        )
    require(found, _SCHEMA, file, _SETTINGS)
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
            tensors = read_tensors(os.path.join(path, _TENSORS), _PARAMETERS)
            predictor: Predictor = kind.from_file(model, len(found["classes"]), *tensors)
        else:
            numbers = os.path.join(path, _ARRAYS)
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
    elif n_classes:
        raise ValueError(f"{n_classes} classes, and the {fitted.model.name} model has none")
    if fitted.feature_names is not None and len(fitted.feature_names) != fitted.n_features:
        raise ValueError(f"{fitted.n_features} features and {len(fitted.feature_names)} names")
    if fitted.row_shape is not None and math.prod(fitted.row_shape) != fitted.n_features:
        raise ValueError(f"{fitted.n_features} features and rows of the shape {fitted.row_shape}")
