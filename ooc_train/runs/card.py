"""The card of a run: what a model is, what it learned from and how, as a page of Markdown.

Model cards are by Mitchell et al. (2019). This one says what a run knows when it is saved.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ooc_train.core.named_classes import as_text
from ooc_train.core.text import counted, few, losses, printable
from ooc_train.core.units import approximate_bytes, approximate_duration

CARD_FILE = "card.md"

_SIGNS = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_[]|"} | {"<": "&lt;", "&": "&amp;"})
"""How the signs of Markdown and HTML are written as text."""

Rows = list[tuple[str, Any]]
Figures = Sequence[tuple[str, str, Callable[[Any], str]]]


def _count(value: Any) -> str:
    return f"{value:,}"


def _number(value: Any) -> str:
    return losses(value, None)


_QUALITY: Figures = (
    ("loss of the training rows", "loss", _number),
    ("loss of the validation rows", "validation_loss", _number),
    ("loss of each row before its update", "progressive_loss", _number),
    ("converged", "converged", lambda value: "yes" if value else "no"),
    ("ended", "ended", str),
)
_RUN: Figures = (
    ("solver", "solver", str),
    ("why", "solver_reason", str),
    ("batch size", "batch_size", str),
    ("passes", "passes", lambda value: f"{value:.4g}"),
    ("updates", "updates", _count),
    ("learning rate", "learning_rate", _number),
    ("seed", "random_state", str),
    ("time", "seconds", approximate_duration),
)
_MEMORY: Figures = (
    ("ceiling", "ceiling", approximate_bytes),
    ("projected", "projected", approximate_bytes),
    ("measured", "measured", approximate_bytes),
)


def card(
    name: str, values: Mapping[str, Any], n_features: int, recipe: Mapping[str, Any] | None
) -> str:
    """Return the card of a run as Markdown.

    Parameters
    ----------
    name : str
        Name of the run's folder.
    values : mapping
        The values of its `model.json`.
    n_features : int
        Number of columns of X.
    recipe : mapping or None
        The values of its `recipe.json`.
    """
    model, report = dict(values["model"]), values["report"]
    about: Rows = [("model", model.pop("name")), ("features", f"{n_features:,}")]
    about += [
        (title, few(values[key]))
        for title, key in (("names", "feature_names"), ("classes", "classes"))
        if values[key]
    ]
    if (calibration := values.get("calibration")) is not None:
        rows = counted(calibration["n_rows"], "validation row")
        told = f"{calibration['method']}, from {rows}"
        about.append(("calibrated probabilities", told))
    origin = dict(report.get("origin", {}))
    data: Rows = [(key, origin.pop(key)) for key in ("data", "validation data") if key in origin]
    losses_are = [("losses", origin.pop("losses"))] if "losses" in origin else []
    sections: dict[str, Rows] = {
        "Model": about + [(key, as_text(value)) for key, value in model.items()],
        "Data": data + _encoding(recipe),
        "Quality": _rows(_QUALITY, report) + losses_are,
        "Run": _rows(_RUN, report),
        "Settings": [(key, as_text(value)) for key, value in values["training"].items()],
        "Memory": _rows(_MEMORY, report.get("memory", {})),
        "Privacy": _privacy(report.get("privacy")),
        "Notes": [("note", note) for note in report.get("notes", ())],
        "Made": [*origin.items()],
    }
    parts = [f"# {_text(name)}", *(_section(*each) for each in sections.items() if each[1])]
    return "\n\n".join(parts) + "\n"


def _rows(figures: Figures, values: Mapping[str, Any]) -> Rows:
    """Return the figures that are known, as text."""
    return [
        (title, form(values[key]))
        for title, key, form in figures
        if values.get(key) not in (None, "")
    ]


def _encoding(recipe: Mapping[str, Any] | None) -> Rows:
    """Return what a recipe does with raw columns."""
    if recipe is None:
        return []
    target = recipe["target"]
    return [
        ("raw columns", few([column["name"] for column in recipe["columns"]])),
        *([] if target is None else [("target", target["name"])]),
        ("missing values", recipe["missing"]),
        ("unseen categories", recipe["unseen"]),
    ]


def _privacy(budget: Mapping[str, Any] | None) -> Rows:
    """Return the budget of differential privacy, and what it is of."""
    if budget is None:
        return [("differential privacy", "none: nothing bounds what a row changes")]
    about = "of the parameters, for data that differ in one training row"
    return [("differential privacy", about), *budget.items()]


def _section(title: str, rows: Rows) -> str:
    table = "\n".join(f"| {_text(name)} | {_text(value)} |" for name, value in rows)
    return f"## {title}\n\n| | |\n|---|---|\n{table}"


def _text(value: Any) -> str:
    """Return a value as text that is one cell of a table, without markup."""
    return " ".join(printable(str(value)).split()).translate(_SIGNS)
