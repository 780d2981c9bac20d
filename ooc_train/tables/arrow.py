"""Conversion between Arrow's arrays and NumPy's, by their buffers.

pyarrow's own conversions import pandas if it is installed, which takes 35 MiB.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_FLOATS = {"halffloat": "f2", "float": "f4", "double": "f8"}
"""Names of NumPy's types by Arrow's, where they differ."""


def valid(array: pa.Array) -> NDArray[np.bool_] | None:
    """Return a mask of the values that are not missing, (rows,); None if no value is missing."""
    if not array.null_count:
        return None
    bits = array.buffers()[0]
    if bits is None:  # an array of type null has no buffers
        return np.zeros(len(array), bool)
    first = array.offset // 8
    held = np.frombuffer(bits, np.uint8)[first : -(-(array.offset + len(array)) // 8)]
    start = array.offset % 8
    return np.unpackbits(held, bitorder="little")[start : start + len(array)].astype(bool)


def to_numpy(array: pa.Array) -> NDArray[Any]:
    """Return numbers or booleans, maybe as a read-only view; a missing value is undefined."""
    if pa.types.is_boolean(array.type):
        return to_numpy(array.cast(pa.uint8())).view(bool)
    name = str(array.type)
    dtype = np.dtype(_FLOATS.get(name, name))
    data = array.buffers()[1]
    if data is None or not len(array):
        return np.zeros(len(array), dtype)
    return np.frombuffer(data, dtype, len(array), array.offset * dtype.itemsize)


def from_numpy(values: NDArray[Any]) -> pa.Array:
    """Return numbers or booleans, none of them missing, as an Arrow array."""
    values = np.ascontiguousarray(values)
    if values.dtype == bool:
        data = np.packbits(values, bitorder="little")
        return pa.Array.from_buffers(pa.bool_(), len(values), [None, pa.py_buffer(data)])
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])


def from_texts(texts: Sequence[str]) -> pa.Array:
    """Return texts as an Arrow array."""
    encoded = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(texts), buffers)


def scalar(value: float | str | bool | None, kind: pa.DataType) -> pa.Scalar:
    """Return a value as an Arrow scalar; None is a missing value."""
    if value is None:
        return pa.nulls(1, kind)[0]
    array = from_texts([value]) if isinstance(value, str) else from_numpy(np.array([value]))
    return array[0].cast(kind)
