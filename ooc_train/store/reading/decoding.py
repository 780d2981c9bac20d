"""Decoding of compressed chunks into the caller's buffer."""

import struct
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from ooc_train.core.text import counted

_BLOSC_SIZES = struct.Struct("<4xI4xI")


class DamageError(Exception):
    """Raised for a damaged chunk, with the damage; the caller adds which chunk it is."""


class MissingChunkError(DamageError):
    """Raised for a chunk that was never written, or whose file is missing."""


def max_encoded_bytes(decoded: int) -> int:
    """Return the most bytes of an encoded chunk: blosc adds 16, zstd its `COMPRESSBOUND`."""
    margin = max(0, (128 * 1024 - decoded) >> 11)
    return decoded + max(16, (decoded >> 8) + margin)


def decode_blosc(encoded: memoryview, out: NDArray[Any]) -> None:
    """Decode a blosc frame into `out`."""
    from numcodecs import blosc

    # blosc trusts its header, and would read beyond a short buffer.
    if len(encoded) < 16 or _BLOSC_SIZES.unpack_from(encoded) != (out.nbytes, len(encoded)):
        raise DamageError(f"its blosc header states other sizes than {out.nbytes:,} bytes")
    # blosc releases the interpreter's lock only without its own threads. numcodecs has no such
    # setting per call, only this one of the module.
    blosc.use_threads = False
    _decompress(blosc.decompress, encoded, out)


def decode_zstd(encoded: memoryview, out: NDArray[Any]) -> None:
    """Decode a zstd frame into `out`."""
    from numcodecs import zstd

    # If the frame holds less, numcodecs fills a part of `out` and raises no error.
    size = _zstd_content_size(encoded)
    if size is not None and size != out.nbytes:
        raise DamageError(f"its zstd frame holds {counted(size, 'byte')}, expected {out.nbytes:,}")
    _decompress(zstd.decompress, encoded, out)


def _decompress(
    decompress: Callable[[memoryview, NDArray[Any]], Any], encoded: memoryview, out: NDArray[Any]
) -> None:
    try:
        decompress(encoded, out)
    except (RuntimeError, ValueError) as error:
        raise DamageError(f"it can't be decoded ({error})") from error


def _zstd_content_size(frame: memoryview) -> int | None:
    """Return the decoded bytes that a frame states (RFC 8878, 3.1.1.1), None if it states none."""
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
