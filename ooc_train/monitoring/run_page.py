"""Saved runs as one HTML page with everything in it: it opens without a network."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from markupsafe import Markup

from ooc_train.core.sums import Array
from ooc_train.core.text import counted, feature_name, few
from ooc_train.models.predictor import LinearPredictor
from ooc_train.monitoring.evaluation_page import figures
from ooc_train.monitoring.html_page import Section, drawn, html_page
from ooc_train.plotting import plots
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.report import Report, report_of
from ooc_train.runs.runs_table import SavedRun, runs_table

_SUMMARY = (
    "model", "solver", "batch size", "rows x features", "loss", "validation loss", "converged",
    "time", "memory ceiling", "memory measured", "data", "date",
)  # fmt: skip
"""Figures of a report that are read first."""

_MOST_COEFFICIENTS = 1000
_DRAWN_COEFFICIENTS = 30


@dataclass(frozen=True, eq=False)
class Evaluated:
    """What a store tells of models.

    Attributes
    ----------
    data : str
        Name of the store.
    metrics : mapping of str to mapping
        Metrics of the models on its rows, as `evaluate` returns them, by paths of their folders.
    deviations : float64 array (features,) or None
        Standard deviations of its columns, for coefficients per standard deviation.
    """

    data: str
    metrics: Mapping[str, Mapping[str, Any]]
    deviations: Array | None = None

    def rows(self, name: str) -> list[tuple[str, str]]:
        """Return (name, value) of each metric of a model as text."""
        (_, n_rows), *others = figures(self.metrics[name])
        return [
            ("evaluated on", f"{n_rows} rows of {_title(self.data.partition('?')[0])}"),
            *others,
        ]


def run_page(fitted: Fitted, name: str, evaluated: Evaluated | None = None) -> str:
    """Return the figures, plots, settings and coefficients of a run as HTML.

    Parameters
    ----------
    fitted : Fitted
        The model of the run.
    name : str
        Path of the run's folder; its last part is the title.
    evaluated : Evaluated or None
        Quality of the model on other rows, and the spread of columns.

    Raises
    ------
    InvalidRun
        If the run has no report, or it is damaged.
    """
    report = report_of(fitted.report, name)
    return html_page(_title(name), [str(report)], _sections(name, fitted, report, evaluated))


def models_page(models: Mapping[str, Fitted], evaluated: Evaluated | None = None) -> str:
    """Return several runs as one page of HTML: side by side, then each as `run_page` has it.

    Parameters
    ----------
    models : mapping of str to Fitted
        The models, by the paths of their folders.
    evaluated : Evaluated or None
        As for `run_page`.

    Raises
    ------
    InvalidRun
        If a run has no report, or it is damaged.
    """
    titles = {name: _title(name) for name in models}
    if len(set(titles.values())) < len(titles):
        titles = {name: name for name in models}
    runs = [SavedRun.of(titles[name], _values(fitted)) for name, fitted in models.items()]
    sections = _side_by_side(runs)
    if evaluated is not None:
        found = [dict(evaluated.rows(name)) for name in models]
        names = dict.fromkeys(metric for each in found for metric in each)
        rows = [(metric, *(each.get(metric, "-") for each in found)) for metric in names]
        sections.append(Section("Quality", rows=rows, head=("metric", *titles.values())))
    for run, (name, fitted) in zip(runs, models.items(), strict=True):
        parts = _sections(name, fitted, run.report, evaluated)
        sections.append(Section(run.name, parts=parts, folded=True))
    return html_page(", ".join(run.name for run in runs), [counted(len(runs), "run")], sections)


def runs_page(folder: str, runs: Sequence[SavedRun]) -> str:
    """Return the runs of a folder as one page of HTML."""
    return html_page(_title(folder), [counted(len(runs), "run")], _side_by_side(runs))


def _side_by_side(runs: Sequence[SavedRun]) -> list[Section]:
    """Return a table of runs, and their losses: other data and models have axes of their own."""
    head, rows = runs_table(runs)
    sections = [Section("Runs", rows=rows, head=head)]
    groups: dict[tuple[str, str], dict[str, Report]] = {}
    for run in runs:
        groups.setdefault((run.report.model, run.data), {})[run.name] = run.report
    for (model, data), reports in groups.items():
        draw = partial(plots.tradeoff, reports)
        sections.append(Section(f"Loss of {model} on {data}", [drawn(draw, 3.8)]))
    return sections


def _values(fitted: Fitted) -> dict[str, Any]:
    """Return what `SavedRun` needs of the values of a run's `model.json`."""
    model = {"name": fitted.model.name} | fitted.model.settings()
    return {"model": model, "training": fitted.training.settings(), "report": fitted.report}


def _title(name: str) -> str:
    return os.path.basename(os.path.normpath(name))


def _sections(
    name: str, fitted: Fitted, report: Report, evaluated: Evaluated | None
) -> list[Section]:
    """Return the sections of a run: what is read first, then what is folded away."""
    every = report.figures()
    quality = [] if evaluated is None else evaluated.rows(name)
    loss, over_seconds = _losses(report)
    return [
        Section("Summary", rows=[*(row for row in every if row[0] in _SUMMARY), *quality]),
        Section("Loss", [loss]),
        Section("Memory", [drawn(report.memory.plot)]),
        *_coefficients(fitted, None if evaluated is None else evaluated.deviations),
        Section("All figures", [over_seconds], every, folded=True),
        _plan(report),
        Section("Settings", rows=_settings(fitted), folded=True),
    ]


def _losses(report: Report) -> list[Markup]:
    return [
        drawn(lambda ax: plots.loss(report, ax), 3.6),
        drawn(lambda ax: plots.loss(report, ax, over="seconds"), 3.6),
    ]


def _plan(report: Report) -> Section:
    memory = report.memory
    sizes = [*memory.terms.items(), ("projected", memory.projected), ("ceiling", memory.ceiling)]
    return Section(
        "Memory plan",
        [drawn(lambda ax: plots.plan(memory, ax), 2.8)],
        [(name, f"{n / 2**20:,.2f} MiB", f"{n:,}") for name, n in sizes],
        ("term", "size", "bytes"),
        folded=True,
    )


def _settings(fitted: Fitted) -> list[tuple[str, str]]:
    settings = {**fitted.model.settings(), **fitted.training.settings()}
    rows = [("model", fitted.model.name), *((name, str(value)) for name, value in settings.items())]
    if fitted.classes:
        rows.append(("classes", few(fitted.classes)))
    if fitted.calibration is not None:
        rows.append(("calibration", str(fitted.calibration)))
    return rows


def _coefficients(fitted: Fitted, deviations: Array | None) -> list[Section]:
    """Return the largest coefficients of a linear model, as a plot and as a table.

    With the standard deviations of the columns, the largest are those per standard deviation, which
    columns of any units share; the table has both.
    """
    if not isinstance(fitted.predictor, LinearPredictor):
        return []
    coef, outputs = fitted.coef, [str(label) for label in fitted.classes]
    names = tuple(
        feature_name(fitted.feature_names, fitted.row_shape, i) for i in range(fitted.n_features)
    )
    if fitted.n_outputs == 1:
        # With two classes, the coefficients are those of the second.
        outputs = [f"for {outputs[1]}" if len(outputs) == 2 else "coefficient"]
    elif not outputs:
        outputs = [f"output {i}" for i in range(fitted.n_outputs)]
    most = min(_DRAWN_COEFFICIENTS, fitted.n_features)
    shown = coef if deviations is None else coef * deviations

    def draw(ax: Any) -> None:
        plots.coefficients(shown, names, ax, most=most, outputs=outputs)
        if deviations is not None:
            ax.set_xlabel("coefficient, per standard deviation of the feature")

    figure = drawn(draw, 1.3 + 0.24 * most)
    order = np.argsort(-np.abs(shown).max(axis=0), kind="stable")[:_MOST_COEFFICIENTS]
    head, columns = ("feature", *outputs), [coef]
    if deviations is not None:
        head = (*head, *(f"{output}, per deviation" for output in outputs))
        columns.append(shown)
    table = np.concatenate(columns)
    blank = [""] * (len(table) - len(fitted.intercept))
    rows = [("intercept", *(f"{value:.6g}" for value in fitted.intercept), *blank)]
    rows += [(names[i], *(f"{value:.6g}" for value in table[:, i])) for i in order]
    if (more := fitted.n_features - len(order)) > 0:
        rows.append((f"... and {more:,} smaller ones", *("" for _ in table)))
    per = "" if deviations is None else " per standard deviation of their columns"
    return [
        Section(f"Coefficients{per}", [figure]),
        Section("Table of coefficients", rows=rows, head=head, folded=True),
    ]
