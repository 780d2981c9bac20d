"""`export`: a trained model as one file that other programs evaluate."""

import json
import os
from dataclasses import dataclass, replace
from typing import Any, Literal

from ooc_train.core.atomic import write_file
from ooc_train.core.optional_packages import needed_package
from ooc_train.core.output_kinds import Kind, require_output
from ooc_train.core.units import approximate_bytes
from ooc_train.exporting.json_form import json_form
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.run_loading import as_fitted
from ooc_train.tables.features import Unseen
from ooc_train.tables.recipe import Recipe

Form = Literal["onnx", "json", "sklearn"]

_FORMS: dict[Form, Kind] = {
    "onnx": Kind("a graph of ONNX", endings=(".onnx",)),
    "json": Kind("a model as JSON", endings=(".json",)),
}


@dataclass(frozen=True)
class Exported:
    """A model that was exported.

    Attributes
    ----------
    path : str
        The file.
    bytes : int
        Its size.
    outputs : tuple of str
        Names of the graph's outputs; empty for JSON.
    largest_difference : float or None
        Largest difference of a prediction of onnxruntime from that of ooc_train, relative to its
        size where that is above 1, on synthetic rows. None if nothing was compared.
    dates : tuple of str
        Raw columns that the graph takes as days since 1970-01-01 (UTC).
    """

    path: str
    bytes: int
    outputs: tuple[str, ...] = ()
    largest_difference: float | None = None
    dates: tuple[str, ...] = ()

    def __str__(self) -> str:
        found = f"saved in {self.path}: {approximate_bytes(self.bytes)}"
        if self.outputs:
            found += f", {', '.join(self.outputs)}"
        if self.largest_difference is not None:
            found += f"; onnxruntime predicts the same to {self.largest_difference:.1g}"
        elif self.outputs:
            found += "; not checked, for onnxruntime is not installed"
        if self.dates:
            columns = ", ".join(map(repr, self.dates))
            found += f"\nthe graph takes dates as days since 1970-01-01 (UTC): {columns}"
        return found


def export(
    model: Any,
    path: str | os.PathLike[str],
    *,
    to: Form | None = None,
    features: bool = False,
    unseen: Unseen | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write a linear model or a perceptron as one file that other programs evaluate.

    A graph of ONNX computes in float64. Its inputs are the raw columns of the model's recipe, each
    (rows, 1). Categories are text, where "" is missing. All others are float64, where NaN is
    missing, and dates are days since 1970-01-01. Without a recipe, the input is the matrix X. The
    outputs are `prediction`; of classes also `probability`, where the loss has them, and
    `decision`. Rows that ooc_train refuses end the call. The graph is compared with the model by
    onnxruntime, where it is installed, before the file appears.

    Parameters
    ----------
    model : Fitted, fitted estimator, or path of a saved run
        The model.
    path : path
        The file to make.
    to : {"onnx", "json"}, optional
        The form of the file; None is that of the end of its name, .onnx or .json. "json" has
        coefficients by column, or layers, and the recipe, to be evaluated by a few lines of any
        language.
    features : bool
        Whether a graph of ONNX takes the matrix of features, though the model has a recipe.
    unseen : {"error", "other", "ignore"}, optional
        Treatment of values that no training row had; None is that of the recipe.
    overwrite : bool
        Whether an existing file is replaced.

    Raises
    ------
    ValueError
        If the form can't express the model, with the way out: modules of PyTorch, losses and
        activations of your own, parameters of 2 GiB, more than 20,000 raw columns. If the file's
        name ends otherwise than its form. If `features` goes with no other argument that was given.
    InvalidRun
        If the run can't be read.
    OutputExists
        If the path is taken.
    MissingPackage
        If `onnx` is not installed.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> import json
    >>> from ooc_train import LogisticRegression, export
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> done = export(LogisticRegression().fit(X, y), "cancer.json")
    >>> with open("cancer.json") as file:
    ...     print(json.load(file)["link"])
    logit
    """
    to = _form_of(os.fspath(path)) if to is None else to
    if to not in _FORMS:
        raise ValueError(_not_a_form(to))
    if features and (to == "json" or unseen is not None):
        other = f"to={to!r}" if to == "json" else f"unseen={unseen!r}"
        raise ValueError(
            f"features=True is for ONNX without a recipe, and does not go with {other}; "
            "leave one of them out"
        )
    place = require_output(path, _FORMS[to], overwrite=overwrite)
    fitted = as_fitted(model)
    recipe = None if fitted.recipe is None else Recipe.from_json(fitted.recipe)
    if recipe is not None:
        recipe = replace(recipe, unseen=unseen or recipe.unseen)
        fitted = fitted.for_columns(recipe.feature_names, recipe.n_features, "its recipe")
        fitted = replace(fitted, recipe=recipe.to_json())
    elif unseen is not None:
        raise ValueError(f"unseen={unseen!r} is for raw columns, and the model has no recipe")
    if to == "json":
        values = json_form(fitted)
        content = json.dumps(values, allow_nan=False, ensure_ascii=False).encode()
        exported = Exported(os.fspath(path), len(content))
    else:
        taken = None if features else recipe
        content, outputs, difference = _onnx(fitted, taken)
        columns = () if taken is None else taken.columns
        dates = tuple(column.name for column in columns if column.kind == "date")
        exported = Exported(os.fspath(path), len(content), outputs, difference, dates)
    write_file(place, content, overwrite=overwrite)
    return exported


def _form_of(path: str) -> Form:
    """Return the form that the end of a name means."""
    ending = os.path.splitext(path)[1]
    for form, kind in _FORMS.items():
        if ending.lower() in kind.endings:
            return form
    raise ValueError(
        f"{path} ends with {ending or 'no ending'}; end it with .onnx for a graph of ONNX, or with "
        ".json for the coefficients and encodings as text"
    )


def _not_a_form(to: str) -> str:
    if to == "sklearn":
        return (
            "scikit-learn saves models by pickle alone, which can hold code; in Python, "
            "ooc_train.load(RUN).to_sklearn() is a fitted estimator of scikit-learn"
        )
    return f"to={to!r} is not one of onnx, json"


def _onnx(fitted: Fitted, recipe: Recipe | None) -> tuple[bytes, tuple[str, ...], float | None]:
    """Return the content of a file of ONNX, the names of its outputs, and the check of it."""
    with needed_package("onnx", "files of ONNX", "onnx onnxruntime"):
        from ooc_train.exporting.onnx_check import largest_difference
        from ooc_train.exporting.onnx_model import onnx_model
    model, outputs = onnx_model(fitted, recipe)
    content = model.SerializeToString()
    del model
    return content, outputs, largest_difference(content, fitted, recipe)
