"""The declared schema of a recipe's JSON, which users may change, and the checks across entries."""

from collections.abc import Mapping
from typing import Any, get_args

from ooc_train.core.schema import (
    UnfitError,
    either,
    flag,
    integer,
    list_of,
    mapping,
    number,
    one_of,
    or_none,
    record,
    scalar,
    shown,
    text,
    texts,
)
from ooc_train.tables.cell_formats import require_date_format
from ooc_train.tables.features import Column, ColumnKind, Unseen
from ooc_train.tables.names import Missing
from ooc_train.tables.values import day_of, text_of

RECIPE_FORMAT = "ooc_train.recipe"
RECIPE_VERSION = 2


def _date(value: Any, place: str) -> None:
    """Raise `UnfitError` unless the value is a date such as 2013-01-31."""
    try:
        day_of(value)
    except (TypeError, ValueError):
        raise UnfitError(
            f"{place} is {shown(value)}, which is no date such as 2013-01-31"
        ) from None


_VERSION = record({"format": one_of(RECIPE_FORMAT), "format_version": integer(1)})
_RECIPE = record(
    {
        "dtype": one_of("float32", "float64"),
        "missing": one_of(*get_args(Missing)),
        "unseen": one_of(*get_args(Unseen)),
        "target": or_none(
            record(
                {"name": text, "type": text, "classes": or_none(list_of(scalar, least=2))},
                optional={"symbol": text},
            )
        ),
        "sample_weight": or_none(text),
        "id_column": or_none(text),
        "columns": list_of(
            record(
                {"name": text, "kind": one_of(*get_args(ColumnKind)), "type": text},
                optional={
                    "fill": or_none(number()),
                    "origin": or_none(_date),
                    "values": texts(),
                    "missing": flag,
                    "other": flag,
                    "symbol": text,
                    "date_format": text,
                },
                others=False,
            ),
            least=1,
        ),
    },
    optional={
        "delimiter": text,
        "encoding": text,
        "formats": record(
            {},
            optional={
                "decimal": text,
                "thousands": text,
                "symbols": texts(),
                "na": texts(),
                "true": texts(),
                "false": texts(),
                "date_format": either(text, mapping),
            },
            others=False,
        ),
    },
)


def require_recipe(values: Mapping[str, Any]) -> None:
    """Raise `ValueError` for values of JSON that are no recipe, or one of a later release."""
    _VERSION(values, "")
    if values["format_version"] > RECIPE_VERSION:
        raise ValueError(
            f"the recipe has format version {values['format_version']}, this package reads up to "
            f"{RECIPE_VERSION}; update ooc_train"
        )
    _RECIPE(values, "")
    names = [column["name"] for column in values["columns"]]
    _require_distinct(names, "columns")
    for i, column in enumerate(values["columns"]):
        _require_distinct(column.get("values", ()), f"columns[{i}].values")
        if column["kind"] == "category" and not Column(**column).feature_names:
            raise UnfitError(f"columns[{i}] is a category without values")
        if column.get("date_format"):
            require_date_format(column["date_format"])
    target = values["target"] or {"name": None, "classes": None}
    _require_distinct([*map(text_of, target["classes"] or ())], "target.classes")
    single = {"target": target["name"]}
    for role, name in (single | {r: values[r] for r in ("sample_weight", "id_column")}).items():
        if name in names:
            raise UnfitError(f"{role} is {shown(name)}, which should be another column")


def _require_distinct(names: Any, place: str) -> None:
    if len(set(names)) < len(names):
        raise UnfitError(f"{place} has an entry twice")
