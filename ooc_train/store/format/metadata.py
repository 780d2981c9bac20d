"""Metadata files of Zarr, checked against the specifications before any value is used.

The checks declare what a file must contain by Zarr's specifications. As format 3 demands, unknown
fields are refused unless ``must_understand`` is false: one flipped letter of "attributes" would
turn a store of ours into another writer's. Files of format 2 are checked before zarr-python reads
them.
"""

import os
from typing import Any

from ooc_train.core.files import FileKind, read_json
from ooc_train.core.schema import (
    anything,
    either,
    integer,
    list_of,
    mapping,
    number,
    numbers,
    one_of,
    or_none,
    record,
    require,
    scalar,
    text,
    texts,
)
from ooc_train.core.schema import flag as truth
from ooc_train.errors import InvalidStore

METADATA = FileKind(
    "the metadata of a store",
    2**28,
    InvalidStore,
    "restore it from a copy, or write the store anew",
)

_MAX_AXES = 32
"""Axes of an array; NumPy allows at most 64."""

_MAX_LENGTH = 2**48
"""Length of an axis. Bytes of real arrays, and sums of them, fit into 64 bits."""

_MAX_SEED = 2**14_000
"""Seeds may be as large as Python's JSON parser accepts."""

_NAMED = either(text, record({"name": text}, optional={"configuration": or_none(mapping)}))
_CHUNKS = list_of(integer(1, _MAX_LENGTH), most=_MAX_AXES)

_NODE = record(
    {"zarr_format": one_of(3), "node_type": one_of("array", "group")},
    optional={"attributes": mapping},
)
_ARRAY = record(
    {
        "shape": list_of(integer(0, _MAX_LENGTH), most=_MAX_AXES),
        "data_type": _NAMED,
        "chunk_grid": _NAMED,
        "chunk_key_encoding": _NAMED,
        "codecs": list_of(_NAMED, least=1),
    },
    optional={
        "dimension_names": or_none(list_of(or_none(text))),
        "storage_transformers": or_none(list_of(anything)),
    },
)
_FIELDS = {
    "group": {"zarr_format", "node_type", "attributes", "consolidated_metadata"},
    "array": {
        *("zarr_format", "node_type", "attributes", "shape", "data_type", "chunk_grid"),
        *("chunk_key_encoding", "fill_value", "codecs", "storage_transformers"),
        "dimension_names",
    },
}
_CHUNKED = record({"chunk_shape": _CHUNKS})
_SHARDED = record(
    {"chunk_shape": _CHUNKS, "codecs": list_of(_NAMED, least=1)},
    optional={"index_codecs": list_of(_NAMED), "index_location": one_of("start", "end")},
)

_FORMAT_2 = {
    ".zgroup": record({"zarr_format": one_of(2)}),
    ".zarray": record(
        {
            "zarr_format": one_of(2),
            "shape": list_of(integer(0, _MAX_LENGTH), most=_MAX_AXES),
            "chunks": _CHUNKS,
        }
    ),
    ".zattrs": mapping,
    ".zmetadata": mapping,
}

_MANIFEST = record(
    {"n_rows": integer(0)},
    optional={
        "format_version": integer(0),
        "generation": integer(0),
        "feature_names": or_none(texts()),
        "classes": or_none(list_of(scalar)),
        "class_counts": or_none(list_of(integer(0))),
        "shuffled": or_none(integer(0, _MAX_SEED)),
        "attributes": mapping,
        "recipe": or_none(mapping),
        "statistics": or_none(
            record(
                {
                    "mean": numbers(),
                    "scale": numbers(),
                    "minimum": numbers(),
                    "maximum": numbers(),
                    "weight": number(0),
                    "weighted": truth,
                }
            )
        ),
    },
)


def read_metadata(directory: str) -> dict[str, Any] | None:
    """Return the ``zarr.json`` of a local directory, None if it has none.

    `InvalidStore` is raised if it is no regular file, or no metadata of a group or an array.
    """
    path = os.path.join(directory, "zarr.json")
    try:
        # Other writers store NaN in attributes, as Python's JSON writer does.
        metadata = read_json(path, METADATA, constants=True)
    except (FileNotFoundError, NotADirectoryError):
        return None
    require(metadata, _NODE, path, METADATA)
    for field in sorted(metadata.keys() - _FIELDS[metadata["node_type"]]):
        value = metadata[field]
        if not isinstance(value, dict) or value.get("must_understand") is not False:
            raise METADATA.refused(path, f"has a field {field!r}, which Zarr does not know")
    if metadata["node_type"] == "array":
        require(metadata, _ARRAY, path, METADATA)
        _require_chunks(metadata, path)
    return metadata


def _require_chunks(metadata: dict[str, Any], path: str) -> None:
    """Raise `InvalidStore` if chunks and array differ in axes, or shards hold partial chunks."""
    axes = len(metadata["shape"])
    names = metadata.get("dimension_names")
    if names is not None and len(names) != axes:
        raise METADATA.refused(path, f"names {len(names)} axes of {axes}")
    grid = metadata["chunk_grid"]
    if isinstance(grid, str) or grid["name"] != "regular":
        return
    require(grid.get("configuration"), _CHUNKED, path, METADATA, inside="chunk_grid.configuration")
    outer = grid["configuration"]["chunk_shape"]
    chunks = [outer]
    for codec in metadata["codecs"]:
        if not isinstance(codec, str) and codec["name"] == "sharding_indexed":
            inner = codec.get("configuration")
            require(inner, _SHARDED, path, METADATA, inside="sharding_indexed.configuration")
            chunks.append(inner["chunk_shape"])
    for shape in chunks:
        if len(shape) != axes:
            raise METADATA.refused(path, f"has chunks {shape} of an array of {axes} axes")
        if any(length % part for length, part in zip(outer, shape, strict=True)):
            raise METADATA.refused(
                path, f"has shards {outer} of chunks {shape}, and not whole ones"
            )


def require_valid_metadata(directory: str) -> None:
    """Check the metadata files of a local directory that zarr-python will read.

    `InvalidStore` is raised if one is no regular file, or violates the specification.
    """
    read_metadata(directory)
    for name, check in _FORMAT_2.items():
        path = os.path.join(directory, name)
        try:
            metadata = read_json(path, METADATA, constants=True)
        except (FileNotFoundError, NotADirectoryError):
            continue
        require(metadata, check, path, METADATA)
        if name == ".zarray" and len(metadata["shape"]) != len(metadata["chunks"]):
            raise METADATA.refused(
                path,
                f"has chunks {metadata['chunks']} of an array of {len(metadata['shape'])} axes",
            )


def require_manifest(manifest: Any, path: str) -> None:
    """Raise `InvalidStore` if a value in a manifest of our format has the wrong type."""
    require(manifest, _MANIFEST, path, METADATA, inside="attributes")
