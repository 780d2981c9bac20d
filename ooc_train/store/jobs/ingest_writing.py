"""The second pass of ingest: records from the external shuffle become rows of stores."""

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.joint_commits import commit_together
from ooc_train.core.prefetch import prefetched
from ooc_train.store.dataset import Scalar, Store
from ooc_train.store.format.arrays import CODECS, CodecName
from ooc_train.store.format.chunk_sizes import default_chunk_rows
from ooc_train.store.format.pairs import StorePair
from ooc_train.store.jobs.external_shuffle import ExternalShuffle
from ooc_train.store.opening.opener import open_store
from ooc_train.store.writing.compression import compressed_fraction, compresses_well
from ooc_train.store.writing.writer import StoreWriter
from ooc_train.tables.fixed_schema import Schema
from ooc_train.tables.recipe import Recipe

CodecOption = Literal["auto", "none", "lz4", "zstd"]


@dataclass(frozen=True)
class StorageOptions:
    """How ingest stores its rows, as far as decided.

    Parameters
    ----------
    random_state : int
        Seed of the shuffle and of the test rows, at least 0.
    chunk_rows, shard_rows : int or None
        Rows of a chunk and of a shard; None for the default.
    codec : {"auto", "none", "lz4", "zstd"}
        Codec of the chunks.

    Raises
    ------
    ValueError
        If a setting is wrong.
    """

    random_state: int
    shuffled: bool
    chunk_rows: int | None
    shard_rows: int | None
    codec: CodecOption

    def __post_init__(self) -> None:
        if self.random_state < 0:
            raise ValueError(f"random_state={self.random_state} should be at least 0")
        if self.codec not in ("auto", "none", "lz4", "zstd"):
            raise ValueError(f"codec={self.codec!r} is none of auto, none, lz4, zstd")
        if self.chunk_rows is not None and self.chunk_rows < 1:
            raise ValueError(f"chunk_rows={self.chunk_rows} should be at least 1")

    def with_chunk_rows(self, recipe: Recipe) -> "StorageOptions":
        """Return options with the default rows of a chunk, if none were set."""
        rows = self.chunk_rows or default_chunk_rows(recipe.n_features, recipe.dtype)
        return replace(self, chunk_rows=rows)

    def with_codec(self, X: NDArray[Any]) -> tuple["StorageOptions", float]:
        """Return options with a codec chosen by a sample, and the fraction of bytes it leaves."""
        codec: CodecName
        codec = self.codec if self.codec != "auto" else "lz4" if compresses_well(X) else "none"
        return replace(self, codec=codec), compressed_fraction(X, CODECS[codec])


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
    overwrite: bool,
    pair: StorePair | None,
) -> StoreWriter:
    """Return a writer for the rows that a recipe makes."""
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
        shuffled=options.random_state if options.shuffled else None,
        recipe=recipe.to_json(),
        overwrite=overwrite,
        pair=pair,
    )


def commit_stores(
    writers: Mapping[str, StoreWriter], outputs: Mapping[str, str]
) -> dict[str, Store]:
    """Give finished stores their names, and open them by the names of `outputs`.

    Both or none: the test store comes first, so a training store implies a test store.
    """
    names = list(outputs)[::-1]
    for name in names:
        writers[name].finalize()
    commit_together([writers[name].output for name in names])
    return {name: open_store(outputs[name]) for name in names}
