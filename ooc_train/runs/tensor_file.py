"""Named arrays in a file of the format safetensors, which holds no code.

A file is the length of its header, in 8 bytes, the header as JSON, and the numbers of all arrays,
one after another. The header has type, shape and place of each, and text of the writer's own. Other
programs read such files too (`safetensors.torch.load_file`).

The header may claim anything. Its claims are checked against each other, the file and the available
memory before an array is allocated.
"""

import json
import math
import os
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.files import FileKind, parse_json, reading
from ooc_train.core.renames import sync_file
from ooc_train.core.schema import UnfitError, integer, list_of, mapping, record, shown, text
from ooc_train.memory.system import available_memory

_HEADER_BYTES = 2**26
"""Limit of the header; that of a thousand arrays takes 100 KiB."""

_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U8": "|u1",
    "BOOL": "|b1",
}
_NAMES = {np.dtype(dtype): name for name, dtype in _TYPES.items()}
_METADATA = "__metadata__"
_ENTRY = record({"dtype": text, "shape": list_of(integer(0)), "data_offsets": list_of(integer(0))})


def write_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]
) -> None:
    """Write named arrays, and text as metadata, to a new file.

    Raises
    ------
    ValueError
        If an array has a type that the format does not hold.
    """
    header: dict[str, Any] = {_METADATA: dict(metadata)}
    start = 0
    for name, array in tensors.items():
        if array.dtype not in _NAMES:
            raise ValueError(f"{name} holds {array.dtype}, which a file of tensors does not")
        end = start + array.nbytes
        shape = list(array.shape)
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": shape,
            "data_offsets": [start, end],
        }
        start = end
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)  # so that numbers are aligned
    with open(path, "wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array).tobytes())
        sync_file(file)


def read_tensors(
    path: str | os.PathLike[str], kind: FileKind
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read all arrays of a file by name, and its text metadata.

    Raises
    ------
    FileKind.error
        If the file is damaged, claims what it does not hold, or exceeds the available memory.
    OSError
        If it is missing or unreadable.
    """
    with reading(path, kind) as file:
        try:
            return _read(file)
        except (ValueError, UnfitError) as error:
            raise kind.refused(path, f"holds no parameters ({error})") from None


def _read(file: BinaryIO) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    held = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(held - 8, _HEADER_BYTES):
        raise ValueError(f"its header claims {length:,} bytes")
    header = parse_json(file.read(length))
    metadata = header.pop(_METADATA, {})
    mapping(metadata, _METADATA)
    for key, value in metadata.items():
        text(value, f"{_METADATA}.{key}")
    places = []
    for name, entry in header.items():
        _ENTRY(entry, name)
        if entry["dtype"] not in _TYPES:
            raise ValueError(f"{shown(name)} is of the type {shown(entry['dtype'])}")
        size = math.prod(entry["shape"]) * np.dtype(_TYPES[entry["dtype"]]).itemsize
        first, *rest = entry["data_offsets"] or [-1]
        if rest != [first + size]:
            raise ValueError(
                f"{shown(name)} needs {size:,} bytes and lies at {shown(entry['data_offsets'])}"
            )
        places.append((first, first + size, name))
    places.sort()
    end = 0
    for first, last, name in places:
        if first != end:
            raise ValueError(
                f"{shown(name)} begins at {first:,}, and the one before ends at {end:,}"
            )
        end = last
    if 8 + length + end != held:
        raise ValueError(f"it has {held:,} bytes, and its header describes {8 + length + end:,}")
    if end > (free := available_memory()):
        raise ValueError(f"its arrays need {end:,} bytes, and {free:,} are available")
    tensors = {}
    for first, last, name in places:
        array = np.empty(last - first, np.uint8)
        if file.readinto(array.data) != last - first:  # type: ignore[attr-defined]
            raise ValueError(f"it ends within {shown(name)}")
        entry = header[name]
        tensors[name] = array.view(_TYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors, metadata
