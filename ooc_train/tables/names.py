"""Names of files, by which raw tables are known, and of columns: neither takes Arrow."""

import os
import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Literal

from ooc_train.core.files import FileKind
from ooc_train.errors import InvalidTable

TABLE = FileKind("a raw file", 2**63, InvalidTable, "name files of CSV or Parquet")
"""Raw files are read in pieces, and so of any size."""

RECIPE_FILE = "recipe.json"
"""Where a run folder keeps the recipe."""

Format = Literal["csv", "parquet"]

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
"""How files begin, as patterns, and what those are."""

COMPRESSED = tuple(_COMPRESSIONS)
"""How the names of packed files end."""


def is_table(path: str | os.PathLike[str]) -> bool:
    """Whether a path means raw files and no store: by its name, or since a file lies there."""
    text = os.fspath(path)
    if "://" in text:
        return False
    if os.path.isdir(text):
        return any(format_of(name) for name in os.listdir(text))
    return format_of(text) is not None or os.path.isfile(text)


def format_of(path: str) -> Format | None:
    """Say what a file is by its name."""
    root, suffix = os.path.splitext(path.lower())
    if suffix in _COMPRESSIONS:
        root, suffix = os.path.splitext(root)
    return _SUFFIXES.get(suffix)


def compression_of(path: str) -> str | None:
    """Say how a file is packed, by its name."""
    return _COMPRESSIONS.get(os.path.splitext(path.lower())[1])


def require_named(path: str, head: bytes) -> None:
    """Refuse a file whose first bytes are of another kind than its name says.

    Parameters
    ----------
    path : str
    head : bytes
        The first bytes, 16 where the file has as many.

    Raises
    ------
    InvalidTable
        With the kind, and what to do.
    """
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
    raise InvalidTable(f"{path} is {what}, by its first bytes, and its name says no such; {way}")


def some_of(names: Sequence[object], most: int = 20) -> str:
    """List names, or labels, as Python writes them, no more than so many of them.

    Examples
    --------
    >>> some_of(["a", "b", "c"], 2)
    "'a', 'b' and 1 more"
    """
    rest = len(names) - most
    return ", ".join(map(repr, names[:most])) + (f" and {rest:,} more" if rest > 0 else "")


def as_option(names: Iterable[str]) -> str:
    """Write names of columns as the command line takes them, to be pasted.

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
