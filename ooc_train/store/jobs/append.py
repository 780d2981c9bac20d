"""Rows of raw files added to the end of a store, encoded as its recipe says."""

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ooc_train.core.progress import Progress, no_progress
from ooc_train.core.text import counted, html_table
from ooc_train.errors import InvalidStore
from ooc_train.memory.budget import Budget
from ooc_train.memory.ceiling import Ceiling, Term
from ooc_train.memory.measured import MemoryReport
from ooc_train.store.dataset import Store
from ooc_train.store.jobs.raw_rows import RawRows
from ooc_train.store.reading.chunks import ChunkReader
from ooc_train.store.writing.appender import StoreAppender
from ooc_train.tables.features import Unseen
from ooc_train.tables.open_tables import open_tables
from ooc_train.tables.recipe import Recipe

_CHUNK_COPIES = 4
"""Copies of a chunk of each array: the one that fills, its float64 for statistics, and encoded."""

Path = str | os.PathLike[str]


@dataclass(frozen=True, repr=False)
class Appended:
    """The result of `append`.

    Attributes
    ----------
    store : Store
        The store with the rows.
    n_rows : int
        Number of rows that were added.
    memory : MemoryReport
        Ceiling, projection and measurement of the job.
    """

    store: Store
    n_rows: int
    memory: MemoryReport

    def __repr__(self) -> str:
        return f"<Appended: {counted(self.n_rows, 'row')} to {self.store!r}; {self.memory}>"

    def _repr_html_(self) -> str:
        """Return the store and the memory as HTML, for notebooks."""
        rows = html_table([("rows added", f"{self.n_rows:,}")])
        return f"{self.store._repr_html_()}{rows}{self.memory._repr_html_()}"


def append(
    store: Path,
    paths: Path | Sequence[Path],
    *,
    unseen: Unseen | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    memory_ceiling: str | int | Ceiling | None = None,
    progress: Progress = no_progress,
    warn: Callable[[str], None] = warnings.warn,
) -> Appended:
    """Add the rows of raw files to the end of a store, in their order.

    The recipe that `ingest` kept in the store encodes them: columns are found by name, categories
    and missing values are treated as then. All rows count at once, or none; readers of the store go
    on with the rows that they know. Without a column of ids, rows get the numbers after the largest
    id.

    Parameters
    ----------
    store : path
        A store that `ingest` wrote, in a local folder.
    paths : path, or sequence of paths
        CSV or Parquet: files, a pattern, or a folder.
    unseen : {"error", "other", "ignore"}, optional
        Treatment of categories that no training row had; None is that of the recipe.
    delimiter, encoding : str, optional
        Delimiter and encoding of CSV; by default those of the training files. Where the header
        has the columns of the recipe under another delimiter alone, that one is used, or refused.
    memory_ceiling : str, int, Ceiling or None
        The most memory that this process may hold.
    progress : callable
        Called with the stage ("appending"), its rows so far, and the fraction done, from 0 to 1.
    warn : callable
        Called with the precision that numbers lost in the type of the recipe.

    Returns
    -------
    Appended

    Raises
    ------
    InvalidStore
        If the store has no recipe, or was not written by this release.
    BlockingIOError
        If another process is adding rows to the store.
    TableNotFound, InvalidTable
        If the files can't be used, or lack a column; the store is as it was.
    CeilingExceeded
        If the ceiling is too small.

    Examples
    --------
    >>> import pandas as pd
    >>> from ooc_train import append, ingest, open_store
    >>> table = pd.DataFrame({"x": [0.5, 1.5] * 20, "y": [1.0, 2.0] * 20})
    >>> table.to_csv("old.csv", index=False)
    >>> made = ingest("old.csv", "rows.zarr", target="y")
    >>> table.to_csv("new.csv", index=False)
    >>> done = append("rows.zarr", "new.csv")
    >>> open_store("rows.zarr").n_rows
    80
    """
    with Budget(memory_ceiling) as budget, StoreAppender(store) as appender:
        before = appender.store
        recipe, needs_y = recipe_for_rows(before), before.y is not None
        tables = open_tables(
            paths, delimiter=delimiter, encoding=encoding, recipe=recipe, needs_y=needs_y
        )
        rows = RawRows(tables, recipe, needs_y, unseen, warn)
        writing = _writing(before)
        available = budget.left([writing])
        terms = budget.settle(lambda most: [writing, *rows.terms(most - writing.bytes)])
        first_id = 0 if rows.recipe.id_column is not None else _last_id(before) + 1
        for block in rows.blocks(available):
            appender.write(
                block.X,
                block.y,
                block.weight if before.sample_weight is not None else None,
                first_id + block.ids if before.row_id is not None else None,
            )
            progress("appending", appender.n_rows - before.n_rows, block.share)
        after = appender.commit()
        return Appended(after, after.n_rows - before.n_rows, budget.report(terms))


def recipe_for_rows(store: Store) -> Recipe:
    """Return the recipe that encodes rows of raw files for a store.

    Raises
    ------
    InvalidStore
        If the store has none, or a damaged one.
    """
    if store.recipe is None:
        raise InvalidStore(
            f"{store.path} has no recipe for raw files: ingest did not write it; add rows of its "
            "columns by StoreAppender in Python"
        )
    try:
        return Recipe.from_json(store.recipe)
    except ValueError as error:
        raise InvalidStore(f"the recipe of {store.path} can't be used: {error}") from None


def _writing(store: Store) -> Term:
    """Return the memory of the chunks that are being filled."""
    layouts = (store.X, store.y, store.sample_weight, store.row_id)
    chunks = sum(layout.chunk_bytes for layout in layouts if layout is not None)
    in_float64 = 2 * 8 * store.chunk_rows * store.n_features
    return Term("writing", _CHUNK_COPIES * chunks + in_float64, "a chunk of each array")


def _last_id(store: Store) -> int:
    """Return the largest id of a row, read a chunk at a time; -1 without ids."""
    if store.row_id is None:
        return -1
    reader, last = ChunkReader(store.row_id), -1
    for start in range(0, store.n_rows, store.chunk_rows):
        ids = np.empty(min(store.chunk_rows, store.n_rows - start), np.int64)
        reader.read_rows(start, start + len(ids), ids)
        last = max(last, int(ids.max()))
    return last
