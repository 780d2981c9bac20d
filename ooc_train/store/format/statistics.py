"""Mean, scale and range of each column, computed while a store is written."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

_BY_COLUMN = ("mean", "scale", "minimum", "maximum")


@dataclass(frozen=True)
class ColumnStatistics:
    """Statistics of the columns of X.

    Parameters
    ----------
    mean, scale : ndarray of float64, shape (feature,)
        Mean and population standard deviation, weighted if `weighted`.
    minimum, maximum : ndarray of float64, shape (feature,)
        Range over all rows, whatever their weights.
    weight : float
        Sum of the weights; the number of rows unless `weighted`.
    weighted : bool
        Whether mean and scale use the store's weights.
    """

    mean: Vector
    scale: Vector
    minimum: Vector
    maximum: Vector
    weight: float
    weighted: bool

    def to_json(self) -> dict[str, Any]:
        """Return JSON values from which `from_json` makes the same bits."""
        columns = {name: getattr(self, name).tolist() for name in _BY_COLUMN}
        return {**columns, "weight": self.weight, "weighted": self.weighted}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ColumnStatistics":
        """Return the statistics whose `to_json` made these values."""
        columns = {name: np.asarray(values[name], np.float64) for name in _BY_COLUMN}
        return cls(**columns, weight=float(values["weight"]), weighted=bool(values["weighted"]))


class StatisticsSum:
    """Computes `ColumnStatistics` from chunks.

    Each chunk's mean and squared deviations are merged by the update of Chan, Golub and LeVeque
    (1979). The update doesn't lose digits where a mean is large against its scale. It uses no BLAS,
    whose bits depend on the number of threads.

    Parameters
    ----------
    weighted : bool
        Whether `add` receives weights.
    """

    def __init__(self, n_features: int, *, weighted: bool) -> None:
        self._weighted = weighted
        self._weight = 0.0
        self._mean = np.zeros(n_features)
        self._squares = np.zeros(n_features)
        self._minimum = np.full(n_features, np.inf)
        self._maximum = np.full(n_features, -np.inf)

    def resume(self, known: ColumnStatistics) -> None:
        """Begin with the statistics of rows that were added before."""
        self._weight, self._mean = known.weight, known.mean.copy()
        self._squares = known.scale**2 * known.weight
        self._minimum, self._maximum = known.minimum.copy(), known.maximum.copy()

    def add(self, X: NDArray[Any], weight: NDArray[Any] | None) -> None:
        """Add the rows of a chunk, all finite, and their weights if the sum is `weighted`."""
        np.minimum(self._minimum, X.min(axis=0), out=self._minimum)
        np.maximum(self._maximum, X.max(axis=0), out=self._maximum)
        total = float(len(X)) if weight is None else float(weight.sum(dtype=np.float64))
        if total > 0:
            # Values near the largest float overflow; `result` replaces infinities.
            with np.errstate(over="ignore", invalid="ignore"):
                self._merge(X.astype(np.float64), weight, total)

    def _merge(self, deviation: Vector, weight: NDArray[Any] | None, total: float) -> None:
        column = None if weight is None else weight[:, np.newaxis]
        mean = (deviation if column is None else deviation * column).sum(axis=0) / total
        deviation -= mean
        np.square(deviation, out=deviation)
        if column is not None:
            deviation *= column
        shift = mean - self._mean
        merged = self._weight + total
        self._squares += deviation.sum(axis=0) + shift**2 * (self._weight * total / merged)
        self._mean += shift * (total / merged)
        self._weight = merged

    def result(self) -> ColumnStatistics:
        """Return the statistics of all rows added.

        Mean and scale are 0 if every weight was 0. Where they overflow, they are the largest float,
        which JSON can hold.
        """
        scale = np.sqrt(self._squares / self._weight) if self._weight else np.zeros_like(self._mean)
        largest = np.finfo(np.float64).max
        return ColumnStatistics(
            mean=np.nan_to_num(self._mean, nan=largest),
            scale=np.nan_to_num(scale, nan=largest),
            minimum=self._minimum.copy(),
            maximum=self._maximum.copy(),
            weight=self._weight,
            weighted=self._weighted,
        )
