"""The columns of a table behind the features of a model: those that a recipe made of each."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.schema import shown
from ooc_train.core.text import feature_name, listed
from ooc_train.runs.fitted import Fitted

Places = slice | NDArray[np.intp]
"""Features of one column: neighbours, or their numbers."""


def raw_columns(fitted: Fitted) -> dict[str, Places]:
    """Return the features of each raw column of a model's recipe; without one, each feature."""
    names = [
        feature_name(fitted.feature_names, fitted.row_shape, i) for i in range(fitted.n_features)
    ]
    if fitted.recipe is None:
        return {name: slice(i, i + 1) for i, name in enumerate(names)}
    place = {name: i for i, name in enumerate(names)}
    found: dict[str, Places] = {}
    for column in fitted.recipe["columns"]:
        name, features = column["name"], [column["name"]]
        if column["kind"] == "category":
            features = [f"{name}={value}" for value in column.get("values", ())]
            features += [f"{name} is {what}" for what in ("missing", "other") if column.get(what)]
        found[name] = _places([place[feature] for feature in features])
    return found


def _places(features: Sequence[int]) -> Places:
    """Return columns as a slice if they are neighbours, since a slice needs no copy."""
    first = min(features, default=0)
    if sorted(features) == list(range(first, first + len(features))):
        return slice(first, first + len(features))
    return np.array(features, np.intp)


def chosen_columns(
    fitted: Fitted, columns: Sequence[str | int] | str | int | None
) -> dict[str, Places]:
    """Return raw columns or features of a model, by name; None for all raw columns.

    Raises
    ------
    ValueError
        If there is no such column.
    """
    known = raw_columns(fitted)
    if columns is None:
        return known
    if isinstance(columns, str | int):
        columns = [columns]
    features = {
        feature_name(fitted.feature_names, fitted.row_shape, i): slice(i, i + 1)
        for i in range(fitted.n_features)
    }
    names, found = list(features), {}
    for column in columns:
        name = column
        if isinstance(column, int | np.integer) and 0 <= column < len(names):
            name = names[column]
        if not isinstance(name, str) or name not in {**known, **features}:
            raise ValueError(
                f"there is no column {shown(column)}; the model has {listed(list(known))}"
            )
        found[name] = known.get(name, features.get(name, slice(0)))
    return found
