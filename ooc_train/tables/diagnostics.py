"""Error messages for raw files, with file, row and column."""

import codecs
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa

from ooc_train.core.schema import shown
from ooc_train.core.text import brief, counted, listed
from ooc_train.core.units import approximate_bytes
from ooc_train.errors import InvalidTable
from ooc_train.tables.names import delimiter_advice

_CUT_CHARACTERS = ("truncated data", "unexpected end of data", "incomplete multibyte sequence")
"""Reasons of a `UnicodeDecodeError` where the text ends within a character."""


class MixedZones(InvalidTable):
    """Raised for a time with a zone among times without zones, or the reverse."""

    def __init__(self, path: str, column: str, why: str) -> None:
        super().__init__(why)
        self.path = path
        self.column = column


class BrokenText(Exception):
    """Raised for a row that can't be parsed, after `rows` rows of its block (-1: the header)."""

    def __init__(self, rows: int, why: str) -> None:
        super().__init__(why)
        self.rows = rows
        self.why = why


def is_utf8(encoding: str) -> bool:
    """Return whether the name of an encoding means UTF-8; `LookupError` if it is unknown."""
    return codecs.lookup(encoding).name == "utf-8"


def require_encoding(encoding: str) -> None:
    """Raise `ValueError` for names that are no encoding of text.

    Python also has such names for compression.
    """
    try:
        "a".encode(encoding)
        codecs.getincrementaldecoder(encoding)
    except (LookupError, ValueError):
        raise ValueError(_unknown(encoding)) from None


def _unknown(encoding: str) -> str:
    return f"encoding={shown(encoding)} is unknown; utf8 and latin1 are common"


def require_columns(path: str, names: Sequence[str], wanted: Iterable[str]) -> None:
    """Refuse a file that names a column twice, or lacks a wanted column."""
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise InvalidTable(
            f"{path} names a column more than once: {', '.join(map(repr, twice))}; rename them in "
            "the file"
        )
    known = set(names)
    if absent := [name for name in wanted if name not in known]:
        raise InvalidTable(
            f"{path} lacks the {'column' if len(absent) == 1 else 'columns'} "
            f"{listed(absent)}; it has {listed(names)}{delimiter_advice(names)}"
        )


def unnamed_column(index: int) -> str:
    """Return the name that a column without a name gets, from its index (0 is the first)."""
    return f"column {index + 1}"


def row_place(row: int) -> str:
    """Return the place of a row in a text; line ends within cells and blank lines don't count."""
    return f"row {row:,} (about line {row + 2:,})" if row >= 0 else "the header"


def is_number(text: str) -> bool:
    """Return whether a text can be read as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def too_many_classes(name: str, values: Sequence[str], n_rows: int, hint: str = "") -> InvalidTable:
    """Return the error for a target of text with too many values for undeclared labels.

    `hint` says how the values may be read.
    """
    texts = [text for text in values if not is_number(text)]
    found = f"the target {name!r} holds text, with {counted(len(values), 'value')}"
    found += f" in {counted(n_rows, 'row')}"
    if 0 < len(texts) < len(values) / 2:
        found += f", numbers but for {len(texts):,}"
    return InvalidTable(
        f"{found} (such as {listed(texts or values, 3)}), too many for classes{hint}: correct the "
        "text that should be numbers, choose another --target, or declare its values as labels "
        "(--task classification)"
    )


def blank_file(path: str) -> InvalidTable:
    """Return the error for a file that holds only blank lines."""
    return InvalidTable(f"{path} is blank: not even a header is in it; leave it out")


def row_too_long(most: int) -> str:
    """Return the message for a row of more than so many bytes."""
    return (
        f"a row takes more than {approximate_bytes(most)} of text; either a quote is never "
        "closed, or it is no CSV"
    )


def not_text(path: str, encoding: str, what: str, likely: str | None = None) -> str:
    """Return the message for a file that is not in the given encoding, with a likely one."""
    likely = likely or ("latin1" if is_utf8(encoding) else "utf8")
    return (
        f"{path} is no text in the encoding {encoding} ({what}); name the right one, such as "
        f"--encoding {likely}"
    )


def seems_utf8(path: str, encoding: str) -> str:
    """Return the message for a file in UTF-8, unlike the training files."""
    return (
        f"{path} seems to be text in UTF-8, and the training files were in {encoding}; say which "
        f"it is: --encoding utf8, or --encoding {encoding}"
    )


@contextmanager
def explain_csv_errors(
    path: str, encoding: str, first: int = 0, names: Sequence[str] = ()
) -> Iterator[None]:
    """Within the context, turn errors of Arrow and of decoding into `InvalidTable`.

    `first` is the number of the first row of the block that is parsed.
    """
    try:
        yield
    except BrokenText as error:
        place = row_place(first + error.rows)
        raise InvalidTable(f"{path}: {place}: {error.why}; correct the file") from None
    except UnicodeError as error:
        if getattr(error, "reason", "") in _CUT_CHARACTERS and not is_utf8(encoding):
            raise InvalidTable(
                f"{path} ends within a character, in {row_place(first)}, if its encoding is "
                f"{encoding}; restore it, or name the right --encoding"
            ) from None
        raise InvalidTable(not_text(path, encoding, str(error))) from None
    except LookupError:
        raise ValueError(_unknown(encoding)) from None
    except pa.ArrowException as error:
        if isinstance(error, MemoryError):
            raise
        raise _refusal(path, encoding, brief(error), first, names) from None
    except OSError as error:
        if error.errno is not None:
            raise
        if "Truncated" in str(error):
            raise InvalidTable(
                f"{path} ends within its compressed data, at about {row_place(first)}: it was cut; "
                "restore it"
            ) from None
        raise InvalidTable(
            f"{path} can't be unpacked: {brief(error)}; rename it if it isn't packed, or restore it"
        ) from None


def _refusal(path: str, encoding: str, text: str, first: int, names: Sequence[str]) -> InvalidTable:
    """Return the error for an error message of Arrow, with file, row and column."""
    # Arrow counts rows from 1, and in the first block it counts the header too.
    before = 2 if first == 0 else 1
    text = re.sub(r"Row #(\d+)", lambda row: row_place(first + int(row[1]) - before), text)
    column = re.search(r"In CSV column #(\d+):", text)
    if column is not None:
        text = text.replace(column[0], f"column {names[int(column[1])]!r},")
    text = text.removeprefix("CSV parse error: ")
    if "UTF8" in text:
        return InvalidTable(not_text(path, encoding, text))
    if "zone offset" in text and column is not None:
        place = text.partition(": CSV conversion error to ")[0]
        shown = re.search(r"zone offset in ('.*?')", text, re.DOTALL)
        has = "has a time zone" if "expected no" in text else "has no time zone"
        why = f"{path}: {place}: {shown[1] if shown else 'a value'} {has}"
        return MixedZones(path, names[int(column[1])], why)
    if "conversion error" in text:
        advice = "correct it, read the column as text (--categorical), or leave it out (--drop)"
        word = re.search(r"invalid value '([^\W\d][^,']*)'", text)
        if word is not None:
            advice = f"if it means a missing value, --na {shlex.quote(word[1])}; else {advice}"
    elif "Expected" in text:
        advice = "every row needs as many cells as the header: correct it, or the --delimiter"
        advice += delimiter_advice(names)
    else:
        advice = "correct the file"
    return InvalidTable(f"{path}: {text}; {advice}")
