"""One block of CSV text as an Arrow table, and the names and types of its columns."""

from collections.abc import Mapping, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.csv

from ooc_train.errors import InvalidTable
from ooc_train.tables.csv_blocks import Dialect
from ooc_train.tables.csv_cells import Cells, header_cells, header_end
from ooc_train.tables.diagnostics import (
    blank_file,
    explain_csv_errors,
    not_text,
    require_columns,
    unnamed_column,
)
from ooc_train.tables.wide_csv import WIDE_COLUMNS, ColumnGroups, WideBatch, types_of


def _parse(
    text: bytes,
    names: Sequence[str] | None,
    dialect: Dialect,
    columns: Mapping[str, pa.DataType],
    *,
    skipped: int = 0,
) -> pa.Table:
    """Parse a block of CSV with the given names of columns, or with its first row as names."""
    return pyarrow.csv.read_csv(
        pa.BufferReader(text),
        read_options=pyarrow.csv.ReadOptions(
            # With several threads, errors have no row numbers.
            use_threads=False,
            block_size=len(text) + 1,
            column_names=None if names is None else list(names),
            skip_rows_after_names=skipped,
        ),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=dialect.delimiter, newlines_in_values=b'"' in text
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict(columns), include_columns=list(columns), strings_can_be_null=True
        ),
    )


def is_wide(n_columns: int) -> bool:
    """Return whether a file has so many columns that they are parsed by type."""
    return n_columns >= WIDE_COLUMNS


def parse_block(
    text: bytes,
    names: Sequence[str],
    dialect: Dialect,
    columns: Mapping[str, pa.DataType],
    groups: ColumnGroups | None,
    *,
    skipped: int,
) -> pa.Table | WideBatch:
    """Parse a block: by types if `groups` is given, else column by column."""
    if groups is not None:
        rows = text[header_end(text, ord(dialect.delimiter)) :] if skipped else text
        if rows.strip(b"\r\n"):
            batch = groups.batch(rows, skipped)
            if batch is not None:
                return batch
        # A row has another number of cells: Arrow's own parser makes the message.
    return _parse(text, names, dialect, columns, skipped=skipped)


def parse_cells(
    dialect: Dialect,
    text: bytes,
    names: Sequence[str],
    types: Mapping[str, pa.DataType],
    *,
    missing: bool = True,
) -> pa.Table:
    """Parse text made of cells, in which an empty line is an empty cell."""
    return pyarrow.csv.read_csv(
        pa.BufferReader(text),
        read_options=pyarrow.csv.ReadOptions(
            use_threads=False, block_size=len(text) + 1, column_names=list(names)
        ),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=dialect.delimiter, newlines_in_values=b'"' in text, ignore_empty_lines=False
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict(types), strings_can_be_null=missing
        ),
    )


def column_types(
    text: bytes, names: Sequence[str], dialect: Dialect, *, skipped: int
) -> tuple[list[pa.DataType], int]:
    """Return the types of the columns in a block, and the number of its rows."""
    if dialect.wide:
        delimiter = ord(dialect.delimiter)
        rows = text[header_end(text, delimiter) :] if skipped else text
        if not rows.strip(b"\r\n"):
            return [pa.null()] * len(names), 0
        cells = Cells.of(rows, delimiter, len(names))
        if cells is not None:
            return types_of(cells, names, partial(parse_cells, dialect)), cells.n_rows
    table = _parse(text, names, dialect, {}, skipped=skipped)
    return table.schema.types, table.num_rows


def column_names(path: str, text: bytes, dialect: Dialect) -> tuple[tuple[str, ...], bool]:
    """Return the names of the columns from the first block, and whether the first has none.

    `unnamed_column` names the columns without a name.
    """
    if not text:
        raise blank_file(path)
    delimiter = ord(dialect.delimiter)
    header = text[: header_end(text, delimiter)]
    if is_wide(header.count(delimiter) + 1):
        names = header_cells(header, delimiter, partial(parse_cells, dialect, missing=False))
    else:
        cells = header.decode(errors="replace").split(dialect.delimiter)
        with explain_csv_errors(path, dialect.encoding, names=cells):
            names = _parse(text, None, dialect, {}).schema.names
    if "\0" in "".join(names):
        likely = "utf-16-be" if text.startswith(b"\0") else "utf-16-le"
        what = "its header has NUL bytes, as that of UTF-16 has"
        raise InvalidTable(not_text(path, dialect.encoding, what, likely))
    found = tuple(name or unnamed_column(i) for i, name in enumerate(names))
    require_columns(path, found, ())
    return found, not names[0]
