"""How people write numbers, dates, and yes and no: text in these formats becomes values.

Such columns are read as text, and converted here, a column of a batch at a time. Columns without
such formats never come here. `format_guesses` proposes formats.
"""

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ooc_train.core.schema import shown
from ooc_train.tables.arrow import from_texts, scalar, to_numpy
from ooc_train.tables.column_kinds import kind_of
from ooc_train.tables.features import Column, Target
from ooc_train.tables.names import as_option
from ooc_train.tables.values import WrongValueError, shown_value

Converter = Callable[[pa.Array], pa.Array]

THOUSANDS = {",": ",", ".": r"\.", " ": "[ \u00a0\u2009\u202f]", "'": "['\u2019]"}
"""Signs between thousands, and the patterns of what people write for them."""

_GAP = "[\\s\u00a0\u2009\u202f]*"
_TRUE, _FALSE = ("true", "1"), ("false", "0")
_DIRECTIVES = "dmYybBHMSIp"
"""Directives of dates that C's strptime and Python's take alike."""

_CORRECT = "correct it, name it as missing (--na), or leave the column out (--drop)"


@dataclass(frozen=True)
class CellFormats:
    """How the cells of raw files are written, where they are not written as computers do.

    Words are found in any case of their letters. Categories and labels stay as they are written.

    Parameters
    ----------
    decimal : {".", ","}
        The sign before the fraction of a number.
    thousands : {",", ".", " ", "'"}, optional
        The sign between groups of three digits. A space is also a narrow or a fixed one.
    symbols : sequence of str
        Currencies and units before or after a number, such as "€" and "%". The number is the one
        that is written: 5 % is 5. A column has one symbol, found in its first rows, which numbers
        may lack; if it is %, all have it.
    na : sequence of str
        Words for a missing number, date, or yes and no.
    true, false : sequence of str
        Words for yes and no, beside true and false, which become 1 and 0.
    date_format : str or mapping of str to str, optional
        The form of dates, such as "%d/%m/%Y"; or forms by column, where "" is all other columns.

    Raises
    ------
    ValueError
        If two of them contradict each other, or one is no such format.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from ooc_train import CellFormats
    >>> german = CellFormats(decimal=",", thousands=".", symbols=["€"], na=["unbekannt"])
    >>> german.numbers("€", pa.array(["1.234,50 €", "-7", "unbekannt"])).to_pylist()
    [1234.5, -7.0, None]
    """

    decimal: str = "."
    thousands: str | None = None
    symbols: Sequence[str] = ()
    na: Sequence[str] = ()
    true: Sequence[str] = ()
    false: Sequence[str] = ()
    date_format: str | Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if self.decimal not in (".", ","):
            raise ValueError(f"decimal={shown(self.decimal)} should be '.' or ','")
        if self.thousands is not None and self.thousands not in THOUSANDS:
            raise ValueError(f"thousands={shown(self.thousands)} should be ',', '.', ' ' or \"'\"")
        if self.thousands == self.decimal:
            raise ValueError(f"thousands and decimal are both {self.decimal!r}; use two signs")
        for name in ("symbols", "na", "true", "false"):
            if isinstance(getattr(self, name), str):
                raise TypeError(f"{name} is a list of texts, not one text")
            object.__setattr__(self, name, tuple(text.strip() for text in getattr(self, name)))
        for symbol in self.symbols:
            if not symbol or re.search(r"\d", symbol) or symbol in "+-.,'":
                raise ValueError(f"symbols has {shown(symbol)}, which is empty or part of a number")
        words = [word.lower() for word in (*self.na, *self.true, *self.false)]
        if len(set(words)) < len(words):
            raise ValueError("na, true and false name a word twice; a word has one meaning")
        if bool(self.true) != bool(self.false):
            raise ValueError("true and false are words for yes and for no; name both")
        for date_format in self.date_formats.values():
            require_date_format(date_format)

    @property
    def date_formats(self) -> dict[str, str]:
        """Forms of dates by column; "" is all other columns."""
        if isinstance(self.date_format, str):
            return {"": self.date_format}
        return dict(self.date_format or {})

    @property
    def of_numbers(self) -> bool:
        """Whether any of them is about numbers."""
        return self.decimal != "." or bool(self.thousands or self.symbols or self.na)

    def to_json(self) -> dict[str, Any]:
        """Return those that differ from the default, as JSON values."""
        default = asdict(PLAIN)
        return {name: value for name, value in asdict(self).items() if value != default[name]}

    def as_options(self) -> str:
        """Return them as options to paste into the command line."""
        found = [("--decimal", repr(self.decimal))] if self.decimal != "." else []
        found += [("--thousands", repr(self.thousands))] if self.thousands else []
        for name in ("symbols", "na", "true", "false"):
            found += [(f"--{name}", as_option(words))] if (words := getattr(self, name)) else []
        for name, date_format in self.date_formats.items():
            text = f"{name}={date_format}" if name else date_format
            found.append(("--date-format", shlex.quote(text)))
        return " ".join(f"{name} {text}" for name, text in found)

    def converters(
        self, columns: Iterable[Column], target: Target | None = None, weight: str | None = None
    ) -> dict[str, Converter]:
        """Return functions from text to values, by column, for columns that need one."""
        found = {
            column.name: self._converter(
                column.kind, column.type, column.symbol, column.date_format
            )
            for column in columns
        }
        if target is not None and (target.classes is None or target.type == "bool"):
            found[target.name] = self._converter("number", target.type, target.symbol)
        if weight is not None:
            found[weight] = self._converter("number", "double")
        return {name: converter for name, converter in found.items() if converter is not None}

    def _converter(
        self, kind: str, arrow: str, symbol: str = "", date_format: str = ""
    ) -> Converter | None:
        if kind == "date":
            return partial(self.dates, date_format) if date_format or self.na else None
        if kind == "category":
            return None
        if arrow == "bool":
            return self.flags if self.true or self.na else None
        plain = self.decimal == "." and not (self.thousands or symbol or self.na)
        return None if plain else partial(self.numbers, symbol)

    def column(self, name: str, cells: pa.Array) -> Column | None:
        """Return the column that its first rows, of text, are in these formats; None if none."""
        date_format = self.date_formats.get(name, self.date_formats.get("", ""))
        if date_format and fits(partial(self.dates, date_format), cells) is not None:
            return Column(name, "date", "timestamp[us]", date_format=date_format)
        for symbol in ("", *self.symbols) if self.of_numbers else ():
            found = fits(partial(self.numbers, symbol), cells)
            if found is not None:
                values = to_numpy(found.drop_null())
                arrow = "int64" if (values == np.floor(values)).all() else "double"
                return Column(name, "number", arrow, symbol=symbol)
        if (self.true or self.na) and fits(self.flags, cells) is not None:
            return Column(name, "number", "bool")
        return None

    def misfit(self, cells: pa.Array) -> str:
        """Return why text is no column of numbers, for a cell after others that are; else ""."""
        found = [(0, "")]
        for symbol in ("", *self.symbols) if self.of_numbers else ():
            try:
                self.numbers(symbol, cells)
            except WrongValueError as error:
                found.append((error.row, error.why))
        row, why = max(found)
        return f"a cell {why}" if row else ""

    def numbers(self, symbol: str, array: pa.Array) -> pa.Array:
        """Return text as float64, and other arrays as they are.

        `WrongValueError` is raised at the first cell that is no number in these formats.
        """
        if kind_of(array.type) != "text":
            return array
        cells = self._cells(array)
        if symbol == "%":
            # 5 among percentages may be 5 % or 500 %.
            _require(
                pc.match_substring(cells, "%"), cells, f"lacks the % of its column; {_CORRECT}"
            )
        text = cells
        if symbol:
            sign = re.escape(symbol)
            pattern = f"^([+-]?){_GAP}{sign}{_GAP}|{_GAP}{sign}$"
            text = pc.replace_substring_regex(text, pattern, r"\1", max_replacements=1)
        ok = pc.match_substring_regex(text, self._pattern)
        formats = CellFormats(self.decimal, self.thousands, (symbol,) if symbol else ())
        said = f" by {formats.as_options()}" if formats != PLAIN else ""
        _require(ok, cells, f"is no number{said}; {_CORRECT}")
        if self.thousands in (",", "."):
            text = pc.replace_substring(text, self.thousands, "")
        elif self.thousands:
            text = pc.replace_substring_regex(text, THOUSANDS[self.thousands], "")
        if self.decimal == ",":
            text = pc.replace_substring(text, ",", ".")
        return text.cast(pa.float64())

    @property
    def _pattern(self) -> str:
        """The pattern of a number without its symbol; groups of thousands have three digits."""
        point = re.escape(self.decimal)
        whole = r"\d+"
        if self.thousands:
            whole = rf"(?:[1-9]\d{{0,2}}(?:{THOUSANDS[self.thousands]}\d{{3}})+|\d+)"
        return rf"^[+-]?(?:{whole}(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?$"

    def flags(self, array: pa.Array) -> pa.Array:
        """Return words for yes and no as booleans, and other arrays as they are.

        `WrongValueError` is raised at the first other word.
        """
        if kind_of(array.type) != "text":
            return array
        cells = self._cells(array)
        text = pc.utf8_lower(cells)
        true, false = (
            pc.is_in(text, from_texts([*usual, *(word.lower() for word in words)]))
            for usual, words in ((_TRUE, self.true), (_FALSE, self.false))
        )
        why = f"is none of the words for yes and no (--true, --false); {_CORRECT}"
        _require(pc.or_(pc.or_(true, false), pc.is_null(text)), cells, why)
        return pc.if_else(pc.is_valid(text), true, scalar(None, pa.bool_()))

    def dates(self, date_format: str, array: pa.Array) -> pa.Array:
        """Return text, or numbers such as 20240131, as times; without a format, as text.

        `WrongValueError` is raised at the first cell of another form, or without such a day.
        """
        if pa.types.is_integer(array.type) and date_format:
            array = array.cast(pa.string())
        if kind_of(array.type) != "text":
            return array
        cells = self._cells(array)
        if not date_format:
            return cells
        why = f"is no date in the form {date_format}; {_CORRECT}"
        found = pc.strptime(cells, format=date_format, unit="us", error_is_null=True)
        _require(pc.or_(pc.is_valid(found), pc.is_null(cells)), cells, why)
        # C's strptime takes 31 February as 2 March, and the year 24 as such; Python's refuses both.
        day, year = scalar(3, pa.int64()), scalar(1000, pa.int64())
        doubtful = pc.or_(pc.less_equal(pc.day(found), day), pc.less(pc.year(found), year))
        for text in cells.filter(doubtful).unique().to_pylist():
            try:
                datetime.strptime(text, date_format)  # noqa: DTZ007 # days are counted without a zone
            except ValueError:
                _require(pc.not_equal(cells, scalar(text, pa.string())), cells, why)
        return found

    def _cells(self, array: pa.Array) -> pa.Array:
        """Return text without spaces around it; empty cells and words for missing are null."""
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        text = pc.utf8_trim_whitespace(array.cast(pa.string()))
        missing = from_texts(["", *(word.lower() for word in self.na)])
        absent = pc.is_in(pc.utf8_lower(text), missing)
        return pc.if_else(absent, scalar(None, pa.string()), text)


PLAIN = CellFormats()
"""Cells as computers write them, which Arrow parses."""


def _require(ok: pa.Array, cells: pa.Array, why: str) -> None:
    """Raise `WrongValueError` at the first cell that is not ok; null is."""
    row = pc.index(ok, scalar(False, pa.bool_())).as_py()
    if row >= 0:
        raise WrongValueError(row, f"is {shown_value(cells, row)}, which {why}")


def fits(convert: Converter, cells: pa.Array) -> pa.Array | None:
    """Return converted cells; None if one is of another form, or all are missing."""
    try:
        found = convert(cells)
    except (WrongValueError, pa.ArrowInvalid):
        return None
    return found if found.null_count < len(found) else None


def require_date_format(date_format: str) -> None:
    """Raise `ValueError` unless a form of dates names day, month and year by known directives."""
    day = datetime(2021, 11, 23)  # noqa: DTZ001 # days are counted without a zone
    try:
        whole = datetime.strptime(day.strftime(date_format), date_format) == day  # noqa: DTZ007
    except (TypeError, ValueError, re.error):
        whole = False
    if not whole or set(re.findall("%(.?)", date_format)) - {*_DIRECTIVES}:
        raise ValueError(
            f"date_format={shown(date_format)} should have day, month and year, such as %d/%m/%Y, "
            "and no other directives than " + " ".join(f"%{letter}" for letter in _DIRECTIVES)
        )
