"""Stores of ours, changed: with checksums that fit again, or as an earlier release wrote them."""

import json
import os
from pathlib import Path

from ooc_train.store.format.checksums import CHECKSUMS, with_checksums
from ooc_train.store.format.identity import IDENTITY_BYTES

INDEX_CHECKSUM = 4


def metadata_of(path):
    """The ``zarr.json`` of a group or an array, parsed."""
    return json.loads(Path(path, "zarr.json").read_text())


def put_metadata(path, metadata):
    """Write a ``zarr.json``."""
    Path(path, "zarr.json").write_text(json.dumps(metadata))


def edit(path, **attributes):
    """Change what the manifest says, with checksums to go with it."""
    metadata = metadata_of(path)
    metadata["attributes"] |= attributes
    put_metadata(path, metadata)
    reseal(path)


def reseal(path):
    """Recompute the checksums of a store from its files."""
    metadata = metadata_of(path)
    attributes = metadata["attributes"]
    names = list(attributes.pop(CHECKSUMS)["arrays"])
    arrays = {name: metadata_of(Path(path, name)) for name in names}
    metadata["attributes"] = with_checksums(attributes, attributes["store_id"], arrays)
    put_metadata(path, metadata)


def checksums_off(path):
    """Do what messages advise where another program wrote a store of ours on purpose."""
    metadata = metadata_of(path)
    metadata["attributes"][CHECKSUMS] = "off"
    put_metadata(path, metadata)


def as_earlier_release(path):
    """Make a store of ours one of format 1: without checksums, and shards without identities."""
    metadata = metadata_of(path)
    arrays = metadata["attributes"].pop(CHECKSUMS)["arrays"]
    del metadata["attributes"]["store_id"]
    metadata["attributes"]["format_version"] = 1
    put_metadata(path, metadata)
    for name in arrays:
        about = metadata_of(Path(path, name))
        outer = about["chunk_grid"]["configuration"]["chunk_shape"][0]
        inner = about["codecs"][0]["configuration"]["chunk_shape"][0]
        index = 16 * (outer // inner) + INDEX_CHECKSUM
        for folder, _, files in os.walk(Path(path, name, "c")):
            for file in files:
                shard = Path(folder, file)
                blob = shard.read_bytes()
                shard.write_bytes(blob[: -index - IDENTITY_BYTES] + blob[-index:])
    return path
