"""`preview`: what `ingest` would make, without writing a store."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ooc_train.core.progress import Progress, no_progress
from ooc_train.core.text import listed
from ooc_train.store.jobs.ingest_memory import row_bytes
from ooc_train.store.jobs.ingest_notes import losses, notes
from ooc_train.store.jobs.ingest_reading import (
    PathLike,
    make_schema,
    read_pieces,
    read_with_widening,
)
from ooc_train.store.jobs.train_test_split import require_test_size
from ooc_train.tables.column_summary import ColumnSummary
from ooc_train.tables.fixed_schema import Schema
from ooc_train.tables.open_tables import open_tables
from ooc_train.tables.recipe import Recipe
from ooc_train.tables.roles import Roles
from ooc_train.tables.schema_inference import SchemaInference


@dataclass(frozen=True)
class Preview:
    """The result of `preview`: what `ingest` would make of the raw columns and rows.

    Parameters
    ----------
    recipe : Recipe
        How raw columns become features, without medians.
    columns : tuple of ColumnSummary
        What each raw column becomes.
    n_rows, n_test : int
        Training rows and test rows.
    row_bytes : int
        Bytes of a row of X.
    notes : tuple of str
        As in `Ingested`.
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
    encoding: str | None = None,
    progress: Progress = no_progress,
) -> Preview:
    """Read raw files as `ingest` does, and return what each column would become.

    Medians, which `missing="median"` fills in, stay unknown: `ingest` computes them from records
    that it has written to the disk. Arguments and errors are those of `ingest`, but missing values
    of features, which that refuses by default, are counted, and a note names their columns.
    """
    require_test_size(test_size)
    tables = open_tables(paths, delimiter=delimiter, encoding=encoding)

    refused = roles.missing == "error"

    def run(schema: Schema, reason: str | None) -> Preview:
        n_rows, n_test = 0, 0
        for piece, parts in read_pieces(tables, schema, test_size, operator.index(random_state)):
            n_rows += len(parts["training"])
            n_test += len(parts["testing"])
            progress("reading", piece.start + piece.batch.num_rows, piece.share)
        lost = tuple(losses(schema))
        schema.draft = replace(schema.draft, missing=roles.missing)
        recipe = schema.recipe(None)
        columns = tuple(schema.summaries(recipe)) if isinstance(schema, SchemaInference) else ()
        absent = [column.name for column in columns if column.missing] if refused else []
        all_notes = (
            *lost,
            *notes(schema, recipe, roles, tables, reason),
            *([_choose_missing(absent)] if absent else []),
        )
        return Preview(recipe, columns, n_rows, n_test, row_bytes(recipe), all_notes)

    return read_with_widening(
        lambda dtype: make_schema(roles, None, tables, dtype, reads_on=True), run
    )


def _choose_missing(names: Sequence[str]) -> str:
    return (
        f"ingest refuses missing values, which are in {listed(names)}: choose what becomes of such "
        "rows, --missing drop, mean or median"
    )
