"""The loop over batches: an iterable over the rows of a store, one epoch an iteration."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from copy import copy
from typing import Any

from ooc_train.core.optional_packages import needed_package
from ooc_train.core.schema import integer, record, shown
from ooc_train.core.settings import LARGEST_SEED, Count
from ooc_train.core.text import counted
from ooc_train.stream.batching.batch_pieces import BatchLayout, items_of
from ooc_train.stream.batching.batch_reading import PieceReading
from ooc_train.stream.batching.ordered_slots import OrderedSlots, Slot, SlotInUse
from ooc_train.stream.buffers import Pool
from ooc_train.stream.classes import Label
from ooc_train.stream.order import EpochOrder

_POSITION = record(
    {"epoch": integer(0), "batch": integer(0), "random_state": integer(0, LARGEST_SEED)}
)
"""What a state needs beside the settings."""


class _Loop:
    """One iteration over batches, which ends when another one begins."""

    def __init__(self) -> None:
        self._slots: OrderedSlots | None = None
        self._ended = False

    def begin(self, slots: OrderedSlots) -> None:
        """Take the slots of this iteration."""
        self._slots = slots

    def end(self) -> None:
        """End the threads."""
        self._ended = True
        if self._slots is not None:
            self._slots.close()

    def require_running(self) -> None:
        """Raise `ValueError` if another iteration has begun."""
        if self._ended:
            raise ValueError(
                "another loop over these batches has begun, which ended this one; make batches for "
                "each loop"
            )

    def take(self, piece: int) -> Slot:
        """Return the slot of a piece."""
        self.require_running()
        return self._slots_of_loop.take(piece)

    def give_back(self, pieces: int) -> None:
        """Return the slots of all pieces before `pieces`."""
        self.require_running()
        try:
            self._slots_of_loop.give_back(pieces)
        except SlotInUse:
            raise ValueError(
                "arrays of an earlier batch are still in use, and their buffer is needed for the "
                "next rows; copy what you keep (X.copy(), tensor.clone())"
            ) from None

    @property
    def _slots_of_loop(self) -> OrderedSlots:
        if self._slots is None:
            raise RuntimeError("the iteration has not begun")
        return self._slots


class Batches:
    """The rows of a store as batches, in a new random order each epoch; `batches` makes one.

    An iteration is one epoch: every row comes exactly once. Epochs are numbered, and number and
    `random_state` give the order of the rows: that of `train`, for any number of threads and any
    ceiling. An iteration that ends early is an epoch too: the next one begins with the next epoch.

    A batch is a tuple (X, y), or (X, y, sample_weight) if the store has weights:

    - X, (rows, features) or (rows, *row_shape), is float32; or float64, for numbers of more than 16
      bits at rest other than float32.
    - y, (rows,) or (rows, outputs), has the type of X; or int64 codes of `classes`.
    - sample_weight, (rows,), has the type of X.

    All of them are views of buffers that are used again. They stay valid until the next batch is
    taken; what is needed for longer has to be copied. If arrays of earlier batches are still in use
    when their buffer is needed again, that is a `ValueError`.

    Attributes
    ----------
    classes : tuple
        Labels by their codes in y; empty where y holds numbers.
    feature_names : tuple of str or None
        Names of the columns.
    row_shape : tuple of int or None
        Shape of a row of X, if it has several axes, as images have.
    n_rows, n_features : int
        Size of X.
    random_state : int
        The seed.
    """

    def __init__(
        self,
        layout: BatchLayout,
        *,
        classes: tuple[Label, ...],
        feature_names: tuple[str, ...] | None,
        row_shape: tuple[int, ...] | None,
        random_state: int,
        drop_last: bool,
        tensors: bool,
        table: str,
    ) -> None:
        self.classes, self.feature_names, self.row_shape = classes, feature_names, row_shape
        self.n_rows, self.n_features = layout.source.n_rows, layout.source.n_features
        self.random_state = random_state
        self._layout, self._drop_last, self._tensors = layout, drop_last, tensors
        self._table = table
        self._worker, self._workers = 0, 1
        self._epoch = self._batch = 0
        self._resumes = False
        self._loop = _Loop()

    def __len__(self) -> int:
        """Return the number of batches of an epoch.

        Raises
        ------
        TypeError
            If this is one worker's share, whose rows differ from epoch to epoch.
        """
        if self._workers > 1:
            raise TypeError(
                f"the batches of {self._workers} workers differ in number from epoch to epoch; "
                "count them as they come"
            )
        full, rest = divmod(self.n_rows, self._layout.batch_size)
        return full + bool(rest and not self._drop_last)

    @property
    def epoch(self) -> int:
        """Number of the epoch, from 0: the one under way, or else the next."""
        return self._epoch

    def explain(self) -> str:
        """Return what a loop holds, and the ceiling, as a table in plain text."""
        return self._table

    def __repr__(self) -> str:
        return (
            f"<Batches: {counted(self.n_rows, 'row')} of {counted(self.n_features, 'feature')}, "
            f"{self._layout.batch_size:,} at a time>"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return where the loop is, as numbers: epoch, batches taken of it, seed and settings."""
        position = {
            "epoch": self._epoch,
            "batch": self._batch,
            "random_state": self.random_state,
        }
        return position | self._settings()

    def _settings(self) -> dict[str, Any]:
        """Return what decides the batches, beside the seed."""
        layout = self._layout
        within = layout.source.within
        return {
            "n_rows": self.n_rows,
            "chunk_rows": layout.source.partition_rows,
            "batch_size": layout.batch_size,
            "shuffle": layout.shuffled,
            "shuffle_chunks": layout.shuffle_chunks,
            "drop_last": self._drop_last,
            "worker": self._worker,
            "workers": self._workers,
        } | ({} if within is None else {"share": str(within.drawn)})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state: the next iteration begins after the batches that were taken.

        Parameters
        ----------
        state : mapping
            As `state_dict` returned it, for the same store and settings. The seed becomes the
            state's.

        Raises
        ------
        ValueError
            If the state is damaged, or of other data or settings.
        """
        _POSITION(state, "state")
        due = self._settings()
        if other := [name for name, value in due.items() if state.get(name) != value]:
            name = other[0]
            raise ValueError(
                f"the state is of {name}={shown(state.get(name))}, and these batches have "
                f"{name}={due[name]}; make them of the same store with the same settings"
            )
        self._loop.end()
        self._epoch, self._batch = state["epoch"], state["batch"]
        self.random_state, self._resumes = state["random_state"], True

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Return the batches of an epoch: the next one, or the rest of one that was resumed."""
        if self._batch and not self._resumes:
            self._epoch, self._batch = self._epoch + 1, 0
        self._resumes = False
        self._loop.end()
        self._loop = _Loop()
        return self._batches(self._loop)

    def _batches(self, loop: "_Loop") -> Iterator[tuple[Any, ...]]:
        """Yield the batches from `self._batch` on; `loop` ends when another one begins."""
        loop.require_running()
        layout = self._layout
        order = EpochOrder(
            layout.source.n_partitions,
            layout.shuffle_chunks,
            self.random_state if layout.shuffled else None,
            self._epoch,
        )
        taken = self._batch * layout.batch_size
        items, skip = items_of(layout, order, taken, self._worker, self._workers)
        if items:
            with ExitStack() as stack:
                pool = Pool()
                pool.allow(layout.pool_bytes)

                def lent(specs: Any) -> Any:
                    return stack.enter_context(pool.take(specs, most_kept=0))[0]

                arrays = [lent(layout.reading()) for _ in range(layout.threads)]
                # A block of memory each: its references tell whether a batch is still in use.
                slots = [Slot(lent(layout.slot())) for _ in range(layout.slots)]
                reading = PieceReading(layout, order, items, arrays)
                loop.begin(OrderedSlots(slots, len(items), reading.pieces, layout.threads))
                stack.callback(loop.end)
                pieces = items[-1].first_piece + items[-1].pieces
                yield from self._cut(loop, pieces, skip)
        self._epoch, self._batch = self._epoch + 1, 0

    def _cut(self, loop: "_Loop", pieces: int, skip: int) -> Iterator[tuple[Any, ...]]:
        """Cut pieces into batches; leave out the first `skip` rows."""
        size = self._layout.batch_size
        before: Slot | None = None
        begin = end = 0
        lent: int | None = None
        for piece in range(pieces):
            slot = loop.take(piece)
            rest, head = end - begin, size - 1
            if before is not None and rest:
                for name, array in slot.arrays.items():
                    array[head - rest : head] = before.arrays[name][begin:end]
            begin, end = head - rest, head + slot.rows
            left_out = min(skip, end - begin)
            begin, skip = begin + left_out, skip - left_out
            if lent is None:
                loop.give_back(piece)
            while end - begin >= size:
                yield self._handed(slot, begin, begin + size)
                # The loop has let go of its last batch, and holds one of this slot.
                loop.give_back(piece)
                lent, begin = piece, begin + size
            before = slot
        if before is not None and begin < end and not self._drop_last:
            yield self._handed(before, begin, end)
            loop.require_running()

    def _handed(self, slot: Slot, begin: int, end: int) -> tuple[Any, ...]:
        """Return a batch, which counts as taken."""
        self._batch += 1
        views = {name: array[begin:end] for name, array in slot.arrays.items()}
        if self.row_shape is not None:
            views["X"] = views["X"].reshape(-1, *self.row_shape)
        if not self._tensors:
            return tuple(views.values())
        with needed_package("torch", "tensors"):
            from ooc_train.stream.batching.batch_dataset import as_tensors

        return as_tensors(views.values())

    def share(self, worker: int, workers: int) -> "Batches":
        """Return one worker's share of the batches: those of every `workers`-th shuffle group.

        The shares of all workers have every row exactly once an epoch.

        Raises
        ------
        ValueError
            If the number of the worker is not one from 0 to `workers` - 1.
        """
        Count(least=1).check("workers", workers)
        Count(least=0, most=workers - 1).check("worker", worker)
        made = copy(self)
        made._worker, made._workers = int(worker), int(workers)  # noqa: SLF001 (of its own class)
        made._epoch = made._batch = 0  # noqa: SLF001
        made._loop = _Loop()  # noqa: SLF001
        return made

    def __getstate__(self) -> dict[str, Any]:
        # Threads and buffers stay in the process that has them.
        return self.__dict__ | {"_loop": _Loop()}

    def dataset(self) -> Any:
        """Return a `torch.utils.data.IterableDataset` of the batches, as tensors.

        It is for ``DataLoader(dataset, batch_size=None)``, with or without workers: each worker
        takes its share of the chunks, and copies its batches on their way. A `DataLoader` of
        workers numbers epochs by its own random numbers: `torch.manual_seed`, or its `generator`,
        gives their order. The ceiling is that of one process: each worker holds as much.
        """
        with needed_package("torch", "data sets of PyTorch"):
            from ooc_train.stream.batching.batch_dataset import BatchDataset

        return BatchDataset(self)
