"""Making items in a thread, ahead of whoever uses them."""

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Semaphore
from typing import Any, TypeVar

Item = TypeVar("Item")

_NOTHING: Any = object()


def ahead(items: Iterator[Item], depth: int = 1) -> Generator[Item, None, None]:
    """Make the next items in a thread while the caller is busy with this one.

    What the thread raises comes to the caller after the items before it. Closing waits for the
    thread.

    Parameters
    ----------
    items : iterator
        Its items may lie in ``depth + 1`` buffers by turns.
    depth : int
        Items that are made, or being made, beside the one that the caller has.
    """
    made: SimpleQueue[Item] = SimpleQueue()
    room, closed = Semaphore(depth), False

    def make() -> None:
        try:
            while room.acquire() and not closed:
                item = next(items, _NOTHING)
                if item is _NOTHING:
                    return
                made.put(item)
        finally:
            made.put(_NOTHING)

    with ThreadPoolExecutor(1, "ooc_train-ahead") as thread:
        making = thread.submit(make)
        try:
            while (item := made.get()) is not _NOTHING:
                room.release()
                yield item
        finally:
            closed = True
            room.release()
        making.result()
