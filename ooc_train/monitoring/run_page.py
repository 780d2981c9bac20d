"""A saved run as one page of HTML: everything is in it, so that it opens without a network."""

import os

import numpy as np

from ooc_train.core.text import few, html_escaped, html_table
from ooc_train.plotting import plots
from ooc_train.plotting.figures import svg
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.report import Report, report_of

_MOST_COEFFICIENTS = 1000
_DRAWN_COEFFICIENTS = 30

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #2b2f36; background: #f5f6f8; margin: 0; }
main { max-width: 860px; margin: 0 auto; padding: 24px 16px 64px; }
h1 { font-size: 26px; margin: 8px 0 0; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 36px 0 10px; }
.lead { margin: 4px 0 20px; }
section > div, section > table { background: #fff; border: 1px solid #d9dde3; border-radius: 6px; }
section > div { padding: 10px; margin-bottom: 12px; }
svg { display: block; width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: 5px 12px; border-top: 1px solid #eceef1;
  vertical-align: top; overflow-wrap: anywhere; }
thead th { border-top: 0; background: #eef0f3; }
tr:first-child > * { border-top: 0; }
th[scope=row] { font-weight: 500; white-space: pre-wrap; }
td { font-variant-numeric: tabular-nums; }
"""


def run_page(fitted: Fitted, name: str) -> str:
    """Return what a run was and did, as HTML.

    Parameters
    ----------
    fitted : Fitted
        As `load_fitted` returns it.
    name : str
        What the run is called: the path of its folder.

    Raises
    ------
    InvalidRun
        Where no report was saved with it, or it is damaged.
    """
    report = report_of(fitted.report, name)
    title = html_escaped(os.path.basename(os.path.normpath(name)))
    sections = (
        ("What it did", html_table(report.figures())),
        ("Loss", _loss(report)),
        ("Memory", _figure(svg(report.memory.plot))),
        ("What the plan said", _plan(report)),
        ("Settings", html_table(_settings(fitted))),
        ("Coefficients", _coefficients(fitted)),
    )
    body = "".join(f"<section><h2>{head}</h2>{text}</section>" for head, text in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>"
        f"<body><main><h1>{title}</h1>"
        f'<p class="lead">{html_escaped(str(report))}</p>{body}</main></body></html>\n'
    )


def _figure(drawn: str) -> str:
    return f"<div>{drawn}</div>"


def _loss(report: Report) -> str:
    over_passes = svg(lambda ax: plots.loss(report, ax), 3.6)
    over_seconds = svg(lambda ax: plots.loss(report, ax, over="seconds"), 3.6)
    return _figure(over_passes) + _figure(over_seconds)


def _plan(report: Report) -> str:
    memory = report.memory
    rows = [*memory.terms.items(), ("projected", memory.projected), ("ceiling", memory.ceiling)]
    terms = [(name, f"{n / 2**20:,.2f} MiB", f"{n:,}") for name, n in rows]
    drawn = svg(lambda ax: plots.plan(memory, ax), 2.8)
    return _figure(drawn) + html_table(terms, ("term", "size", "bytes"))


def _settings(fitted: Fitted) -> list[tuple[str, str]]:
    rows = [(name, str(value)) for name, value in fitted.model.settings().items()]
    if fitted.classes:
        rows.append(("classes", few(fitted.classes)))
    return rows


def _coefficients(fitted: Fitted) -> str:
    """Return the largest coefficients, drawn and as a table."""
    coef, outputs = fitted.coef, [str(label) for label in fitted.classes]
    names = fitted.feature_names or tuple(f"feature {i}" for i in range(fitted.n_features))
    if fitted.n_outputs == 1:
        # Of two classes, the coefficients are those of the second.
        outputs = [f"for {outputs[1]}" if len(outputs) == 2 else "coefficient"]
    elif not outputs:
        outputs = [f"output {i}" for i in range(fitted.n_outputs)]
    drawn = min(_DRAWN_COEFFICIENTS, fitted.n_features)
    figure = svg(
        lambda ax: plots.coefficients(coef, names, ax, most=drawn, outputs=outputs),
        1.3 + 0.24 * drawn,
    )
    order = np.argsort(-np.abs(coef).max(axis=0), kind="stable")[:_MOST_COEFFICIENTS]
    rows = [("intercept", *(f"{value:.6g}" for value in fitted.intercept))]
    rows += [(names[i], *(f"{value:.6g}" for value in coef[:, i])) for i in order]
    if (more := fitted.n_features - len(order)) > 0:
        rows.append((f"... and {more:,} smaller ones", *("" for _ in outputs)))
    return _figure(figure) + html_table(rows, ("feature", *outputs))
