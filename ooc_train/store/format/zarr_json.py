"""``zarr.json`` of arrays and groups: parsed for the direct route, and written."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ooc_train.core.schema import shown
from ooc_train.errors import InvalidStore
from ooc_train.store.format.arrays import ArrayLayout, Codec

_MAX_TEXT_BYTES = 2**20
"""Bytes of a text of fixed length that are read directly."""

_DATA_TYPES = {"bool", "float16", "float32", "float64"} | {
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}

_INDEX_CODECS = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]


def direct_layout(
    path: str, name: str, metadata: Mapping[str, Any], *, fill_missing: bool = False
) -> ArrayLayout | None:
    """Return the layout of a local Zarr v3 array if the direct route reads it, else None.

    If `fill_missing`, unwritten chunks are read as the fill value. `InvalidStore` is raised if that
    value isn't of the array's type.
    """
    shape = tuple(metadata["shape"])
    grid, keys = _extension(metadata["chunk_grid"]), _extension(metadata["chunk_key_encoding"])
    codecs = [_extension(codec) for codec in metadata["codecs"]]
    if grid["name"] != "regular" or metadata.get("storage_transformers"):
        return None
    outer = tuple(grid["configuration"]["chunk_shape"])
    inner = outer
    sharded = len(codecs) == 1 and codecs[0]["name"] == "sharding_indexed"
    if sharded:
        sharding = codecs[0]["configuration"]
        if sharding.get("index_location", "end") != "end":
            return None
        if [
            _bare(_extension(codec)) for codec in sharding.get("index_codecs", ())
        ] != _INDEX_CODECS:
            return None
        inner = tuple(sharding["chunk_shape"])
        codecs = [_extension(codec) for codec in sharding["codecs"]]
    key = _key_template(keys, len(shape))
    full_width = len(shape) > 0 and inner[1:] == outer[1:] == shape[1:]
    dtype = _dtype(metadata["data_type"])
    if not full_width or dtype is None or key is None:
        return None
    chain = _codec_chain(codecs, dtype)
    if chain is None:
        return None
    codec, crc = chain
    return ArrayLayout(
        path=path,
        name=name,
        shape=shape,
        dtype=dtype.str,
        chunk_rows=inner[0],
        shard_rows=outer[0],
        sharded=sharded,
        codec=codec,
        crc=crc,
        direct=True,
        key=key,
        fill_value=_fill(metadata.get("fill_value"), dtype, path) if fill_missing else None,
    )


def _dtype(data_type: Any) -> np.dtype[Any] | None:
    """Return NumPy's type of a number or a text of fixed length, None for any other."""
    if isinstance(data_type, str):
        return np.dtype(data_type).newbyteorder("<") if data_type in _DATA_TYPES else None
    kind, size = data_type["name"], (data_type.get("configuration") or {}).get("length_bytes", 0)
    if isinstance(size, bool) or not isinstance(size, int) or not 0 < size <= _MAX_TEXT_BYTES:
        return None
    if kind == "fixed_length_utf32" and size % 4 == 0:
        return np.dtype(f"<U{size // 4}")
    return np.dtype(f"|S{size}") if kind == "null_terminated_bytes" else None


def _fill(value: Any, dtype: np.dtype[Any], path: str) -> bytes:
    """Return the stored bytes of a fill value.

    ``zarr.json`` holds it as a number, a word such as "NaN", or the bits in hexadecimal digits.
    """
    try:
        if dtype.kind == "U":
            return np.array([_text(value)], dtype).tobytes()
        if dtype.kind == "S":
            return np.array([base64.b64decode(value)], dtype).tobytes()
        if isinstance(value, str) and value.startswith("0x"):
            return int(value, 16).to_bytes(dtype.itemsize, "little")
        number = float(value) if isinstance(value, str) else value
        if isinstance(number, int | float) and not (dtype.kind in "iu" and number % 1):
            return np.array([number], dtype).tobytes()
    except (TypeError, ValueError, OverflowError):
        pass
    raise InvalidStore(
        f"{path}: zarr.json has fill_value {shown(value)}, which is no {dtype}; correct it"
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} is no text")
    return value


def _extension(value: Any) -> Mapping[str, Any]:
    """Return an extension point as a mapping; a bare name has no configuration."""
    if isinstance(value, str):
        return {"name": value}
    return value if value.get("configuration") is not None else {"name": value["name"]}


def _bare(codec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a codec without an empty configuration, which some writers spell out."""
    return {key: value for key, value in codec.items() if value != {}}


def _codec_chain(
    codecs: Sequence[Mapping[str, Any]], dtype: np.dtype[Any]
) -> tuple[Codec, bool] | None:
    """Return (codec, crc) of the chain bytes [+ blosc | zstd] [+ crc32c], None for any other."""
    names = [codec["name"] for codec in codecs]
    if names[:1] != ["bytes"]:
        return None
    endian = codecs[0].get("configuration", {}).get("endian", "little")
    if endian != "little" and dtype.itemsize > 1:
        return None
    crc = names[-1] == "crc32c"
    between = names[1:-1] if crc else names[1:]
    if between in (["blosc"], ["zstd"]):
        return between[0], crc
    return ("raw", crc) if not between else None


def _key_template(keys: Mapping[str, Any], n_axes: int) -> str | None:
    """Return the file of a shard with ``{}`` for its number, None for an unknown encoding."""
    if (named := _key_encoding(keys)) is None:
        return None
    prefix, separator = named
    return prefix + separator.join(["{}"] + ["0"] * (n_axes - 1))


def _key_encoding(keys: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return what the names of chunks' files begin with, and what separates their numbers."""
    default = keys["name"] == "default"
    separator = keys.get("configuration", {}).get("separator", "/" if default else ".")
    if keys["name"] not in ("default", "v2") or separator not in ("/", "."):
        return None
    return f"c{separator}" if default else "", separator


def stored_chunks(metadata: Mapping[str, Any]) -> tuple[tuple[int, ...], str, str] | None:
    """Return how an array lies in files, by its ``zarr.json`` or ``.zarray``.

    Returns
    -------
    (tuple of int, str, str), or None
        Shape of what a file holds (a shard, or a chunk), what the files' names begin with, and what
        separates the numbers in them. None for an unknown grid or unknown names.
    """
    if metadata["zarr_format"] == 2:
        return tuple(metadata["chunks"]), "", metadata.get("dimension_separator", ".")
    grid, keys = _extension(metadata["chunk_grid"]), _extension(metadata["chunk_key_encoding"])
    named = _key_encoding(keys)
    if grid["name"] != "regular" or named is None:
        return None
    return tuple(grid["configuration"]["chunk_shape"]), *named


def array_metadata(
    layout: ArrayLayout, dimension_names: Sequence[str], attributes: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the ``zarr.json`` of an array of our writer: sharded, with CRC32C everywhere."""
    dtype = np.dtype(layout.dtype)
    codecs: list[dict[str, Any]] = [{"name": "bytes", "configuration": {"endian": "little"}}]
    if layout.codec == "blosc":
        blosc = {
            "cname": "lz4",
            "clevel": 5,
            "shuffle": "shuffle",
            "typesize": dtype.itemsize,
            "blocksize": 0,
        }
        codecs.append({"name": "blosc", "configuration": blosc})
    elif layout.codec == "zstd":
        codecs.append({"name": "zstd", "configuration": {"level": 3, "checksum": False}})
    codecs.append({"name": "crc32c"})
    sharding = {
        "chunk_shape": [layout.chunk_rows, *layout.row_shape],
        "codecs": codecs,
        "index_codecs": _INDEX_CODECS,
        "index_location": "end",
    }
    shard_shape = [layout.shard_rows, *layout.row_shape]
    fill: bool | int | float = {"b": False, "f": 0.0}.get(dtype.kind, 0)
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(layout.shape),
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard_shape}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": dict(attributes),
        "dimension_names": list(dimension_names),
    }


def group_metadata(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``zarr.json`` of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
