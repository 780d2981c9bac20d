"""The setting `scale` of models: a factor of all columns, or moments of the channels of images."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ooc_train.core.schema import shown
from ooc_train.core.settings import Number

CHANNEL = "channel"
"""The scale by the mean and the standard deviation of each channel."""

_MOST_CHANNELS = 4


@dataclass(frozen=True)
class Factor(Number):
    """A constraint that accepts a number, which text may give as a fraction: 1/255."""

    def _parsed(self, name: str, text: str) -> Any:
        try:
            return float(Fraction(text))
        except (ValueError, ZeroDivisionError, OverflowError):
            return super()._parsed(name, text)


SCALES = Factor((CHANNEL,), above=0.0)
"""The values of the setting."""


def factor_of(scale: float | str) -> float:
    """Return the factor of all columns: 1 if moments scale them."""
    return 1.0 if isinstance(scale, str) else float(scale)


def require_one_scale(scale: float | str, *, standardize: bool) -> None:
    """Raise `ValueError` if both settings, `scale` and `standardize`, would scale the columns."""
    if standardize and scale != 1.0:
        raise ValueError(
            f"scale={shown(scale)} has no effect on columns that standardize=True scales; leave "
            "one of them out"
        )


def channels_of(scale: float | str, row_shape: tuple[int, ...] | None) -> int | None:
    """Return the number of channels whose moments scale images; None for another scale.

    Parameters
    ----------
    scale : float or str
        The setting.
    row_shape : tuple of int or None
        Shape of a row: (height, width) or (height, width, channel). None for plain columns.

    Raises
    ------
    ValueError
        If rows are no images, or seem to have channels first.
    """
    if scale != CHANNEL:
        return None
    if row_shape is None:
        raise ValueError(
            "scale='channel' is for images, rows of shape (height, width) or (height, width, "
            "channel), and these rows have columns; use a number, or standardize=True where the "
            "model has it"
        )
    if len(row_shape) > 2 and row_shape[0] <= _MOST_CHANNELS < row_shape[-1]:
        raise ValueError(
            f"scale='channel' takes the last axis of rows for channels, and rows of the shape "
            f"{row_shape} seem to have channels first; write them as (height, width, channel)"
        )
    return row_shape[-1] if len(row_shape) > 2 else 1
