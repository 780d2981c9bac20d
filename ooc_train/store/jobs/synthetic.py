"""`make_data`: synthetic data with known coefficients, of any size.

The numbers of a block are a function of the settings and the block's number. So neither threads nor
the number of rows change them: a short store holds the first rows of a longer one.
"""

import os
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np

from ooc_train.core.progress import Progress, no_progress, row_counter
from ooc_train.core.units import parse_rows
from ooc_train.memory.budget import Budget
from ooc_train.memory.ceiling import Ceiling, Term
from ooc_train.memory.measured import MemoryReport
from ooc_train.store.dataset import Store
from ooc_train.store.format.arrays import CodecName
from ooc_train.store.format.chunk_sizes import default_chunk_rows
from ooc_train.store.jobs.rewriting import writing_term
from ooc_train.store.jobs.synthetic_rows import THREADS, SyntheticSettings, Task
from ooc_train.store.writing.writer import StoreWriter


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
    codec: CodecName = "none",
    memory_ceiling: str | int | Ceiling | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> Store:
    """Write a store of synthetic data of any size, in the memory of a few dozen chunks.

    A small ceiling allows fewer blocks at a time; the numbers don't depend on it.

    Rows are independent draws, so the store counts as shuffled. Its `attributes["made"]` hold the
    settings and the true `coef` (predictors, features) and `intercept` (predictors,) in the data's
    units, which fits without a penalty approach.

    Parameters
    ----------
    path : str or os.PathLike
        Path of the new store.
    rows : int or str
        A number, or text such as "20M".
    features : int
        Columns of X, whose means are about 1 in size.
    task : {"classification", "regression"}
        Kind of y.
    outputs : int
        Columns of y, for regression; 1 makes a y of one axis.
    classes : int
        Classes, for classification. Two follow a logistic model, more a softmax, whose `coef` and
        `intercept` add up to 0 over the classes.
    condition : float
        Condition number of the covariance of X. At 1 the columns are independent with unit
        variance; above, they are correlated. All principal directions are equally relevant to y.
    noise : float
        Size of the noise on a signal of standard deviation 1 (with several predictors: on average).
        In regression, the standard deviation of the noise added to y. In classification, the
        divisor of the log-odds; `coef` and `intercept` are already divided by it.
    dtype : {"float32", "float64"}
        Type of X, and of y in a regression.
    sample_weight : bool
        Whether rows have weights between 0.5 and 1.5, independent of X and y.
    random_state : int
        Seed, at least 0.
    chunk_rows : int, optional
        Rows of a chunk, by default as in `rechunk_store`. The data don't depend on it.
    codec : {"none", "lz4", "zstd"}
        Codec of the chunks; random numbers hardly shrink.
    memory_ceiling : str, int or Ceiling, optional
        Bytes, or text such as "1GiB"; by default half of the available memory.
    overwrite : bool
        Whether an existing store is replaced.
    progress : callable
        Called with the stage ("writing"), its rows so far, and the fraction done, from 0 to 1.

    Returns
    -------
    Store
        The new store, opened.

    Raises
    ------
    ValueError
        If a setting is wrong; the message names it.
    OutputExists
        If something exists at `path`.
    CeilingExceeded
        If the ceiling is too small; before anything is written.
    OSError
        If the disk is full or not writable.

    Examples
    --------
    >>> from ooc_train import make_data
    >>> store = make_data("made.zarr", rows=1_000, features=4, classes=3)
    >>> store.n_rows, store.classes
    (1000, (0, 1, 2))
    """
    settings = SyntheticSettings(
        features, task, outputs, classes, condition, noise, dtype, random_state
    )
    store, _ = make_synthetic_store(
        path,
        settings,
        rows,
        sample_weight=sample_weight,
        chunk_rows=chunk_rows,
        codec=codec,
        memory_ceiling=memory_ceiling,
        overwrite=overwrite,
        progress=progress,
    )
    return store


def make_synthetic_store(
    path: str | os.PathLike[str],
    settings: SyntheticSettings,
    rows: int | str,
    *,
    sample_weight: bool = False,
    chunk_rows: int | None = None,
    codec: CodecName = "none",
    memory_ceiling: str | int | Ceiling | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> tuple[Store, MemoryReport]:
    """Write the store as `make_data` does, and return it with a report of the memory held."""
    n_rows = parse_rows(rows)
    if n_rows < 1:
        raise ValueError(f"rows={rows!r} should be at least 1")
    if chunk_rows is not None and chunk_rows < 1:
        raise ValueError(f"chunk_rows={chunk_rows!r} should be at least 1")
    default = default_chunk_rows(settings.features, settings.dtype, n_rows)
    with Budget(memory_ceiling) as budget:
        terms = budget.settle(
            partial(_terms, settings, chunk_rows or default, codec),
            "use smaller chunks" if chunk_rows else "",
        )
        threads = next(n for n in range(THREADS, 0, -1) if settings.blocks_term(n) in terms)
        writer = StoreWriter(
            path,
            n_features=settings.features,
            dtype=settings.dtype,
            outputs=settings.outputs if settings.outputs > 1 else None,
            classes=range(settings.classes) if settings.task == "classification" else None,
            chunk_rows=chunk_rows or default,
            expected_rows=n_rows,
            codec=codec,
            sample_weight=sample_weight,
            shuffled=settings.random_state,
            attributes={"made": settings.to_json()},
            overwrite=overwrite,
        )
        add_rows = row_counter(progress, "writing", n_rows)
        with writer, closing(settings.blocks(n_rows, threads, weighted=sample_weight)) as blocks:
            for X, y, weight in blocks:
                left = n_rows - writer.n_rows
                writer.write(X[:left], y[:left], None if weight is None else weight[:left])
                add_rows(min(left, settings.block_rows))
            return writer.commit(), budget.report(terms)


def _terms(
    settings: SyntheticSettings, chunk_rows: int, codec: CodecName, available: int
) -> list[Term]:
    """List the memory terms of the job, with as many threads as the available bytes allow."""
    width = settings.features * np.dtype(settings.dtype).itemsize
    writing = writing_term(
        width + 8 * (settings.predictors + 1),
        settings.features,
        chunk_rows,
        compressed=codec != "none",
        counted=True,
    )
    for threads in range(THREADS, 0, -1):
        terms = [settings.blocks_term(threads), writing]
        if sum(term.bytes for term in terms) <= available:
            break
    return terms
