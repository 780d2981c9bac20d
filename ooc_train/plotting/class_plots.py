"""Plots of the metrics of a classifier by class: confusion, curves, calibration."""

from collections.abc import Sequence
from math import isnan
from typing import TYPE_CHECKING, Any, Literal

from ooc_train.plotting.protocols import ByClass
from ooc_train.plotting.style import COLORS, INK, shown_name, styled_axes, titled, with_message

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Place = Literal["lower right", "lower left", "upper left", "upper right"]
_MOST_CURVES, _MOST_CELLS, _MOST_NUMBERS = 6, 40, 15


def confusion(by_class: ByClass, ax: "Axes | None" = None) -> "Axes":
    """Draw the confusion matrix: the share of the rows of each class by predicted class.

    Parameters
    ----------
    by_class : ClassMetrics
        The metrics, such as `evaluate(model, data)[0]["by_class"]`.
    ax : Axes or None
        Where to draw; None makes new axes.
    """
    import numpy as np

    ax = styled_axes(ax)
    names = [shown_name(str(label)) for label in by_class.classes]
    total = by_class.confusion.sum(axis=1, keepdims=True)
    # Of a class without rows, no share is known.
    shares = np.divide(
        by_class.confusion, total, out=np.full_like(by_class.confusion, np.nan), where=total > 0
    )
    ax.grid(visible=False)
    ax.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    ax.set_xlabel("predicted class")
    ax.set_ylabel("class")
    if len(names) <= _MOST_CELLS:
        slanted = sum(map(len, names)) > 5 * _MOST_NUMBERS
        ax.set_xticks(
            range(len(names)), names, rotation=45 * slanted, ha=["center", "right"][slanted]
        )
        ax.set_yticks(range(len(names)), names)
    if len(names) <= _MOST_NUMBERS:
        for i, row in enumerate(shares):
            for j, share in enumerate(row):
                if share >= 5e-4:
                    color = "white" if share > 0.6 else INK
                    text = f"{100 * share:.3g}"
                    ax.text(j, i, text, ha="center", va="center", color=color, fontsize=8)
    return titled(ax, "Predicted classes, in % of the rows of each class")


def roc(by_class: ByClass, ax: "Axes | None" = None) -> "Axes":
    """Draw the ROC curve of each class; of two classes, only that of the second.

    Parameters
    ----------
    by_class, ax
        As for `confusion`.
    """
    ax = styled_axes(ax)
    ax.plot([0, 1], [0, 1], color=INK, lw=0.8, ls=":")
    ax.set_xlabel("false positive rate")
    ax.set_ylabel("true positive rate")
    which = _curves(by_class.roc_auc.value)
    for i in which:
        color = COLORS[i % len(COLORS)]
        label, area = by_class.scored_classes[i], by_class.roc_auc.value[i]
        x, y, _ = by_class.roc(label)
        ax.plot(x, y, color=color, lw=1.6, label=f"{shown_name(str(label))}: {area:.4f}")
    return _with_legend(ax, by_class, which, "ROC curves, and the areas under them", "lower right")


def precision_recall(by_class: ByClass, ax: "Axes | None" = None) -> "Axes":
    """Draw precision over recall of each class; of two classes, only of the second.

    Parameters
    ----------
    by_class, ax
        As for `confusion`.
    """
    ax = styled_axes(ax)
    ax.set_xlabel("recall")
    ax.set_ylabel("precision")
    areas = by_class.average_precision.value
    which = _curves(areas)
    for i in which:
        color = COLORS[i % len(COLORS)]
        label = by_class.scored_classes[i]
        x, y, _ = by_class.precision_recall(label)
        name = f"{shown_name(str(label))}: {areas[i]:.4f}"
        ax.step(x, y, where="pre", color=color, lw=1.6, label=name)
    ax.set_ylim(0, 1.03)
    return _with_legend(ax, by_class, which, "Precision over recall, and its mean", None)


def calibration(by_class: ByClass, ax: "Axes | None" = None, *, n_bins: int = 10) -> "Axes":
    """Draw the observed share of each class over its predicted probability, in bins.

    Of two classes, only the second is drawn.

    Parameters
    ----------
    by_class, ax
        As for `confusion`.
    n_bins : int
        Number of bins of equal width of the probability.
    """
    ax = styled_axes(ax)
    ax.set_xlabel("mean predicted probability")
    ax.set_ylabel("share of rows of the class")
    if not by_class.has_probabilities:
        return with_message(titled(ax, "Calibration"), "the loss gives no probabilities")
    ax.plot([0, 1], [0, 1], color=INK, lw=0.8, ls=":")
    which = _curves(by_class.roc_auc.value)
    for i in which:
        color = COLORS[i % len(COLORS)]
        label = by_class.scored_classes[i]
        predicted, observed, _ = by_class.calibration(label, n_bins=n_bins)
        name = shown_name(str(label))
        ax.plot(predicted, observed, color=color, lw=1.4, marker="o", ms=4, label=name)
    return _with_legend(ax, by_class, which, "Calibration", "upper left")


def lift(by_class: ByClass, ax: "Axes | None" = None) -> "Axes":
    """Draw how much more of a class the rows of largest score have than all rows.

    Of two classes, only the second is drawn.

    Parameters
    ----------
    by_class, ax
        As for `confusion`.
    """
    ax = styled_axes(ax)
    ax.axhline(1, color=INK, lw=0.8, ls=":")
    ax.set_xlabel("share of all rows, those of largest score first")
    ax.set_ylabel("lift")
    which = _curves(by_class.roc_auc.value)
    for i in which:
        label = by_class.scored_classes[i]
        x, y, _ = by_class.lift(label)
        ax.plot(x, y, color=COLORS[i % len(COLORS)], lw=1.6, label=shown_name(str(label)))
    return _with_legend(ax, by_class, which, "Lift", "upper right")


def _curves(areas: Sequence[float]) -> list[int]:
    """Return the positions of the classes to draw: those with the smallest areas."""
    known = [i for i, area in enumerate(areas) if not isnan(area)]
    return sorted(sorted(known, key=lambda i: areas[i])[:_MOST_CURVES])


def _with_legend(
    ax: "Axes", by_class: ByClass, which: list[int], title: str, place: _Place | None
) -> "Axes":
    """Add a title, and a legend that says how many classes are left out; return the axes.

    A place of None is below the axes, where curves may pass through each corner.
    """
    from matplotlib.transforms import ScaledTranslation

    titled(ax, title)
    if not which:
        return with_message(ax, "all rows are of one class")
    left_out = len(by_class.scored_classes) - len(which)
    heading = f"the {len(which)} worst of {len(by_class.scored_classes):,}" if left_out else None
    # Below the labels of the axes, whatever their height.
    below = ax.transAxes + ScaledTranslation(0, -38 / 72, ax.figure.dpi_scale_trans)
    outside: dict[str, Any] = {
        "loc": "upper center", "bbox_to_anchor": (0.5, 0.0), "bbox_transform": below, "ncols": 2,
    }  # fmt: skip
    where = outside if place is None else {"loc": place}
    ax.legend(**where, fontsize=8, title=heading, title_fontsize=8, frameon=False)
    return ax
