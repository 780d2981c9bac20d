"""Running statistics of training rows: the rows of each category."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.tables.values import Vocabulary, in_order


class Counts:
    """A counter of the rows of each code."""

    def __init__(self) -> None:
        self.by_code = np.zeros(0, np.int64)
        self.missing = 0

    def add(self, codes: NDArray[Any]) -> None:
        """Add the codes of rows; a code below 0 is a missing value."""
        known = codes[codes >= 0]
        self.missing += len(codes) - len(known)
        counts = np.bincount(known, minlength=len(self.by_code))
        counts[: len(self.by_code)] += self.by_code
        self.by_code = counts

    def common(self, vocabulary: Vocabulary, least: int = 1) -> list[str]:
        """Return the values that at least `least` rows have, in order."""
        # Codes beyond the counts belong to values without a training row.
        counted = zip(vocabulary.values, self.by_code, strict=False)
        return in_order(value for value, n in counted if n >= least)
