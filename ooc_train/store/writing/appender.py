"""`StoreAppender`: rows added to the end of a store.

Shards never change but for the last one, if it is not full: it is written anew, with the rows that
it had and further ones, and replaces the old one by a rename. Rows count only when the manifest is
renamed, last of all. Whoever opened the store before reads on: the rows that he knows lie where
they were. A crash leaves the store with the rows that it had, and the next appender removes the
rest.

Arrays have metadata of their own, whose checksums the manifest holds. So the manifest is renamed
twice: first it names the checksums before and after, then the metadata of the arrays are renamed,
and then it names the new rows.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ooc_train.core.locks import is_open_at, lock
from ooc_train.core.output_kinds import explain_os_errors
from ooc_train.core.renames import sync_file, sync_folder
from ooc_train.errors import InvalidStore, StoreChanged
from ooc_train.store.dataset import Store
from ooc_train.store.format.arrays import ArrayLayout
from ooc_train.store.format.checksums import CHECKSUMS, checksum, with_checksums
from ooc_train.store.format.metadata import read_metadata
from ooc_train.store.format.shares import read_share
from ooc_train.store.format.statistics import StatisticsSum
from ooc_train.store.opening.manifests import FORMAT_VERSION, require_appendable
from ooc_train.store.opening.opener import open_store
from ooc_train.store.reading.chunks import ChunkReader
from ooc_train.store.writing.checked_rows import CheckedRows
from ooc_train.store.writing.rows import BackgroundRowWriter, RowWriter


class StoreAppender(CheckedRows):
    """Adds rows to the end of a store, in calls of any size.

    A context manager: leaving it without `commit` adds no rows. One process at a time appends; a
    lock ends with the process that holds it. Classes, names, types, chunks and codec are those of
    the store. The order of a store that was shuffled counts as random no more.

    Parameters
    ----------
    path : str or os.PathLike
        A store that this release wrote, in a local folder.

    Attributes
    ----------
    store : Store
        The store as it was before.

    Raises
    ------
    InvalidStore
        If another program or an earlier release wrote the store.
    BlockingIOError
        If another process is adding rows, or replaces the store.
    OSError
        If the store can't be written to.

    Examples
    --------
    >>> import numpy as np
    >>> from ooc_train import StoreAppender, make_data, open_store
    >>> made = make_data("rows.zarr", rows=1_000, features=3, task="regression")
    >>> with StoreAppender("rows.zarr") as appender:
    ...     appender.write(np.zeros((10, 3)), np.zeros(10))
    ...     store = appender.commit()
    >>> open_store("rows.zarr").n_rows
    1010
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._open = True
        if read_share(path) is not None:
            open_store(path).require_whole("append")
        self._folder = _locked(os.fspath(path))
        try:
            require_appendable(os.fspath(path))
            self.store = store = open_store(path)
            _require_own(store)
            statistics = StatisticsSum(store.n_features, weighted=store.sample_weight is not None)
            if store.statistics is not None:
                statistics.resume(store.statistics)
            counts = store.class_counts
            super().__init__(
                store.chunk_rows,
                statistics,
                None if counts is None else np.array(counts, np.int64),
                store.n_rows,
            )
            self._syncing = ThreadPoolExecutor(1, "ooc_train-sync")
            self._layouts = dict(_layouts(store))
            for layout in self._layouts.values():
                _remove_leftovers(layout, store.n_rows)
            first_shard = store.n_rows // store.X.shard_rows
            for role, layout in self._layouts.items():
                self._arrays[role] = BackgroundRowWriter(layout, self._syncing, first_shard)
        except BaseException:
            os.close(self._folder)
            raise
        try:
            for array in self._arrays.values():
                self._resume(array)
        except BaseException:
            self.discard()
            raise

    @property
    def path(self) -> str:
        """Path of the store."""
        return self.store.path

    @property
    def _active(self) -> bool:
        """Whether rows can be added."""
        return self._open

    def _resume(self, array: RowWriter) -> None:
        """Write the rows of the last shard, if it is not full, to the shard that replaces it."""
        layout, stop = array.layout, self.store.n_rows
        reader = ChunkReader(layout)
        for row in range(stop // layout.shard_rows * layout.shard_rows, stop, layout.chunk_rows):
            end = min(row + layout.chunk_rows, stop)
            reader.read_rows(row, end, array.chunk[: end - row])
            if end - row == layout.chunk_rows:
                array.flush(layout.chunk_rows)

    def commit(self) -> Store:
        """Write the remaining rows, let them count, and open the store.

        Returns
        -------
        Store
            The store with the rows added; the same as before if there are none.

        Raises
        ------
        OSError
            If the disk is full or not writable; the store is then as it was.
        StoreChanged
            If the store is not at its path any more.
        """
        if not self._open:
            raise ValueError(f"the appender of {self.path} is closed, by commit or by an error")
        if self.n_rows == self.store.n_rows:
            self.discard()
            return self.store
        if not is_open_at(self._folder, os.path.realpath(self.path)):
            self.discard()
            raise StoreChanged(
                f"{self.path} was moved, removed or replaced while rows were added to it; they "
                "are in no store"
            )
        try:
            with explain_os_errors(self.path):
                self._finish()
                for layout in self._layouts.values():
                    _sync_shards(layout, self.store.n_rows, self.n_rows)
                self._rename_metadata()
        except BaseException:
            self.discard()
            raise
        self._close()
        return open_store(self.path)

    def _rename_metadata(self) -> None:
        """Replace the metadata of the arrays and the manifest, so that the rows count."""
        group = _metadata(self.path)
        attributes = dict(group["attributes"])
        known, store_id = attributes.pop(CHECKSUMS)["arrays"], attributes.pop("store_id")
        arrays = {}
        for role, layout in self._layouts.items():
            found = _metadata(layout.path)
            arrays[role] = found | {"shape": [self.n_rows, *found["shape"][1:]]}
        # Of an appender that was killed, the manifest may name two.
        before = {role: _checksum_now(layout, known) for role, layout in self._layouts.items()}
        group.pop("consolidated_metadata", None)  # of other programs, with the old shapes
        both = with_checksums(attributes, store_id, arrays, before)
        _replace_json(self.path, group | {"attributes": both})
        for role, metadata in arrays.items():
            _replace_json(self._layouts[role].path, metadata)
        statistics = self._statistics
        if isinstance(statistics, StatisticsSum):
            statistics = statistics.result()
        attributes |= {
            "n_rows": self.n_rows,
            "generation": attributes["generation"] + 1,
            "class_counts": None if self._counts is None else self._counts.tolist(),
            "statistics": statistics.to_json(),
            "shuffled": None,
        }
        committed = with_checksums(attributes, store_id, arrays)
        _replace_json(self.path, group | {"attributes": committed})

    def discard(self) -> None:
        """Add no rows, unless they were committed."""
        if self._open:
            super().discard()
            self._close()

    def _close(self) -> None:
        self._open = False
        self._syncing.shutdown()
        os.close(self._folder)


def _locked(path: str) -> int:
    """Return the open folder of a store, locked against other appenders.

    Raises
    ------
    BlockingIOError
        If another process has it locked.
    """
    if "://" in path:
        raise InvalidStore(f"{path} is a URL, and rows are added to stores in local folders")
    while True:
        try:
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            open_store(path)  # says what is missing
            raise
        try:
            lock(folder)
        except BlockingIOError:
            os.close(folder)
            raise BlockingIOError(
                f"another process is adding rows to {path}, or replaces it; run again when it has "
                "ended"
            ) from None
        except BaseException:
            os.close(folder)
            raise
        if is_open_at(folder, os.path.realpath(path)):
            return folder
        os.close(folder)  # it was replaced just before


def _require_own(store: Store) -> None:
    """Refuse a store whose shards and checksums this release did not write."""
    if store.format_version != FORMAT_VERSION or not store.store_id or not store.generation:
        raise InvalidStore(
            f"{store.path} was written by another program or an earlier release, or its checksums "
            "are off; `ooc-train rechunk` makes a store of it to which rows can be added"
        )


def _layouts(store: Store) -> Iterator[tuple[str, ArrayLayout]]:
    for role in ("X", "y", "sample_weight", "row_id"):
        layout: ArrayLayout | None = getattr(store, role)
        if layout is not None:
            yield role, layout


def _remove_leftovers(layout: ArrayLayout, n_rows: int) -> None:
    """Remove what an appender that was killed has left: shards without rows that count."""
    shards = -(-n_rows // layout.shard_rows)
    folder = os.path.join(layout.path, "c")
    for name in os.listdir(folder):
        number = name.partition(".")[0]
        path = os.path.join(folder, name)
        if number.isdigit() and (int(number) >= shards or name.endswith(".tmp")):
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    last = os.path.dirname(layout.shard_path(max(0, shards - 1)))
    for name in os.listdir(last):
        if name.endswith(".tmp"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(last, name))


def _sync_shards(layout: ArrayLayout, before: int, after: int) -> None:
    """Write the folders of the shards from row `before` to row `after` to the disk."""
    first, last = before // layout.shard_rows, (after - 1) // layout.shard_rows
    folders = {os.path.dirname(layout.shard_path(shard)) for shard in range(first, last + 1)}
    for folder in sorted(folders, key=len, reverse=True):
        sync_folder(folder)
    sync_folder(os.path.join(layout.path, "c"))


def _metadata(directory: str) -> dict[str, Any]:
    found = read_metadata(directory)
    if found is None:
        raise InvalidStore(f"{directory}/zarr.json is missing; restore it from a copy")
    return found


def _checksum_now(layout: ArrayLayout, known: Mapping[str, Any]) -> str:
    """Return the checksum of an array's metadata as they are, one of those that are known."""
    now = checksum(_metadata(layout.path))
    accepted = known[layout.name]
    if now not in ([accepted] if isinstance(accepted, str) else accepted):
        raise InvalidStore(f"{layout.path}/zarr.json changed meanwhile; restore it from a copy")
    return now


def _replace_json(directory: str, metadata: Mapping[str, Any]) -> None:
    """Replace the ``zarr.json`` of a folder, as a whole or not at all."""
    path = os.path.join(directory, "zarr.json")
    partial = f"{path}.tmp"
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(metadata, file, indent=2, allow_nan=False)
        sync_file(file)
    os.rename(partial, path)
    sync_folder(directory)
