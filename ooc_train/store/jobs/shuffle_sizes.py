"""How an external shuffle divides its memory, and how much it needs."""

import math
from dataclasses import dataclass
from typing import Self

_OVERHEAD_BYTES = 64 * 2**10
"""Bytes of a thread and of small objects."""

_PIECE_BYTES = 2**20
"""Bytes of records that are gathered at once: what a core's cache holds."""

_KEY_BYTES = 64
"""Bytes of keys, masks and temporaries for each record of a piece."""

_ORDER_BYTES = 18 + 16
"""Bytes of buckets, keys and order for each record of a block, as `ShuffleSizes` states."""

_LEAST_BLOCK_ROWS = 16

_EXTENT_BYTES = 2**20
"""Reads of this size run at a disk's full speed, so larger extents gain nothing."""

_READ_ONCE = 0.04
"""Factor to memory^1.5: bytes of records of which each bucket fits into its buffer."""

_UNKNOWN_BUCKETS = 512
_FEWEST_BUCKETS = 16
_MOST_BUCKETS = 2**16


def least_memory(record_bytes: int, expected_bytes: int = 0) -> int:
    """Return the least bytes of memory of a shuffle, of `expected_bytes` of records.

    A block then holds at least 16 records, and each record is read back at most about three times.
    """
    block = _LEAST_BLOCK_ROWS * (record_bytes + _ORDER_BYTES)
    needed = _OVERHEAD_BYTES + 2 * (record_bytes + _KEY_BYTES) + block
    # Extents take 13/128 of the memory, and pieces at most 2/32.
    least = -(-needed * 128 // (128 - 13 - 8))
    few_reads = math.ceil(math.pow(expected_bytes / _READ_ONCE, 2 / 3) / 2)
    return max(least, few_reads)


def ample_memory(record_bytes: int, expected_bytes: int) -> int:
    """Return the bytes of memory beyond which a shuffle gains nothing: a read then has 1 MiB."""
    ample = max(64 * 2**20, math.isqrt(4 * _EXTENT_BYTES * expected_bytes))
    return max(ample, least_memory(record_bytes, expected_bytes))


@dataclass(frozen=True, slots=True)
class ShuffleSizes:
    """How an external shuffle divides its memory, in records of ``s`` bytes.

    ============  ======================================================================
    part          bytes
    ============  ======================================================================
    overhead      64 KiB
    pieces        piece_rows x (2 s + 64): two pieces of at most 1 MiB, and keys
    extents       13 x cells, cells = memory / 128: bounds (8 bytes), half as much again
                  while buckets are merged, and the counts of buckets
    records       block_rows x s: one block, or two buckets (one in use, one being read)
    scattering    block_rows x 18: bucket (2) and order (8) of each, and 8 to sort them
    reading back  2 x bucket_rows x 16: key (8) and order (8) of each
    ============  ======================================================================

    As ``bucket_rows = block_rows / 2``, a record of a block takes ``s + 34`` bytes. Reading back
    follows scattering, but the C library keeps some of the memory that scattering freed.
    """

    piece_rows: int
    cells: int
    block_rows: int
    bucket_rows: int

    @classmethod
    def of(cls, record_bytes: int, memory_bytes: int) -> Self:
        """Divide `memory_bytes` for records of `record_bytes`."""
        piece_bytes = min(_PIECE_BYTES, memory_bytes // 32)
        piece_rows = max(1, piece_bytes // (record_bytes + _KEY_BYTES))
        cells = memory_bytes // 128
        pieces = piece_rows * (2 * record_bytes + _KEY_BYTES)
        rest = memory_bytes - _OVERHEAD_BYTES - pieces - 13 * cells
        block_rows = min(rest // (record_bytes + _ORDER_BYTES), 2**31)
        return cls(piece_rows, cells, block_rows, block_rows // 2)

    @property
    def safe_bucket_rows(self) -> int:
        """Mean rows of a bucket for which chance hardly makes any bucket too large."""
        return max(self.bucket_rows // 2, self.bucket_rows - round(6 * math.sqrt(self.bucket_rows)))

    def buckets(self, expected_rows: int | None) -> int:
        """Return the number of buckets, a power of two."""
        wanted = _UNKNOWN_BUCKETS
        if expected_rows is not None:
            wanted = max(_FEWEST_BUCKETS, -(-expected_rows // self.safe_bucket_rows))
        most = min(_MOST_BUCKETS, self.cells // _FEWEST_BUCKETS)
        return min(1 << (wanted - 1).bit_length(), 1 << (most.bit_length() - 1))
