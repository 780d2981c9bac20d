"""What happens during a run, as frozen values, and who may listen.

A callback gets every event in the thread that called `train`, must be quick, and may raise `Stop`
to end the run after the current step.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ooc_train.memory.ceiling import MemoryReport, Term


class Stop(Exception):
    """Raised by a callback to end a run after the current step; what was learned is kept.

    An epoch of updates ends before its last row then. What the exception says is a note of the
    report.
    """


@dataclass(frozen=True, slots=True)
class Started:
    """A run begins: what it is about, and what its plan says.

    Attributes
    ----------
    dashboard : the dashboard's address, or None
    explanation : the plan's table as text, of which `terms` are the figures
    data : where the rows are from
    row_bytes : decoded bytes of a row
    rows_per_update : rows that an update of the parameters looks at
    max_passes, max_seconds : the limits that the run was given, or None
    ceiling_source : who set the ceiling
    training_page : the Training page's address, or None where there is none
    validation_rows : rows that every step is judged by without learning from them, or 0
    threads : threads that read rows at a time
    """

    model: str
    solver: str
    batch_size: str
    n_rows: int
    n_features: int
    max_iter: int
    dashboard: str | None
    ceiling: int
    projected: int
    explanation: str
    terms: tuple[Term, ...] = ()
    data: str = ""
    row_bytes: int = 0
    rows_per_update: int = 0
    max_passes: float | None = None
    max_seconds: float | None = None
    ceiling_source: str = ""
    training_page: str | None = None
    validation_rows: int = 0
    threads: int = 1

    @property
    def most_passes(self) -> float | None:
        """How many passes the run takes at most, or None where its solver decides."""
        passes = 1.0 if self.solver == "gram" else None
        if self.solver in ("sgd", "adam"):
            passes = float(self.max_iter)
        if self.max_passes is not None:
            passes = self.max_passes if passes is None else min(passes, self.max_passes)
        return passes


@dataclass(frozen=True, slots=True)
class Progressed:
    """A task is done: rows read since the run began, and seconds since then.

    `profile` is what the seconds of all threads went on so far, as in the report.
    """

    rows: int
    seconds: float
    profile: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stepped:
    """An iteration or epoch is done, or the start was evaluated: iteration 0 of full-batch solvers.

    `loss`, `validation_loss` and `gradient_norm` are of the same parameters; those of updates, but
    for the validation loss, are of a sample of the rows. `progressive_loss` of updates is the mean
    loss of each row just before it was learned from, over the last epoch.
    `learning_rate` is that of the last update, or None; `profile` is as in `Progressed`.
    `validation_loss` is the mean loss of the validation rows at the parameters that the step led
    to; None without such rows, and where the run was asked to stop before they were read.
    """

    n_iter: int
    passes: float
    updates: int
    loss: float
    gradient_norm: float | None
    seconds: float
    learning_rate: float | None = None
    profile: Mapping[str, float] = field(default_factory=dict)
    validation_loss: float | None = None
    progressive_loss: float | None = None


@dataclass(frozen=True, slots=True)
class Noted:
    """Something of the run that is worth knowing, in words, and seconds since it began.

    Such as a solver's shorter step, the reason why it ends, or where it was saved.
    """

    text: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The run is over; `memory` is what it held."""

    converged: bool
    seconds: float
    memory: MemoryReport | None = None


Event = Started | Progressed | Stepped | Noted | Ended


class Callback(Protocol):
    """Whoever listens to a run."""

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        ...
