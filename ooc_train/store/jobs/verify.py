"""`verify_store`: every chunk of a store is read and checked, and each bad one is named."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.progress import Progress, no_progress, row_counter
from ooc_train.core.text import counted
from ooc_train.core.units import approximate_bytes
from ooc_train.errors import CorruptChunk, InvalidStore, NonFiniteData
from ooc_train.memory.budget import Budget
from ooc_train.memory.ceiling import Ceiling, Term
from ooc_train.memory.measured import MemoryReport
from ooc_train.store.dataset import Store
from ooc_train.store.format.arrays import ArrayLayout
from ooc_train.store.jobs.rewriting_commands import rechunk_command
from ooc_train.store.jobs.store_records import PIECE_BYTES, arrays_of
from ooc_train.store.opening.opener import open_store
from ooc_train.store.reading.chunks import ChunkReader

_MOST_THREADS = 16

_HAS_NAN = "holds NaN"


@dataclass(frozen=True)
class Damage:
    """A chunk that cannot be used.

    Attributes
    ----------
    array : str
        "X", "y", "sample_weight" or "row_id".
    chunk : int
        Number of the chunk.
    first_row, end_row : int
        Rows of the chunk, of which the last is `end_row - 1`.
    why : str
        What is wrong with the chunk.
    """

    array: str
    chunk: int
    first_row: int
    end_row: int
    why: str


@dataclass(frozen=True)
class Verification:
    """The result of `verify_store`: which chunks of a store are bad.

    Attributes
    ----------
    chunks : int
        Number of chunks of all arrays, each of which was read.
    decoded_bytes : int
        Decoded bytes of these chunks.
    damages : tuple of Damage
        The bad chunks, by array and number.
    memory : MemoryReport
        Ceiling, projection and measurement.
    advice : str
        What drops or fills missing values, as a command; empty if no bad chunk holds NaN.
    """

    chunks: int
    decoded_bytes: int
    damages: tuple[Damage, ...]
    memory: MemoryReport
    advice: str = ""

    @property
    def whole(self) -> bool:
        """Whether no chunk is bad."""
        return not self.damages

    def to_json(self) -> dict[str, Any]:
        """Return the figures as values of JSON."""
        return {
            "whole": self.whole,
            "chunks": self.chunks,
            "decoded_bytes": self.decoded_bytes,
            "damages": [asdict(damage) for damage in self.damages],
            "advice": self.advice,
            "memory": asdict(self.memory),
        }


def verify_store(
    store: Store | str | os.PathLike[str],
    *,
    memory_ceiling: str | int | Ceiling | None = None,
    progress: Progress = no_progress,
) -> Verification:
    """Read every chunk of a store, and name each that cannot be used.

    A chunk is bad if it is missing, cut short, not of this store, or fails its checksum or
    decoding. It is also bad if X or y holds NaN or infinity, or a value declared to be missing, if
    a label is none of the classes, or if a weight is negative. Opening a store has checked its
    metadata before.

    Parameters
    ----------
    store : Store, str or os.PathLike
        The store; a path is opened by `open_store`.
    memory_ceiling : str, int or Ceiling, optional
        Bytes, or text such as "1GiB"; by default half of the available memory. A larger ceiling
        allows more threads, up to one for each core.
    progress : callable
        Called with the stage ("verifying"), the rows of X so far, and their share from 0 to 1.

    Returns
    -------
    Verification
        The bad chunks, and the memory of the job.

    Raises
    ------
    CeilingExceeded
        If the ceiling is too small; before anything is read.
    StoreChanged
        If the store is replaced meanwhile.

    Examples
    --------
    >>> from ooc_train import make_data, verify_store
    >>> store = make_data("made.zarr", rows=2_000, features=5)
    >>> verify_store(store).damages
    ()
    """
    store = store if isinstance(store, Store) else open_store(store)
    store.require_whole("verify")
    arrays = arrays_of(store)
    with Budget(memory_ceiling) as budget:
        terms = budget.settle(partial(_terms, arrays))
        add_rows = row_counter(progress, "verifying", store.n_rows)
        damages: list[Damage] = []
        n_threads = terms[0].bytes // _thread_bytes(arrays)
        with ThreadPoolExecutor(n_threads, "ooc_train-verify") as threads:
            for role, layout in arrays.items():
                check = partial(_check, store, role)
                chunks = _Numbers(layout.n_chunks)
                add = add_rows if role == "X" else lambda _: None
                work = [
                    threads.submit(_verified, role, layout, chunks, check, add)
                    for _ in range(n_threads)
                ]
                found = [damage for each in work for damage in each.result()]
                damages += sorted(found, key=lambda damage: damage.chunk)
        return Verification(
            sum(layout.n_chunks for layout in arrays.values()),
            sum(layout.n_rows * layout.row_bytes for layout in arrays.values()),
            tuple(damages),
            budget.report(terms),
            _advice(store, damages),
        )


def _advice(store: Store, damages: Sequence[Damage]) -> str:
    if not any(_HAS_NAN in damage.why for damage in damages):
        return ""
    command = rechunk_command(store.whole_path, arrays_of(store), missing="median")
    return f"drop or fill missing values, --missing drop, mean or median: {command} --missing drop"


class _Numbers:
    """An iterator of the numbers below a limit that gives each number to one thread."""

    def __init__(self, limit: int) -> None:
        self._numbers, self._lock = iter(range(limit)), Lock()

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        with self._lock:
            return next(self._numbers)


def _verified(
    role: str,
    layout: ArrayLayout,
    chunks: Iterator[int],
    check: Callable[[NDArray[Any], int], None],
    add_rows: Callable[[int], None],
) -> list[Damage]:
    """Read the chunks that `chunks` gives to this thread, and return the bad ones."""
    damages = []
    with ChunkReader(layout) as reader:
        rows = _piece_rows(layout)
        buffer = np.empty((rows, *layout.row_shape), layout.dtype)
        scratch = np.empty(0 if reader.in_parts else reader.scratch_bytes, np.uint8)
        for chunk in chunks:
            first = chunk * layout.chunk_rows
            end = min(first + layout.chunk_rows, layout.n_rows)
            try:
                for start in range(first, end, rows):
                    piece = buffer[: end - start]
                    if reader.in_parts:
                        reader.read_rows(start, start + len(piece), piece)
                    else:
                        reader.read(chunk, buffer, scratch)
                    check(piece, start)
            except (CorruptChunk, NonFiniteData, InvalidStore, OSError) as error:
                damages.append(Damage(role, chunk, first, end, str(error)))
            add_rows(end - first)
    return damages


def _check(store: Store, role: str, rows: NDArray[Any], start: int) -> None:
    """Raise an error that names the first row of an array whose values cannot be used."""
    if rows.dtype.kind == "f":
        finite = np.isfinite(rows).reshape(len(rows), -1)
        if not finite.all():
            row = int(np.argmin(finite.all(axis=1)))
            column = int(np.argmin(finite[row]))
            what = _HAS_NAN if np.isnan(rows[row].reshape(-1)[column]) else "holds infinity"
            names = store.feature_names
            name = column if names is None else repr(names[column])
            place = f"column {name} of X" if role == "X" else role
            raise NonFiniteData(f"row {start + row} {what} in {place}")
    if role == "sample_weight" and rows.dtype.kind in "if" and (rows < 0).any():
        row = int(np.argmax(rows < 0))
        raise InvalidStore(f"row {start + row} has the weight {rows[row]:g}; weights are >= 0")
    if role == "y" and store.classes is not None and rows.dtype.kind in "iuf":
        known = (rows >= 0) & (rows < len(store.classes)) & (rows == np.floor(rows))
        if not known.all():
            row = int(np.argmin(known.reshape(len(rows), -1).all(axis=1)))
            raise InvalidStore(
                f"row {start + row} has the label {rows[row]}, and the store has "
                f"{counted(len(store.classes), 'class')}"
            )


def _piece_rows(layout: ArrayLayout) -> int:
    """Return the rows that are read at once: those of a chunk, or fewer of a large raw one."""
    if not layout.in_parts:
        return layout.chunk_rows
    return min(layout.chunk_rows, max(1, PIECE_BYTES // layout.row_bytes))


def _thread_bytes(arrays: dict[str, ArrayLayout]) -> int:
    """Return the most bytes that a thread holds."""
    most = 0
    for layout in arrays.values():
        piece = _piece_rows(layout) * layout.row_bytes
        with ChunkReader(layout) as reader:
            held = reader.cache_bytes if reader.in_parts else reader.scratch_bytes
            # Comparisons make an array of truth values, and `floor` one of the same type.
            most = max(most, 3 * piece + held + reader.hidden_bytes + 16 * layout.chunks_per_shard)
    return most


def _terms(arrays: dict[str, ArrayLayout], available: int) -> list[Term]:
    """Return the memory term of as many threads as there is room for, at least one."""
    each = _thread_bytes(arrays)
    n_threads = max(1, min(os.cpu_count() or 1, _MOST_THREADS, available // max(each, 1)))
    why = f"{n_threads} x a chunk of {approximate_bytes(each)}, checks included"
    return [Term("reading", n_threads * each, why)]
