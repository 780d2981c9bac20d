"""The base of augmentations, and the axes of images."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ooc_train.augmentation.row_draws import RowDraws
from ooc_train.core.sums import Workspace
from ooc_train.core.text import counted

Rows = NDArray[Any]

_MOST_CHANNELS = 4


@dataclass(frozen=True)
class Augmentation(ABC):
    """How training rows are changed at random, anew in each epoch.

    To write one: a frozen dataclass with a `name` and the method ``__call__(rows, random)``, and
    ``@AUGMENTATIONS.add`` above it, so that runs can be saved. Its fields are its settings. It is
    sent to the workers, so it must be pickled.

    Attributes
    ----------
    name : str
        Its name in `AUGMENTATIONS` and on the command line.
    needs_images : bool
        Whether rows have to be images, of shape (height, width) or (height, width, channel).
    stays_finite : bool
        Whether finite rows stay finite whatever is drawn, so that results are not checked.
    copies : float
        Copies of the rows that a call allocates at most, for the plan of memory.
    """

    name: ClassVar[str]
    needs_images: ClassVar[bool] = False
    stays_finite: ClassVar[bool] = False
    copies: ClassVar[float] = 4.0

    @abstractmethod
    def __call__(self, rows: Rows, random: RowDraws) -> Rows:
        """Return the changed rows; they may be changed in place.

        Parameters
        ----------
        rows : float32 or float64 array (rows, *row_shape)
            Rows of a batch, or of a part of one, in units of the data: before any scaling.
        random : RowDraws
            Random numbers for each row: ``random.uniform()``, ``integers(low, high)`` and
            ``normal()`` have a row's numbers in its place of their first axis. They follow from
            seed, epoch and the row's number. A result may depend on these and on the row alone.
        """

    def require(self, row_shape: tuple[int, ...]) -> None:
        """Raise `ValueError` if rows of this shape cannot be changed."""
        if self.needs_images:
            Axes.of(row_shape, self)

    def workspace(self, rows: int, row_shape: tuple[int, ...], dtype: str) -> Workspace:
        """Return the arrays that a call gets as `random.scratch`, as specs, for `rows` rows."""
        del rows, row_shape, dtype
        return {}

    def made_bytes(self, rows: int, row_shape: tuple[int, ...], dtype: str) -> int:
        """Return the bytes that a call allocates beside its workspace, for `rows` rows."""
        return int(self.copies * rows * math.prod(row_shape) * np.dtype(dtype).itemsize)

    def __str__(self) -> str:
        """Return name and settings as text, which `AUGMENTATIONS.parse` accepts."""
        settings = [f"{each.name}={getattr(self, each.name)}" for each in fields(self)]
        return ":".join(filter(None, [self.name, ",".join(settings)]))


@dataclass(frozen=True)
class Axes:
    """The sizes of images, and where their channels are.

    Attributes
    ----------
    height, width, channels : int
        Sizes; 1 channel where an image has none.
    is_first : bool
        Whether the channels are the first axis of a row.
    """

    height: int
    width: int
    channels: int = 1
    is_first: bool = False

    @classmethod
    def of(cls, row_shape: tuple[int, ...], augmentation: Augmentation) -> "Axes":
        """Return the axes of rows; raise `ValueError` if they are no images."""
        if len(row_shape) == 2:
            return cls(*row_shape)
        if len(row_shape) == 3:
            if row_shape[-1] <= _MOST_CHANNELS:
                return cls(*row_shape)
            if row_shape[0] <= _MOST_CHANNELS:
                return cls(row_shape[1], row_shape[2], row_shape[0], True)
        found = counted(row_shape[0], "column") if len(row_shape) == 1 else f"the shape {row_shape}"
        raise ValueError(
            f"augment='{augmentation}' needs images, rows of shape (height, width) or (height, "
            f"width, channel), and these rows have {found}; use a store of images, or 'noise' or "
            "'mixup' alone"
        )

    def view(self, rows: Rows) -> Rows:
        """Return rows as a view of shape (rows, height, width, channels)."""
        if self.is_first:
            return np.moveaxis(rows, 1, 3)
        return rows.reshape(len(rows), self.height, self.width, self.channels)


def require_share(augmentation: Augmentation, name: str) -> None:
    """Raise `ValueError` unless a setting is a number from 0 to 1."""
    value = getattr(augmentation, name)
    if not _is_number(value) or not 0.0 <= value <= 1.0:
        raise ValueError(f"{name}={value!r} of {augmentation.name!r} is not a number from 0 to 1")


def require_above(augmentation: Augmentation, name: str) -> None:
    """Raise `ValueError` unless a setting is a finite number above 0."""
    value = getattr(augmentation, name)
    if not _is_number(value) or not 0.0 < value < math.inf:
        raise ValueError(f"{name}={value!r} of {augmentation.name!r} is not a number above 0")


def require_finite(augmentation: Augmentation, name: str) -> None:
    """Raise `ValueError` unless a setting is a finite number."""
    value = getattr(augmentation, name)
    if not _is_number(value) or not math.isfinite(value):
        raise ValueError(f"{name}={value!r} of {augmentation.name!r} is not a finite number")


def require_pixels(augmentation: Augmentation, name: str) -> None:
    """Raise `ValueError` unless a setting is a whole number above 0; make it an int."""
    value = getattr(augmentation, name)
    if not _is_number(value) or value < 1 or value != value // 1 or value > 2**31:
        raise ValueError(
            f"{name}={value!r} of {augmentation.name!r} is not a whole number of at least 1"
        )
    object.__setattr__(augmentation, name, int(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
