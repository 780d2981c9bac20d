"""A store's rows in their order, in chunks of another size, codec or type, under a memory ceiling.

What makes any store that can be read one of ours: checksummed chunks of about 0.8 MiB, which fit a
core's cache and any ceiling, in shards of about 64 MiB. Reading runs ahead of writing, in a thread.
"""

import operator
import os
import warnings
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any, cast, get_args

import numpy as np

from ooc_train.core.output_kinds import STORE, require_output
from ooc_train.core.prefetch import prefetched
from ooc_train.core.progress import Progress, no_progress, row_counter
from ooc_train.core.schema import shown
from ooc_train.memory.budget import Budget
from ooc_train.memory.ceiling import Ceiling, Term
from ooc_train.memory.measured import MemoryReport
from ooc_train.store.dataset import Store
from ooc_train.store.format.chunk_sizes import default_chunk_rows
from ooc_train.store.jobs.rewriting import (
    CodecName,
    kept_codec,
    known_statistics,
    require_elsewhere,
    rounding_term,
    writer_of,
    writing_term,
)
from ooc_train.store.jobs.store_records import arrays_of, read_records, reading_term, record_dtype
from ooc_train.store.labels import with_classes_within
from ooc_train.store.opening.opener import open_store
from ooc_train.store.writing.compression import compresses_well
from ooc_train.tables.precision import Rounding, narrows

__all__ = ["rechunk_store"]


def rechunk_store(
    store: Store | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    chunk_rows: int | None = None,
    codec: CodecName | None = None,
    dtype: np.dtype[Any] | str | None = None,
    memory_ceiling: str | int | Ceiling | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
    warn: Callable[[str], None] = warnings.warn,
) -> tuple[Store, MemoryReport]:
    """Write the rows of a store, in their order, in chunks of another size, codec or type.

    Types, names, classes, weights, ids, recipe and attributes stay; so does the seed of a store
    that was shuffled, for rows in random order are in random order however they are cut. Statistics
    of the columns are carried over where X keeps its type, and added up anew otherwise. A store of
    another writer becomes one of ours.

    Chunks that are compressed have to be decoded whole, so that they need the room of a chunk and
    its code; raw ones are read in parts.

    Parameters
    ----------
    store : Store, str or os.PathLike
        What to rewrite; a path is opened by `open_store`.
    out : str or os.PathLike
        Where the store will lie: another place than the source.
    chunk_rows : int, optional
        Rows of a chunk, by default about 0.8 MiB of X.
    codec : {"none", "lz4", "zstd"}, optional
        Of the chunks. By default that of a store of ours; else lz4 where the first rows shrink by
        1.3 or more, and none where they don't.
    dtype : dtype, optional
        Of X, by default the source's. Numbers are rounded to a type of fractions, and it is told
        where that makes numbers the same that differ; one that is beyond it, or that a type of
        whole numbers can't hold, is an error.
    memory_ceiling : str, int or Ceiling, optional
        Bytes, or text such as "1GiB"; by default half of what is available.
    overwrite : bool
        Whether a store that lies there is replaced, once this one is whole.
    progress : callable
        Called with the stage ("writing"), its rows so far, and its share from 0 to 1.
    warn : callable
        Called with what numbers lose in `dtype`.

    Returns
    -------
    Store, MemoryReport
        The store, opened, and what the job held.

    Raises
    ------
    ValueError
        If a setting is wrong, or `out` is the source or a directory around it; or X has a value
        that the dtype can't hold.
    OutputExists
        If something lies at `out`; before anything is read.
    CeilingExceeded
        If the ceiling is too small; before anything is read.
    CorruptChunk, NonFiniteData
        If the source is damaged, or holds NaN or infinity, or a number too large for the dtype.
    OSError
        If the disk is full or can't be written; what was at `out` stays.
    """
    source = store if isinstance(store, Store) else open_store(store)
    require_elsewhere(source, out)
    written = _number(source.dtype if dtype is None else dtype)
    rows = default_chunk_rows(source.n_features, written)
    if chunk_rows is not None:
        rows = operator.index(chunk_rows)
    if rows < 1:
        raise ValueError(f"chunk_rows={chunk_rows!r} should be at least 1")
    if codec is None:
        codec = kept_codec(source)
    if codec not in (None, *get_args(CodecName)):
        raise ValueError(f"codec={codec!r} is none of {', '.join(get_args(CodecName))}")
    require_output(out, STORE, overwrite=overwrite)
    source = with_classes_within(
        source, memory_ceiling, lambda coded: partial(_terms, coded, rows, codec, written)
    )
    record = record_dtype(source)
    rounding = None
    if _rounds(source, written):
        rounding = Rounding(source.n_features, lambda i: _called(source, i), written)
    with Budget(memory_ceiling) as budget:
        terms = budget.settle(
            partial(_terms, source, rows, codec, written),
            "use smaller chunks" if chunk_rows is not None else "",
        )
        if codec is None:
            codec = _worth(source, record, written)
        with (
            writer_of(
                source,
                out,
                chunk_rows=rows,
                dtype=written,
                codec=codec,
                row_id=source.row_id is not None,
                shuffled=source.shuffled,
                overwrite=overwrite,
            ) as writer,
            closing(prefetched(read_records(source, record))) as blocks,
        ):
            roles = list(arrays_of(source))
            add_rows = row_counter(progress, "writing", source.n_rows)
            for records in blocks:
                if rounding is not None:
                    rounding.look(records["X"])
                writer.write(**{role: records[role] for role in roles})
                add_rows(len(records))
            made = writer.commit()
        for loss in rounding.losses() if rounding is not None else ():
            warn(f"{loss}: numbers that differ may become the same")
        return made, budget.report(terms)


def _terms(
    source: Store, rows: int, codec: CodecName | None, written: np.dtype[Any], room: int
) -> list[Term]:
    """List what the job holds, however much room there is."""
    del room
    record = record_dtype(source)
    as_written = record.itemsize + source.n_features * (written.itemsize - source.dtype.itemsize)
    terms = [
        reading_term(source, record),
        writing_term(
            as_written,
            source.n_features,
            rows,
            packed=codec != "none",
            counted=known_statistics(source, written) is None,
        ),
    ]
    if _rounds(source, written):
        terms.append(rounding_term(source))
    return terms


def _rounds(source: Store, written: np.dtype[Any]) -> bool:
    """Say whether numbers are rounded to a type of fractions."""
    return written.kind == "f" and narrows(source.dtype, written)


def _called(source: Store, column: int) -> str:
    names = source.feature_names
    return f"column {column if names is None else repr(names[column])}"


def _number(dtype: np.dtype[Any] | str) -> np.dtype[Any]:
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found.kind not in "biuf" or found.itemsize > 8:
        raise ValueError(f"dtype={shown(str(dtype))} is no type of numbers such as float32")
    return found.newbyteorder("<")


def _worth(source: Store, record: np.dtype[Any], dtype: np.dtype[Any]) -> CodecName:
    """Choose the codec by the first rows."""
    with closing(cast("Any", read_records(source, record))) as blocks:
        sample = next(blocks)["X"]
    with np.errstate(over="ignore", invalid="ignore"):
        return "lz4" if compresses_well(sample.astype(dtype)) else "none"
