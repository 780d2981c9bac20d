"""Events of a run, as frozen values, and the protocol of callbacks.

A callback receives every event in the thread that called `train`. It must return quickly. It may
raise `Stop` to end the run after the current step.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import Protocol

from ooc_train.memory.ceiling import Term
from ooc_train.memory.measured import MemoryReport
from ooc_train.runs.fitted import Fitted


class Stop(Exception):
    """Raised by a callback to end a run after the current step; the learned parameters are kept.

    An epoch of updates then ends before its last row. The message becomes a note of the report.
    """


@dataclass(frozen=True, slots=True)
class Compiling:
    """Kernels are about to be compiled, before `Started`; not sent if none has to be.

    Attributes
    ----------
    kernels : tuple of str
        Names of the kernels that a process of the run lacks.
    kept : bool
        Whether later runs find them in a folder that lasts.
    """

    kernels: tuple[str, ...]
    kept: bool
    seconds: float

    def __str__(self) -> str:
        often = "once on each machine" if self.kept else "once a run"
        return f"compiling kernels for some seconds, {often}: {', '.join(self.kernels)}"


@dataclass(frozen=True, slots=True)
class Started:
    """The run begins: its settings, its data, and the figures of its plan.

    Attributes
    ----------
    dashboard : str or None
        Address of the dashboard, or None.
    explanation : str
        The table of the plan as text.
    terms : tuple of Term
        The figures of that table.
    data : str
        Source of the rows.
    row_bytes : int
        Decoded bytes of a row.
    rows_per_update : int
        Rows per update of the parameters.
    solver_passes : float or None
        Largest number of passes of the solver, or None if only its tolerance decides.
    max_passes, max_seconds : float or None
        The limits of the run, or None.
    ceiling_source : str
        Who set the ceiling.
    training_page : str or None
        Address of the Training page, or None without one.
    validation_rows : int
        Number of validation rows, or 0.
    threads : int
        Threads that read rows at the same time.
    settings : mapping of str to str
        All settings of model and training, as text.
    spent : tuple of int and float
        Rows that earlier processes of the run read, and their seconds, which later events count.
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
    solver_passes: float | None = None
    max_passes: float | None = None
    max_seconds: float | None = None
    ceiling_source: str = ""
    training_page: str | None = None
    validation_rows: int = 0
    threads: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)
    spent: tuple[int, float] = (0, 0.0)

    @property
    def most_passes(self) -> float | None:
        """The largest number of passes, or None if the solver decides."""
        limits = [n for n in (self.solver_passes, self.max_passes) if n is not None]
        return min(limits, default=None)


@dataclass(frozen=True, slots=True)
class Progressed:
    """A task is done: numbers of rows read and seconds elapsed since the run began.

    Attributes
    ----------
    profile : mapping
        Seconds of all threads by activity so far, as in the report.
    loss : float or None
        A loss within the pass, as `LossPoint` describes it, about once a second. None where none
        is due.
    updates : int
        Updates of the parameters so far, where there is a loss.
    metrics : mapping of str to float
        Metrics of a sample of the rows, as `LossPoint` describes them, where there is a loss.
    """

    rows: int
    seconds: float
    profile: Mapping[str, float] = field(default_factory=dict)
    loss: float | None = None
    updates: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stepped:
    """An iteration or epoch is done, or a full-batch solver evaluated the start (iteration 0).

    Attributes
    ----------
    loss, gradient_norm : float
        Mean loss, and largest entry of the gradient, at the parameters after the step. Updates by
        batches estimate both from a sample of the rows. The norm is None if the solver has none.
    validation_loss : float or None
        Mean loss of the validation rows at the same parameters. None without such rows, or if the
        run was stopped before they were read.
    validation_metric : float or None
        The metric of the validation rows that early stopping watches; None if it is the loss.
    progressive_loss : float or None
        Of updates: mean loss of each row just before its own update, over the last epoch. When a
        store is followed, over a window; `loss` is then the decayed mean of windows so far.
    learning_rate : float or None
        Learning rate of the last update; None without updates.
    batch_size : int or None
        Rows per update, by a batch-size schedule; None without one.
    profile : mapping
        As in `Progressed`.
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
    batch_size: int | None = None
    validation_metric: float | None = None


@dataclass(frozen=True, slots=True)
class Learned:
    """Follows each `Stepped`: `fitted()` returns the model after that step, without a report.

    The event is sent to callbacks whose attribute `takes_models` is True. Unlike other events it
    is no plain data: call `fitted()` only while the callback runs.
    """

    step: Stepped
    fitted: Callable[[], Fitted]


@dataclass(frozen=True, slots=True)
class Noted:
    """A remark about the run, and seconds since it began.

    Examples are a shortened step, the reason for the end, and the folder of the saved run.
    """

    text: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Saving:
    """The run waits until something is written: its last "checkpoint", or its folder, the "run".

    Checkpoints before the last are written while the run goes on.

    Attributes
    ----------
    what : str
        What is saved.
    """

    what: str
    seconds: float

    def __str__(self) -> str:
        return f"saving the {self.what}"


@dataclass(frozen=True, slots=True)
class Ended:
    """The run is over; `memory` holds the peaks of its processes."""

    converged: bool
    seconds: float
    memory: MemoryReport | None = None


Event = Compiling | Started | Progressed | Stepped | Learned | Noted | Saving | Ended


class Callback(Protocol):
    """A function that receives the events of a run."""

    def __call__(self, event: Event) -> None:
        """Receive an event."""
        ...


def announcing(callbacks: Sequence[Callback]) -> Callable[[tuple[str, ...], bool], None]:
    """Return a function that sends `Compiling` to callbacks, where kernels are compiled for no run.

    There is no run to stop yet, so a `Stop` that a callback raises is ignored.
    """
    begun = perf_counter()

    def announce(kernels: tuple[str, ...], kept: bool) -> None:
        event = Compiling(kernels, kept, perf_counter() - begun)
        for callback in callbacks:
            with suppress(Stop):
                callback(event)

    return announce
