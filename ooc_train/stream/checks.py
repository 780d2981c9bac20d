"""Checks of values, which refuse the first bad value with its row."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.errors import DROP_OR_FILL, NonFiniteData


def require_finite(values: NDArray[Any], start: int, name: str) -> None:
    """Raise `NonFiniteData` for NaN or infinity; `start` is the row number of the first value."""
    finite = np.isfinite(values)
    if not finite.all():
        row = int(np.argmin(finite))
        raise NonFiniteData(f"row {start + row} has {values[row]} in {name}; {DROP_OR_FILL}")


def require_weights(values: NDArray[Any], start: int) -> None:
    """Raise if a weight is negative or not finite; `start` is the row number of the first."""
    require_finite(values, start, "sample_weight")
    if (values < 0).any():
        row = int(np.argmax(values < 0))
        raise ValueError(f"row {start + row} has the weight {values[row]:g}; weights are >= 0")


def not_one_column(shape: tuple[int, ...], name: str = "y has") -> str:
    """Return why labels of this shape are refused, and what makes one column of them."""
    which = "take one of them, y[:, 0]; of one-hot columns, y.argmax(axis=1)"
    return f"{name} shape {shape}: labels are one column; {which}"
