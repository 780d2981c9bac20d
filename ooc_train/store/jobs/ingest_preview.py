"""Preview of ingest."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass

from ooc_train.core.progress import Progress, no_progress
from ooc_train.store.jobs.ingest_memory import (
    row_bytes,
)
from ooc_train.store.jobs.ingest_notes import losses, notes
from ooc_train.store.jobs.ingest_reading import PathLike, make_learner, read_pieces, with_widening
from ooc_train.store.jobs.train_test_split import require_test_size
from ooc_train.tables.batches import open_tables
from ooc_train.tables.recipe import Recipe
from ooc_train.tables.roles import Roles
from ooc_train.tables.schema_inference import ColumnSummary, Known, Survey


@dataclass(frozen=True)
class Preview:
    """What `ingest` would make.

    Parameters
    ----------
    recipe : Recipe
    columns : tuple of ColumnSummary
        What becomes of each raw column.
    n_rows, n_test : int
        Rows for training and for testing.
    row_bytes : int
        Of a row of X.
    notes : tuple of str
        As of `Ingested`.
    """

    recipe: Recipe
    columns: tuple[ColumnSummary, ...]
    n_rows: int
    n_test: int
    row_bytes: int
    notes: tuple[str, ...] = ()


def preview(
    paths: PathLike | Sequence[PathLike],
    roles: Roles,
    *,
    test_size: float = 0.0,
    random_state: int = 0,
    delimiter: str | None = None,
    encoding: str = "utf8",
    progress: Progress = no_progress,
) -> Preview:
    """Read raw files as `ingest` would, and say what would become of each column.

    Medians are left open, since they take the rows themselves.

    Parameters
    ----------
    paths, test_size, random_state, delimiter, encoding, progress
        As of `ingest`.
    roles : Roles

    Raises
    ------
    TableNotFound, InvalidTable, ValueError
        As `ingest` does.
    """
    require_test_size(test_size)
    tables = open_tables(paths, delimiter=delimiter, encoding=encoding)

    def looked(learner: Survey | Known, widened: str | None) -> Preview:
        n_rows, n_test = 0, 0
        for piece, parts in read_pieces(tables, learner, test_size, operator.index(random_state)):
            n_rows += len(parts["training"])
            n_test += len(parts["testing"])
            progress("reading", piece.start + piece.batch.num_rows, piece.share)
        lost = tuple(losses(learner))
        recipe = learner.recipe(None)
        columns = tuple(learner.summaries(recipe)) if isinstance(learner, Survey) else ()
        told = (*lost, *notes(learner, recipe, roles, tables, widened))
        return Preview(recipe, columns, n_rows, n_test, row_bytes(recipe), told)

    return with_widening(lambda dtype: make_learner(roles, None, tables, dtype), looked)
