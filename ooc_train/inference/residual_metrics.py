"""Residuals of a regression: absolute errors, quantiles, and means by prediction, from bins.

Bins are relative: each power of two is cut into equal parts. So they need no range beforehand, and
a quantile is known to within a share of its own size.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.schema import shown
from ooc_train.core.sums import Array, Sums
from ooc_train.core.text import html_table
from ooc_train.plotting import residual_plots

_FINE, _COARSE = 64, 8
"""Bins of a power of two: of residuals, and of predictions."""

_MOST_EXPONENT = 64
"""Numbers from 2**-64 to 2**64 in size have bins; smaller ones count as 0, larger ones as infinite.
"""

_LEVELS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
"""Quantiles of the table."""

_PLOTS = ("residuals", "predicted")


class Quantile(NamedTuple):
    """A quantile, and a bound of its error."""

    value: float
    error: float


class ByPrediction(NamedTuple):
    """Rows by bins of their predictions, in ascending order.

    Attributes
    ----------
    predicted, observed : float64 array (bins,)
        Mean prediction and mean y. Bins without weight are left out.
    weight : float64 array (bins,)
        Weight of the rows.
    """

    predicted: Array
    observed: Array
    weight: Array


def residual_zeros(outputs: int) -> Sums:
    """Return the sums of residuals over no rows, all zero."""
    return {
        "absolute": np.zeros(outputs),
        "residuals": np.zeros((outputs, _n_bins(_FINE))),
        "predictions": np.zeros((outputs, 3, _n_bins(_COARSE))),
    }


def add_residuals(sums: Sums, y: Array, predicted: Array, about: Array, weight: Array) -> None:
    """Add residuals y - predicted, (rows, outputs), into `sums`, in place.

    Predictions are counted by their difference from `about`, (outputs,).
    """
    for k in range(y.shape[1]):
        residual = y[:, k] - predicted[:, k]
        sums["absolute"][k] += weight @ np.abs(residual)
        np.add.at(sums["residuals"][k], _bins(residual, _FINE), weight)
        bins = _bins(predicted[:, k] - about[k], _COARSE)
        values = weight, weight * predicted[:, k], weight * y[:, k]
        for total, value in zip(sums["predictions"][k], values, strict=True):
            np.add.at(total, bins, value)


def _n_bins(parts: int) -> int:
    """Return the number of bins: of negative numbers, of 0, and of positive numbers."""
    return 2 * _sized(parts) + 1


def _sized(parts: int) -> int:
    # One bin more for sizes beyond the largest.
    return 2 * _MOST_EXPONENT * parts + 1


def _bins(values: Array, parts: int) -> NDArray[np.intp]:
    """Return the bin of each number, in ascending order of the numbers."""
    share, exponent = np.frexp(np.abs(values))
    place = (exponent - 1 + _MOST_EXPONENT) * parts + (2.0 * share - 1.0) * parts
    size = np.clip(np.floor(place) + 1.0, 0, _sized(parts)).astype(np.intp)
    size[values == 0.0] = 0
    return _sized(parts) + np.where(values < 0.0, -size, size)


def _edges(parts: int) -> Array:
    """Return the lower limit of the size of each bin but 0, and that of larger ones."""
    exponent, part = np.divmod(np.arange(_sized(parts)), parts)
    limits = np.ldexp(1.0 + part / parts, exponent - _MOST_EXPONENT)
    return np.append(limits, np.inf)


@dataclass(frozen=True, eq=False, repr=False)
class ResidualMetrics:
    """Metrics of the residuals, y less the prediction; a row counts by its weight.

    Attributes
    ----------
    mae : float64 array (outputs,)
        Mean absolute error.
    histogram : float64 array (outputs, bins)
        Weight of the rows by their residual.
    predictions : float64 array (outputs, 3, bins)
        By prediction: weight of the rows, sum of the predictions, and sum of y.
    """

    mae: Array
    histogram: Array
    predictions: Array

    @classmethod
    def of(cls, sums: Sums) -> "ResidualMetrics":
        """Return the metrics from sums over all rows."""
        return cls(sums["absolute"] / sums["weight"], sums["residuals"], sums["predictions"])

    def rows(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return head and rows of a table of quantiles, with the bounds of their errors."""
        several = len(self.mae) > 1
        rows: list[tuple[str, ...]] = []
        for k in range(len(self.mae)):
            for q in _LEVELS:
                value, error = self.quantile(q, k)
                name = f"{q:.0%} quantile" + (f" of output {k}" if several else "")
                rows.append((name, f"{value:.6g}", f"{error:.1g}"))
        return ("y less the prediction", "value", "within"), rows

    def __repr__(self) -> str:
        errors = ", ".join(f"{each:.4g}" for each in self.mae)
        return f"<ResidualMetrics: mean absolute error {errors}>"

    def _repr_html_(self) -> str:
        """Return the quantiles as an HTML table, for notebooks."""
        head, rows = self.rows()
        return html_table(rows, head)

    def quantile(self, q: float, output: int = 0) -> Quantile:
        """Return a quantile of the residuals: the least one that a share `q` does not exceed.

        Raises
        ------
        ValueError
            If `q` is not from 0 to 1, or no row has a weight.
        """
        if not 0.0 <= q <= 1.0:
            raise ValueError(f"q={shown(q)} is not from 0 to 1")
        weight = np.cumsum(self.histogram[output])
        if not weight[-1] > 0.0:
            raise ValueError("no row has a weight, so that there is no quantile")
        taken = np.flatnonzero(self.histogram[output])
        reached = taken[np.searchsorted(weight[taken], q * weight[-1])]
        low, high = self._limits(int(reached))
        if np.isinf(low) or np.isinf(high):
            return Quantile(low if np.isinf(high) else high, np.inf)
        return Quantile((low + high) / 2.0, (high - low) / 2.0)

    @staticmethod
    def _limits(place: int) -> tuple[float, float]:
        """Return the least and the largest number of a bin."""
        edges, size = _edges(_FINE), place - _sized(_FINE)
        if size == 0:
            return -float(edges[0]), float(edges[0])
        low, high = float(edges[abs(size) - 1]), float(edges[abs(size)])
        return (low, high) if size > 0 else (-high, -low)

    def by_prediction(self, output: int = 0) -> ByPrediction:
        """Return the mean of y by bins of the prediction."""
        weight, predicted, observed = self.predictions[output]
        is_taken = weight > 0.0
        weight = weight[is_taken]
        return ByPrediction(predicted[is_taken] / weight, observed[is_taken] / weight, weight)

    def shares(self, limits: Array, output: int = 0) -> Array:
        """Return the share of the weight between limits, by the middles of the bins.

        `limits` are ascending, (n + 1,), and the result is (n,).
        """
        edges = _edges(_FINE)
        middles = (edges[:-2] + edges[1:-1]) / 2.0
        places = np.concatenate([[-np.inf], -middles[::-1], [0.0], middles, [np.inf]])
        found, _ = np.histogram(places[1:-1], limits, weights=self.histogram[output][1:-1])
        return np.asarray(found / self.histogram[output].sum())

    def plot(self, kind: str = "residuals", ax: Any = None, *, output: int = 0) -> Any:
        """Draw one of the plots of residuals, and return the axes.

        Parameters
        ----------
        kind : {"residuals", "predicted"}
            How residuals are distributed; or the mean of y by prediction.
        ax : matplotlib.axes.Axes or None
            Where to draw; None makes new axes.
        output : int
            The column of y.
        """
        if kind not in _PLOTS:
            raise ValueError(f"kind={shown(kind)} is none of {', '.join(map(repr, _PLOTS))}")
        return getattr(residual_plots, kind)(self, ax, output=output)

    @property
    def plots(self) -> list[Any]:
        """The functions that draw each kind of plot on axes."""
        return [partial(self.plot, kind) for kind in _PLOTS]

    def to_json(self) -> dict[str, Any]:
        """Return mean absolute errors, and quantiles with their bounds, as JSON values."""
        outputs = range(len(self.mae))
        return {
            "mae": self.mae.tolist(),
            "quantiles": [{str(q): self.quantile(q, k).value for q in _LEVELS} for k in outputs],
            "quantile_errors": [
                {str(q): self.quantile(q, k).error for q in _LEVELS} for k in outputs
            ],
        }
