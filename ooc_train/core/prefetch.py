"""Making items in a thread, ahead of whoever uses them."""

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Iterator[Item]) -> Generator[Item, None, None]:
    """Make the next item in a thread while the caller is busy with this one.

    Items may lie in two buffers by turns. Closing it waits for the thread.
    """
    nothing = object()
    with ThreadPoolExecutor(1, "ooc_train-ahead") as thread:
        coming = thread.submit(next, items, nothing)
        while (item := coming.result()) is not nothing:
            coming = thread.submit(next, items, nothing)
            yield item  # type: ignore[misc]
