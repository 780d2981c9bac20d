"""Checks of the kind of arrays and values: what can be rows, numbers or labels.

Objects of other libraries are recognised by the names of their modules and classes, so that no
library is imported.
"""

import datetime as dt
import math
from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ooc_train.core.text import counted
from ooc_train.errors import DROP_OR_FILL, NonFiniteData

_DATES = (dt.date, dt.time, dt.timedelta, np.datetime64, np.timedelta64)
_MISSING = ("NoneType", "NAType", "NaTType")
"""Class names of missing values of pandas and Python."""

_LARGEST = 2**64
_EXACT = 2**53
"""Whole numbers up to this one are exact in float64."""


def is_dask(X: object) -> bool:
    """Return whether X is a Dask collection."""
    return hasattr(X, "__dask_graph__")


def require_arrays(X: Any, y: Any = None, sample_weight: Any = None) -> None:
    """Refuse rows, targets and weights that are no arrays of numbers or labels.

    Types are checked. Values are looked at in arrays of Python objects and in masks alone.

    Raises
    ------
    TypeError
        If an argument is a frame or has sparse blocks, with the way to convert it.
    NonFiniteData
        If a value is masked.
    ValueError
        If an argument holds dates or durations, or a Dask array X has one axis.
    """
    lazy = is_dask(X)
    for name, values in (("X", X), ("y", y), ("sample_weight", sample_weight)):
        # For rows in memory, y may be a frame, which NumPy converts.
        frame = name == "X" or lazy or type(values).__name__.startswith("Delayed")
        if values is not None and frame:
            _require_no_frame(values, name)
    if lazy and X.ndim < 2:
        raise ValueError(_refusal_of_shape(X.shape))
    for name, values in (("X", X), ("y", y), ("sample_weight", sample_weight)):
        if values is not None:
            _require_unmasked(values, name, 0)
            _require_no_dates(values, name)


def require_rows(X: Any) -> None:
    """Raise `ValueError` unless an array has rows and columns; a row may have several axes."""
    if X.ndim < 2:
        raise ValueError(_refusal_of_shape(X.shape))
    if 0 in X.shape:
        columns = math.prod(X.shape[1:])
        raise ValueError(
            f"X has {counted(X.shape[0], 'row')} and {counted(columns, 'column')}; give some of "
            "both"
        )


def _refusal_of_shape(shape: tuple[int, ...]) -> str:
    return f"X has shape {shape}; give one row a sample, as (rows, features)"


def _require_no_frame(values: Any, name: str) -> None:
    kind = type(values)
    library = kind.__module__.partition(".")[0]
    makes = None
    if library == "xarray":
        makes = f"{name}[variable].data" if kind.__name__ == "Dataset" else f"{name}.data"
        makes += ", with rows first," if name == "X" else ""
    elif library == "polars" and kind.__name__ == "LazyFrame":
        makes = f"{name}.collect()"
    elif kind.__module__.startswith(("dask.dataframe", "dask_expr")):
        makes = f"{name}.to_dask_array(lengths=True)"
    elif library == "dask" and kind.__name__.startswith("Delayed"):
        makes = f"dask.array.from_delayed({name}, shape, dtype)"
    elif library == "dask" and not hasattr(values, "rechunk"):
        makes = f"{name}.to_dataframe().to_dask_array(lengths=True)"
    if makes is not None:
        owner = "Dask" if library in ("dask", "dask_expr") else library
        raise TypeError(
            f"{name} is a {kind.__name__} of {owner}, which is no array; {makes} is what is taken"
        )
    block = getattr(values, "_meta", None)
    if is_dask(values) and is_sparse(block):
        raise TypeError(_refusal_of_sparse(name, block))


def is_sparse(values: Any) -> bool:
    """Return whether values are a sparse array or matrix of SciPy or sparse."""
    return type(values).__module__.startswith(("scipy.sparse", "sparse."))


def _refusal_of_sparse(name: str, block: Any) -> str:
    dense = "toarray" if hasattr(block, "toarray") else "todense"
    return (
        f"{name} is a Dask array of blocks of {type(block).__name__}, which are sparse, and dense "
        f"ones are needed; {name}.map_blocks(lambda block: block.{dense}()) makes them"
    )


def _require_no_dates(values: Any, name: str) -> None:
    for column, kind in _kinds_of(values):
        text = str(kind)
        place = "" if column is None else f" in column {column!r}"
        if getattr(kind, "kind", None) in ("m", "M") or text.startswith(
            ("period", "Date", "Time", "Duration")
        ):
            raise ValueError(_refusal_of_dates(name, place, text))
        if text == "object" and not is_dask(values):
            objects = values if column is None else values[column]
            _require_no_date_objects(np.asarray(objects, object), name, place)


def _kinds_of(values: Any) -> Iterator[tuple[Any, Any]]:
    """Yield column names and types of a frame, or None and the type of an array."""
    if hasattr(values, "columns") and len(values.shape) == 2:
        yield from zip(values.columns, values.dtypes, strict=True)
    elif hasattr(values, "dtype"):
        yield None, values.dtype
    elif isinstance(values, list | tuple):
        try:
            yield None, np.asarray(values).dtype
        except ValueError:  # rows of different lengths, which a later check refuses
            return


def _require_no_date_objects(values: NDArray[Any], name: str, place: str = "") -> None:
    kinds = (
        type(value).__name__
        for value in values.flat
        if isinstance(value, _DATES) or type(value).__name__ == "Period"
    )
    kind = next(kinds, None)
    if kind is not None:
        raise ValueError(_refusal_of_dates(name, place, kind))


def _refusal_of_dates(name: str, place: str, kind: str) -> str:
    return (
        f"{name} holds dates or durations ({kind}){place}, and as numbers they would depend on "
        "their unit; give parts of them, such as the hour, or a duration in a unit of your choice, "
        "as (dates - dates.min()) / np.timedelta64(1, 'D')"
    )


def as_numbers(values: Any, name: str, dtype: DTypeLike, start: int = 0) -> NDArray[Any]:
    """Return an array for compiled loops: of a floating type, in C order, and aligned.

    Parameters
    ----------
    name : str
        Name of the array in messages.
    start : int
        Number of the first row, for messages.

    Raises
    ------
    NonFiniteData
        If a value is masked or missing.
    TypeError
        If the array is sparse.
    ValueError
        If a value is no real number.
    """
    if is_sparse(values):
        raise TypeError(_refusal_of_sparse(name, values))
    _require_unmasked(values, name, start)
    values = np.asarray(values)
    if values.dtype.kind == "O":
        _require_no_date_objects(values, name)
        for place, value in np.ndenumerate(values):
            if type(value).__name__ in _MISSING:
                raise _missing(value, name, start, place)
    elif values.dtype.kind == "c":
        raise ValueError(
            f"{name} holds complex numbers ({values.dtype}); give their parts, as {name}.real"
        )
    else:
        _require_no_dates(values, name)
    try:
        return np.require(values, np.dtype(dtype), ("C", "A"))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} holds what is no number: {error}") from None


def _require_unmasked(values: Any, name: str, start: int) -> None:
    """Raise `NonFiniteData` for a masked value, since NumPy would use the value under the mask."""
    mask = np.ma.getmask(values) if isinstance(values, np.ma.MaskedArray) else None
    if mask is not None and mask.any():
        raise _missing("a masked value", name, start, tuple(np.argwhere(mask)[0]))


def _missing(value: Any, name: str, start: int, place: tuple[Any, ...]) -> NonFiniteData:
    where = f"column {int(place[1])} of {name}" if len(place) > 1 else name
    return NonFiniteData(f"row {start + int(place[0])} has {value} in {where}; {DROP_OR_FILL}")


def as_labels(values: Any, start: int = 0) -> NDArray[Any]:
    """Return labels as an array of one kind: booleans, whole numbers, floats or text.

    Python objects are converted to an array of their kind; text is not changed. `start` is the
    number of the first row, for messages. A missing or masked label raises `NonFiniteData`. Labels
    of several kinds, or of a kind that no model can hold, raise `ValueError`.
    """
    _require_unmasked(values, "y", start)
    _require_no_dates(values, "y")
    if np.asarray(values).dtype.kind == "T":
        # scikit-learn does not accept NumPy's text of variable length.
        values = np.asarray(values).astype(object)
    objects = isinstance(values, list | tuple)
    found = np.asarray(values, object) if objects else np.asarray(values)
    if found.dtype.kind == "c":  # the message that checks of scikit-learn ask for
        raise ValueError(f"Complex data not supported: y is of {found.dtype}; give labels")
    if found.dtype.kind in "SV":
        way = "; y.astype(str) makes text" if found.dtype.kind == "S" else ""
        raise ValueError(f"y is of {found.dtype}, and labels are whole numbers or text{way}")
    if found.dtype.kind != "O" or not found.size:
        return np.asarray(values) if objects else found
    _require_no_date_objects(found, "y")
    first: dict[str, tuple[int, Any]] = {}
    for place, value in np.ndenumerate(found):
        kind = _kind_of_label(value)
        if kind == "missing":
            raise _missing(value, "y", start, place[:1])
        first.setdefault(kind, (start + int(place[0]), value))
    kinds = first.keys() - {"float"} if "int" in first else first.keys()
    if len(kinds) > 1:
        (row, one), (other_row, other) = sorted(first.values(), key=lambda pair: pair[0])[:2]
        raise ValueError(
            f"y holds labels of several kinds, such as {one!r} in row {row} and {other!r} in row "
            f"{other_row}; make them one, as y.astype(str) does"
        )
    (kind,) = kinds
    if kind == "text":
        return np.asarray(values)
    if kind not in ("bool", "int", "float"):
        raise ValueError(f"y holds labels of type {kind}; labels are whole numbers or text")
    if kind != "int":
        return found.astype(np.bool_ if kind == "bool" else np.float64)
    return _whole_numbers(found, exact=_EXACT if "float" in first else _LARGEST)


def _whole_numbers(values: NDArray[Any], exact: int) -> NDArray[Any]:
    """Return whole numbers, some of which may be floats, in a type that holds all exactly."""
    least, most = values.min(), values.max()
    if max(-least, most) > exact or most >= _LARGEST or (least < 0 and most >= _LARGEST // 2):
        raise ValueError(
            f"y holds labels from {least} to {most}, which no one type of number holds exactly; "
            "y.astype(str) makes text of them"
        )
    if exact == _EXACT:
        return values.astype(np.float64)
    return values.astype(np.uint64 if most >= _LARGEST // 2 else np.int64)


def _kind_of_label(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool | np.bool_):
        return "bool"
    if isinstance(value, Integral):
        return "int"
    if type(value).__name__ in _MISSING or value != value:  # NaN, of whatever type
        return "missing"
    return "float" if isinstance(value, Real) else type(value).__name__
