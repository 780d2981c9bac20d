"""Reading of chunks and rows of one array into the caller's buffers."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ooc_train.store.format.arrays import ArrayLayout
from ooc_train.store.reading.direct import DirectRoute
from ooc_train.store.reading.label_coder import LabelCoder
from ooc_train.store.reading.zarr_route import ZarrRoute

_MAX_RUN = 512
"""Chunks of one `read_run`: a system call takes 1,024 buffers, two for each chunk."""


class ChunkReader:
    """Reads the chunks of one array; each thread needs its own reader.

    A context manager. Its exit closes the files, and raises `StoreChanged` if an array without
    shard identities was replaced meanwhile. Otherwise, call `require_same` after reading and before
    using the rows.

    Parameters
    ----------
    layout : ArrayLayout
        Layout of the array, such as ``open_store(path).X``.

    Attributes
    ----------
    scratch_bytes : int
        Bytes of the buffer that `read` needs for encoded chunks; 0 if none is needed.
    hidden_bytes : int
        Most bytes that a `read` allocates by itself: in zarr-python (0 on the direct route), and
        for the labels of a chunk, where labels are encoded.
    in_parts : bool
        Whether `read_rows` reads only the rows it returns, and not whole chunks.
    cache_bytes : int
        Bytes that the reader keeps from the first `read_rows` on.
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
        self._missing_values = layout.missing_values
        self._n_rows = layout.n_rows
        self._chunk_rows = layout.chunk_rows
        self._cached: tuple[int, NDArray[Any], NDArray[np.uint8]] | None = None

    @property
    def decoding(self) -> float:
        """Seconds spent on decompression, as far as they are known separately."""
        return self._route.decoding

    def read(self, index: int, out: NDArray[Any], scratch: NDArray[np.uint8] | None = None) -> int:
        """Read and decode chunk `index` into `out`.

        Parameters
        ----------
        out : ndarray of the layout's dtype, shape (chunk_rows, *row_shape), C-contiguous
            Receives the rows. Beyond the rows in use, its content is undefined.
        scratch : ndarray of uint8, shape (scratch_bytes,), optional
            Buffer for the encoded chunk, needed unless `scratch_bytes` is 0.

        Returns
        -------
        int
            Rows in use: `chunk_rows`, or fewer in the last chunk.

        Raises
        ------
        CorruptChunk
            If the chunk is missing, cut short, or fails its checksum or decoding.
        NonFiniteData
            If it holds a value that the array's attributes declare to be missing.
        InvalidStore
            If it holds a label without a code.
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
            labels = self._coder.buffer()
            self._route.read(index, labels, scratch)
            self._require_present(labels, start)
            self._coder.encode(labels[:rows], out, start)
        return min(rows, self._chunk_rows)

    def read_run(
        self, index: int, count: int, out: NDArray[Any], scratch: NDArray[np.uint8] | None = None
    ) -> int:
        """Decode up to 512 consecutive chunks, small ones with far fewer system calls than `read`.

        Arguments, result and errors are those of `read`, with `out` for the rows of all these
        chunks.
        """
        rows = self._n_rows - index * self._chunk_rows
        if rows <= (count - 1) * self._chunk_rows or index < 0 or not 0 < count <= _MAX_RUN:
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
        """Copy rows `start` to `stop`, across chunks.

        The reader keeps the last chunk, unless chunks are readable `in_parts`. Such a chunk with a
        checksum is verified as a whole before its first rows are returned, once while its file
        stays open.

        Parameters
        ----------
        start, stop : int
            Rows, ``0 <= start <= stop <= n_rows``.
        out : ndarray of the layout's dtype, shape (stop - start, *row_shape)
            Receives the rows; C-contiguous if the reader is `in_parts`.

        Raises
        ------
        CorruptChunk
            If a chunk is missing, cut short, or fails its checksum or decoding.
        NonFiniteData
            If a row, or another row of its chunk, holds a value declared to be missing.
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
        """Raise if a row in use holds a value declared to be missing."""
        if self._missing_values is not None:
            self._missing_values.require_present(
                rows[: self._n_rows - start], start, self.layout.name
            )

    def _chunk(self, index: int) -> NDArray[Any]:
        if self._cached is not None and self._cached[0] == index:
            return self._cached[1]
        if self._cached is None:
            chunk = np.empty(self._shape, self._dtype)
            scratch = np.empty(self.scratch_bytes, np.uint8)
        else:
            _, chunk, scratch = self._cached
        # A failed read must leave no chunk under a wrong number.
        self._cached = (-1, chunk, scratch)
        self.read(index, chunk, scratch)
        self._cached = (index, chunk, scratch)
        return chunk

    def prefetch(self, start: int, stop: int) -> None:
        """Ask the operating system to load rows, where it can."""
        self._route.prefetch(start, min(stop, self._n_rows))

    def require_same(self) -> None:
        """Raise `StoreChanged` if an array without shard identities was replaced meanwhile.

        If this doesn't raise, all earlier reads were of the array that was opened.
        """
        if self.layout.stamp is not None:
            self.layout.stamp.require_same()

    def close(self) -> None:
        """Close the files; a later `read` opens them again."""
        self._route.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.close()
        if error is None:
            self.require_same()
