"""What a run did, in figures: the value that `report_` holds and `--json` prints."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import nan
from typing import Any, Self

from ooc_train.core.schema import (
    either,
    flag,
    list_of,
    mapping_of,
    number,
    or_none,
    record,
    text,
    texts,
    whole,
)
from ooc_train.core.text import html_table, losses
from ooc_train.core.units import approximate_bytes, approximate_duration
from ooc_train.errors import InvalidRun
from ooc_train.memory.ceiling import MEMORY_SCHEMA, MemoryReport
from ooc_train.runs.events import Stepped

_MOST_STEPS = 4096


class Steps:
    """The steps of a run, evenly thinned where there are very many, so that they stay small."""

    def __init__(self) -> None:
        self._kept: list[Stepped] = []
        self._last: Stepped | None = None
        self._every = 1
        self._count = 0

    def add(self, step: Stepped) -> None:
        """Take in a step."""
        if self._count % self._every == 0:
            self._kept.append(step)
            if len(self._kept) > _MOST_STEPS:
                del self._kept[1::2]
                self._every *= 2
        self._last = step
        self._count += 1

    def all(self) -> tuple[Stepped, ...]:
        """Return what was kept, and always the last."""
        kept = self._kept
        if self._last is not None and kept[-1] is not self._last:
            return (*kept, self._last)
        return tuple(kept)


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
    bytes_read : decoded bytes that were read, those of validation rows included
    seconds : from planning to the end
    loss : mean loss of a row at the parameters that were learned; of updates, of a sample of the
        rows, spread evenly
    history : what is known after each iteration or epoch: passes, seconds, updates, loss, gradient
        norm; of iterative full-batch solvers first at the start, as iteration 0; of more than
        4,096 of them every second, fourth, ... one
    converged : whether the tolerance was met
    random_state : the seed of the order of rows, drawn where none was given
    shuffle_chunks : chunks that were mixed row by row
    learning_rate : of the first update, where there were updates
    profile : seconds of all threads together, by what they were spent on: reading (and checking),
        decoding, computing, waiting (for another thread's turn to learn), and dask (without a
        task); of updates also evaluating, which is all of this for the rows of the loss, and with
        validation rows validating, likewise
    memory : ceiling, projection and measurement
    replicas : shares of the rows that were learned from at the same time
    dashboard : where the run could be watched, or None
    notes : what was decided for the user
    shortfall : why the run is not converged, and the way out, in one line, which is a note too and
        of which estimators warn; empty where it converged, and where it was asked to stop
    condition : of least squares by "gram", the condition number of the scaled columns, penalty
        included, along the directions kept; None where it was not computed
    rank : how many directions were kept: columns that depend on others add none
    digits : estimated decimal digits of the coefficients, in scaled units together
    saved_in : the folder that the run was saved in, or None
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
    history: tuple[Stepped, ...]
    converged: bool
    random_state: int | None
    shuffle_chunks: int | None
    learning_rate: float | None
    profile: Mapping[str, float]
    memory: MemoryReport
    replicas: int = 1
    dashboard: str | None = None
    notes: tuple[str, ...] = ()
    shortfall: str = ""
    condition: float | None = None
    rank: int | None = None
    digits: float | None = None
    saved_in: str | None = None

    @property
    def loss_history(self) -> tuple[float, ...]:
        """The loss after each iteration or epoch of `history`."""
        return tuple(step.loss for step in self.history)

    @property
    def validation_loss(self) -> float | None:
        """The mean loss of the validation rows at the parameters that were learned, or None."""
        return self.history[-1].validation_loss if self.history else None

    @property
    def progressive_loss(self) -> float | None:
        """Mean loss of each row just before it was learned from, over the last epoch of updates.

        An estimate of the loss of rows that were not learned from, where the first epoch was the
        last (progressive validation: Blum, Kalai and Langford 1999). None without updates.
        """
        return self.history[-1].progressive_loss if self.history else None

    @property
    def rows_per_second(self) -> float:
        """Rows read a second, validation rows apart, over all the time that the run took."""
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

    @property
    def precision(self) -> str | None:
        """What rows tell of least squares: "condition 12, rank 3 of 4, about 15 digits"."""
        if self.condition is None:
            return None
        return (
            f"condition {self.condition:.3g}, rank {self.rank} of {self.n_features}, "
            f"about {self.digits:.0f} digits"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the report as values that JSON can hold."""
        return asdict(self) | {
            "rows_per_second": self.rows_per_second,
            "validation_loss": self.validation_loss,
            "progressive_loss": self.progressive_loss,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the report that `to_json` made these values of, in this release or one before.

        Raises
        ------
        ValueError
            If they are something else, with the place.
        """
        _SCHEMA(values, "")
        names = {each.name for each in fields(cls)}
        kept = {name: value for name, value in values.items() if name in names}
        kept["memory"] = MemoryReport.from_json(values["memory"])
        kept["notes"] = tuple(values["notes"])
        if "history" in values:
            steps = tuple(_step(step) for step in values["history"])
        else:  # losses alone, of the first runs
            losses = enumerate(values.get("loss_history", ()), start=1)
            steps = tuple(Stepped(i, nan, 0, loss, None, nan) for i, loss in losses)
        return cls(**kept | {"history": steps})

    def figures(self) -> list[tuple[str, str]]:
        """Return what was done as names and figures in words, for tables."""
        rate = f"{self.rows_per_second:,.0f} rows/s"
        replicas = f", in {self.replicas} replicas" if self.replicas > 1 else ""
        memory = self.memory
        found = [
            ("model", self.model),
            ("solver", self.solver),
            ("batch size", f"{self.batch_size}{replicas}"),
            ("rows x features", f"{self.n_rows:,} x {self.n_features:,}"),
            ("passes", f"{self.passes:.4g}"),
            ("updates", f"{self.updates:,}"),
            ("loss", f"{self.loss:.6g}"),
            ("converged", "yes" if self.converged else "no, the tolerance was not met"),
            ("time", f"{approximate_duration(self.seconds)}, {rate}"),
            ("time went on", self.bound),
            ("bytes read", approximate_bytes(self.bytes_read)),
            ("memory ceiling", f"{approximate_bytes(memory.ceiling)}, {memory.ceiling_source}"),
            ("memory projected", approximate_bytes(memory.projected)),
            ("memory measured", approximate_bytes(memory.measured)),
        ]
        if self.validation_loss is not None:
            found.insert(7, ("validation loss", f"{self.validation_loss:.6g}"))
        if self.precision is not None:
            found.insert(7, ("precision", self.precision))
        if self.progressive_loss is not None:
            found.insert(7, ("progressive loss", f"{self.progressive_loss:.6g}"))
        if self.learning_rate is not None:
            found.insert(3, ("learning rate", f"{self.learning_rate:.4g}, of the first update"))
        return found + [("note", note) for note in (*self.notes, *memory.notes)]

    def __repr__(self) -> str:
        # One line in tracebacks and lists; `str` has what the time went on, notebooks all of it.
        return (
            f"<Report: {self.model} by {self.solver}, batch size {self.batch_size}, "
            f"{self.passes:.4g} passes in {approximate_duration(self.seconds)}, "
            f"loss {self.loss:.6g}, {self.memory}>"
        )

    def _repr_html_(self) -> str:
        """Return the figures as a table, which notebooks show."""
        return html_table(self.figures())

    def __str__(self) -> str:
        rate = approximate_bytes(self.bytes_read / self.seconds) if self.seconds else "-"
        return (
            f"{self.passes:.4g} passes, {self.updates:,} updates, "
            f"loss {losses(self.loss, self.validation_loss)} in "
            f"{approximate_duration(self.seconds)} ({rate}/s: {self.bound}) | memory: {self.memory}"
        )


_LOSS = number(finite=False)
"""A loss may have grown without end."""

_PROFILE = mapping_of(number())
_STEP = record(
    {
        "n_iter": whole(0),
        "passes": number(),
        "updates": whole(0),
        "loss": _LOSS,
        "gradient_norm": or_none(_LOSS),
        "seconds": number(),
    },
    optional={
        "learning_rate": or_none(_LOSS),
        "profile": _PROFILE,
        "validation_loss": or_none(_LOSS),
        "progressive_loss": or_none(_LOSS),
    },
)
_SCHEMA = record(
    {
        "model": text,
        "solver": text,
        "batch_size": either(text, whole(1)),
        "n_rows": whole(0),
        "n_features": whole(0),
        "passes": number(0),
        "updates": whole(0),
        "n_iter": whole(0),
        "bytes_read": whole(0),
        "seconds": number(0),
        "loss": _LOSS,
        "converged": flag,
        "random_state": or_none(whole(0, 2**128)),
        "shuffle_chunks": or_none(whole(0)),
        "learning_rate": or_none(_LOSS),
        "profile": _PROFILE,
        "memory": MEMORY_SCHEMA,
        "notes": texts(),
    },
    optional={
        "history": list_of(_STEP),
        "loss_history": list_of(_LOSS),
        "replicas": whole(1),
        "dashboard": or_none(text),
        "shortfall": text,
        "condition": or_none(_LOSS),
        "rank": or_none(whole(0)),
        "digits": or_none(_LOSS),
    },
)


def report_of(values: Mapping[str, Any], run: str) -> Report:
    """Return the report that a run holds.

    Parameters
    ----------
    values : mapping
        As JSON has them: `Fitted.report`.
    run : str
        What messages call the run.

    Raises
    ------
    InvalidRun
        Where no report was saved with it, or it is damaged.
    """
    try:
        return Report.from_json(values)
    except ValueError as error:
        raise InvalidRun(
            f"{run} holds no report of its training that can be read: {error}; restore its "
            "model.json from a copy, or train anew"
        ) from None


def _step(values: Mapping[str, Any]) -> Stepped:
    known = {each.name for each in fields(Stepped)}
    return Stepped(**{name: value for name, value in values.items() if name in known})
