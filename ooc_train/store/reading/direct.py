"""The direct route: a chunk from a local file straight into the caller's buffer.

zarr-python decodes through one event-loop thread per process into fresh memory; this reads with
``preadv`` into memory that is reused, checks and decodes there, and holds the interpreter's lock
for a few microseconds a chunk.
"""

import os
import struct
from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from ooc_train.core.files import IrregularError, open_plain
from ooc_train.errors import CorruptChunk
from ooc_train.store.format.arrays import CHECKSUM_BYTES, MISSING, ArrayLayout
from ooc_train.store.format.identity import IDENTITY_BYTES, require_commit, wrong_identity

MAX_OPEN_SHARDS = 64
_ENTRY = struct.Struct("<QQ")
ENTRY_BYTES = _ENTRY.size
"""Of a chunk, in the index of a shard."""
_CHECK_BYTES = 2**20
"""Of a large chunk that are checked at a time."""

_BLOSC_SIZES = struct.Struct("<4xI4xI")


class _Shard(NamedTuple):
    fd: int
    data_bytes: int
    entries: bytes
    checked: set[int]
    """Chunks that were read through, by their position: those that are read in parts."""


NEVER_WRITTEN = (
    "other writers leave out chunks of nothing but the fill value; open_store(path, "
    "fill_missing=True) reads such chunks as that value"
)
"""What may be the matter with a missing chunk of a store of another writer."""


class _DamageError(Exception):
    """What is wrong with a chunk, before it is known which."""


class _MissingError(_DamageError):
    """A chunk that isn't there."""


class DirectRoute:
    """Reads chunks of one array whose layout is `direct`; for one thread at a time.

    Shards stay open, each with its index, up to `MAX_OPEN_SHARDS` of them. A file, its index and
    what is known of its chunks are dropped together, so that a shard which was replaced is never
    read by the old one's index.
    """

    hidden_bytes = 0

    def __init__(self, layout: ArrayLayout) -> None:
        self._layout = layout
        self._checksum = bytearray(CHECKSUM_BYTES if layout.crc else 0)
        self._decode = {"raw": None, "blosc": _blosc, "zstd": _zstd}[layout.codec or "raw"]
        self.scratch_bytes = 0
        if self._decode is not None:
            self.scratch_bytes = _encoded_bound(layout.chunk_bytes) + len(self._checksum)
        self._raw_bytes = layout.chunk_bytes + len(self._checksum)
        self._chunks_per_shard = layout.chunks_per_shard
        self._shards: dict[int, _Shard] = {}
        self._fill = None if layout.fill is None else np.frombuffer(layout.fill, layout.dtype)[0]
        self.check_bytes = _CHECK_BYTES if layout.in_parts and layout.crc else 0
        self.decoding = 0.0

    def read(self, index: int, out: NDArray[Any], scratch: NDArray[np.uint8] | None) -> None:
        """Decode chunk `index` into `out`; see `ChunkReader.read`."""
        number, position = divmod(index, self._chunks_per_shard)
        try:
            shard = self._shard(number)
            offset, length = _entry(shard, position)
            if self._decode is None:
                self._read_raw(shard.fd, offset, length, out)
            else:
                self._read_encoded(shard.fd, offset, length, out, scratch)
        except _DamageError as damage:
            self._fill_or_raise(index, damage, out)

    def _fill_or_raise(self, index: int, damage: _DamageError, out: NDArray[Any]) -> None:
        """Fill rows of a chunk that was never written, where that is allowed; else raise."""
        # Of a store that was replaced, a file may be missing, or another than is due.
        require_same_store(self._layout)
        if self._fill is None or not isinstance(damage, _MissingError):
            raise corrupt_chunk(self._layout, index, str(damage)) from damage.__cause__
        out[...] = self._fill

    def read_run(
        self, index: int, count: int, out: NDArray[Any], scratch: NDArray[np.uint8] | None
    ) -> None:
        """Decode `count` chunks from `index` on into `out`, one after another.

        Small raw chunks that follow one another in their shard come by one call to the system.
        """
        rows = self._layout.chunk_rows
        parts = [out[i * rows : (i + 1) * rows] for i in range(count)]
        if self._decode is None and count > 1:
            try:
                self._read_raw_run(index, parts)
            except _DamageError:
                pass  # one by one, it shows which chunk is damaged
            else:
                return
        for i, part in enumerate(parts):
            self.read(index + i, part, scratch)

    def read_rows(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Read rows of an array whose chunks can be read in parts, and no others."""
        size, width = self._layout.chunk_rows, self._layout.row_bytes
        for index in range(start // size, -(-stop // size)):
            first = index * size
            begin, end = max(start, first), min(stop, first + size)
            number, position = divmod(index, self._chunks_per_shard)
            try:
                shard = self._shard(number)
                offset, length = _entry(shard, position)
                self._require_raw(length)
                if self._checksum and position not in shard.checked:
                    self._check_through(shard.fd, offset)
                    shard.checked.add(position)
                _read_exactly(
                    shard.fd,
                    [out[begin - start : end - start]],
                    offset + (begin - first) * width,
                    (end - begin) * width,
                )
            except _DamageError as damage:
                self._fill_or_raise(index, damage, out[begin - start : end - start])

    def _check_through(self, fd: int, offset: int) -> None:
        """Check a chunk that is too large to be held, piece by piece."""
        piece, found = memoryview(bytearray(_CHECK_BYTES)), 0
        left = self._layout.chunk_bytes
        while left:
            part = piece[:left]
            _read_exactly(fd, [part], offset, len(part))
            found = crc32c(part, found)
            offset, left = offset + len(part), left - len(part)
        _read_exactly(fd, [self._checksum], offset, CHECKSUM_BYTES)
        _require_equal(found, self._checksum)

    def _read_raw_run(self, index: int, parts: list[NDArray[Any]]) -> None:
        number, position = divmod(index, self._chunks_per_shard)
        shard = self._shard(number)
        start, _ = _entry(shard, position)
        width = self._raw_bytes
        for i in range(len(parts)):
            place = position + i
            if place >= self._chunks_per_shard or _entry(shard, place) != (
                start + i * width,
                width,
            ):
                raise _DamageError("they don't follow one another")
        due = bytearray(len(self._checksum) * len(parts))
        size = len(self._checksum)
        checksums = [memoryview(due)[i * size : (i + 1) * size] for i in range(len(parts))]
        buffers: list[Any] = [
            buffer for pair in zip(parts, checksums, strict=True) for buffer in pair
        ]
        _read_exactly(shard.fd, buffers, start, width * len(parts))
        if size:
            for part, checksum in zip(parts, checksums, strict=True):
                _check(part, checksum)

    def _require_raw(self, length: int) -> None:
        if length != self._raw_bytes:
            raise _DamageError(f"it takes {length:,} bytes where {self._raw_bytes:,} are due")

    def _read_raw(self, fd: int, offset: int, length: int, out: NDArray[Any]) -> None:
        self._require_raw(length)
        _read_exactly(fd, [out, self._checksum], offset, length)
        if self._checksum:
            _check(out, self._checksum)

    def _read_encoded(
        self,
        fd: int,
        offset: int,
        length: int,
        out: NDArray[Any],
        scratch: NDArray[np.uint8] | None,
    ) -> None:
        if not len(self._checksum) < length <= self.scratch_bytes:
            raise _DamageError(
                f"it takes {length:,} bytes where 1 to {self.scratch_bytes:,} can be"
            )
        if scratch is None or scratch.nbytes < length:
            held = 0 if scratch is None else scratch.nbytes
            raise ValueError(f"scratch holds {held:,} bytes, {self.scratch_bytes:,} are needed")
        encoded = scratch.data[: length - len(self._checksum)]
        _read_exactly(fd, [encoded, self._checksum], offset, length)
        if self._checksum:
            _check(encoded, self._checksum)
        if self._decode is not None:
            started = perf_counter()
            self._decode(encoded, out)
            self.decoding += perf_counter() - started

    def prefetch(self, start: int, stop: int) -> None:
        """Ask the operating system for rows, as far as it has them; damage is left to reading."""
        size, width = self._layout.chunk_rows, self._layout.row_bytes
        for index in range(start // size, -(-stop // size)):
            number, position = divmod(index, self._chunks_per_shard)
            try:
                shard = self._shard(number)
                offset, length = _entry(shard, position)
            except _DamageError:
                continue
            if self._layout.in_parts:
                first = max(start - index * size, 0) * width
                offset, length = offset + first, min(length, (stop - index * size) * width) - first
            os.posix_fadvise(shard.fd, offset, length, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        """Close every file."""
        while self._shards:
            os.close(self._shards.popitem()[1].fd)

    def __del__(self) -> None:
        self.close()

    def _shard(self, number: int) -> _Shard:
        shard = self._shards.pop(number, None)
        if shard is None:
            if len(self._shards) >= MAX_OPEN_SHARDS:
                os.close(self._shards.pop(next(iter(self._shards))).fd)
            shard = self._open(number)
        self._shards[number] = shard
        return shard

    def _open(self, number: int) -> _Shard:
        layout = self._layout
        try:
            fd = open_plain(layout.shard_path(number))
        except (FileNotFoundError, NotADirectoryError) as error:
            why = "" if layout.store_id else f" ({NEVER_WRITTEN})"
            raise _MissingError(f"its file is missing{why}") from error
        except IrregularError as error:
            raise _DamageError(f"its file {error}") from None
        try:
            size = os.fstat(fd).st_size
            if layout.sharded:
                return self._indexed(fd, size, number)
            return _Shard(fd, size, _ENTRY.pack(0, size), set())
        except BaseException:
            os.close(fd)
            raise

    def _indexed(self, fd: int, size: int, number: int) -> _Shard:
        """Read the end of a shard: its identity, where it has one, and its index."""
        layout = self._layout
        identity = bytearray(IDENTITY_BYTES if layout.store_id else 0)
        index_bytes = _ENTRY.size * layout.chunks_per_shard
        data_bytes = size - len(identity) - index_bytes - CHECKSUM_BYTES
        entries = _read_entries(fd, data_bytes, index_bytes, identity)
        if identity:
            wrong = wrong_identity(identity, layout.store_id, layout.stored_name, number)
            if wrong is not None:
                raise _DamageError(wrong)
        return _Shard(fd, data_bytes, entries, set())


def require_same_store(layout: ArrayLayout) -> None:
    """Raise if the store of an array is no longer the one that was opened.

    What was read before is of the store that was opened, where this doesn't raise.

    Raises
    ------
    StoreChanged
        If it was replaced or removed.
    """
    if layout.store_id and layout.direct:
        require_commit(layout.path, layout.store_id)
    elif layout.seen is not None:
        layout.seen.require_same()


def corrupt_chunk(layout: ArrayLayout, index: int, reason: str) -> CorruptChunk:
    """Make the error that names the array, the chunk, its rows and its file."""
    start = index * layout.chunk_rows
    stop = min(start + layout.chunk_rows, layout.n_rows)
    file = layout.path
    if layout.direct:
        file = layout.shard_path(index // layout.chunks_per_shard)
    return CorruptChunk(
        f"{layout.name}, chunk {index:,} (rows {start:,} to {stop - 1:,}) in {file}: {reason}; "
        "restore that file from a copy, or write the store anew"
    )


def _read_entries(fd: int, offset: int, length: int, identity: bytearray) -> bytes:
    """Read the index of a shard, which lies at its end, and the identity before it."""
    if offset < 0:
        raise _DamageError(f"its shard is {-offset:,} bytes too short for an index alone")
    entries, checksum = bytearray(length), bytearray(CHECKSUM_BYTES)
    end = [identity, entries, checksum] if identity else [entries, checksum]
    _read_exactly(fd, end, offset, sum(map(len, end)))
    try:
        _check(entries, checksum)
    except _DamageError as damage:
        raise _DamageError(f"the index of its shard has {damage}") from None
    return bytes(entries)


def _entry(shard: _Shard, position: int) -> tuple[int, int]:
    offset, length = _ENTRY.unpack_from(shard.entries, _ENTRY.size * position)
    if offset + length > shard.data_bytes:
        if offset == MISSING:
            raise _MissingError(f"it is missing from its shard ({NEVER_WRITTEN})")
        raise _DamageError(
            f"bytes {offset:,} to {offset + length:,} of a file that holds {shard.data_bytes:,}"
        )
    return offset, length


def _read_exactly(fd: int, buffers: list[Any], offset: int, length: int) -> None:
    """Fill buffers of `length` bytes in all, in one call unless that is cut short."""
    if os.preadv(fd, buffers, offset) == length:
        return
    views = [memoryview(buffer).cast("B") for buffer in buffers]
    while any(views):
        count = os.preadv(fd, views, offset)
        if count == 0:
            raise _DamageError("its file ends within it")
        offset += count
        while views and count >= len(views[0]):
            count -= len(views.pop(0))
        if views:
            views[0] = views[0][count:]


def _check(
    encoded: NDArray[Any] | memoryview | bytearray, checksum: bytearray | memoryview
) -> None:
    # Of 32 KiB and more, crc32c releases the interpreter's lock by itself.
    _require_equal(crc32c(encoded), checksum)


def _require_equal(found: int, checksum: bytearray | memoryview) -> None:
    due = int.from_bytes(checksum, "little")
    if found != due:
        raise _DamageError(f"checksum {found:08x} where {due:08x} is due")


def _encoded_bound(decoded: int) -> int:
    """Most bytes that blosc (16 more) or zstd (``ZSTD_COMPRESSBOUND``) make of `decoded`."""
    margin = max(0, (128 * 1024 - decoded) >> 11)
    return decoded + max(16, (decoded >> 8) + margin)


def _blosc(encoded: memoryview, out: NDArray[Any]) -> None:
    from numcodecs import blosc

    # blosc trusts its header: a short buffer would be read past its end.
    if len(encoded) < 16 or _BLOSC_SIZES.unpack_from(encoded) != (out.nbytes, len(encoded)):
        raise _DamageError(f"its blosc header doesn't promise {out.nbytes:,} bytes")
    # Threads of ours do the work; only so does blosc release the interpreter's lock. It's a
    # setting of the module: numcodecs has none per call.
    blosc.use_threads = False
    _decompress(blosc.decompress, encoded, out)


def _zstd(encoded: memoryview, out: NDArray[Any]) -> None:
    from numcodecs import zstd

    # numcodecs fills only a part of `out` when the frame holds less, without a word.
    size = _zstd_content_size(encoded)
    if size is not None and size != out.nbytes:
        raise _DamageError(f"its zstd frame holds {size:,} bytes where {out.nbytes:,} are due")
    _decompress(zstd.decompress, encoded, out)


def _decompress(
    decompress: Callable[[memoryview, NDArray[Any]], Any], encoded: memoryview, out: NDArray[Any]
) -> None:
    try:
        decompress(encoded, out)
    except (RuntimeError, ValueError) as error:
        raise _DamageError(f"it can't be decoded ({error})") from error


def _zstd_content_size(frame: memoryview) -> int | None:
    """Parse the decoded bytes that a frame states (RFC 8878, 3.1.1.1), None if it doesn't."""
    if len(frame) < 5:
        return None
    descriptor = frame[4]
    single_segment = descriptor >> 5 & 1
    flag = descriptor >> 6
    width = (single_segment, 2, 4, 8)[flag]
    start = 5 + (1 - single_segment) + (0, 1, 2, 4)[descriptor & 3]
    size = int.from_bytes(frame[start : start + width], "little")
    if width == 0:
        return None
    return size + 256 if width == 2 else size
