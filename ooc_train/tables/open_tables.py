"""Raw files found by paths, and their columns, from no more than the first block of each."""

import glob
import math
import os
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from ooc_train.core.files import read_start, require_regular
from ooc_train.errors import InvalidTable, TableNotFound
from ooc_train.tables import csv, parquet
from ooc_train.tables.batches import Tables
from ooc_train.tables.column_kinds import Kind, has_zone, kind_of
from ooc_train.tables.csv_blocks import Dialect
from ooc_train.tables.diagnostics import require_encoding
from ooc_train.tables.dialects import dialect_for
from ooc_train.tables.names import (
    TABLE,
    Format,
    as_paths,
    format_of,
    require_delimiter,
    require_matching_name,
)
from ooc_train.tables.recipe import Recipe


def open_tables(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    delimiter: str | None = None,
    encoding: str | None = None,
    recipe: Recipe | None = None,
    needs_y: bool = False,
) -> Tables:
    """Find raw files, and read their columns from the first block.

    Parameters
    ----------
    paths : str, os.PathLike or sequence of these
        Files, patterns such as "part-*.csv", or folders of files. All CSV or all Parquet.
    delimiter : str, optional
        The character between cells of CSV; by default that of the recipe, or by the name of the
        file: a tab for .tsv, else a comma.
    encoding : str, optional
        The encoding of CSV; by default that of the recipe, or UTF-8.
    recipe : Recipe, optional
        A recipe for these files. Where the header has its columns under another delimiter alone,
        that one is used.
    needs_y : bool
        Whether the target and the weights of the recipe are needed.

    Raises
    ------
    TableNotFound
        If no file lies there.
    InvalidTable
        If a file is empty, is neither CSV nor Parquet, names a column twice, or is no text in this
        encoding; or if the meaning of its numbers is open, since its delimiter is another than that
        of the recipe.
    ValueError
        If the delimiter is no single ASCII character, or the encoding is no encoding of text.
    """
    require_delimiter(delimiter)
    require_encoding("utf8" if encoding is None else encoding)
    found = _find_files(paths)
    for path in found:
        require_regular(path, TABLE)
    formats = {path: format_of(path) or _format_inside(path) for path in found}
    for path, kind in formats.items():
        if os.path.getsize(path) == 0:
            raise InvalidTable(f"{path} is empty: not even a header is in it; leave it out")
        require_matching_name(path, read_start(path, 16))
        if kind is None:
            raise InvalidTable(
                f"{path} is neither CSV nor Parquet, by its name and its first bytes; rename it if "
                "it is one of them, or write it as one"
            )
    if len(set(formats.values())) > 1:
        raise InvalidTable(f"{found[0]} and others mix CSV and Parquet; read one kind at a time")
    if formats[found[0]] == "csv":
        dialect = dialect_for(found[0], delimiter, encoding, recipe, needs_y=needs_y)
        return _open_texts(found, dialect)
    return _open_parquet(found)


def _open_texts(paths: tuple[str, ...], dialect: Dialect) -> Tables:
    """Open CSV; types are from the first file with rows, since a header has none."""
    n_bytes = sum(os.path.getsize(path) for path in paths)
    for path in paths:
        parsed, head = csv.read_head(path, dialect)
        if head.rows_per_byte:
            expected = math.ceil(n_bytes * head.rows_per_byte)
            return Tables(
                paths,
                "csv",
                head.schema,
                frozenset(),
                expected,
                n_bytes,
                path,
                parsed,
                unnamed=head.unnamed,
            )
    raise _no_rows(paths, "a header and no rows")


def _open_parquet(paths: tuple[str, ...]) -> Tables:
    """Open Parquet; the type of a column is from the first file that has one."""
    n_bytes = sum(os.path.getsize(path) for path in paths)
    schema, n_rows, declared, index = parquet.read_schema(paths[0])
    types = {field.name: (field.type, paths[0]) for field in schema}
    differing: dict[str, str] = {}
    further: dict[str, str] = {}
    for path in paths[1:]:
        other, more, *_ = parquet.read_schema(path)
        n_rows += more
        further |= dict.fromkeys(set(other.names).difference(types, further), path)
        for name in set(other.names) & types.keys():
            arrow = other.field(name).type
            known, first = types[name]
            if kind_of(known) == "empty":
                types[name] = arrow, path
            elif kind_of(arrow) != "empty" and _comparable_type(arrow) != _comparable_type(known):
                differing.setdefault(
                    name, f"column {name!r} holds {known} in {first} and {arrow} in {path}"
                )
    if n_rows == 0:
        raise _no_rows(paths, "no rows")
    schema = pa.schema([(name, types[name][0]) for name in schema.names])
    return Tables(
        paths,
        "parquet",
        schema,
        declared,
        n_rows,
        n_bytes,
        paths[0],
        differing=differing,
        index=index,
        further=further,
    )


def _no_rows(paths: Sequence[str], what: str) -> InvalidTable:
    if len(paths) == 1:
        return InvalidTable(f"{paths[0]} has {what}; leave it out")
    return InvalidTable(f"{paths[0]} and {len(paths) - 1:,} more have {what}; choose others")


def _comparable_type(arrow: pa.DataType) -> tuple[Kind, Any]:
    """Return the part of a column's type that has to be the same in all files."""
    if pa.types.is_dictionary(arrow):
        return _comparable_type(arrow.value_type)
    kind = kind_of(arrow)
    if kind == "date":
        return kind, has_zone(arrow)
    return kind, arrow if kind == "other" else None


def _find_files(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
) -> tuple[str, ...]:
    found: list[str] = []
    for path in as_paths(paths):
        if os.path.isdir(path):
            inside = [os.path.join(path, name) for name in sorted(os.listdir(path))]
            files = [file for file in inside if format_of(file) and os.path.isfile(file)]
        elif os.path.lexists(path) or not glob.has_magic(path):
            files = [path]
        else:
            files = sorted(glob.glob(path, recursive=True))
        if not files:
            raise TableNotFound(f"no CSV or Parquet file matches {path}; check the name")
        found += files
    for path in found:
        if not os.path.exists(path):
            raise TableNotFound(f"there is no file {path}; check the name")
    if not found:
        raise TableNotFound("no file was named")
    return tuple(found)


def _format_inside(path: str) -> Format | None:
    """Return the format by the first bytes; CSV needs a name that says so."""
    return "parquet" if read_start(path, 4) == b"PAR1" else None
