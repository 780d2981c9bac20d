"""How an external shuffle divides its memory."""

import math
from dataclasses import dataclass
from typing import Self

OVERHEAD = 64 * 2**10
"""Bytes of a thread and of small objects."""

_PIECE_BYTES = 2**20
"""Of records that are gathered and written, or handed out, at once: what a core's cache holds."""

KEY_BYTES = 64
"""Of keys, masks and their temporaries, for each record of a piece."""

PLACE_BYTES = 18 + 16
"""Of buckets, keys and places, for each record of a block; `ShuffleSizes` has the arithmetic."""

LEAST_BLOCK = 16
"""Records."""

EXTENT_BYTES = 2**20
"""Reads of this size run at a disk's full speed; room for larger ones gains nothing."""

READ_ONCE = 0.04
"""Times room^1.5: bytes of records of which each bucket fits into its buffer."""

_UNKNOWN_BUCKETS = 512

_FEWEST_BUCKETS = 16

_MOST_BUCKETS = 2**16


@dataclass(frozen=True, slots=True)
class ShuffleSizes:
    """How a room is divided, in records; ``s`` is the size of one, all of it in bytes.

    ============  ======================================================================
    overhead      64 KiB
    pieces        piece_rows x (2 s + 64): two pieces of at most 1 MiB, and keys
    extents       13 x cells, cells = room / 128: their bounds (8 bytes), half as much again
                  while they are halved, and the counting of buckets
    records       block_rows x s: a block; or two buckets, one in use and one being read
    scattering    block_rows x 18: bucket (2) and place (8) of each, and 8 to sort them
    reading back  2 x bucket_rows x 16: key (8) and place (8) of each
    ============  ======================================================================

    With ``bucket_rows = block_rows / 2``, a record of a block takes ``s + 34``. Scattering and
    reading back come one after the other, but the C library keeps some of what the first freed.
    """

    piece_rows: int
    cells: int
    block_rows: int
    bucket_rows: int

    @classmethod
    def of(cls, record_bytes: int, room: int) -> Self:
        """Divide a room."""
        piece_rows = max(1, min(_PIECE_BYTES, room // 32) // (record_bytes + KEY_BYTES))
        cells = room // 128
        rest = room - OVERHEAD - piece_rows * (2 * record_bytes + KEY_BYTES) - 13 * cells
        block_rows = min(rest // (record_bytes + PLACE_BYTES), 2**31)
        return cls(piece_rows, cells, block_rows, block_rows // 2)

    @property
    def sure_rows(self) -> int:
        """Records that a bucket may have on average, so that chance doesn't make it too large."""
        return max(self.bucket_rows // 2, self.bucket_rows - round(6 * math.sqrt(self.bucket_rows)))

    def buckets(self, expected_rows: int | None) -> int:
        """Choose the number of buckets, a power of two."""
        wanted = _UNKNOWN_BUCKETS
        if expected_rows is not None:
            wanted = max(_FEWEST_BUCKETS, -(-expected_rows // self.sure_rows))
        most = min(_MOST_BUCKETS, self.cells // _FEWEST_BUCKETS)
        return min(1 << (wanted - 1).bit_length(), 1 << (most.bit_length() - 1))
