"""Threads that share work whose second half is in order: items are read ahead, then learned from.

Whoever finds the next item read, and nobody learning, learns from it, and goes on to the one after;
whoever doesn't reads what nobody has. So where learning takes longer, one thread learns without a
break while the others wait for places to read into; where reading does, all read. Nothing is handed
from a thread to one that has to wake up for it, which takes 50 us, unless nothing else is left.
"""

from collections.abc import Callable
from threading import Condition, Thread
from time import perf_counter


class _Items:
    """Which items have been read, and learned from; each in one of a few places."""

    def __init__(self, count: int, places: int) -> None:
        self._count = count
        self._changed = Condition()
        self._free = list(range(places))
        self._ready: dict[int, int] = {}
        self._begun = self._learned = 0
        self._learning = False
        self.error: BaseException | None = None
        self.waited = 0.0

    def take(self) -> tuple[int, int, bool] | None:
        """Return an item, its place, and whether it has been read; None when all is done."""
        with self._changed:
            while True:
                if self.error is not None or self._learned == self._count:
                    return None
                if not self._learning and self._learned in self._ready:
                    self._learning = True
                    return self._learned, self._ready.pop(self._learned), True
                if self._free and self._begun < self._count:
                    self._begun += 1
                    return self._begun - 1, self._free.pop(), False
                began = perf_counter()
                self._changed.wait()
                self.waited += perf_counter() - began

    def put(self, item: int, place: int, learned: bool) -> None:
        """Take back what `take` gave, when it is done."""
        with self._changed:
            if learned:
                self._learned, self._learning = item + 1, False
                self._free.append(place)
            else:
                self._ready[item] = place
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Have all stop."""
        with self._changed:
            self.error = self.error or error
            self._changed.notify_all()


def in_turns(
    read: Callable[[int, int], None],
    learn: Callable[[int], None],
    count: int,
    threads: int,
    places: int,
) -> float:
    """Read items, and learn from them in their order, one at a time; return the seconds waited.

    Parameters
    ----------
    read : callable
        ``read(item, place)`` reads an item into a place.
    learn : callable
        ``learn(place)`` learns from what a place holds.
    count, places : int
        Of items, and of the places that they are read into.
    threads : int
        One is the calling thread.

    Raises
    ------
    Exception
        what the first thread to fail raised.
    """
    items = _Items(count, places)

    def share() -> None:
        try:
            while (taken := items.take()) is not None:
                item, place, is_read = taken
                if is_read:
                    learn(place)
                else:
                    read(item, place)
                items.put(item, place, is_read)
        except BaseException as error:  # noqa: BLE001 (it is raised again, when all have ended)
            items.fail(error)

    others = [Thread(target=share, name="ooc_train-turn") for _ in range(threads - 1)]
    for thread in others:
        thread.start()
    share()
    for thread in others:
        thread.join()
    if items.error is not None:
        raise items.error
    return items.waited
