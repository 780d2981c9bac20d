"""Slots that threads fill with pieces of rows, ahead of a caller who takes them in order.

Piece p goes to slot ``p % slots``, once the caller has returned piece ``p - slots``. So the lowest
piece that is missing always has a slot, whichever threads are ahead.

The caller hands out views of a slot. A slot whose views are still in use is never filled again:
`SlotInUse` is raised instead.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from threading import Condition, Thread

from ooc_train.core.sums import Arrays


class SlotInUse(ValueError):
    """Views of a slot are still in use, and the slot is needed."""


class Slot:
    """Arrays for the rows of one piece, which share one block of memory.

    Attributes
    ----------
    arrays : dict of arrays
        Room for rows.
    rows : int
        Rows of the piece that the slot holds.
    """

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays
        self.rows = 0
        # NumPy gives all views of a block of memory one base.
        self._memory = next(iter(arrays.values())).base
        self._own = sys.getrefcount(self._memory)

    @property
    def in_use(self) -> bool:
        """Whether there are views of the arrays elsewhere."""
        return sys.getrefcount(self._memory) > self._own


Fill = Callable[[Slot], None]
"""Fills a slot with a piece."""


class OrderedSlots:
    """Threads that fill slots with pieces, and the caller's side of it.

    Parameters
    ----------
    slots : sequence of Slot
        At least 3. The caller holds up to 2 of them while it waits for the next.
    items : int
        What threads work on. Each consists of pieces, and the pieces of an item follow those of the
        item before.
    pieces : callable
        Takes a thread and an item; yields the number of each of its pieces, and what fills a slot
        with it.
    threads : int
        How many threads there are.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        items: int,
        pieces: Callable[[int, int], Iterator[tuple[int, Fill]]],
        threads: int,
    ) -> None:
        self._slots, self._items, self._pieces = slots, items, pieces
        self._changed = Condition()
        self._claimed = self._returned = 0
        self._filled: set[int] = set()
        self._closed = False
        self._error: BaseException | None = None
        # Daemons: a loop that is abandoned in mid-epoch does not keep the interpreter from its end.
        self._threads = [
            Thread(target=self._work, args=(i,), name="ooc_train-batches", daemon=True)
            for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def _work(self, thread: int) -> None:
        try:
            while (item := self._claim()) is not None:
                for piece, fill in self._pieces(thread, item):
                    if not self._wait_for_room(piece):
                        return
                    fill(self._slots[piece % len(self._slots)])
                    with self._changed:
                        self._filled.add(piece)
                        self._changed.notify_all()
        except BaseException as error:  # noqa: BLE001 (raised again where the caller waits)
            with self._changed:
                self._error = self._error or error
                self._changed.notify_all()

    def _claim(self) -> int | None:
        """Return the next item, or None if there is none."""
        with self._changed:
            if self._closed or self._claimed == self._items:
                return None
            self._claimed += 1
            return self._claimed - 1

    def _wait_for_room(self, piece: int) -> bool:
        """Wait until the slot of a piece is free; return whether there is still need of it."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or self._error or piece < self._returned + len(self._slots)
            )
            return not self._closed and self._error is None

    def take(self, piece: int) -> Slot:
        """Return the slot of a piece, once it is filled; raise what a thread raised."""
        with self._changed:
            self._changed.wait_for(lambda: piece in self._filled or self._error)
            if piece not in self._filled and self._error is not None:
                raise self._error
            self._filled.remove(piece)
        return self._slots[piece % len(self._slots)]

    def give_back(self, pieces: int) -> None:
        """Return the slots of all pieces before piece number `pieces`.

        Raises
        ------
        SlotInUse
            If there are views of one of them.
        """
        if pieces <= self._returned:
            return
        for piece in range(self._returned, pieces):
            if self._slots[piece % len(self._slots)].in_use:
                raise SlotInUse
        with self._changed:
            self._returned = pieces
            self._changed.notify_all()

    def close(self) -> None:
        """End all threads, and wait until they have ended."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
