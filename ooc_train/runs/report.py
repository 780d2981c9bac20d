"""The report of a run: the figures of `report_` and of `--json`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from math import nan
from typing import Any, Self

from ooc_train.core.schema import (
    either,
    flag,
    integer,
    list_of,
    mapping_of,
    number,
    or_none,
    record,
    text,
    texts,
)
from ooc_train.core.text import counted, html_table, losses
from ooc_train.core.units import approximate_bytes, approximate_duration
from ooc_train.errors import InvalidRun
from ooc_train.memory.measured import MEMORY_SCHEMA, MemoryReport
from ooc_train.runs.events import Stepped
from ooc_train.runs.history import POINT_SCHEMA, LossPoint


@dataclass(frozen=True, slots=True)
class Report:
    """Figures of a training run.

    Attributes
    ----------
    model, solver, batch_size : str
        Names of the model and the solver, and rows per update.
    n_rows, n_features : int
        Numbers of rows and of columns of X.
    passes : float
        Rows read divided by rows of the data; samples read by solvers count.
    updates : int
        Number of updates of the parameters.
    n_iter : int
        Iterations, or epochs of updates.
    bytes_read : int
        Decoded bytes read, including validation rows.
    seconds : float
        Seconds from planning to the end of the run.
    loss : float
        Mean loss of a row at the learned parameters. Of updates, that of rows spread evenly.
    history : tuple of Stepped
        One entry for each iteration or epoch. Iterative full-batch solvers begin with iteration 0,
        the start. Beyond 4,096 entries only every second, fourth, ... is kept.
    converged : bool
        Whether the tolerance was reached.
    random_state : int or None
        Seed of the row order; drawn if none was given.
    shuffle_chunks : int or None
        Chunks that were mixed row by row.
    learning_rate : float or None
        The rate that the schedule scales, as given or chosen; None without updates. `history` has
        the rate of each epoch's last update.
    profile : mapping
        Seconds of all threads by activity: reading (with checks), decoding, computing, waiting (for
        another thread's update) and dask (no task). Of updates also evaluating: all work on the
        rows of the loss. With validation rows also validating, likewise.
    memory : MemoryReport
        Ceiling, projection and measurement.
    replicas : int
        Copies of the parameters that learned from shares of the rows at the same time.
    dashboard : str or None
        Address of the dashboard, or None.
    notes : tuple of str
        Remarks, such as choices that ooc_train made.
    shortfall : str
        Why the run did not converge, or that its model is worse than a constant, and the way out;
        also among the notes. Estimators warn of it. Empty for other runs.
    ended : str
        Why the run ended: "tolerance reached", "max_passes=3 reached" and so on.
    best : Stepped or None
        The step whose parameters early stopping restored. None if the parameters are the last.
    condition : float or None
        Of least squares by "gram": condition number of the scaled columns with penalty, along the
        kept directions. By "coordinate-descent", of the columns whose coefficients are not zero.
        None otherwise.
    rank : int or None
        Number of kept directions; dependent columns add none.
    digits : float or None
        Estimated decimal digits of the scaled coefficients.
    dual_gap : tuple of float or None
        Duality gap of the mean objective: by "coordinate-descent" for each output, by "smoothing"
        of all outputs together. The objective is at most so much above its minimum. None otherwise.
    solver_reason : str
        Why "auto" chose the solver. Empty if the user chose it.
    run_id : str
        Random name of a run with checkpoints, which bear it too; empty without checkpoints.
    saved_in : str or None
        Folder of the saved run, or None.
    privacy : mapping or None
        What private updates cost: `epsilon` at `delta`, and what they follow from; None of others.
    within : tuple of LossPoint
        Losses within passes, about one a second; thinned as `history` is.
    origin : mapping of str to str
        The data by name, type and id, the date, the versions and the machine.
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
    ended: str = ""
    best: Stepped | None = None
    condition: float | None = None
    rank: int | None = None
    digits: float | None = None
    dual_gap: tuple[float, ...] | None = None
    solver_reason: str = ""
    run_id: str = ""
    saved_in: str | None = None
    privacy: Mapping[str, Any] | None = None
    within: tuple[LossPoint, ...] = ()
    origin: Mapping[str, str] = field(default_factory=dict)

    @property
    def loss_history(self) -> tuple[float, ...]:
        """The loss of each entry of `history`."""
        return tuple(step.loss for step in self.history)

    @property
    def _learned(self) -> Stepped | None:
        """The step whose parameters were learned: the best by validation, or the last."""
        return self.best or (self.history[-1] if self.history else None)

    @property
    def validation_loss(self) -> float | None:
        """Mean loss of the validation rows at the learned parameters, or None."""
        return None if self._learned is None else self._learned.validation_loss

    @property
    def progressive_loss(self) -> float | None:
        """Mean loss of each row just before its own update, over the epoch of the parameters.

        None without updates. After a single epoch it estimates the loss on unseen rows (progressive
        validation: Blum, Kalai and Langford 1999).
        """
        return None if self._learned is None else self._learned.progressive_loss

    @property
    def phases(self) -> tuple[tuple[int, int], ...]:
        """Of a batch-size schedule: (rows per update, last iteration with this size) in order."""
        last = {s.batch_size: s.n_iter for s in self.history if s.batch_size is not None}
        return tuple(last.items())

    @property
    def rows_per_second(self) -> float:
        """Rows read per second of the whole run, without validation rows."""
        return self.passes * self.n_rows / self.seconds if self.seconds else 0.0

    @property
    def time_spent(self) -> str:
        """Shares of the time by activity, largest first: "reading 55 %, computing 40 %"."""
        total = sum(self.profile.values())
        shares = sorted(self.profile.items(), key=lambda item: -item[1])
        parts = [
            f"{name} {100 * seconds / total:.0f} %"
            for name, seconds in shares
            if 200 * seconds > total
        ]
        return ", ".join(parts)

    @property
    def privacy_text(self) -> str:
        """The budget of private updates: "epsilon 1.2 at delta 1e-05"; empty for others."""
        found = self.privacy
        if found is None:
            return ""
        return f"epsilon {found['epsilon']:.4g} at delta {found['delta']:g}"

    @property
    def precision(self) -> str | None:
        """Numerical quality of least squares: "condition 12, rank 3 of 4, about 15 digits"."""
        if self.condition is None or self.digits is None:
            return None
        return (
            f"condition {self.condition:.3g}, rank {self.rank} of {self.n_features}, "
            f"about {counted(self.digits, 'digit', '.0f')}"
        )

    @property
    def solver_with_reason(self) -> str:
        """The solver, and why "auto" chose it: "newton (a smooth loss, ...)"."""
        return f"{self.solver} ({self.solver_reason})" if self.solver_reason else self.solver

    def to_json(self) -> dict[str, Any]:
        """Return the report in JSON's types."""
        return asdict(self) | {
            "rows_per_second": self.rows_per_second,
            "validation_loss": self.validation_loss,
            "progressive_loss": self.progressive_loss,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Make the report from values of `to_json`, of this release or an earlier one.

        Raises
        ------
        ValueError
            If a value is invalid, with its place.
        """
        _SCHEMA(values, "")
        names = {each.name for each in fields(cls)}
        kept = {name: value for name, value in values.items() if name in names}
        kept["memory"] = MemoryReport.from_json(values["memory"])
        kept["notes"] = tuple(values["notes"])
        kept["within"] = tuple(LossPoint(**point) for point in values.get("within", ()))
        if kept.get("dual_gap") is not None:
            kept["dual_gap"] = tuple(kept["dual_gap"])
        if kept.get("best") is not None:
            kept["best"] = _step(kept["best"])
        if "history" in values:
            steps = tuple(_step(step) for step in values["history"])
        else:  # the first releases kept losses only
            losses = enumerate(values.get("loss_history", ()), start=1)
            steps = tuple(Stepped(i, nan, 0, loss, None, nan) for i, loss in losses)
        return cls(**kept | {"history": steps})

    def figures(self) -> list[tuple[str, str]]:
        """Return (name, value) of each figure as text, for tables."""
        rate = f"{self.rows_per_second:,.0f} rows/s"
        replicas = f", in {self.replicas} replicas" if self.replicas > 1 else ""
        memory = self.memory
        rows = [
            ("model", self.model),
            ("solver", self.solver_with_reason),
            ("batch size", f"{self.batch_size}{replicas}"),
            ("rows x features", f"{self.n_rows:,} x {self.n_features:,}"),
            ("passes", f"{self.passes:.4g}"),
            ("updates", f"{self.updates:,}"),
            ("loss", losses(self.loss, None)),
            ("converged", "yes" if self.converged else f"no: {self.ended or 'unknown'}"),
            ("time", f"{approximate_duration(self.seconds)}, {rate}"),
            ("time spent", self.time_spent),
            ("bytes read", approximate_bytes(self.bytes_read)),
            ("memory ceiling", f"{approximate_bytes(memory.ceiling)}, {memory.ceiling_source}"),
            ("memory projected", approximate_bytes(memory.projected)),
            ("memory measured", approximate_bytes(memory.measured)),
        ]
        if self.privacy is not None:
            rows.insert(2, ("privacy", self.privacy_text))
        if self.phases:
            sizes = ", ".join(f"{size:,} to iteration {last:,}" for size, last in self.phases)
            rows.insert(3, ("rows per update", sizes))
        if self.validation_loss is not None:
            rows.insert(7, ("validation loss", f"{self.validation_loss:.6g}"))
        if self.dual_gap is not None:
            rows.insert(7, ("duality gap", f"{max(self.dual_gap):.3g}"))
        if self.precision is not None:
            rows.insert(7, ("precision", self.precision))
        if self.progressive_loss is not None:
            rows.insert(7, ("progressive loss", losses(self.progressive_loss, None)))
        if self.learning_rate is not None:
            rate = f"{self.learning_rate:.4g}, before its schedule"
            last = self.history[-1].learning_rate if self.history else None
            if last not in (None, self.learning_rate):
                rate += f"; {last:.4g} in the last update"
            rows.insert(3, ("learning rate", rate))
        rows += self.origin.items()
        return rows + [("note", note) for note in (*self.notes, *memory.notes)]

    def __repr__(self) -> str:
        # One line; `str` adds the shares of time, notebooks show all figures.
        return (
            f"<Report: {self.model} by {self.solver}, batch size {self.batch_size}, "
            f"{counted(self.passes, 'pass', '.4g')} in {approximate_duration(self.seconds)}, "
            f"loss {self.loss:.6g}, {self.memory}>"
        )

    def _repr_html_(self) -> str:
        """Return the figures as an HTML table, for notebooks."""
        return html_table(self.figures())

    def __str__(self) -> str:
        rate = approximate_bytes(self.bytes_read / self.seconds) if self.seconds else "-"
        return (
            f"{counted(self.passes, 'pass', '.4g')}, {counted(self.updates, 'update')}, "
            f"loss {losses(self.loss, self.validation_loss)} in "
            f"{approximate_duration(self.seconds)} ({rate}/s: {self.time_spent}) | "
            f"memory: {self.memory}"
        )


_LOSS = number(finite=False)
"""A diverged loss may be infinite."""

_PROFILE = mapping_of(number())
_STEP = record(
    {
        "n_iter": integer(0),
        "passes": number(),
        "updates": integer(0),
        "loss": _LOSS,
        "gradient_norm": or_none(_LOSS),
        "seconds": number(),
    },
    optional={
        "learning_rate": or_none(_LOSS),
        "profile": _PROFILE,
        "validation_loss": or_none(_LOSS),
        "progressive_loss": or_none(_LOSS),
        "batch_size": or_none(integer(1)),
        "validation_metric": or_none(_LOSS),
    },
)
_SCHEMA = record(
    {
        "model": text,
        "solver": text,
        "batch_size": either(text, integer(1)),
        "n_rows": integer(0),
        "n_features": integer(0),
        "passes": number(0),
        "updates": integer(0),
        "n_iter": integer(0),
        "bytes_read": integer(0),
        "seconds": number(0),
        "loss": _LOSS,
        "converged": flag,
        "random_state": or_none(integer(0, 2**128)),
        "shuffle_chunks": or_none(integer(0)),
        "learning_rate": or_none(_LOSS),
        "profile": _PROFILE,
        "memory": MEMORY_SCHEMA,
        "notes": texts(),
    },
    optional={
        "history": list_of(_STEP),
        "loss_history": list_of(_LOSS),
        "replicas": integer(1),
        "dashboard": or_none(text),
        "shortfall": text,
        "ended": text,
        "best": or_none(_STEP),
        "condition": or_none(_LOSS),
        "rank": or_none(integer(0)),
        "digits": or_none(_LOSS),
        "dual_gap": or_none(list_of(_LOSS)),
        "solver_reason": text,
        "run_id": text,
        "within": list_of(POINT_SCHEMA),
        "privacy": or_none(record({"epsilon": number(0.0), "delta": number(0.0)})),
    },
)


def report_of(values: Mapping[str, Any], run: str) -> Report:
    """Make the report of a run from its saved values.

    Parameters
    ----------
    values : mapping
        `Fitted.report`, in JSON's types.
    run : str
        Name of the run in messages.

    Raises
    ------
    InvalidRun
        If the run has no report, or it is damaged.
    """
    try:
        return Report.from_json(values)
    except ValueError as error:
        raise InvalidRun(
            f"{run} has no readable training report: {error}; restore its model.json from a copy, "
            "or train again"
        ) from None


def _step(values: Mapping[str, Any]) -> Stepped:
    known = {each.name for each in fields(Stepped)}
    return Stepped(**{name: value for name, value in values.items() if name in known})
