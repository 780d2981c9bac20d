"""Names of files, by which raw tables are known, and of columns: neither takes Arrow."""

import os
import shlex
from collections.abc import Iterable
from typing import Literal

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
