"""One chunk of an array into a buffer of the caller's."""

from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ooc_train.store.format.arrays import ArrayLayout
from ooc_train.store.reading.direct import DirectRoute
from ooc_train.store.reading.label_coder import LabelCoder
from ooc_train.store.reading.zarr_route import ZarrRoute

_MOST_RUN = 512
"""Chunks that one call to the system may bring: it takes 1,024 buffers, and each has a checksum."""


class ChunkReader:
    """Reads the chunks of one array; each thread has its own.

    A context manager: leaving it closes its files, and raises `StoreChanged` where the array was
    replaced meanwhile and its shards don't tell. Who keeps a reader asks `require_same`, after what
    was read and before it is used.

    Parameters
    ----------
    layout : ArrayLayout
        The array, of a `Store` such as ``open_store(path).X``.

    Attributes
    ----------
    scratch_bytes : int
        Room that `read` needs for encoded bytes, 0 if it needs none.
    hidden_bytes : int
        Most bytes that zarr-python allocates by itself during a `read`, 0 on the direct route; and
        where labels are handed out as codes, the labels of a chunk, which this keeps.
    in_parts : bool
        Whether `read_rows` reads from the file what it is asked for, and not whole chunks.
    cache_bytes : int
        Bytes that this keeps from the first `read_rows` on.
    """

    def __init__(self, layout: ArrayLayout) -> None:
        self.layout = layout
        self._dtype = np.dtype(layout.dtype)
        self._shape = (layout.chunk_rows, *layout.row_shape)
        at_rest = layout.at_rest
        self._route = DirectRoute(at_rest) if layout.direct else ZarrRoute(at_rest)
        self._coder = None if layout.coding is None else LabelCoder(layout)
        self.scratch_bytes = self._route.scratch_bytes
        self.hidden_bytes = self._route.hidden_bytes
        if self._coder is not None:
            self.hidden_bytes += self._coder.held_bytes
        self.in_parts = layout.in_parts
        self.cache_bytes = (
            self._route.check_bytes if self.in_parts else layout.chunk_bytes + self.scratch_bytes
        )
        self._declared = layout.declared
        self._n_rows = layout.n_rows
        self._chunk_rows = layout.chunk_rows
        self._cached: tuple[int, NDArray[Any], NDArray[np.uint8]] | None = None

    @property
    def decoding(self) -> float:
        """Seconds spent on decompressing, as far as they are known apart from reading."""
        return self._route.decoding

    def read(self, index: int, out: NDArray[Any], scratch: NDArray[np.uint8] | None = None) -> int:
        """Decode a chunk.

        Parameters
        ----------
        index : int
            Number of the chunk.
        out : ndarray of the layout's dtype, shape (chunk_rows, *row_shape), C-contiguous
            Takes the rows. Beyond those that count, its content is undefined.
        scratch : ndarray of uint8, shape (scratch_bytes,), optional
            Takes encoded bytes, where `scratch_bytes` isn't 0.

        Returns
        -------
        int
            Rows that count: `chunk_rows`, or fewer in the last chunk.

        Raises
        ------
        CorruptChunk
            If the chunk is missing, cut short, or fails its checksum or decoding.
        NonFiniteData
            If it holds a value that the array's attributes declare to be missing.
        """
        rows = self._n_rows - index * self._chunk_rows
        if rows <= 0 or index < 0:
            raise IndexError(f"chunk {index:,} of {self.layout.n_chunks:,} of {self.layout.name}")
        if out.dtype != self._dtype or out.shape != self._shape:
            raise ValueError(
                f"out is {out.dtype} {out.shape}, chunks of {self.layout.name} are "
                f"{self._dtype} {self._shape}"
            )
        start = index * self._chunk_rows
        if self._coder is None:
            self._route.read(index, out, scratch)
            self._require_present(out, start)
        else:
            labels = self._coder.room()
            self._route.read(index, labels, scratch)
            self._require_present(labels, start)
            self._coder.encode(labels[:rows], out, start)
        return min(rows, self._chunk_rows)

    def read_run(
        self, index: int, count: int, out: NDArray[Any], scratch: NDArray[np.uint8] | None = None
    ) -> int:
        """Decode chunks that follow one another: for small ones a fraction of the calls.

        Parameters
        ----------
        index : int
            Number of the first.
        count : int
            How many, at most 512.
        out : ndarray of the layout's dtype, shape (count * chunk_rows, *row_shape), C-contiguous
            Takes the rows. Beyond those that count, its content is undefined.
        scratch : ndarray of uint8, shape (scratch_bytes,), optional
            As of `read`.

        Returns
        -------
        int
            Rows that count.

        Raises
        ------
        CorruptChunk
            As `read` does, naming the chunk.
        NonFiniteData
            As `read` does.
        """
        rows = self._n_rows - index * self._chunk_rows
        if rows <= (count - 1) * self._chunk_rows or index < 0 or not 0 < count <= _MOST_RUN:
            raise IndexError(
                f"chunks {index:,} and {count - 1:,} more of {self.layout.n_chunks:,} of "
                f"{self.layout.name}"
            )
        shape = (count * self._chunk_rows, *self._shape[1:])
        if out.dtype != self._dtype or out.shape != shape:
            raise ValueError(
                f"out is {out.dtype} {out.shape}, {count:,} chunks of {self.layout.name} are "
                f"{self._dtype} {shape}"
            )
        if self._coder is None:
            self._route.read_run(index, count, out, scratch)
            self._require_present(out, index * self._chunk_rows)
        else:
            for i in range(count):
                first = i * self._chunk_rows
                self.read(index + i, out[first : first + self._chunk_rows], scratch)
        return min(rows, count * self._chunk_rows)

    def read_rows(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Copy rows `start` to `stop`, whatever chunks they lie in.

        The last chunk is kept, but for chunks of which parts can be read. Of those, large ones with
        a checksum are read through before any of their rows are handed out, once for as long as
        their file stays open.

        Parameters
        ----------
        start, stop : int
            Rows, ``0 <= start <= stop <= n_rows``.
        out : ndarray of the layout's dtype, shape (stop - start, *row_shape)
            Takes the rows; C-contiguous where they are read `in_parts`.

        Raises
        ------
        CorruptChunk
            If a chunk is missing, cut short, or fails its checksum or decoding.
        NonFiniteData
            If a row, or one of the same chunk, holds a value that is declared to be missing.
        """
        if not 0 <= start <= stop <= self._n_rows:
            raise IndexError(
                f"rows {start:,} to {stop:,} of {self._n_rows:,} of {self.layout.name}"
            )
        if isinstance(self._route, DirectRoute) and self.in_parts:
            self._route.read_rows(start, stop, out)
            self._require_present(out, start)
            return
        size = self._chunk_rows
        for index in range(start // size, -(-stop // size)):
            first = index * size
            begin, end = max(start, first), min(stop, first + size)
            out[begin - start : end - start] = self._chunk(index)[begin - first : end - first]

    def _require_present(self, rows: NDArray[Any], start: int) -> None:
        """Raise where a row, of those that count, holds a value that is declared to be missing."""
        if self._declared is not None:
            self._declared.require_present(rows[: self._n_rows - start], start, self.layout.name)

    def _chunk(self, index: int) -> NDArray[Any]:
        if self._cached is not None and self._cached[0] == index:
            return self._cached[1]
        if self._cached is None:
            chunk = np.empty(self._shape, self._dtype)
            scratch = np.empty(self.scratch_bytes, np.uint8)
        else:
            _, chunk, scratch = self._cached
        # A read that fails leaves no chunk under a wrong number.
        self._cached = (-1, chunk, scratch)
        self.read(index, chunk, scratch)
        self._cached = (index, chunk, scratch)
        return chunk

    def prefetch(self, start: int, stop: int) -> None:
        """Have rows read ahead, where the operating system can."""
        self._route.prefetch(start, min(stop, self._n_rows))

    def require_same(self) -> None:
        """Raise if the array is another one than was opened, where its shards don't tell.

        Where it doesn't raise, all that was read before is of the array that was opened: a store is
        replaced in one direction.

        Raises
        ------
        StoreChanged
            If it was replaced, changed or removed.
        """
        if self.layout.stamp is not None:
            self.layout.stamp.require_same()

    def close(self) -> None:
        """Close its files; a further `read` opens them again."""
        self._route.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        if error is None:
            self.require_same()
