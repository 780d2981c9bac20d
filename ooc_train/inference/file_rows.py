"""Rows of raw files and of stores, read block by block in this process, for a model."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ooc_train.core.sums import total_bytes
from ooc_train.errors import InvalidRun
from ooc_train.memory.ceiling import Term
from ooc_train.runs.fitted import Fitted
from ooc_train.store.dataset import Store
from ooc_train.store.jobs.raw_rows import FileRows, RawRows
from ooc_train.store.reading.chunks import ChunkReader
from ooc_train.store.writing.predictions import row_ids
from ooc_train.stream.store_source import StoreSource
from ooc_train.tables.features import Unseen
from ooc_train.tables.open_tables import open_tables
from ooc_train.tables.recipe import Recipe
from ooc_train.tables.repeated_columns import RepeatedColumns

Path = str | os.PathLike[str]


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
        reader, layout, count = source.reader(), self.store.row_id, 0
        ids_of = None if layout is None else ChunkReader(layout)
        for block in reader.run(range(source.n_partitions), arrays):
            ids = row_ids(ids_of, source.within, count, block.n_rows)
            count += block.n_rows
            yield FileRows(ids, block.X, share=count / self.store.n_rows)
        source.require_same()
        if ids_of is not None:
            ids_of.require_same()


def open_raw_rows(
    fitted: Fitted,
    paths: Path | Sequence[Path],
    needs_y: bool,
    unseen: Unseen | None,
    delimiter: str | None,
    encoding: str | None,
    warn: Callable[[str], None],
    keep: Sequence[str] = (),
) -> tuple[Fitted, RawRows]:
    """Return the model with its columns in the order of its recipe, and the rows of raw files.

    The rows have the columns `keep` beside the features. Where the files lack the column of ids,
    `warn` is told, and rows have numbers.

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
    tables = open_tables(
        paths, delimiter=delimiter, encoding=encoding, recipe=recipe, needs_y=needs_y
    )
    if needs_y:
        recipe = replace(recipe, id_column=None)  # metrics have no rows to name
    elif recipe.id_column is not None and recipe.id_column not in tables.schema.names:
        warn(f"{tables.paths[0]} lacks the row ids {recipe.id_column!r}; row_id has row numbers")
        recipe = replace(recipe, id_column=None)
    return fitted, RawRows(tables, recipe, needs_y, unseen, warn, RepeatedColumns(tables, keep))
