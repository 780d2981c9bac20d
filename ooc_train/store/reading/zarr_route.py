"""The zarr route: chunks through zarr-python, for stores that the direct route doesn't read."""

import gzip
import itertools
import math
import os
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.files import IrregularError, open_plain
from ooc_train.core.text import counted
from ooc_train.store.format.arrays import CHECKSUM_BYTES, ENTRY, ArrayLayout
from ooc_train.store.format.identity import IDENTITY_BYTES, wrong_identity
from ooc_train.store.reading.direct import corrupt_chunk, require_same_store
from ooc_train.store.reading.shard_files import NEVER_WRITTEN

LONGEST_LABEL = 100
"""Most bytes of a label as UTF-8. Text of any length is assumed to fit until y has been read."""

_MAX_TEXT_BYTES = 2**31
"""Most bytes of a file of texts of any length."""

_CODEC_OVERHEAD = 2**20
"""Bytes of the tables, dictionaries and headers of codecs."""

_TEXT_BYTES, _TEXT_FACTOR = 56, 1.5
"""Half of the bytes of a text that zarr-python decodes: fixed, and for each byte of its UTF-8.
Three copies exist: as UTF-8, as a Python string and as a NumPy string."""


class ZarrRoute:
    """Reads chunks of one array by zarr-python, with the interface of `DirectRoute`.

    Type, byte order and axis order are converted to those of the buffer.
    """

    scratch_bytes = 0
    check_bytes = 0
    decoding = 0.0
    """Seconds are unknown: zarr-python reads and decodes in one call."""

    def __init__(self, layout: ArrayLayout) -> None:
        import zarr
        from zarr.storage import LocalStore

        self._layout = layout
        array = layout.source
        try:
            self._array = (
                array if isinstance(array, zarr.Array) else zarr.open_array(layout.path, mode="r")
            )
        except Exception:
            require_same_store(layout)
            raise
        store = self._array.store_path.store
        self._folder = os.fspath(store.root) if isinstance(store, LocalStore) else None
        self._max_bytes = _max_bytes(self._array)
        self._stored: set[int] = set()
        checks_shards = self._array.shards and layout.fill_value is None
        self._unwritten = _UnwrittenChunks(self._array) if checks_shards else None
        # The encoded chunk, the decoded one before it is copied, and a second read of rows.
        self.hidden_bytes = (3 if self._unwritten is not None else 2) * self._decoded_bytes()

    def read(self, index: int, out: NDArray[Any], scratch: NDArray[np.uint8] | None) -> None:  # noqa: ARG002
        """Decode chunk `index` into `out`; see `ChunkReader.read`."""
        try:
            self._read(index, out)
        except Exception:
            # A replaced store explains a file that is missing or wrong.
            require_same_store(self._layout)
            raise

    def _read(self, index: int, out: NDArray[Any]) -> None:
        start = index * self._layout.chunk_rows
        stop = min(start + self._layout.chunk_rows, self._layout.n_rows)
        shard = start // self._layout.shard_rows
        checks_files = self._layout.fill_value is None or self._folder is not None
        if checks_files and shard not in self._stored:
            self._require_stored(index, shard)
            self._stored.add(shard)
        try:
            rows: Any = self._array[start:stop]
            unwritten = self._unwritten is not None and self._unwritten.among(start, stop, rows)
        except Exception as error:
            # Codecs raise any exception. A broken connection (OSError) is not a damaged chunk.
            if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
                raise
            raise corrupt_chunk(self._layout, index, f"it can't be decoded ({error!r})") from error
        if unwritten:
            reason = f"it is missing from its shard{NEVER_WRITTEN}"
            raise corrupt_chunk(self._layout, index, reason)
        # A source reads rows of several axes as columns.
        out[: stop - start].reshape(rows.shape)[...] = rows

    def read_run(
        self, index: int, count: int, out: NDArray[Any], scratch: NDArray[np.uint8] | None
    ) -> None:
        """Decode consecutive chunks; see `ChunkReader.read_run`."""
        rows = self._layout.chunk_rows
        for i in range(count):
            self.read(index + i, out[i * rows : (i + 1) * rows], scratch)

    def _decoded_bytes(self) -> int:
        """Return the bytes of a chunk as zarr-python decodes it."""
        if self._array.dtype.kind != "T":
            return self._layout.chunk_bytes
        # For text of any length, the longest label is known once y has been read.
        dtype = np.dtype(self._layout.dtype)
        longest = dtype.itemsize if dtype.kind == "U" else LONGEST_LABEL
        return int(self._layout.chunk_rows * (_TEXT_BYTES + _TEXT_FACTOR * longest))

    def _require_stored(self, index: int, shard: int) -> None:
        """Raise if a file of these rows is missing, empty, too large or no regular file.

        zarr-python would read fill values for a missing file, and load any other file as a whole.
        """
        array = self._array
        lengths = array.shards or array.chunks
        trailing = (
            range(-(-size // length))
            for size, length in zip(array.shape[1:], lengths[1:], strict=True)
        )
        for position in itertools.product(*trailing):
            key = array.metadata.encode_chunk_key((shard, *position))
            try:
                size = self._size(key)
            except (FileNotFoundError, NotADirectoryError):
                if self._layout.fill_value is not None:
                    continue
                why = NEVER_WRITTEN
                if array.metadata.fill_value is None:
                    why = ", and its fill_value is null, so its values are unknown"
                reason = f"{key} is missing{why}"
                raise corrupt_chunk(self._layout, index, reason) from None
            except IrregularError as error:
                raise corrupt_chunk(self._layout, index, f"{key} {error}") from None
            if size == 0:
                raise corrupt_chunk(self._layout, index, f"{key} is empty")
            if size > self._max_bytes:
                reason = f"{key} has {counted(size, 'byte')}, expected at most {self._max_bytes:,}"
                raise corrupt_chunk(self._layout, index, reason)
            if self._layout.store_id:
                self._require_identity(index, shard, array.store_path / key)

    def _size(self, key: str) -> int:
        """Return the bytes of a file that holds a chunk or a shard."""
        stored = self._array.store_path / key
        if self._folder is None:
            from zarr.core.sync import sync

            found: int = sync(stored.store.getsize(stored.path))
            return found
        descriptor = open_plain(os.path.join(self._folder, stored.path))
        try:
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def _require_identity(self, index: int, shard: int, stored: Any) -> None:
        """Raise `CorruptChunk` if a shard of our format is not the expected one."""
        from zarr.abc.store import SuffixByteRequest
        from zarr.core.buffer import default_buffer_prototype
        from zarr.core.sync import sync

        layout = self._layout
        end = SuffixByteRequest(
            IDENTITY_BYTES + ENTRY.size * layout.chunks_per_shard + CHECKSUM_BYTES
        )
        found = sync(stored.get(default_buffer_prototype(), end))
        identity = b"" if found is None else found.to_bytes()[:IDENTITY_BYTES]
        wrong = wrong_identity(identity, layout.store_id, layout.stored_name, shard)
        if wrong is not None:
            raise corrupt_chunk(layout, index, wrong)

    def prefetch(self, start: int, stop: int) -> None:
        """Do nothing: zarr-python has no such call."""

    def close(self) -> None:
        """Do nothing: zarr-python keeps no file open."""


def _max_bytes(array: Any) -> int:
    """Return the most bytes that a file of chunks can have: no codec doubles the size."""
    if array.dtype.kind == "T":
        return _MAX_TEXT_BYTES
    chunk: int = math.prod(array.chunks)
    values: int = math.prod(array.shards or array.chunks)
    size: int = array.dtype.itemsize
    return 2 * values * size + 64 * (values // max(chunk, 1)) + _CODEC_OVERHEAD


class _UnwrittenChunks:
    """Finds unwritten chunks in shards, where zarr-python returns fill values.

    Rows that may be such a chunk are read again by a copy of the array with another fill value.
    Values that differ were never written. This needs no knowledge of codecs, indexes or nested
    shards.
    """

    def __init__(self, array: Any) -> None:
        self._array = array
        self._fill = array.metadata.fill_value
        self._widths = array.chunks[1:]
        codecs = array.metadata.codecs[0].codecs
        self._nested = any(hasattr(codec, "index_codecs") for codec in codecs)
        self._other: Any = None

    def among(self, start: int, stop: int, rows: Any) -> bool:
        """Return whether rows hold fill values of an unwritten chunk."""
        filled = self._is_fill(rows)
        if not self._may_hold_a_chunk(filled):
            return False
        if self._other is None:
            self._other = self._with_another_fill()
        return bool((filled & ~self._is_fill(self._other[start:stop])).any())

    def _is_fill(self, rows: Any) -> NDArray[np.bool_]:
        fill = self._fill
        missing = isinstance(fill, np.floating) and np.isnan(fill)
        return np.asarray(np.isnan(rows) if missing else rows == fill)

    def _may_hold_a_chunk(self, filled: NDArray[np.bool_]) -> bool:
        if self._nested or not self._widths:
            return bool(filled.any() if self._nested else filled.all())
        parts = itertools.product(
            *(
                [slice(start, start + width) for start in range(0, size, width)]
                for size, width in zip(filled.shape[1:], self._widths, strict=True)
            )
        )
        return any(filled[(slice(None), *part)].all() for part in parts)

    def _with_another_fill(self) -> Any:
        import zarr

        metadata, fill = self._array.metadata, self._fill
        other = {"S": (b"x", b"y"), "U": ("x", "y"), "T": ("x", "y")}.get(
            self._array.dtype.kind, (0, 1)
        )
        value = metadata.dtype.cast_scalar(other[1] if fill == other[0] else other[0])
        changed = replace(metadata, fill_value=value)
        opened = type(self._array.async_array)
        return zarr.Array(opened(metadata=changed, store_path=self._array.store_path))
