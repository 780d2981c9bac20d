"""Meaning of other writers' metadata, by the conventions of CF, xarray and NCZarr.

Attributes say which values are missing, how values are packed, and which axis the rows are. Each
attribute that changes the meaning of values is decoded here, or refused.
"""

import base64
import binascii
import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from ooc_train.core.schema import shown
from ooc_train.errors import InvalidStore
from ooc_train.store.format.dimensions import DIMENSIONS
from ooc_train.store.format.missing_values import MissingValues

_NAMED_FLOATS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def decode_attributes(
    attributes: Mapping[str, Any], dtype: np.dtype[Any], path: str, *, masked: Any = None
) -> tuple[np.dtype[Any], MissingValues | None]:
    """Return the type that the attributes give the values, and the missing values, or None.

    That type has the size of `dtype`. `masked` is the fill value, if the array's format makes that
    the missing value. `InvalidStore` is raised if an attribute is malformed, or gives values a
    meaning that this package doesn't decode. `path` names the array in messages.
    """
    _require_plain(attributes, path)
    meant = _signedness(attributes.get("_Unsigned"), dtype, path)
    declared = [
        (name, _value(value, dtype, path, name))
        for name in ("_FillValue", "missing_value")
        for value in _several(attributes.get(name))
    ]
    if masked is not None:
        declared.append((f"fill_value (in Zarr format 2 with {DIMENSIONS}, as of xarray)", masked))
    kept: dict[Any, str] = {}
    for name, value in declared:
        cast = _cast(value, dtype, meant)
        if cast is not None:
            kept.setdefault(cast, name)
    low, high = _valid_range(attributes, dtype, meant, path)
    missing = MissingValues(tuple((name, value) for value, name in kept.items()), low, high)
    return meant, None if missing == MissingValues() else missing


def _require_plain(attributes: Mapping[str, Any], path: str) -> None:
    """Raise `InvalidStore` if attributes say that values are packed, times or bit fields."""
    if packed := [key for key in ("scale_factor", "add_offset") if key in attributes]:
        raise InvalidStore(
            f"{path} holds packed values (it has {' and '.join(packed)}), and the "
            "packed numbers would be taken for the values; write them unpacked first"
        )
    for key, means_time in (
        ("units", lambda value: " since " in value),
        ("calendar", bool),
        # xarray notes the type of encoded times so.
        ("dtype", lambda value: value.startswith(("datetime64", "timedelta64"))),
    ):
        value = attributes.get(key)
        if isinstance(value, str) and means_time(value):
            raise InvalidStore(
                f"{path} holds times (it has {key}: {shown(value)}), whose numbers depend on the "
                "unit; write numbers that mean what is to be learned, such as hours or years"
            )
    for key, what in (
        ("flag_masks", "bit fields"),
        ("compress", "places of gathered values"),
        ("categories", "codes of categories, in AnnData's old format"),
    ):
        if key in attributes:
            raise InvalidStore(
                f"{path} holds {what} (it has {key}), which would be taken for numbers; write "
                "the values they stand for"
            )


def _several(values: Any) -> list[Any]:
    """Return an attribute as a list of values; empty if the attribute is None."""
    if values is None:
        return []
    return values if isinstance(values, list) else [values]


def _signedness(declared: Any, dtype: np.dtype[Any], path: str) -> np.dtype[Any]:
    """Return the integer type that ``_Unsigned`` declares."""
    if declared is None:
        return dtype
    kind = {"true": "u", "false": "i"}.get(str(declared).lower())
    if kind is None or dtype.kind not in "iu":
        raise InvalidStore(
            f"{path} holds {dtype} and has _Unsigned={shown(declared)}, which is true or false, of "
            "whole numbers; remove that attribute, or write the values in their own type"
        )
    return np.dtype(dtype.str.replace(dtype.kind, kind))


def _value(value: Any, dtype: np.dtype[Any], path: str, name: str) -> Any:
    """Return an attribute's JSON value in a type that compares with `dtype`."""
    numeric = isinstance(value, int | float | np.number | np.bool_)
    if dtype.kind in "biu" and numeric:
        return value
    if dtype.kind == "f":
        if numeric:
            return value
        if isinstance(value, str):
            if value in _NAMED_FLOATS:
                return _NAMED_FLOATS[value]
            # In Zarr format 3 xarray writes floats as the base64 of a little-endian double.
            code = _from_base64(value)
            if code is not None and len(code) == 8:
                return struct.unpack("<d", code)[0]
    if dtype.kind == "S" and isinstance(value, str) and (code := _from_base64(value)) is not None:
        return code
    if dtype.kind in "UT" and isinstance(value, str):
        return value
    raise InvalidStore(
        f"{path} holds {dtype} and has {name}={shown(value)}, which is no value of that type; "
        "correct or remove that attribute"
    )


def _from_base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return None


def _cast(value: Any, dtype: np.dtype[Any], meant: np.dtype[Any]) -> Any:
    """Return a value in the type `meant`, as a Python scalar; None if `dtype` can't hold it.

    None is also returned for NaN, since readers refuse every number that isn't finite.
    """
    if dtype.kind in "SUT":
        return value if isinstance(value, str | bytes) else str(value)
    try:
        number = float(value)
    except OverflowError:  # a whole number with hundreds of digits
        return None
    if math.isnan(number):
        return None
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            cast = float(meant.type(number))
        return cast if math.isfinite(cast) or not math.isfinite(number) else None
    if dtype.kind == "b":
        return bool(number) if number in (0, 1) else None
    if not number.is_integer():
        return None
    whole = int(value)
    for stored_or_meant in (dtype, meant):
        limits = np.iinfo(stored_or_meant)
        if limits.min <= whole <= limits.max:
            # A signed value in an attribute means the same bits of an unsigned type.
            return int(np.array(whole, stored_or_meant).view(meant))
    return None


def flag_names(
    attributes: Mapping[str, Any], dtype: np.dtype[Any], meant: np.dtype[Any], path: str
) -> tuple[tuple[Any, str], ...] | None:
    """Return values and their names by CF's flag attributes, None if there are no names.

    `dtype` is the type as stored, and `meant` the type that is meant. `InvalidStore` is raised if
    values and names don't match one to one.
    """
    if "flag_meanings" not in attributes:
        return None
    meanings = attributes["flag_meanings"]
    names = meanings.split() if isinstance(meanings, str) else []
    values = [
        _cast(_value(value, dtype, path, "flag_values"), dtype, meant)
        for value in _several(attributes.get("flag_values"))
    ]
    if len(names) != len(values) or None in values or len(set(values)) < len(values):
        raise InvalidStore(
            f"{path} has {len(values)} flag_values and {len(names)} flag_meanings, which should be "
            f"as many, different, and values of {dtype}; correct or remove these attributes"
        )
    return tuple(zip(values, names, strict=True))


def _valid_range(
    attributes: Mapping[str, Any], dtype: np.dtype[Any], meant: np.dtype[Any], path: str
) -> tuple[tuple[str, float] | None, tuple[str, float] | None]:
    """Return (attribute, value) of the least and of the greatest valid value."""
    declared: list[tuple[str, Any] | None] = [None, None]
    if "valid_range" in attributes:
        both = attributes["valid_range"]
        if not isinstance(both, list) or len(both) != 2:
            raise InvalidStore(
                f"{path} has valid_range={shown(both)}, which should be two numbers; correct or "
                "remove that attribute"
            )
        declared = [("valid_range", value) for value in both]
    for i, name in enumerate(("valid_min", "valid_max")):
        if name in attributes:
            declared[i] = (name, attributes[name])
    bounds: list[tuple[str, float] | None] = []
    for bound in declared:
        if bound is None:
            bounds.append(None)
            continue
        name, value = bound
        if dtype.kind not in "biuf":
            raise InvalidStore(f"{path} holds {dtype} and has {name}; remove that attribute")
        value = _value(value, dtype, path, name)
        cast = _cast(value, dtype, meant)
        bounds.append((name, _bound(value) if cast is None else cast))
    return bounds[0], bounds[1]


def _bound(value: float) -> float:
    """Return a bound that the array's type can't hold, as a float that compares with it."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
