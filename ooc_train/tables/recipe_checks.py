"""Checks of a recipe that users may have changed."""

import math
from typing import Any, get_args

from ooc_train.core.schema import shown
from ooc_train.tables.features import ColumnKind, Missing, Unseen
from ooc_train.tables.values import day_of, text_of


def require_usable(recipe: Any) -> None:
    """Refuse a `Recipe` that can't be applied.

    Raises
    ------
    ValueError
        With the entry, its value and what it can be.
    """
    names = [column.name for column in recipe.columns]
    if not names or len(set(names)) < len(names):
        raise ValueError("the recipe should name at least one column, and none twice")
    for column in recipe.columns:
        if fault := _fault(column):
            raise ValueError(f"the recipe's column {shown(column.name)} has {fault}")
    for name, value in (
        ("target", recipe.target and recipe.target.name),
        ("sample_weight", recipe.sample_weight),
        ("id_column", recipe.id_column),
    ):
        if value is not None and (not isinstance(value, str) or value in names):
            raise ValueError(
                f"the recipe's {name} is {shown(value)}, which should be another column"
            )
    for name, value, known in (
        ("missing", recipe.missing, get_args(Missing)),
        ("unseen", recipe.unseen, get_args(Unseen)),
        ("dtype", recipe.dtype, ("float32", "float64")),
    ):
        if value not in known:
            raise ValueError(f"the recipe's {name} is {shown(value)}; it can be {', '.join(known)}")
    classes: Any = recipe.classes
    if classes is not None:
        texts = {text_of(label) for label in classes if isinstance(label, str | int | float)}
        if len(texts) < max(2, len(classes)):
            raise ValueError("the recipe's target should have at least 2 classes, none twice")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that float64 can't hold
        return False


def _fault(column: Any) -> str | None:
    """Return what can't be used of a column, whose fields may have any type of JSON."""
    if not isinstance(column.name, str) or not isinstance(column.type, str):
        return "a name or a type that is no text"
    for flag in ("missing", "other"):
        if not isinstance(getattr(column, flag), bool):
            return f"{flag}={shown(getattr(column, flag))}, which is neither true nor false"
    if column.kind not in get_args(ColumnKind):
        return f"the kind {shown(column.kind)}; it can be {', '.join(get_args(ColumnKind))}"
    if column.fill is not None and not (
        isinstance(column.fill, int | float) and _is_finite(column.fill)
    ):
        return f"the fill {shown(column.fill)}, which is no number"
    if column.origin is not None:
        try:
            day_of(column.origin)
        except (TypeError, ValueError):
            return f"the origin {shown(column.origin)}, which is no date such as 2013-01-31"
    if not all(isinstance(value, str) for value in column.values):
        return "values that are no text"
    if len(set(column.values)) < len(column.values):
        return "a value twice"
    if column.kind == "category" and not column.feature_names:
        return "no values"
    return None
