"""Arrays of numbers out of an .npz, read member by member: never unpickled, never unpacked.

An archive may promise anything: 0.5 MB of it unpack to 1 GB, and a member of NumPy's may hold code.
Here members lie as they are (`numpy.savez` writes them so), and what a member says that it holds is
held against its size, and against the memory there is, before room for it is made.
"""

import errno
import io
import math
import os
import re
import struct
import zipfile
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.files import FileKind, reading
from ooc_train.core.schema import shown
from ooc_train.core.sums import Array
from ooc_train.memory.ceiling import available_memory

_CONTENTS_BYTES = 2**20
"""Of the archive's table of contents, of which two members take 200."""

_PIECE = 2**20
_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    rb"\{'descr': '(?P<dtype>[<>|](?:b1|[iuf][1248]))', "
    rb"'fortran_order': (?P<in_columns>True|False), "
    rb"'shape': \((?P<shape>(?:[0-9]{1,18},? ?){0,4})\), \} *\n"
)
"""What NumPy writes before the numbers of an array."""


class _FrugalFile(io.RawIOBase):
    """A file of which no call reads more than a table of contents: it may say that it is larger."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            size = _CONTENTS_BYTES
        if size > _CONTENTS_BYTES:
            raise ValueError(f"its table of contents claims {size:,} bytes")
        return self._file.read(size)


def read_arrays(path: str, names: Sequence[str], kind: FileKind) -> list[Array]:
    """Read arrays of numbers from an .npz.

    Parameters
    ----------
    path : str
    names : sequence of str
        Of the arrays that are wanted; of others nothing is read.
    kind : FileKind
        How the file is refused.

    Returns
    -------
    list of float64 arrays, in the order of `names`

    Raises
    ------
    FileKind.error
        If it is no archive or is damaged; an array is missing, packed, or holds no numbers that
        float64 can; or takes more memory than there is.
    OSError
        If there is nothing, or it can't be read.
    """
    with reading(path, kind) as file:
        try:
            with zipfile.ZipFile(_FrugalFile(file)) as archive:
                held = os.fstat(file.fileno()).st_size
                return [_array(archive, f"{name}.npy", held) for name in names]
        except (
            zipfile.BadZipFile,
            ValueError,
            EOFError,
            NotImplementedError,  # a packing that Python doesn't know
            RuntimeError,  # a password
            OverflowError,
            struct.error,
        ) as error:
            raise kind.refused(path, f"holds no parameters ({error})") from None
        except OSError as error:
            # A place before the beginning of the file is an error of its own.
            if error.strerror is not None and error.errno != errno.EINVAL:
                raise
            raise kind.refused(path, f"holds no parameters ({error})") from None


def _array(archive: zipfile.ZipFile, name: str, held: int) -> Array:
    members = [member for member in archive.infolist() if member.filename == name]
    if len(members) != 1:
        raise ValueError(f"{len(members)} members are called {name}, and one is due")
    member = members[0]
    if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
        raise ValueError(f"{name} is packed, and it lies unpacked in a run")
    if member.header_offset + member.file_size > held:
        raise ValueError(f"{name} claims more bytes than the {held:,} of the file")
    with archive.open(member) as stream:
        shape, in_columns, dtype = _header(stream)
        due = math.prod(shape) * dtype.itemsize
        if stream.tell() + due != member.file_size:
            raise ValueError(f"{name} claims {due:,} bytes for its shape {shape}, and has others")
        if due > (free := available_memory()):
            raise ValueError(f"{name} takes {due:,} bytes, and {free:,} are available")
        found: NDArray[Any] = np.empty(math.prod(shape), dtype)
        room, start = found.view(np.uint8), 0
        while part := stream.read(min(_PIECE, due - start)):
            room[start : start + len(part)] = np.frombuffer(part, np.uint8)
            start += len(part)
        if start < due:
            raise ValueError(f"{name} ends after {start:,} of its {due:,} bytes")
        # Which compares the checksum of what was read.
        stream.read(1)
    return found.reshape(shape, order="F" if in_columns else "C").astype(
        "f8", casting="safe", copy=False
    )


def _header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Parse what an array says of itself: its shape, whether columns come first, its type.

    NumPy's own parser takes whatever Python's syntax allows, old releases' spellings too.
    """
    start = stream.read(len(_MAGIC) + 2)
    if start[:-2] != _MAGIC:
        raise ValueError("an array does not begin as one of NumPy's, of format 1.0, does")
    text = stream.read(int.from_bytes(start[-2:], "little"))
    match = _HEADER.fullmatch(text)
    if match is None:
        raise ValueError(f"an array says of itself {shown(text.decode('latin1').strip())}")
    shape = tuple(int(length) for length in match["shape"].split(b",") if length.strip())
    dtype = np.dtype(match["dtype"].decode())
    if not np.can_cast(dtype, np.float64, casting="safe"):
        raise ValueError(f"an array holds {dtype}, which float64 doesn't")
    return shape, match["in_columns"] == b"True", dtype
