"""How the rows of an epoch are cut into pieces for batches, and what that holds in memory.

Threads read *items* of one or more shuffle groups, and cut the rows of an item, in the order of the
epoch, into *pieces* of at least a batch. Batches are views of pieces. The rows that are left over
from a piece move in front of the next piece, so that only they are copied once more.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ooc_train.core.sums import ArraySpec, Workspace, total_bytes
from ooc_train.core.text import counted
from ooc_train.core.units import approximate_bytes
from ooc_train.memory.ceiling import Term
from ooc_train.stream.order import EpochOrder
from ooc_train.stream.store_source import StoreSource

_PIECE_BYTES = 3 * 2**20
"""A piece of about this size is still in cache when its batches are taken."""

_LEAST_SLOTS = 3
"""One that is filled while the caller holds two."""


@dataclass(frozen=True)
class BatchLayout:
    """The sizes of what threads read, and of the slots for pieces.

    Attributes
    ----------
    source : StoreSource
        The rows.
    batch_size : int
        Rows of a batch.
    shuffle_chunks : int
        Chunks of a shuffle group.
    shuffled : bool
        Whether rows come in random order.
    n_classes : int
        Classes, whose codes are whole numbers; 0 where y holds numbers.
    threads, slots : int
        Threads that read, and slots for pieces.
    piece_rows : int
        About the rows of a piece, at least two batches: large items are cut into pieces of no more,
        and small ones have as many groups as it takes.
    """

    source: StoreSource
    batch_size: int
    shuffle_chunks: int
    shuffled: bool
    n_classes: int
    threads: int
    slots: int
    piece_rows: int

    @property
    def group_rows(self) -> int:
        """Most rows of a shuffle group."""
        return self.shuffle_chunks * self.source.partition_rows

    @property
    def item_groups(self) -> int:
        """Shuffle groups of an item."""
        return max(1, -(-self.piece_rows // self.group_rows))

    @property
    def slot_rows(self) -> int:
        """Most rows of a piece."""
        rows = self.item_groups * self.group_rows
        return min(rows, self.piece_rows) if self._cuts_items else rows

    @property
    def _cuts_items(self) -> bool:
        """Whether items are cut: rows in stored order are read straight into a slot."""
        return self.shuffled and self.item_groups == 1

    def pieces_of(self, rows: int) -> int:
        """Return the pieces of an item of so many rows."""
        return max(1, -(-rows // self.piece_rows)) if self._cuts_items else 1

    def slot(self) -> Workspace:
        """Return the arrays of a slot: room for a piece, and in front of it for rows left over."""
        source, rows = self.source, self.batch_size - 1 + self.slot_rows
        specs = {"X": ArraySpec((rows, source.n_features), source.dtype)}
        if source.y is not None:
            kind = "<i8" if self.n_classes else source.dtype
            specs["y"] = ArraySpec((rows, *source.y.shape[1:]), kind)
        if source.weight is not None:
            specs["weight"] = ArraySpec((rows,), source.dtype)
        return specs

    def reading(self) -> Workspace:
        """Return the arrays of a thread: for a shuffle group, its order, and a piece of y."""
        source = self.source
        specs = source.buffers(self.shuffle_chunks if self.shuffled else 1)
        if not self.shuffled:
            del specs["X"]
            return specs
        specs["order"] = ArraySpec((self.group_rows,), "<i8")
        rows = min(self.group_rows, self.slot_rows)
        if source.y is not None:
            specs["taken y"] = ArraySpec((rows, source.n_outputs))
        if source.weight is not None:
            specs["taken weight"] = ArraySpec((rows,))
        return specs

    @property
    def pool_bytes(self) -> int:
        """Bytes of all slots, and of what all threads read into."""
        reading = self.threads * total_bytes(self.reading())
        return reading + self.slots * total_bytes(self.slot())

    @property
    def held(self) -> int:
        """Bytes of all terms."""
        return sum(term.bytes for term in self.terms())

    def terms(self) -> tuple[Term, ...]:
        """Return what a loop over batches holds, apart from what its body makes."""
        slot, reading = total_bytes(self.slot()), total_bytes(self.reading())
        return (
            Term(
                "slots",
                # A batch of the last epoch may still be in use when the next epoch begins.
                (self.slots + 1) * slot,
                f"{self.slots} + 1 x {approximate_bytes(slot)}: pieces of "
                f"{counted(self.slot_rows, 'row')}",
            ),
            Term(
                "reading",
                self.threads * reading,
                f"{self.threads} x {approximate_bytes(reading)}: "
                f"{counted(self.shuffle_chunks, 'chunk')}, and the order of the rows",
            ),
            Term(
                "decoding",
                self.threads * self.source.hidden_bytes,
                "by zarr-python, and of a y in other chunks than X",
            ),
        )


def layouts(
    source: StoreSource,
    batch_size: int,
    shuffle_chunks: int,
    threads: int,
    *,
    shuffled: bool,
    n_classes: int,
) -> Iterator[BatchLayout]:
    """Yield layouts from the most memory to the least; all of them give the same batches."""
    row_bytes = max(1, source.n_features * (4 if source.dtype == "<f4" else 8))
    least = 2 * batch_size
    sizes = sorted({max(least, min(_PIECE_BYTES // row_bytes, source.n_rows)), least}, reverse=True)
    choices = [(n, n + _LEAST_SLOTS - 1, sizes[0]) for n in range(threads, 0, -1)]
    for n, slots, piece_rows in [*choices, (1, _LEAST_SLOTS, sizes[-1])]:
        yield BatchLayout(
            source, batch_size, shuffle_chunks, shuffled, n_classes, n, slots, piece_rows
        )


@dataclass(frozen=True)
class Item:
    """Consecutive shuffle groups of what is read of an epoch; one thread reads them.

    Attributes
    ----------
    groups : sequence of int
        Their numbers within the epoch.
    first_group, first_piece : int
        Groups and pieces that are read before them.
    rows, pieces : int
        Rows, and the pieces that they are cut into.
    """

    groups: Sequence[int]
    first_group: int
    first_piece: int
    rows: int
    pieces: int

    def bounds(self, piece: int) -> tuple[int, int]:
        """Return where the rows of a piece begin and end within the item."""
        return self.rows * piece // self.pieces, self.rows * (piece + 1) // self.pieces


def items_of(
    layout: BatchLayout, order: EpochOrder, skip: int = 0, worker: int = 0, workers: int = 1
) -> tuple[list[Item], int]:
    """Return the items of an epoch, and the rows to skip of the first.

    Parameters
    ----------
    skip : int
        Rows to leave out at the beginning. Items that have no other rows are not read.
    worker, workers : int
        Which share of the shuffle groups is read, of how many.
    """
    groups, size, n_partitions = order.groups(), layout.source.partition_rows, order.n_chunks
    short = n_partitions * size - layout.source.n_rows
    mine = range(worker, len(groups), workers)
    items: list[Item] = []
    first_group = first_piece = 0
    for i in range(0, len(mine), layout.item_groups):
        lot = mine[i : i + layout.item_groups]
        rows = sum(
            len(groups[k]) * size - (short if n_partitions - 1 in groups[k] else 0) for k in lot
        )
        if not items and rows <= skip:
            skip -= rows
            continue
        pieces = layout.pieces_of(rows)
        items.append(Item(lot, first_group, first_piece, rows, pieces))
        first_group, first_piece = first_group + len(lot), first_piece + pieces
    return items, skip
