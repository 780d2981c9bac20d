"""Kinds of raw columns, by their Arrow types."""

from functools import cache
from typing import Literal

import pyarrow as pa

Kind = Literal["number", "boolean", "date", "text", "empty", "other"]
"""Kind of a raw column: "empty" without any value so far, "other" without a meaning as numbers."""


def has_zone(arrow: pa.DataType) -> bool:
    """Return whether an Arrow type is that of times with a zone."""
    return bool(pa.types.is_timestamp(arrow)) and arrow.tz is not None


@cache
def kind_of(arrow: pa.DataType) -> Kind:
    """Return the kind of an Arrow type."""
    types = pa.types
    if types.is_dictionary(arrow):
        return "text"
    kinds: tuple[tuple[Kind, bool], ...] = (
        ("empty", types.is_null(arrow)),
        ("boolean", types.is_boolean(arrow)),
        ("number", types.is_integer(arrow) or types.is_floating(arrow) or types.is_decimal(arrow)),
        ("date", types.is_date(arrow) or types.is_timestamp(arrow)),
        (
            "text",
            types.is_string(arrow) or types.is_large_string(arrow) or types.is_string_view(arrow),
        ),
    )
    return next((kind for kind, fits in kinds if fits), "other")
