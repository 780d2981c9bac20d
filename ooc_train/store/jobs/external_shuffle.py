"""Rows through the disk: scattered by random keys, read back in the order of the keys.

A permutation is the rows sorted by a random key of each row's number. To sort more rows than fit
into memory by keys that are uniform is the distribution of Rao (1961, "Generation of random
permutations of given number of elements using random sampling numbers") as Sanders (1998, "Random
permutations on distributed, external and hierarchical memory") has it for disks: send each row to
one of many buckets, which a range of keys makes; then permute each bucket in memory. The keys are a
function of the seed and the row's number alone, so neither the room, nor the number of buckets, nor
the cutting of rows into calls changes the order.

Rows gather in a block. A full block is ordered by bucket and written in one go to one file without
a name, which vanishes with the process whatever ends it. A bucket thus is an extent of every block.
"""

import errno
import itertools
import math
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
from ooc_train.store.jobs.shuffle_sizes import (
    EXTENT_BYTES,
    KEY_BYTES,
    LEAST_BLOCK,
    OVERHEAD,
    PLACE_BYTES,
    READ_ONCE,
    ShuffleSizes,
)


class ExternalShuffle(Closing):
    """Records on disk, given in one order and read back in another; a context manager.

    `add` takes records, `blocks` gives them in the order of the random keys of their row numbers,
    or, without a seed, as they came. What it holds at any time stays within `room`.

    A bucket is read back in one go if it fits: with ``room`` bytes, and so many expected, the rows
    can take about 0.04 x room^1.5 bytes (20 GB in 64 MiB, 1.3 TB in 1 GiB). Larger ones, and those
    of rows that were more than expected, are read several times, a range of keys each time.

    Parameters
    ----------
    dtype : structured dtype
        Of a record. Its first field is "row", int64: the row's number, different for each.
    directory : str or os.PathLike
        Where the file without a name will lie; it takes as many bytes as the records.
    room : int
        Bytes of memory that may be held, at least `least_bytes`.
    seed : int or None
        Of the random order, at least 0; None keeps the order in which records came.
    expected_bytes : int, optional
        Of all records. Too many does little harm; too few makes reading back slower.

    Raises
    ------
    ValueError
        If the dtype is no such record, or the room too small.
    OSError
        If the disk is full or can't be written.
    """

    def __init__(
        self,
        dtype: np.dtype[Any],
        directory: str | os.PathLike[str],
        *,
        room: int,
        seed: int | None,
        expected_bytes: int | None = None,
    ) -> None:
        if dtype.hasobject or not dtype.names or dtype[0] != np.int64 or dtype.names[0] != "row":
            raise ValueError(f"records of {dtype} don't begin with a field 'row' of int64")
        least = self.least_bytes(dtype.itemsize)
        if room < least:
            raise ValueError(
                f"room={approximate_bytes(room)} is too small for records of {dtype.itemsize:,} "
                f"bytes, which take {approximate_bytes(least)}"
            )
        self.dtype = dtype
        self.n_rows = 0
        self._directory = os.fspath(directory)
        self._seed = seed
        self._sizes = ShuffleSizes.of(dtype.itemsize, room)
        rows = None if expected_bytes is None else -(-expected_bytes // dtype.itemsize)
        self._bits = 0 if seed is None else self._sizes.buckets(rows).bit_length() - 1
        # What is gathered is a plain run of bytes, several times faster than field by field.
        self._plain = np.dtype(f"V{dtype.itemsize}")
        # The one large piece of memory: a block while scattering, two buckets while reading back.
        self._arena = np.empty(self._sizes.block_rows, self._plain)
        self._piece = np.empty(self._sizes.piece_rows, self._plain)
        self._filled = 0
        self._reading = False
        self._bounds = np.zeros(self._sizes.cells + 1, np.int64)
        self._n_extents = 0
        with explain_os_errors(self._directory):
            self._file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115

    @classmethod
    def least_bytes(cls, record: int, expected_bytes: int = 0) -> int:
        """Give the least room for records of so many bytes each, and so many in all.

        At least 16 of them make a block; and none is read back more than about three times.
        """
        needed = OVERHEAD + 2 * (record + KEY_BYTES) + LEAST_BLOCK * (record + PLACE_BYTES)
        # Of a room, 13/128 go to extents and at most 2/32 to pieces.
        block = -(-needed * 128 // (128 - 13 - 8))
        few_goes = math.ceil(math.pow(expected_bytes / READ_ONCE, 2 / 3) / 2)
        return max(block, few_goes)

    @classmethod
    def ample_bytes(cls, record: int, expected_bytes: int) -> int:
        """Give the room beyond which more gains nothing: buckets are read in pieces of 1 MiB."""
        enough = max(64 * 2**20, math.isqrt(4 * EXTENT_BYTES * expected_bytes))
        return max(enough, cls.least_bytes(record, expected_bytes))

    @property
    def n_bytes(self) -> int:
        """Bytes of the records."""
        return self.n_rows * self.dtype.itemsize

    def add(self, records: NDArray[Any]) -> None:
        """Take records.

        Parameters
        ----------
        records : ndarray of the dtype, shape (row,), C-contiguous
            Any number of them.

        Raises
        ------
        OSError
            If the disk is full or can't be written.
        """
        if records.dtype != self.dtype or records.ndim != 1:
            raise ValueError(f"records are {records.dtype}, the spool takes {self.dtype}")
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
            self._note(np.array([len(block)]))
            return
        # Of one or two bytes: NumPy sorts these by radix.
        buckets = np.empty(len(block), np.uint8 if self._bits <= 8 else np.uint16)
        rows, step = block.view(self.dtype)["row"], self._sizes.piece_rows
        for start in range(0, len(block), step):
            keys = row_keys(rows[start : start + step], self._seed or 0)
            buckets[start : start + step] = keys >> np.uint64(64 - self._bits)
        counts = np.bincount(buckets, minlength=2**self._bits)
        order = buckets.argsort(kind="stable")
        for start in range(0, len(block), step):
            self._write(self._gather(block, order[start : start + step]))
        self._note(counts)

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

    def _note(self, counts: NDArray[np.int64]) -> None:
        """Note the extents of a block, one a bucket; where there is no room, halve the buckets."""
        while self._bits and self._n_extents + len(counts) > self._sizes.cells:
            self._bits -= 1
            counts = counts.reshape(-1, 2).sum(axis=1)
            halved = self._bounds[: self._n_extents + 1 : 2].copy()
            self._n_extents //= 2
            self._bounds[: len(halved)] = halved
        if self._bits == 0:
            # One bucket: what was written follows one another, whatever the blocks.
            self._bounds[:2] = 0, self._bounds[self._n_extents] + counts.sum()
            self._n_extents = 1
            return
        first = self._n_extents
        self._n_extents += len(counts)
        np.cumsum(counts, out=self._bounds[first + 1 : self._n_extents + 1])
        self._bounds[first + 1 : self._n_extents + 1] += self._bounds[first]

    def blocks(self) -> Generator[NDArray[Any], None, None]:
        """Give all records in their final order, in pieces; as often as one likes.

        Yields
        ------
        ndarray of the dtype, shape (row,)
            About 1 MiB. It lies in a buffer that the next piece overwrites.

        Raises
        ------
        ValueError
            If two records have the same row number; or while the pieces of another call are read.
        OSError
            If the disk is full or can't be read.
        """
        if self._reading:
            raise ValueError("blocks() is being read already")
        self._flush()
        self._reading = True
        try:
            step = self._sizes.piece_rows
            with closing(prefetched(self._loads())) as loads:
                for records, order in loads:
                    for start in range(0, len(records), step):
                        if order is None:
                            piece = records[start : start + step]
                        else:
                            piece = self._gather(records, order[start : start + step])
                        yield piece.view(self.dtype)
        finally:
            self._reading = False

    def _loads(self) -> Iterator[tuple[NDArray[Any], NDArray[np.int64] | None]]:
        """Give bucket after bucket, or what of it fits, and the order of its records."""
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
        """Give the records of a bucket, in as many ranges of keys as it takes."""
        count = sum(stop - start for start, stop in self._extents(bucket))
        width = 2 ** (64 - self._bits)
        low, end = bucket * width, (bucket + 1) * width
        step = -(-width // max(1, -(-count // self._sizes.sure_rows)))
        buffer = next(buffers)
        if count <= len(buffer):
            low, filled = end, 0
            for start, stop in self._extents(bucket):
                self._read(start, buffer[filled : filled + stop - start])
                filled += stop - start
            yield buffer[:filled]
        while low < end:
            high = min(low + step, end)
            found = self._pick(bucket, low, high, buffer, scratch)
            if found is not None:
                yield buffer[:found]
                low = high
                # The buffers take turns with what is yielded: none may be skipped.
                buffer = next(buffers) if low < end else buffer
            elif step == 1:
                raise ValueError("several records have the same row number")
            else:
                step = max(1, step // 2)

    def _extents(self, bucket: int) -> Iterator[tuple[int, int]]:
        """Give where the records of a bucket lie, one range of each block."""
        for place in range(bucket, self._n_extents, 2**self._bits):
            start, stop = int(self._bounds[place]), int(self._bounds[place + 1])
            if start < stop:
                yield start, stop

    def _pick(
        self, bucket: int, low: int, high: int, out: NDArray[Any], scratch: NDArray[Any]
    ) -> int | None:
        """Read the records with keys from `low` to below `high`; None if they don't fit."""
        found = 0
        for first, stop in self._extents(bucket):
            for start in range(first, stop, len(scratch)):
                records = scratch[: stop - start]
                self._read(start, records)
                keys = row_keys(records.view(self.dtype)["row"], self._seed or 0)
                wanted = (keys >= np.uint64(low)) & (keys <= np.uint64(high - 1))
                count = int(np.count_nonzero(wanted))
                if found + count > len(out):
                    return None
                np.compress(wanted, records, out=out[found : found + count])
                found += count
        return found

    def _read(self, start: int, out: NDArray[Any]) -> None:
        """Read consecutive records of the file."""
        view, offset = out.view(np.uint8).data, start * self.dtype.itemsize
        while view:
            count = os.preadv(self._file.fileno(), [view], offset)
            if count == 0:
                raise OSError(errno.EIO, "a temporary file ends too early", self._directory)
            view, offset = view[count:], offset + count

    def close(self) -> None:
        """Remove the records from the disk."""
        self._file.close()
