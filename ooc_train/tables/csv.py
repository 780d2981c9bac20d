"""CSV as Arrow record batches: text is cut at the ends of rows, two blocks are parsed at a time.

Arrow's own streaming reader parses one block at a time, and reads up to 32 blocks before they are
used. This reader holds three. It also knows the number of each row, for error messages.
"""

from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa

from ooc_train.errors import InvalidTable
from ooc_train.tables.csv_blocks import BLOCK_BYTES, Dialect, longest_line, open_raw, text_blocks
from ooc_train.tables.csv_cells import header_end
from ooc_train.tables.csv_parsing import (
    column_names,
    column_types,
    is_wide,
    parse_block,
    parse_cells,
)
from ooc_train.tables.diagnostics import (
    BrokenText,
    blank_file,
    explain_csv_errors,
    not_text,
    require_columns,
)
from ooc_train.tables.names import compression_of
from ooc_train.tables.wide_csv import ColumnGroups, WideBatch

_ROWS_PER_BLOCK = 4


@dataclass(frozen=True, slots=True)
class Head:
    """The columns of a CSV file, as the file's first block shows them.

    Parameters
    ----------
    schema : pyarrow.Schema
        Names and types of the columns; types are null if the block has no rows.
    rows_per_byte : float
        Rows per byte of the file on disk; 0 if the file has only a header.
    unnamed : bool
        Whether the first column has no name.
    """

    schema: pa.Schema
    rows_per_byte: float
    unnamed: bool = False


def read_names(path: str, dialect: Dialect) -> tuple[str, ...]:
    """Return the names in the header of a file; errors are those of `read_head`."""
    with explain_csv_errors(path, dialect.encoding), open_raw(path) as raw:
        dialect = _with_blocks(dialect, path)
        with closing(text_blocks(raw, path, dialect)) as blocks:
            text, _ = next(blocks, (b"", 0))
        # Rows may be in any state: they are read once it is known how.
        return column_names(path, text[: header_end(text, ord(dialect.delimiter))], dialect)[0]


def _with_blocks(dialect: Dialect, path: str) -> Dialect:
    """Return the dialect with blocks that hold a few rows of the file."""
    rows = _ROWS_PER_BLOCK * longest_line(path)
    return replace(dialect, block_bytes=max(BLOCK_BYTES, rows))


def read_head(path: str, dialect: Dialect) -> tuple[Dialect, Head]:
    """Read the first block of a file, or raise `InvalidTable` if it has no header or is no text.

    The dialect that is returned says how its blocks are parsed too.
    """
    with explain_csv_errors(path, dialect.encoding):
        dialect = _with_blocks(dialect, path)
        with open_raw(path) as raw:
            blocks = text_blocks(raw, path, dialect)
            text, position = next(blocks, (b"", 0))
            names, nameless = column_names(path, text, dialect)
            dialect = replace(dialect, wide=is_wide(len(names)))
            types, n_rows = column_types(text, names, dialect, skipped=1)
            if not n_rows:
                # The first row may end in the next block.
                text, position = next(blocks, (b"", position))
                if text:
                    types, n_rows = column_types(text, names, dialect, skipped=0)
    for name, kind in zip(names, types, strict=True):
        if pa.types.is_binary(kind):
            raise InvalidTable(not_text(path, dialect.encoding, f"the column {name!r}"))
    # The part of the next block that was read counts neither as rows nor as bytes.
    read = position if compression_of(path) else len(text)
    schema = pa.schema(list(zip(names, types, strict=True)))
    return dialect, Head(schema, n_rows / read if read else 0.0, nameless)


def read_batches(
    path: str,
    dialect: Dialect,
    columns: Mapping[str, pa.DataType],
    on_names: Callable[[Sequence[str]], None] = lambda _: None,
) -> Generator[tuple[pa.RecordBatch | WideBatch, int], None, None]:
    """Yield batches of some columns, and the bytes of the file that were read so far.

    `on_names` is called with the names of all columns of the file.

    Raises
    ------
    InvalidTable
        If a column is absent, a row has another number of cells, a value has another type, bytes
        are no text, or the file shrinks.
    TableNotFound
        If the file is gone.
    """
    pending: deque[tuple[Future[pa.Table | WideBatch], int]] = deque()
    names: tuple[str, ...] | None = None
    groups: ColumnGroups | None = None
    failure: Exception | None = None
    first = 0
    with open_raw(path) as raw, ThreadPoolExecutor(dialect.parsers, "ooc_train-csv") as parsers:
        blocks, left = text_blocks(raw, path, dialect), True
        while left or pending:
            with explain_csv_errors(path, dialect.encoding, first, names or ()):
                if left:
                    try:
                        text, read = next(blocks, (b"", 0))
                    except (InvalidTable, OSError, UnicodeError, BrokenText) as error:
                        # Raised after the rows before, whose number is part of the message.
                        failure, text, read = error, b"", 0
                    left = bool(text)
                if left:
                    skipped = 0
                    if names is None:
                        (names, _), skipped = column_names(path, text, dialect), 1
                        require_columns(path, names, columns)
                        on_names(names)
                        if dialect.wide and columns:
                            groups = ColumnGroups(
                                names,
                                columns,
                                ord(dialect.delimiter),
                                partial(parse_cells, dialect),
                            )
                    parsed = parsers.submit(
                        parse_block, text, names, dialect, columns, groups, skipped=skipped
                    )
                    pending.append((parsed, read))
                if len(pending) <= dialect.parsers and left:
                    continue
                if not pending:
                    break
                parsed, position = pending.popleft()
                table = parsed.result()
            batches = [table] if isinstance(table, WideBatch) else table.to_batches()
            for batch in batches:
                yield batch, position
            first += table.num_rows
        with explain_csv_errors(path, dialect.encoding, first, names or ()):
            if failure is not None:
                raise failure
            if names is None:
                raise blank_file(path)
