"""`rechunk_store`: a store's rows in their order, in chunks of another size, codec or type.

The job turns any readable store into one of our format: checksummed chunks of about 0.8 MiB, which
fit a core's cache and any ceiling, in shards of about 64 MiB. A thread reads ahead of writing.
"""

import operator
import os
import warnings
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any, cast

import numpy as np

from ooc_train.core.output_kinds import STORE, require_output
from ooc_train.core.prefetch import prefetched
from ooc_train.core.progress import Progress, no_progress, row_counter
from ooc_train.core.schema import shown
from ooc_train.memory.budget import Budget
from ooc_train.memory.ceiling import Ceiling, Term
from ooc_train.memory.measured import MemoryReport
from ooc_train.store.dataset import Store
from ooc_train.store.format.arrays import CODECS, CodecName
from ooc_train.store.format.chunk_sizes import default_chunk_rows
from ooc_train.store.jobs.missing_rows import MissingRows, missing_terms
from ooc_train.store.jobs.rewriting import (
    kept_codec,
    known_statistics,
    require_elsewhere,
    rounding_term,
    writer_like,
    writing_term,
)
from ooc_train.store.jobs.store_records import arrays_of, read_records, reading_term, record_dtype
from ooc_train.store.labels import with_classes_within
from ooc_train.store.opening.opener import open_store
from ooc_train.store.writing.compression import compresses_well
from ooc_train.tables.names import Missing
from ooc_train.tables.precision import Rounding, narrows


def rechunk_store(
    store: Store | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    chunk_rows: int | None = None,
    codec: CodecName | None = None,
    dtype: np.dtype[Any] | str | None = None,
    missing: Missing = "error",
    memory_ceiling: str | int | Ceiling | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
    warn: Callable[[str], None] = warnings.warn,
) -> tuple[Store, MemoryReport]:
    """Write the rows of a store, in their order, in chunks of another size, codec or type.

    Missing values can be filled, or their rows dropped.

    Types, names, classes, weights, ids, recipe, attributes and the seed of a shuffle are kept.
    Statistics of the columns are kept if X keeps its type, and computed again otherwise. A store of
    another writer becomes one of our format.

    Compressed chunks are decoded whole, so the job holds a chunk and its encoded bytes. Raw chunks
    are read in parts.

    Parameters
    ----------
    store : Store, str or os.PathLike
        The source; a path is opened by `open_store`.
    out : str or os.PathLike
        Path of the new store, different from the source.
    chunk_rows : int, optional
        Rows of a chunk, by default about 0.8 MiB of X. Few rows are cut into smaller chunks, at
        least 16 of them, or of 32 rows.
    codec : {"none", "lz4", "zstd"}, optional
        Codec of the chunks. By default that of a store of our format; else lz4 if it shrinks the
        first rows by a factor of 1.3, and none otherwise.
    dtype : dtype, optional
        Type of X, by default the source's. Numbers are rounded to a floating type, and `warn` is
        called if different numbers become equal. A number too large for a floating type, or not a
        value of an integer type, is an error.
    missing : {"error", "drop", "mean", "median"}
        What becomes of NaN, and of values that metadata declare to be missing: an error; the row is
        dropped, and the others have their numbers in the source as `row_id`, or the ids that they
        have; or the mean or median of the column's other rows, whatever their weights. A mean takes
        one more pass, and medians 4 (float32) or 7. A y that is missing is dropped, or an error;
        so is infinity. `warn` is called with the number of rows or values.
    memory_ceiling : str, int or Ceiling, optional
        Bytes, or text such as "1GiB"; by default half of the available memory.
    overwrite : bool
        Whether an existing store at `out` is replaced, once the new one is complete.
    progress : callable
        Called with the stage ("writing"; first "finding means"), its rows so far, and the fraction
        done, from 0 to 1.
    warn : callable
        Called with each loss by rounding to `dtype`, and with what was dropped or filled.

    Returns
    -------
    Store
        The new store, opened.
    MemoryReport
        Ceiling, projection and measurement of the job.

    Raises
    ------
    ValueError
        If a setting is wrong, `out` is the source or a folder around it, or X has a value that the
        dtype can't hold.
    OutputExists
        If something exists at `out`; before anything is read.
    CeilingExceeded
        If the ceiling is too small; before anything is read.
    CorruptChunk, NonFiniteData
        If the source is damaged, or holds NaN, infinity, or a number too large for the dtype.
    OSError
        If the disk is full or not writable; what was at `out` stays.

    Examples
    --------
    >>> from ooc_train import make_data, rechunk_store
    >>> store = make_data("made.zarr", rows=2_000, features=5)
    >>> rewritten, memory = rechunk_store(store, "small.zarr", chunk_rows=500)
    >>> rewritten.n_chunks
    4
    """
    source = store if isinstance(store, Store) else open_store(store)
    source.require_whole("rechunk")
    require_elsewhere(source, out)
    written = _number_type(source.dtype if dtype is None else dtype)
    rows = default_chunk_rows(source.n_features, written, source.n_rows)
    if chunk_rows is not None:
        rows = operator.index(chunk_rows)
    if rows < 1:
        raise ValueError(f"chunk_rows={chunk_rows!r} should be at least 1")
    if codec is None:
        codec = kept_codec(source)
    if codec not in (None, *CODECS):
        raise ValueError(f"codec={codec!r} is none of {', '.join(CODECS)}")
    require_output(out, STORE, overwrite=overwrite)
    source = with_classes_within(
        source, memory_ceiling, lambda coded: partial(_terms, coded, rows, codec, written, missing)
    )
    treated = MissingRows(source, missing)
    source = treated.source
    record = record_dtype(source)
    rounding = None
    if _rounds(source, written):
        rounding = Rounding(source.n_features, lambda i: _column_name(source, i), written)
    with Budget(memory_ceiling) as budget:
        terms = budget.settle(
            partial(_terms, source, rows, codec, written, missing),
            "use smaller chunks" if chunk_rows is not None else "",
        )
        if codec is None:
            codec = _codec_of_sample(source, record, written)
        treated.prepare(progress)
        with (
            writer_like(
                source,
                out,
                chunk_rows=rows,
                dtype=written,
                codec=codec,
                row_id=source.row_id is not None or treated.drops,
                shuffled=source.shuffled,
                overwrite=overwrite,
            ) as writer,
            closing(prefetched(read_records(source, record))) as blocks,
        ):
            roles = list(arrays_of(source))
            add_rows = row_counter(progress, "writing", source.n_rows)
            for records in treated.rows(blocks):
                if rounding is not None:
                    rounding.observe(records["X"].reshape(len(records), -1))
                ids = {"row_id": records["row"]} if treated.drops else {}
                writer.write(**(ids | {role: records[role] for role in roles}))
                add_rows(len(records))
            result = writer.commit()
        if treated.note:
            warn(treated.note)
        for loss in rounding.losses() if rounding is not None else ():
            warn(f"{loss}: numbers that differ may become the same")
        return result, budget.report(terms)


def _terms(
    source: Store,
    rows: int,
    codec: CodecName | None,
    written: np.dtype[Any],
    missing: Missing,
    available: int,
) -> list[Term]:
    """List the memory terms of the job, which don't depend on the available memory."""
    del available
    record = record_dtype(source)
    as_written = record.itemsize + source.n_features * (written.itemsize - source.dtype.itemsize)
    if missing == "drop" and source.row_id is None:
        as_written += 8  # ids
    terms = [
        reading_term(source, record),
        *missing_terms(source.X, record, missing),
        writing_term(
            as_written,
            source.n_features,
            rows,
            compressed=codec != "none",
            counted=missing != "error" or known_statistics(source, written) is None,
        ),
    ]
    if _rounds(source, written):
        terms.append(rounding_term(source))
    return terms


def _rounds(source: Store, written: np.dtype[Any]) -> bool:
    """Return whether numbers are rounded to a floating type."""
    return written.kind == "f" and narrows(source.dtype, written)


def _column_name(source: Store, column: int) -> str:
    """Return the name of a column, or its number if columns have no names."""
    names = source.feature_names
    return f"column {column if names is None else repr(names[column])}"


def _number_type(dtype: np.dtype[Any] | str) -> np.dtype[Any]:
    """Return a type of numbers of at most 8 bytes, little-endian."""
    try:
        number_type = np.dtype(dtype)
    except TypeError:
        number_type = None
    if number_type is None or number_type.kind not in "biuf" or number_type.itemsize > 8:
        raise ValueError(f"dtype={shown(str(dtype))} is no type of numbers such as float32")
    return number_type.newbyteorder("<")


def _codec_of_sample(source: Store, record: np.dtype[Any], dtype: np.dtype[Any]) -> CodecName:
    """Return "lz4" if it shrinks the first rows well, else "none"."""
    with closing(cast("Any", read_records(source, record))) as blocks:
        sample = next(blocks)["X"]
    with np.errstate(over="ignore", invalid="ignore"):
        return "lz4" if compresses_well(sample.astype(dtype)) else "none"
