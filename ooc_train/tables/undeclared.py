"""Columns of text that no role declares: their first rows, and the message about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from ooc_train.core.text import IN_PYTHON, brief, counted, listed
from ooc_train.errors import InvalidTable
from ooc_train.tables.arrow import from_texts
from ooc_train.tables.batches import Tables
from ooc_train.tables.cell_formats import CellFormats
from ooc_train.tables.diagnostics import is_number
from ooc_train.tables.format_guesses import guess, together
from ooc_train.tables.names import as_option

_FEW_VALUES, _FEW_SHARE = 100, 0.1
"""Values of text that are always few enough for categories, and else the largest share of rows."""


def undeclared_columns(
    tables: Tables,
    formats: CellFormats,
    refused: Sequence[str],
    text: Sequence[str],
    other: Sequence[str],
) -> str:
    """Return the message for columns of text and of other types that no role declares.

    `formats` are those of the user, and `refused` the columns that may have no missing value.
    """
    lines = []
    absent = []
    if refused:
        rows = tables.first_rows(refused)
        absent = [name for name in refused if rows.column(name).null_count]
    if text:
        found = first_texts(tables, text)
        cells = {name: from_texts(found[name].texts) for name in text}
        guesses = {name: guess(cells[name]) for name in text}
        hints = {name: str(guesses[name] or formats.misfit(cells[name])) for name in text}
        of_ids = "; as an id of text it is left out, and predict --keep repeats it"
        columns = "\n".join(
            f"  {name}: {found[name]}"
            + (f"; {hints[name]}" if hints[name] else of_ids * found[name].are_ids)
            for name in text
        )
        lines.append(
            f"{len(text)} {'column holds' if len(text) == 1 else 'columns hold'} text, and nothing "
            f"says what it means:\n{columns}"
        )
        few = [name for name in text if not found[name].too_many]
        missing = " --missing median" if absent else ""
        flags = [_roles(few, text) + missing] if few else []
        flags.append(_roles((), text) + (missing if set(absent) - set(text) else ""))
        way = "declare their values as categories, or leave them out" if few else "leave them out"
        if (common := together(guesses, formats)) is not None:
            way = f"read them as people write numbers, dates, and yes and no, {way}"
            rest = [name for name in text if not hints[name]]
            few_rest = [name for name in few if name in rest]
            missing = missing or (" --missing median" if common.na and refused else "")
            flags.insert(0, f"  {common.as_options()}{_roles(few_rest, rest)[1:]}{missing}")
            flags.append(IN_PYTHON + _in_python(common, few_rest, rest, bool(missing)))
        elif any(guess and len(guess.readings) == 1 for guess in guesses.values()):
            way = (
                "formats are those of the whole file, and these columns contradict each other: "
                f"{way}"
            )
        lines.append(f"{way}:\n" + "\n".join(flags))
        if absent:
            found_in = f"the first rows lack values of {listed(absent)}"
            lines.append(f"{found_in}: --missing mean or drop are other ways than median")
    if other:
        types = ", ".join(f"{name!r} ({tables.schema.field(name).type})" for name in other)
        flags = [f"  --drop {as_option(other)}"]
        lines.append(f"no features can be made of {types}; leave them out:\n" + flags[0])
    return "\n".join(lines)


def _in_python(
    formats: CellFormats, few: Sequence[str], names: Sequence[str], missing: bool
) -> str:
    """Return the first proposal as arguments of `ingest`."""
    given = ", ".join(f"{name}={value!r}" for name, value in formats.to_json().items())
    roles: dict[str, Any] = {
        "categorical": list(few),
        "drop": [name for name in names if name not in few],
        "missing": "median" if missing else "",
    }
    return ", ".join(
        [f"formats=CellFormats({given})", *(f"{k}={v!r}" for k, v in roles.items() if v)]
    )


def _roles(few: Sequence[str], names: Sequence[str]) -> str:
    """Return options that make categories of a few columns and leave out the others."""
    flags = f"  --categorical {as_option(few)}" if few else " "
    rest = [name for name in names if name not in few]
    return f"{flags} --drop {as_option(rest)}" if rest else flags


@dataclass(frozen=True)
class FirstTexts:
    """The distinct values in the first rows of a text column, and the rows with a value."""

    texts: list[str]
    rows: int

    @property
    def are_ids(self) -> bool:
        """Whether no value is there twice."""
        return self.too_many and len(self.texts) == self.rows

    @property
    def too_many(self) -> bool:
        """Whether the column has too many distinct values for a feature of each."""
        return len(self.texts) > max(_FEW_VALUES, _FEW_SHARE * self.rows)

    def __str__(self) -> str:
        # Texts first: they are the reason that a column is no column of numbers.
        shown = ", ".join(map(repr, sorted(self.texts, key=is_number)[:3]))
        if mixed := _mixed_zones(self.texts):
            shown = f"{mixed[0]!r} with a zone and {mixed[1]!r} without one: write them in one form"
        if not self.too_many:
            return f"such as {shown}"
        return (
            f"such as {shown}; {counted(len(self.texts), 'value')} in the first "
            f"{counted(self.rows, 'row')}, too "
            "many to make a feature of each"
        )


def first_texts(tables: Tables, names: Sequence[str]) -> dict[str, FirstTexts]:
    """Return the first rows of text columns, by name."""
    batch = tables.first_rows(names)
    found = {}
    for name in names:
        values = batch.column(name)
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        try:
            texts = [text for text in values.unique().to_pylist() if text is not None]
        except ValueError as error:
            raise InvalidTable(
                f"column {name!r} of {tables.paths[0]} can't be read as text: {brief(error)}; "
                "correct it, or leave it out (--drop)"
            ) from None
        found[name] = FirstTexts(texts, len(values) - values.null_count)
    return found


def _mixed_zones(texts: Sequence[str]) -> tuple[str, str] | None:
    """Return a time with a zone and one without, if all texts are times and both kinds occur."""
    zoned: dict[bool, str] = {}
    for text in texts[:_FEW_VALUES]:
        try:
            zoned.setdefault(datetime.fromisoformat(text.strip()).tzinfo is not None, text)
        except ValueError:
            return None
    return (zoned[True], zoned[False]) if len(zoned) == 2 else None
