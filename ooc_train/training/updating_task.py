"""The task of learning by updates from rows of which not all are there yet."""

from dataclasses import replace
from math import inf

from ooc_train.models.model import DataFigures, Model
from ooc_train.models.problem import ModelProblem
from ooc_train.optimizers.schedules import Plateau
from ooc_train.solvers.batch_schedules import BatchSchedule
from ooc_train.solvers.training_settings import EXACT, Training
from ooc_train.solvers.updates import Updates
from ooc_train.stream.input_data import Inputs
from ooc_train.training.task import Task

_LOSS_ROWS = 2**13
"""Rows of a block that evaluate the model."""


def updating_task(
    model: Model, inputs: Inputs, training: Training, job: str = "partial_fit"
) -> Task:
    """Return the task of updates in stored order, for a job that has some of the rows only.

    Messages name the job.

    Raises
    ------
    ValueError
        If a setting needs all rows.
    """
    if training.solver in EXACT:
        raise ValueError(
            f"solver={training.solver!r} reads all rows before each step, and {job} has some "
            "of them only; use solver='auto', 'sgd' or 'adam'"
        )
    if training.is_private:
        raise ValueError(
            f"the budget of differential privacy is for all rows, and {job} has some of them only; "
            "use fit"
        )
    if model.standardizes_once:
        raise ValueError(
            f"standardize=True and scale='channel' of {model.name} need the moments of all rows, "
            f"and {job} has some of them only; use a number as scale"
        )
    for name in ("early_stopping", "validation_fraction"):
        if getattr(training, name):
            raise ValueError(
                f"{name} is for fit, and {job} makes one pass over its rows; leave it out"
            )
    if isinstance(training.schedule, Plateau):
        raise ValueError(  # noqa: TRY004 (as for other settings)
            f"schedule='{training.schedule}' follows the epochs of a run, and {job} makes "
            "one pass over its rows; use 'constant' or 'invscaling'"
        )
    if model.class_weight == "balanced":
        raise ValueError(
            f"class_weight='balanced' needs all rows, and {job} has some of them "
            "only; give the weight of each class"
        )
    rows = inputs.source.n_rows
    batch_size = training.batch_size
    if isinstance(batch_size, BatchSchedule):
        raise ValueError(  # noqa: TRY004 (as for other settings)
            f"batch_size='{batch_size}' changes at ends of epochs, and {job} makes one pass; "
            "use a number of rows"
        )
    if batch_size not in ("chunk", "auto"):
        batch_size = rows if batch_size == "full" else min(int(batch_size), rows)
    task = Task.of(
        model,
        inputs,
        replace(training, batch_size=batch_size, shuffle_chunks=1, replicas=1),
        allow_zero_weight=True,
        by_updates=True,
    )
    updates = updates_of(task)
    updates = replace(updates, tol=0.0, epochs=inf, evaluated_rows=_LOSS_ROWS, in_order=True)
    return replace(task, solver=updates)


def updates_of(task: Task) -> Updates:
    """Return the solver of a task by updates."""
    if not isinstance(task.solver, Updates):
        raise TypeError(f"{task.solver.name} does not learn by updates")
    return task.solver


def problem_of(task: Task, n_rows: int, total_weight: float) -> ModelProblem:
    """Return the problem of the task's model for so many rows of such weight, with no scaling."""
    inputs, problem = task.inputs, task.problem
    found: ModelProblem = task.model.problem(
        DataFigures(
            n_rows,
            problem.n_features,
            inputs.source.n_outputs,
            len(inputs.classes),
            total_weight,
            problem.class_weight,
            task.settings.batch_size,
            inputs.row_shape,
            task.settings.seed,
        )
    )
    return found
