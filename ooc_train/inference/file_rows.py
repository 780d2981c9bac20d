"""Rows of raw files and of stores, read block by block in this process."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.prefetch import prefetched
from ooc_train.core.sums import total_bytes
from ooc_train.errors import InvalidRun
from ooc_train.memory.ceiling import Term
from ooc_train.runs.fitted import Fitted
from ooc_train.store.dataset import Store
from ooc_train.store.format.chunk_sizes import default_chunk_rows
from ooc_train.store.reading.chunks import ChunkReader
from ooc_train.stream.store_source import StoreSource
from ooc_train.tables.batches import Tables
from ooc_train.tables.features import Unseen
from ooc_train.tables.open_tables import open_tables
from ooc_train.tables.recipe import Recipe

Path = str | os.PathLike[str]

_BATCH_COPIES = 6
"""Copies of a batch: of Arrow, of columns in float64, of records, and of the output."""


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
    """

    ids: NDArray[np.int64]
    X: NDArray[np.floating]
    y: NDArray[np.float64] | None = None
    weight: NDArray[np.float64] | None = None
    share: float = 1.0


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
        Called after the last row with the precision that numbers lost in the type of the recipe.
    """

    tables: Tables
    recipe: Recipe
    needs_y: bool = False
    unseen: Unseen | None = None
    warn: Callable[[str], None] = warnings.warn

    @property
    def id_name(self) -> str:
        """Name of the column of ids."""
        return self.recipe.id_column or "row_id"

    def terms(self, available: int) -> list[Term]:
        """Return the memory of reading, by at most `available` bytes if that is possible."""
        return self.tables.reading_memory.terms(self._batch_rows(available), _BATCH_COPIES)

    def _batch_rows(self, available: int) -> int:
        reading = self.tables.reading_memory

        def held(rows: int) -> int:
            return sum(term.bytes for term in reading.terms(rows, _BATCH_COPIES))

        return reading.batch_rows(available, held)

    def blocks(self, available: int) -> Iterator[FileRows]:
        """Yield the rows in the order of the files, within the memory of `terms`."""
        encoder = self.recipe.encoder(needs_y=self.needs_y, unseen=self.unseen)
        step = default_chunk_rows(self.recipe.n_features, self.recipe.dtype)
        fields = encoder.dtype.names or ()
        with closing(
            prefetched(self.tables.pieces(encoder.types, self._batch_rows(available)))
        ) as pieces:
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
                    )
        for loss in encoder.rounding.losses():
            self.warn(
                f"{loss}, as the model's recipe has it: numbers that differ may have become the "
                "same; learn from rows that were ingested with --dtype float64"
            )


@dataclass(frozen=True)
class StoreRows:
    """The rows of a store, read one chunk after another."""

    store: Store
    id_name = "row_id"

    def terms(self, available: int) -> list[Term]:
        """Return the memory of reading, which does not depend on `available`."""
        del available
        source = StoreSource.of(self.store, needs_y=False)
        size = total_bytes(source.buffers(1)) + source.hidden_bytes
        return [Term("reading", size, "a chunk")]

    def blocks(self, available: int) -> Iterator[FileRows]:
        """Yield the rows in the order of the store."""
        del available
        source = StoreSource.of(self.store, needs_y=False)
        arrays = {
            name: np.empty(spec.shape, spec.dtype) for name, spec in source.buffers(1).items()
        }
        reader, layout, start = source.reader(), self.store.row_id, 0
        ids_of = None if layout is None else ChunkReader(layout)
        for block in reader.run(range(source.n_partitions), arrays):
            stop = start + block.n_rows
            ids = np.arange(start, stop)
            if ids_of is not None:
                ids_of.read_rows(start, stop, ids)
            yield FileRows(ids, block.X, share=stop / self.store.n_rows)
            start = stop
        source.require_same()
        if ids_of is not None:
            ids_of.require_same()


def open_raw_rows(
    fitted: Fitted,
    paths: Path | Sequence[Path],
    needs_y: bool,
    unseen: Unseen | None,
    delimiter: str | None,
    encoding: str,
    warn: Callable[[str], None],
) -> tuple[Fitted, RawRows]:
    """Return the model with its columns in the order of its recipe, and the rows of raw files.

    Raises
    ------
    InvalidRun
        If the model has no recipe, or an invalid one.
    """
    if fitted.recipe is None:
        raise InvalidRun(
            "the model has no recipe for raw files: the columns that it was trained on were not "
            "made by ingest; give it a store of the same columns, or train on an ingested one"
        )
    try:
        recipe = Recipe.from_json(fitted.recipe)
    except ValueError as error:
        raise InvalidRun(f"the run's recipe can't be used: {error}") from None
    fitted = fitted.for_columns(recipe.feature_names, recipe.n_features, "its recipe")
    tables = open_tables(paths, delimiter=delimiter, encoding=encoding)
    return fitted, RawRows(tables, recipe, needs_y, unseen, warn)
