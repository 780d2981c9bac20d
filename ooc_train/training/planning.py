"""What training would hold, without training: the plan that `train` would begin with."""

from typing import Any

from ooc_train.core.threads import one_blas_thread
from ooc_train.memory.ceiling import Ceiling
from ooc_train.models.settings import Model
from ooc_train.runtime.job import Job
from ooc_train.stream.inputs import read_inputs
from ooc_train.stream.plan import Plan
from ooc_train.training.task import Task


def plan(
    model: Model,
    data: Any,
    *,
    y: Any = None,
    sample_weight: Any = None,
    validation: Any = None,
    client: Any = None,
    memory_ceiling: str | int | Ceiling | None = None,
) -> Plan:
    """Return the plan that `train` would run by: terms, ceiling, and the smallest that would do.

    Workers load what training needs, so that they can say what they hold. X is not read; of a store
    that does not name its classes, y and weights are.

    Parameters
    ----------
    model, data, y, sample_weight, validation, client, memory_ceiling : as for `train`

    Returns
    -------
    Plan
        Whether or not it fits; `validate()` raises what `train` would.

    Raises
    ------
    CeilingExceeded
        where a matrix that the solver needs is larger than the machine's memory.
    ValueError
        where a setting does not go with the data.
    """
    # Decided once: before anything is started, which takes of what is available.
    memory_ceiling = Ceiling.of(memory_ceiling)
    inputs = read_inputs(
        data,
        y,
        sample_weight,
        classifier=model.is_classifier,
        memory_ceiling=memory_ceiling,
    )
    task = Task.of(model, inputs, validation, memory_ceiling=memory_ceiling)
    job = Job(
        inputs.source, client=client, memory_ceiling=memory_ceiling, kernels=task.needs_kernels
    )
    with one_blas_thread(), job:
        return job.plan(task.requirements(), task.validation_requirements())
