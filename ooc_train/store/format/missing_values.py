"""Values that attributes declare to be missing."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.errors import DROP_OR_FILL, NonFiniteData


@dataclass(frozen=True, slots=True)
class MissingValues:
    """Values of an array that its attributes declare to be missing.

    Parameters
    ----------
    missing : tuple of (str, scalar)
        Each attribute and the value it declares missing, in the type that readers return.
    low, high : tuple of (str, number), or None
        The attribute and the least or greatest valid value.
    """

    missing: tuple[tuple[str, Any], ...] = ()
    low: tuple[str, float] | None = None
    high: tuple[str, float] | None = None

    def mask(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which values are missing, NaN among them."""
        found = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
        for _, value in self.missing:
            found |= values == value
        if self.low is not None:
            found |= values < self.low[1]
        if self.high is not None:
            found |= values > self.high[1]
        return found

    def require_present(self, values: NDArray[Any], first_row: int, name: str) -> None:
        """Raise `NonFiniteData` if any row holds a missing value.

        The message names the row, its column and the attribute; `first_row` is the row number of
        the first of the values.
        """
        for attribute, value in self.missing:
            why = f"{attribute} marks as missing"
            self._require_none(values == value, values, first_row, name, why)
        if self.low is not None:
            attribute, least = self.low
            why = f"{attribute} declares as missing: it is less than {least:g}"
            self._require_none(values < least, values, first_row, name, why)
        if self.high is not None:
            attribute, most = self.high
            why = f"{attribute} declares as missing: it is more than {most:g}"
            self._require_none(values > most, values, first_row, name, why)

    @staticmethod
    def _require_none(
        is_missing: NDArray[np.bool_], values: NDArray[Any], first_row: int, name: str, why: str
    ) -> None:
        if not is_missing.any():
            return
        row, *column = np.argwhere(is_missing)[0].tolist()
        where = f"column {column[0]} of {name}" if column else name
        value = values[(row, *column)]
        shown = repr(value.item() if hasattr(value, "item") else value)
        raise NonFiniteData(
            f"row {first_row + row} has {shown} in {where}, which the array's {why} (if it is a "
            f"value, correct that metadata); {DROP_OR_FILL}"
        )
