"""Fair comparison of fits: equal conditions for each, and one pass that evaluates all of them.

Without preparation the first fit would be charged for the libraries that it loads, and later fits
for the memory peaks of earlier ones. The losses that fits report are not comparable either: updates
report the loss of rows before their update, Newton's method that before its last step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ooc_train.core.progress import Progress, row_counter
from ooc_train.core.sums import Array, Reduction
from ooc_train.core.threads import one_blas_thread
from ooc_train.memory.ceiling import Ceiling
from ooc_train.memory.processes import measure_tree, reset_peak
from ooc_train.models.column_moments import ColumnSums
from ooc_train.models.loss_sums import LossSums
from ooc_train.models.noise import NoiseScale, NoiseSums, noise_scales
from ooc_train.objective.scaling import Scaling
from ooc_train.runs.events import Callback, announcing
from ooc_train.runs.fitted import Fitted
from ooc_train.runtime.job import Job
from ooc_train.stream.input_data import Inputs
from ooc_train.stream.requirements import Requirements
from ooc_train.stream.sources import Source
from ooc_train.training.column_scaling import prepared
from ooc_train.training.task import Task


class Peaks:
    """Peak memory of all processes, restarted for each step.

    Attributes
    ----------
    largest : int
        Largest sum of the peaks of all processes within one step, in bytes.
    own : bool
        Whether the peaks could be restarted. If not, they include earlier steps.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self.largest = 0
        self.own = True

    def restart(self) -> None:
        """Begin a step: reset the peaks to current memory."""
        self.update()
        self.own &= reset_peak()
        if self._client is not None:
            self.own &= all(self._client.run(reset_peak).values())

    def update(self) -> None:
        """Update `largest` with the peaks since the last `restart`."""
        self.largest = max(self.largest, sum(process.peak for process in measure_tree()))


def load(
    source: Source,
    requirements: Sequence[Requirements],
    *,
    client: Any,
    memory_ceiling: str | int | Ceiling | None,
    callbacks: Sequence[Callback],
) -> None:
    """Let all processes load libraries and kernels, and check that every fit has enough memory.

    Otherwise the first fit of a kind would be charged for loading, or even for compiling kernels.
    The kernels of all fits are compiled side by side; callbacks receive `Compiling` before.

    Raises
    ------
    CeilingExceeded
        If one of the requirements does not fit.
    """
    needs = tuple(dict.fromkeys(spec for each in requirements for spec in each.needs))
    on_compile = announcing(callbacks)
    with (
        one_blas_thread(),
        Job(source, client=client, memory_ceiling=memory_ceiling) as job,
    ):
        for each in requirements:
            job.plan(replace(each, needs=needs), on_compile=on_compile).validate()


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The result of one pass that evaluates several models.

    Attributes
    ----------
    losses : tuple of float
        Weighted mean loss of a row for each model; the last is the loss of the null model (all
        parameters zero).
    noise : tuple of NoiseScale or None
        Gradient noise scale at each model. None for a single partition, or for validation rows.
    """

    losses: tuple[float, ...]
    noise: tuple[NoiseScale, ...] | None


def evaluation_requirements(task: Task, source: Source, models: int) -> Requirements:
    """Return the requirements of `evaluate_models` for a number of models."""
    points = np.zeros((models + 1, *task.linear_problem.initial().shape))
    # The columns may have to be measured first.
    reductions: tuple[Reduction, ...] = (
        _sums(task, points),
        ColumnSums(np.zeros(source.n_features)),
    )
    return Requirements.of(
        source,
        reductions,
        parameters=8 * task.linear_problem.n_parameters,
        sets=5 * (models + 1),
        columns=8 * (source.n_features + 1),
    )


def evaluate_models(
    task: Task,
    fits: Sequence[Fitted],
    inputs: Inputs,
    *,
    client: Any,
    memory_ceiling: str | int | Ceiling | None,
    progress: Progress,
) -> Evaluated:
    """Evaluate models, and the null model (all parameters zero), in one pass over the rows.

    Parameters
    ----------
    task : Task
        What the models were trained for.
    fits : sequence of Fitted
        The models.
    inputs : Inputs
        The rows to evaluate on: the training rows, or others with the same columns.
    client, memory_ceiling
        As for `train`.
    progress : callable
        Called with the stage, its rows so far, and the fraction done, from 0 to 1.
    """
    source = inputs.source
    with (
        one_blas_thread(),
        Job(source, client=client, memory_ceiling=memory_ceiling) as job,
    ):
        plan = job.plan(evaluation_requirements(task, source, len(fits)))
        rows = "training rows" if inputs is task.inputs else "validation rows"
        add_rows = row_counter(progress, f"evaluating {rows}", source.n_rows)
        stream = job.stream(plan)
        features = source.n_features
        # Losses don't depend on the scaling. The noise does: it uses that of the updates.
        scaling = Scaling(np.zeros(features), np.ones(features))
        if inputs is task.inputs:
            scaling = prepared(task, stream).scaling
        problem = replace(task.linear_problem, scaling=scaling)
        task = replace(task, problem=problem)
        # Other rows may have another column order.
        fits = [
            fit.for_columns(inputs.feature_names, features, "the rows", inputs.row_shape)
            for fit in fits
        ]
        thetas = [problem.scaling.from_data_units(fit.coef, fit.intercept) for fit in fits]
        points: Array = np.stack([*thetas, problem.initial()])
        stream = job.stream(plan, add_rows)  # the scaling of columns needs none of these rows
        sums = stream.reduce(_sums(task, points))
    noise = noise_scales(problem, sums, points) if inputs is task.inputs else None
    losses = sums["loss"] / float(sums["weight"])
    return Evaluated(tuple(losses.tolist()), None if noise is None else tuple(noise))


def _sums(task: Task, points: Array) -> NoiseSums:
    losses: LossSums = task.linear_problem.reduction(points, gradients=len(points))
    return NoiseSums(losses, task.linear_problem.fit_intercept)
