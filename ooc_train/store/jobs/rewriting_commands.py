"""Commands that messages suggest, to rechunk or shuffle a store."""

import os
import shlex
from collections.abc import Mapping
from dataclasses import replace

from ooc_train.core.temporary_folders import in_scratch
from ooc_train.core.text import counted
from ooc_train.core.units import approximate_bytes
from ooc_train.memory.budget import HEADROOM_BYTES
from ooc_train.memory.ceiling import Projection, Term
from ooc_train.store.dataset import Store
from ooc_train.store.format.arrays import ArrayLayout, Coding
from ooc_train.store.format.chunk_sizes import default_chunk_rows
from ooc_train.store.jobs.missing_rows import missing_terms
from ooc_train.store.jobs.rewriting import writing_term
from ooc_train.store.jobs.store_records import arrays_of, reading_term, record_dtype
from ooc_train.tables.names import Missing

_COMMAND_BYTES = 64 * 2**20
"""Memory of the command line before any data (measured: 45 MiB, 51 with zarr)."""

_SMALL_BYTES, _MANY_CHUNKS = 32 * 2**10, 2_000
"""More chunks than that, of fewer bytes on average, take longer to find than to read: some 0.3 ms
each, in which a core reads and adds up 0.3 MiB."""


def rechunk_command(
    path: str, layouts: Mapping[str, ArrayLayout], *, missing: Missing = "error"
) -> str:
    """Return the command that rewrites a store in default chunks; `layouts` are by role.

    Its ceiling has room for `missing`, which the command leaves to be named.
    """
    X, y = layouts["X"], layouts.get("y")
    if y is not None and y.is_text:
        # Text will be read as codes, once the labels are known.
        y = replace(y, dtype="<u2", coding=Coding(y.dtype, (), ()))
    source = Store(path, X, y, layouts.get("sample_weight"), layouts.get("row_id"), X.n_rows)
    record = record_dtype(source)
    chunk_rows = default_chunk_rows(source.n_features, source.dtype, source.n_rows)
    terms = (
        Term("baseline", _COMMAND_BYTES, ""),
        Term("headroom", HEADROOM_BYTES, ""),
        reading_term(source, record),
        *missing_terms(X, record, missing),
        writing_term(record.itemsize, source.n_features, chunk_rows, compressed=True, counted=True),
    )
    return (
        f"ooc-train rechunk {_source_and_output(path, 'rechunked')} "
        f"--memory-ceiling {Projection(terms, started=1).smallest}{_array_options(path, layouts)}"
    )


def shuffle_command(path: str, layouts: Mapping[str, ArrayLayout]) -> str:
    """Return the command that shuffles the rows of a store."""
    return (
        f"ooc-train shuffle {_source_and_output(path, 'shuffled')}{_array_options(path, layouts)}"
    )


def small_chunks_note(store: Store) -> str:
    """Return that most time will go on finding small chunks, and the way out; "" if it won't.

    Chunks are small in stores that grew by few rows at a time, in stores of other writers whose
    chunks have few rows, and in those that cut columns too.
    """
    counts = {
        layout.name: -(-store.n_rows // layout.chunk_rows) * layout.pieces
        for layout in (store.X, store.y, store.sample_weight)
        if layout is not None
    }
    name = max(counts, key=counts.__getitem__)
    if counts[name] < _MANY_CHUNKS or store.total_bytes >= _SMALL_BYTES * sum(counts.values()):
        return ""
    layout = arrays_of(store)[name]
    size = approximate_bytes(layout.chunk_bytes // layout.pieces)
    return (
        f"{counted(counts[name], 'chunk')} of {size} in {name} are slow to read, some 0.3 ms "
        "each in every pass; larger ones are made by "
        f"{rechunk_command(store.whole_path, arrays_of(store))}"
    )


def smaller_chunks_command(store: Store, chunk_rows: int) -> str:
    """Return the command that rewrites a store in chunks of so many rows."""
    path = store.whole_path
    return (
        f"ooc-train rechunk {_source_and_output(path, 'rechunked')} --chunk-rows {chunk_rows}"
        f"{_array_options(path, arrays_of(store))}"
    )


def why_unordered(store: Store) -> str:
    """Return why whole chunks of a store are no random rows; "" if they are."""
    if store.shuffled is not None:
        return ""
    return (
        f"the rows of {store.whole_path} are not known to be in random order, so whole chunks "
        "are no random sample"
    )


def unordered_chunks(store: Store) -> str:
    """Return why whole chunks of a store are no random rows, and the way out; "" if they are."""
    why = why_unordered(store)
    return why and f"{why}; {shuffle_command(store.whole_path, arrays_of(store))}"


def _array_options(path: str, layouts: Mapping[str, ArrayLayout]) -> str:
    """Return the command's options that open the same arrays."""
    options = ""
    for role, name in (("X", "x"), ("y", "y"), ("sample_weight", "weight")):
        layout = layouts.get(role)
        # A store of one array is X itself; temporary arrays can't be named in a command.
        if layout is None or layout.place(path) in (path, role) or in_scratch(layout.path):
            continue
        options += f" --{name} {shlex.quote(layout.place(path))}"
    filled = any(layout.fill_value is not None for layout in layouts.values())
    return options + (" --fill-missing" if filled else "")


def _source_and_output(path: str, what: str) -> str:
    """Return the source and the output beside it for a shell, such as a.zarr a.shuffled.zarr."""
    folder, name = os.path.split(path.rstrip("/"))
    stem, suffix = os.path.splitext(name)
    out = f"{stem}.{what}{suffix}"
    if "://" not in path:
        out = os.path.join(folder, out)
    return f"{shlex.quote(path)} {shlex.quote(out)}"
