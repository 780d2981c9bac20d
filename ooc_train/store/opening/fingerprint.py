"""Fingerprints of arrays: what a share recognises its rows by where a store has no id.

Stores of this package have an id, which each shard repeats. An array of another writer has none, so
its fingerprint is made of what can be had without reading it: its metadata, and the size and the
version of its files of chunks. Of a local file, the version is the time of its last change, and at
a URL what the file system tells: an ETag, a generation, or a time. Where the file system tells none
of them, it is a digest of the first 64 KiB.

What a fingerprint notices: another type, other chunks, codecs, attributes or names of categories;
an array that was written anew (where versions are times, also with the same values); a chunk that
was written, removed or added among those that are looked at. All are looked at up to `_MOST_FILES`
local files or `_MOST_OBJECTS` objects at a URL, and so many evenly spaced ones of more.

What it does not notice: a write to other chunks of an array of so many; a local file that was
changed in place, to the same size, and whose time was set back, or within one step of the file
system's clock (a few milliseconds on Linux, up to two seconds elsewhere); at a URL without
versions, a change beyond the first 64 KiB of an object that keeps its size.

What it takes for a change, and is none: a local copy that did not keep the times of files, as
``cp -r`` makes one and ``cp -a`` does not. The number of rows is no part of it: rows that were
appended in files of their own change nothing. Rows that were appended into the last file do.
"""

import asyncio
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ooc_train.core.files import parse_json, read_json
from ooc_train.errors import InvalidStore
from ooc_train.store.format.arrays import ArrayLayout
from ooc_train.store.format.metadata import METADATA
from ooc_train.store.format.zarr_json import stored_chunks
from ooc_train.store.opening.zarr_opening import invalid_store_on_error

_MOST_FILES, _MOST_OBJECTS = 4_096, 128
"""Most local files and most objects at a URL that are looked at: some 30 ms, and a second or two
where each answer takes 0.1 s."""

_START_BYTES = 2**16

_VERSIONS = (
    *("ETag", "etag", "md5Hash", "Content-MD5", "sha", "generation"),
    *("LastModified", "last_modified", "mtime", "modified", "updated", "created"),
)
"""Names by which fsspec's file systems tell a file's version: of its contents first, then times."""

_ABSENT = "absent"
_OF_FORMAT_2 = (".zarray", ".zattrs")


def fingerprint_of(layout: ArrayLayout, n_rows: int) -> dict[str, str]:
    """Return what the first rows of an array are recognised by.

    Parameters
    ----------
    layout : ArrayLayout
        Layout of the array.
    n_rows : int
        How many rows.

    Returns
    -------
    dict of str to str
        "store_id" alone, for an array whose shards repeat it. Else "metadata", a digest of types,
        chunks and attributes, and "files", a digest of sizes and versions of files of chunks.

    Raises
    ------
    InvalidStore
        If the array is gone, its chunks lie in no regular grid, or a URL can't be reached.
    """
    if layout.store_id:
        return {"store_id": layout.store_id}
    if layout.source is None:
        return _fingerprint(layout, n_rows, _local_document, _local_states, _MOST_FILES)
    with invalid_store_on_error(layout.path):
        objects = _Objects(layout.source)
        return _fingerprint(layout, n_rows, objects.document, objects.states, _MOST_OBJECTS)


def change_since(then: Mapping[str, str], layout: ArrayLayout, n_rows: int) -> str:
    """Return what of an array differs from an earlier fingerprint of its first rows; "" if nothing.

    Raises
    ------
    InvalidStore
        As by `fingerprint_of`.
    """
    now = fingerprint_of(layout, n_rows)
    if then == now:
        return ""
    if then.keys() != now.keys() or "store_id" in now:
        return "another store took its place"
    if then["metadata"] != now["metadata"]:
        return "its type, chunks, codecs, attributes or categories are others"
    grown = f"; it has {layout.n_rows:,} rows, and had {n_rows:,}" if layout.n_rows > n_rows else ""
    return f"files of its chunks were written, copied or removed{grown}"


def _fingerprint(
    layout: ArrayLayout,
    n_rows: int,
    document: Callable[[str, str], Mapping[str, Any] | None],
    states: Callable[[str, Sequence[str]], Iterable[str]],
    most: int,
) -> dict[str, str]:
    """Return the fingerprint of an array whose files these functions read and look at."""
    of_array, others = document(layout.path, "zarr.json"), None
    if of_array is None:
        of_array, others = (document(layout.path, name) for name in _OF_FORMAT_2)
    if of_array is None:
        raise InvalidStore(f"{layout.path} has no metadata of Zarr any more; run again")
    keys = _keys(of_array, n_rows, most)
    if keys is None:
        raise InvalidStore(
            f"{layout.path} has chunks of an unknown grid or of unknown names, so no share could "
            "know that it was replaced; copy it by `ooc-train rechunk`"
        )
    known = {**of_array, "shape": of_array["shape"][1:]}
    metadata = json.dumps([known, others, repr(layout.names)], sort_keys=True)
    files = "\n".join(
        f"{key} {state}" for key, state in zip(keys, states(layout.path, keys), strict=True)
    )
    return {"metadata": _digest(metadata), "files": _digest(files)}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _keys(about: Mapping[str, Any], n_rows: int, most: int) -> list[str] | None:
    """Return at most `most` names of files that hold the first rows, evenly spaced."""
    if (stored := stored_chunks(about)) is None:
        return None
    chunks, prefix, separator = stored
    shape = (n_rows, *about["shape"][1:])
    grid = [-(-size // cut) for size, cut in zip(shape, chunks, strict=True)]
    n = int(np.prod(grid, dtype=object))
    numbers = range(n) if n <= most else (i * (n - 1) // (most - 1) for i in range(most))
    keys = []
    for number in numbers:
        places, left = [], number
        for size in reversed(grid):
            left, place = divmod(left, size)
            places.append(str(place))
        keys.append(prefix + separator.join(reversed(places)))
    return keys


def _local_document(path: str, name: str) -> dict[str, Any] | None:
    try:
        return read_json(os.path.join(path, name), METADATA, constants=True)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _local_states(path: str, keys: Sequence[str]) -> Iterable[str]:
    for key in keys:
        try:
            state = os.stat(os.path.join(path, key))
        except (FileNotFoundError, NotADirectoryError):
            yield _ABSENT
        else:
            yield f"{state.st_size} {state.st_mtime_ns}"


class _Objects:
    """The files of an array that zarr-python reads from a URL."""

    def __init__(self, array: Any) -> None:
        self._store, self._prefix = array.store_path.store, array.store_path.path
        self._files = getattr(self._store, "fs", None)
        if self._files is not None:
            # What this process listed earlier may be no more.
            self._files.invalidate_cache()

    def document(self, path: str, name: str) -> dict[str, Any] | None:  # noqa: ARG002
        """Return a file of metadata, None if there is none."""
        from zarr.core.sync import sync

        content = sync(self._get(self._key(name)))
        return None if content is None else parse_json(content, constants=True)

    def states(self, path: str, keys: Sequence[str]) -> Iterable[str]:  # noqa: ARG002
        """Return size and version of files, which are asked for all at once."""
        from zarr.core.sync import sync

        async def all_states() -> list[str]:
            return await asyncio.gather(*(self._state(self._key(key)) for key in keys))

        return sync(all_states())

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    async def _get(self, key: str, most: int | None = None) -> bytes | None:
        from zarr.abc.store import RangeByteRequest
        from zarr.core.buffer import default_buffer_prototype

        part = None if most is None else RangeByteRequest(0, most)
        found = await self._store.get(key, default_buffer_prototype(), part)
        return None if found is None else bytes(found.to_bytes())

    async def _state(self, key: str) -> str:
        size: Any = ""
        if self._files is not None:
            root = self._store.path.rstrip("/")
            try:
                # fsspec's name of the call that can be awaited.
                about = await self._files._info(f"{root}/{key}" if root else key)  # noqa: SLF001
            except self._store.allowed_exceptions:
                return _ABSENT
            size = about.get("size")
            for name in _VERSIONS:
                if about.get(name):
                    return f"{size} {about[name]}"
        start = await self._get(key, _START_BYTES)
        return _ABSENT if start is None else f"{size} {hashlib.sha256(start).hexdigest()}"
