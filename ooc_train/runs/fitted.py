"""What a run learned: numbers in the data's own units, and how they predict.

A run is a folder: `model.json` with the settings, the labels, the names of the columns and the
report, `parameters.npz` with the numbers, and `recipe.json` where the columns were made of raw
ones. None can hold code, and nothing is unpickled.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.atomic import RUN, PartialOutput, explained, sync_folder
from ooc_train.core.files import FileKind, read_json
from ooc_train.core.schema import (
    list_of,
    mapping,
    or_none,
    record,
    require,
    scalar,
    shown,
    texts,
    whole,
)
from ooc_train.core.schema import text as is_text
from ooc_train.core.sums import Array, Block, raise_if_not_finite
from ooc_train.errors import InvalidRun, NonFiniteData, OocTrainError
from ooc_train.models.settings import Model
from ooc_train.objective.losses import Loss
from ooc_train.runs.parameters import read_arrays
from ooc_train.stream.feature_names import column_order
from ooc_train.tables.names import RECIPE_FILE

RUN_FORMAT = "ooc_train.run"
RUN_VERSION = 1

ByClass = Literal["probability", "log_probability"]
BY_CLASS: tuple[ByClass, ...] = get_args(ByClass)
"""Kinds of predictions that have a number for each class."""

Label = str | int | float | bool


@dataclass(frozen=True, eq=False)
class Fitted:
    """A model and the parameters that were found.

    Attributes
    ----------
    model : what was learned, and how
    coef : float64 array (outputs, features), in the data's units
    intercept : float64 array (outputs,)
    classes : labels by their codes in y; empty for regression
    feature_names : of the columns, or None
    report : figures of the run, as JSON holds them
    recipe : how raw columns became the features, as JSON holds it, or None
    """

    model: Model
    coef: Array
    intercept: Array
    classes: tuple[Label, ...] = ()
    feature_names: tuple[str, ...] | None = None
    report: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] | None = None

    def bare(self) -> "Fitted":
        """Return what predicting takes, to travel to workers: without report and recipe."""
        return replace(self, report={}, recipe=None)

    @property
    def n_features(self) -> int:
        """Columns that a prediction needs."""
        return int(self.coef.shape[1])

    @property
    def n_outputs(self) -> int:
        """Linear predictors."""
        return int(self.coef.shape[0])

    @property
    def loss(self) -> Loss:
        """The loss that was minimised."""
        return self.model.loss(len(self.classes))

    def decision(
        self, X: NDArray[np.floating], converted: Array | None = None, first_row: int = 0
    ) -> Array:
        """Return the linear predictors z of rows, (rows, outputs).

        Parameters
        ----------
        X : (rows, features)
        converted : float64 array (piece, features) to convert rows in, so many at a time, or None
            to convert them all at once
        first_row : number of the first row within the data, for messages

        Raises
        ------
        NonFiniteData
            where a row holds NaN or infinity, or values whose predictor float64 can't hold.
        """
        # NaN and infinity in X show in z, whatever the coefficients: X needs no look of its own.
        with np.errstate(over="ignore", invalid="ignore"):
            if converted is None:
                z = np.asarray(X, np.float64) @ self.coef.T + self.intercept
            else:
                z = np.empty((len(X), self.n_outputs))
                for start in range(0, len(X), len(converted)):
                    rows = slice(start, start + len(converted))
                    piece = converted[: len(X[rows])]
                    np.copyto(piece, X[rows])
                    np.matmul(piece, self.coef.T, out=z[rows])
                z += self.intercept
        if not np.isfinite(z).all():
            self._raise_without_predictor(X, z, first_row)
        return z

    def _raise_without_predictor(self, X: NDArray[np.floating], z: Array, first_row: int) -> None:
        """Raise `NonFiniteData` with the row and column for which a predictor is not finite."""
        raise_if_not_finite(Block(X, None, None, ((0, first_row),)))
        row, output = np.argwhere(~np.isfinite(z))[0]
        column = int(np.argmax(np.abs(X[row] / np.abs(X[row]).max() * self.coef[output])))
        raise NonFiniteData(
            f"row {first_row + int(row)} has {X[row, column]:g} in column {column} of X, and no "
            "float64 holds its prediction; drop or correct such rows first"
        )

    def probabilities(self, z: Array) -> Array:
        """Return the probability of each class for each row's predictors, (rows, classes)."""
        p = self.loss.mean(z)
        return np.column_stack([1.0 - p, p]) if self.n_outputs == 1 else p

    def log_probabilities(self, z: Array) -> Array:
        """Return the logarithm of the probability of each class, (rows, classes), finite."""
        if self.n_outputs == 1:
            rest = np.log1p(np.exp(-np.abs(z)))
            return np.hstack([np.minimum(-z, 0.0) - rest, np.minimum(z, 0.0) - rest])
        found: Array = z - z.max(axis=1, keepdims=True)
        # A class at a time, so that no second array of this size is made.
        total = sum(np.exp(found[:, k]) for k in range(self.n_outputs))
        found -= np.log(total)[:, np.newaxis]
        return found

    def by_class(self, z: Array, kind: ByClass) -> Array:
        """Return what is known of each class for each row's predictors, (rows, classes)."""
        return self.probabilities(z) if kind == "probability" else self.log_probabilities(z)

    def codes(self, z: Array) -> NDArray[np.intp]:
        """Return the code of the likeliest class for each row's predictors, (rows,)."""
        return (z[:, 0] > 0).astype(np.intp) if self.n_outputs == 1 else z.argmax(axis=1)

    def for_columns(self, names: tuple[str, ...] | None, n_features: int, what: str) -> "Fitted":
        """Return the model with its coefficients in the order of the columns of some data.

        Columns are matched by name where both sides have names, else by place.

        Parameters
        ----------
        names : of the columns of the data, or None
        n_features : columns of the data
        what : what messages call the data

        Raises
        ------
        InvalidRun
            with the names that differ, or with both widths.
        """
        try:
            order = column_order(self.feature_names, names, model="the model", data=what)
        except ValueError as error:
            raise InvalidRun(str(error)) from None
        if order is not None:
            return replace(self, coef=self.coef[:, order], feature_names=names)
        if n_features != self.n_features:
            raise InvalidRun(
                f"the model was trained on {self.n_features:,} features and {what} has "
                f"{n_features:,}; use data with the same columns"
            )
        return self

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the run folder, whole or not at all.

        Raises
        ------
        OutputExists, OSError, ValueError
            as `PartialOutput` does.
        """
        with PartialOutput(path, RUN, overwrite=overwrite) as output:
            self.save_as(output)

    def save_as(self, output: PartialOutput) -> str:
        """Write the run folder as an output that was begun, and return where it lies.

        That is another place beside the path where something appeared there meanwhile: what was
        learned is not lost for that.
        """
        folder = output.partial_path
        with explained(output.path):
            with open(os.path.join(folder, "parameters.npz"), "wb") as file:
                np.savez(file, coef=self.coef, intercept=self.intercept)
                _sync(file)
            written = {"model.json": self._to_json(), RECIPE_FILE: self.recipe}
            for name, values in written.items():
                if values is not None:
                    with open(os.path.join(folder, name), "w", encoding="utf-8") as text:
                        json.dump(values, text, indent=2)
                        _sync(text)
            sync_folder(folder)
        return output.commit(elsewhere=True)

    def _to_json(self) -> dict[str, Any]:
        return {
            "format": RUN_FORMAT,
            "format_version": RUN_VERSION,
            "model": self.model.settings(),
            "classes": list(self.classes),
            "feature_names": None if self.feature_names is None else list(self.feature_names),
            "report": dict(self.report),
        }


def as_fitted(model: Any) -> Fitted:
    """Return what was learned, whichever way it is at hand.

    Parameters
    ----------
    model : Fitted, fitted estimator, or path of a saved run

    Raises
    ------
    InvalidRun
        where no run that can be read lies at the path.
    TypeError
        where it is something else.
    NotFittedError
        scikit-learn's, where an estimator is not fitted yet.
    """
    if isinstance(model, Fitted):
        return model
    if isinstance(model, str | os.PathLike):
        return load_fitted(model)
    # Asked for by name: scikit-learn, which estimators are made of, is not loaded here.
    to_fitted = getattr(model, "to_fitted", None)
    if to_fitted is None:
        raise TypeError(
            f"{type(model).__name__} is no fitted model; give a fitted estimator of ooc_train, "
            "what train returned as `Fitted`, or the path of a saved run"
        )
    fitted: Fitted = to_fitted()
    return fitted


class _DamagedError(OocTrainError):
    """What is wrong with a file of a run."""


_ADVICE = "restore it from a copy, or train anew"
_SETTINGS = FileKind("the settings of a run", 2**28, _DamagedError, _ADVICE)
_RECIPE = FileKind("the recipe of a run", 2**28, _DamagedError, _ADVICE)
_PARAMETERS = FileKind("the parameters of a run", 2**63, _DamagedError, _ADVICE)

_SCHEMA = record(
    {
        "model": mapping,
        "classes": list_of(scalar),
        "feature_names": or_none(texts(least=1)),
        "report": mapping,
    }
)
_ABOUT = record({"format": is_text, "format_version": whole(0)})


def load_fitted(path: str | os.PathLike[str]) -> Fitted:
    """Return what a run folder holds.

    Raises
    ------
    InvalidRun
        where it is none, is damaged, or was written by a later release.
    """
    path = os.fspath(path)
    try:
        fitted = _loaded(path)
    except FileNotFoundError as error:
        raise InvalidRun(f"{path} is no run: {error.filename} is missing") from None
    except NotADirectoryError:
        raise InvalidRun(f"{path} is a file, and a run is a folder") from None
    except OSError as error:
        raise InvalidRun(f"{path} can't be read: {error}") from None
    except _DamagedError as error:
        raise InvalidRun(f"{path} is damaged: {error}") from None
    return fitted


def _loaded(path: str) -> Fitted:
    file = os.path.join(path, "model.json")
    # Losses that grew without end are written as Python writes them.
    found = read_json(file, _SETTINGS, constants=True)
    require(found, _ABOUT, file, _SETTINGS)
    if found["format"] != RUN_FORMAT:
        raise InvalidRun(f"{path} is no run: its format is {shown(found['format'])}")
    if found["format_version"] > RUN_VERSION:
        raise InvalidRun(
            f"{path} was written by a later release (format {found['format_version']}, this "
            f"one reads up to {RUN_VERSION}); install that release"
        )
    require(found, _SCHEMA, file, _SETTINGS)
    numbers = os.path.join(path, "parameters.npz")
    coef, intercept = read_arrays(numbers, ("coef", "intercept"), _PARAMETERS)
    names = found["feature_names"]
    try:
        fitted = Fitted(
            Model(**found["model"]),
            coef,
            intercept,
            tuple(found["classes"]),
            None if names is None else tuple(names),
            found["report"],
            _recipe(path),
        )
        _require_consistent(fitted)
    except (TypeError, ValueError) as error:
        raise _DamagedError(f"{error}; {_ADVICE}") from None
    return fitted


def _recipe(path: str) -> Mapping[str, Any] | None:
    """Return the recipe of a run folder, which `Recipe.from_json` checks when it is applied."""
    try:
        return read_json(os.path.join(path, RECIPE_FILE), _RECIPE)
    except FileNotFoundError:
        return None


def _require_consistent(fitted: Fitted) -> None:
    """Refuse numbers that do not go with each other or with the names beside them."""
    coef, n_classes = fitted.coef, len(fitted.classes)
    if coef.ndim != 2 or 0 in coef.shape or fitted.intercept.shape != coef.shape[:1]:
        raise ValueError(f"coefficients {coef.shape} and intercepts {fitted.intercept.shape}")
    if not (np.isfinite(coef).all() and np.isfinite(fitted.intercept).all()):
        raise ValueError("some parameters are not finite")
    if len(set(fitted.classes)) < n_classes:
        raise ValueError("a class stands twice")
    if fitted.model.is_classifier:
        if n_classes < 2 or len(coef) != (1 if n_classes == 2 else n_classes):
            raise ValueError(f"coefficients {coef.shape} and {n_classes} classes")
    elif n_classes:
        raise ValueError(f"{n_classes} classes, and the {fitted.model.name} model has none")
    if fitted.feature_names is not None and len(fitted.feature_names) != fitted.n_features:
        raise ValueError(f"coefficients {coef.shape} and {len(fitted.feature_names)} names")


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
