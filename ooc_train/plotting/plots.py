"""Plots of runs: each function draws on the given axes, or on new ones, and returns the axes.

matplotlib is imported only when something is drawn.

Examples
--------
>>> from sklearn.datasets import load_breast_cancer
>>> from ooc_train import LogisticRegression, plots
>>> X, y = load_breast_cancer(return_X_y=True)
>>> axes = plots.loss(LogisticRegression().fit(X, y).report_)
>>> axes.get_ylabel()
'mean loss of a row'
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ooc_train.core.text import counted
from ooc_train.plotting.batch_plots import batch_schedule, batch_size
from ooc_train.plotting.class_plots import calibration, confusion, lift, precision_recall, roc
from ooc_train.plotting.drawable import coefficients_in
from ooc_train.plotting.importance_plots import dependence, importance
from ooc_train.plotting.loss_plots import loss, tradeoff
from ooc_train.plotting.memory_plots import memory, plan
from ooc_train.plotting.rate_plots import learning_rate, schedule
from ooc_train.plotting.style import COLORS, INK, MARKERS, shown_name, styled_axes, titled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "batch_schedule",
    "batch_size",
    "calibration",
    "coefficients",
    "confusion",
    "dependence",
    "importance",
    "learning_rate",
    "lift",
    "loss",
    "memory",
    "plan",
    "precision_recall",
    "roc",
    "schedule",
    "tradeoff",
]


def __dir__() -> list[str]:
    """List what is for users, and not what this module imports."""
    return __all__


_MOST_NAMED = 30
"""Most outputs whose coefficients are told apart by a legend."""


def coefficients(
    coef: Any,
    names: Sequence[str] | None = None,
    ax: "Axes | None" = None,
    *,
    most: int = 20,
    outputs: Sequence[str] = (),
) -> "Axes":
    """Draw the coefficients of largest absolute value: bars, or dots for several outputs.

    Parameters
    ----------
    coef : array of shape (features,) or (outputs, features), or fitted linear model
        The coefficients.
    names : sequence of str or None
        Names of the features; None for those of the model, or their numbers.
    ax : Axes or None
        Where to draw; None makes new axes.
    most : int
        Most features to draw.
    outputs : sequence of str
        Names of the outputs, such as the classes; by default those of the model.

    Raises
    ------
    ValueError
        If the numbers of names and features differ.
    TypeError
        If a report is passed, which has no coefficients.
    """
    import numpy as np

    coef, own_names, own_outputs = coefficients_in(coef)
    names, outputs = own_names if names is None else names, outputs or tuple(own_outputs)
    rows = np.atleast_2d(np.asarray(coef, np.float64))
    n_outputs, n_features = rows.shape
    if names is not None and len(names) != n_features:
        raise ValueError(
            f"{len(names):,} names for {counted(n_features, 'coefficient')}; give one each"
        )
    order = np.argsort(-np.abs(rows).max(axis=0), kind="stable")[:most]
    ax = styled_axes(ax, height=1.3 + 0.24 * len(order))
    at = np.arange(len(order))
    if n_outputs == 1:
        values = rows[0, order]
        ax.barh(at, values, color=[COLORS[0] if value >= 0 else COLORS[1] for value in values])
    else:
        for i, row in enumerate(rows):
            label = shown_name(outputs[i]) if i < len(outputs) else f"output {i}"
            # Colours come again after nine outputs, with another marker.
            turn, colour = divmod(i, len(COLORS))
            marker = MARKERS[turn % len(MARKERS)]
            ax.plot(row[order], at, marker, ms=5, color=COLORS[colour], label=label)
        if n_outputs <= len(COLORS):
            ax.legend(fontsize=9)
        elif n_outputs <= _MOST_NAMED:
            ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    labels = [
        f"feature {i}" if names is None else shown_name(names[i], parsed=False) for i in order
    ]
    ax.set_yticks(at, labels, parse_math=False)
    ax.axvline(0, color=INK, lw=0.8)
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("coefficient, per unit of the feature")
    of_each = f", of each of {counted(n_outputs, 'output')}" if n_outputs > _MOST_NAMED else ""
    if len(order) < n_features:
        return titled(ax, f"Coefficients: the {len(order):,} largest of {n_features:,}{of_each}")
    # Not "all": the caller may pass a part of the model's.
    features = counted(n_features, "feature")
    return titled(ax, f"Coefficients of {features}{of_each}")
