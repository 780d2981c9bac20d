"""Plots of what a model learned: the importance of columns, and how predictions follow them."""

from typing import TYPE_CHECKING

from ooc_train.core.text import counted
from ooc_train.plotting.protocols import Dependence, Importances
from ooc_train.plotting.style import COLORS, INK, shown_name, styled_axes, titled

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_MOST_OUTPUTS, _MOST_LETTERS = 6, 60
"""Most outputs that are drawn, and letters of names that fit below the axis."""


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
        return titled(ax, f"Importance: the {len(order):,} largest of {counted(n, 'column')}")
    return titled(ax, f"Importance of {counted(n, 'column')}")


def dependence(found: Dependence, place: int = 0, ax: "Axes | None" = None) -> "Axes":
    """Draw the mean prediction by the value of a column: lines of numbers, dots of categories.

    Of two classes, only the second is drawn.

    Parameters
    ----------
    found : PartialDependence
        The averages, as `partial_dependence` returns them.
    place : int
        The position of the column in `found.names`.
    ax : Axes or None
        Where to draw; None makes new axes.
    """
    ax = styled_axes(ax)
    values, averages = found.values[place], found.averages[place]
    is_number = not isinstance(values[0], str)
    first = 1 if len(found.outputs) == 2 else 0
    for k in range(first, averages.shape[1])[:_MOST_OUTPUTS]:
        label = shown_name(found.outputs[k]) if found.outputs else None
        style = "-" if is_number else "o"
        at = values if is_number else range(len(values))
        color = COLORS[k % len(COLORS)]
        ax.plot(at, averages[:, k], style, color=color, lw=1.6, ms=5, label=label)
    if not is_number:
        names = [shown_name(value, parsed=False) for value in values]
        slanted = sum(map(len, names)) > _MOST_LETTERS
        ax.set_xticks(range(len(names)), names, rotation=90 * slanted, fontsize=8, parse_math=False)
    if found.outputs:
        ax.legend(fontsize=8, frameon=False)
    name = shown_name(found.names[place])
    ax.set_xlabel(name)
    ax.set_ylabel("mean prediction")
    return titled(ax, f"Partial dependence on {name}")
