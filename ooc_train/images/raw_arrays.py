"""Arrays in raw files, as IDX and NumPy write them: read in pieces, from the first row to the last.

A header states a number of bytes. A file that holds fewer or more is refused: at once if its size
tells, and in any case before more bytes are read than the header states.
"""

import gzip
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.files import FileKind
from ooc_train.core.text import brief
from ooc_train.core.units import approximate_bytes
from ooc_train.errors import InvalidImages

IMAGES = FileKind("images or labels", 2**63, InvalidImages, "get the file again, or write it anew")

_MOST_DEFLATED, _DEFLATE_BYTES = 1032, 2**16
"""Most bytes that one byte of deflate stands for (by the documentation of zlib), and more for the
ends of a file."""

_DAMAGE = (
    *(EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile),
    *(NotImplementedError, UnicodeDecodeError, struct.error),
)
"""Exceptions that Python's readers of compressed files raise for damaged files."""


@dataclass(frozen=True)
class RawArray:
    """An array in a file, with rows first and in C order.

    Attributes
    ----------
    name : str
        The file in messages, and within an archive the array.
    shape : tuple of int
        Rows, then the shape of a row.
    stored : dtype
        Type of the values in the file.
    opened : callable
        Returns a context manager that opens the file at the first value.
    """

    name: str
    shape: tuple[int, ...]
    stored: np.dtype[Any]
    opened: Callable[[], AbstractContextManager[IO[bytes]]] = field(repr=False, compare=False)

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return self.shape[0]

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self.shape[1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values in memory: little-endian."""
        return self.stored.newbyteorder("<")

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return math.prod(self.row_shape) * self.stored.itemsize

    @property
    def n_bytes(self) -> int:
        """Bytes of all values, decompressed."""
        return self.n_rows * self.row_bytes

    @property
    def text(self) -> str:
        """Shape and type in words, for messages."""
        return f"{' x '.join(f'{size:,}' for size in self.shape)} of {self.dtype.name}"

    def require_bytes(self, held: int) -> None:
        """Raise `InvalidImages` unless `held`, the bytes of values in a file, is `n_bytes`."""
        if held != self.n_bytes:
            raise IMAGES.refused(
                self.name,
                f"should hold {self.text} by its header, {self.n_bytes:,} bytes, and holds "
                f"{held:,}",
            )

    def require_packed_bytes(self, packed: int) -> None:
        """Raise `InvalidImages` if `packed` bytes are too few to hold the compressed values."""
        if self.n_bytes > _MOST_DEFLATED * packed + _DEFLATE_BYTES:
            raise IMAGES.refused(
                self.name,
                f"should hold {self.text} by its header, {approximate_bytes(self.n_bytes)}, which "
                f"{packed:,} packed bytes can't hold",
            )

    def pieces(self, rows: int) -> Iterator[NDArray[Any]]:
        """Yield at most `rows` rows at a time, in a buffer that the next piece overwrites.

        Raises
        ------
        InvalidImages
            If the file is damaged, ends too early or too late, or holds NaN or infinity.
        """
        buffer = np.empty((rows, *self.row_shape), self.stored)
        with self.opened() as file, damage(self.name):
            for start in range(0, self.n_rows, rows):
                piece = buffer[: self.n_rows - start]
                self._fill(file, piece, start)
                self._require_finite(piece, start)
                yield piece
            # Reading to the end verifies the checksum of a packed file, too.
            if file.read(1):
                raise IMAGES.refused(
                    self.name, f"holds more than {self.text}, which its header promises"
                )

    def _fill(self, file: IO[bytes], piece: NDArray[Any], start: int) -> None:
        view, filled = piece.reshape(-1).view(np.uint8).data, 0
        while filled < len(view):
            part = file.read(min(len(view) - filled, 2**20))
            if not part:
                found = start * self.row_bytes + filled
                raise IMAGES.refused(
                    self.name,
                    f"ends after {found:,} of the {self.n_bytes:,} bytes that its header promises",
                )
            view[filled : filled + len(part)] = part
            filled += len(part)

    def _require_finite(self, piece: NDArray[Any], start: int) -> None:
        if piece.dtype.kind == "f" and not (finite := np.isfinite(piece)).all():
            row, *place = np.argwhere(~finite)[0].tolist()
            where = f" at {','.join(map(str, place))}" if place else ""
            raise InvalidImages(
                f"{self.name} holds {piece[(row, *place)]} in row {start + row:,}{where}; leave "
                "such rows out, or fill them"
            )


@contextmanager
def damage(name: str) -> Iterator[None]:
    """Turn errors of damaged or truncated files into `InvalidImages`; a context manager."""
    try:
        yield
    except _DAMAGE as error:
        raise IMAGES.refused(name, f"is damaged or cut short ({brief(error)})") from error
