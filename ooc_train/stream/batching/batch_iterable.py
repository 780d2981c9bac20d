"""Batches for whoever writes the loop himself: a store as an iterable, under a ceiling."""

import os
import secrets
from collections.abc import Sequence
from typing import Any

from ooc_train.core.settings import LARGEST_SEED, Count, Flag
from ooc_train.core.settings import Rows as RowCount
from ooc_train.core.text import counted
from ooc_train.core.threads import usable_cores
from ooc_train.kernels.api import SHUFFLE
from ooc_train.kernels.calling import load
from ooc_train.memory.budget import Budget
from ooc_train.memory.ceiling import Ceiling, Term
from ooc_train.store.dataset import Store
from ooc_train.store.labels import has_labels
from ooc_train.stream.batching.batch_loop import Batches
from ooc_train.stream.batching.batch_pieces import layouts
from ooc_train.stream.inputs import as_store, read_inputs
from ooc_train.stream.labels_and_weights import is_stored
from ooc_train.stream.plan_choices import advice_on
from ooc_train.stream.store_source import StoreSource

_THREADS = 2
"""Threads that read, where the machine has as many cores."""


def batches(
    data: Store | str | os.PathLike[str] | Any,
    batch_size: int,
    *,
    shuffle: bool = True,
    shuffle_chunks: int | str = "auto",
    random_state: int | None = None,
    drop_last: bool = False,
    classifier: bool | None = None,
    tensors: bool = False,
    threads: int | None = None,
    memory_ceiling: str | int | Ceiling | None = None,
) -> Batches:
    """Return the rows of a store as batches, for a loop of your own.

    Threads read, verify and shuffle ahead of the loop, into buffers that the plan sizes before any
    row of X is read. Batches are views of them, and stay valid until the next one is taken.

    Parameters
    ----------
    data : Store, str, path, or Zarr group
        A store with y, or its path or URL.
    batch_size : int
        Rows of a batch; the last one of an epoch has the rest.
    shuffle : bool
        Whether rows come in random order, a new one each epoch; otherwise as they are stored.
    shuffle_chunks : int or "auto"
        Chunks whose rows are mixed. "auto" is 1 for a store in random order, and 64 for others.
    random_state : int or None
        Seed of the order. None draws one.
    drop_last : bool
        Whether an incomplete last batch is left out.
    classifier : bool or None
        Whether y holds labels, which become codes. None is whether the store says so.
    tensors : bool
        Whether batches are tensors of PyTorch, which share the memory of the arrays.
    threads : int or None
        Threads that read; fewer if the ceiling is too low for them. None is 2, or 1 on one core.
    memory_ceiling : str, int, Ceiling or None
        The most memory that the loop may take, apart from what its body makes. None is half of the
        available memory.

    Returns
    -------
    Batches
        An iterable with `__len__`, `state_dict` and `load_state_dict`. Each iteration is an epoch.

    Raises
    ------
    CeilingExceeded
        If the buffers do not fit; nothing has been read then.
    InvalidStore
        If the store has no y, or labels that can't be used.
    ValueError
        If a setting is not valid. While iterating: if arrays of earlier batches are in use when
        their buffer is needed.

    While iterating, `CorruptChunk`, `StoreChanged` and `NonFiniteData` are raised as by `train`.

    Examples
    --------
    >>> from ooc_train import batches, make_data
    >>> make_data("small.zarr", rows=1000, features=4, random_state=0)  # doctest: +SKIP
    >>> for epoch in range(3):  # doctest: +SKIP
    ...     for X, y in batches("small.zarr", 256, random_state=0):
    ...         step(X, y)
    """
    size = int(RowCount().check("batch_size", batch_size))
    for name, flag in (("shuffle", shuffle), ("drop_last", drop_last), ("tensors", tensors)):
        Flag().check(name, flag)
    mixed = Count(("auto",)).check("shuffle_chunks", shuffle_chunks)
    seed = Count((None,), least=0, most=LARGEST_SEED).check("random_state", random_state)
    threads = Count((None,)).check("threads", threads) or min(_THREADS, usable_cores())
    ceiling = Ceiling.of(memory_ceiling)
    if not is_stored(data):
        raise ValueError(
            f"batches come from a store or its path, and this is a {type(data).__name__}; slice "
            "arrays in memory, or write them to a store (StoreWriter)"
        )
    store = as_store(data)
    if classifier is None:
        classifier = store.classes is not None or has_labels(store.y)
    inputs = read_inputs(store, classifier=classifier, memory_ceiling=ceiling)
    source = inputs.source
    if not isinstance(source, StoreSource):
        raise TypeError("a store has a source of its own")
    if size > source.n_rows:
        raise ValueError(
            f"batch_size={size:,} is more than the {counted(source.n_rows, 'row')} there are; use "
            "at most "
            "that"
        )
    if not shuffle and mixed != "auto":
        raise ValueError(
            f"shuffle_chunks={mixed} is for rows in random order, and shuffle=False keeps that of "
            "the store; leave it out"
        )
    mixed = source.shuffle_chunks if mixed == "auto" else mixed
    mixed = min(mixed, source.n_partitions) if shuffle else 1
    found = tuple(
        layouts(source, size, mixed, threads, shuffled=shuffle, n_classes=len(inputs.classes))
    )
    load("<f4", [SHUFFLE])  # before memory is measured
    with Budget(ceiling) as budget:

        def choose(available: int) -> Sequence[Term]:
            fits = (each.terms() for each in found if each.held <= available)
            return next(fits, found[-1].terms())

        terms = budget.settle(choose, advice_on(source, mixed) or "use a smaller batch_size")
        table = budget.projection(terms).explain(budget.ceiling)
    layout = next(each for each in found if each.terms() == tuple(terms))
    return Batches(
        layout,
        classes=inputs.classes,
        feature_names=inputs.feature_names,
        row_shape=inputs.row_shape,
        random_state=secrets.randbits(32) if seed is None else seed,
        drop_last=drop_last,
        tensors=tensors,
        table=table,
    )
