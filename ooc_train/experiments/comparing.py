"""What it takes to compare fits: the same footing for each, and one pass that judges them all.

Fits that run one after another on the same processes would otherwise be charged with what the first
of them loads, and with the memory of the largest before them. And the losses that they tell of
themselves can't be compared: updates tell the loss of rows just before they were learned from,
Newton's method that before its last step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ooc_train.core.sums import Array, Reduction, array_bytes, nbytes, total_bytes
from ooc_train.core.threads import one_blas_thread
from ooc_train.memory.ceiling import Ceiling
from ooc_train.memory.processes import measure_tree, reset_peak
from ooc_train.models.loss_sums import LossSums
from ooc_train.models.moments import ColumnSums
from ooc_train.models.noise import NoiseScale, NoiseSums, noise_scales
from ooc_train.objective.scaling import Scaling
from ooc_train.runs.fitted import Fitted
from ooc_train.runtime.job import Job
from ooc_train.stream.inputs import Inputs
from ooc_train.stream.plan import Requirements
from ooc_train.stream.sources import Source
from ooc_train.training.loop import Task, scaling_of


class Peaks:
    """The peaks of all processes: started again for each step, and the largest of all steps.

    Attributes
    ----------
    largest : int
        The largest sum of all processes' peaks within one step, in bytes.
    own : bool
        Whether peaks could be started again; if not, a step's holds those of the steps before.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self.largest = 0
        self.own = True

    def restart(self) -> None:
        """Begin a step: peaks start from what the processes hold now."""
        self.look()
        self.own &= reset_peak()
        if self._client is not None:
            self.own &= all(self._client.run(reset_peak).values())

    def look(self) -> None:
        """Take the peaks since the last `restart` into `largest`."""
        self.largest = max(self.largest, sum(process.peak for process in measure_tree()))


def load(
    source: Source,
    requirements: Sequence[Requirements],
    *,
    kernels: bool,
    client: Any,
    memory_ceiling: str | int | Ceiling | None,
) -> None:
    """Have all processes load what fits need, and see to it that each of them has the room.

    Otherwise the first fit of a kind would be charged with it, above all where the kernels have to
    be compiled, as after an installation.

    Raises
    ------
    CeilingExceeded
        where one of the requirements does not fit.
    """
    with (
        one_blas_thread(),
        Job(source, client=client, memory_ceiling=memory_ceiling, kernels=kernels) as job,
    ):
        for each in requirements:
            job.plan(each).validate()


@dataclass(frozen=True, slots=True)
class Judged:
    """What one pass says of several models.

    Attributes
    ----------
    losses : tuple of float
        Mean loss of a row, by weight, of each model, and last of the one that knows
        nothing.
    noise : tuple of NoiseScale or None
        The gradient noise scale at each of them; None of a single partition, or of rows
        that were not learned from.
    """

    losses: tuple[float, ...]
    noise: tuple[NoiseScale, ...] | None


def evaluation_requirements(task: Task, source: Source, models: int) -> Requirements:
    """Return what `judge` needs room for, given how many models it is of."""
    points = np.zeros((models + 1, *task.problem.zeros().shape))
    # Columns may have to be looked at first.
    reductions: tuple[Reduction, ...] = (
        _sums(task, points),
        ColumnSums(np.zeros(source.n_features)),
    )
    return Requirements(
        partition=total_bytes(source.buffers(1)),
        workspace=max(
            total_bytes(reduction.workspace(source.partition_rows)) for reduction in reductions
        ),
        sums=max(nbytes(reduction.zeros()) for reduction in reductions),
        parameters=8 * task.problem.n_parameters,
        slots=5 * (models + 1),
        columns=8 * (source.n_features + 1),
        shared=max(array_bytes(reduction) for reduction in reductions),
        opened=max(array_bytes(reduction) for reduction in reductions),
    )


def judge(
    task: Task,
    fits: Sequence[Fitted],
    inputs: Inputs,
    *,
    client: Any,
    memory_ceiling: str | int | Ceiling | None,
) -> Judged:
    """Evaluate models, and the one that knows nothing, in one pass over the rows.

    Parameters
    ----------
    task : Task
        What the models were learned for.
    fits : sequence of Fitted
        The models.
    inputs : Inputs
        The rows: those they were learned from, or others with the same columns.
    client, memory_ceiling : object
        As for `train`.
    """
    source = inputs.source
    with (
        one_blas_thread(),
        Job(source, client=client, memory_ceiling=memory_ceiling, kernels=True) as job,
    ):
        stream = job.stream(job.plan(evaluation_requirements(task, source, len(fits))))
        features = source.n_features
        # No loss depends on the scaling; noise does, and is that of the updates there were.
        scaling = Scaling(np.zeros(features), np.ones(features))
        if inputs is task.inputs:
            scaling = scaling_of(task, stream)
        problem = replace(task.problem, scaling=scaling)
        task = replace(task, problem=problem)
        # Other rows may have their columns in another order.
        fits = [fit.for_columns(inputs.feature_names, features, "the rows") for fit in fits]
        thetas = [problem.scaling.from_data_units(fit.coef, fit.intercept) for fit in fits]
        points: Array = np.stack([*thetas, problem.zeros()])
        sums = stream.reduce(_sums(task, points))
    noise = noise_scales(problem, sums, points) if inputs is task.inputs else None
    losses = sums["loss"] / float(sums["weight"])
    return Judged(tuple(losses.tolist()), None if noise is None else tuple(noise))


def _sums(task: Task, points: Array) -> NoiseSums:
    losses: LossSums = task.problem.sums(points, gradients=len(points))
    return NoiseSums(losses, task.problem.fit_intercept)
