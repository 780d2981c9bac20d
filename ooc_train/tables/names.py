"""Names of raw files and of columns, handled without Arrow."""

import os
import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from ooc_train.core.files import FileKind
from ooc_train.core.schema import shown
from ooc_train.errors import InvalidTable

TABLE = FileKind("a raw file", 2**63, InvalidTable, "name files of CSV or Parquet")
"""Raw files of any size, since they are read in pieces."""

RECIPE_FILE = "recipe.json"
"""The file of a run folder that holds the recipe."""

SHARE_SUFFIX = ".share"
"""The end of the names of shares of stores, which are files and no raw ones."""

Format = Literal["csv", "parquet"]

Missing = Literal["error", "drop", "mean", "median"]
"""How missing values are treated."""

_SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".parquet": "parquet",
    ".parq": "parquet",
    ".pq": "parquet",
}
_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}

_FIRST_BYTES = (
    (rb"\x1f\x8b\x08", "gzip"),
    (rb"\x28\xb5\x2f\xfd", "zstd"),
    (rb"\x04\x22\x4d\x18", "lz4"),
    (rb"BZh[1-9]1AY&SY", "bz2"),
    (rb"\xfd7zXZ\x00", "xz"),
    (rb"PAR1", "Parquet"),
    (rb"PK\x03\x04", "a zip archive, such as a spreadsheet"),
    (rb"ARROW1", "Arrow IPC"),
    (rb"\x89HDF\r\n", "HDF5"),
    (rb"\x93NUMPY", "an array of NumPy"),
    (rb"SQLite format 3", "SQLite"),
)
"""Patterns of the first bytes of files, and the formats that they mean."""

COMPRESSED = tuple(_COMPRESSIONS)
"""Endings of the names of packed files."""


def as_paths(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[str]:
    """Return paths of raw files, or patterns, as text.

    Raises
    ------
    TypeError
        If they are none, but a table in memory for example.
    """
    # A table is no Sequence, though it can be iterated.
    several: Any = [paths] if isinstance(paths, str | os.PathLike) else paths
    for path in several if isinstance(several, Sequence) else [several]:
        if not isinstance(path, str | os.PathLike):
            raise TypeError(
                f"raw files are named by their paths, and this is of type {type(path).__name__}; "
                "write a table in memory to a file, as by to_parquet, or fit on it as it is"
            )
    return [os.fspath(path) for path in several]


def is_table(path: str | os.PathLike[str]) -> bool:
    """Return whether a path means raw files, not a store, by its name or its content."""
    text = os.fspath(path)
    if "://" in text:
        return False
    if os.path.isdir(text):
        return any(format_of(name) for name in os.listdir(text))
    if text.endswith(SHARE_SUFFIX):
        return False
    return format_of(text) is not None or os.path.isfile(text)


def format_of(path: str) -> Format | None:
    """Return the format of a file by its name."""
    root, suffix = os.path.splitext(path.lower())
    if suffix in _COMPRESSIONS:
        root, suffix = os.path.splitext(root)
    return _SUFFIXES.get(suffix)


def require_predictions_name(path: str | os.PathLike[str]) -> None:
    """Raise `ValueError` if a name of predictions ends as neither tables nor stores do.

    What follows the last dot is an ending if it begins with a letter: "v0.5" has none.

    Examples
    --------
    >>> try:
    ...     require_predictions_name("late.xlsx")
    ... except ValueError as error:
    ...     print(str(error)[:26])
    late.xlsx ends with .xlsx;
    """
    text = os.fspath(path)
    ending = os.path.splitext(text)[1]
    known = format_of(text) is not None or ending.lower() == ".zarr"
    if not known and re.fullmatch(r"\.[A-Za-z]\w*", ending):
        raise ValueError(
            f"{text} ends with {ending}; end it with .csv, .tsv or .parquet for a table, or with "
            ".zarr or nothing for a store"
        )


def compression_of(path: str) -> str | None:
    """Return the compression of a file by its name."""
    return _COMPRESSIONS.get(os.path.splitext(path.lower())[1])


def require_matching_name(path: str, head: bytes) -> None:
    """Raise `InvalidTable` if the first bytes of a file contradict its name."""
    inside = next((kind for start, kind in _FIRST_BYTES if re.match(start, head)), None)
    if inside is None:
        return
    named, packed = format_of(path), compression_of(path)
    root = os.path.splitext(path)[0] if packed else path
    endings = {kind: ending for ending, kind in _COMPRESSIONS.items()}
    what, way = inside, "write it as CSV or Parquet"
    if inside == "Parquet":
        if named != "csv" and not packed:
            return
        way = f"rename it to {os.path.splitext(root)[0]}.parquet"
    elif inside in endings and named != "parquet":
        if (named, packed) == ("csv", inside):
            return
        what = f"packed by {inside}"
        way = f"rename it to {root}{'' if named else '.csv'}{endings[inside]}"
    elif inside in (*endings, "xz"):
        what, way = f"packed by {inside}", "unpack it"
    raise InvalidTable(f"{path} is {what}, by its first bytes, which its name does not say; {way}")


DELIMITERS = (",", ";", "\t", "|")
"""Characters that usually stand between cells."""


def default_delimiter(path: str) -> str:
    """Return the delimiter of CSV by the name of a file: a tab for .tsv, else a comma."""
    return "\t" if ".tsv" in os.path.basename(path) else ","


def require_delimiter(delimiter: str | None) -> None:
    """Raise `ValueError` for text that is no single ASCII character, or has another meaning."""
    if delimiter is None:
        return
    if len(delimiter) != 1 or not 0 < ord(delimiter) < 128:
        raise ValueError(f"delimiter={shown(delimiter)} should be one ASCII character, such as ';'")
    if delimiter in ('"', "\n", "\r"):
        raise ValueError(f"delimiter={delimiter!r} has another meaning in CSV; use one such as ';'")


def delimiter_option(delimiter: str) -> str:
    r"""Return the option of the command line that names a delimiter.

    Examples
    --------
    >>> print(delimiter_option(";"), delimiter_option("\t"))
    --delimiter ';' --delimiter $'\t'
    """
    return "--delimiter " + ("$'\\t'" if delimiter == "\t" else repr(delimiter))


def delimiter_advice(names: Sequence[str]) -> str:
    """Return advice to name another delimiter; "" unless the only column's name holds one.

    Examples
    --------
    >>> print(delimiter_advice(["shop;sold"]))
    ; if cells end at ';', add --delimiter ';'
    """
    found = max(DELIMITERS, key=names[0].count) if len(names) == 1 else ""
    if not found or found not in names[0]:
        return ""
    return f"; if cells end at {found!r}, add {delimiter_option(found)}"


def as_option(names: Iterable[str]) -> str:
    """Return names of columns as text to paste into the command line.

    Examples
    --------
    >>> print(as_option(["a", "b c"]), as_option(["a,b"]))
    'a,b c' '"a,b"'
    """
    quoted = (
        '"' + name.replace('"', '""') + '"'
        if {*name} & {*',"\r\n'} or name != name.strip()
        else name
        for name in names
    )
    return shlex.quote(",".join(quoted))
