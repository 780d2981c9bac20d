"""Prefetching: a thread makes the next item while the caller uses this one."""

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def prefetched(items: Iterator[Item]) -> Generator[Item, None, None]:
    """Yield the items; a thread makes the next one while the caller uses the current one.

    Two items exist at a time, so two buffers are enough. `close` waits for the thread.
    """
    end = object()
    with ThreadPoolExecutor(1, "ooc_train-prefetch") as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item  # type: ignore[misc]
