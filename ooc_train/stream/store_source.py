"""The chunks of a store as a source, and their reader."""

import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.random_share import RandomShare
from ooc_train.core.sums import Arrays, ArraySpec, Block, Workspace
from ooc_train.store.dataset import Store
from ooc_train.store.format.arrays import ArrayLayout
from ooc_train.store.format.chunk_sizes import default_chunk_rows
from ooc_train.store.format.shares import StoreShare
from ooc_train.store.jobs.rewriting_commands import rechunk_command
from ooc_train.store.reading.chunks import ChunkReader
from ooc_train.stream.classes import codes_of
from ooc_train.stream.order import MIXED_CHUNKS
from ooc_train.stream.sources import model_dtype, partitions_per_group

_RUN_PARTITIONS, _RUN_BYTES = 16, 2**18
"""Most chunks whose y is read by one call, and most bytes of y as float64."""


@dataclass(frozen=True)
class StoreSource:
    """The rows of a store, as a small value that any process can read.

    Attributes
    ----------
    X, y, weight : ArrayLayout
        The arrays, X in two axes; y and weight may be None.
    n_rows : int
        Rows of the source.
    shuffled : bool
        Whether the rows lie in random order.
    path : str
        Path of the store, for messages.
    labels : tuple, or None
        Labels that y holds, by their codes; None if y holds codes.
    within : StoreShare or None
        The share of the store whose rows are the data; None for all rows of the store.
    share : RandomShare or None
        Which partitions of the data the source has; None for all.
    opened : str
        Random token of this object. A kept reader has open files, which a later store at the same
        path may have replaced, so sources opened at different times differ.
    """

    X: ArrayLayout
    y: ArrayLayout | None
    weight: ArrayLayout | None
    n_rows: int
    shuffled: bool
    path: str = ""
    labels: tuple[int | float, ...] | None = None
    within: StoreShare | None = None
    share: RandomShare | None = None
    opened: str = field(default_factory=lambda: secrets.token_hex(8), repr=False)

    @classmethod
    def of(
        cls, store: Store, *, needs_y: bool = True, labels: tuple[int | float, ...] | None = None
    ) -> "StoreSource":
        """Return the source of a store, with y and weights if the job needs them."""
        return cls(
            store.X.flat,
            store.y if needs_y else None,
            store.sample_weight if needs_y else None,
            store.n_rows,
            store.shuffled is not None,
            store.whole_path,
            labels,
            store.share,
        )

    def first_rows(self, n_rows: int) -> "StoreSource":
        """Return the source of the first rows alone, though the arrays hold more."""
        return replace(
            self,
            X=self.X.with_rows(n_rows),
            y=self.y and self.y.with_rows(n_rows),
            weight=self.weight and self.weight.with_rows(n_rows),
            n_rows=n_rows,
        )

    def restricted(self, share: RandomShare) -> "StoreSource":
        """Return the source of a share of the partitions; row numbers stay those of the data."""
        rows = sum(stop - start for start, stop in replace(self, share=share).stored_runs())
        return replace(self, n_rows=rows, share=share)

    def stored_partitions(self, partitions: Sequence[int]) -> Sequence[int]:
        """Return the numbers that partitions of the source have in the store."""
        if self.share is None and self.within is None:
            return partitions
        numbers = np.asarray(partitions, np.intp)
        if self.share is not None:
            numbers = self.share.partitions[numbers]
        if self.within is not None:
            numbers = self.within.drawn.partitions[numbers]
        found: list[int] = numbers.tolist()
        return found

    def number_of(self, partition: int) -> int:
        """Return the number within the data of the first row of a partition of the store."""
        if self.within is not None:
            partition = int(np.searchsorted(self.within.drawn.partitions, partition))
        return partition * self.partition_rows

    def stored_runs(self, most: int = 2**62) -> Iterator[tuple[int, int]]:
        """Yield the rows of the source as runs of rows of the store, each of `most` at most."""
        runs: Iterable[tuple[int, int]] = [(0, self.X.n_rows)]
        numbers: NDArray[np.intp] | None = None if self.share is None else self.share.partitions
        if self.within is not None:
            drawn = self.within.drawn.partitions
            numbers = drawn if numbers is None else drawn[numbers]
        if numbers is not None:
            size = self.partition_rows
            runs = ((i * size, (i + 1) * size) for i in numbers.tolist())
        for first, end in runs:
            end = min(end, self.X.n_rows)
            for start in range(first, end, most):
                yield start, min(start + most, end)

    @property
    def layouts(self) -> dict[str, ArrayLayout]:
        """The arrays by role."""
        found = {"X": self.X, "y": self.y, "sample_weight": self.weight}
        return {role: layout for role, layout in found.items() if layout is not None}

    @property
    def rechunk_command(self) -> str:
        """The command that rewrites the store, and has memory to drop or fill missing values."""
        return rechunk_command(self.path, self.layouts, missing="median")

    @property
    def n_features(self) -> int:
        """Number of columns of X."""
        return int(self.X.shape[1])

    @property
    def n_outputs(self) -> int:
        """Number of columns of y; 0 without y."""
        if self.y is None:
            return 0
        return int(self.y.shape[1]) if len(self.y.shape) == 2 else 1

    @property
    def dtype(self) -> str:
        """Type of X as models see it, "<f4" or "<f8"."""
        return model_dtype(self.X.dtype)

    @property
    def partition_rows(self) -> int:
        """Rows of a chunk, or of a part of a large chunk that can be read in parts."""
        return self.X.part_rows

    @property
    def n_partitions(self) -> int:
        """Number of partitions: the chunks, or parts of chunks, that hold rows."""
        return -(-self.n_rows // self.partition_rows)

    def first_row(self, partition: int) -> int:
        """Return the first row of a partition; of one past the last, the number of rows."""
        return min(partition * self.partition_rows, self.n_rows)

    @property
    def group_partitions(self) -> int:
        """Number of partitions in a partition group of about 8 MiB."""
        return partitions_per_group(self.partition_rows * self.X.row_bytes)

    @property
    def row_bytes(self) -> int:
        """Decoded bytes of a row of X, y and weights."""
        layouts = (self.X, self.y, self.weight)
        return sum(a.chunk_bytes // a.chunk_rows for a in layouts if a is not None)

    @property
    def hidden_bytes(self) -> int:
        """Bytes that zarr-python allocates, and caches of chunks that span several partitions."""
        readers = self.chunk_readers().values()
        caches = sum(reader.cache_bytes for reader in self._other_chunks())
        return caches + max(reader.hidden_bytes for reader in readers)

    def _other_chunks(self) -> list[ChunkReader]:
        """Return readers of the arrays whose chunks differ from partitions."""
        readers = self.chunk_readers().values()
        return [reader for reader in readers if reader.layout.chunk_rows != self.partition_rows]

    @property
    def shuffle_chunks(self) -> int:
        """Number of partitions shuffled together: 1 if rows lie in random order, else 64."""
        return 1 if self.shuffled else MIXED_CHUNKS

    @property
    def run_partitions(self) -> int:
        """Partitions whose y and weights one call reads, since each call has a fixed cost."""
        of_y = 8 * max(1, self.n_outputs) * self.partition_rows
        return max(1, min(self.group_partitions, _RUN_PARTITIONS, _RUN_BYTES // of_y))

    @property
    def oversized(self) -> bool:
        """Whether chunks are larger than the default, and must be read whole."""
        usual = default_chunk_rows(self.n_features, self.X.dtype)
        whole = self.partition_rows == self.X.chunk_rows
        checks = sum(reader.cache_bytes for reader in self._other_chunks() if reader.in_parts)
        hidden = self.hidden_bytes - checks > usual * self.X.row_bytes
        return hidden or (whole and self.partition_rows > usual)

    def buffers(self, partitions: int = 1) -> Workspace:
        """Return the buffers that reading so many partitions at a time needs."""
        rows, run = self.partition_rows, max(partitions, self.run_partitions)
        buffers = {"X": ArraySpec((partitions * rows, self.n_features), self.dtype)}
        if self.X.dtype != self.dtype:
            buffers["X at rest"] = ArraySpec((rows, self.n_features), self.X.dtype)
        for name, layout in (("y", self.y), ("weight", self.weight)):
            if layout is not None:
                width = self.n_outputs if name == "y" else 1
                at_rest = self.run_partitions * rows
                buffers[name] = ArraySpec((run * rows, width))
                buffers[f"{name} at rest"] = ArraySpec((at_rest, *layout.shape[1:]), layout.dtype)
        scratch = max(r.scratch_bytes for r in self.chunk_readers().values())
        if scratch:
            buffers["encoded"] = ArraySpec((scratch,), "u1")
        return buffers

    def require_same(self) -> None:
        """Raise `StoreChanged` if an array was replaced, changed or removed since it was opened."""
        for layout in (self.X, self.y, self.weight):
            if layout is not None and layout.stamp is not None:
                layout.stamp.require_same()

    def chunk_readers(self) -> dict[str, ChunkReader]:
        """Return a reader of the chunks of each array."""
        layouts = {"X": self.X, "y": self.y, "weight": self.weight}
        return {name: ChunkReader(a) for name, a in layouts.items() if a is not None}

    def reader(self) -> "StoreReader":
        """Return a reader, for one thread."""
        return StoreReader(self)


class StoreReader:
    """Reads the chunks of a store into buffers."""

    def __init__(self, source: StoreSource) -> None:
        self._source = source
        self._partition_rows = source.partition_rows
        self._whole = source.X.chunk_rows == self._partition_rows
        self._arrays = source.chunk_readers()

    @property
    def decoding(self) -> float:
        """Seconds of decompression so far."""
        return sum(reader.decoding for reader in self._arrays.values())

    def run(self, partitions: Sequence[int], arrays: Arrays) -> Iterator[Block]:
        """Yield each partition as a block; y and weights of several are read by one call."""
        source, size, of_X = self._source, self._partition_rows, self._arrays["X"]
        X = arrays["X"][:size]
        raw, scratch = arrays.get("X at rest", X), arrays.get("encoded")
        for part in _consecutive(source.stored_partitions(partitions), source.run_partitions):
            for name in self._arrays.keys() - {"X"}:
                self._fill(name, part[0], len(part), arrays, 0)
            first_row = source.number_of(part[0])
            for i, partition in enumerate(part):
                if self._whole:
                    rows = of_X.read(partition, raw, scratch)
                else:
                    rows = min(size, source.X.n_rows - partition * size)
                    of_X.read_rows(partition * size, partition * size + rows, raw[:rows])
                if raw is not X:
                    np.copyto(X[:rows], raw[:rows], casting="unsafe")
                starts = ((0, first_row + i * size),)
                yield self._block(arrays, slice(0, rows), i * size, starts)

    def _fill(self, name: str, partition: int, count: int, arrays: Arrays, at: int) -> None:
        """Read values of consecutive partitions into an array's buffer, from row `at` on."""
        source, reader = self._source, self._arrays[name]
        start, size = partition * self._partition_rows, count * self._partition_rows
        rows = min(size, source.X.n_rows - start)
        into = arrays[name][at : at + size]
        at_rest = arrays.get(f"{name} at rest")
        raw = into if at_rest is None else at_rest[:size]
        if reader.layout.chunk_rows == self._partition_rows:
            reader.read_run(partition, count, raw, arrays.get("encoded"))
        else:
            reader.read_rows(start, start + rows, raw[:rows])
        if name == "y" and source.labels is not None:
            into[:rows, 0] = codes_of(np.asarray(source.labels), raw[:rows])
        elif raw is not into:
            # Whole numbers of 64 bits may round: features and labels are no keys.
            np.copyto(into[:rows], raw[:rows].reshape(rows, -1), casting="unsafe")

    def gather(self, partitions: Sequence[int], arrays: Arrays, at: int = 0) -> Block:
        """Return several partitions as one block, rows in the order of the partitions."""
        size, end, starts = self._partition_rows, at, []
        for partition in self._source.stored_partitions(partitions):
            start = partition * size
            for name in self._arrays:
                self._fill(name, partition, 1, arrays, end)
            starts.append((end - at, self._source.number_of(partition)))
            end += min(size, self._source.X.n_rows - start)
        return self._block(arrays, slice(at, end), at, tuple(starts))

    def prefetch(self, partitions: Sequence[int]) -> None:
        """Ask the operating system for rows of X, nearly all of the bytes."""
        size = self._partition_rows
        for partition in self._source.stored_partitions(partitions):
            self._arrays["X"].prefetch(partition * size, (partition + 1) * size)

    @staticmethod
    def _block(
        arrays: Arrays, rows: slice, of_y: int, starts: tuple[tuple[int, int], ...]
    ) -> Block:
        """Return a block: `rows` of the buffer of X; y and weights from row `of_y` of theirs on."""
        y, weight = arrays.get("y"), arrays.get("weight")
        others = slice(of_y, of_y + rows.stop - rows.start)
        return Block(
            arrays["X"][rows],
            None if y is None else y[others],
            None if weight is None else weight[others, 0],
            starts,
        )


def _consecutive(partitions: Sequence[int], most: int) -> Iterator[Sequence[int]]:
    """Cut partitions into runs of consecutive numbers, each of at most `most`."""
    first = 0
    for i in range(1, len(partitions) + 1):
        if i == len(partitions) or i - first == most or partitions[i] != partitions[i - 1] + 1:
            yield partitions[first:i]
            first = i
