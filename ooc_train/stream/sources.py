"""Where rows come from, behind one face: a store, arrays in memory, or a Dask array.

A source is cut into *partitions*, whose sums are added up in a fixed order: the chunks of a store.
The cut is a function of the data alone and never of the plan, since it decides the last bits.
"""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.partitions import Rows
from ooc_train.core.sums import Array, Arrays, ArraySpec, Block, Workspace
from ooc_train.store.dataset import Store
from ooc_train.store.format.arrays import ArrayLayout
from ooc_train.store.format.chunk_sizes import default_chunk_rows
from ooc_train.store.reading.chunks import ChunkReader
from ooc_train.stream.classes import codes_of
from ooc_train.stream.order import MIXED_CHUNKS

_RUN_PARTITIONS, _RUN_BYTES = 16, 2**18
"""Chunks whose y is read at a time, and as float64 its bytes."""

_LARGE, _PART = 8, 2
"""Chunks of more than so many times the default size are read in parts, where they can be, and how
many times that a part takes: more of it no longer stay in cache."""

_GROUP_BYTES = 8 * 2**20
"""Partitions are summed one after another within a partition group of about so many bytes."""


def model_dtype(dtype: np.dtype[Any] | str) -> str:
    """Return the type of X as models see it: float32 up to 16 bits and for itself, else float64."""
    dtype = np.dtype(dtype)
    return "<f4" if dtype.itemsize <= 2 or dtype == np.float32 else "<f8"


class Reader(Protocol):
    """Reads partitions into buffers that its user owns."""

    @property
    def decoding(self) -> float:
        """Seconds spent on decompressing so far."""
        ...

    def run(self, partitions: Sequence[int], arrays: Arrays) -> Iterator[Block]:
        """Yield partitions one after another, each in the place of the last."""
        ...

    def gather(self, partitions: Sequence[int], arrays: Arrays, at: int = 0) -> Block:
        """Return several partitions as one block, rows in the order of the partitions."""
        ...

    def prefetch(self, partitions: Sequence[int]) -> None:
        """Have partitions brought nearer, if that can be done while others are used."""
        ...


class Source(Rows, Protocol):
    """Rows that passes read, partition by partition."""

    @property
    def n_outputs(self) -> int:
        """Columns of y, 0 where there is none."""
        ...

    @property
    def group_partitions(self) -> int:
        """Partitions of a partition group, the unit of the tree of sums."""
        ...

    @property
    def row_bytes(self) -> int:
        """Bytes of a row, decoded."""
        ...

    @property
    def hidden_bytes(self) -> int:
        """Bytes that a reader allocates beside the buffers that it is given."""
        ...

    @property
    def shuffle_chunks(self) -> int:
        """Partitions that a shuffled scan mixes row by row, unless told otherwise."""
        ...

    def buffers(self, partitions: int = 1) -> Workspace:
        """Return the buffers that reading so many partitions at a time needs."""
        ...

    def reader(self) -> Reader:
        """Return a reader, for one thread."""
        ...


@dataclass(frozen=True)
class StoreSource:
    """The rows of a store: small, and read by whichever process it is sent to."""

    X: ArrayLayout
    y: ArrayLayout | None
    weight: ArrayLayout | None
    n_rows: int
    shuffled: bool
    path: str = ""
    """Of the store, for what users are told."""
    labels: tuple[int | float, ...] | None = None
    """Labels that y holds, by their codes, or None where it holds codes already."""
    opened: str = field(default_factory=lambda: secrets.token_hex(8), repr=False)
    """Tells apart sources that were opened at different times: a reader that was kept for one has
    files open that may since have been replaced."""

    @classmethod
    def of(
        cls, store: Store, *, needs_y: bool = True, labels: tuple[int | float, ...] | None = None
    ) -> "StoreSource":
        """Return the source that reads `store`, y and weights only where the job needs them."""
        return cls(
            store.X,
            store.y if needs_y else None,
            store.sample_weight if needs_y else None,
            store.n_rows,
            store.shuffled is not None,
            store.path,
            labels,
        )

    @property
    def n_features(self) -> int:
        """Columns of X."""
        return int(self.X.shape[1])

    @property
    def n_outputs(self) -> int:
        """Columns of y."""
        if self.y is None:
            return 0
        return int(self.y.shape[1]) if len(self.y.shape) == 2 else 1

    @property
    def dtype(self) -> str:
        """Type of X as models see it: whole numbers and half floats become float32."""
        return model_dtype(self.X.dtype)

    @property
    def partition_rows(self) -> int:
        """Rows of a chunk, or, where it's large and parts of it can be read, of a part.

        A part stays in cache from the read to the gradient, and needs no room for the others. It
        is a partition by the layout alone, whatever the ceiling.
        """
        usual = default_chunk_rows(self.n_features, self.X.dtype)
        if self.X.in_parts and self.X.chunk_rows > _LARGE * usual:
            return _PART * usual
        return self.X.chunk_rows

    @property
    def n_partitions(self) -> int:
        """Chunks, or parts of them, that hold rows."""
        return -(-self.n_rows // self.partition_rows)

    def first_row(self, partition: int) -> int:
        """Return the first row of a partition; of one past the last, the number of rows."""
        return min(partition * self.partition_rows, self.n_rows)

    @property
    def group_partitions(self) -> int:
        """Partitions of about 8 MiB."""
        return max(1, _GROUP_BYTES // (self.partition_rows * self.X.row_bytes))

    @property
    def row_bytes(self) -> int:
        """Bytes of a row, decoded."""
        layouts = (self.X, self.y, self.weight)
        return sum(a.chunk_bytes // a.chunk_rows for a in layouts if a is not None)

    @property
    def hidden_bytes(self) -> int:
        """What zarr-python takes at a time, and what is kept of chunks that are no partitions."""
        readers = self.chunk_readers().values()
        kept = sum(reader.cache_bytes for reader in self._not_by_partitions())
        return kept + max(reader.hidden_bytes for reader in readers)

    def _not_by_partitions(self) -> list[ChunkReader]:
        """Return readers of the arrays whose chunks are no partitions."""
        readers = self.chunk_readers().values()
        return [reader for reader in readers if reader.layout.chunk_rows != self.partition_rows]

    @property
    def shuffle_chunks(self) -> int:
        """One chunk where rows lie in random order already, else many."""
        return 1 if self.shuffled else MIXED_CHUNKS

    @property
    def run_partitions(self) -> int:
        """Chunks whose y and weights are read at a time: a call costs the same for more of them."""
        of_y = 8 * max(1, self.n_outputs) * self.partition_rows
        return max(1, min(self.group_partitions, _RUN_PARTITIONS, _RUN_BYTES // of_y))

    @property
    def oversized(self) -> bool:
        """Whether chunks are larger than usual, and have to be held whole."""
        usual = default_chunk_rows(self.n_features, self.X.dtype)
        whole = self.partition_rows == self.X.chunk_rows
        checks = sum(reader.cache_bytes for reader in self._not_by_partitions() if reader.in_parts)
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
        """Raise if an array is another one than was opened, as `ChunkReader` does.

        Raises
        ------
        StoreChanged
            If one was replaced, changed or removed.
        """
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
        """Seconds spent on decompressing so far."""
        return sum(reader.decoding for reader in self._arrays.values())

    def run(self, partitions: Sequence[int], arrays: Arrays) -> Iterator[Block]:
        """Yield partitions one after another, with y and weights of several read at a time."""
        source, size, of_X = self._source, self._partition_rows, self._arrays["X"]
        X = arrays["X"][:size]
        raw, scratch = arrays.get("X at rest", X), arrays.get("encoded")
        for part in _consecutive(partitions, source.run_partitions):
            for name in self._arrays.keys() - {"X"}:
                self._fill(name, part[0], len(part), arrays, 0)
            for i, partition in enumerate(part):
                if self._whole:
                    rows = of_X.read(partition, raw, scratch)
                else:
                    rows = min(size, source.n_rows - partition * size)
                    of_X.read_rows(partition * size, partition * size + rows, raw[:rows])
                if raw is not X:
                    np.copyto(X[:rows], raw[:rows], casting="unsafe")
                yield self._block(arrays, slice(0, rows), i * size, ((0, partition * size),))

    def _fill(self, name: str, partition: int, count: int, arrays: Arrays, at: int) -> None:
        """Read an array's values of consecutive partitions to row `at` of its buffer."""
        source, reader = self._source, self._arrays[name]
        start, size = partition * self._partition_rows, count * self._partition_rows
        rows = min(size, source.n_rows - start)
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
            # Whole numbers of 64 bits may round: they are features or labels, not keys.
            np.copyto(into[:rows], raw[:rows].reshape(rows, -1), casting="unsafe")

    def gather(self, partitions: Sequence[int], arrays: Arrays, at: int = 0) -> Block:
        """Return several partitions as one block, rows in the order of the partitions."""
        size, end, starts = self._partition_rows, at, []
        for partition in partitions:
            start = partition * size
            for name in self._arrays:
                self._fill(name, partition, 1, arrays, end)
            starts.append((end - at, start))
            end += min(size, self._source.n_rows - start)
        return self._block(arrays, slice(at, end), at, tuple(starts))

    def prefetch(self, partitions: Sequence[int]) -> None:
        """Ask the operating system for rows of X, which are nearly all there is to read."""
        size = self._partition_rows
        for partition in partitions:
            self._arrays["X"].prefetch(partition * size, (partition + 1) * size)

    @staticmethod
    def _block(
        arrays: Arrays, rows: slice, of_y: int, starts: tuple[tuple[int, int], ...]
    ) -> Block:
        """Return rows of X, with as many of y and weights from row `of_y` of their buffers."""
        y, weight = arrays.get("y"), arrays.get("weight")
        others = slice(of_y, of_y + rows.stop - rows.start)
        return Block(
            arrays["X"][rows],
            None if y is None else y[others],
            None if weight is None else weight[others, 0],
            starts,
        )


def _consecutive(partitions: Sequence[int], most: int) -> Iterator[Sequence[int]]:
    """Cut partitions into runs that follow one another, of at most so many."""
    first = 0
    for i in range(1, len(partitions) + 1):
        if i == len(partitions) or i - first == most or partitions[i] != partitions[i - 1] + 1:
            yield partitions[first:i]
            first = i


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Rows that lie in memory: read in place, in the process that holds them.

    Attributes
    ----------
    X : float32 or float64 array (rows, features), C-contiguous
    y : float64 array (rows, outputs), or None
    weight : float64 array (rows,), or None
    """

    X: NDArray[np.floating]
    y: Array | None = None
    weight: Array | None = None
    decoding: ClassVar[float] = 0.0

    @property
    def n_rows(self) -> int:
        """Rows."""
        return int(self.X.shape[0])

    @property
    def n_features(self) -> int:
        """Columns of X."""
        return int(self.X.shape[1])

    @property
    def n_outputs(self) -> int:
        """Columns of y."""
        return 0 if self.y is None else int(self.y.shape[1])

    @property
    def dtype(self) -> str:
        """Type of X."""
        return self.X.dtype.str

    @property
    def partition_rows(self) -> int:
        """Rows of the chunks that a store of the same shape would have."""
        return default_chunk_rows(self.n_features, self.dtype)

    @property
    def n_partitions(self) -> int:
        """Partitions that hold rows."""
        return -(-self.n_rows // self.partition_rows)

    def first_row(self, partition: int) -> int:
        """Return the first row of a partition; of one past the last, the number of rows."""
        return min(partition * self.partition_rows, self.n_rows)

    @property
    def group_partitions(self) -> int:
        """Partitions of about 8 MiB."""
        return max(1, _GROUP_BYTES // (self.partition_rows * self.n_features * self.X.itemsize))

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.n_features * self.X.itemsize

    @property
    def hidden_bytes(self) -> int:
        """Nothing: rows are read where they lie."""
        return 0

    @property
    def shuffle_chunks(self) -> int:
        """All chunks: a scan of rows in memory takes them in truly random order."""
        return self.n_partitions

    def buffers(self, partitions: int = 1) -> Workspace:
        """Return no buffers: rows are read where they lie."""
        del partitions
        return {}

    def reader(self) -> "ArraySource":
        """Return the source itself."""
        return self

    def _rows(self, rows: slice) -> Block:
        y = None if self.y is None else self.y[rows]
        weight = None if self.weight is None else self.weight[rows]
        return Block(self.X[rows], y, weight, ((0, rows.start),))

    def run(self, partitions: Sequence[int], arrays: Arrays) -> Iterator[Block]:
        """Yield partitions, in place."""
        del arrays
        for partition in partitions:
            start = partition * self.partition_rows
            yield self._rows(slice(start, start + self.partition_rows))

    def gather(self, partitions: Sequence[int], arrays: Arrays, at: int = 0) -> Block:
        """Return the partitions as one block, in place where they are all there are."""
        del arrays, at
        if tuple(partitions) == tuple(range(self.n_partitions)):
            return self._rows(slice(0, self.n_rows))
        return concatenate(list(self.run(partitions, {})))

    def prefetch(self, partitions: Sequence[int]) -> None:
        """Do nothing: rows are here."""
        del partitions


def concatenate(blocks: Sequence[Block]) -> Block:
    """Return consecutive blocks as one, copied where there is more than one."""
    first = blocks[0]
    if len(blocks) == 1:
        return first
    ends = accumulate((block.n_rows for block in blocks), initial=0)
    starts = tuple((end, block.starts[0][1]) for end, block in zip(ends, blocks, strict=False))

    def join(name: str) -> Any:
        parts = [getattr(block, name) for block in blocks]
        return None if parts[0] is None else np.concatenate(parts)

    return Block(join("X"), join("y"), join("weight"), starts)
