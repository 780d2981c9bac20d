"""Rows of raw files as the recipe of a store or a model encodes them, block by block."""

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.prefetch import prefetched
from ooc_train.errors import InvalidTable
from ooc_train.memory.ceiling import Term
from ooc_train.store.format.chunk_sizes import default_chunk_rows
from ooc_train.tables.batches import Tables
from ooc_train.tables.features import Unseen
from ooc_train.tables.recipe import Recipe
from ooc_train.tables.repeated_columns import Columns, RepeatedColumns

_BATCH_COPIES = 6
"""Copies of a batch: of Arrow, of columns in float64, of records, and of the output."""

_OF_INGEST = re.compile(r"--(categorical|drop|missing|na)\b")
"""Options that messages on raw files advise, and that no reader of rows by a recipe has."""


@contextmanager
def _advice_of_ingest() -> Iterator[None]:
    """Within the context, tell of advice on options that ingest has: the recipe is made there."""
    try:
        yield
    except InvalidTable as error:
        if (option := _OF_INGEST.search(str(error))) is None:
            raise
        raise InvalidTable(
            f"{error}; {option[0]} is an option of ingest, which makes another recipe"
        ) from None


@dataclass(frozen=True)
class FileRows:
    """A block of rows of a file or a store.

    Attributes
    ----------
    ids : int64 array (rows,)
        Ids of the rows, or their numbers.
    X : array (rows, features)
        The features.
    y, weight : float64 array (rows,), or None
        The target and the weights.
    share : float
        Share of all data that has been read, from 0 to 1.
    repeated : mapping of str to pyarrow.Array (rows,)
        Raw columns beside the features, by name.
    """

    ids: NDArray[np.int64]
    X: NDArray[np.floating]
    y: NDArray[np.float64] | None = None
    weight: NDArray[np.float64] | None = None
    share: float = 1.0
    repeated: Columns = field(default_factory=dict)


@dataclass(frozen=True)
class RawRows:
    """The rows of raw files, as a recipe encodes them.

    Attributes
    ----------
    tables : Tables
        The raw files.
    recipe : Recipe
        Turns raw columns into features.
    needs_y : bool
        Whether the target and the weights are needed.
    unseen : {"error", "other", "ignore"}, optional
        Treatment of values that no training row had; None is that of the recipe.
    warn : callable
        Called after the last row: where rows were dropped, and with the precision that numbers lost
        in the type of the recipe.
    repeated : RepeatedColumns, optional
        Raw columns that blocks have beside the features.
    """

    tables: Tables
    recipe: Recipe
    needs_y: bool = False
    unseen: Unseen | None = None
    warn: Callable[[str], None] = warnings.warn
    repeated: RepeatedColumns | None = None

    @property
    def id_name(self) -> str:
        """Name of the column of ids."""
        return self.recipe.id_column or "row_id"

    def terms(self, available: int) -> list[Term]:
        """Return the memory of reading, by at most `available` bytes if that is possible."""
        terms = self.tables.reading_memory.terms(self._batch_rows(available), _BATCH_COPIES)
        return terms if self.repeated is None else [*terms, *self.repeated.terms]

    def _batch_rows(self, available: int) -> int:
        reading = self.tables.reading_memory

        def held(rows: int) -> int:
            return sum(term.bytes for term in reading.terms(rows, _BATCH_COPIES))

        return reading.batch_rows(available, held)

    def blocks(self, available: int) -> Iterator[FileRows]:
        """Yield the rows in the order of the files, within the memory of `terms`."""
        encoder = self.recipe.encoder(needs_y=self.needs_y, unseen=self.unseen)
        repeated = RepeatedColumns(self.tables) if self.repeated is None else self.repeated
        types = repeated.types | encoder.types
        step = default_chunk_rows(self.recipe.n_features, self.recipe.dtype)
        fields = encoder.dtype.names or ()
        with (
            _advice_of_ingest(),
            closing(prefetched(self.tables.pieces(types, self._batch_rows(available)))) as pieces,
        ):
            for piece in pieces:
                records = encoder.encode(piece)
                for start in range(0, len(records), step):
                    part = records[start : start + step]
                    yield FileRows(
                        part["id"] if "id" in fields else part["row"],
                        self.recipe.expand(part),
                        part["y"] if "y" in fields else None,
                        part["weight"] if "weight" in fields else None,
                        piece.share,
                        repeated.of(piece, part["row"] - piece.start),
                    )
        if encoder.dropped:
            were = "row was" if encoder.dropped == 1 else "rows were"
            self.warn(
                f"{encoder.dropped:,} {were} left out because of missing values, as the recipe "
                "has it; ids name the others"
            )
        for loss in encoder.rounding.losses():
            self.warn(
                f"{loss}, as the recipe has it: numbers that differ may have become the same; "
                "ingest rows with --dtype float64"
            )
