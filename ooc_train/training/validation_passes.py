"""The passes over the validation rows, from which a run does not learn."""

from dataclasses import dataclass

from ooc_train.core.sums import Array
from ooc_train.models.problem import ModelProblem
from ooc_train.stream.passes import Stream
from ooc_train.training.task import Task


@dataclass(frozen=True, eq=False)
class ValidationPasses:
    """The evaluation of parameters on the validation rows.

    Attributes
    ----------
    task : Task
        The run's model and data.
    stream : Stream
        The stream of the validation rows.
    """

    task: Task
    stream: Stream

    def loss(self, problem: ModelProblem, params: Array) -> float:
        """Return the mean loss of a validation row, by weight.

        Raises
        ------
        ValueError
            If the class weights of all validation rows are zero.
        """
        sums = self.stream.reduce(self.task.validation_sums(problem, params))
        if not sums["weight"] > 0:
            raise ValueError(
                f"class_weight={self.task.model.class_weight!r} leaves the validation rows no "
                "weight; use rows of a class that has some, or another class_weight"
            )
        return float(sums["loss"][0] / sums["weight"])

    def metric(self, problem: ModelProblem, params: Array) -> float | None:
        """Return the metric that early stopping watches; None if it watches the loss."""
        if self.task.metric is None:
            return None
        reduction = self.task.metric_sums(problem, params)
        return float(reduction.metrics(self.stream.reduce(reduction))[self.task.metric])
