"""What a run did, in figures: the value that `report_` holds and `--json` prints."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from ooc_train.memory import MemoryReport, ProcessMemory
from ooc_train.units import approximate_bytes, approximate_duration


@dataclass(frozen=True, slots=True)
class Report:
    """What training did.

    Attributes
    ----------
    model, solver, batch_size : what was learned, and how
    n_rows, n_features : of the data
    passes : rows read over rows there are, samples that a solver looked at included
    updates : changes of the parameters
    n_iter : iterations, or epochs of updates
    bytes_read : decoded bytes that were read
    seconds : from planning to the end
    loss : mean loss of a row at the last point evaluated; of updates, that of each row just before
        it was learned from, over the last epoch
    loss_history : the same after each iteration or epoch
    converged : whether the tolerance was met
    random_state : the seed of the order of rows, drawn where none was given
    shuffle_buffer : chunks that were mixed row by row
    learning_rate : of the first update, where there were updates
    profile : seconds of all threads together, by what they were spent on: reading (and checking),
        decoding, computing, waiting (for another thread's turn to learn), and dask (without a task)
    memory : ceiling, projection and measurement
    dashboard : where the run could be watched, or None
    notes : what was decided for the user
    """

    model: str
    solver: str
    batch_size: int | str
    n_rows: int
    n_features: int
    passes: float
    updates: int
    n_iter: int
    bytes_read: int
    seconds: float
    loss: float
    loss_history: tuple[float, ...]
    converged: bool
    random_state: int | None
    shuffle_buffer: int | None
    learning_rate: float | None
    profile: Mapping[str, float]
    memory: MemoryReport
    dashboard: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def rows_per_second(self) -> float:
        """Rows read a second."""
        return self.passes * self.n_rows / self.seconds if self.seconds else 0.0

    @property
    def bound(self) -> str:
        """What the time went on, the most first: "reading 55 %, computing 40 %"."""
        total = sum(self.profile.values())
        shares = sorted(self.profile.items(), key=lambda item: -item[1])
        parts = [
            f"{name} {seconds / total:.0%}" for name, seconds in shares if 200 * seconds > total
        ]
        return ", ".join(parts).replace("%", " %")

    def to_json(self) -> dict[str, Any]:
        """Return the report as values that JSON can hold."""
        return asdict(self) | {"rows_per_second": self.rows_per_second}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the report that `to_json` made these values of."""
        memory = dict(values["memory"])
        memory["processes"] = tuple(ProcessMemory(**process) for process in memory["processes"])
        memory["notes"] = tuple(memory["notes"])
        kept = {field.name: values[field.name] for field in fields(cls)}
        for name in ("loss_history", "notes"):
            kept[name] = tuple(kept[name])
        return cls(**kept | {"memory": MemoryReport(**memory)})

    def __str__(self) -> str:
        rate = approximate_bytes(self.bytes_read / self.seconds) if self.seconds else "-"
        return (
            f"{self.passes:.4g} passes, {self.updates:,} updates, loss {self.loss:.6g} in "
            f"{approximate_duration(self.seconds)} ({rate}/s: {self.bound}) | memory: {self.memory}"
        )
