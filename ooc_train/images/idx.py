"""IDX, the format of MNIST and Fashion-MNIST, packed by gzip or not.

Two bytes of 0, the code of a type, the number of axes, the length of each axis as four bytes, and
the values in C order; all of them big-endian (LeCun, Cortes and Burges, "The MNIST database").
"""

import gzip
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType
from typing import IO, cast

import numpy as np

from ooc_train.core.files import read_start, reading
from ooc_train.images.raw_arrays import IMAGES, RawArray, damage

_TYPES = MappingProxyType({8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"})
_GZIP = b"\x1f\x8b"
_MAGIC_BYTES = 4
_MOST_AXES = 8


def is_idx(path: str) -> bool:
    """Return whether a file begins as IDX, packed or not."""
    head = read_start(path, _MAGIC_BYTES)
    if head.startswith(_GZIP):
        try:
            with _packed(path) as file:
                head = file.read(_MAGIC_BYTES)
        except (OSError, EOFError, zlib.error):
            return False
    return len(head) == _MAGIC_BYTES and head[:2] == b"\0\0" and head[2] in _TYPES and head[3] > 0


def open_idx(path: str) -> RawArray:
    """Return the array of an IDX file, by its header.

    Raises
    ------
    InvalidImages
        If the header promises no values, more axes than 8, or more or fewer bytes than the file
        holds.
    """
    packed = read_start(path, 2) == _GZIP
    with _opened(path, packed, 0) as file, damage(path):
        magic = file.read(_MAGIC_BYTES)
        axes = magic[3]
        if axes > _MOST_AXES:
            raise IMAGES.refused(path, f"has {axes} axes by its header, and at most 8 are read")
        lengths = file.read(4 * axes)
        if len(lengths) < 4 * axes:
            raise IMAGES.refused(path, "ends within its header")
        shape = struct.unpack(f">{axes}I", lengths)
    if 0 in shape:
        raise IMAGES.refused(path, f"holds no values: its shape is {shape} by its header")
    start = _MAGIC_BYTES + 4 * axes
    array = RawArray(path, shape, np.dtype(_TYPES[magic[2]]), lambda: _opened(path, packed, start))
    size = os.path.getsize(path)
    if packed:
        array.require_packed_bytes(size)
    else:
        array.require_bytes(size - start)
    return array


@contextmanager
def _packed(path: str) -> Iterator[IO[bytes]]:
    with reading(path, IMAGES) as file, gzip.GzipFile(fileobj=file) as unpacked:
        yield cast("IO[bytes]", unpacked)


@contextmanager
def _opened(path: str, packed: bool, start: int) -> Iterator[IO[bytes]]:
    """Open the file, unpacked, at byte `start` of its content; a context manager."""
    with _packed(path) if packed else reading(path, IMAGES) as file:
        file.read(start)
        yield file
