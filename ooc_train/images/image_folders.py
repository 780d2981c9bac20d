"""A folder of images by class: a folder for each class, whose name is the label.

Pillow decodes the images, and is imported only here. The size of an image is known from its header,
and an image is decoded only if it fits what was planned for it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.files import reading
from ooc_train.core.optional_packages import needed_package
from ooc_train.core.text import brief, counted, listed
from ooc_train.core.units import approximate_bytes
from ooc_train.errors import InvalidImages
from ooc_train.images.raw_arrays import IMAGES

if TYPE_CHECKING:
    from PIL import Image as PillowImage

_FORMATS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "BMP": (".bmp",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
}
"""Pillow's formats that are read, and the endings of their names."""

_SUFFIXES = tuple(suffix for suffixes in _FORMATS.values() for suffix in suffixes)
_GREY, _COLOUR = ("1", "L", "LA"), ("RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr")
_OPAQUE = 255
_ORIENTATION, _ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)
"""The tag of EXIF for the orientation, and its values that exchange width and height."""

PIXEL_BYTES = 24
"""Bytes of a pixel while Pillow decodes and converts an image: three copies of four bytes, and the
coefficients of a progressive JPEG."""

_MOST_PIXELS = 2**26
"""Most pixels of an image, under any ceiling."""

_NAME_BYTES = 400
"""Bytes of a file's name in a list."""


@dataclass(frozen=True)
class FolderImages:
    """The images of a folder, in the order of the names of their classes and files.

    Attributes
    ----------
    path : str
        The folder.
    classes : tuple of str
        Names of the folders in it.
    counts : tuple of int
        Number of images of each class.
    size : tuple of int or None
        Width and height to which images are scaled; None if they have one size.
    grayscale : bool
        Whether colours become shades of grey.
    row_shape : tuple of int
        (height, width), and 3 channels unless images are grey.
    first_pixels : int
        Pixels of the first image.
    most_pixels : int
        Most pixels that an image may have to be decoded.
    """

    path: str
    classes: tuple[str, ...]
    counts: tuple[int, ...]
    size: tuple[int, int] | None
    grayscale: bool
    row_shape: tuple[int, ...]
    first_pixels: int
    most_pixels: int

    @classmethod
    def of(
        cls, path: str, *, size: tuple[int, int] | None = None, grayscale: bool = False
    ) -> "FolderImages":
        """Return the images of a folder, by the names of its files and the header of the first.

        Raises
        ------
        MissingPackage
            If Pillow is not installed.
        InvalidImages
            If a folder of a class is empty or holds other things than images, or the first image
            can't be used.
        """
        _pillow()
        with os.scandir(path) as entries:
            found = [entry for entry in entries if not entry.name.startswith(".")]
        others = sorted(entry.name for entry in found if not entry.is_dir())
        if others:
            raise InvalidImages(
                f"{path} holds {listed(others)} beside folders of classes; leave a folder for each "
                "class in it, and nothing else"
            )
        classes = tuple(sorted(entry.name for entry in found))
        counts = tuple(len(_names(os.path.join(path, name))) for name in classes)
        if not classes:
            raise InvalidImages(
                f"{path} holds no folders; leave a folder of images for each class in it"
            )
        first = os.path.join(path, classes[0], _names(os.path.join(path, classes[0]))[0])
        with _opened(first) as image:
            grey = grayscale or image.mode in _GREY
            width_and_height = size or _upright_size(image)
            pixels = image.width * image.height
        if pixels > _MOST_PIXELS:
            raise _too_large(first, pixels, _MOST_PIXELS)
        shape = (*reversed(width_and_height), *(() if grey else (3,)))
        return cls(path, classes, counts, size, grayscale, shape, pixels, _MOST_PIXELS)

    @property
    def n_rows(self) -> int:
        """Number of images."""
        return sum(self.counts)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel."""
        return np.dtype(np.uint8)

    @property
    def label_dtype(self) -> np.dtype[Any]:
        """Type of the labels: text."""
        return np.dtype(f"<U{max(map(len, self.classes))}")

    @property
    def source(self) -> str:
        """The images in words, for messages."""
        return f"{counted(self.n_rows, 'image')} in {counted(len(self.classes), 'folder')}"

    def decoding_bytes(self, available: int) -> int:
        """Return the bytes to decode an image: at most `available`, or what the first one needs."""
        most = _MOST_PIXELS if self.size is not None else self.first_pixels
        pixels = max(self.first_pixels, min(most, available // PIXEL_BYTES))
        return PIXEL_BYTES * pixels + _NAME_BYTES * max(self.counts)

    def within(self, decoding: int) -> "FolderImages":
        """Return the images with the `most_pixels` that so many `decoding_bytes` allow."""
        pixels = (decoding - _NAME_BYTES * max(self.counts)) // PIXEL_BYTES
        return replace(self, most_pixels=pixels)

    def pieces(self, rows: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Yield at most `rows` images at a time and their labels, in buffers used again.

        Raises
        ------
        InvalidImages
            If an image is damaged, has more pixels than were planned for, another size than the
            first without `size`, colours beside grey images, 16 bits, or transparent pixels.
        """
        X = np.empty((rows, *self.row_shape), self.dtype)
        labels = np.empty(rows, self.label_dtype)
        filled = 0
        for path, label in self._files():
            X[filled], labels[filled] = self._decoded(path), label
            filled += 1
            if filled == rows:
                yield X, labels
                filled = 0
        if filled:
            yield X[:filled], labels[:filled]

    def _files(self) -> Iterator[tuple[str, str]]:
        """Yield path and label of each image."""
        for label, count in zip(self.classes, self.counts, strict=True):
            folder = os.path.join(self.path, label)
            names = _names(folder)
            if len(names) != count:
                raise InvalidImages(f"{folder} was changed while it was read; ingest it again")
            for name in names:
                yield os.path.join(folder, name), label

    def _decoded(self, path: str) -> NDArray[Any]:
        """Return the pixels of an image, of the shape `row_shape`."""
        with _opened(path) as image:
            if (pixels := image.width * image.height) > self.most_pixels:
                raise _too_large(path, pixels, self.most_pixels)
            size = _upright_size(image)
            if self.size is None and size != tuple(self.row_shape[1::-1]):
                width, height = self.row_shape[1::-1]
                raise InvalidImages(
                    f"{path} has {size[0]:,} x {size[1]:,} pixels, and images before it "
                    f"{width:,} x {height:,}; scale all to one, as size='{width}x{height}' does"
                )
            if len(self.row_shape) == 2 and not self.grayscale and image.mode not in _GREY:
                raise InvalidImages(
                    f"{path} has colours, and images before it are grey; make all grey by "
                    "grayscale=True"
                )
            return np.asarray(self._converted(image, path))

    def _converted(self, image: "PillowImage.Image", path: str) -> "PillowImage.Image":
        """Return an image turned upright, in grey or colours, scaled to `size` if it is set."""
        from PIL import Image, ImageOps

        image = ImageOps.exif_transpose(image)
        if "A" in image.getbands() or "transparency" in image.info:
            image = image.convert("RGBA")
            if image.getchannel("A").getextrema() != (_OPAQUE, _OPAQUE):
                raise InvalidImages(
                    f"{path} has transparent pixels, which have no colour; put them on a "
                    "background first"
                )
        image = image.convert("L" if len(self.row_shape) == 2 else "RGB")
        if self.size is not None and image.size != self.size:
            image = image.resize(self.size, Image.Resampling.BILINEAR)
        return image


@contextmanager
def _opened(path: str) -> Iterator["PillowImage.Image"]:
    """Open an image, of which the header alone is read at first; a context manager.

    `InvalidImages` is raised if Pillow can't read it, there or within the context.
    """
    image_of = _pillow()
    with reading(path, IMAGES) as file:
        try:
            with image_of.open(file, formats=list(_FORMATS)) as image:
                _require_usable(image, path)
                yield image
        except (InvalidImages, MemoryError):
            raise
        except (image_of.DecompressionBombError, image_of.DecompressionBombWarning) as error:
            raise InvalidImages(f"{path} is too large ({brief(error)}); scale it down") from error
        except Exception as error:  # decoders raise any exception
            raise IMAGES.refused(path, f"can't be decoded ({brief(error)})") from error


def _require_usable(image: "PillowImage.Image", path: str) -> None:
    if image.mode not in _GREY + _COLOUR:
        raise InvalidImages(
            f"{path} has pixels of the kind {image.mode}, and 8 bits a colour are read; convert "
            "it, or save such images as .npy"
        )
    if getattr(image, "is_animated", False):
        raise InvalidImages(f"{path} holds several images; save one of them")


def _upright_size(image: "PillowImage.Image") -> tuple[int, int]:
    """Return width and height of an image after the turn that its orientation tag asks for."""
    turned = image.getexif().get(_ORIENTATION, 1) in _ON_ITS_SIDE
    return (image.height, image.width) if turned else (image.width, image.height)


def _too_large(path: str, pixels: int, most: int) -> InvalidImages:
    return InvalidImages(
        f"{path} has {pixels:,} pixels, about {approximate_bytes(PIXEL_BYTES * pixels)} to decode, "
        f"and at most {most:,} pixels are decoded; scale it down"
        + (", or raise the memory ceiling" if most < _MOST_PIXELS else "")
    )


def _pillow() -> Any:
    """Return `PIL.Image`."""
    with needed_package("PIL", "folders of images", "pillow"):
        from PIL import Image
    return Image


def has_images(path: str) -> bool:
    """Return whether a folder holds folders only, one of which has a file named as an image."""
    with os.scandir(path) as entries:
        found = [entry for entry in entries if not entry.name.startswith(".")]
    return all(entry.is_dir() for entry in found) and any(
        name.lower().endswith(_SUFFIXES) for entry in found for name in os.listdir(entry)
    )


def _names(folder: str) -> list[str]:
    """Return the sorted names of the images in the folder of a class."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    others = [name for name in names if not name.lower().endswith(_SUFFIXES)]
    if others or not names:
        what = f"holds {listed(others)}, by the name no image" if others else "holds no image"
        raise InvalidImages(f"{folder} {what}; leave out what is none, and folders without images")
    return names
