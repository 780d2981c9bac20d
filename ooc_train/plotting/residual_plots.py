"""Plots of the residuals of a regression."""

from typing import TYPE_CHECKING

from ooc_train.plotting.protocols import Residuals
from ooc_train.plotting.style import COLORS, INK, styled_axes, titled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BARS, _DOTS = 60, 30
"""Bins of equal width: of residuals, and of predictions."""


def residuals(found: Residuals, ax: "Axes | None" = None, *, output: int = 0) -> "Axes":
    """Draw how the residuals are distributed, from their 0.5 % to their 99.5 % quantile.

    Parameters
    ----------
    found : ResidualMetrics
        The metrics, such as `evaluate(model, data)[0]["residuals"]`.
    ax : Axes or None
        Where to draw; None makes new axes.
    output : int
        The column of y.
    """
    import numpy as np

    low, high = (found.quantile(q, output).value for q in (0.005, 0.995))
    low, high = (low, high) if low < high else (low - 0.5, high + 0.5)
    limits = np.linspace(low, high, _BARS + 1)
    ax = styled_axes(ax)
    ax.stairs(100.0 * found.shares(limits, output), limits, fill=True, color=COLORS[0])
    ax.axvline(0, color=INK, lw=0.8)
    ax.set_xlabel("y less the prediction")
    ax.set_ylabel("% of the rows")
    return titled(ax, f"Residuals; mean absolute error {found.mae[output]:.4g}")


def predicted(found: Residuals, ax: "Axes | None" = None, *, output: int = 0) -> "Axes":
    """Draw the mean of y over the mean prediction, in bins of equal width; dots by weight.

    Parameters
    ----------
    found, ax, output
        As for `residuals`.
    """
    import numpy as np

    ax = styled_axes(ax)
    x, y, weight = found.by_prediction(output)
    # Bins of next to no rows would set the limits of the axes.
    is_shown = weight >= 1e-4 * weight.sum()
    x, y, weight = x[is_shown], y[is_shown], weight[is_shown]
    # Bins are narrow near the middle of the predictions, where each would hold a few rows.
    bins = np.searchsorted(np.linspace(x.min(), x.max(), _DOTS + 1)[1:-1], x, side="right")
    total = np.bincount(bins, weight)
    is_taken = total > 0
    x, y = (np.bincount(bins, weight * each)[is_taken] / total[is_taken] for each in (x, y))
    weight = total[is_taken]
    ends = [min(x.min(), y.min()), max(x.max(), y.max())]
    ax.plot(ends, ends, color=INK, lw=0.8, ls=":")
    ax.scatter(x, y, 4 + 80 * np.sqrt(weight / weight.max()), color=COLORS[0], alpha=0.6, lw=0)
    ax.set_xlabel("mean prediction")
    ax.set_ylabel("mean of y")
    return titled(ax, "Mean of y by prediction")
