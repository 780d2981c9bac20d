"""Guesses of how people wrote the text of a column, from its first rows: proposed, never applied.

A guess is the formats in which every cell is a number, a date, or yes or no. Where cells can be
read in several ways, each of them is a guess.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ooc_train.tables.arrow import from_texts, to_numpy
from ooc_train.tables.batches import Tables
from ooc_train.tables.cell_formats import PLAIN, THOUSANDS, CellFormats, fits
from ooc_train.tables.column_kinds import kind_of

_MOST_CELLS = 10_000
"""Most distinct cells of a column that a guess is made of."""

_FLAGS = (
    *(("yes", "no"), ("y", "n"), ("true", "false"), ("t", "f"), ("on", "off")),
    *(("ja", "nein"), ("oui", "non"), ("sí", "no"), ("si", "no")),
)
_DAYS = (
    *("%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d.%m.%Y", "%Y.%m.%d", "%d-%m-%Y", "%m-%d-%Y"),
    "%Y-%m-%d",
    *("%d/%m/%y", "%m/%d/%y", "%d.%m.%y", "%d %b %Y", "%d-%b-%Y", "%b %d, %Y"),
)
_DATES = tuple(day + time for day, time in product(_DAYS, ("", " %H:%M", " %H:%M:%S")))
_DATE_PARTS = re.compile(r"\d+[/.-]\d+[/.-]\d|\d+[ -][A-Za-z]{3}[ -]\d|[A-Za-z]{3} \d+, \d")
_SEPARATORS = (
    *((".", None), (",", None), (".", ","), (",", "."), (".", " "), (",", " ")),
    *((".", "'"), (",", "'")),
)
_SYMBOLS = ("%", "EUR", "USD", "GBP", "CHF", "JPY", "CNY", "INR", "CAD", "AUD", "kr", "Kč", "zł")
_BESIDE = r"([^\d.,'\u2019+-]*)"
_NUMBER = re.compile(rf"{_BESIDE}[+-]?{_BESIDE}[\d.,'\s\u2019]*\d[.,]?(?:[eE][+-]?\d+)?(\D*)")
_GROUPS = r"^\s*[+-]?(?:[1-9]\d{0,2}(?:\.\d{3})+|\d+)\s*$"
"""The pattern of numbers whose points may be between thousands."""

_MOST_WORDS, _MOST_LETTERS = 3, 64
"""Most words for missing among the numbers of a column, and most letters of a number."""


@dataclass(frozen=True)
class Guess:
    """The formats that the first rows of a column may be in; several if they are ambiguous.

    `cells` are the first rows without words for missing, and `example` is one of them.
    """

    what: str
    readings: tuple[CellFormats, ...]
    example: str
    cells: pa.Array

    def __str__(self) -> str:
        if len(self.readings) == 1:
            return f"{self.what} by {self.readings[0].as_options()}"
        ways = ", or ".join(
            f"{_value(formats, self.what, self.example)} "
            + (f"by {formats.as_options()}" if formats != PLAIN else "as it is")
            for formats in self.readings
        )
        return f"{self.what}, and {self.example!r} may be {ways}: say which"


def guess(cells: pa.Array) -> Guess | None:
    """Return how text can be read as values, with other formats than the default; None if not."""
    distinct = cells.drop_null().unique()[:_MOST_CELLS].to_pylist()
    texts = [text for text in map(str.strip, distinct) if text]
    digits = [text for text in texts if re.search(r"\d", text)]
    words = sorted({text.lower() for text in texts} - {text.lower() for text in digits})
    for true, false in _FLAGS if words and not digits else ():
        rest = tuple(set(words) - {true, false})
        if not rest or (len(rest) == 1 and len(words) == 3):
            formats = CellFormats(na=rest, true=(true,), false=(false,))
            return Guess("yes and no", (formats,), texts[0], from_texts(texts))
    if not digits or len(words) > _MOST_WORDS or max(map(len, digits)) > _MOST_LETTERS:
        return None
    given, array = CellFormats(na=tuple(words)), from_texts(digits)
    if _DATE_PARTS.match(digits[0]):
        dates = [f for f in _DATES if fits(partial(given.dates, f), array) is not None]
        if dates:
            return _guess("dates", [replace(given, date_format=each) for each in dates], array)
    symbols = _symbols(digits)
    if symbols is None:
        return None
    # Formats that give the same numbers as others before are no further reading.
    readings: dict[bytes, CellFormats] = {}
    letters = "".join({*"".join(digits)})
    for decimal, thousands in _SEPARATORS:
        other = (decimal, thousands) != (".", None)
        if other and not re.search(THOUSANDS[thousands or decimal], letters):
            continue
        formats = replace(given, decimal=decimal, thousands=thousands, symbols=symbols)
        found = fits(partial(formats.numbers, "".join(symbols)), array)
        if found is not None:
            readings.setdefault(to_numpy(found).tobytes(), formats)
    return _guess("numbers", list(readings.values()), array)


def _guess(what: str, readings: Sequence[CellFormats], cells: pa.Array) -> Guess | None:
    """Return a guess, with the first cell that its readings tell apart as an example."""
    if not readings or readings == [PLAIN]:
        return None
    texts = cells.to_pylist()
    for text in texts if len(readings) > 1 else ():
        if len({_value(formats, what, text) for formats in readings}) > 1:
            return Guess(what, tuple(readings), text, cells)
    return Guess(what, (readings[0],), texts[0], cells)


def _value(formats: CellFormats, what: str, text: str) -> str:
    """Return what a cell is in some formats, as text."""
    cell = from_texts([text])
    if what == "dates":
        return str(formats.dates(formats.date_formats[""], cell)[0].as_py())
    return f"{formats.numbers(''.join(formats.symbols), cell)[0].as_py():.15g}"


def _symbols(texts: Sequence[str]) -> tuple[str, ...] | None:
    """Return the currency or the % beside numbers; None if a text is no number, or they differ."""
    found: set[str] = set()
    for text in texts:
        number = _NUMBER.fullmatch(text)
        if number is None:
            return None
        found.update(part.strip() for part in number.groups() if part.strip())
    known = all(
        text in _SYMBOLS or (len(text) == 1 and unicodedata.category(text) == "Sc")
        for text in found
    )
    return tuple(found) if known and len(found) < 2 else None


def together(guesses: Mapping[str, Guess | None], given: CellFormats = PLAIN) -> CellFormats | None:
    """Return the formats of all columns with one reading, beside those that were given.

    None if there are no such columns, or if these contradict each other or what was given.
    """
    sure = {name: g for name, g in guesses.items() if g is not None and len(g.readings) == 1}
    if not sure:
        return None
    merged: dict[str, Any] = given.to_json()
    merged.pop("date_format", None)
    dates = given.date_formats
    for name, each in sure.items():
        for key, value in each.readings[0].to_json().items():
            if key == "date_format":
                dates[name] = value
            elif isinstance(value, tuple):
                merged[key] = tuple(dict.fromkeys((*merged.get(key, ()), *value)))
            else:
                merged[key] = value
    try:
        one = len(set(dates.values())) == 1
        formats = CellFormats(**merged, date_format=next(iter(dates.values())) if one else dates)
    except ValueError:
        return None
    agreed = all(formats.column(name, each.cells) is not None for name, each in sure.items())
    return formats if agreed else None


def format_notes(tables: Tables, text: Sequence[str], *, plain: bool) -> Iterator[str]:
    """Yield notes on columns of text that can be numbers or dates, and on numbers of two readings.

    Parameters
    ----------
    text : sequence of str
        Columns that are taken as text.
    plain : bool
        Whether numbers are read without formats, so that 1.234 may be 1234.
    """
    numbers: list[str] = []
    if plain and tables.format == "csv" and not tables.dialect.wide:
        numbers = [name for name in tables.names if str(tables.schema.field(name).type) == "double"]
    text = [name for name in text if tables.kind(name) == "text"]
    if not (text or numbers):
        return
    rows = tables.first_rows([*text, *numbers])
    for name in [*text, *numbers]:
        cells = rows.column(name)
        if pa.types.is_dictionary(cells.type):
            cells = cells.dictionary_decode()
        if kind_of(cells.type) != "text":
            continue
        if name in numbers and not pc.all(pc.match_substring_regex(cells, _GROUPS)).as_py():
            continue
        if (found := guess(cells)) is None:
            continue
        if name in text and found.what != "yes and no":  # which make good labels and categories
            yield f"{name!r} is taken as text, such as {found.example!r}; {found}"
        elif name in numbers and len(found.readings) > 1:
            yield f"{name!r} is read with decimal points: {found}"
