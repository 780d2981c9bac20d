"""Which files are raw tables, by their names: finding that out takes no Arrow."""

import os
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
