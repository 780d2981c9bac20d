"""The plan that `train` would run by, without training."""

from collections.abc import Sequence
from typing import Any

from ooc_train.core.threads import one_blas_thread
from ooc_train.memory.ceiling import Ceiling
from ooc_train.models.model import Model
from ooc_train.runs.events import Callback, announcing
from ooc_train.runtime.job import Job
from ooc_train.solvers.training_settings import AUTOMATIC, Training
from ooc_train.stream.inputs import read_inputs
from ooc_train.stream.plan import Plan
from ooc_train.training.task import Task


def plan(
    model: Model,
    data: Any,
    training: Training = AUTOMATIC,
    *,
    y: Any = None,
    sample_weight: Any = None,
    validation: Any = None,
    callbacks: Sequence[Callback] = (),
    client: Any = None,
    memory_ceiling: str | int | Ceiling | None = None,
) -> Plan:
    """Return the plan that `train` would run by: terms, ceiling, and the smallest ceiling.

    Workers load the libraries that training needs, and measure their memory. X is not read. A
    store that does not name its classes has y and weights read.

    Parameters
    ----------
    model, data, training, y, sample_weight, validation, client, memory_ceiling :
        As for `train`.
    callbacks : sequence of Callback
        Functions that receive the event `Compiling`, if kernels are compiled.

    Returns
    -------
    Plan
        The plan, whether or not it fits; `validate()` raises the error that `train` would raise.

    Raises
    ------
    CeilingExceeded
        If a matrix that the solver needs is larger than the machine's memory.
    ValueError
        If a setting does not fit the data.

    Examples
    --------
    >>> from ooc_train import LogisticModel, make_data, plan
    >>> store = make_data("made.zarr", rows=2_000, features=5)
    >>> memory = plan(LogisticModel(), store, memory_ceiling="512MiB")
    >>> memory.projected < memory.ceiling.limit
    True
    """
    # The ceiling is fixed before workers start, since they take available memory.
    memory_ceiling = Ceiling.of(memory_ceiling)
    inputs = read_inputs(
        data,
        y,
        sample_weight,
        classifier=model.is_classifier,
        memory_ceiling=memory_ceiling,
    )
    task = Task.of(model, inputs, training, validation, memory_ceiling=memory_ceiling)
    job = Job(task.inputs.source, client=client, memory_ceiling=memory_ceiling)
    with one_blas_thread(), job:
        return job.plan(task.requirements(), task.validation_requirements(), announcing(callbacks))
