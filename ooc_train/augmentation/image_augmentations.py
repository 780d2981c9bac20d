"""Augmentations of images: shift, crop, flip and cutout."""

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from ooc_train.augmentation.augmentation import (
    Augmentation,
    Axes,
    Rows,
    require_finite,
    require_pixels,
    require_share,
)
from ooc_train.augmentation.row_draws import RowDraws
from ooc_train.core.sums import ArraySpec, Workspace


@dataclass(frozen=True)
class ImageAugmentation(Augmentation):
    """The base of augmentations that move or fill pixels, vectorised over the images."""

    needs_images: ClassVar[bool] = True
    stays_finite: ClassVar[bool] = True

    def made_bytes(self, rows: int, row_shape: tuple[int, ...], dtype: str) -> int:
        """Return the bytes that a call allocates: figures for each line and column of an image."""
        del dtype
        axes = Axes.of(row_shape, self)
        return 64 * rows * (8 + axes.height + axes.width)


@dataclass(frozen=True)
class Shift(ImageAugmentation):
    """A shift by up to so many pixels along both axes; the same as padding and a random crop.

    Attributes
    ----------
    pixels : int
        The largest shift. Each whole number from -pixels to pixels is equally likely.
    fill : float
        The value of pixels without a source, in units of the data.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from ooc_train import Shift, MLPClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> model = MLPClassifier((16,), augment=Shift(2), max_iter=2, tol=0.0, random_state=0)
    >>> images = X.reshape(-1, 8, 8)
    >>> model = model.fit(images, y)
    >>> model.n_iter_
    2
    """

    pixels: int = 2
    fill: float = 0.0

    name: ClassVar[str] = "shift"

    def __post_init__(self) -> None:
        require_pixels(self, "pixels")
        require_finite(self, "fill")

    def require(self, row_shape: tuple[int, ...]) -> None:
        """Raise `ValueError` if rows are no images, or shifts may leave none of a pixel."""
        axes = Axes.of(row_shape, self)
        if self.pixels >= min(axes.height, axes.width):
            raise ValueError(
                f"augment='{self}' may shift images of {axes.height} x {axes.width} pixels out of "
                "sight; use fewer pixels"
            )

    def workspace(self, rows: int, row_shape: tuple[int, ...], dtype: str) -> Workspace:
        """Return the arrays for images with a border, the places to take, and what is taken."""
        axes = Axes.of(row_shape, self)
        height, width = axes.height + 2 * self.pixels, axes.width + 2 * self.pixels
        return {
            "padded": ArraySpec((rows, height, width, axes.channels), dtype),
            "places": ArraySpec((rows, axes.height * axes.width), "<i8"),
            "taken": ArraySpec((rows, axes.height * axes.width, axes.channels), dtype),
        }

    def __call__(self, rows: Rows, random: RowDraws) -> Rows:
        """Return the shifted rows."""
        axes, reach = Axes.of(rows.shape[1:], self), self.pixels
        images, padded = axes.view(rows), random.scratch["padded"]
        padded[...] = self.fill
        padded[:, reach : reach + axes.height, reach : reach + axes.width] = images
        width = padded.shape[2]
        shift = random.integers(-reach, reach + 1, (2,))
        first = np.arange(len(rows)) * prod(padded.shape[1:3])
        first += (reach - shift[:, 0]) * width + reach - shift[:, 1]
        within = np.arange(axes.height)[:, None] * width + np.arange(axes.width)
        np.add(first[:, None], within.reshape(-1), out=random.scratch["places"])
        _take(images, padded, random)
        return rows


def _take(images: Rows, source: Rows, random: RowDraws) -> None:
    """Write to the images the pixels of `source` at the scratch array "places"."""
    places, taken = random.scratch["places"], random.scratch["taken"]
    pixels = source.reshape(-1, source.shape[-1])
    # Any mode but "raise" lets take write straight into `out`.
    if pixels.shape[1] == 1:  # numbers take half the time of rows of one number
        np.take(pixels.reshape(-1), places, out=taken[:, :, 0], mode="clip")
    else:
        np.take(pixels, places, axis=0, out=taken, mode="clip")
    images[...] = taken.reshape(images.shape)


@dataclass(frozen=True)
class Crop(ImageAugmentation):
    """A random part of the image, enlarged to the whole by the nearest pixels.

    Attributes
    ----------
    least : float
        The smallest share of height and of width that is kept. The share is uniform from there to
        1, the same for both axes, and so is the place.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from ooc_train import Crop, MLPClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> model = MLPClassifier((16,), augment=Crop(0.8), max_iter=2, tol=0.0, random_state=0)
    >>> images = X.reshape(-1, 8, 8)
    >>> model = model.fit(images, y)
    >>> model.n_iter_
    2
    """

    least: float = 0.8

    name: ClassVar[str] = "crop"

    def __post_init__(self) -> None:
        require_share(self, "least")
        if not self.least:
            raise ValueError(f"least={self.least!r} of 'crop' leaves no pixel; use one above 0")

    def workspace(self, rows: int, row_shape: tuple[int, ...], dtype: str) -> Workspace:
        """Return the arrays for the images, the places to take, and what is taken."""
        axes = Axes.of(row_shape, self)
        sizes = (rows, axes.height * axes.width)
        shape = (*sizes, axes.channels)
        return {
            "source": ArraySpec(shape, dtype),
            "places": ArraySpec(sizes, "<i8"),
            "taken": ArraySpec(shape, dtype),
        }

    def __call__(self, rows: Rows, random: RowDraws) -> Rows:
        """Return the cropped rows."""
        axes = Axes.of(rows.shape[1:], self)
        images, source = axes.view(rows), random.scratch["source"]
        source.reshape(images.shape)[...] = images
        share = random.uniform(self.least, 1.0)
        corner = random.uniform(shape=(2,)) * (1.0 - share[:, None])
        lines, columns = (
            np.minimum(
                (size * (corner[:, i, None] + share[:, None] * (np.arange(size) + 0.5) / size)),
                size - 1,
            ).astype(np.int64)
            for i, size in enumerate((axes.height, axes.width))
        )
        lines += np.arange(len(rows))[:, None] * axes.height
        lines *= axes.width
        places = random.scratch["places"].reshape(len(rows), axes.height, axes.width)
        np.add(lines[:, :, None], columns[:, None, :], out=places)
        _take(images, source, random)
        return rows


@dataclass(frozen=True)
class Flip(ImageAugmentation):
    """Images mirrored left to right, and top to bottom.

    Attributes
    ----------
    horizontal, vertical : float
        Probability that left and right, and that top and bottom, are exchanged.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from ooc_train import Flip, MLPClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> model = MLPClassifier((16,), augment=Flip(), max_iter=2, tol=0.0, random_state=0)
    >>> images = X.reshape(-1, 8, 8)
    >>> model = model.fit(images, y)
    >>> model.n_iter_
    2
    """

    horizontal: float = 0.5
    vertical: float = 0.0

    name: ClassVar[str] = "flip"

    def __post_init__(self) -> None:
        for name in ("horizontal", "vertical"):
            require_share(self, name)

    def workspace(self, rows: int, row_shape: tuple[int, ...], dtype: str) -> Workspace:
        """Return the array for mirrored images."""
        axes = Axes.of(row_shape, self)
        return {"mirrored": ArraySpec((rows, axes.height, axes.width, axes.channels), dtype)}

    def __call__(self, rows: Rows, random: RowDraws) -> Rows:
        """Return the flipped rows."""
        images = Axes.of(rows.shape[1:], self).view(rows)
        mirrored, drawn = random.scratch["mirrored"], random.uniform(shape=(2,))
        for i, probability, reversed_images in (
            (0, self.horizontal, images[:, :, ::-1]),
            (1, self.vertical, images[:, ::-1]),
        ):
            if probability:
                mirrored[...] = reversed_images
                flips = drawn[:, i] < probability
                np.copyto(images, mirrored, where=flips[:, None, None, None])
        return rows


@dataclass(frozen=True)
class Cutout(ImageAugmentation):
    """A square of each image filled with one value (DeVries and Taylor 2017).

    Attributes
    ----------
    pixels : int
        Side of the square. Its centre is any pixel, and what lies outside of the image is lost.
    fill : float
        The value, in units of the data.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from ooc_train import Cutout, MLPClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> model = MLPClassifier((16,), augment=Cutout(3), max_iter=2, tol=0.0, random_state=0)
    >>> images = X.reshape(-1, 8, 8)
    >>> model = model.fit(images, y)
    >>> model.n_iter_
    2
    """

    pixels: int = 8
    fill: float = 0.0

    name: ClassVar[str] = "cutout"

    def __post_init__(self) -> None:
        require_pixels(self, "pixels")
        require_finite(self, "fill")

    def require(self, row_shape: tuple[int, ...]) -> None:
        """Raise `ValueError` if rows are no images, or smaller than the square."""
        axes = Axes.of(row_shape, self)
        if self.pixels >= max(axes.height, axes.width):
            raise ValueError(
                f"augment='{self}' may fill all of an image of {axes.height} x {axes.width} "
                "pixels; use a smaller square"
            )

    def workspace(self, rows: int, row_shape: tuple[int, ...], dtype: str) -> Workspace:
        """Return the array for the mask of the squares."""
        del dtype
        axes = Axes.of(row_shape, self)
        return {"square": ArraySpec((rows, axes.height, axes.width, 1), "|b1")}

    def __call__(self, rows: Rows, random: RowDraws) -> Rows:
        """Return the rows with filled squares."""
        axes = Axes.of(rows.shape[1:], self)
        inside = []
        for size in (axes.height, axes.width):
            first = random.integers(0, size)[:, None] - self.pixels // 2
            places = np.arange(size)
            inside.append((first <= places) & (places < first + self.pixels))
        square = random.scratch["square"]
        np.logical_and(inside[0][:, :, None, None], inside[1][:, None, :, None], out=square)
        np.copyto(axes.view(rows), self.fill, where=square)
        return rows
