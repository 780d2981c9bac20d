"""The result of a trade-off: figures, plot and advice of fits at several batch sizes."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ooc_train.core.text import html_escaped, html_table
from ooc_train.core.units import approximate_bytes
from ooc_train.experiments.advice import Advice
from ooc_train.models.noise import NoiseScale
from ooc_train.plotting import plots
from ooc_train.runs.report import Report


@dataclass(frozen=True, slots=True)
class Trial:
    """The fit at one batch size.

    Attributes
    ----------
    report : Report
        The report of the fit.
    loss : float
        Weighted mean loss of a row at the last parameters.
    validation_loss : float or None
        Weighted mean loss of a validation row; None without validation rows.
    noise : NoiseScale or None
        Gradient noise scale at the last parameters; None if unknown.
    """

    report: Report
    loss: float
    validation_loss: float | None = None
    noise: NoiseScale | None = None

    def row(self) -> dict[str, Any]:
        """Return the figures by name; sizes in bytes, noise in rows."""
        report = self.report
        return {
            "batch_size": report.batch_size,
            "solver": report.solver,
            "learning_rate": report.learning_rate,
            "passes": report.passes,
            "updates": report.updates,
            "seconds": report.seconds,
            "loss": self.loss,
            "validation_loss": self.validation_loss,
            "noise_scale": None if self.noise is None else self.noise.rows,
            "projected": report.memory.projected,
            "measured": report.memory.measured,
        }


@dataclass(frozen=True, slots=True)
class Tradeoff:
    """Costs and losses of the fits at several batch sizes.

    Attributes
    ----------
    trials : tuple of Trial
        One for each batch size, in the given order.
    start_loss : float
        Mean loss by the null model (all parameters zero).
    start_noise : NoiseScale or None
        Gradient noise scale of the null model, from which updates begin.
    advice : Advice
        Batch size and learning rate, with the reason.
    diverged : mapping of str to str
        Why a fit diverged, by its batch size.
    notes : tuple of str
        Remarks on the numbers.
    saved_in : str or None
        Folder of the saved result.
    """

    trials: tuple[Trial, ...]
    start_loss: float
    start_noise: NoiseScale | None
    advice: Advice
    diverged: Mapping[str, str]
    notes: tuple[str, ...]
    saved_in: str | None = None

    @property
    def reports(self) -> dict[str, Report]:
        """The reports of the fits, by batch size."""
        return {str(trial.report.batch_size): trial.report for trial in self.trials}

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of the table, one for each batch size, as `Trial.row` makes them."""
        return [trial.row() for trial in self.trials]

    @property
    def frame(self) -> Any:
        """The table as a `pandas.DataFrame`, by batch size; sizes in bytes, noise in rows."""
        import pandas as pd

        return pd.DataFrame(self.rows()).set_index("batch_size")

    def plot(self, ax: Any = None, *, over: Literal["passes", "seconds"] = "passes") -> Any:
        """Draw the loss of each fit over passes or seconds, with its cost in the legend.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None
            Where to draw; None makes one.
        over : {"passes", "seconds"}
            The horizontal axis.

        Returns
        -------
        matplotlib.axes.Axes
        """
        return plots.tradeoff(self.reports, ax, over=over)

    def figures(self) -> list[list[str]]:
        """Return the table as text, with its header first; noise in rows."""
        validated = self.trials[0].validation_loss is not None
        head = ["batch size", "solver", "passes", "updates", "seconds", "loss"]
        head += [*(["validation"] if validated else []), "noise scale", "projected", "measured"]
        lines = [head]
        for row in self.rows():
            line = [
                str(row["batch_size"]),
                row["solver"],
                f"{row['passes']:.3g}",
                f"{row['updates']:,}",
                f"{row['seconds']:.2f}",
                f"{row['loss']:.6g}",
            ]
            if validated:
                line.append(f"{row['validation_loss']:.6g}")
            sizes = [approximate_bytes(row[name]) for name in ("projected", "measured")]
            line += [_noise_text(row["noise_scale"]), *sizes]
            lines.append(line)
        return lines

    def comparison(self) -> list[str]:
        """Return lines about the null model and the diverged fits."""
        noise = self.start_noise
        start = "" if noise is None else f", noise scale {_noise_text(noise.rows)}"
        return [
            f"null model (all parameters 0): loss {self.start_loss:.6g}{start}",
            *(f"batch size {size} diverged: {why}" for size, why in self.diverged.items()),
        ]

    @property
    def _advised(self) -> str:
        rate = self.advice.learning_rate
        with_rate = "" if rate is None else f", learning_rate={rate!r}"
        return f"advice: batch_size={self.advice.batch_size!r}{with_rate}"

    def __repr__(self) -> str:
        return f"<Tradeoff: batch sizes {', '.join(self.reports)}; {self._advised}>"

    def _repr_html_(self) -> str:
        """Return table, advice and notes, for notebooks."""
        head, *rows = self.figures()
        lines = [
            *self.comparison(),
            self._advised,
            self.advice.reason,
            *(f"note: {note}" for note in self.notes),
        ]
        return f"{html_table(rows, head)}<p>{'<br>'.join(map(html_escaped, lines))}</p>"

    def to_json(self) -> dict[str, Any]:
        """Return everything in JSON's types; numbers that are not finite become None."""
        noise = None if self.start_noise is None else self.start_noise.rows
        return {
            "trials": [
                {name: _finite_or_none(value) for name, value in row.items()} for row in self.rows()
            ],
            "start": {
                "loss": _finite_or_none(self.start_loss),
                "noise_scale": _finite_or_none(noise),
            },
            "advice": asdict(self.advice),
            "diverged": dict(self.diverged),
            "notes": list(self.notes),
            "reports": {size: report.to_json() for size, report in self.reports.items()},
        }


def _noise_text(rows: float | None) -> str:
    if rows is None:
        return "-"
    return f"{rows:.3g}" if rows < 1000 or rows == math.inf else f"{rows:,.0f}"


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
