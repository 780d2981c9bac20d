"""Images and labels by their paths: what kind they are, and whether they go together."""

import operator
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.schema import shown
from ooc_train.core.text import counted
from ooc_train.errors import InvalidImages, TableNotFound
from ooc_train.images.idx import is_idx, open_idx
from ooc_train.images.image_folders import FolderImages, has_images
from ooc_train.images.numpy_files import (
    X_NAMES,
    Y_NAMES,
    is_npy,
    is_npz,
    open_npy,
    open_npz,
)
from ooc_train.images.raw_arrays import RawArray

Path = str | os.PathLike[str]

_MOST_SIDE = 2**15
"""Most pixels of a side to which images are scaled."""


class LabelledImages(Protocol):
    """Images and their labels, if there are any, which are read together."""

    @property
    def n_rows(self) -> int:
        """Number of images."""

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of an image."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values of an image."""

    @property
    def label_dtype(self) -> np.dtype[Any] | None:
        """Type of a label; None without labels."""

    @property
    def source(self) -> str:
        """The images in words, or the name of their file, for messages."""

    def decoding_bytes(self, available: int) -> int:
        """Return the bytes to decode an image: at most `available`, or what the first one needs."""

    def within(self, decoding: int) -> "LabelledImages":
        """Return the images with the limit of pixels that so many `decoding_bytes` allow."""

    def pieces(self, rows: int) -> Iterator[tuple[NDArray[Any], NDArray[Any] | None]]:
        """Yield at most `rows` images at a time and their labels, in buffers used again."""


@dataclass(frozen=True)
class ArrayImages:
    """Images and labels in two arrays of raw files, or images alone."""

    X: RawArray
    y: RawArray | None

    @property
    def n_rows(self) -> int:
        """Number of images."""
        return self.X.n_rows

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of an image."""
        return self.X.row_shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values of an image."""
        return self.X.dtype

    @property
    def label_dtype(self) -> np.dtype[Any] | None:
        """Type of a label; None without labels."""
        return None if self.y is None else self.y.dtype

    @property
    def source(self) -> str:
        """Name of the file of labels, or of images without labels, for messages."""
        return (self.y or self.X).name

    def decoding_bytes(self, available: int) -> int:
        """Return 0: pieces are decompressed in place."""
        del available
        return 0

    def within(self, decoding: int) -> "ArrayImages":
        """Return the same images, since they are not decoded."""
        del decoding
        return self

    def pieces(self, rows: int) -> Iterator[tuple[NDArray[Any], NDArray[Any] | None]]:
        """Yield at most `rows` images at a time and their labels, in buffers used again."""
        if self.y is None:
            yield from ((X, None) for X in self.X.pieces(rows))
        else:
            yield from zip(self.X.pieces(rows), self.y.pieces(rows), strict=True)


def are_images(paths: Sequence[Path]) -> bool:
    """Return whether the first of some paths is a file of images, or a folder of them by class.

    Files are told by their first bytes: IDX, packed or not, .npy and .npz. A folder is told by the
    names of files in its folders.
    """
    first = os.fspath(paths[0])
    if os.path.isdir(first):
        return has_images(first)
    return os.path.isfile(first) and any(test(first) for test in (is_idx, is_npy, is_npz))


def open_images(
    images: Path,
    labels: Path | None = None,
    *,
    x: str | None = None,
    y: str | None = None,
    size: tuple[int, int] | str | None = None,
    grayscale: bool = False,
) -> LabelledImages:
    """Return images and labels, of which the headers alone are read.

    The arguments are those of `ingest_images`.

    Raises
    ------
    TableNotFound
        If nothing lies at a path.
    InvalidImages
        If files can't be used, or don't go together.
    ValueError
        If a setting is for other files.
    """
    sides = None if size is None else _sides(size)
    path, of_labels = os.fspath(images), None if labels is None else os.fspath(labels)
    for each in filter(None, (path, of_labels)):
        if not os.path.lexists(each):
            raise TableNotFound(f"there is nothing at {each}; correct the path")
    if os.path.isdir(path):
        if of_labels is not None or x is not None or y is not None:
            raise ValueError(
                f"{path} is a folder, whose folders are the labels; leave labels, x and y out"
            )
        return FolderImages.of(path, size=sides, grayscale=grayscale)
    if size is not None or grayscale:
        raise ValueError(
            f"size and grayscale are for folders of images, and {path} is a file; leave them out"
        )
    X = _array(path, x, X_NAMES, "x")
    _require_images(X)
    if of_labels is None and y is None and not is_npz(path):
        return ArrayImages(X, None)
    found = _array(of_labels or path, y, Y_NAMES, "y")
    _require_labels(X, found)
    return ArrayImages(X, found)


def _sides(size: tuple[int, int] | str) -> tuple[int, int]:
    """Return the width and height that `size` states; `ValueError` unless both are at least 1."""
    try:
        parts = size.split("x") if isinstance(size, str) else map(operator.index, size)
        width, height = (int(part) for part in parts)
    except (TypeError, ValueError):
        width = height = 0
    if not (0 < width < _MOST_SIDE and 0 < height < _MOST_SIDE):
        raise ValueError(
            f"size={shown(size)} is not width and height, such as '28x28', each below "
            f"{_MOST_SIDE:,}"
        )
    return width, height


def _array(path: str, name: str | None, names: Sequence[str], option: str) -> RawArray:
    """Return the array of an IDX, .npy or .npz file, by its header."""
    if is_npz(path):
        return open_npz(path, name, names, option)
    if name is not None:
        raise ValueError(f"{option}={name!r} names an array of .npz, and {path} is none")
    if is_npy(path):
        return open_npy(path)
    if is_idx(path):
        return open_idx(path)
    raise InvalidImages(
        f"{path} is neither IDX nor .npy nor .npz by its first bytes; write it as one of them"
    )


def _require_images(X: RawArray) -> None:
    """Raise `InvalidImages` unless an array has rows of several numbers."""
    if len(X.shape) < 2 or X.dtype.kind not in "biuf":
        raise InvalidImages(
            f"{X.name} holds {X.text}, which are no images but perhaps labels; pass the images "
            "first, then the labels"
        )


def _require_labels(X: RawArray, y: RawArray) -> None:
    """Raise `InvalidImages` unless an array has a label for each image."""
    if len(y.shape) != 1:
        raise InvalidImages(
            f"{y.name} holds {y.text}, and labels are one to an image, of shape (n,); pass the "
            "images first, then the labels"
        )
    if X.n_rows != y.n_rows:
        raise InvalidImages(
            f"{X.name} holds {counted(X.n_rows, 'image')} and {y.name} {y.n_rows:,} labels; pass "
            "the labels "
            "of these images"
        )
