"""What the threads of a loop over batches do: read shuffle groups, and put their rows in order."""

from collections.abc import Iterator, Sequence
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import Array, Arrays, Block, raise_if_not_finite
from ooc_train.stream.batching.batch_pieces import BatchLayout, Item
from ooc_train.stream.batching.ordered_slots import Fill, Slot
from ooc_train.stream.order import EpochOrder
from ooc_train.stream.read_ahead import ReadAhead


class PieceReading:
    """The pieces of an epoch, for `OrderedSlots`.

    Parameters
    ----------
    layout : BatchLayout
        Sizes.
    order : EpochOrder
        The order of the rows.
    items : sequence of Item
        What is read of the epoch; at least one.
    arrays : sequence of dict of arrays
        What each thread reads into, as `BatchLayout.reading` describes it.
    """

    def __init__(
        self,
        layout: BatchLayout,
        order: EpochOrder,
        items: Sequence[Item],
        arrays: Sequence[Arrays],
    ) -> None:
        self._layout, self._order, self._items, self._arrays = layout, order, items, arrays
        self._head = layout.batch_size - 1
        self._readers = [layout.source.reader() for _ in arrays]
        groups = order.groups()
        self._groups = [groups[i] for item in items for i in item.groups]
        self._read_ahead = ReadAhead(self._groups)
        self._is_whole = np.dtype(layout.source.X.dtype).kind in "biu"

    def pieces(self, thread: int, number: int) -> Iterator[tuple[int, Fill]]:
        """Yield the numbers of the pieces of an item, and what fills a slot with each."""
        item = self._items[number]
        if item.pieces == 1:
            yield item.first_piece, partial(self._fill, thread, item)
            return
        arrays = self._arrays[thread]
        block = self._read(thread, item, 0, arrays)
        rows = self._in_order(arrays, block, item.groups[0])
        for i in range(item.pieces):
            first, end = item.bounds(i)
            yield item.first_piece + i, partial(self._take, arrays, block, rows[first:end])

    def _fill(self, thread: int, item: Item, slot: Slot) -> None:
        """Fill a slot with all rows of an item."""
        arrays, at = self._arrays[thread], 0
        for i, group in enumerate(item.groups):
            if self._layout.shuffled:
                block = self._read(thread, item, i, arrays)
                self._take(arrays, block, self._in_order(arrays, block, group), slot, at)
            else:
                X = slot.arrays["X"][self._head + at :]
                block = self._read(thread, item, i, {**arrays, "X": X})
                self._check_x(block, block.X)
                rows = slice(self._head + at, self._head + at + block.n_rows)
                for name, values in _others(block):
                    array = slot.arrays[name][rows]
                    np.copyto(array, values.reshape(array.shape), casting="unsafe")
            at += block.n_rows
        slot.rows = at

    def _take(
        self, arrays: Arrays, block: Block, rows: NDArray[np.int64], slot: Slot, at: int = 0
    ) -> None:
        """Copy rows of a block into a slot, from row `at` of the piece on."""
        target = slice(self._head + at, self._head + at + len(rows))
        # Any mode but "raise" lets take write straight into `out`.
        X = slot.arrays["X"][target]
        np.take(block.X, rows, axis=0, out=X, mode="clip")
        self._check_x(block, X)  # the rows taken, which are in cache, and not all of a large group
        for name, values in _others(block):
            taken = arrays[f"taken {name}"][: len(rows)]
            np.take(values, rows, axis=0, out=taken, mode="clip")
            array = slot.arrays[name][target]
            np.copyto(array, taken.reshape(array.shape), casting="unsafe")
        slot.rows = at + len(rows)

    def _in_order(self, arrays: Arrays, block: Block, group: int) -> NDArray[np.int64]:
        """Return the order of the rows of a group, in a thread's array."""
        rows: NDArray[np.int64] = arrays["order"][: block.n_rows]
        self._order.fill(rows, group)
        return rows

    def _read(self, thread: int, item: Item, i: int, arrays: Arrays) -> Block:
        """Return the rows of group `i` of an item, which are checked."""
        reader, began = self._readers[thread], perf_counter()
        at = item.first_group + i
        block = reader.gather(self._groups[at], arrays)
        self._read_ahead.after(at, perf_counter() - began, block.X.nbytes, reader)
        if block.y is not None:
            self._check_y(block, block.y)
        self._layout.source.require_same()
        return block

    def _check_x(self, block: Block, X: NDArray[Any]) -> None:
        """Raise `NonFiniteData` if X, some or all rows of a block, has NaN or infinity."""
        # A sum of X takes less time than a test of each number.
        with np.errstate(over="ignore", invalid="ignore"):
            if not self._is_whole and not np.isfinite(X.sum()):
                raise_if_not_finite(block)

    def _check_y(self, block: Block, y: Array) -> None:
        """Raise an error that names the row of a y that is not finite, or of no class."""
        n_classes = self._layout.n_classes
        if not np.isfinite(y.sum()):
            raise_if_not_finite(block)
        if n_classes and not ((y >= 0) & (y < n_classes)).all():
            row = int(np.argmin((y >= 0) & (y < n_classes)))
            raise ValueError(
                f"y[{block.row_number(row)}] = {y[row, 0]:g} is the code of no class: there are "
                f"{n_classes}, from 0; write the store anew"
            )


def _others(block: Block) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield y and weights, where a block has them."""
    for name, values in (("y", block.y), ("weight", block.weight)):
        if values is not None:
            yield name, values
