"""Rows in calls of any size, written as chunks and shards of one array."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.closing import Discarding
from ooc_train.errors import NonFiniteData
from ooc_train.store.format.arrays import ArrayLayout
from ooc_train.store.writing.shard_writer import ShardWriter


class RowWriter:
    """Fills one chunk at a time and passes it to the current shard.

    Parameters
    ----------
    first_shard : int
        Number of the shard that the first chunk belongs to.

    Attributes
    ----------
    chunk : ndarray of the layout's dtype, shape (chunk_rows, *row_shape)
        The chunk that is being filled.
    """

    def __init__(self, layout: ArrayLayout, first_shard: int = 0) -> None:
        self.layout = layout
        self.chunk = np.zeros((layout.chunk_rows, *layout.row_shape), layout.dtype)
        self._shard: ShardWriter | None = None
        self._next_shard = first_shard

    def fill(self, values: NDArray[Any], position: int, first_row: int) -> None:
        """Convert rows into the chunk, from `position` on, checking that its type holds them.

        `first_row` is the row of the store that ``values[0]`` is. NaN, infinity, or a value too
        large for the type raises `NonFiniteData`. A value that an array of integers can't hold
        raises `ValueError`.
        """
        target = self.chunk[position : position + len(values)]
        # The check below finds overflow and NaN, and where they are.
        with np.errstate(over="ignore", invalid="ignore"):
            target[...] = values
        checked = target if target.dtype.kind == "f" else values
        if checked.dtype.kind == "f" and not np.isfinite(checked).all():
            index = tuple(int(axis[0]) for axis in np.nonzero(~np.isfinite(checked)))
            column = f", column {','.join(map(str, index[1:]))}" if len(index) > 1 else ""
            raise NonFiniteData(
                f"{self.layout.name} has {values[index]} in row {first_row + index[0]:,}{column}, "
                f"which is no finite {target.dtype}; drop or fill such rows (--missing), or "
                "correct them"
            )
        if target.dtype.kind != "f" and values.dtype != target.dtype:
            changed = np.nonzero(target != values)
            if len(changed[0]):
                index = tuple(int(axis[0]) for axis in changed)
                raise ValueError(
                    f"{self.layout.name} has {values[index]} in row {first_row + index[0]:,}, "
                    f"which {target.dtype} can't hold; choose another dtype"
                )

    def flush(self, rows: int) -> None:
        """Write the chunk, whose first `rows` rows are in use."""
        if self._shard is None:
            self._shard = ShardWriter(self.layout, self._next_shard)
            self._next_shard += 1
        self._shard.write(self.chunk, rows)
        if self._shard.full:
            self.finish()

    def finish(self) -> None:
        """Commit the current shard, if there is one."""
        if self._shard is not None:
            self._shard.commit()
            self._shard = None

    def wait(self) -> None:
        """Wait for running commits, and raise their error; here `finish` has done it."""

    def discard(self) -> None:
        """Drop the current shard, if there is one."""
        if self._shard is not None:
            self._shard.discard()
            self._shard = None


class BackgroundRowWriter(RowWriter):
    """Commits each full shard in a thread, while the next one fills.

    `thread` is an executor of one thread, which several arrays may share.
    """

    def __init__(
        self, layout: ArrayLayout, thread: ThreadPoolExecutor, first_shard: int = 0
    ) -> None:
        super().__init__(layout, first_shard)
        self._thread = thread
        self._committing: Future[None] | None = None

    def finish(self) -> None:
        """Start the commit of the current shard, after that of the one before."""
        self.wait()
        if self._shard is not None:
            shard, self._shard = self._shard, None
            self._committing = self._thread.submit(_commit, shard)

    def wait(self) -> None:
        """Wait for the running commit, and raise its error."""
        if self._committing is not None:
            committing, self._committing = self._committing, None
            committing.result()

    def discard(self) -> None:
        """Drop the current shard, after the running commit."""
        if self._committing is not None:
            wait([self._committing])
        super().discard()


def _commit(shard: ShardWriter) -> None:
    with shard:
        shard.commit()


class ChunkedRows(Discarding):
    """Divides rows of several arrays, in calls of any size, into their chunks and shards.

    Parameters
    ----------
    chunk_rows : int
        Rows of a chunk, the same in every array.
    first_row : int
        Row of the store that is written first; it begins a shard.

    Attributes
    ----------
    n_rows : int
        Row of the store that is written next.
    """

    def __init__(self, chunk_rows: int, first_row: int = 0) -> None:
        self.n_rows = first_row
        self._chunk_rows = chunk_rows
        self._arrays: dict[str, RowWriter] = {}

    def _add(self, rows: Mapping[str, NDArray[Any]]) -> None:
        """Add rows: a mapping from names of arrays to values of shape (row, ...)."""
        count, start = len(next(iter(rows.values()))), 0
        while start < count:
            position = self.n_rows % self._chunk_rows
            stop = min(count, start + self._chunk_rows - position)
            self._fill({name: rows[name][start:stop] for name in self._arrays}, position)
            self.n_rows += stop - start
            start = stop
            if self.n_rows % self._chunk_rows == 0:
                self._flush(self._chunk_rows)

    def _fill(self, rows: Mapping[str, NDArray[Any]], position: int) -> None:
        """Add rows that fit into the current chunks, from row `position` of each chunk on."""
        for name, array in self._arrays.items():
            array.fill(rows[name], position, self.n_rows)

    def _flush(self, rows: int) -> None:
        """Write the current chunks, whose first `rows` rows are in use."""
        for array in self._arrays.values():
            array.flush(rows)

    def _finish(self) -> None:
        """Write the last chunks, and commit the last shards."""
        if rest := self.n_rows % self._chunk_rows:
            self._flush(rest)
        for array in self._arrays.values():
            array.finish()
        for array in self._arrays.values():
            array.wait()

    def discard(self) -> None:
        """Drop the current shards, if there are any."""
        for array in self._arrays.values():
            array.discard()
