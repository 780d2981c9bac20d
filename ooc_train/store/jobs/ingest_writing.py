"""The second pass of ingest: records from the disk become rows of stores, by a recipe."""

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.prefetch import prefetched
from ooc_train.store.dataset import Scalar
from ooc_train.store.format.chunk_sizes import default_chunk_rows
from ooc_train.store.format.pairs import StorePair
from ooc_train.store.jobs.external_shuffle import ExternalShuffle
from ooc_train.store.writing.compression import compressed_fraction, compresses_well
from ooc_train.store.writing.writer import StoreWriter
from ooc_train.tables.recipe import Recipe
from ooc_train.tables.schema_inference import Known, Survey

CodecOption = Literal["auto", "none", "lz4", "zstd"]


@dataclass(frozen=True)
class StorageOptions:
    """How stores are laid out, as far as that is settled."""

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

    def of(self, recipe: Recipe) -> "StorageOptions":
        """Settle the rows of a chunk."""
        rows = self.chunk_rows or default_chunk_rows(recipe.n_features, recipe.dtype)
        return replace(self, chunk_rows=rows)

    def packing(self, X: NDArray[np.floating]) -> tuple["StorageOptions", float]:
        """Settle the codec by a sample, and give the share that it leaves of the bytes of X."""
        settled = self
        if self.codec == "auto":
            settled = replace(self, codec="lz4" if compresses_well(X) else "none")
        codecs: dict[CodecOption, Literal["blosc", "zstd"]] = {"lz4": "blosc", "zstd": "zstd"}
        return settled, compressed_fraction(X, codecs.get(settled.codec))


def expanded(
    spool: ExternalShuffle, recipe: Recipe, learner: Survey | Known, layout: StorageOptions
) -> Generator[dict[str, NDArray[Any]], None, None]:
    """Give what a `StoreWriter` takes of the rows of a spool, a chunk's rows at most at a time.

    Making the next runs ahead of writing.
    """
    recode, step = learner.recoder(recipe), layout.chunk_rows or 1
    fields = set(spool.dtype.names or ())
    given = {"y": "y", "sample_weight": "weight", "row_id": "id" if "id" in fields else "row"}

    def rows() -> Iterator[dict[str, NDArray[Any]]]:
        with closing(spool.blocks()) as blocks:
            for block in blocks:
                for start in range(0, len(block), step):
                    records = block[start : start + step]
                    recode(records)
                    # The block is overwritten by the next one, while these are still written.
                    outcomes = {
                        role: records[field].copy()
                        for role, field in given.items()
                        if field in fields
                    }
                    yield {"X": recipe.expand(records), **outcomes}

    return prefetched(rows())


def first_chunk(
    spool: ExternalShuffle, recipe: Recipe, learner: Survey | Known, layout: StorageOptions
) -> NDArray[np.floating]:
    """Give the first chunk of X: the same, however much the spool hands out at a time."""
    parts: list[NDArray[np.floating]] = []
    missing = layout.chunk_rows or 1
    with closing(expanded(spool, recipe, learner, layout)) as rows:
        while missing and (part := next(rows, None)) is not None:
            parts.append(part["X"][:missing])
            missing -= len(parts[-1])
    return np.concatenate(parts)


def writer_of(
    path: str,
    recipe: Recipe,
    learner: Survey | Known,
    layout: StorageOptions,
    *,
    overwrite: bool,
    pair: StorePair | None,
) -> StoreWriter:
    """Give what writes a store of the rows of a recipe."""
    fields = learner.encoder.dtype.names or ()
    has_y = "y" in fields
    classes: tuple[Scalar, ...] | None = recipe.classes if has_y else None
    return StoreWriter(
        path,
        n_features=recipe.n_features,
        dtype=recipe.dtype,
        y_dtype=learner.y_dtype if has_y and classes is None else None,
        feature_names=recipe.feature_names,
        classes=classes,
        chunk_rows=layout.chunk_rows,
        shard_rows=layout.shard_rows,
        codec="none" if layout.codec == "auto" else layout.codec,
        sample_weight="weight" in fields,
        row_id=True,
        shuffled=layout.random_state if layout.shuffled else None,
        recipe=recipe.to_json(),
        overwrite=overwrite,
        pair=pair,
    )
