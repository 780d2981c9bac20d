"""The initial scaling of a run, by moments of the columns, and the mean of y."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from ooc_train.core.partitions import sample_partitions
from ooc_train.models.column_moments import ColumnMoments, moments_by_passes
from ooc_train.models.linear import LinearProblem
from ooc_train.models.problem import ModelProblem
from ooc_train.models.scale_setting import factor_of
from ooc_train.objective.scaling import Scaling
from ooc_train.stream.passes import Stream
from ooc_train.training.task import Task

_SAMPLE_PARTITIONS = 32
"""Size of the sample, in largest partitions, that scales columns if there are no statistics."""


Prepared = TypeVar("Prepared", bound=ModelProblem)


def prepared(task: Task, stream: Stream) -> Any:
    """Return the task's problem with the scaling and the mean of y that the run begins with.

    Few problems need the mean of y. A sample of large data is enough.
    """
    if task.training.is_private:
        return _with_known_factor(task)  # moments of the rows would not be private
    problem = with_target_mean(task.problem, stream)
    return problem.scaled_by(column_moments(task, stream)) if problem.needs_moments else problem


def _with_known_factor(task: Task) -> Any:
    """Return the problem of columns times the factor that the model was given, and nothing else.

    Norms of the gradients of rows are those of scaled columns then.
    """
    problem, factor = task.problem, factor_of(getattr(task.model, "scale", 1.0))
    if not isinstance(problem, LinearProblem) or factor == 1.0:
        return problem
    return replace(problem, scaling=Scaling.constant(factor, problem.n_features))


def with_target_mean(problem: Prepared, stream: Stream) -> Prepared:
    """Return the problem with the mean of y over a sample, if the problem needs the mean."""
    reduction = problem.target_sums
    if reduction is None:
        return problem
    sums = stream.reduce(reduction, _sample(stream))
    if not sums["weight"] > 0:
        sums = stream.reduce(reduction)
    mean = reduction.mean(sums)
    return problem if mean is None else problem.with_targets(mean, reduction.deviation(sums))


def _sample(stream: Stream) -> Sequence[int] | None:
    """Return the partitions of a sample of the rows; None for all partitions."""
    return sample_partitions(stream.source, _SAMPLE_PARTITIONS * stream.source.partition_rows)


def column_moments(task: Task, stream: Stream) -> ColumnMoments:
    """Return the moments of the columns, by a store's statistics or by passes over the rows.

    A sample of a store is enough for conditioning. `standardize` needs all rows.
    """
    problem, statistics = task.problem, task.inputs.statistics
    if statistics is not None:
        return ColumnMoments(problem.total_weight, statistics.mean, statistics.scale**2)
    partitions = _sample(stream)
    all_rows = problem.standardize or task.inputs.kind == "arrays"
    return moments_by_passes(
        stream.reduce, problem.n_features, partitions, None if all_rows else partitions
    )
