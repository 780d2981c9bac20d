"""A saved run as one HTML page with everything in it: it opens without a network."""

import os

import numpy as np
from markupsafe import Markup

from ooc_train.core.text import feature_name, few
from ooc_train.models.predictor import LinearPredictor
from ooc_train.monitoring.html_page import Section, drawn, html_page
from ooc_train.plotting import plots
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.report import Report, report_of

_MOST_COEFFICIENTS = 1000
_DRAWN_COEFFICIENTS = 30


def run_page(fitted: Fitted, name: str) -> str:
    """Return the settings, figures, plots and coefficients of a run as HTML.

    The last part of `name`, the path of the run's folder, is the title. `InvalidRun` is raised if
    the run has no report, or it is damaged.
    """
    report = report_of(fitted.report, name)
    return html_page(
        os.path.basename(os.path.normpath(name)),
        [str(report)],
        (
            Section("Results", rows=report.figures()),
            Section("Loss", _losses(report)),
            Section("Memory", [drawn(report.memory.plot)]),
            _plan(report),
            Section("Settings", rows=_settings(fitted)),
            *_coefficients(fitted),
        ),
    )


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
    )


def _settings(fitted: Fitted) -> list[tuple[str, str]]:
    settings = {**fitted.model.settings(), **fitted.training.settings()}
    rows = [("model", fitted.model.name), *((name, str(value)) for name, value in settings.items())]
    if fitted.classes:
        rows.append(("classes", few(fitted.classes)))
    if fitted.calibration is not None:
        rows.append(("calibration", str(fitted.calibration)))
    return rows


def _coefficients(fitted: Fitted) -> list[Section]:
    """Return the largest coefficients of a linear model, as a plot and as a table."""
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
    figure = drawn(
        lambda ax: plots.coefficients(coef, names, ax, most=most, outputs=outputs),
        1.3 + 0.24 * most,
    )
    order = np.argsort(-np.abs(coef).max(axis=0), kind="stable")[:_MOST_COEFFICIENTS]
    rows = [("intercept", *(f"{value:.6g}" for value in fitted.intercept))]
    rows += [(names[i], *(f"{value:.6g}" for value in coef[:, i])) for i in order]
    if (more := fitted.n_features - len(order)) > 0:
        rows.append((f"... and {more:,} smaller ones", *("" for _ in outputs)))
    return [Section("Coefficients", [figure], rows, ("feature", *outputs))]
