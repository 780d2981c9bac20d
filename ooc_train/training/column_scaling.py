"""The scaling that a run begins with, by moments of the columns."""

import numpy as np

from ooc_train.core.partitions import sample_partitions
from ooc_train.models.column_moments import ColumnMoments, ColumnSums
from ooc_train.models.linear import LinearProblem
from ooc_train.objective.scaling import Scaling
from ooc_train.stream.passes import Stream
from ooc_train.training.task import Task

_SAMPLE_PARTITIONS = 32
"""Size of the sample, in largest partitions, that scales columns if there are no statistics."""


def scaling_by(problem: LinearProblem, moments: ColumnMoments) -> Scaling:
    """Return the scaling by moments of the columns, for conditioning or to standardize."""
    # Without an intercept no parameter absorbs a shift; a `StandardScaler` shifts all the same.
    centre = problem.fit_intercept or problem.standardize
    scaling = Scaling.of(moments.mean, np.sqrt(moments.variance), centre=centre)
    if problem.standardize:
        return scaling
    if problem.bound is None:
        return scaling  # the curvature has no bound to compare the penalty with
    return scaling.widened(problem.penalty.l2 / (problem.bound * problem.total_weight))


def scaling_of(task: Task, stream: Stream) -> Scaling:
    """Return the scaling of the columns that a run begins with."""
    return scaling_by(task.problem, column_moments(task, stream))


def column_moments(task: Task, stream: Stream) -> ColumnMoments:
    """Return the moments of the columns, by a store's statistics or by passes over the rows.

    A sample of a store is enough for conditioning. `standardize` needs all rows.
    """
    problem, statistics = task.problem, task.inputs.statistics
    if statistics is not None:
        return ColumnMoments(problem.total_weight, statistics.mean, statistics.scale**2)
    partitions = sample_partitions(stream.source, _SAMPLE_PARTITIONS * stream.source.partition_rows)
    first = ColumnSums(np.zeros(problem.n_features))
    second = ColumnSums(first.moments(stream.reduce(first, partitions)).mean)
    all_rows = problem.standardize or task.inputs.kind == "arrays"
    return second.moments(stream.reduce(second, None if all_rows else partitions))
