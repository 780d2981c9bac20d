"""`shuffle_store`: a store's rows in random order, in two passes under a memory ceiling.

The first pass reads rows as records into an external shuffle, whose module states the algorithm.
The second pass writes them in the order of their random keys. In each pass, a thread prefetches.
"""

import operator
import os
import warnings
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np

from ooc_train.core.prefetch import prefetched
from ooc_train.core.progress import Progress, no_progress, row_counter
from ooc_train.core.units import approximate_bytes
from ooc_train.memory.budget import Budget
from ooc_train.memory.ceiling import Ceiling, Term
from ooc_train.memory.measured import MemoryReport
from ooc_train.store.dataset import Store
from ooc_train.store.format.arrays import CodecName
from ooc_train.store.format.chunk_sizes import default_chunk_rows
from ooc_train.store.jobs.external_shuffle import ExternalShuffle
from ooc_train.store.jobs.missing_rows import MissingRows, missing_terms
from ooc_train.store.jobs.rewriting import (
    kept_codec,
    known_statistics,
    require_elsewhere,
    writer_like,
    writing_term,
)
from ooc_train.store.jobs.shuffle_sizes import ample_memory, least_memory
from ooc_train.store.jobs.store_records import read_records, reading_term, record_dtype
from ooc_train.store.labels import with_classes_within
from ooc_train.store.opening.opener import open_store
from ooc_train.tables.names import Missing


def shuffle_store(
    store: Store | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    random_state: int = 0,
    missing: Missing = "error",
    memory_ceiling: str | int | Ceiling | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
    warn: Callable[[str], None] = warnings.warn,
) -> tuple[Store, MemoryReport]:
    """Write the rows of a store in random order: all permutations are equally likely.

    The order depends on `random_state` and the number of rows, not on the ceiling. Types, names,
    classes, weights, recipe, attributes and statistics are kept. Chunks, shards and codec are kept
    for stores of our format, and are the defaults otherwise. Each row gets an id: its own, or its
    number in the source.

    Until the job ends, the disk of `out` holds the data twice.

    Parameters
    ----------
    store : Store, str or os.PathLike
        The source; a path is opened by `open_store`.
    out : str or os.PathLike
        Path of the new store, different from the source.
    random_state : int
        Seed, at least 0.
    missing : {"error", "drop", "mean", "median"}
        What becomes of missing values, as in `rechunk_store`.
    memory_ceiling : str, int or Ceiling, optional
        Bytes, or text such as "1GiB"; by default half of the available memory.
    overwrite : bool
        Whether an existing store at `out` is replaced, once the new one is complete.
    progress : callable
        Called with the stage ("reading", then "writing"), its rows so far, and its share from 0 to
        1.
    warn : callable
        Called with the number of rows that were dropped, or of values that were filled.

    Returns
    -------
    Store
        The new store, opened.
    MemoryReport
        Ceiling, projection and measurement of the job.

    Raises
    ------
    ValueError
        If a setting is wrong, or `out` is the source or a folder around it.
    OutputExists
        If something exists at `out`; before anything is read.
    CeilingExceeded
        If the ceiling is too small; before anything is read.
    CorruptChunk, NonFiniteData
        If the source is damaged, or holds NaN or infinity.
    OSError
        If the disk is full or not writable; what was at `out` stays.

    Examples
    --------
    >>> from ooc_train import make_data, shuffle_store
    >>> store = make_data("made.zarr", rows=2_000, features=5)
    >>> mixed, memory = shuffle_store(store, "mixed.zarr", random_state=7)
    >>> mixed.shuffled
    7
    """
    seed = operator.index(random_state)
    if seed < 0:
        raise ValueError(f"random_state={random_state!r} should be a whole number, at least 0")
    source = store if isinstance(store, Store) else open_store(store)
    source.require_whole("shuffle")
    require_elsewhere(source, out)
    kept = kept_codec(source)
    ours = kept is not None
    default = default_chunk_rows(source.n_features, source.dtype, source.n_rows)
    chunk_rows = source.chunk_rows if ours else default
    codec = kept or "none"
    source = with_classes_within(
        source,
        memory_ceiling,
        lambda coded: partial(_terms, coded, record_dtype(coded), chunk_rows, codec, missing),
    )
    treated = MissingRows(source, missing)
    source = treated.source
    record = record_dtype(source)
    with (
        Budget(memory_ceiling) as budget,
        writer_like(
            source,
            out,
            chunk_rows=chunk_rows,
            shard_rows=source.shard_rows if ours else None,
            codec=codec,
            row_id=True,
            shuffled=seed,
            overwrite=overwrite,
        ) as writer,
    ):
        terms = budget.settle(partial(_terms, source, record, chunk_rows, codec, missing))
        treated.prepare(progress)
        shuffle = ExternalShuffle(
            record,
            os.path.dirname(writer.path),
            memory_bytes=terms[-1].bytes,
            seed=seed,
            expected_bytes=source.n_rows * record.itemsize,
        )
        with shuffle:
            with closing(prefetched(read_records(source, record))) as blocks:
                add_rows = row_counter(progress, "reading", source.n_rows)
                for records in treated.rows(blocks):
                    shuffle.add(records)
                    add_rows(len(records))
            roles = [name for name in record.names or () if name != "row"]
            add_rows = row_counter(progress, "writing", source.n_rows)
            for records in shuffle.blocks():
                rows = {"row_id": records["row"]} | {name: records[name] for name in roles}
                writer.write(**rows)
                add_rows(len(records))
        shuffled = writer.commit()
        if treated.note:
            warn(treated.note)
        return shuffled, budget.report(terms)


def _terms(
    source: Store,
    record: np.dtype[Any],
    chunk_rows: int,
    codec: CodecName,
    missing: Missing,
    available: int,
) -> list[Term]:
    """List the job's memory terms; the last one, the shuffle's, takes what the others leave."""
    counted = missing != "error" or known_statistics(source, source.dtype) is None
    terms = [
        reading_term(source, record),
        *missing_terms(source.X, record, missing),
        writing_term(
            # The result has ids (8 bytes), even if the source has none.
            record.itemsize + 8,
            source.n_features,
            chunk_rows,
            compressed=codec != "none",
            counted=counted,
        ),
    ]
    data = source.n_rows * record.itemsize
    left = available - sum(term.bytes for term in terms)
    scattering = max(
        least_memory(record.itemsize, data), min(ample_memory(record.itemsize, data), left)
    )
    why = f"records of {record.itemsize:,} bytes, {approximate_bytes(data)} of them in all"
    return [*terms, Term("shuffling", scattering, why)]
