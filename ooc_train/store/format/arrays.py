"""One Zarr array at rest: what a process must know to read or write it, and ``zarr.json``."""

import base64
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from ooc_train.core.schema import shown
from ooc_train.errors import InvalidStore
from ooc_train.store.format.conventions import Declared
from ooc_train.store.format.identity import Seen
from ooc_train.store.format.metadata import read_metadata

Codec = Literal["raw", "blosc", "zstd"]

CHECKSUM_BYTES = 4
MISSING = 2**64 - 1
"""Offset and length, in a shard's index, of a chunk that was never written."""

_LARGE_CHUNK_BYTES = 8 * 2**20
"""Chunks of more bytes are not held whole where that can be avoided."""

_LONGEST_TEXT = 2**20
"""Bytes of a text of fixed length that are read directly."""

_DATA_TYPES = {"bool", "float16", "float32", "float64"} | {
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
_INDEX_CODECS = [
    {"name": "bytes", "configuration": {"endian": "little"}},
    {"name": "crc32c"},
]


@dataclass(frozen=True, slots=True)
class Coding:
    """Labels as they lie in an array, and the codes that readers hand out for them.

    Parameters
    ----------
    dtype : str
        NumPy's name of the labels' type, such as "<U3" or "<i4".
    labels : tuple
        In ascending order.
    codes : tuple of int
        Of each label.
    """

    dtype: str
    labels: tuple[str | bytes | float, ...]
    codes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ArrayLayout:
    """What another process needs to read one array: small, and made to be pickled.

    Parameters
    ----------
    path : str
        Directory or URL of the array.
    name : str
        What messages call it, such as "X".
    shape : tuple of int
        Rows that count, then the shape of a row.
    dtype : str
        NumPy's name of the values as they are handed out, little-endian, such as "<f4".
    chunk_rows, shard_rows : int
        Rows of a chunk and of a shard (of a chunk again, where chunks are files).
    sharded : bool
        Whether chunks lie in shards, with an index, or each in its own file.
    codec : {"raw", "blosc", "zstd"} or None
        How chunks are encoded; None if only zarr-python can tell.
    crc : bool
        Whether a crc32c follows each chunk.
    direct : bool
        Whether the direct route reads it; else zarr-python does.
    key : str
        File of a shard, relative to `path`, with ``{}`` for its number; "" unless `direct`.
    source : zarr.Array or None
        The array itself, where a path alone doesn't lead to it (a store with credentials).
    declared : Declared or None
        Which values its attributes declare to be missing, None if none can be.
    fill : bytes or None
        The value that fills chunks that were never written, as it lies; empty where zarr-python
        knows it. None if such a chunk is refused.
    names : tuple of (label, scalar), or None
        What the labels in y stand for, where its metadata name them.
    coding : Coding or None
        What makes codes, of type `dtype`, of the labels that lie in the array; None where values
        are handed out as they lie.
    store_id : str
        Id of the store's commit, which each of its shards names; "" where shards name none.
    seen : Seen or None
        The metadata file that the array was opened by, where shards name no commit and the array is
        local.
    """

    path: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    chunk_rows: int
    shard_rows: int
    sharded: bool
    codec: Codec | None
    crc: bool
    direct: bool
    key: str = ""
    source: object = field(default=None, repr=False, compare=False)
    declared: Declared | None = None
    fill: bytes | None = None
    names: tuple[tuple[float, str | float], ...] | None = None
    coding: Coding | None = None
    store_id: str = ""
    seen: Seen | None = None

    @property
    def n_rows(self) -> int:
        """Rows that count."""
        return self.shape[0]

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self.shape[1:]

    @property
    def row_bytes(self) -> int:
        """Decoded bytes of a row."""
        return math.prod(self.row_shape) * np.dtype(self.dtype).itemsize

    @property
    def n_chunks(self) -> int:
        """Chunks that hold rows that count."""
        return -(-self.n_rows // self.chunk_rows)

    @property
    def n_shards(self) -> int:
        """Shards that hold rows that count."""
        return -(-self.n_rows // self.shard_rows)

    @property
    def chunk_bytes(self) -> int:
        """Decoded bytes of a chunk."""
        return self.chunk_rows * self.row_bytes

    @property
    def in_parts(self) -> bool:
        """Whether rows can be read without holding the rest of their chunk.

        With a checksum that costs another reading, piece by piece, and is for large chunks only.
        """
        checked = not self.crc or self.chunk_bytes > _LARGE_CHUNK_BYTES
        plain = self.direct and self.codec == "raw" and self.coding is None
        return plain and checked

    @property
    def is_text(self) -> bool:
        """Whether values are text, or bytes that are."""
        return np.dtype(self.dtype).kind in "SUT"

    @property
    def at_rest(self) -> "ArrayLayout":
        """The array as it lies, without codes."""
        if self.coding is None:
            return self
        return replace(self, dtype=self.coding.dtype, coding=None)

    @property
    def chunks_per_shard(self) -> int:
        """Entries of a shard's index."""
        return self.shard_rows // self.chunk_rows

    @property
    def stored_name(self) -> str:
        """Name of the array in its group, which may be another than its role."""
        return self.path.rpartition("/")[2]

    def shard_path(self, shard: int) -> str:
        """File that holds a shard (a chunk, where chunks are files)."""
        return os.path.join(self.path, self.key.format(shard))

    def with_rows(self, n_rows: int) -> "ArrayLayout":
        """Return the same array, of which only the first `n_rows` count."""
        return replace(self, shape=(n_rows, *self.row_shape))


def direct_layout(
    path: str, name: str, metadata: Mapping[str, Any], *, fill_missing: bool = False
) -> ArrayLayout | None:
    """Layout of a local Zarr v3 array if the direct route reads it, else None.

    Parameters
    ----------
    path : str
        Directory of the array.
    name : str
        What messages call it.
    metadata : mapping
        Its ``zarr.json``, as `load_metadata` returns it.
    fill_missing : bool
        Whether chunks that were never written are read as the fill value.

    Raises
    ------
    InvalidStore
        If the fill value is wanted and is none of the array's type.
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
        fill=_fill(metadata.get("fill_value"), dtype, path) if fill_missing else None,
    )


def _dtype(data_type: Any) -> np.dtype[Any] | None:
    """NumPy's type of a number or a text of fixed length, None for any other."""
    if isinstance(data_type, str):
        return np.dtype(data_type).newbyteorder("<") if data_type in _DATA_TYPES else None
    kind, size = data_type["name"], (data_type.get("configuration") or {}).get("length_bytes", 0)
    if isinstance(size, bool) or not isinstance(size, int) or not 0 < size <= _LONGEST_TEXT:
        return None
    if kind == "fixed_length_utf32" and size % 4 == 0:
        return np.dtype(f"<U{size // 4}")
    return np.dtype(f"|S{size}") if kind == "null_terminated_bytes" else None


def _fill(value: Any, dtype: np.dtype[Any], path: str) -> bytes:
    """Bytes of a fill value, which ``zarr.json`` holds as a number, a word, or the bits in hex."""
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


def _extension(given: Any) -> Mapping[str, Any]:
    """Return what metadata name, and configure: a name alone stands for one without settings."""
    if isinstance(given, str):
        return {"name": given}
    return given if given.get("configuration") is not None else {"name": given["name"]}


def _bare(codec: Mapping[str, Any]) -> dict[str, Any]:
    """Drop a configuration that is empty, which writers spell both ways."""
    return {key: value for key, value in codec.items() if value != {}}


def _codec_chain(
    codecs: Sequence[Mapping[str, Any]], dtype: np.dtype[Any]
) -> tuple[Codec, bool] | None:
    """(codec, crc) of the chain bytes [+ blosc | zstd] [+ crc32c], None for any other."""
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
    """File of a shard with ``{}`` for its number along the rows, None of an unknown encoding."""
    default = keys["name"] == "default"
    separator = keys.get("configuration", {}).get("separator", "/" if default else ".")
    if keys["name"] not in ("default", "v2") or separator not in ("/", "."):
        return None
    parts = ["{}"] + ["0"] * (n_axes - 1)
    return str(separator.join(["c", *parts] if default else parts))


def array_metadata(
    layout: ArrayLayout, dimension_names: Sequence[str], attributes: Mapping[str, Any]
) -> dict[str, Any]:
    """``zarr.json`` of an array that our writer lays down: sharded, with a crc32c everywhere."""
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
    """``zarr.json`` of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}


def load_metadata(directory: str) -> dict[str, Any] | None:
    """Read the ``zarr.json`` of a local directory, None if it has none.

    Raises
    ------
    InvalidStore
        As `read_metadata`.
    """
    return read_metadata(directory)
