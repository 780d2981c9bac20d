"""Decoding of chunks."""

import struct
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

_BLOSC_SIZES = struct.Struct("<4xI4xI")


class DamageError(Exception):
    """What is wrong with a chunk, before it is known which."""


class MissingChunkError(DamageError):
    """A chunk that isn't there."""


def max_encoded_bytes(decoded: int) -> int:
    """Most bytes that blosc (16 more) or zstd (``ZSTD_COMPRESSBOUND``) make of `decoded`."""
    margin = max(0, (128 * 1024 - decoded) >> 11)
    return decoded + max(16, (decoded >> 8) + margin)


def decode_blosc(encoded: memoryview, out: NDArray[Any]) -> None:
    """Decode a blosc frame into `out`."""
    from numcodecs import blosc

    # blosc trusts its header: a short buffer would be read past its end.
    if len(encoded) < 16 or _BLOSC_SIZES.unpack_from(encoded) != (out.nbytes, len(encoded)):
        raise DamageError(f"its blosc header doesn't promise {out.nbytes:,} bytes")
    # Threads of ours do the work; only so does blosc release the interpreter's lock. It's a
    # setting of the module: numcodecs has none per call.
    blosc.use_threads = False
    _decompress(blosc.decompress, encoded, out)


def decode_zstd(encoded: memoryview, out: NDArray[Any]) -> None:
    """Decode a zstd frame into `out`."""
    from numcodecs import zstd

    # numcodecs fills only a part of `out` when the frame holds less, without a word.
    size = _zstd_content_size(encoded)
    if size is not None and size != out.nbytes:
        raise DamageError(f"its zstd frame holds {size:,} bytes where {out.nbytes:,} are due")
    _decompress(zstd.decompress, encoded, out)


def _decompress(
    decompress: Callable[[memoryview, NDArray[Any]], Any], encoded: memoryview, out: NDArray[Any]
) -> None:
    try:
        decompress(encoded, out)
    except (RuntimeError, ValueError) as error:
        raise DamageError(f"it can't be decoded ({error})") from error


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
