"""The first pass of ingest: raw files become records, and the schema is learned."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any, TypeVar

from ooc_train.core.files import FileKind, read_json
from ooc_train.core.prefetch import prefetched
from ooc_train.errors import InvalidTable
from ooc_train.store.dataset import Store
from ooc_train.store.jobs.train_test_split import rows_for_testing
from ooc_train.store.opening.opener import open_store
from ooc_train.tables.batches import Piece, Tables
from ooc_train.tables.features import Records
from ooc_train.tables.fixed_schema import FixedSchema, Schema
from ooc_train.tables.names import RECIPE_FILE
from ooc_train.tables.precision import Rounded
from ooc_train.tables.recipe import Recipe
from ooc_train.tables.roles import Roles
from ooc_train.tables.schema_inference import SchemaInference

PathLike = str | os.PathLike[str]

_T = TypeVar("_T")

_RECIPE = FileKind(
    "a recipe", 2**28, InvalidTable, "restore it from a copy, or ingest the raw files again"
)


def read_with_widening(
    make: Callable[[str | None], Schema], run: Callable[[Schema, str | None], _T]
) -> _T:
    """Run an ingest, and once more with float64 if float32 makes different numbers equal.

    Parameters
    ----------
    make : callable
        Returns a schema, given the type of X or None for the default.
    run : callable
        Runs the ingest, given a schema and the reason for float64 (None in the first run).
    """
    try:
        return run(make(None), None)
    except Rounded as error:
        # Leaving this clause frees the memory of the first run.
        reason = str(error)
    return run(make("float64"), reason)


def recipe_of(source: Recipe | Store | PathLike) -> Recipe:
    """Return a recipe: itself, that of a store, or that at the path of a store or a run.

    Raises
    ------
    StoreNotFound
        If there is nothing at the path.
    InvalidTable
        If it has no recipe, or a malformed one.
    """
    if isinstance(source, Recipe):
        return source
    if not isinstance(source, Store) and os.path.lexists(file := os.path.join(source, RECIPE_FILE)):
        return _recipe_from(read_json(file, _RECIPE), file)
    store = source if isinstance(source, Store) else open_store(source)
    if store.recipe is None:
        raise InvalidTable(
            f"{store.path} has no recipe: it wasn't made of raw files; ingest them, and train on "
            "the new store"
        )
    return _recipe_from(store.recipe, store.path)


def _recipe_from(values: Mapping[str, Any], path: str) -> Recipe:
    try:
        return Recipe.from_json(values)
    except ValueError as error:
        raise InvalidTable(f"{path}: {error}; ingest the raw files again") from None


def make_schema(
    roles: Roles,
    like: Recipe | None,
    tables: Tables,
    dtype: str | None,
    *,
    reads_on: bool = False,
) -> Schema:
    """Return a schema that is inferred from the rows, or the fixed one of a recipe.

    `dtype` is the type of X, where `roles` leaves it open. One that `reads_on` counts missing
    values where another refuses them.
    """
    if like is None:
        draft = roles.draft(tables, dtype)
        if reads_on and draft.missing == "error":
            draft = replace(draft, missing="mean")
        return SchemaInference(
            draft,
            roles.min_count,
            declared_labels=roles.declares_labels(tables),
            strict=roles.dtype == "auto" and dtype is None,
        )
    if roles != Roles():
        raise ValueError("like= brings what all columns are for; leave the other settings out")
    has_y = like.target is not None and like.target.name in tables.names
    return FixedSchema(like, needs_y=has_y)


def read_pieces(
    tables: Tables, schema: Schema, share: float, seed: int, rows: int | None = None
) -> Iterator[tuple[Piece, dict[str, Records]]]:
    """Yield pieces of raw files with their records for training and for testing.

    The schema learns from the training records.

    A thread prefetches the next piece.
    """
    with closing(prefetched(tables.pieces(schema.encoder.types, rows))) as pieces:
        for piece in pieces:
            records = schema.encoder.encode(piece)
            testing = rows_for_testing(records["row"], share, seed)
            parts = {"training": records, "testing": records[:0]}
            if testing.any():
                parts = {"training": records[~testing], "testing": records[testing]}
            schema.add(parts["training"])
            yield piece, parts
