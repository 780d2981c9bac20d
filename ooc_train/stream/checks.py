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
