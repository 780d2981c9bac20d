"""Whether a model is worse than a constant: then more iterations are no way out."""

import numpy as np
from numpy.typing import NDArray

from ooc_train.models.linear import LinearProblem
from ooc_train.models.target_sums import TargetSums
from ooc_train.objective.losses.logistic import Logistic
from ooc_train.objective.losses.multinomial import Multinomial
from ooc_train.objective.losses.squared import Squared
from ooc_train.solvers.learning_rate import evaluated_partitions
from ooc_train.stream.passes import Stream
from ooc_train.training.run_notes import takes_raw_columns, way_to_scale
from ooc_train.training.task import Task

_MARGIN = 1.05
"""Classes are counted in all rows, and the loss may be that of a sample."""

_DIGITS = 1e-9
"""Least ratio of the variance of y to its mean square: below it the variance has few digits."""

_LEAST = 0.01
"""Nats: of rows that nearly all have one class, a good model may be worse than that class alone."""


def worse_than_constant(task: Task, stream: Stream, loss: float, *, by_batches: bool) -> str:
    """Return by how much a model is worse than the best constant prediction, and the way out.

    Parameters
    ----------
    task : Task
        The model and its data.
    stream : Stream
        The passes over the training rows.
    loss : float
        Mean loss of the training rows.
    by_batches : bool
        Whether the model was learned by batches: its loss is that of a sample.

    Returns
    -------
    str
        Empty if the model is not worse, or if no loss of a constant is known at little cost.
    """
    starts_at_constant = isinstance(task.problem, LinearProblem) and not by_batches
    if task.training.is_private or starts_at_constant or not np.isfinite(loss):
        return ""
    constant = _constant_loss(task, stream, by_batches=by_batches)
    if constant is None or loss <= _MARGIN * constant:
        return ""
    advice = "use another learning_rate" if by_batches else "look for extreme values"
    if takes_raw_columns(task):
        advice = f"scale the columns by {way_to_scale(task)}, or {advice}"
    elif not getattr(task.model, "fit_intercept", True):
        advice = f"use fit_intercept=True, or {advice}"
    return (
        f"the training loss {loss:.4g} is worse than that of the best constant prediction, "
        f"{constant:.4g}; {advice}"
    )


def _constant_loss(task: Task, stream: Stream, *, by_batches: bool) -> float | None:
    """Return the mean loss of the best constant prediction; None if it is not known."""
    loss, classes = getattr(task.problem, "loss", None), task.inputs.classes
    if isinstance(loss, Multinomial) or (isinstance(loss, Logistic) and len(classes) == 2):
        totals, weights = task.inputs.class_totals, task.problem.class_weight
        if totals is None:
            return None
        of_constant = entropy(totals if weights is None else totals * weights)
        return None if of_constant < _LEAST else of_constant
    if classes or not isinstance(loss, Squared):
        return None
    moments = TargetSums(loss, stream.source.n_outputs, squares=True)
    # The rows whose mean loss the run reports.
    rows = evaluated_partitions(stream.source) if by_batches else None
    sums = stream.reduce(moments, rows, counted=False)
    variance = moments.deviation(sums) ** 2
    if not (variance * sums["weight"] > _DIGITS * sums["second"]).all():
        return None
    return float(variance.sum() / 2)


def entropy(totals: NDArray[np.float64]) -> float:
    """Return the entropy of classes with these total weights, in nats.

    Examples
    --------
    >>> round(entropy(np.array([1.0, 1.0, 0.0])), 4)
    0.6931
    """
    shares = totals[totals > 0] / totals.sum()
    return float(-(shares @ np.log(shares)))
