"""What the metadata of other writers mean, by the conventions of CF, xarray and NCZarr.

Numbers alone do not say which of them are missing, how they are packed, or which axis the rows are.
Attributes do. Each attribute that changes what values mean is decoded here, or refused.
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
    """Say in which type values are meant, and which of them are missing.

    Parameters
    ----------
    attributes : mapping
        Of the array.
    dtype : dtype
        Of the values as they lie.
    path : str
        What messages call the array.
    masked : scalar, optional
        The fill value of the array, where its format makes that the missing value.

    Returns
    -------
    dtype, MissingValues or None
        The type that is meant, of the same size; and what is missing, None if nothing can be.

    Raises
    ------
    InvalidStore
        If an attribute gives values another meaning that isn't decoded, or can't be understood.
    """
    _require_plain(attributes, path)
    meant = _signedness(attributes.get("_Unsigned"), dtype, path)
    missing = [
        (name, _value(value, dtype, path, name))
        for name in ("_FillValue", "missing_value")
        for value in _several(attributes.get(name))
    ]
    if masked is not None:
        missing.append((f"fill_value (in Zarr format 2 with {DIMENSIONS}, as of xarray)", masked))
    kept: dict[Any, str] = {}
    for name, value in missing:
        cast = _cast(value, dtype, meant)
        if cast is not None:
            kept.setdefault(cast, name)
    low, high = _valid_range(attributes, dtype, meant, path)
    declared = MissingValues(tuple((name, value) for value, name in kept.items()), low, high)
    return meant, None if declared == MissingValues() else declared


def _require_plain(attributes: Mapping[str, Any], path: str) -> None:
    """Refuse values that stand for others: packed numbers, times, bit fields, codes."""
    if packed := [key for key in ("scale_factor", "add_offset") if key in attributes]:
        raise InvalidStore(
            f"{path} holds packed values (it has {' and '.join(packed)}), which would be "
            "taken as they lie; write them unpacked first"
        )
    for key, means_time in (
        ("units", lambda said: " since " in said),
        ("calendar", bool),
        # xarray notes so what it encoded.
        ("dtype", lambda said: said.startswith(("datetime64", "timedelta64"))),
    ):
        said = attributes.get(key)
        if isinstance(said, str) and means_time(said):
            raise InvalidStore(
                f"{path} holds times (it has {key}: {shown(said)}), whose numbers depend on the "
                "unit; write numbers that mean what is to be learned, such as hours or years"
            )
    for key, what in (
        ("flag_masks", "bit fields"),
        ("compress", "places of gathered values"),
        ("categories", "codes of categories, in AnnData's old format"),
    ):
        if key in attributes:
            raise InvalidStore(
                f"{path} holds {what} (it has {key}), which would be taken as numbers; write what "
                "they stand for"
            )


def _several(given: Any) -> list[Any]:
    """Values of an attribute that may hold one, several, or none."""
    if given is None:
        return []
    return given if isinstance(given, list) else [given]


def _signedness(said: Any, dtype: np.dtype[Any], path: str) -> np.dtype[Any]:
    """Type that ``_Unsigned`` makes of a type of whole numbers."""
    if said is None:
        return dtype
    wanted = {"true": "u", "false": "i"}.get(str(said).lower())
    if wanted is None or dtype.kind not in "iu":
        raise InvalidStore(
            f"{path} holds {dtype} and has _Unsigned={shown(said)}, which is true or false, of "
            "whole numbers; remove that attribute, or write the values in their own type"
        )
    return np.dtype(dtype.str.replace(dtype.kind, wanted))


def _value(given: Any, dtype: np.dtype[Any], path: str, name: str) -> Any:
    """Value of an attribute as JSON holds it, in a type that compares with `dtype`."""
    numeric = isinstance(given, int | float | np.number | np.bool_)
    if dtype.kind in "biu" and numeric:
        return given
    if dtype.kind == "f":
        if numeric:
            return given
        if isinstance(given, str):
            if given in _NAMED_FLOATS:
                return _NAMED_FLOATS[given]
            # In Zarr format 3 xarray writes floats as the base64 of a little-endian double.
            code = _from_base64(given)
            if code is not None and len(code) == 8:
                return struct.unpack("<d", code)[0]
    if dtype.kind == "S" and isinstance(given, str) and (code := _from_base64(given)) is not None:
        return code
    if dtype.kind in "UT" and isinstance(given, str):
        return given
    raise InvalidStore(
        f"{path} holds {dtype} and has {name}={shown(given)}, which is no value of that type; "
        "correct or remove that attribute"
    )


def _from_base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return None


def _cast(value: Any, dtype: np.dtype[Any], meant: np.dtype[Any]) -> Any:
    """Value in the type that is meant, as Python's; None where the array can't hold it.

    NaN is among those: as a number that is not finite it is refused anyway.
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
    for as_said in (dtype, meant):
        limits = np.iinfo(as_said)
        if limits.min <= whole <= limits.max:
            # A value that is said to be signed means the same bits of an unsigned one.
            return int(np.array(whole, as_said).view(meant))
    return None


def flag_names(
    attributes: Mapping[str, Any], dtype: np.dtype[Any], meant: np.dtype[Any], path: str
) -> tuple[tuple[Any, str], ...] | None:
    """Values that stand for names, and those names, by CF's flags; None where nothing names them.

    Parameters
    ----------
    attributes : mapping
        Of the array.
    dtype, meant : dtype
        Of the values as they lie, and as they are meant.
    path : str
        What messages call the array.

    Raises
    ------
    InvalidStore
        If there isn't a name for each value.
    """
    if "flag_meanings" not in attributes:
        return None
    said = attributes["flag_meanings"]
    names = said.split() if isinstance(said, str) else []
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
    """(attribute, value) of the least and of the greatest valid value."""
    said: list[tuple[str, Any] | None] = [None, None]
    if "valid_range" in attributes:
        both = attributes["valid_range"]
        if not isinstance(both, list) or len(both) != 2:
            raise InvalidStore(
                f"{path} has valid_range={shown(both)}, which should be two numbers; correct or "
                "remove that attribute"
            )
        said = [("valid_range", value) for value in both]
    for i, name in enumerate(("valid_min", "valid_max")):
        if name in attributes:
            said[i] = (name, attributes[name])
    found: list[tuple[str, float] | None] = []
    for one in said:
        if one is None:
            found.append(None)
            continue
        name, value = one
        if dtype.kind not in "biuf":
            raise InvalidStore(f"{path} holds {dtype} and has {name}; remove that attribute")
        value = _value(value, dtype, path, name)
        cast = _cast(value, dtype, meant)
        found.append((name, _bound(value) if cast is None else cast))
    return found[0], found[1]


def _bound(value: float) -> float:
    """Return a bound that the type of the values doesn't hold, as one that compares with them."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
