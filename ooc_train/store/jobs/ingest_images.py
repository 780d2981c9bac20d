"""`ingest_images`: images and labels in, stores out, in two passes.

The first pass reads images and labels once, and adds them as records to an external shuffle, which
decides the stores' order. It also learns the classes. The second pass writes the records.
"""

import errno
import math
import operator
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.output_kinds import STORE, require_output
from ooc_train.core.places import local_path
from ooc_train.core.prefetch import prefetched
from ooc_train.core.progress import Progress, no_progress, row_counter
from ooc_train.core.text import counted, listed
from ooc_train.core.units import approximate_bytes
from ooc_train.errors import InvalidImages
from ooc_train.images.open_images import LabelledImages, Path, open_images
from ooc_train.memory.budget import Budget
from ooc_train.memory.ceiling import Ceiling, Term
from ooc_train.memory.measured import MemoryReport
from ooc_train.store.dataset import Scalar, Store
from ooc_train.store.format.chunk_sizes import default_chunk_rows
from ooc_train.store.format.pairs import StorePair, finish_pair
from ooc_train.store.jobs.external_shuffle import ExternalShuffle
from ooc_train.store.jobs.ingest_storage import (
    CodecOption,
    StorageOptions,
    commit_stores,
    free_disk,
)
from ooc_train.store.jobs.rewriting import writing_term
from ooc_train.store.jobs.shuffle_sizes import ample_memory, least_memory
from ooc_train.store.jobs.train_test_split import (
    pairs_of,
    path_for_testing,
    require_test_size,
    rows_for_testing,
)
from ooc_train.store.writing.writer import StoreWriter

_PIECE_BYTES = 2**20
"""Bytes of images that are read at once."""

_PIECE_COPIES = 7
"""Copies of a piece: as it is read, as records in two buffers, its test and training records, and
what is unpacked at once."""

_MOST_CLASSES = 10_000

Records = NDArray[Any]


@dataclass(frozen=True)
class IngestedImages:
    """The result of `ingest_images`.

    Parameters
    ----------
    store : Store
        The training rows.
    test : Store or None
        The test rows, in a store of their own.
    memory : MemoryReport
        Ceiling, projection and measurement of the job.
    notes : tuple of str
        Notes for the user, for example on classes without training rows.
    """

    store: Store
    test: Store | None
    memory: MemoryReport
    notes: tuple[str, ...]


def ingest_images(
    images: Path,
    out: Path,
    labels: Path | None = None,
    *,
    x: str | None = None,
    y: str | None = None,
    size: tuple[int, int] | str | None = None,
    grayscale: bool = False,
    test_size: float = 0.0,
    shuffle: bool = True,
    random_state: int = 0,
    chunk_rows: int | None = None,
    shard_rows: int | None = None,
    codec: CodecOption = "auto",
    memory_ceiling: str | int | Ceiling | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
    say: Callable[[str], None] = lambda _: None,
) -> IngestedImages:
    """Write a store of images and their labels, X of shape (n, height, width[, channels]).

    X has the type of the files, such as uint8. Labels that are text, whole numbers or booleans
    become classes, in sorted order; other numbers stay as they are. `row_id` is the place of an
    image in its file, or among the sorted names of classes and files of a folder.

    Images come as IDX (MNIST's format, packed by gzip or not), or as .npy or .npz. A folder with a
    folder of images for each class is decoded by Pillow. The disk holds the stores and, until
    the job ends, the images twice.

    Parameters
    ----------
    images : str or os.PathLike
        A file of images, or a folder of folders.
    out : str or os.PathLike
        Path of the store, such as "fashion.zarr". Test rows go to "fashion.test.zarr".
    labels : str or os.PathLike, optional
        File of the labels, one to an image. A folder, and a .npz that holds them, need none. IDX
        and .npy without labels become a store without y, for predictions.
    x, y : str, optional
        Names of the arrays of images and labels in .npz. By default "X", "x", "images" or "data",
        and "y", "labels" or "targets".
    size : tuple of int, or str, optional
        Width and height, (28, 28) or "28x28", to which the images of a folder are scaled, by
        averages of the nearest pixels (Pillow's BILINEAR). By default all have the size of the
        first.
    grayscale : bool
        Whether the images of a folder become shades of grey, of shape (height, width).
    test_size, shuffle, random_state, chunk_rows, shard_rows, codec
        As for `ingest`.
    memory_ceiling, overwrite, progress, say
        As for `ingest`.

    Raises
    ------
    TableNotFound
        If nothing lies at a path.
    InvalidImages
        If files are damaged, lie about their sizes, or don't go together; if images of a folder
        differ in size, or one is too large to be decoded. The message names the file.
    OutputExists
        If something exists at the path of a store.
    CeilingExceeded
        If the ceiling is too small, before an image is read.
    MissingPackage
        If a folder of images is passed, and Pillow is not installed.
    OSError
        If the disk is too small, full or not writable; what was there stays.
    ValueError
        If a setting is wrong.

    Examples
    --------
    >>> import numpy as np
    >>> from ooc_train import ingest_images
    >>> np.save("images.npy", np.zeros((20, 8, 8), "uint8"))
    >>> np.save("labels.npy", np.arange(20) % 2)
    >>> made = ingest_images("images.npy", "images.zarr", labels="labels.npy")
    >>> made.store.X.shape
    (20, 8, 8)
    """
    options = StorageOptions(operator.index(random_state), shuffle, chunk_rows, shard_rows, codec)
    require_test_size(test_size)
    outputs = {"training": local_path(out)}
    if test_size:
        outputs["testing"] = path_for_testing(outputs["training"])
    finish_pair(outputs["training"])
    for path in outputs.values():
        require_output(path, STORE, overwrite=overwrite)
    with Budget(memory_ceiling) as budget:
        source = open_images(images, labels, x=x, y=y, size=size, grayscale=grayscale)
        job = _Job(source, outputs, options, test_size, overwrite, progress, say)
        terms = budget.settle(job.terms, "" if chunk_rows is None else "use smaller chunks")
        stores, notes = job.run({term.name: term.bytes for term in terms})
        return IngestedImages(
            stores["training"], stores.get("testing"), budget.report(terms), notes
        )


@dataclass(frozen=True)
class _Job:
    """The settings of one ingest of images."""

    images: LabelledImages
    outputs: Mapping[str, str]
    options: StorageOptions
    test_size: float
    overwrite: bool
    progress: Progress
    say: Callable[[str], None]

    @property
    def record(self) -> np.dtype[Any]:
        """NumPy type of a record: row number, image and label."""
        images, y = self.images, self.images.label_dtype
        fields = [("row", "<i8"), ("X", images.dtype, images.row_shape)]
        return np.dtype([*fields, *([] if y is None else [("y", y)])])

    @property
    def piece_rows(self) -> int:
        """Number of images that are read at once."""
        return max(1, _PIECE_BYTES // self.record.itemsize)

    @property
    def chunk_rows(self) -> int:
        """Rows of a chunk."""
        known, n_rows = self.options.chunk_rows, round((1 - self.test_size) * self.images.n_rows)
        return known or default_chunk_rows(self._columns, self.images.dtype, n_rows)

    @property
    def _columns(self) -> int:
        return math.prod(self.images.row_shape)

    def terms(self, available: int) -> list[Term]:
        """Return memory terms of at most `available` bytes, or the smallest possible ones."""
        record, outputs = self.record.itemsize, len(self.outputs)
        piece = self.piece_rows * record
        expected = self.images.n_rows * record
        least = least_memory(record, expected)
        ample = min(ample_memory(record, expected), 2 * expected + 2**20)
        written = writing_term(
            record + 8, self._columns, self.chunk_rows, compressed=True, counted=True
        )
        fixed = [
            Term("reading", _PIECE_COPIES * piece + 2**20, f"pieces of {approximate_bytes(piece)}"),
            Term("writing", outputs * written.bytes, written.why),
        ]
        left = available - sum(term.bytes for term in fixed) - outputs * least
        decoding = self.images.decoding_bytes(max(0, left // 2))
        left -= decoding
        scattering = max(least, min(ample, least + left // outputs))
        return [
            *fixed,
            Term("decoding", decoding, "an image, by Pillow"),
            Term(
                "scattering",
                outputs * scattering,
                f"records of {record:,} bytes in random order, by way of the disk",
            ),
        ]

    def run(self, bytes_of: Mapping[str, int]) -> tuple[dict[str, Store], tuple[str, ...]]:
        """Run both passes; return the stores and notes."""
        images = self.images.within(bytes_of["decoding"])
        with ExitStack() as stack:
            shuffles = {
                name: stack.enter_context(
                    ExternalShuffle(
                        self.record,
                        os.path.dirname(path),
                        memory_bytes=bytes_of["scattering"] // len(self.outputs),
                        seed=self.options.random_state if self.options.shuffled else None,
                        expected_bytes=images.n_rows * self.record.itemsize,
                    )
                )
                for name, path in self.outputs.items()
            }
            self._require_disk()
            classes = self._read(images, shuffles)
            stores = self._write(shuffles, classes)
        made = stores["training"]
        counts = zip(made.classes or (), made.class_counts or (), strict=True)
        missing = [name for name, count in counts if not count]
        notes = [f"no training row has the class {listed(missing)}"] if missing else []
        if made.y is None:
            notes.append("no labels were passed: the store has no y, and is for predictions")
        return stores, tuple(notes)

    def _require_disk(self) -> None:
        """Raise `OSError` if the images don't fit on the disk, before an image is read."""
        path, rows = self.outputs["training"], self.images.n_rows
        row = self.images.dtype.itemsize * self._columns
        shape = " x ".join(map(str, self.images.row_shape))
        records, stored, free = rows * self.record.itemsize, rows * row, free_disk(path)
        what = f"{counted(rows, 'image')} of {shape} {self.images.dtype.name}"
        self.say(
            f"{what}: {approximate_bytes(stored)} before compression, and the disk has "
            f"{approximate_bytes(free)} left"
        )
        chosen = self.options.codec in ("lz4", "zstd")
        needed = records + (0 if chosen else stored)
        if needed > free:
            raise OSError(
                errno.ENOSPC,
                f"{what} take {approximate_bytes(needed)} (in random order, and in the store), and "
                f"the disk has {approximate_bytes(free)} left: free some room, or write elsewhere",
                path,
            )

    def _records(self, images: LabelledImages) -> Generator[Records, None, None]:
        """Yield records of consecutive images; a thread prefetches the next ones."""
        buffers = [np.empty(self.piece_rows, self.record) for _ in range(2)]

        def records() -> Iterator[Records]:
            start, turn = 0, 0
            for X, labels in images.pieces(self.piece_rows):
                piece = buffers[turn][: len(X)]
                piece["row"] = np.arange(start, start + len(X))
                piece["X"] = X
                if labels is not None:
                    piece["y"] = labels
                start, turn = start + len(X), 1 - turn
                yield piece

        return prefetched(records())

    def _read(
        self, images: LabelledImages, shuffles: Mapping[str, ExternalShuffle]
    ) -> NDArray[Any] | None:
        """Run the first pass; return the sorted labels, or None for a y of numbers or none."""
        dtype = images.label_dtype
        classes = None if dtype is None or dtype.kind == "f" else np.empty(0, dtype)
        seed, rows = self.options.random_state, 0
        with closing(self._records(images)) as pieces:
            for piece in pieces:
                testing = rows_for_testing(piece["row"], self.test_size, seed)
                shuffles["training"].add(piece[~testing] if testing.any() else piece)
                if testing.any():
                    shuffles["testing"].add(piece[testing])
                rows += len(piece)
                if classes is not None:
                    classes = np.union1d(classes, piece["y"])
                    _require_few(classes, rows, images.source)
                self.progress("reading", rows, rows / images.n_rows)
        for name, shuffle in shuffles.items():
            if not shuffle.n_rows:
                raise InvalidImages(
                    f"no image is left for {name}; use more images, or another test_size"
                )
        return classes

    def _write(
        self, shuffles: Mapping[str, ExternalShuffle], classes: NDArray[Any] | None
    ) -> dict[str, Store]:
        """Run the second pass: write the stores from the records."""
        codec = self._codec(shuffles["training"])
        pairs = pairs_of(self.outputs)
        add_rows = row_counter(self.progress, "writing", self.images.n_rows)
        with ExitStack() as stack:
            writers = {
                name: stack.enter_context(self._writer(path, classes, codec, pairs.get(name)))
                for name, path in self.outputs.items()
            }
            for name, writer in writers.items():
                with closing(shuffles[name].blocks()) as blocks:
                    for records in blocks:
                        y = None if self.images.label_dtype is None else records["y"]
                        if y is not None and classes is not None:
                            y = np.searchsorted(classes, y)
                        writer.write(records["X"], y, row_id=records["row"])
                        add_rows(len(records))
            return commit_stores(writers, self.outputs)

    def _codec(self, shuffle: ExternalShuffle) -> CodecOption:
        """Return the chosen codec; for "auto", lz4 or none by how a chunk of the store shrinks."""
        if self.options.codec != "auto":
            return self.options.codec
        sample = np.empty(
            (min(self.chunk_rows, shuffle.n_rows), *self.images.row_shape), self.images.dtype
        )
        filled = 0
        with closing(shuffle.blocks()) as blocks:
            while filled < len(sample):
                part = next(blocks)["X"][: len(sample) - filled]
                sample[filled : filled + len(part)] = part
                filled += len(part)
        options, _ = self.options.with_codec(sample)
        return options.codec

    def _writer(
        self, path: str, classes: NDArray[Any] | None, codec: CodecOption, pair: StorePair | None
    ) -> StoreWriter:
        names: tuple[Scalar, ...] | None = None if classes is None else tuple(classes.tolist())
        options = self.options
        return StoreWriter(
            path,
            row_shape=self.images.row_shape,
            dtype=self.images.dtype,
            y_dtype=self.images.label_dtype if classes is None else None,
            classes=names,
            chunk_rows=self.chunk_rows,
            shard_rows=options.shard_rows,
            expected_rows=self.images.n_rows,
            codec="none" if codec == "auto" else codec,
            row_id=True,
            shuffled=options.random_state if options.shuffled else None,
            overwrite=self.overwrite,
            pair=pair,
        )


def _require_few(classes: NDArray[Any], rows: int, source: str) -> None:
    if len(classes) > _MOST_CLASSES:
        raise InvalidImages(
            f"{source}: the first {rows:,} labels have more than {_MOST_CLASSES:,} different "
            "values; save numbers to predict as floats, as np.save(path, y.astype(float)) does"
        )
