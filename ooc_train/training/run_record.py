"""What a run has counted and noted so far.

Checkpoints keep it, so that the report of a run that was ended and went on counts the whole run.
"""

from collections.abc import Mapping
from time import perf_counter
from typing import Any

from ooc_train.errors import InvalidRun
from ooc_train.runs.events import Stepped
from ooc_train.runs.history import LossPoint, Steps
from ooc_train.solvers.base import State
from ooc_train.solvers.training_settings import Training
from ooc_train.training.goals import Goals


class RunRecord:
    """The rows, the steps and the notes of a run.

    Parameters
    ----------
    training : Training
        The settings of the run, whose goals are counted.
    started : float
        Time of `perf_counter` when the run began, in seconds.

    Attributes
    ----------
    rows : int
        Training rows read so far.
    rows_before : int
        Those that were read before the first iteration, which no limit counts.
    learning_rate : float or None
        The rate that the schedule scales.
    notes : dict
        Remarks, as keys in order.
    steps, within : Steps
        The history, and the losses within passes.
    goals : Goals
        The target loss, and the best validation so far.
    """

    def __init__(self, training: Training, started: float) -> None:
        self.rows = self.rows_before = 0
        self.learning_rate: float | None = None
        self.notes: dict[str, None] = {}
        self.steps: Steps[Stepped] = Steps()
        self.within: Steps[LossPoint] = Steps()
        self.goals = Goals(training)
        self._started = started

    @property
    def seconds(self) -> float:
        """Seconds since the run began, without those between two of its processes."""
        return perf_counter() - self._started

    def to_json(self, rows: int) -> dict[str, Any]:
        """Return the record, of a run that has read so many rows, as values of JSON."""
        return {
            "rows": rows,
            "rows_before": self.rows_before,
            "seconds": self.seconds,
            "learning_rate": self.learning_rate,
            "notes": list(self.notes),
            "steps": self.steps.to_json(),
            "within": self.within.to_json(),
            "goals": self.goals.to_json(),
        }

    def restore(self, values: Mapping[str, Any], best: State | None) -> None:
        """Go on from the record of an earlier process, and from its state of the best validation.

        Raises
        ------
        InvalidRun
            If the steps or the goals of the record are damaged.
        """
        self.rows, self.rows_before = values["rows"], values["rows_before"]
        self._started -= values["seconds"]
        self.learning_rate = values["learning_rate"]
        self.notes |= dict.fromkeys(values["notes"])
        series, counted = values["steps"], values["goals"]
        try:
            taken = [Stepped(**each) for each in series["steps"]]
            self.steps.restore(taken, int(series["every"]), int(series["count"]))
            # Releases before 0.2 kept no losses within passes.
            series = values.get("within", {"steps": [], "every": 1, "count": 0})
            points = [LossPoint(**each) for each in series["steps"]]
            self.within.restore(points, int(series["every"]), int(series["count"]))
            step = None if best is None else (Stepped(**counted["best"]), best)
            numbers = float(counted["lowest"]), int(counted["stale"]), str(counted["reached"])
            self.goals.restore(*numbers, step)
        except (TypeError, KeyError, ValueError, ZeroDivisionError) as error:
            raise InvalidRun(f"the steps of the checkpoint are damaged ({error})") from None
