"""Raw columns that a table of predictions repeats, such as ids of text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ooc_train.core.text import brief
from ooc_train.errors import InvalidTable
from ooc_train.memory.ceiling import Term
from ooc_train.tables.arrow import from_numpy
from ooc_train.tables.batches import Piece, Tables
from ooc_train.tables.diagnostics import require_columns

Columns = Mapping[str, pa.Array]

_COPIES = 6
"""Copies of the columns: as read, of some rows, cast, and as text on the way to a file."""


@dataclass(frozen=True)
class RepeatedColumns:
    """Columns of raw files, which are read beside those of a recipe.

    Parameters
    ----------
    tables : Tables
        The raw files.
    names : sequence of str
        The columns.

    Raises
    ------
    InvalidTable
        If a column does not exist, or holds lists or the like, which CSV can't hold.
    """

    tables: Tables
    names: Sequence[str] = ()

    def __post_init__(self) -> None:
        first = self.tables.paths[0]
        require_columns(first, self.tables.names, self.names)
        for name in self.names:
            if self.tables.kind(name) == "other":
                raise InvalidTable(
                    f"column {name!r} of {first} holds {self.tables.schema.field(name).type}, "
                    "which no table of predictions repeats; leave it out of keep"
                )

    @property
    def types(self) -> dict[str, pa.DataType]:
        """The types that columns of CSV are read as, unless the recipe reads them: text."""
        return dict.fromkeys(self.names, pa.string())

    @property
    def terms(self) -> list[Term]:
        """The memory that the columns take, beside that of reading."""
        if not self.names:
            return []
        is_csv = self.tables.format == "csv"
        read = self.tables.dialect.block_bytes if is_csv else self.tables.reading_memory.blocks
        what = f"{_COPIES} x what is read at a time, as columns and as text"
        return [Term("repeated columns", _COPIES * read, what)]

    def of(self, piece: Piece, rows: NDArray[np.int64]) -> Columns:
        """Return the columns of some rows of a piece, by name.

        `InvalidTable` is raised if a value does not fit the type that the column has in other
        files.
        """
        found = {}
        for name in self.names:
            array = piece.batch.column(name)
            if pa.types.is_dictionary(array.type):
                array = array.dictionary_decode()
            array = array.take(from_numpy(rows))
            # Files of Parquet may have other integers, or other units of time.
            known = self.tables.schema.field(name).type
            if self.tables.format == "parquet" and not pa.types.is_dictionary(known):
                try:
                    array = array.cast(known)
                except pa.ArrowInvalid as error:
                    raise InvalidTable(
                        f"column {name!r} of {piece.file} can't be repeated as {known}, the type "
                        f"of earlier files: {brief(error)}; leave it out of keep"
                    ) from None
            found[name] = array
        return found
