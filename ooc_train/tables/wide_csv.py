"""CSV of many columns: the cells of all columns of one type are parsed as one column.

For each column of each block, Arrow makes converters that take 10 KB and 0.1 ms, however few rows
the block has. 50,000 columns took 500 MB, and 5 s for every 1.5 MB of text. So `csv_cells` finds
the cells, and Arrow parses those of one type as one column, row by row. Arrow also decides the
value of each cell, as it does for other CSV.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ooc_train.tables.arrow import from_numpy
from ooc_train.tables.csv_cells import DIGIT, OTHER, POINT, Cells, Parser

WIDE_COLUMNS = 256
"""Least number of columns of CSV that is parsed in this way."""

_TYPED_COLUMNS = 512
"""Columns whose types Arrow finds at a time."""


def types_of(cells: Cells, names: Sequence[str], parse: Parser) -> list[pa.DataType]:
    """Return the Arrow type of each column, as Arrow itself would find it.

    Columns of digits are whole numbers if all of them together parse as such. Columns of digits and
    points are fractions. Arrow finds the types of the others.
    """
    classes = cells.byte_classes()
    types: list[pa.DataType] = [pa.null()] * len(names)
    others = [np.flatnonzero(classes & OTHER)]
    fraction = (classes & OTHER == 0) & (classes & POINT != 0)
    for arrow, chosen in ((pa.int64(), classes == DIGIT), (pa.float64(), fraction)):
        columns = np.flatnonzero(chosen)
        try:
            if len(columns):
                parse(cells.one_cell_a_line(columns), ["x"], {"x": arrow})
        except pa.ArrowInvalid:
            others.append(columns)
            continue
        for column in columns:
            types[column] = arrow
    others.append(np.flatnonzero((classes & (OTHER | POINT) == 0) & (classes > DIGIT)))
    rest = np.sort(np.concatenate(others))
    for start in range(0, len(rest), _TYPED_COLUMNS):
        columns = rest[start : start + _TYPED_COLUMNS]
        found = parse(cells.one_row_a_line(columns), [names[i] for i in columns.tolist()], {})
        for column, arrow in zip(columns, found.schema.types, strict=True):
            types[column] = arrow
    return types


@dataclass(frozen=True, eq=False)
class ColumnGroup:
    """Columns of one type: their names, and their ascending numbers within the file."""

    type: pa.DataType
    names: tuple[str, ...]
    columns: NDArray[np.intp]


class ColumnGroups:
    """The wanted columns of a file with columns `names`, grouped by type, and their parser."""

    def __init__(
        self, names: Sequence[str], wanted: Mapping[str, pa.DataType], delimiter: int, parse: Parser
    ) -> None:
        self._n, self._delimiter, self._parse = len(names), delimiter, parse
        by_type: dict[pa.DataType, list[int]] = {}
        for i, name in enumerate(names):
            if name in wanted:
                arrow = wanted[name]
                # As one column, columns of dictionaries would share one dictionary.
                arrow = arrow.value_type if pa.types.is_dictionary(arrow) else arrow
                by_type.setdefault(arrow, []).append(i)
        self.groups = tuple(
            ColumnGroup(arrow, tuple(names[i] for i in columns), np.array(columns, np.intp))
            for arrow, columns in by_type.items()
        )
        self.places = {
            name: (g, i)
            for g, group in enumerate(self.groups)
            for i, name in enumerate(group.names)
        }

    def batch(self, text: bytes, header: int) -> "WideBatch | None":
        """Parse whole rows; return None if a row has another number of cells.

        `header` is the number of rows before the text, for errors. A cell of another type than its
        column raises `pyarrow.ArrowInvalid`, with Arrow's message.
        """
        cells = Cells.of(text, self._delimiter, self._n)
        if cells is None:
            return None
        return WideBatch(self, [self._array(cells, group, header) for group in self.groups])

    def _array(self, cells: Cells, group: ColumnGroup, header: int) -> pa.Array:
        try:
            found = self._parse(
                cells.one_cell_a_line(group.columns), ["x"], {"x": group.type}
            ).column(0)
        except pa.ArrowInvalid as error:
            place = re.search(r"In CSV column #0: Row #(\d+):", str(error))
            if place is None:
                raise
            row, column = divmod(int(place[1]) - 1, len(group.columns))
            within_file = f"In CSV column #{group.columns[column]}: Row #{row + 1 + header}:"
            raise pa.ArrowInvalid(str(error).replace(place[0], within_file)) from None
        return found.chunk(0) if found.num_chunks == 1 else found.combine_chunks()


class WideBatch:
    """Rows of many columns; the columns of one type lie in one array, row by row."""

    def __init__(self, columns: ColumnGroups, arrays: Sequence[pa.Array]) -> None:
        self._columns = columns
        self.arrays = tuple(arrays)

    @property
    def groups(self) -> tuple[ColumnGroup, ...]:
        """The groups of columns, one for each array."""
        return self._columns.groups

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.arrays[0]) // len(self.groups[0].names)

    def column(self, name: str) -> pa.Array:
        """Return the values of a column."""
        group, i = self._columns.places[name]
        array, step = self.arrays[group], len(self.groups[group].names)
        return array.take(from_numpy(np.arange(i, len(array), step)))

    def slice(self, start: int, length: int) -> "WideBatch":
        """Return `length` rows from row `start` on."""
        found = []
        for group, array in zip(self.groups, self.arrays, strict=True):
            step = len(group.names)
            found.append(array.slice(start * step, length * step))
        return WideBatch(self._columns, found)
