"""The direct route: a chunk from a local file into the caller's buffer.

zarr-python decodes through one event-loop thread per process into new memory. This route reads with
``preadv`` into reused memory, and verifies and decodes there. It holds the interpreter's lock for a
few microseconds a chunk.
"""

import os
from time import perf_counter
from typing import Any

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from ooc_train.core.text import counted
from ooc_train.errors import CorruptChunk
from ooc_train.store.format.arrays import CHECKSUM_BYTES, ArrayLayout
from ooc_train.store.format.identity import require_commit
from ooc_train.store.reading.decoding import (
    DamageError,
    MissingChunkError,
    decode_blosc,
    decode_zstd,
    max_encoded_bytes,
)
from ooc_train.store.reading.shard_files import (
    NEVER_WRITTEN,
    RESTORE,
    OpenShard,
    OpenShards,
    check_crc,
    index_entry,
    read_exactly,
    require_crc,
)

_CHECK_BYTES = 2**20
"""Bytes of a large chunk that are verified at a time."""


class DirectRoute:
    """Reads chunks of one array whose layout is `direct`; for one thread at a time."""

    hidden_bytes = 0

    def __init__(self, layout: ArrayLayout) -> None:
        self._layout = layout
        self._checksum = bytearray(CHECKSUM_BYTES if layout.crc else 0)
        self._decode = {"raw": None, "blosc": decode_blosc, "zstd": decode_zstd}[
            layout.codec or "raw"
        ]
        self.scratch_bytes = 0
        if self._decode is not None:
            self.scratch_bytes = max_encoded_bytes(layout.chunk_bytes) + len(self._checksum)
        self._raw_bytes = layout.chunk_bytes + len(self._checksum)
        self._shards = OpenShards(layout)
        self._chunks_per_shard = layout.chunks_per_shard
        self._fill = (
            None if layout.fill_value is None else np.frombuffer(layout.fill_value, layout.dtype)[0]
        )
        self.check_bytes = _CHECK_BYTES if layout.in_parts and layout.crc else 0
        self.decoding = 0.0

    def read(self, index: int, out: NDArray[Any], scratch: NDArray[np.uint8] | None) -> None:
        """Decode chunk `index` into `out`; see `ChunkReader.read`."""
        try:
            shard, _, offset, length = self._locate(index)
            if self._decode is None:
                self._read_raw(shard.fd, offset, length, out)
            else:
                self._read_encoded(shard.fd, offset, length, out, scratch)
        except DamageError as damage:
            self._fill_or_raise(index, damage, out)

    def _fill_or_raise(self, index: int, damage: DamageError, out: NDArray[Any]) -> None:
        """Fill the rows of an unwritten chunk if the layout has a fill value; else raise."""
        # A replaced store explains a file that is missing or wrong.
        require_same_store(self._layout)
        if self._fill is None or not isinstance(damage, MissingChunkError):
            raise corrupt_chunk(self._layout, index, str(damage)) from damage.__cause__
        out[...] = self._fill

    def read_run(
        self, index: int, count: int, out: NDArray[Any], scratch: NDArray[np.uint8] | None
    ) -> None:
        """Decode `count` consecutive chunks from `index` on into `out`.

        Small raw chunks that are adjacent in their shard are read by one system call.
        """
        rows = self._layout.chunk_rows
        parts = [out[i * rows : (i + 1) * rows] for i in range(count)]
        if self._decode is None and count > 1:
            try:
                self._read_raw_run(index, parts)
            except DamageError:
                pass  # Reading one by one finds the damaged chunk.
            else:
                return
        for i, part in enumerate(parts):
            self.read(index + i, part, scratch)

    def read_rows(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Read rows `start` to `stop` alone, of an array that is readable `in_parts`."""
        size, width = self._layout.chunk_rows, self._layout.row_bytes
        for index in range(start // size, -(-stop // size)):
            first = index * size
            begin, end = max(start, first), min(stop, first + size)
            try:
                shard, position, offset, length = self._locate(index)
                self._require_raw(length)
                if self._checksum and position not in shard.checked:
                    self._check_through(shard.fd, offset)
                    shard.checked.add(position)
                read_exactly(
                    shard.fd,
                    [out[begin - start : end - start]],
                    offset + (begin - first) * width,
                    (end - begin) * width,
                )
            except DamageError as damage:
                self._fill_or_raise(index, damage, out[begin - start : end - start])

    def _check_through(self, fd: int, offset: int) -> None:
        """Verify the checksum of a chunk too large for one buffer, piece by piece."""
        piece, found = memoryview(bytearray(_CHECK_BYTES)), 0
        left = self._layout.chunk_bytes
        while left:
            part = piece[:left]
            read_exactly(fd, [part], offset, len(part))
            found = crc32c(part, found)
            offset, left = offset + len(part), left - len(part)
        read_exactly(fd, [self._checksum], offset, CHECKSUM_BYTES)
        require_crc(found, self._checksum)

    def _read_raw_run(self, index: int, parts: list[NDArray[Any]]) -> None:
        """Read raw chunks by one system call; raise `DamageError` if they aren't adjacent."""
        shard, position, start, _ = self._locate(index)
        width = self._raw_bytes
        for i in range(len(parts)):
            beyond = position + i >= self._chunks_per_shard
            if beyond or index_entry(shard, position + i) != (start + i * width, width):
                raise DamageError("the chunks are not adjacent")
        size = len(self._checksum)
        stored = memoryview(bytearray(size * len(parts)))
        checksums = [stored[i * size : (i + 1) * size] for i in range(len(parts))]
        buffers = [buffer for pair in zip(parts, checksums, strict=True) for buffer in pair]
        read_exactly(shard.fd, buffers, start, width * len(parts))
        if size:
            for part, checksum in zip(parts, checksums, strict=True):
                check_crc(part, checksum)

    def _require_raw(self, length: int) -> None:
        if length != self._raw_bytes:
            raise DamageError(f"it takes {counted(length, 'byte')}, expected {self._raw_bytes:,}")

    def _read_raw(self, fd: int, offset: int, length: int, out: NDArray[Any]) -> None:
        self._require_raw(length)
        read_exactly(fd, [out, self._checksum], offset, length)
        if self._checksum:
            check_crc(out, self._checksum)

    def _read_encoded(
        self,
        fd: int,
        offset: int,
        length: int,
        out: NDArray[Any],
        scratch: NDArray[np.uint8] | None,
    ) -> None:
        if not len(self._checksum) < length <= self.scratch_bytes:
            raise DamageError(
                f"it takes {counted(length, 'byte')}, expected 1 to {self.scratch_bytes:,}"
            )
        if scratch is None or scratch.nbytes < length:
            held = 0 if scratch is None else scratch.nbytes
            raise ValueError(f"scratch holds {held:,} bytes, {self.scratch_bytes:,} are needed")
        encoded = scratch.data[: length - len(self._checksum)]
        read_exactly(fd, [encoded, self._checksum], offset, length)
        if self._checksum:
            check_crc(encoded, self._checksum)
        if self._decode is not None:
            started = perf_counter()
            self._decode(encoded, out)
            self.decoding += perf_counter() - started

    def prefetch(self, start: int, stop: int) -> None:
        """Ask the operating system to load rows; errors are left to the later read.

        macOS has no such call.
        """
        advise = getattr(os, "posix_fadvise", None)
        if advise is None:
            return
        size, width = self._layout.chunk_rows, self._layout.row_bytes
        for index in range(start // size, -(-stop // size)):
            try:
                shard, _, offset, length = self._locate(index)
            except DamageError:
                continue
            if self._layout.in_parts:
                first = max(start - index * size, 0) * width
                offset, length = offset + first, min(length, (stop - index * size) * width) - first
            advise(shard.fd, offset, length, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        """Close every file."""
        self._shards.close()

    def _locate(self, index: int) -> tuple[OpenShard, int, int, int]:
        """Return the shard of a chunk, the chunk's position, its offset and its length."""
        number, position = divmod(index, self._chunks_per_shard)
        shard = self._shards.get(number)
        return shard, position, *index_entry(shard, position)


def require_same_store(layout: ArrayLayout) -> None:
    """Raise `StoreChanged` if the store of an array was replaced or removed since it was opened.

    If this doesn't raise, all earlier reads were of the store that was opened.
    """
    if layout.store_id and layout.direct:
        require_commit(layout.path, layout.store_id)
    elif layout.stamp is not None:
        layout.stamp.require_same()


def corrupt_chunk(layout: ArrayLayout, index: int, reason: str) -> CorruptChunk:
    """Return the error that names the array, the chunk, its rows and its file."""
    start = index * layout.chunk_rows
    stop = min(start + layout.chunk_rows, layout.n_rows)
    file = layout.path
    if layout.direct:
        file = layout.shard_path(index // layout.chunks_per_shard)
    way_out = "" if reason.endswith(NEVER_WRITTEN) else f"; {RESTORE}"
    return CorruptChunk(
        f"{layout.name}, chunk {index:,} (rows {start:,} to {stop - 1:,}) in {file}: "
        f"{reason}{way_out}"
    )
