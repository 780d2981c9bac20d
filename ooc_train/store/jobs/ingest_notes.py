"""What a reader ought to know of a store that ingest makes, or would make."""

from collections.abc import Iterator

from ooc_train.core.units import approximate_bytes
from ooc_train.store.jobs.ingest_memory import row_bytes
from ooc_train.tables.batches import Tables
from ooc_train.tables.names import as_option
from ooc_train.tables.recipe import Recipe
from ooc_train.tables.roles import Roles
from ooc_train.tables.schema_inference import MOST_CLASSES, Known, Survey


def size_of(recipe: Recipe, n_rows: int, free: int) -> str:
    """Say how large a store will be, and how much of the disk is free."""
    size = approximate_bytes(n_rows * row_bytes(recipe))
    raw = len(recipe.columns)
    classes = ""
    if recipe.classes is not None and len(recipe.classes) > MOST_CLASSES:
        classes = f", with {len(recipe.classes):,} classes"
    return (
        f"{n_rows:,} rows x {recipe.n_features:,} columns of {recipe.dtype} ({size} before packing)"
        f", made of {raw:,} raw {'column' if raw == 1 else 'columns'}{classes}; the disk has "
        f"{approximate_bytes(free)} left"
    )


def notes(
    learner: Survey | Known, recipe: Recipe, roles: Roles, tables: Tables, widened: str | None
) -> Iterator[str]:
    """Give what a reader ought to know, but for what numbers lose.

    Parameters
    ----------
    learner : Survey or Known
        When all rows were read.
    recipe : Recipe
    roles : Roles
    tables : Tables
    widened : str or None
        Why X is of float64, if the user didn't ask for it.
    """
    if widened is not None:
        yield f"X is of float64: {widened} (--dtype float32 rounds it)"
    if isinstance(learner, Survey):
        for name, why in roles.indexes(tables).items():
            yield f"left out: {name!r}, {why} (--features takes it)"
    if recipe.classes is not None and len(recipe.classes) > MOST_CLASSES:
        yield (
            f"the target has {len(recipe.classes):,} classes, each of which a model has parameters "
            "for, as many as columns"
        )
    if constant := learner.constant(recipe):
        yield (
            f"the same in every training row: {', '.join(constant)}; such columns teach nothing "
            f"(--drop {as_option(constant)})"
        )
    if learner.encoder.dropped:
        rows = (
            "1 row was"
            if learner.encoder.dropped == 1
            else f"{learner.encoder.dropped:,} rows were"
        )
        yield f"{rows} left out, for what they lack"


def losses(learner: Survey | Known) -> Iterator[str]:
    """Say what numbers lose in a dtype that the user, or a recipe, chose.

    Raises
    ------
    Rounded
        If the dtype is the learner's to choose.
    """
    dtype = learner.draft.dtype
    way = "--dtype float64 keeps them apart"
    if isinstance(learner, Known):
        way = "the recipe has it so; one that is learned with --dtype float64 keeps them apart"
    if dtype == "float64":
        way = "leave the column out, or take its values as categories"
    for loss in learner.losses():
        yield f"{loss}: numbers that differ may become the same ({way})"
    for loss in learner.encoder.outcomes.losses():
        yield f"{loss}: numbers that differ may become the same"
