"""A store that grows: looks for further rows, and rows that are appended as they come."""

import os
from collections.abc import Iterable, Iterator
from typing import Any

from ooc_train.errors import InvalidStore, StoreChanged
from ooc_train.store.dataset import Store
from ooc_train.store.format.shares import read_share
from ooc_train.store.opening.manifests import require_appendable
from ooc_train.store.opening.opener import open_store
from ooc_train.store.writing.appender import StoreAppender


class GrowingStore:
    """A store in a local folder, to which other processes append rows.

    Parameters
    ----------
    given : str, path or Store
        The store, or its path.

    Attributes
    ----------
    store : Store
        The store as it was at the last look.

    Raises
    ------
    InvalidStore
        If no rows can be appended to it, or it was opened with other arrays than its own.
    """

    def __init__(self, given: str | os.PathLike[str] | Store) -> None:
        path = given.path if isinstance(given, Store) else os.fspath(given)
        if read_share(path) is None and "://" not in path:
            require_appendable(path)
        self.store = store = open_store(path)
        store.require_whole("following")
        if "://" in path or not store.store_id or not store.generation:
            raise InvalidStore(
                f"{path} is no store to which rows can be appended: it is a URL, or another "
                "program or an earlier release wrote it; `ooc-train rechunk` makes one of it"
            )
        if isinstance(given, Store) and _arrays(given) != _arrays(store):
            raise InvalidStore(
                f"{path} was opened with other arrays than its own, which appends do not extend; "
                "pass its path"
            )
        self._file = os.path.join(path, "zarr.json")
        self._stamp = self._look()
        self.store = open_store(path)

    def _look(self) -> tuple[int, ...]:
        try:
            found = os.stat(self._file)
        except FileNotFoundError:
            raise StoreChanged(f"{self.store.path} was removed while it was followed") from None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def now(self) -> Store:
        """Return the store with the rows that count now.

        Raises
        ------
        StoreChanged
            If another store lies there, or none.
        """
        stamp = self._look()
        if stamp != self._stamp:
            found = open_store(self.store.path)
            if found.store_id != self.store.store_id or found.n_rows < self.store.n_rows:
                raise StoreChanged(
                    f"another store took the place of {self.store.path} while it was followed; "
                    "follow it anew, with overwrite or another place for the model"
                )
            self.store, self._stamp = found, stamp
        return self.store


def _arrays(store: Store) -> list[str | None]:
    layouts = store.X, store.y, store.sample_weight
    return [None if layout is None else layout.path for layout in layouts]


def appending(path: str, blocks: Iterable[Any]) -> Iterator[bool]:
    """Append blocks of rows to a store as they come; yield whether there was one.

    Parameters
    ----------
    blocks : iterable of tuples or None
        Arguments of `StoreAppender.write`; none of them for rows that were appended already. None
        is no block yet.
    """
    for block in blocks:
        left = bool(block)
        while left:
            try:
                with StoreAppender(path) as appender:
                    appender.write(*block)
                    appender.commit()
                left = False
            except BlockingIOError:
                yield False  # another process is adding rows
        yield block is not None
