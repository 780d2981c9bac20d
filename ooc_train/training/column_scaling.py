"""What a run begins with: the scaling by moments of the columns, and the mean of y."""

from collections.abc import Sequence
from dataclasses import replace

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
    steepness = problem.steepness
    if steepness is None:
        return scaling  # there is no curvature to compare the penalty with
    return scaling.widened(problem.penalty.l2 / (steepness * problem.total_weight))


def prepared(task: Task, stream: Stream) -> LinearProblem:
    """Return the problem with the scaling that a run begins with, and with the mean of y.

    Few problems need the mean of y. A sample of large data is enough.
    """
    problem = with_target_mean(task.problem, stream)
    return replace(problem, scaling=scaling_by(problem, column_moments(task, stream)))


def with_target_mean(problem: LinearProblem, stream: Stream) -> LinearProblem:
    """Return the problem with the mean of y, by a pass over a sample, if it begins by it."""
    reduction = problem.target_sums
    if reduction is None:
        return problem
    sums = stream.reduce(reduction, _sample(stream))
    if not sums["weight"] > 0:
        sums = stream.reduce(reduction)
    mean = reduction.mean(sums)
    return problem if mean is None else problem.with_targets(mean, reduction.deviation(sums))


def scaling_of(task: Task, stream: Stream) -> Scaling:
    """Return the scaling of the columns that a run begins with."""
    return prepared(task, stream).scaling


def _sample(stream: Stream) -> Sequence[int] | None:
    """Return the partitions of a sample."""
    return sample_partitions(stream.source, _SAMPLE_PARTITIONS * stream.source.partition_rows)


def column_moments(task: Task, stream: Stream) -> ColumnMoments:
    """Return the moments of the columns, by a store's statistics or by passes over the rows.

    A sample of a store is enough for conditioning. `standardize` needs all rows.
    """
    problem, statistics = task.problem, task.inputs.statistics
    if statistics is not None:
        return ColumnMoments(problem.total_weight, statistics.mean, statistics.scale**2)
    partitions = _sample(stream)
    first = ColumnSums(np.zeros(problem.n_features))
    second = ColumnSums(first.moments(stream.reduce(first, partitions)).mean)
    all_rows = problem.standardize or task.inputs.kind == "arrays"
    return second.moments(stream.reduce(second, None if all_rows else partitions))
