"""Plots of what a model learned: the importance of columns."""

from typing import TYPE_CHECKING

from ooc_train.plotting.protocols import Importances
from ooc_train.plotting.style import COLORS, INK, shown_name, styled_axes, titled

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def importance(found: Importances, ax: "Axes | None" = None, *, most: int = 20) -> "Axes":
    """Draw by how much the mean loss grows when a column has the values of other rows.

    Parameters
    ----------
    found : Importance
        The importances, as `permutation_importance` returns them.
    ax : Axes or None
        Where to draw; None makes new axes.
    most : int
        Most columns to draw, the most important first.
    """
    import numpy as np

    means, deviations = found.loss_increases.mean(axis=1), found.loss_increases.std(axis=1)
    order = np.argsort(-means, kind="stable")[:most]
    ax = styled_axes(ax, height=1.3 + 0.24 * len(order))
    at = np.arange(len(order))
    error = {"ecolor": INK, "elinewidth": 0.8}
    ax.barh(at, means[order], xerr=deviations[order], color=COLORS[0], error_kw=error)
    ax.set_yticks(at, [shown_name(found.names[i], parsed=False) for i in order], parse_math=False)
    ax.axvline(0, color=INK, lw=0.8)
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("increase of the mean loss, with its deviation over repeats")
    n = len(means)
    if len(order) < n:
        return titled(ax, f"Importance: the {len(order):,} largest of {n:,} columns")
    return titled(ax, f"Importance of {n:,} column{'s' if n > 1 else ''}")
