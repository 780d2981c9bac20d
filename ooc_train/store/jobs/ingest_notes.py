"""Notes for the user on the store that ingest makes, or would make."""

from collections.abc import Iterator

from ooc_train.core.text import counted, listed
from ooc_train.core.units import approximate_bytes
from ooc_train.store.jobs.ingest_memory import row_bytes
from ooc_train.tables.batches import Tables
from ooc_train.tables.fixed_schema import FixedSchema, Schema
from ooc_train.tables.format_guesses import format_notes
from ooc_train.tables.names import as_option
from ooc_train.tables.recipe import Recipe
from ooc_train.tables.roles import Roles
from ooc_train.tables.row_index import counting_columns
from ooc_train.tables.schema_inference import MOST_CLASSES, SchemaInference


def size_of(recipe: Recipe, n_rows: int, free: int) -> str:
    """Return a line on the size of the store and the free disk space."""
    size = approximate_bytes(n_rows * row_bytes(recipe))
    raw = len(recipe.columns)
    classes = ""
    if recipe.classes is not None and len(recipe.classes) > MOST_CLASSES:
        classes = f", with {counted(len(recipe.classes), 'class')}"
    return (
        f"{counted(n_rows, 'row')} x {counted(recipe.n_features, 'column')} of {recipe.dtype} "
        f"({size} before "
        f"compression), made of {counted(raw, 'raw column')}{classes}; "
        f"the disk has {approximate_bytes(free)} left"
    )


def notes(
    schema: Schema, recipe: Recipe, roles: Roles, tables: Tables, widened: str | None
) -> Iterator[str]:
    """Yield notes for the user, without those of `losses`.

    `widened` says why X is float64, unless the user asked for it.
    """
    if widened is not None:
        yield f"X is float64: {widened} (--dtype float32 rounds it)"
    if isinstance(schema, SchemaInference):
        for name, why in roles.indexes(tables).items():
            yield f"left out: {name!r}, {why} (--features takes it)"
        if tables.further and roles.features is None:
            names = sorted(tables.further)
            yield (
                f"left out: {listed(names)} of {tables.further[names[0]]}, which "
                f"{tables.paths[0]} lacks"
            )
        counting = counting_columns(tables, [c.name for c in recipe.columns if c.kind == "number"])
        for name in counting if roles.features is None else ():
            yield (
                f"{name!r} counts the rows, and the model learns from it as from any number: if "
                f"it is an id, --id {as_option([name])} keeps it with the rows instead"
            )
        text = [column.name for column in recipe.columns if column.kind == "category"]
        text += [recipe.target.name] if recipe.target and recipe.target.classes else []
        yield from format_notes(tables, text, plain=not roles.formats.of_numbers)
        yield from _missing_words_kept(recipe, roles)
    if recipe.classes is not None and len(recipe.classes) > MOST_CLASSES:
        yield (
            f"the target has {counted(len(recipe.classes), 'class')}; a model has as many "
            "parameters for "
            "each class as columns"
        )
    if constant := schema.constant(recipe):
        yield (
            f"the same in every training row: {', '.join(constant)}; such columns carry no "
            f"information (--drop {as_option(constant)})"
        )
    if schema.encoder.dropped:
        dropped = counted(schema.encoder.dropped, "row")
        were = "was" if schema.encoder.dropped == 1 else "were"
        yield f"{dropped} {were} left out because of missing values"


def _missing_words_kept(recipe: Recipe, roles: Roles) -> Iterator[str]:
    """Yield a note on each category column that has a word for missing numbers as a value."""
    words = {word.lower() for word in roles.formats.na}
    for column in recipe.columns:
        kept = [value for value in column.values or () if str(value).lower() in words]
        if kept:
            yield (
                f"{column.name!r} keeps {listed(kept)} as categories: --na is for numbers, dates, "
                "and yes and no"
            )


def losses(schema: Schema) -> Iterator[str]:
    """Yield notes on numbers that a type chosen by the user or a recipe may make equal.

    `Rounded` is raised if the schema may choose a wider type instead.
    """
    dtype = schema.draft.dtype
    way = "--dtype float64 keeps them apart"
    if isinstance(schema, FixedSchema):
        way = "the recipe says so; a recipe learned with --dtype float64 keeps them apart"
    if dtype == "float64":
        way = "leave the column out, or take its values as categories"
    for loss in schema.losses():
        yield f"{loss}: numbers that differ may become the same ({way})"
    for loss in schema.encoder.outcomes.losses():
        yield f"{loss}: numbers that differ may become the same"
