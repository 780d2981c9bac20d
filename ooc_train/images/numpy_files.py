"""NumPy's files: an array in .npy, and several in .npz. Nothing is unpickled."""

import io
import os
import struct
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

from ooc_train.core.files import read_start, reading
from ooc_train.core.text import brief, listed
from ooc_train.images.raw_arrays import IMAGES, RawArray, damage

_NPY, _ZIP = b"\x93NUMPY", b"PK\x03\x04"
_MOST_HEADER = 10_000
"""Most bytes of a header, as NumPy limits it."""

_LENGTHS = {1: "<H", 2: "<I"}
"""Type of the length of a header, by the version of the format."""

_ENCRYPTED = 1
_SUFFIX = ".npy"

X_NAMES, Y_NAMES = ("X", "x", "images", "data"), ("y", "labels", "targets")
"""Names of the arrays of images and of labels in .npz, of which a file has one."""


def is_npy(path: str) -> bool:
    """Return whether a file begins as .npy."""
    return read_start(path, len(_NPY)) == _NPY


def is_npz(path: str) -> bool:
    """Return whether a file is a ZIP archive whose name ends in .npz."""
    return path.lower().endswith(".npz") and read_start(path, len(_ZIP)) == _ZIP


def open_npy(path: str) -> RawArray:
    """Return the array of a .npy file, by its header.

    Raises
    ------
    InvalidImages
        If it holds Python objects or other things than numbers and text, lies in Fortran order, or
        has another size than its header says.
    """
    with reading(path, IMAGES) as file:
        shape, stored, start = _header(file, path)
    array = RawArray(path, shape, stored, lambda: _opened(path, start))
    array.require_bytes(os.path.getsize(path) - start)
    return array


def open_npz(path: str, name: str | None, names: Sequence[str], option: str) -> RawArray:
    """Return an array of a .npz file, by its header.

    Parameters
    ----------
    name : str or None
        Name of the array; None for the one of `names` that the file has.
    option : str
        The argument that gives a name, for messages.

    Raises
    ------
    InvalidImages
        As `open_npy`; also if there is no such array, or it is encrypted, or compressed by another
        method than deflate.
    """
    with _archive(path) as archive:
        found = {
            info.filename.removesuffix(_SUFFIX): info
            for info in archive.infolist()
            if info.filename.endswith(_SUFFIX)
        }
        wanted = [each for each in ([name] if name is not None else names) if each in found]
        if len(wanted) != 1:
            missing = (
                f"has no array {name!r}"
                if name is not None
                else (f"has {len(wanted)} arrays of the names {', '.join(names)}")
            )
            raise IMAGES.error(
                f"{path} {missing}: its arrays are {listed(sorted(found))}; name the one to read, "
                f"as {option}='NAME'"
            )
        member, place = found[wanted[0]], f"{path} ({wanted[0]})"
        if not 0 <= member.header_offset < os.path.getsize(path):
            raise IMAGES.refused(place, "is damaged: it begins beyond the end of the file")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise IMAGES.refused(place, "is packed by another way than deflate")
        if member.flag_bits & _ENCRYPTED:
            raise IMAGES.refused(place, "is packed by a password")
        with archive.open(member) as file:
            shape, stored, start = _header(file, place)
    array = RawArray(place, shape, stored, lambda: _member(path, member.filename, start))
    array.require_bytes(member.file_size - start)
    array.require_packed_bytes(min(member.compress_size, os.path.getsize(path)))
    return array


def _header(file: IO[bytes], place: str) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return shape and type by the header of .npy, and its length in bytes."""
    with damage(place):
        magic = file.read(8)
        version = magic[6] if len(magic) == 8 and magic.startswith(_NPY) else 0
        if version not in _LENGTHS:
            raise IMAGES.refused(place, "is no array of numbers or text as NumPy saves it")
        size = struct.calcsize(_LENGTHS[version])
        prefix = file.read(size)
        length = struct.unpack(_LENGTHS[version], prefix)[0] if len(prefix) == size else 0
        if not 0 < length <= _MOST_HEADER:
            raise IMAGES.refused(
                place, f"has a header of {length:,} bytes, at most 10,000 are read"
            )
        text = io.BytesIO(prefix + file.read(length))
    reads = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
    try:
        shape, in_fortran_order, dtype = reads[version](text)
    except Exception as error:  # NumPy's parsers raise any exception
        raise IMAGES.refused(place, f"has a damaged header ({brief(error)})") from error
    if dtype.hasobject:
        raise IMAGES.error(
            f"{place} holds Python objects, which could run code when they are read; save numbers "
            "or text, as np.save(path, np.array(values.tolist())) does"
        )
    if (
        dtype.kind not in "biufU"
        or not dtype.itemsize
        or (dtype.itemsize > 8 and dtype.kind != "U")
    ):
        raise IMAGES.error(f"{place} holds {dtype}; save numbers, or labels as text")
    if not shape or 0 in shape:
        raise IMAGES.refused(place, f"holds no rows: its shape is {shape} by its header")
    if in_fortran_order and len(shape) > 1:
        raise IMAGES.error(
            f"{place} lies in Fortran order, of which no row can be read alone; save it as "
            "np.save(path, np.ascontiguousarray(X))"
        )
    return shape, dtype, len(magic) + len(text.getvalue())


@contextmanager
def _opened(path: str, start: int) -> Iterator[IO[bytes]]:
    with reading(path, IMAGES) as file:
        file.seek(start)
        yield file


@contextmanager
def _archive(path: str) -> Iterator[zipfile.ZipFile]:
    with reading(path, IMAGES) as file, damage(path), zipfile.ZipFile(file) as archive:
        yield archive


@contextmanager
def _member(path: str, name: str, start: int) -> Iterator[IO[bytes]]:
    with _archive(path) as archive, archive.open(name) as file:
        file.read(start)
        yield file
