"""Read numeric arrays from an .npz: never unpickled, never decompressed.

An archive may claim anything: 0.5 MB can unpack to 1 GB, and NumPy's members may hold code. Runs
store their members uncompressed (`numpy.savez`). The claimed size of a member is checked against
the file and the available memory before an array is allocated.
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
from ooc_train.memory.system import available_memory

_CONTENTS_BYTES = 2**20
"""Limit of the archive's table of contents; that of two members takes 200 bytes."""

_PIECE = 2**20
_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    rb"\{'descr': '(?P<dtype>[<>|](?:b1|[iuf][1248]))', "
    rb"'fortran_order': (?P<in_columns>True|False), "
    rb"'shape': \((?P<shape>(?:[0-9]{1,18},? ?){0,4})\), \} *\n"
)
"""NumPy's header of an array."""


class _FrugalFile(io.RawIOBase):
    """A file whose single reads are at most as large as a table of contents may be."""

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
    """Read numeric arrays from an .npz.

    Parameters
    ----------
    path : str
        The archive.
    names : sequence of str
        Names of the arrays to read.
    kind : FileKind
        Error and advice for a damaged file.

    Returns
    -------
    list of float64 arrays
        In the order of `names`.

    Raises
    ------
    FileKind.error
        If the file is no archive or is damaged. If an array is missing, compressed, not exactly
        representable in float64, or larger than the available memory.
    OSError
        If the file is missing or unreadable.
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
            NotImplementedError,  # an unknown compression
            RuntimeError,  # an encrypted member
            OverflowError,
            struct.error,
        ) as error:
            raise kind.refused(path, f"holds no parameters ({error})") from None
        except OSError as error:
            # EINVAL: a damaged offset before the beginning of the file.
            if error.strerror is not None and error.errno != errno.EINVAL:
                raise
            raise kind.refused(path, f"holds no parameters ({error})") from None


def _array(archive: zipfile.ZipFile, name: str, held: int) -> Array:
    members = [member for member in archive.infolist() if member.filename == name]
    if len(members) != 1:
        raise ValueError(f"it has {len(members)} members named {name} instead of one")
    member = members[0]
    if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
        raise ValueError(f"{name} is compressed; a run stores it uncompressed")
    if member.header_offset + member.file_size > held:
        raise ValueError(f"{name} claims more bytes than the {held:,} of the file")
    with archive.open(member) as stream:
        shape, in_columns, dtype = _header(stream)
        due = math.prod(shape) * dtype.itemsize
        if stream.tell() + due != member.file_size:
            raise ValueError(
                f"{name} needs {due:,} bytes for its shape {shape} and has another size"
            )
        if due > (free := available_memory()):
            raise ValueError(f"{name} needs {due:,} bytes, and {free:,} are available")
        array: NDArray[Any] = np.empty(math.prod(shape), dtype)
        buffer, start = array.view(np.uint8), 0
        while part := stream.read(min(_PIECE, due - start)):
            buffer[start : start + len(part)] = np.frombuffer(part, np.uint8)
            start += len(part)
        if start < due:
            raise ValueError(f"{name} ends after {start:,} of its {due:,} bytes")
        # The read at the end verifies the checksum.
        stream.read(1)
    return array.reshape(shape, order="F" if in_columns else "C").astype(
        "f8", casting="safe", copy=False
    )


def _header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Parse the header of an array: its shape, whether its order is Fortran's, its type.

    NumPy's own parser accepts any Python literal and old spellings; this one does not.
    """
    start = stream.read(len(_MAGIC) + 2)
    if start[:-2] != _MAGIC:
        raise ValueError("an array lacks the header of NumPy's format 1.0")
    text = stream.read(int.from_bytes(start[-2:], "little"))
    match = _HEADER.fullmatch(text)
    if match is None:
        raise ValueError(f"the header of an array is {shown(text.decode('latin1').strip())}")
    shape = tuple(int(length) for length in match["shape"].split(b",") if length.strip())
    dtype = np.dtype(match["dtype"].decode())
    if not np.can_cast(dtype, np.float64, casting="safe"):
        raise ValueError(f"an array holds {dtype}, which float64 can't represent")
    return shape, match["in_columns"] == b"True", dtype
