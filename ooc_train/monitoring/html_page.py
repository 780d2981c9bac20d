"""Pages of HTML with everything in them: they open without a network."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from ooc_train.core.text import printable
from ooc_train.plotting.figures import svg


@dataclass(frozen=True, slots=True)
class Section:
    """A section of a page: its figures as SVG, then a table whose first cells name the rows.

    Then come its parts. A folded section shows its title alone, until it is clicked.
    """

    title: str
    figures: Sequence[Markup] = ()
    rows: Sequence[Sequence[str]] = ()
    head: Sequence[str] = ()
    folded: bool = False
    parts: "Sequence[Section]" = ()


def html_page(title: str, lead: Sequence[str], sections: Sequence[Section]) -> str:
    """Return a page of a title, lines of text, and sections."""
    template = Environment(
        loader=PackageLoader("ooc_train", "monitoring"),
        autoescape=True,
        finalize=_without_control_characters,
    ).get_template("html_page.html")
    return template.render(title=title, lead=lead, sections=sections)


def drawn(draw: Callable[[Any], object], *height: float) -> Markup:
    """Return a plot as SVG, in which matplotlib has escaped all text."""
    return Markup(svg(draw, *height))  # noqa: S704 (escaped already)


def _without_control_characters(value: Any) -> Any:
    return printable(value) if type(value) is str else value
