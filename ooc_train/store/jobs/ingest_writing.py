"""The second pass of ingest: records from the external shuffle become rows of stores."""

from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.prefetch import prefetched
from ooc_train.store.dataset import Scalar
from ooc_train.store.format.pairs import StorePair
from ooc_train.store.jobs.external_shuffle import ExternalShuffle
from ooc_train.store.jobs.ingest_storage import StorageOptions
from ooc_train.store.writing.writer import StoreWriter
from ooc_train.tables.fixed_schema import Schema
from ooc_train.tables.recipe import Recipe


def feature_rows(
    shuffle: ExternalShuffle, recipe: Recipe, schema: Schema, options: StorageOptions
) -> Generator[dict[str, NDArray[Any]], None, None]:
    """Yield arguments of `StoreWriter.write` from records, at most a chunk's rows at a time.

    A thread prefetches the next rows.
    """
    remap, step = schema.remapper(recipe), options.chunk_rows or 1
    fields = set(shuffle.dtype.names or ())
    fields_by_role = {
        "y": "y",
        "sample_weight": "weight",
        "row_id": "id" if "id" in fields else "row",
    }

    def rows() -> Iterator[dict[str, NDArray[Any]]]:
        with closing(shuffle.blocks()) as blocks:
            for block in blocks:
                for start in range(0, len(block), step):
                    records = block[start : start + step]
                    remap(records)
                    # Outcomes are copied: the next block overwrites this one during writing.
                    outcomes = {
                        role: records[field].copy()
                        for role, field in fields_by_role.items()
                        if field in fields
                    }
                    yield {"X": recipe.expand(records), **outcomes}

    return prefetched(rows())


def first_chunk(
    shuffle: ExternalShuffle, recipe: Recipe, schema: Schema, options: StorageOptions
) -> NDArray[np.floating]:
    """Return the first chunk of X, which doesn't depend on the size of blocks."""
    parts: list[NDArray[np.floating]] = []
    missing = options.chunk_rows or 1
    with closing(feature_rows(shuffle, recipe, schema, options)) as rows:
        while missing and (part := next(rows, None)) is not None:
            parts.append(part["X"][:missing])
            missing -= len(parts[-1])
    return np.concatenate(parts)


def ingest_writer(
    path: str,
    recipe: Recipe,
    schema: Schema,
    options: StorageOptions,
    *,
    n_rows: int,
    overwrite: bool,
    pair: StorePair | None,
) -> StoreWriter:
    """Return a `StoreWriter` for rows that a recipe makes, with its names and classes."""
    fields = schema.encoder.dtype.names or ()
    has_y = "y" in fields
    classes: tuple[Scalar, ...] | None = recipe.classes if has_y else None
    return StoreWriter(
        path,
        n_features=recipe.n_features,
        dtype=recipe.dtype,
        y_dtype=schema.y_dtype if has_y and classes is None else None,
        feature_names=recipe.feature_names,
        classes=classes,
        chunk_rows=options.chunk_rows,
        shard_rows=options.shard_rows,
        codec="none" if options.codec == "auto" else options.codec,
        sample_weight="weight" in fields,
        row_id=True,
        expected_rows=n_rows,
        shuffled=options.random_state if options.shuffled else None,
        recipe=recipe.to_json(),
        overwrite=overwrite,
        pair=pair,
    )
