"""What happens during a run, as frozen values, and who may listen.

A callback gets every event in the thread that called `train`, must be quick, and may raise `Stop`
to end the run after the current step.
"""

from dataclasses import dataclass
from typing import Protocol


class Stop(Exception):
    """Raised by a callback to end a run after the current step; what was learned is kept.

    An epoch of updates ends before its last row then. What the exception says is a note of the
    report.
    """


@dataclass(frozen=True, slots=True)
class Started:
    """A run begins: what it is about, and what its plan says."""

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


@dataclass(frozen=True, slots=True)
class Progressed:
    """A task is done: rows read since the run began, and seconds since then."""

    rows: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Stepped:
    """An iteration or epoch is done."""

    n_iter: int
    passes: float
    updates: int
    loss: float
    gradient_norm: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The run is over."""

    converged: bool
    seconds: float


Event = Started | Progressed | Stepped | Ended


class Callback(Protocol):
    """Whoever listens to a run."""

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        ...
