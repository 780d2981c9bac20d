"""A graph of ONNX compared with the model that it came from, on synthetic rows, by onnxruntime."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import Array
from ooc_train.core.text import counted
from ooc_train.exporting.onnx_columns import MATRIX, is_text, numeric_values
from ooc_train.exporting.onnx_graph import label_array
from ooc_train.inference.outputs import Outputs
from ooc_train.runs.fitted import Fitted
from ooc_train.tables.features import Column, slots
from ooc_train.tables.recipe import Recipe
from ooc_train.tables.values import MISSING, UNKNOWN, day_of

TOLERANCE = 1e-6
"""Largest difference of a number, relative to its size where it is above 1."""

_MOST_ROWS, _MOST_VALUES = 100, 2**22

_SHARE = 0.1
"""Share of made values that are missing, or that no training row had."""

_UNSEEN_TEXT, _UNSEEN_NUMBER = "a value that no training row had", 0.12345


def largest_difference(content: bytes, fitted: Fitted, recipe: Recipe | None) -> float | None:
    """Return the largest difference of predictions; None without onnxruntime.

    Raises
    ------
    RuntimeError
        If it is above 1e-6, or a class differs: a fault of ooc_train or of onnxruntime.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        return None
    feeds, X = _made(fitted, recipe)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Threads of onnxruntime would hold every core for 100 rows.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        content, sess_options=options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(names, feeds), strict=True))
    outputs, z = Outputs.of(fitted), fitted.decision(X)
    worst = 0.0
    for name, values in found.items():
        kind: Any = name.rstrip("_")
        if kind == "prediction" and fitted.classes:
            _require_classes(values, fitted, outputs, z)
            continue
        worst = max(worst, _difference(values, outputs.at(z, kind)))
    if not worst <= TOLERANCE:
        raise _fault(f"a number by {worst:.3g}, more than {TOLERANCE:g}")
    return worst


def _require_classes(found: NDArray[Any], fitted: Fitted, outputs: Outputs, z: Array) -> None:
    """Raise `RuntimeError` if a class differs where predictors tell it from the others clearly."""
    labels, _ = label_array(fitted.classes)
    top = np.sort(np.hstack([z, np.zeros_like(z)]) if z.shape[1] == 1 else z, axis=1)
    clear = top[:, -1] - top[:, -2] > TOLERANCE
    wrong = clear & (found != labels[outputs.codes(z)])
    if wrong.any():
        raise _fault(f"the class of {int(wrong.sum())} of {counted(len(wrong), 'row')}")


def _difference(found: Array, due: Array) -> float:
    return float((np.abs(found - due) / np.maximum(1.0, np.abs(due))).max())


def _fault(what: str) -> RuntimeError:
    return RuntimeError(
        f"onnxruntime computes another prediction than ooc_train: {what}; nothing was written"
    )


def _made(fitted: Fitted, recipe: Recipe | None) -> tuple[dict[str, NDArray[Any]], Array]:
    """Return inputs of synthetic rows for the graph, and their features (rows, features)."""
    random = np.random.default_rng(0)
    rows = max(2, min(_MOST_ROWS, _MOST_VALUES // fitted.n_features))
    if recipe is None:
        X = random.normal(size=(rows, *(fitted.row_shape or (fitted.n_features,))))
        return {MATRIX: X}, X.reshape(rows, -1)
    records = np.zeros(rows, recipe.encoder(needs_y=False, needs_id=False).dtype)
    feeds: dict[str, NDArray[Any]] = {}
    for column, field, i in slots(recipe.columns):
        made = _categories if column.kind == "category" else _numbers
        stored, fed = made(column, recipe, rows, random)
        records[field][:, i] = stored
        feeds[column.name] = fed[:, np.newaxis]
    return feeds, np.asarray(recipe.expand(records), np.float64)


def _numbers(
    column: Column, recipe: Recipe, rows: int, random: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return made numbers or days twice, some missing: as a record has them, and for the graph."""
    del recipe
    values = 3.0 * random.normal(size=rows) + (column.fill or 0.0)
    if column.kind == "date":
        values = np.round(100.0 * values) + (day_of(column.origin) if column.origin else 0.0)
    if column.fill is not None:
        values[random.random(rows) < _SHARE] = np.nan
    return values, values


def _categories(
    column: Column, recipe: Recipe, rows: int, random: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return codes of made categories, and their values for the graph, of those it accepts."""
    codes = random.integers(0, len(column.values), rows)
    if (column.missing or recipe.missing not in ("error", "drop")) and "" not in column.values:
        codes[random.random(rows) < _SHARE] = MISSING
    if recipe.unseen != "error":
        codes[random.random(rows) < _SHARE] = UNKNOWN
    known: list[Any] = [*column.values, _UNSEEN_TEXT, ""]  # the codes -2 and -1 count from the end
    if not is_text(column):
        known = [*numeric_values(column), _UNSEEN_NUMBER, np.nan]
    return codes, np.array(known, object if is_text(column) else np.float64)[codes]
