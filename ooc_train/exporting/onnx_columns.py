"""The first sums of a graph, from raw columns or from the matrix of features.

Each column adds its share to the sums of the first layer: a number by its weight, a category by the
row of a table that has the weights of its features. No one-hot matrix is made.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from ooc_train.core.sums import Array
from ooc_train.core.text import feature_name, listed
from ooc_train.exporting.onnx_graph import ML, Graph
from ooc_train.runs.fitted import Fitted
from ooc_train.tables.features import Column, ColumnKind
from ooc_train.tables.recipe import Recipe
from ooc_train.tables.values import day_of

MATRIX = "X"
"""The input of a graph without raw columns."""

_MOST_COLUMNS = 20_000
"""Most raw columns of a graph, each an input."""

_LARGEST_WHOLE = 2.0**53

_TEXT = 'text as in the training data; "" is missing'
_NUMBERS: Mapping[ColumnKind, str] = MappingProxyType(
    {
        "number": "a number, or 0 or 1; NaN is missing",
        "category": "a number, or 0 or 1; NaN is missing",
        "date": "days since 1970-01-01 (UTC); NaN is missing",
    }
)
"""What the documentation of an input says of its values."""


def matrix_sums(graph: Graph, fitted: Fitted, weights: Array) -> str:
    """Return the product of the rows of a matrix with weights (features, units)."""
    shape = fitted.row_shape or (fitted.n_features,)
    names = [
        feature_name(fitted.feature_names, fitted.row_shape, i) for i in range(min(8, shape[0]))
    ]
    doc = (
        f"float64 values of the features: {listed(names)}" if len(shape) == 1 else "float64 values"
    )
    X = graph.input(MATRIX, "double", ("rows", *shape), doc)
    if len(shape) > 1:
        X = graph.add("Reshape", X, graph.constant(np.array([-1, fitted.n_features])))
    return graph.add("MatMul", X, graph.constant(weights))


def is_text(column: Column) -> bool:
    """Return whether a graph takes a column as text; others are float64."""
    numeric = column.type.removeprefix("u").startswith(("int", "decimal"))
    is_number = numeric or column.type in ("bool", "halffloat", "float", "double")
    return column.kind == "category" and not is_number


def require_columns(recipe: Recipe) -> None:
    """Raise `ValueError` unless a graph can have an input for each raw column."""
    names = [column.name for column in recipe.columns]
    way = "or export the features that the recipe makes of them (features=True)"
    if len(names) > _MOST_COLUMNS:
        raise ValueError(
            f"the recipe has {len(names):,} raw columns, and a graph of ONNX with more than "
            f"{_MOST_COLUMNS:,} inputs loads slowly; export json, {way}"
        )
    if "" in names:
        raise ValueError(f"a raw column has no name, which ONNX needs; name it at ingest, {way}")


def column_sums(graph: Graph, recipe: Recipe, weights: Array) -> str:
    """Return the sums over raw columns of their shares, by weights (features, units)."""
    singles, parts, first = [], [], 0
    for column in recipe.columns:
        n_features = len(column.feature_names)
        own = weights[first : first + n_features]
        kind, doc = ("string", _TEXT) if is_text(column) else ("double", _NUMBERS[column.kind])
        graph.input(column.name, kind, ("rows", 1), doc)
        if column.kind == "category":
            parts.append(_category(graph, recipe, column, own))
        else:
            singles.append((column, own))
        first += n_features
    if singles:
        columns, rows = zip(*singles, strict=True)
        numbers = _numbers(graph, columns, single=recipe.dtype == "float32")
        parts.append(graph.add("MatMul", numbers, graph.constant(np.concatenate(rows))))
    return graph.add("Sum", *parts)


def _numbers(graph: Graph, columns: Sequence[Column], *, single: bool) -> str:
    """Return the features (rows, columns) of numbers and dates, in the type of the recipe."""
    X = graph.add("Concat", *(column.name for column in columns), axis=1)
    origins = np.array([day_of(each.origin) if each.origin else 0.0 for each in columns])
    if origins.any():
        X = graph.add("Sub", X, graph.constant(origins))
    fills = np.array([np.nan if each.fill is None else each.fill for each in columns])
    if single:
        X = graph.add("Cast", X, to=TensorProto.FLOAT)
        X = graph.add("Cast", X, to=TensorProto.DOUBLE)
        fills = fills.astype(np.float32).astype(np.float64)
    if np.isfinite(fills).any():
        X = graph.add("Where", graph.add("IsNaN", X), graph.constant(fills), X)
    return X


def _category(graph: Graph, recipe: Recipe, column: Column, weights: Array) -> str:
    """Return the weights of the feature that each row's category has, (rows, units)."""
    table = category_table(recipe, column, weights)
    missing, unknown = len(table) - 2, len(table) - 1
    codes: dict[str, Any]
    if is_text(column):
        # A value "" of the recipe is a category, and no missing value.
        values = {"": missing} | {value: code for code, value in enumerate(column.values)}
        codes = {"keys_strings": list(values), "values_int64s": list(values.values())}
        codes["default_int64"] = unknown
    else:
        tensor = numpy_helper.from_array
        codes = {
            "keys_tensor": tensor(np.append(numeric_values(column), np.nan)),
            "values_tensor": tensor(np.append(np.arange(len(column.values)), missing)),
            "default_tensor": tensor(np.array([unknown])),
        }
    found = graph.add("LabelEncoder", column.name, domain=ML, **codes)
    rows = graph.add("Reshape", found, graph.constant(np.array([-1])))
    return graph.add("Gather", graph.constant(table), rows)


def category_table(recipe: Recipe, column: Column, weights: Array) -> Array:
    """Return the weights by the code of a category; last those of missing and of unseen values.

    NaN stands for a value that the recipe refuses.
    """
    n_values = len(column.values)
    other = weights[-1] if column.other else np.zeros(weights.shape[1])
    unknown = np.full_like(other, np.nan) if recipe.unseen == "error" else other
    if column.missing:
        missing = weights[n_values]
    else:
        # If no training row was missing, a missing value is treated as unseen, or refused.
        refused = recipe.missing in ("error", "drop")
        missing = np.full_like(other, np.nan) if refused else other
    return np.vstack([weights[:n_values], missing, unknown])


def numeric_values(column: Column) -> NDArray[np.float64]:
    """Return the values of a category of numbers, which the recipe holds as text."""
    words = {"true": 1.0, "false": 0.0}
    try:
        values = np.array([words[v] if v in words else float(v) for v in column.values])
    except ValueError:
        values = np.array([np.nan])
    if not (np.abs(values) < _LARGEST_WHOLE).all() or len(np.unique(values)) < len(values):
        raise ValueError(
            f"the categories of column {column.name!r} ({column.type}) are no numbers that float64 "
            "tells apart; ingest the column as text, or export the features that the recipe makes "
            "(features=True)"
        )
    return values
