"""Metrics of a classifier by class: confusion, precision and recall, curves, calibration.

The curves come from histograms of the scores, which one pass adds up. Rows in one bin count as
ties, as rows of equal scores do. So each area has a bound of its error.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ooc_train.core.schema import shown
from ooc_train.core.sums import Array
from ooc_train.core.text import html_table
from ooc_train.plotting import class_plots
from ooc_train.runs.fitted import Label

MOST_CLASSES = 1_000
"""Most classes for which sums of each class are added up."""

CONFIDENCE_BINS = 60
"""Bins of the largest probability of a row; numbers of bins that divide it have exact figures."""

_PLOTS = ("confusion", "roc", "precision_recall", "calibration", "lift")


class Curve(NamedTuple):
    """A curve of two rates, with a point for each threshold of the score, largest first.

    Attributes
    ----------
    x, y : float64 array (points,)
        False and true positive rate of an ROC curve; recall and precision otherwise.
    threshold : float64 array (points,)
        Rows of at least this score are predicted to be of the class; infinity for none.
    """

    x: Array
    y: Array
    threshold: Array


class Calibration(NamedTuple):
    """Predicted probabilities and observed shares of a class, by bins of equal width.

    Attributes
    ----------
    predicted, observed : float64 array (bins,)
        Mean probability, to the width of a bin of scores, and share of rows of the class.
    weight : float64 array (bins,)
        Weight of the rows. Bins without weight are left out.
    """

    predicted: Array
    observed: Array
    weight: Array


class Area(NamedTuple):
    """Areas under the curves of the scored classes, and a bound of the error of each."""

    value: Array
    error: Array


@dataclass(frozen=True, eq=False, repr=False)
class ClassMetrics:
    """Metrics of a classifier for each class; a row counts by its weight.

    Attributes
    ----------
    classes : tuple
        The labels.
    confusion : float64 array (classes, classes)
        Weight of the rows of each class (first axis) by predicted class.
    histogram : float64 array (scored classes, 2, bins)
        Weight of the other rows, and of those of the class, by its score from 0 to 1. Of two
        classes the second alone is scored.
    has_probabilities : bool
        Whether scores are probabilities; otherwise they are the logistic function of decisions.
    ranks : float64 array (classes,) or None
        Weight of the rows by the number of classes that come before their own.
    confidence : float64 array (3, bins) or None
        Weight of the rows by their largest probability; of those rightly predicted; and the sum of
        the largest probabilities.
    """

    classes: tuple[Label, ...]
    confusion: Array
    histogram: Array
    has_probabilities: bool
    ranks: Array | None = None
    confidence: Array | None = None

    def rows(self, most: int = 20) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return head and rows of a table by class: of more than `most`, those of the least F1."""
        # Rows of weight 1 are counted, as scikit-learn names them.
        is_count = bool((self.support == np.round(self.support)).all())
        head = ("class", "precision", "recall", "f1", "support" if is_count else "weight")
        columns = self.precision, self.recall, self.f1
        worst = sorted(range(len(self.classes)), key=lambda k: (self.f1[k], k))[:most]
        return head, [
            (
                str(self.classes[k]),
                *(f"{column[k]:.6g}" for column in columns),
                f"{self.support[k]:{',.0f' if is_count else '.6g'}}",
            )
            for k in sorted(worst)
        ]

    def __repr__(self) -> str:
        right = float(np.trace(self.confusion)) / float(self.confusion.sum() or 1.0)
        return f"<ClassMetrics: {len(self.classes):,} classes, {right:.4g} of the weight right>"

    def _repr_html_(self) -> str:
        """Return precision, recall and F1 of each class as an HTML table, for notebooks."""
        head, rows = self.rows()
        return html_table(rows, head)

    @property
    def support(self) -> Array:
        """Weight of the rows of each class."""
        return np.asarray(self.confusion.sum(axis=1))

    @property
    def precision(self) -> Array:
        """Share of the rows predicted as a class that are of that class; NaN without such rows."""
        return _ratio(np.diag(self.confusion), self.confusion.sum(axis=0))

    @property
    def recall(self) -> Array:
        """Share of the rows of a class that are predicted as that class; NaN without such rows."""
        return _ratio(np.diag(self.confusion), self.support)

    @property
    def f1(self) -> Array:
        """Harmonic mean of precision and recall; NaN for a class without rows and predictions."""
        both = self.confusion.sum(axis=0) + self.support
        return _ratio(2.0 * np.diag(self.confusion), both)

    @property
    def scored_classes(self) -> tuple[Label, ...]:
        """The classes that have scores."""
        return self.classes[-len(self.histogram) :]

    @property
    def roc_auc(self) -> Area:
        """Areas under the ROC curves; NaN where a class or the rest has no rows."""
        return roc_areas(self.histogram)

    @property
    def average_precision(self) -> Area:
        """Mean precision over recall, as scikit-learn defines it; NaN for a class without rows.

        The error covers every order of the rows within a bin. The precision is largest if the other
        rows come last. If they come first, the sum of the precisions is at least the integral of
        the precision over the weight of the class.
        """
        negatives, positives = self.histogram[:, 0, ::-1], self.histogram[:, 1, ::-1]
        n, p = np.cumsum(negatives, axis=1), np.cumsum(positives, axis=1)
        total = positives.sum(axis=1)
        tied = _ratio(p, p + n, empty=0.0)
        tied *= positives
        most = positives * _ratio(p, p + n - negatives, empty=0.0)
        least = positives - n * np.log1p(_ratio(positives, p - positives + n, empty=0.0))
        off = np.maximum(most - tied, tied - least)
        return Area(_ratio(tied.sum(axis=1), total), _ratio(off.sum(axis=1), total))

    def roc(self, label: Label | None = None) -> Curve:
        """Return the ROC curve of a class; None is the last class.

        Raises
        ------
        ValueError
            If there is no such class, or if it or the rest has no rows.
        """
        negatives, positives, threshold = self._falling(label)
        return Curve(
            np.r_[0.0, np.cumsum(negatives) / negatives.sum()],
            np.r_[0.0, np.cumsum(positives) / positives.sum()],
            threshold,
        )

    def precision_recall(self, label: Label | None = None) -> Curve:
        """Return the curve of recall and precision of a class; None is the last class.

        Raises
        ------
        ValueError
            If there is no such class, or if it or the rest has no rows.
        """
        negatives, positives, threshold = self._falling(label)
        n, p = np.cumsum(negatives), np.cumsum(positives)
        return Curve(np.r_[0.0, p / p[-1]], np.r_[1.0, p / (p + n)], threshold)

    def calibration(self, label: Label | None = None, *, n_bins: int = 10) -> Calibration:
        """Return a class's calibration curve: predicted and observed share by bin of probability.

        Raises
        ------
        ValueError
            If there is no such class, or if the model gives no probabilities.
        """
        if not self.has_probabilities:
            raise ValueError("the loss of this model gives no probabilities to calibrate")
        negatives, positives = self.histogram[self._scored(label)]
        centres = (np.arange(len(positives)) + 0.5) / len(positives)
        in_bin = np.arange(n_bins)[:, None] == (centres * n_bins).astype(int)
        rows = negatives + positives
        weight, observed, predicted = in_bin @ rows, in_bin @ positives, in_bin @ (rows * centres)
        is_taken = weight > 0
        weight = weight[is_taken]
        return Calibration(predicted[is_taken] / weight, observed[is_taken] / weight, weight)

    def lift(self, label: Label | None = None) -> Curve:
        """Return the lift of a class over the share of all rows, those of largest score first.

        The lift is the share of the class among these rows, divided by its share of all rows.

        Raises
        ------
        ValueError
            If there is no such class, or if it or the rest has no rows.
        """
        negatives, positives, threshold = self._falling(label)
        rows, found = np.cumsum(negatives + positives), np.cumsum(positives)
        lift = found / rows / (found[-1] / rows[-1])
        return Curve(rows / rows[-1], lift, threshold[1:])

    def top_k(self, k: int) -> float:
        """Return the share of rows whose class is among the `k` classes predicted first.

        Raises
        ------
        ValueError
            If `k` is no number of classes.
        """
        if self.ranks is None or not 1 <= k <= len(self.classes):
            raise ValueError(f"k={shown(k)} is not from 1 to {len(self.classes):,} classes")
        return float(self.ranks[:k].sum() / self.ranks.sum())

    def calibration_error(self, *, n_bins: int = 15) -> float:
        """Return the expected calibration error of the predicted class (Guo et al. 2017).

        It is the mean, by weight, of the difference of mean probability and accuracy in bins of
        equal width of the largest probability.

        Raises
        ------
        ValueError
            If there are no probabilities, or `n_bins` does not divide 60.
        """
        if self.confidence is None:
            raise ValueError("the loss of this model gives no probabilities to calibrate")
        return calibration_error(self.confidence, n_bins=n_bins)

    def threshold(
        self,
        label: Label | None = None,
        *,
        precision: float | None = None,
        costs: tuple[float, float] | None = None,
    ) -> float:
        """Return the score from which on rows are best predicted to be of a class.

        Parameters
        ----------
        label : label, optional
            The class; None is the last one.
        precision : float, optional
            The least precision; of the thresholds that reach it, that of the largest recall.
        costs : tuple of (float, float), optional
            The cost of a false positive, and that of a false negative: their sum is least.

        Raises
        ------
        ValueError
            If not just one of both is given, if no threshold reaches the precision, or if the class
            has no curve.
        """
        if (precision is None) == (costs is None):
            raise ValueError("a threshold is by precision=, or by costs=(of a false positive, ...)")
        least = 0.0 if precision is None else precision
        negatives, positives, threshold = self._falling(label)
        n, p = np.r_[0.0, np.cumsum(negatives)], np.r_[0.0, np.cumsum(positives)]
        if costs is not None:
            return float(threshold[np.argmin(costs[0] * n + costs[1] * (p[-1] - p))])
        reached = np.flatnonzero(_ratio(p, p + n, empty=0.0) >= least)
        if not len(reached):
            raise ValueError(f"no threshold has the precision {least:g}; ask for less")
        return float(threshold[reached[-1]])

    def plot(self, kind: str = "confusion", ax: Any = None) -> Any:
        """Draw one of the plots of classes, and return the axes.

        Parameters
        ----------
        kind : {"confusion", "roc", "precision_recall", "calibration", "lift"}
            What is drawn.
        ax : matplotlib.axes.Axes or None
            Where to draw; None makes new axes.
        """
        if kind not in _PLOTS:
            raise ValueError(f"kind={shown(kind)} is none of {', '.join(map(repr, _PLOTS))}")
        return getattr(class_plots, kind)(self, ax)

    @property
    def plots(self) -> list[Callable[[Any], Any]]:
        """The functions that draw each kind of plot on axes."""
        return [partial(self.plot, kind) for kind in _PLOTS]

    def to_json(self) -> dict[str, Any]:
        """Return the metrics as JSON values, without the curves."""
        area, average = self.roc_auc, self.average_precision
        return {
            "classes": list(self.classes),
            "confusion": self.confusion.tolist(),
            "support": self.support.tolist(),
            "precision": self.precision.tolist(),
            "recall": self.recall.tolist(),
            "f1": self.f1.tolist(),
            "ranks": None if self.ranks is None else self.ranks.tolist(),
            "scored_classes": list(self.scored_classes),
            "roc_auc": area.value.tolist(),
            "roc_auc_error": area.error.tolist(),
            "average_precision": average.value.tolist(),
            "average_precision_error": average.error.tolist(),
        }

    def _scored(self, label: Label | None) -> int:
        """Return the position of a class among those that have scores."""
        scored = self.scored_classes
        if label is None:
            return len(scored) - 1
        for i, each in enumerate(scored):
            if each == label:
                return i
        raise ValueError(
            f"there is no score of the class {shown(label)}; those of "
            f"{shown(list(scored))} are there"
        )

    def _falling(self, label: Label | None) -> tuple[Array, Array, Array]:
        """Return negatives, positives and threshold of each bin with rows, largest score first."""
        i = self._scored(label)
        negatives, positives = self.histogram[i, :, ::-1]
        if not (negatives.any() and positives.any()):
            raise ValueError(
                f"all rows with a weight, or none, are of the class {shown(self.classes[i])},"
                " which has no curve then; evaluate other rows"
            )
        is_taken = (negatives > 0) | (positives > 0)
        lower = np.arange(len(positives))[::-1] / len(positives)
        return negatives[is_taken], positives[is_taken], np.r_[np.inf, lower[is_taken]]


def roc_areas(histogram: Array) -> Area:
    """Return the areas under the ROC curves; NaN where a class or the rest has no rows.

    The area is the share of pairs, of a row of the class and another row, whose scores are in
    order; a tie counts half.

    Parameters
    ----------
    histogram : float64 array (scored classes, 2, bins)
        Weight of the other rows, and of those of the class, by its score.
    """
    negatives, positives = histogram[:, 0], histogram[:, 1]
    pairs = negatives.sum(axis=1) * positives.sum(axis=1)
    below = np.cumsum(negatives, axis=1) - negatives
    half_ties = 0.5 * (positives * negatives).sum(axis=1)
    in_order = (positives * below).sum(axis=1)
    return Area(_ratio(in_order + half_ties, pairs), _ratio(half_ties, pairs))


def calibration_error(confidence: Array, *, n_bins: int = 15) -> float:
    """Return the expected calibration error, from `confidence` as `ClassMetrics` has it."""
    if n_bins < 1 or CONFIDENCE_BINS % n_bins:
        raise ValueError(f"n_bins={shown(n_bins)} does not divide {CONFIDENCE_BINS}; use 15 or 10")
    weight, hits, probability = confidence.reshape(3, n_bins, -1).sum(axis=2)
    return float(np.abs(hits - probability).sum() / weight.sum())


def _ratio(part: Array, whole: Array, empty: float = np.nan) -> Array:
    """Return `part` divided by `whole`, and `empty` where `whole` is 0."""
    ratio = np.full(np.shape(whole), empty)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio
