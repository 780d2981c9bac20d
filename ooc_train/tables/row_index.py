"""Columns that number the rows: the index of a pandas frame, written beside the data.

In Parquet, pandas notes its index columns in the metadata. In CSV the index is the first column and
has no name; after another round trip its name is "Unnamed: 0". R counts such rows from 1.
"""

import re
from collections.abc import Collection
from contextlib import closing

import numpy as np
import pyarrow as pa

from ooc_train.errors import InvalidTable
from ooc_train.tables.arrow import to_numpy
from ooc_train.tables.batches import Tables
from ooc_train.tables.names import as_option

_FEWEST_ROWS = 20
"""Fewer rows may count by chance, such as 1, 2."""

_UNNAMED = re.compile(r"(Unnamed: 0(\.\d+)*|)$")


def counting_columns(tables: Tables, names: Collection[str]) -> list[str]:
    """Return the columns, of those named, whose whole numbers count the first rows from 0 or 1."""
    schema = tables.schema
    whole = {name: pa.int64() for name in names if pa.types.is_integer(schema.field(name).type)}
    if not whole:
        return []
    with closing(tables.pieces(whole)) as pieces:
        batch = next(pieces).batch
    return [
        name
        for name in whole
        if batch.num_rows >= _FEWEST_ROWS and _counts(batch.column(name), first=(0, 1))
    ]


def _counts(column: pa.Array, first: Collection[int]) -> bool:
    """Return whether a column counts its rows, from one of these numbers on."""
    numbers = to_numpy(column).astype(np.int64) if not column.null_count else np.empty(0, np.int64)
    counting = (numbers == numbers[:1] + np.arange(len(numbers))).all()
    return bool(len(numbers) and counting and numbers[0] in first)


def index_columns(tables: Tables, named: Collection[str | None]) -> dict[str, str]:
    """Return the columns that are an index, each with the reason.

    `InvalidTable` is raised if the first column has no name, and holds whole numbers that don't
    count the rows.
    """
    found = {name: "the index of a pandas frame" for name in tables.index if name not in named}
    first = tables.names[0]
    unnamed = tables.unnamed or _UNNAMED.match(first) is not None
    whole = pa.types.is_integer(tables.schema.field(first).type)
    if not unnamed or not whole or first in found or first in named:
        return found
    with closing(tables.pieces({first: pa.int64()})) as pieces:
        batch = next(pieces).batch.column(first)
    numbers = to_numpy(batch).astype(np.int64)
    if _counts(batch, first=(0, 1)):
        return found | {first: "it has no name and counts the rows"}
    raise InvalidTable(
        f"the first column of {tables.typed_by} has no name, and holds whole numbers such as "
        f"{', '.join(map(str, numbers[:3]))}: is it an index? leave it out (--drop "
        f"{as_option([first])}), or name it and all others as --features"
    )
