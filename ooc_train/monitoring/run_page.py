"""A saved run as one HTML page with everything in it: it opens without a network."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from ooc_train.core.text import few, pixel_name, printable
from ooc_train.models.predictor import LinearPredictor
from ooc_train.plotting import plots
from ooc_train.plotting.figures import svg
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.report import Report, report_of

_MOST_COEFFICIENTS = 1000
_DRAWN_COEFFICIENTS = 30


@dataclass(frozen=True, slots=True)
class _Section:
    """A section of the page: its figures as SVG, then a table whose first cells name the rows."""

    title: str
    figures: Sequence[Markup] = ()
    rows: Sequence[Sequence[str]] = ()
    head: Sequence[str] = ()


def run_page(fitted: Fitted, name: str) -> str:
    """Return the settings, figures, plots and coefficients of a run as HTML.

    The last part of `name`, the path of the run's folder, is the title. `InvalidRun` is raised if
    the run has no report, or it is damaged.
    """
    report = report_of(fitted.report, name)
    template = Environment(
        loader=PackageLoader("ooc_train", "monitoring"),
        autoescape=True,
        finalize=_without_control_characters,
    ).get_template("run_page.html")
    return template.render(
        title=os.path.basename(os.path.normpath(name)),
        summary=str(report),
        sections=(
            _Section("Results", rows=report.figures()),
            _Section("Loss", _losses(report)),
            _Section("Memory", [_drawn(report.memory.plot)]),
            _plan(report),
            _Section("Settings", rows=_settings(fitted)),
            *_coefficients(fitted),
        ),
    )


def _without_control_characters(value: Any) -> Any:
    return printable(value) if type(value) is str else value


def _drawn(draw: Callable[[Any], object], *height: float) -> Markup:
    """Return a plot as SVG, in which matplotlib has escaped all text."""
    return Markup(svg(draw, *height))  # noqa: S704 (escaped already)


def _losses(report: Report) -> list[Markup]:
    return [
        _drawn(lambda ax: plots.loss(report, ax), 3.6),
        _drawn(lambda ax: plots.loss(report, ax, over="seconds"), 3.6),
    ]


def _plan(report: Report) -> _Section:
    memory = report.memory
    sizes = [*memory.terms.items(), ("projected", memory.projected), ("ceiling", memory.ceiling)]
    return _Section(
        "Memory plan",
        [_drawn(lambda ax: plots.plan(memory, ax), 2.8)],
        [(name, f"{n / 2**20:,.2f} MiB", f"{n:,}") for name, n in sizes],
        ("term", "size", "bytes"),
    )


def _settings(fitted: Fitted) -> list[tuple[str, str]]:
    settings = {**fitted.model.settings(), **fitted.training.settings()}
    rows = [("model", fitted.model.name), *((name, str(value)) for name, value in settings.items())]
    if fitted.classes:
        rows.append(("classes", few(fitted.classes)))
    return rows


def _coefficients(fitted: Fitted) -> list[_Section]:
    """Return the largest coefficients of a linear model, as a plot and as a table."""
    if not isinstance(fitted.predictor, LinearPredictor):
        return []
    coef, outputs = fitted.coef, [str(label) for label in fitted.classes]
    names = fitted.feature_names or tuple(
        f"feature {i}" if fitted.row_shape is None else pixel_name(fitted.row_shape, i)
        for i in range(fitted.n_features)
    )
    if fitted.n_outputs == 1:
        # With two classes, the coefficients are those of the second.
        outputs = [f"for {outputs[1]}" if len(outputs) == 2 else "coefficient"]
    elif not outputs:
        outputs = [f"output {i}" for i in range(fitted.n_outputs)]
    drawn = min(_DRAWN_COEFFICIENTS, fitted.n_features)
    figure = _drawn(
        lambda ax: plots.coefficients(coef, names, ax, most=drawn, outputs=outputs),
        1.3 + 0.24 * drawn,
    )
    order = np.argsort(-np.abs(coef).max(axis=0), kind="stable")[:_MOST_COEFFICIENTS]
    rows = [("intercept", *(f"{value:.6g}" for value in fitted.intercept))]
    rows += [(names[i], *(f"{value:.6g}" for value in coef[:, i])) for i in order]
    if (more := fitted.n_features - len(order)) > 0:
        rows.append((f"... and {more:,} smaller ones", *("" for _ in outputs)))
    return [_Section("Coefficients", [figure], rows, ("feature", *outputs))]
