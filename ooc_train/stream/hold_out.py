"""Rows that are kept out of training, to validate: chunks of a store, blocks, or rows of arrays.

Sums of weights and statistics of columns that belong to all rows are not used for a part of them.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.random_share import RandomShare
from ooc_train.core.sums import Array
from ooc_train.core.text import counted, listed
from ooc_train.memory.budget import Budget
from ooc_train.memory.ceiling import Ceiling, Term
from ooc_train.store.dataset import Store
from ooc_train.store.jobs.rewriting_commands import rechunk_command, unordered_chunks
from ooc_train.store.jobs.store_records import arrays_of
from ooc_train.stream.array_source import ArraySource, beside
from ooc_train.stream.dask_arrays import block_totals
from ooc_train.stream.dask_source import DaskSource
from ooc_train.stream.input_data import Inputs
from ooc_train.stream.sources import Source
from ooc_train.stream.store_inputs import require_memory_to_read
from ooc_train.stream.store_source import StoreSource


def hold_out(
    inputs: Inputs,
    fraction: float,
    seed: int,
    *,
    memory_ceiling: str | int | Ceiling | None = None,
) -> tuple[Inputs, Inputs]:
    """Return the training rows and the validation rows.

    Of a store, whole chunks are kept out (or the parts in which large chunks are read), with a note
    if these are no random rows; of Dask arrays, whole blocks. Arrays in memory are copied row by
    row, and each class has its share of the validation rows. y of a classifier, and weights, are
    read to add up the weights.

    Parameters
    ----------
    inputs : Inputs
        All rows.
    fraction : float
        Share of the validation rows, above 0 and below 1. Each side has a row or chunk at least.
    seed : int
        Determines which rows.
    memory_ceiling : str, int, Ceiling or None
        Limits the copies of arrays, and the reading of y and weights.

    Raises
    ------
    CeilingExceeded
        If the copies or a chunk of y do not fit.
    ValueError
        If there is a single chunk, block or row, or if a class has validation rows alone.
    """
    source, classes = inputs.source, inputs.classes
    if isinstance(source, ArraySource):
        parts: Sequence[Source] = _split_rows(
            source, fraction, seed, memory_ceiling, by_class=bool(classes)
        )
    else:
        if inputs.store is not None and isinstance(source, StoreSource):
            read = [source.y if classes else None, source.weight]
            require_memory_to_read(inputs.store, read, memory_ceiling)
        parts = _split_partitions(inputs, fraction, seed)
    training, validation = (_inputs_of(part, inputs, seed) for part in parts)
    if classes:
        _require_all_classes(training, validation)
    kept, n_rows = validation.source.n_rows, source.n_rows
    rows = f"{kept:,} of {counted(n_rows, 'row')}"
    notes = [f"{rows} are kept out of training for validation, by seed {seed}"]
    if inputs.store is not None and isinstance(source, StoreSource):
        notes += filter(None, [unordered_chunks(inputs.store)])
    return replace(training, notes=(*training.notes, *notes)), validation


def _require_all_classes(training: Inputs, validation: Inputs) -> None:
    """Raise `ValueError` if a class has weight in the validation rows alone."""
    learned, kept = training.class_totals, validation.class_totals
    if learned is None or kept is None:
        return
    missing = [training.classes[code] for code in np.flatnonzero((learned == 0) & (kept > 0))]
    if missing:
        raise ValueError(
            f"validation_fraction keeps all rows of the class {listed(missing)} out of training; "
            "use another random_state, a smaller fraction, or pass validation rows"
        )


def _inputs_of(source: Source, inputs: Inputs, seed: int) -> Inputs:
    """Return the inputs of `source`, a part of the rows, with the weights of its own rows."""
    n_classes = len(inputs.classes)
    weight: float | None = float(source.n_rows)
    totals: Array | None = None
    if isinstance(source, StoreSource):
        # Totals are read when they are asked for.
        weight = weight if source.weight is None else None
    elif isinstance(source, ArraySource) and source.y is not None:
        if n_classes:
            codes = source.y[:, 0].astype(np.intp)
            totals = np.bincount(codes, source.weight, n_classes).astype(np.float64)
        weight = weight if source.weight is None else float(source.weight.sum())
    elif isinstance(source, DaskSource) and (n_classes or source.blocks[0][2] is not None):
        found = block_totals([block[1:] for block in source.blocks], source.rows, n_classes)
        totals, weight = found if n_classes else None, float(found.sum())
    return replace(
        inputs,
        source=source,
        known_totals=totals,
        known_weight=weight,
        statistics=None,
        share_seed=seed,
    )


def _split_rows(
    source: ArraySource,
    fraction: float,
    seed: int,
    memory_ceiling: str | int | Ceiling | None,
    *,
    by_class: bool,
) -> tuple[ArraySource, ArraySource]:
    """Return copies of the training rows and of randomly drawn validation rows, in order."""
    if source.n_rows == 1:
        raise ValueError(
            f"validation_fraction={fraction:g} keeps rows out of training, and there is one row "
            "only; pass validation rows"
        )
    size = source.n_rows * (source.row_bytes + 8 * (source.n_outputs + 4))
    with Budget(memory_ceiling) as budget:
        budget.require(
            [Term("copies", size, "the rows to learn from, and those kept out")],
            "pass the validation rows themselves",
            alone="keeping rows out of arrays in memory",
        )
        order = np.random.default_rng(seed).permutation(source.n_rows)
        if by_class and source.y is not None:
            order = order[np.argsort(source.y[order, 0], kind="stable")]
        drawn = _drawn(source.n_rows, fraction)
        held = np.zeros(source.n_rows, bool)
        # Evenly spread over rows in the order of their classes: each class has its share.
        held[order[(2 * np.arange(drawn) + 1) * source.n_rows // (2 * drawn)]] = True

        def rows(taken: NDArray[np.bool_]) -> ArraySource:
            y, weight = source.y, source.weight
            return ArraySource(
                source.X[taken],
                None if y is None else y[taken],
                None if weight is None else weight[taken],
            )

        return beside(rows(~held)), beside(rows(held))


def _split_partitions(inputs: Inputs, fraction: float, seed: int) -> list[Source]:
    """Return the source of the training partitions, and that of randomly drawn ones."""
    source, store = inputs.source, inputs.store
    if not isinstance(source, StoreSource | DaskSource):
        raise TypeError(f"rows of a {type(source).__name__} cannot be kept out of training")
    n = source.n_partitions
    if n == 1:
        raise ValueError(
            f"validation_fraction={fraction:g} keeps whole chunks out of training, and all "
            f"{counted(source.n_rows, 'row')} are in one; "
            + ("make smaller blocks" if store is None else _rechunk(store))
            + ", or pass validation rows"
        )
    drawn = _drawn(n, fraction)
    return [
        source.restricted(RandomShare(n, (places,), seed)) for places in ((drawn, n), (0, drawn))
    ]


def _rechunk(store: Store) -> str:
    """Return how a store, or that of a share, comes to have more chunks."""
    command = rechunk_command(store.whole_path, arrays_of(store))
    again = "" if store.share is None else " and split the result"
    return f"make smaller chunks by {command}{again}"


def _drawn(n: int, fraction: float) -> int:
    """Return how many of n rows or partitions are drawn: at least 1, at most n - 1."""
    return min(max(1, round(fraction * n)), n - 1)
