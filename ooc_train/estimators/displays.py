"""scikit-learn's displays, made of the binned curves of an evaluation."""

from typing import Any, Literal, get_args

import numpy as np
from sklearn.calibration import CalibrationDisplay
from sklearn.metrics import ConfusionMatrixDisplay, PrecisionRecallDisplay, RocCurveDisplay

from ooc_train.core.schema import shown
from ooc_train.inference.class_metrics import ClassMetrics
from ooc_train.runs.fitted import Label

_Kind = Literal["roc", "precision_recall", "calibration", "confusion"]


def display(by_class: ClassMetrics, kind: _Kind = "roc", label: Label | None = None) -> Any:
    """Return one of scikit-learn's displays of an evaluation, whose `plot` draws it.

    Parameters
    ----------
    by_class : ClassMetrics
        The metrics, such as `evaluate(model, data)[0]["by_class"]`.
    kind : {"roc", "precision_recall", "calibration", "confusion"}
        What is displayed.
    label : label, optional
        The class, for all but "confusion"; None is the last one.

    Returns
    -------
    RocCurveDisplay, PrecisionRecallDisplay, CalibrationDisplay or ConfusionMatrixDisplay
        Rows in one bin of the score count as ties. `y_prob` of a `CalibrationDisplay` has the mean
        probability of each of 10 bins, and no rows.

    Raises
    ------
    ValueError
        If there is no such kind or class, if the class or the rest has no rows, or if the model
        gives no probabilities to calibrate.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from ooc_train import LogisticRegression, display, evaluate
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> metrics, _ = evaluate(LogisticRegression().fit(X, y), X, y=y)
    >>> curve = display(metrics["by_class"], "roc")
    >>> print(f"{curve.roc_auc:.3f}")
    0.995
    """
    if kind not in get_args(_Kind):
        kinds = ", ".join(map(repr, get_args(_Kind)))
        raise ValueError(f"kind={shown(kind)} is none of {kinds}")
    if kind == "confusion":
        if label is not None:
            raise ValueError("a confusion matrix is of all classes; leave label out")
        weights = by_class.confusion
        # Counts are shown as such; only weights of rows may be no whole numbers.
        counts = weights.astype(np.int64) if (weights == np.rint(weights)).all() else weights
        return ConfusionMatrixDisplay(counts, display_labels=np.asarray(by_class.classes))
    scored = by_class.scored_classes
    label = scored[-1] if label is None else label
    if kind == "calibration":
        predicted, observed, _ = by_class.calibration(label)
        return CalibrationDisplay(observed, predicted, predicted, pos_label=label)
    curve = by_class.roc(label) if kind == "roc" else by_class.precision_recall(label)
    at = scored.index(label)
    if kind == "roc":
        area = float(by_class.roc_auc.value[at])
        return RocCurveDisplay(fpr=curve.x, tpr=curve.y, roc_auc=area, pos_label=label)
    rest, own = by_class.histogram[at].sum(axis=1)
    # In scikit-learn's order, by which its stairs are drawn: the smallest threshold is the first.
    return PrecisionRecallDisplay(
        curve.y[::-1],
        curve.x[::-1],
        average_precision=float(by_class.average_precision.value[at]),
        pos_label=label,
        prevalence_pos_label=float(own / (own + rest)),
    )
