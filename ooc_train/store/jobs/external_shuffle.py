"""External shuffle: records go to disk in one order, and come back in random order.

A permutation sorts the rows by a random key of each row's number. With more rows than memory, each
row goes to one of many buckets: ranges of keys. Each bucket is sorted in memory. This is the
distribution of Rao (1961, "Generation of random permutations of given number of elements using
random sampling numbers"), in the form for disks of Sanders (1998, "Random permutations on
distributed, external and hierarchical memory"). Keys depend only on seed and row number. So memory,
number of buckets and division of rows into calls don't change the order.

Rows collect in a block. A full block is ordered by bucket and written at once to a single unnamed
file, which vanishes with the process. So a bucket is one extent of every block.
"""

import errno
import itertools
import os
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.closing import Closing
from ooc_train.core.output_kinds import explain_os_errors
from ooc_train.core.prefetch import prefetched
from ooc_train.core.units import approximate_bytes
from ooc_train.store.jobs.shuffle_keys import row_keys
from ooc_train.store.jobs.shuffle_sizes import ShuffleSizes, least_memory


class ExternalShuffle(Closing):
    """Records on disk, added in one order and read back in another; a context manager.

    `add` takes records. `blocks` yields them in the order of their rows' random keys, or without a
    seed in the order in which they were added. The shuffle holds at most `memory_bytes`.

    A bucket that fits into its buffer is read back once. With ``m`` bytes of memory that holds for
    about 0.04 x m^1.5 expected bytes (20 GB in 64 MiB, 1.3 TB in 1 GiB). A larger bucket is read
    several times, one range of keys each time.

    Parameters
    ----------
    dtype : structured dtype
        Type of a record. Its first field is "row", int64: the row number, different for each
        record.
    directory : str or os.PathLike
        Folder of the unnamed file, which takes as many bytes as the records.
    memory_bytes : int
        Bytes of memory, at least `least_memory`.
    seed : int or None
        Seed of the random order, at least 0; None keeps the order.
    expected_bytes : int, optional
        Bytes of all records. If too few, reading back gets slower; too many does little harm.

    Raises
    ------
    ValueError
        If the dtype doesn't fit, or `memory_bytes` is too small.
    OSError
        If the disk is full or not writable.
    """

    def __init__(
        self,
        dtype: np.dtype[Any],
        directory: str | os.PathLike[str],
        *,
        memory_bytes: int,
        seed: int | None,
        expected_bytes: int | None = None,
    ) -> None:
        if dtype.hasobject or not dtype.names or dtype[0] != np.int64 or dtype.names[0] != "row":
            raise ValueError(f"records of {dtype} don't begin with a field 'row' of int64")
        least = least_memory(dtype.itemsize)
        if memory_bytes < least:
            raise ValueError(
                f"memory_bytes={approximate_bytes(memory_bytes)} is too small for records of "
                f"{dtype.itemsize:,} bytes, which take {approximate_bytes(least)}"
            )
        self.dtype = dtype
        self.n_rows = 0
        self._directory = os.fspath(directory)
        self._seed = seed
        self._sizes = ShuffleSizes.of(dtype.itemsize, memory_bytes)
        rows = None if expected_bytes is None else -(-expected_bytes // dtype.itemsize)
        self._bits = 0 if seed is None else self._sizes.buckets(rows).bit_length() - 1
        # Records are copied as plain bytes, several times faster than field by field.
        self._plain = np.dtype(f"V{dtype.itemsize}")
        # The one large array: a block while scattering, two buckets while reading back.
        self._arena = np.empty(self._sizes.block_rows, self._plain)
        self._piece = np.empty(self._sizes.piece_rows, self._plain)
        self._filled = 0
        self._reading = False
        self._bounds = np.zeros(self._sizes.cells + 1, np.int64)
        self._n_extents = 0
        with explain_os_errors(self._directory):
            self._file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115

    @property
    def n_bytes(self) -> int:
        """Bytes of all records."""
        return self.n_rows * self.dtype.itemsize

    def add(self, records: NDArray[Any]) -> None:
        """Add records; `ValueError` is raised while `blocks` is being read."""
        if records.dtype != self.dtype or records.ndim != 1:
            raise ValueError(f"records are {records.dtype}, the shuffle takes {self.dtype}")
        if self._reading:
            raise ValueError("records can't be added while blocks() is being read")
        plain, start = records.view(self._plain), 0
        while start < len(plain):
            count = min(len(plain) - start, len(self._arena) - self._filled)
            self._arena[self._filled : self._filled + count] = plain[start : start + count]
            self._filled += count
            self.n_rows += count
            start += count
            if self._filled == len(self._arena):
                self._flush()

    def _flush(self) -> None:
        """Write the block, ordered by bucket."""
        block, self._filled = self._arena[: self._filled], 0
        if not len(block):
            return
        if self._bits == 0:
            self._write(block)
            self._record_extents(np.array([len(block)]))
            return
        # NumPy sorts types of one or two bytes by radix.
        buckets = np.empty(len(block), np.uint8 if self._bits <= 8 else np.uint16)
        rows, step = block.view(self.dtype)["row"], self._sizes.piece_rows
        for start in range(0, len(block), step):
            keys = row_keys(rows[start : start + step], self._seed or 0)
            buckets[start : start + step] = keys >> np.uint64(64 - self._bits)
        counts = np.bincount(buckets, minlength=2**self._bits)
        order = buckets.argsort(kind="stable")
        for start in range(0, len(block), step):
            self._write(self._gather(block, order[start : start + step]))
        self._record_extents(counts)

    def _gather(self, records: NDArray[Any], order: NDArray[np.int64]) -> NDArray[Any]:
        piece = self._piece[: len(order)]
        # Any mode but "raise" lets take write straight into `out`.
        np.take(records, order, out=piece, mode="clip")
        return piece

    def _write(self, records: NDArray[Any]) -> None:
        view = records.view(np.uint8).data
        with explain_os_errors(self._directory):
            while view:
                view = view[os.write(self._file.fileno(), view) :]

    def _record_extents(self, counts: NDArray[np.int64]) -> None:
        """Record a block's extents, one a bucket; merge pairs of buckets if there are too many."""
        while self._bits and self._n_extents + len(counts) > self._sizes.cells:
            self._bits -= 1
            counts = counts.reshape(-1, 2).sum(axis=1)
            merged = self._bounds[: self._n_extents + 1 : 2].copy()
            self._n_extents //= 2
            self._bounds[: len(merged)] = merged
        if self._bits == 0:
            # A single bucket is one extent, across all blocks.
            self._bounds[:2] = 0, self._bounds[self._n_extents] + counts.sum()
            self._n_extents = 1
            return
        first = self._n_extents
        self._n_extents += len(counts)
        np.cumsum(counts, out=self._bounds[first + 1 : self._n_extents + 1])
        self._bounds[first + 1 : self._n_extents + 1] += self._bounds[first]

    def blocks(self) -> Generator[NDArray[Any], None, None]:
        """Yield all records in their final order, in pieces; may be called repeatedly.

        Yields
        ------
        ndarray of the dtype, shape (row,)
            About 1 MiB, in a buffer that the next piece overwrites.

        Raises
        ------
        ValueError
            If two records have the same row number, or another call is being read.
        OSError
            If the disk is full or not readable.
        """
        if self._reading:
            raise ValueError("blocks() is being read already")
        self._flush()
        self._reading = True
        try:
            step = self._sizes.piece_rows
            with closing(prefetched(self._sorted_parts())) as parts:
                for records, order in parts:
                    for start in range(0, len(records), step):
                        if order is None:
                            piece = records[start : start + step]
                        else:
                            piece = self._gather(records, order[start : start + step])
                        yield piece.view(self.dtype)
        finally:
            self._reading = False

    def _sorted_parts(self) -> Iterator[tuple[NDArray[Any], NDArray[np.int64] | None]]:
        """Yield each bucket, or each part that fits into memory, with the order of its records."""
        size = self._sizes.bucket_rows
        buffers = itertools.cycle((self._arena[:size], self._arena[size : 2 * size]))
        if self._seed is None:
            for start in range(0, self.n_rows, size):
                records = next(buffers)[: self.n_rows - start]
                self._read(start, records)
                yield records, None
            return
        scratch = np.empty(self._sizes.piece_rows, self._plain)
        for bucket in range(2**self._bits):
            for records in self._parts(bucket, buffers, scratch):
                yield records, row_keys(records.view(self.dtype)["row"], self._seed).argsort()

    def _parts(
        self, bucket: int, buffers: Iterator[NDArray[Any]], scratch: NDArray[Any]
    ) -> Iterator[NDArray[Any]]:
        """Yield the records of a bucket, in as many ranges of keys as necessary."""
        count = sum(stop - start for start, stop in self._extents(bucket))
        width = 2 ** (64 - self._bits)
        low, end = bucket * width, (bucket + 1) * width
        step = -(-width // max(1, -(-count // self._sizes.safe_bucket_rows)))
        buffer = next(buffers)
        if count <= len(buffer):
            low, filled = end, 0
            for start, stop in self._extents(bucket):
                self._read(start, buffer[filled : filled + stop - start])
                filled += stop - start
            yield buffer[:filled]
        while low < end:
            high = min(low + step, end)
            n_picked = self._pick(bucket, low, high, buffer, scratch)
            if n_picked is not None:
                yield buffer[:n_picked]
                low = high
                # Buffers alternate with the yielded parts, so none may be skipped.
                buffer = next(buffers) if low < end else buffer
            elif step == 1:
                raise ValueError("several records have the same row number")
            else:
                step = max(1, step // 2)

    def _extents(self, bucket: int) -> Iterator[tuple[int, int]]:
        """Yield (start, stop) of a bucket's records in the file, one range a block."""
        for cell in range(bucket, self._n_extents, 2**self._bits):
            start, stop = int(self._bounds[cell]), int(self._bounds[cell + 1])
            if start < stop:
                yield start, stop

    def _pick(
        self, bucket: int, low: int, high: int, out: NDArray[Any], scratch: NDArray[Any]
    ) -> int | None:
        """Read records with keys in [low, high) and return their number; None if they don't fit."""
        filled = 0
        for first, stop in self._extents(bucket):
            for start in range(first, stop, len(scratch)):
                records = scratch[: stop - start]
                self._read(start, records)
                keys = row_keys(records.view(self.dtype)["row"], self._seed or 0)
                selected = (keys >= np.uint64(low)) & (keys <= np.uint64(high - 1))
                stop_row = filled + int(np.count_nonzero(selected))
                if stop_row > len(out):
                    return None
                np.compress(selected, records, out=out[filled:stop_row])
                filled = stop_row
        return filled

    def _read(self, start: int, out: NDArray[Any]) -> None:
        """Fill `out` with consecutive records of the file, from record `start` on."""
        view, offset = out.view(np.uint8).data, start * self.dtype.itemsize
        while view:
            count = os.preadv(self._file.fileno(), [view], offset)
            if count == 0:
                raise OSError(errno.EIO, "a temporary file ends too early", self._directory)
            view, offset = view[count:], offset + count

    def close(self) -> None:
        """Remove the records from the disk."""
        self._file.close()
