"""A store's rows in random order, under a memory ceiling, in two passes over the data.

Rows are read as records, scattered over a spool on disk by random keys, and written in the order of
the keys; `spool` has the algorithm. Reading runs ahead of scattering, and reading back ahead of
writing, in a thread each.
"""

import operator
import os
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
from ooc_train.store.format.chunk_sizes import default_chunk_rows
from ooc_train.store.jobs.external_shuffle import ExternalShuffle
from ooc_train.store.jobs.rewriting import (
    CodecName,
    kept_codec,
    known_statistics,
    require_elsewhere,
    writer_of,
    writing_term,
)
from ooc_train.store.jobs.store_records import read_records, reading_term, record_dtype
from ooc_train.store.labels import with_classes_within
from ooc_train.store.opening.opener import open_store

__all__ = ["shuffle_store"]


def shuffle_store(
    store: Store | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    random_state: int = 0,
    memory_ceiling: str | int | Ceiling | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> tuple[Store, MemoryReport]:
    """Write the rows of a store in random order: every permutation is as likely as any other.

    The order is a function of `random_state` and the number of rows, never of the ceiling. Types,
    names, classes, weights, recipe and attributes stay, and statistics are carried over; chunks,
    shards and codec stay if the store was written by this package, and are the defaults otherwise.
    Each row has an id: its own, or the number that it had in the source.

    Beside the source, the disk of `out` takes the data twice until this is done.

    Parameters
    ----------
    store : Store, str or os.PathLike
        What to shuffle; a path is opened by `open_store`.
    out : str or os.PathLike
        Where the shuffled store will lie: another place than the source.
    random_state : int
        Seed, at least 0.
    memory_ceiling : str, int or Ceiling, optional
        Bytes, or text such as "1GiB"; by default half of what is available.
    overwrite : bool
        Whether a store that lies there is replaced, once this one is whole.
    progress : callable
        Called with the stage ("reading", then "writing"), its rows so far, and its share from 0
        to 1.

    Returns
    -------
    Store, MemoryReport
        The store, opened, and what the job held.

    Raises
    ------
    ValueError
        If a setting is wrong, or `out` is the source or a directory around it.
    OutputExists
        If something lies at `out`; before anything is read.
    CeilingExceeded
        If the ceiling is too small; before anything is read.
    CorruptChunk, NonFiniteData
        If the source is damaged, or holds NaN or infinity.
    OSError
        If the disk is full or can't be written; what was at `out` stays.
    """
    seed = operator.index(random_state)
    if seed < 0:
        raise ValueError(f"random_state={random_state!r} should be a whole number, at least 0")
    source = store if isinstance(store, Store) else open_store(store)
    require_elsewhere(source, out)
    kept = kept_codec(source)
    ours = kept is not None
    chunk_rows = source.chunk_rows if ours else default_chunk_rows(source.n_features, source.dtype)
    codec = kept or "none"
    source = with_classes_within(
        source,
        memory_ceiling,
        lambda coded: partial(_terms, coded, record_dtype(coded), chunk_rows, codec),
    )
    record = record_dtype(source)
    with (
        Budget(memory_ceiling) as budget,
        writer_of(
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
        terms = budget.settle(partial(_terms, source, record, chunk_rows, codec))
        spool = ExternalShuffle(
            record,
            os.path.dirname(writer.path),
            room=terms[-1].bytes,
            seed=seed,
            expected_bytes=source.n_rows * record.itemsize,
        )
        with spool:
            with closing(prefetched(read_records(source, record))) as blocks:
                add_rows = row_counter(progress, "reading", source.n_rows)
                for records in blocks:
                    spool.add(records)
                    add_rows(len(records))
            given = [name for name in record.names or () if name != "row"]
            add_rows = row_counter(progress, "writing", source.n_rows)
            for records in spool.blocks():
                rows = {"row_id": records["row"]} | {name: records[name] for name in given}
                writer.write(**rows)
                add_rows(len(records))
        shuffled = writer.commit()
        return shuffled, budget.report(terms)


def _terms(
    source: Store, record: np.dtype[Any], chunk_rows: int, codec: CodecName, room: int
) -> list[Term]:
    """List what the job holds, of so many bytes: what the others leave, the spool's, comes last."""
    counted = known_statistics(source, source.dtype) is None
    terms = [
        reading_term(source, record),
        writing_term(
            # Ids are written whether or not there were any.
            record.itemsize + 8,
            source.n_features,
            chunk_rows,
            packed=codec != "none",
            counted=counted,
        ),
    ]
    data = source.n_rows * record.itemsize
    left = room - sum(term.bytes for term in terms)
    scattering = max(
        ExternalShuffle.least_bytes(record.itemsize, data),
        min(ExternalShuffle.ample_bytes(record.itemsize, data), left),
    )
    why = f"records of {record.itemsize:,} bytes, {approximate_bytes(data)} of them in all"
    return [*terms, Term("shuffling", scattering, why)]
