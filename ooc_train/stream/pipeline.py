"""A pipeline of two stages: threads read items in any order and process them in order.

A thread processes the next item if that item is loaded and no other thread is processing.
Otherwise the thread reads the next unclaimed item. If processing takes longer, one thread processes
without a break, and the others wait for free slots. If reading takes longer, all threads read.
Threads rarely wake each other, which takes 50 us.
"""

from collections.abc import Callable
from threading import Condition, Thread
from time import perf_counter


class _Items:
    """The state of all items: unclaimed, being read, loaded, or processed."""

    def __init__(self, count: int, slots: int) -> None:
        self._count = count
        self._changed = Condition()
        self._free = list(range(slots))
        self._loaded: dict[int, int] = {}
        self._claimed = self._processed = 0
        self._processing = False
        self.error: BaseException | None = None
        self.waited = 0.0

    def take(self) -> tuple[int, int, bool] | None:
        """Return an item, its slot, and whether it is loaded; None when all are processed."""
        with self._changed:
            while True:
                if self.error is not None or self._processed == self._count:
                    return None
                if not self._processing and self._processed in self._loaded:
                    self._processing = True
                    return self._processed, self._loaded.pop(self._processed), True
                if self._free and self._claimed < self._count:
                    self._claimed += 1
                    return self._claimed - 1, self._free.pop(), False
                began = perf_counter()
                self._changed.wait()
                self.waited += perf_counter() - began

    def put(self, item: int, slot: int, processed: bool) -> None:
        """Mark an item that `take` returned as processed, or else as loaded."""
        with self._changed:
            if processed:
                self._processed, self._processing = item + 1, False
                self._free.append(slot)
            else:
                self._loaded[item] = slot
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Stop all threads by an error; the first error is kept."""
        with self._changed:
            self.error = self.error or error
            self._changed.notify_all()


def run_pipeline(
    read: Callable[[int, int], None],
    process: Callable[[int], None],
    count: int,
    threads: int,
    slots: int,
) -> float:
    """Read items and process them in order, one at a time; return the seconds that threads waited.

    ``read(item, slot)`` reads an item into a slot, and ``process(slot)`` processes it. The calling
    thread is one of the `threads`. The first exception of any thread is raised.
    """
    items = _Items(count, slots)

    def work() -> None:
        try:
            while (taken := items.take()) is not None:
                item, slot, loaded = taken
                if loaded:
                    process(slot)
                else:
                    read(item, slot)
                items.put(item, slot, loaded)
        except BaseException as error:  # noqa: BLE001 (raised again when all threads have ended)
            items.fail(error)

    others = [Thread(target=work, name="ooc_train-pipeline") for _ in range(threads - 1)]
    for thread in others:
        thread.start()
    work()
    for thread in others:
        thread.join()
    if items.error is not None:
        raise items.error
    return items.waited
