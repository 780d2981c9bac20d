"""The first pass of ingest."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any, TypeVar

from ooc_train.core.files import FileKind, read_json
from ooc_train.core.prefetch import prefetched
from ooc_train.errors import InvalidTable
from ooc_train.store.dataset import Store
from ooc_train.store.jobs.train_test_split import rows_for_testing
from ooc_train.store.opening.opener import open_store
from ooc_train.tables.batches import Piece, Tables
from ooc_train.tables.features import Records
from ooc_train.tables.names import RECIPE_FILE
from ooc_train.tables.precision import Rounded
from ooc_train.tables.recipe import Recipe
from ooc_train.tables.roles import Roles
from ooc_train.tables.schema_inference import Known, Survey

PathLike = str | os.PathLike[str]

_T = TypeVar("_T")

_RECIPE = FileKind(
    "a recipe", 2**28, InvalidTable, "restore it from a copy, or ingest the raw files again"
)


def with_widening(
    learner: Callable[[str | None], Survey | Known],
    run: Callable[[Survey | Known, str | None], _T],
) -> _T:
    """Read raw files, and once more for float64 where float32 turns out too narrow."""
    try:
        return run(learner(None), None)
    except Rounded as error:
        # What the first run held is free when this clause is left.
        widened = str(error)
    return run(learner("float64"), widened)


def recipe_of(source: Recipe | Store | PathLike) -> Recipe:
    """Give a recipe: itself, or that of a store, or that at the path of a store or a run.

    Raises
    ------
    StoreNotFound
        If nothing lies there.
    InvalidTable
        If it has no recipe.
    """
    if isinstance(source, Recipe):
        return source
    if not isinstance(source, Store) and os.path.lexists(file := os.path.join(source, RECIPE_FILE)):
        return _recipe_from(read_json(file, _RECIPE), file)
    store = source if isinstance(source, Store) else open_store(source)
    if store.recipe is None:
        raise InvalidTable(
            f"{store.path} has no recipe: it wasn't made of raw files; ingest them, and train on "
            "what that makes"
        )
    return _recipe_from(store.recipe, store.path)


def _recipe_from(values: Mapping[str, Any], path: str) -> Recipe:
    try:
        return Recipe.from_json(values)
    except ValueError as error:
        raise InvalidTable(f"{path}: {error}; ingest the raw files again") from None


def make_learner(
    roles: Roles, like: Recipe | Store | PathLike | None, tables: Tables, dtype: str | None
) -> Survey | Known:
    """Give what learns of rows; a dtype takes the place of one that is auto."""
    if like is None:
        return Survey(
            roles.draft(tables, dtype),
            roles.min_count,
            sure=roles.sure_labels(tables),
            strict=roles.dtype == "auto" and dtype is None,
        )
    if roles != Roles():
        raise ValueError("like= brings what all columns are for; leave the other settings out")
    recipe = recipe_of(like)
    names = tables.names
    has_y = recipe.target is not None and recipe.target.name in names
    return Known(recipe, needs_y=has_y)


def read_pieces(
    tables: Tables, learner: Survey | Known, share: float, seed: int, rows: int | None = None
) -> Iterator[tuple[Piece, dict[str, Records]]]:
    """Read raw files piece by piece, as records for training, which are learned, and for testing.

    Reading runs ahead of the rest.
    """
    with closing(prefetched(tables.pieces(learner.encoder.types, rows))) as pieces:
        for piece in pieces:
            records = learner.encoder.encode(piece)
            testing = rows_for_testing(records["row"], share, seed)
            parts = {"training": records, "testing": records[:0]}
            if testing.any():
                parts = {"training": records[~testing], "testing": records[testing]}
            learner.add(parts["training"])
            yield piece, parts
