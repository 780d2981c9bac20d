"""The trade-off of batch sizes, measured: one model learned at each, and what that cost.

Every fit runs on the same processes, which load what learning and evaluating need before the first.
One pass more judges all the models at their last parameters, beside the one that knows nothing; the
gradient noise scale rides on it.
"""

import csv
import json
import math
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ooc_train.core.atomic import TRADEOFF, PartialOutput, explained, require_output
from ooc_train.core.text import html_escaped, html_table
from ooc_train.core.units import approximate_bytes
from ooc_train.errors import Diverged
from ooc_train.experiments.advice import Advice, Outcome, recommend
from ooc_train.experiments.comparing import Judged, Peaks, evaluation_requirements, judge, load
from ooc_train.memory.ceiling import Ceiling
from ooc_train.models.noise import NoiseScale
from ooc_train.models.settings import Model
from ooc_train.monitoring.interrupts import immediate_interrupts
from ooc_train.plotting import figures, plots
from ooc_train.runs.events import Callback
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.report import Report
from ooc_train.runtime.cluster import choose_executor
from ooc_train.stream.executors import OnDask
from ooc_train.stream.inputs import Inputs, read_inputs, read_validation
from ooc_train.stream.sources import StoreSource
from ooc_train.training.loop import Task, train

BATCH_SIZES: tuple[int | str, ...] = (1, 16, 256, "chunk", "full")

_TABLE = TRADEOFF.markers[0]


@dataclass(frozen=True, slots=True)
class Trial:
    """One batch size: what learning by it took, and what it came to.

    Attributes
    ----------
    report : Report
        Of the fit.
    loss : float
        Mean loss of a row, by weight, at the last parameters.
    validation_loss : float or None
        The same of rows that were not learned from, or None.
    noise : NoiseScale or None
        The gradient noise scale at the last parameters, or None where it can't be told.
    """

    report: Report
    loss: float
    validation_loss: float | None = None
    noise: NoiseScale | None = None

    def row(self) -> dict[str, Any]:
        """Return the figures of a table, plain and by name; sizes in bytes, noise in rows."""
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
    """What the batch sizes cost, side by side.

    Attributes
    ----------
    trials : tuple of Trial
        One a batch size, in the order that was asked for.
    start_loss : float
        Mean loss of a row by the model that knows nothing.
    start_noise : NoiseScale or None
        The gradient noise scale there, where updates begin, or None.
    advice : Advice
        Batch size and learning rate, with the reason.
    diverged : mapping
        Why, by batch size, where learning did not come to an end.
    notes : tuple of str
        What a reader of the figures has to know.
    saved_in : str or None
        The folder that they were saved in, or None.
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
        """Return the table, a row a batch size."""
        return [trial.row() for trial in self.trials]

    @property
    def frame(self) -> Any:
        """The table as a `pandas.DataFrame`, by batch size; sizes in bytes, noise in rows."""
        import pandas as pd

        return pd.DataFrame(self.rows()).set_index("batch_size")

    def plot(self, ax: Any = None, *, over: Literal["passes", "seconds"] = "passes") -> Any:
        """Draw the loss of each fit over passes or seconds, with what it took in the legend.

        Parameters
        ----------
        ax : object
            Matplotlib.axes.Axes or None Where to draw; None makes one.
        over : "passes" or "seconds"

        Returns
        -------
        matplotlib.axes.Axes
        """
        return plots.tradeoff(self.reports, ax, over=over)

    def figures(self) -> list[list[str]]:
        """Return the table in words, with the names of its columns first; noise is in rows."""
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
            line += [_in_words(row["noise_scale"]), *sizes]
            lines.append(line)
        return lines

    def beside(self) -> list[str]:
        """Say what the fits are compared with, and which did not come to an end."""
        noise = self.start_noise
        start = "" if noise is None else f", noise scale {_in_words(noise.rows)}"
        return [
            f"the model that knows nothing: loss {self.start_loss:.6g}{start}",
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
        """Return table, advice and notes, which notebooks show."""
        head, *rows = self.figures()
        told = [
            *self.beside(),
            self._advised,
            self.advice.reason,
            *(f"note: {note}" for note in self.notes),
        ]
        return f"{html_table(rows, head)}<p>{'<br>'.join(map(html_escaped, told))}</p>"

    def to_json(self) -> dict[str, Any]:
        """Return all of it as values that JSON can hold, where numbers that are none are None."""
        noise = None if self.start_noise is None else self.start_noise.rows
        return {
            "trials": [
                {name: _finite(value) for name, value in row.items()} for row in self.rows()
            ],
            "start": {"loss": _finite(self.start_loss), "noise_scale": _finite(noise)},
            "advice": asdict(self.advice),
            "diverged": dict(self.diverged),
            "notes": list(self.notes),
            "reports": {size: report.to_json() for size, report in self.reports.items()},
        }


def tradeoff(
    model: Model,
    data: Any,
    batch_sizes: Sequence[int | str] = BATCH_SIZES,
    *,
    y: Any = None,
    sample_weight: Any = None,
    validation: Any = None,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
    client: Any = None,
    memory_ceiling: str | int | Ceiling | None = None,
) -> Tradeoff:
    """Learn a model at several batch sizes, and tell what each cost and came to.

    Parameters
    ----------
    model : Model
        What is learned; its own batch size stays at "full". All fits have one seed.
    data, y, sample_weight : object
        As for `train`.
    batch_sizes : Sequence[int or str]
        "full", "chunk" or numbers of rows, each of them once.
    validation : object
        Rows to compare by that are not learned from, as `data` are, or None.
    out : str or path or None
        A folder for `tradeoff.json`, `tradeoff.csv` and, where it can be drawn,
        `tradeoff.png`.
    overwrite : bool
        Whether such a folder that lies there is replaced.
    callbacks : sequence of Callback
        Who listens to the fits.
    client, memory_ceiling : object
        As for `train`; the ceiling is that of each fit.

    Raises
    ------
    CeilingExceeded
        before anything is learned, where the ceiling is too small for one of the fits.
    Diverged
        where learning came to an end at none of the batch sizes.
    OutputExists
        before anything is read, where `out` is taken.
    OSError
        where `out` can't be written; before anything is read, as far as that can be told.
    ValueError
        where a batch size, or a setting, does not go with the data.
    """
    if model.batch_size != "full":
        raise ValueError(
            f"batch_size={model.batch_size!r} is a setting of the model; name it in batch_sizes"
        )
    if not batch_sizes or len(set(map(str, batch_sizes))) < len(batch_sizes):
        raise ValueError(f"batch_sizes={tuple(batch_sizes)!r} are not one or more, each named once")
    if out is not None:
        require_output(out, TRADEOFF, overwrite=overwrite)
    if model.random_state is None:
        model = replace(model, random_state=secrets.randbits(32))
    # Decided once: before anything is started, which takes of what is available.
    memory_ceiling = Ceiling.of(memory_ceiling)
    inputs = read_inputs(
        data,
        y,
        sample_weight,
        classifier=model.is_classifier,
        memory_ceiling=memory_ceiling,
    )
    others = None
    if validation is not None:
        others = read_validation(
            validation, inputs, classifier=model.is_classifier, memory_ceiling=memory_ceiling
        )
    models = [replace(model, batch_size=size) for size in batch_sizes]
    tasks = [Task.of(one, inputs) for one in models]
    executor = choose_executor(inputs.source, client)
    client = executor.client if isinstance(executor, OnDask) else None
    on: dict[str, Any] = {"client": client, "memory_ceiling": memory_ceiling}
    for each in filter(None, (inputs, others)):
        requirements = [evaluation_requirements(tasks[0], each.source, len(tasks))]
        requirements += [task.requirements() for task in tasks] if each is inputs else []
        load(each.source, requirements, kernels=True, **on)
    with (
        nullcontext()
        if out is None
        else PartialOutput(out, TRADEOFF, overwrite=overwrite) as output
    ):
        peaks = Peaks(client)
        fits: list[tuple[Fitted, Report]] = []
        failures: dict[str, Diverged] = {}
        # A run that Ctrl-C cut short would be compared with whole ones.
        with immediate_interrupts():
            for one in models:
                peaks.restart()
                try:
                    fits.append(train(one, inputs, callbacks=callbacks, **on))
                except Diverged as error:
                    failures[str(one.batch_size)] = error
        if not fits:
            raise next(iter(failures.values()))
        fitted = [fit for fit, _ in fits]
        found = judge(tasks[0], fitted, inputs, **on)
        told = None if others is None else judge(tasks[0], fitted, others, **on)
        trials = _trials([report for _, report in fits], found, told)
        result = _result(model, inputs, trials, found, failures, own_peaks=peaks.own)
        if output is not None:
            result = replace(result, saved_in=_save(result, output))
    return result


def _trials(reports: Sequence[Report], found: Judged, told: Judged | None) -> tuple[Trial, ...]:
    return tuple(
        Trial(
            report,
            found.losses[i],
            None if told is None else told.losses[i],
            None if found.noise is None else found.noise[i],
        )
        for i, report in enumerate(reports)
    )


def _result(
    model: Model,
    inputs: Inputs,
    trials: tuple[Trial, ...],
    found: Judged,
    failures: Mapping[str, Exception],
    *,
    own_peaks: bool,
) -> Tradeoff:
    source, validated = inputs.source, trials[0].validation_loss is not None
    chunk_rows = source.partition_rows if inputs.store is None else inputs.store.chunk_rows
    outcomes = [
        Outcome(
            trial.report.batch_size,
            trial.report.solver,
            replace(model, batch_size=trial.report.batch_size).rows_per_update(
                source.n_rows, chunk_rows
            ),
            trial.report.learning_rate,
            trial.report.passes,
            trial.report.seconds,
            trial.loss if trial.validation_loss is None else trial.validation_loss,
            None if trial.noise is None else trial.noise.rows,
        )
        for trial in trials
    ]
    start = None if found.noise is None else found.noise[-1]
    judged_by = "validation loss" if validated else "loss on the rows that were learned from"
    automatic = model.learning_rate == "auto"
    advice = recommend(
        outcomes, None if start is None else start.rows, judged_by=judged_by, automatic=automatic
    )
    notes = [
        f"seed {model.random_state}; losses are of the last parameters, by one pass more",
        "the memory of each fit includes what all of them together have loaded",
    ]
    if not own_peaks:
        notes.append("peaks could not be started again: each holds those before it")
    if not validated:
        notes.append("no validation rows were given: fits are compared by what they learned from")
    if isinstance(source, StoreSource) and not source.shuffled:
        notes.append(
            "the store is in no random order that it knows of: what its chunks differ by counts "
            "as noise"
        )
    return Tradeoff(
        trials,
        found.losses[-1],
        start,
        advice,
        {size: str(error) for size, error in failures.items()},
        tuple(notes),
    )


def _in_words(rows: float | None) -> str:
    if rows is None:
        return "-"
    return f"{rows:.3g}" if rows < 1000 or rows == math.inf else f"{rows:,.0f}"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _save(result: Tradeoff, output: PartialOutput) -> str:
    """Write the folder, and return where it lies."""
    folder = output.partial_path
    with explained(output.path):
        with open(os.path.join(folder, _TABLE), "w", encoding="utf-8") as file:
            json.dump(result.to_json(), file, indent=2, allow_nan=False)
        with open(os.path.join(folder, "tradeoff.csv"), "w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(result.rows()[0]))
            table.writeheader()
            table.writerows(result.rows())
    figures.save(result.plot, os.path.join(folder, "tradeoff.png"), overwrite=True)
    return output.commit(elsewhere=True)
