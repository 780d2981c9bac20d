"""The result of a run: parameters in the units of the data, and their predictions.

A run is a folder. `model.json` holds the settings, the class labels, the feature names and the
report. `parameters.npz` holds the numbers; of a module of PyTorch `parameters.safetensors`, and the
module's code is no part of the run. `recipe.json` exists if the features were made from raw
columns, and `config.toml`, the options that repeat the run, if a command can. `card.md` tells a
reader what the run is; nothing reads it. No file can hold code, and nothing is unpickled.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.atomic import PartialOutput
from ooc_train.core.output_kinds import RUN, explain_os_errors
from ooc_train.core.renames import sync_file, sync_folder
from ooc_train.core.settings import defaults_of
from ooc_train.core.sums import Array, array_bytes
from ooc_train.core.text import counted, few, html_table
from ooc_train.errors import InvalidRun
from ooc_train.models.calibration import Calibration
from ooc_train.models.model import Model
from ooc_train.models.predictor import LinearPredictor, Predictor
from ooc_train.models.pytorch.torch_predictor import TorchPredictor
from ooc_train.objective.loss import Loss
from ooc_train.runs.card import CARD_FILE, card
from ooc_train.runs.tensor_file import write_tensors
from ooc_train.solvers.training_settings import AUTOMATIC, Training
from ooc_train.stream.feature_names import column_order, require_row_shape
from ooc_train.tables.names import RECIPE_FILE

RUN_FORMAT = "ooc_train.run"
RUN_VERSION, CALIBRATED_VERSION = 3, 4
"""Formats of runs, and of those with a calibration, which releases without any have to refuse."""

CONFIG_FILE = "config.toml"
ARRAYS, TENSORS = "parameters.npz", "parameters.safetensors"

Label = str | int | float | bool


@dataclass(frozen=True, eq=False, repr=False)
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
    calibration : Calibration or None
        What becomes of the predictors before they are probabilities and classes.
    """

    model: Model
    predictor: Predictor
    classes: tuple[Label, ...] = ()
    feature_names: tuple[str, ...] | None = None
    report: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] | None = None
    training: Training = AUTOMATIC
    row_shape: tuple[int, ...] | None = None
    calibration: Calibration | None = None

    def __repr__(self) -> str:
        found = dict(self._figures()[1:])
        about = ", ".join(f"{name} {found[name]}" for name in ("loss", "passes") if name in found)
        number, kind = len(self.classes) or self.n_outputs, "classes" if self.classes else "outputs"
        size = f"{counted(self.n_features, 'feature')}, {number:,} {kind}"
        return f"<Fitted {self.model.name}: {', '.join(filter(None, (size, about)))}>"

    def _repr_html_(self) -> str:
        """Return the figures of the model as an HTML table, for notebooks."""
        return html_table(self._figures())

    def _figures(self) -> list[tuple[str, str]]:
        """Return (name, value) of each figure as text: of the model, and of its run if known."""
        changed = {
            name: value
            for name, value in self.model.settings().items()
            if value != defaults_of(type(self.model)).get(name)
        }
        settings = ", ".join(f"{name}={value!r}" for name, value in changed.items())
        rows = [
            ("model", f"{self.model.name}({settings})"),
            ("features", f"{self.n_features:,}"),
            ("classes" if self.classes else "outputs", few(self.classes) or f"{self.n_outputs:,}"),
            ("parameters", f"{sum(each.size for each in self.predictor.arrays.values()):,}"),
        ]
        if self.calibration is not None:
            rows.append(("calibration", str(self.calibration)))
        for name, form in (("loss", ".6g"), ("passes", ".4g"), ("n_rows", ","), ("solver", "")):
            if (value := self.report.get(name)) is not None:
                rows.append((name, format(value, "" if isinstance(value, str) else form)))
        return rows

    def bare(self) -> "Fitted":
        """Return a copy without report and recipe, as workers need it to predict."""
        return replace(self, report={}, recipe=None)

    @property
    def n_features(self) -> int:
        """Number of features."""
        return self.predictor.n_features

    @property
    def nbytes(self) -> int:
        """Bytes of the parameters, and of the calibration."""
        calibration = 0 if self.calibration is None else array_bytes(self.calibration)
        return sum(array.nbytes for array in self.predictor.arrays.values()) + calibration

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
        """The loss that was minimised; of calibrated predictors, that which evaluates them."""
        if self.calibration is not None:
            return self.calibration.loss(self.n_outputs)
        return self.model.fitted_loss(len(self.classes), self.predictor)

    def decision(
        self, X: NDArray[np.floating], converted: Array | None = None, first_row: int = 0
    ) -> Array:
        """Return the predictors z of rows, (rows, outputs), calibrated where the model is.

        Parameters
        ----------
        X, converted, first_row
            As for `Predictor.decision`.

        Raises
        ------
        NonFiniteData
            If a row holds NaN or infinity, or its predictor exceeds float64.
        """
        z = self.predictor.decision(X, converted, first_row)
        return z if self.calibration is None else self.calibration(z)

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
                f"the model was trained on {counted(self.n_features, 'feature')} and {what} has "
                f"{n_features:,}; use data with the same columns"
            )
        return self

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the run folder; it appears complete or not at all.

        Raises
        ------
        OutputExists
            If the path exists and may not be replaced.
        OSError
            If the folder cannot be written.
        """
        with PartialOutput(path, RUN, overwrite=overwrite) as output:
            self.save_as(output)

    def save_as(self, output: PartialOutput, config: str | None = None) -> str:
        """Write the run folder into an open output, and return its final path.

        If another process has taken the path meanwhile, the run is saved under a neighbouring name.
        `config` is the settings file of the run.
        """
        folder = output.partial_path
        with explain_os_errors(output.path):
            if isinstance(self.predictor, TorchPredictor):
                write_tensors(os.path.join(folder, TENSORS), *self.predictor.to_file())
            else:
                with open(os.path.join(folder, ARRAYS), "wb") as file:
                    np.savez(file, allow_pickle=False, **self.predictor.arrays)
                    sync_file(file)
            values = self._to_json()
            name = os.path.basename(output.path)
            written = {
                "model.json": json.dumps(values, indent=2),
                CARD_FILE: card(name, values, self.n_features, self.recipe),
            }
            if self.recipe is not None:
                written[RECIPE_FILE] = json.dumps(self.recipe, indent=2)
            if config is not None:
                written[CONFIG_FILE] = config
            for name, content in written.items():
                with open(os.path.join(folder, name), "w", encoding="utf-8") as text:
                    text.write(content)
                    sync_file(text)
            sync_folder(folder)
        return output.commit(elsewhere=True)

    def _to_json(self) -> dict[str, Any]:
        return {
            "format": RUN_FORMAT,
            "format_version": RUN_VERSION if self.calibration is None else CALIBRATED_VERSION,
            "model": {"name": self.model.name, **self.model.settings()},
            "training": self.training.settings(),
            "predictor": self.predictor.kind,
            "classes": list(self.classes),
            "feature_names": self.feature_names and list(self.feature_names),
            "row_shape": self.row_shape and list(self.row_shape),
            "report": dict(self.report),
        } | ({} if self.calibration is None else {"calibration": self.calibration.to_json()})
