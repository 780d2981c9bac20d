"""Made data of a known truth: what a fit ought to find, at any size.

Rows are made block by block. The numbers of a block are a function of the settings and the block's
number, so neither threads nor the number of rows change them: the first rows of a long store are
those of a short one.
"""

import os
from contextlib import closing
from functools import partial
from typing import Any, Literal

import numpy as np

from ooc_train.core.progress import Progress, no_progress, row_counter
from ooc_train.core.units import parse_rows
from ooc_train.memory.budget import Budget
from ooc_train.memory.ceiling import Ceiling, Term
from ooc_train.memory.measured import MemoryReport
from ooc_train.store.dataset import Store
from ooc_train.store.format.chunk_sizes import default_chunk_rows
from ooc_train.store.jobs.rewriting import CodecName, writing_term
from ooc_train.store.jobs.synthetic_rows import THREADS, SyntheticRecipe, Task
from ooc_train.store.writing.writer import StoreWriter

__all__ = ["make_data"]


def make_data(
    path: str | os.PathLike[str],
    *,
    rows: int | str,
    features: int = 100,
    task: Task = "classification",
    outputs: int = 1,
    classes: int = 2,
    condition: float = 1.0,
    noise: float = 1.0,
    dtype: np.dtype[Any] | str = "float32",
    sample_weight: bool = False,
    random_state: int = 0,
    chunk_rows: int | None = None,
    codec: Literal["none", "lz4", "zstd"] = "none",
    memory_ceiling: str | int | Ceiling | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> Store:
    """Write a store of made data, of any size in the memory of a few dozen chunks.

    Under a small ceiling fewer blocks are made at a time; the numbers don't depend on it.

    Rows are independent draws, so their order is random: the store says that it is shuffled. Its
    `attributes["made"]` hold the settings and the truth, `coef` (predictors, features) and
    `intercept` (predictors,) in the data's units, which are what fits without a penalty tend to.

    Parameters
    ----------
    path : str or os.PathLike
        Where the store will lie.
    rows : int or str
        A number, or text such as "20M".
    features : int
        Columns of X, of means about 1 in size.
    task : {"classification", "regression"}
    outputs : int
        Columns of y, for regression; one of them makes a y of one axis.
    classes : int
        For classification: two follow a logistic model, more a softmax, whose `coef` and
        `intercept` add up to 0 over the classes.
    condition : float
        Condition number of the covariance of X. At 1 the columns are independent, of unit
        variance; above, they are correlated. All principal directions matter alike to y.
    noise : float
        Size of the noise on a signal of standard deviation 1 (over several predictors: on
        average). In regression, the standard deviation of what is added to y. In classification
        what divides the log-odds: `coef` and `intercept` have been divided by it.
    dtype : {"float32", "float64"}
        Of X, and of the y of a regression.
    sample_weight : bool
        Whether rows have weights, between 0.5 and 1.5, which know nothing of X and y.
    random_state : int
        Seed, at least 0.
    chunk_rows : int, optional
        Rows of a chunk (by default about 0.8 MiB). The data don't depend on it.
    codec : {"none", "lz4", "zstd"}
        Of the chunks; noise of this kind hardly shrinks.
    memory_ceiling : str, int or Ceiling, optional
        Bytes, or text such as "1GiB"; by default half of what is available.
    overwrite : bool
        Whether a store that lies there is replaced.
    progress : callable
        Called with the stage ("writing"), its rows so far, and its share from 0 to 1.

    Returns
    -------
    Store
        Opened.

    Raises
    ------
    ValueError
        If a setting is wrong; the message names it.
    OutputExists
        If something lies at `path`.
    CeilingExceeded
        If the ceiling is too small; before anything is written.
    OSError
        If the disk is full or can't be written.
    """
    recipe = SyntheticRecipe(
        features, task, outputs, classes, condition, noise, dtype, random_state
    )
    made, _ = make_synthetic_store(
        path,
        recipe,
        rows,
        sample_weight=sample_weight,
        chunk_rows=chunk_rows,
        codec=codec,
        memory_ceiling=memory_ceiling,
        overwrite=overwrite,
        progress=progress,
    )
    return made


def make_synthetic_store(
    path: str | os.PathLike[str],
    recipe: SyntheticRecipe,
    rows: int | str,
    *,
    sample_weight: bool = False,
    chunk_rows: int | None = None,
    codec: CodecName = "none",
    memory_ceiling: str | int | Ceiling | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> tuple[Store, MemoryReport]:
    """Do what `make_data` does, and return what it held too."""
    n_rows = parse_rows(rows)
    if n_rows < 1:
        raise ValueError(f"rows={rows!r} should be at least 1")
    if chunk_rows is not None and chunk_rows < 1:
        raise ValueError(f"chunk_rows={chunk_rows!r} should be at least 1")
    with Budget(memory_ceiling) as budget:
        terms = budget.settle(
            partial(_terms, recipe, chunk_rows, codec), "use smaller chunks" if chunk_rows else ""
        )
        threads = next(n for n in range(THREADS, 0, -1) if recipe.making_term(n) in terms)
        writer = StoreWriter(
            path,
            n_features=recipe.features,
            dtype=recipe.dtype,
            outputs=recipe.outputs if recipe.outputs > 1 else None,
            classes=range(recipe.classes) if recipe.task == "classification" else None,
            chunk_rows=chunk_rows,
            codec=codec,
            sample_weight=sample_weight,
            shuffled=recipe.random_state,
            attributes={"made": recipe.to_json()},
            overwrite=overwrite,
        )
        add_rows = row_counter(progress, "writing", n_rows)
        with writer, closing(recipe.blocks(n_rows, threads, weighted=sample_weight)) as blocks:
            for X, y, weight in blocks:
                left = n_rows - writer.n_rows
                writer.write(X[:left], y[:left], None if weight is None else weight[:left])
                add_rows(min(left, recipe.block_rows))
            return writer.commit(), budget.report(terms)


def _terms(
    recipe: SyntheticRecipe, chunk_rows: int | None, codec: CodecName, room: int
) -> list[Term]:
    """List what the job holds, with as many threads as so many bytes are room for."""
    width = recipe.features * np.dtype(recipe.dtype).itemsize
    rows = chunk_rows or default_chunk_rows(recipe.features, recipe.dtype)
    writing = writing_term(
        width + 8 * (recipe.predictors + 1),
        recipe.features,
        rows,
        packed=codec != "none",
        counted=True,
    )
    for threads in range(THREADS, 0, -1):
        terms = [recipe.making_term(threads), writing]
        if sum(term.bytes for term in terms) <= room:
            break
    return terms
