"""Sources of the reference for Sphinx, made from what the package exports."""

import importlib
import inspect
import re
from collections import defaultdict
from io import StringIO
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util.console import nocolor

import ooc_train
from ooc_train import __version__

_SETTINGS: dict[str, Any] = {
    "project": "ooc_train",
    "release": __version__,
    "extensions": ["sphinx.ext.autodoc", "numpydoc"],
    "html_theme": "furo",
    "html_title": f"ooc_train {__version__}",
    "html_copy_source": False,
    # The types of settings have their descriptions within; docstrings say both.
    "autodoc_typehints": "none",
    "numpydoc_show_class_members": False,
    # Texts of code between single backquotes.
    "default_role": "literal",
}

_FIRST = ("estimators", "models", "solvers", "training", "following", "inference", "explanation")
"""Rooms that the list begins with; the others follow by name."""


def rooms() -> dict[str, list[str]]:
    """Return the public names by the room of the package that they are from."""
    stub = Path(ooc_train.__file__).with_suffix(".pyi").read_text(encoding="utf8")
    found = defaultdict(list)
    for room, name in re.findall(r"^from \.(\w+)[\w.]* import (?:\w+) as (\w+)$", stub, re.M):
        found[room].append(name)
    order = [*(room for room in _FIRST if room in found), *sorted(set(found) - set(_FIRST))]
    return {room: sorted(found[room], key=str.lower) for room in order}


def _summary(value: object) -> str:
    """Return the first line of a docstring, or of the comment of a value that has none."""
    return (inspect.getdoc(value) or "").partition("\n")[0]


def _page(name: str) -> str:
    """Return the page of a public name."""
    value, title = getattr(ooc_train, name), f"{name}\n{'=' * len(name)}\n\n"
    if inspect.isclass(value):
        inherited = (
            "" if issubclass(value, BaseException) else "   :inherited-members: BaseEstimator\n"
        )
        return f"{title}.. autoclass:: ooc_train.{name}\n   :members:\n{inherited}"
    if inspect.isfunction(value):
        return f"{title}.. autofunction:: ooc_train.{name}\n"
    if inspect.ismodule(value):
        return f"{title}.. automodule:: {value.__name__}\n   :members:\n"
    return f"{title}.. autodata:: ooc_train.{name}\n   :no-value:\n"


def _is_foreign(site: Any, kind: str, name: str, member: Any, skip: bool, options: Any) -> bool:
    """Return whether a member of a class is left out: one that scikit-learn or Python documents."""
    del site, kind, name, options
    return skip or not (getattr(member, "__module__", None) or "ooc_train").startswith("ooc_train")


def write_sources(folder: Path) -> None:
    """Write a page for each public name, and the list of them by room."""
    (folder / "names").mkdir(parents=True)
    lines = [
        "ooc_train",
        "=========",
        "",
        "What the package exports, by the room that it is from.",
        "",
    ]
    for room, names in rooms().items():
        lines += [
            room,
            "-" * len(room),
            "",
            _summary(importlib.import_module(f"ooc_train.{room}")),
            "",
        ]
        lines += [
            *(f"- :doc:`names/{name}`: {_summary(getattr(ooc_train, name))}" for name in names)
        ]
        lines += ["", ".. toctree::", "   :hidden:", f"   :caption: {room}", ""]
        lines += [*(f"   names/{name}" for name in names), ""]
        for name in names:
            (folder / "names" / f"{name}.rst").write_text(_page(name), encoding="utf8")
    (folder / "index.rst").write_text("\n".join(lines), encoding="utf8")


def build(sources: Path, out: Path) -> str:
    """Build the site from sources that are written to a folder; return what Sphinx warns of."""
    write_sources(sources)
    warnings = StringIO()
    nocolor()
    site = Sphinx(
        sources,
        None,
        out,
        sources / ".doctrees",
        "html",
        confoverrides=_SETTINGS,
        status=None,
        warning=warnings,
    )
    site.connect("autodoc-skip-member", _is_foreign)
    site.build()
    return warnings.getvalue()
