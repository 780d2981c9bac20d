"""Laying arrays down: shards as their chunks fill, the group last, all of it or nothing."""

import contextlib
import json
import os
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from ooc_train.core.atomic import (
    STORE,
    Discarding,
    PartialOutput,
    explained,
    sync_folder,
)
from ooc_train.store.format.arrays import (
    MISSING,
    ArrayLayout,
    Codec,
    array_metadata,
    group_metadata,
)
from ooc_train.store.format.checksums import with_checksums
from ooc_train.store.format.identity import new_store_id, shard_identity

_ENTRY = struct.Struct("<QQ")

_WORTH_PACKING = 1.3
"""lz4 is chosen where it shrinks a sample by more."""


class ShardWriter(Discarding):
    """Writes one shard of an array, chunk by chunk, and names it only once it is whole.

    Between its chunks and its index it says which shard of which store it is. A context manager:
    leaving it without `commit` removes what was written.

    Parameters
    ----------
    layout : ArrayLayout
        An array of an `OutputStore`.
    shard : int
        Number of the shard.
    """

    def __init__(self, layout: ArrayLayout, shard: int) -> None:
        self._layout = layout
        self._shard = shard
        self._path = layout.shard_path(shard)
        # Two workers may write the same shard, when one is taken for dead.
        self._partial_path = f"{self._path}.{os.getpid()}.tmp"
        self._entries: list[tuple[int, int]] = []
        self._end = 0
        with explained(self._path):
            self._make_folders()
            self._file = open(self._partial_path, "wb", buffering=0)  # noqa: SIM115

    def _make_folders(self) -> None:
        """Make the folders of the shard, but not the array's: where that is gone, so is the store.

        Tasks that run on after a failure would bring back what was removed.
        """
        folder = self._layout.path
        for name in os.path.relpath(os.path.dirname(self._path), folder).split(os.sep):
            folder = os.path.join(folder, name)
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder)

    @property
    def full(self) -> bool:
        """Whether every chunk of the shard was written."""
        return len(self._entries) == self._layout.chunks_per_shard

    def write(self, chunk: NDArray[Any], rows: int | None = None) -> None:
        """Write the next chunk.

        Parameters
        ----------
        chunk : ndarray of the layout's dtype, shape (chunk_rows, *row_shape), C-contiguous
            The rows.
        rows : int, optional
            How many count (by default all); the others are set to 0 in `chunk` itself.

        Raises
        ------
        OSError
            If the disk is full or can't be written.
        """
        layout = self._layout
        if chunk.shape != (layout.chunk_rows, *layout.row_shape) or chunk.dtype != layout.dtype:
            raise ValueError(
                f"a chunk of {layout.name} is {layout.dtype} "
                f"{(layout.chunk_rows, *layout.row_shape)}, this one {chunk.dtype} {chunk.shape}"
            )
        if self.full:
            raise ValueError(f"the shard has all of its {layout.chunks_per_shard} chunks")
        if rows is not None:
            chunk[rows:] = 0
        encoded = memoryview(_encode(layout.codec, chunk)).cast("B")
        with explained(self._path):
            _write_all(self._file, encoded)
            _write_all(self._file, crc32c(encoded).to_bytes(4, "little"))
        self._entries.append((self._end, len(encoded) + 4))
        self._end += len(encoded) + 4

    def commit(self) -> None:
        """Write identity and index, bring all of it to the disk, and give the file its name."""
        layout = self._layout
        absent = layout.chunks_per_shard - len(self._entries)
        entries = [*self._entries, *[(MISSING, MISSING)] * absent]
        index = b"".join(_ENTRY.pack(*entry) for entry in entries)
        identity = shard_identity(layout.store_id, layout.stored_name, self._shard)
        with explained(self._path):
            _write_all(self._file, identity + index + crc32c(index).to_bytes(4, "little"))
            os.fsync(self._file.fileno())
            self._file.close()
            os.rename(self._partial_path, self._path)

    def discard(self) -> None:
        """Remove what was written, unless it was committed."""
        self._file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._partial_path)


class OutputStore(Discarding):
    """A store in the making, beside the place where it will lie.

    Arrays are added, their shards written (by any number of processes, with `ShardWriter`), and
    `commit` gives the directory its name: a store that was begun and not committed never opens.
    A context manager: leaving it without `commit` removes all of it. Each has a random id, which
    the manifest and every shard name; what the manifest and the metadata of arrays say is
    checksummed in the manifest.

    Parameters
    ----------
    path : str or os.PathLike
        Where the store will lie.
    overwrite : bool
        Whether a store that lies there is replaced, at `commit` and not before.

    Attributes
    ----------
    output : PartialOutput
        What gives the store its name.

    Raises
    ------
    OutputExists, OSError, ValueError
        As `PartialOutput` does.
    """

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        self.output = PartialOutput(path, STORE, overwrite=overwrite)
        self.store_id = new_store_id()
        self._arrays: dict[str, tuple[ArrayLayout, tuple[str, ...]]] = {}

    @property
    def path(self) -> str:
        """Where the store will lie."""
        return self.output.path

    @property
    def active(self) -> bool:
        """Whether it was neither committed nor discarded."""
        return self.output.active

    def add_array(
        self,
        name: str,
        *,
        row_shape: tuple[int, ...],
        dtype: np.dtype[Any] | str,
        chunk_rows: int,
        shard_rows: int,
        codec: Codec = "raw",
        dimension_names: Sequence[str],
    ) -> ArrayLayout:
        """Add an array, and return the layout for `ShardWriter`; its rows are counted at `commit`.

        Parameters
        ----------
        name : str
            Such as "X" or "prediction".
        row_shape : tuple of int
            Shape of one row, () for an array of one axis.
        dtype : dtype
            A number; stored little-endian.
        chunk_rows, shard_rows : int
            Rows of a chunk, and of a shard: a multiple of it.
        codec : {"raw", "blosc", "zstd"}
            Of the chunks; a crc32c follows each.
        dimension_names : sequence of str
            One an axis.
        """
        if chunk_rows < 1 or shard_rows < 1 or shard_rows % chunk_rows:
            raise ValueError(
                f"shard_rows={shard_rows:,} is no multiple of chunk_rows={chunk_rows:,}"
            )
        if np.dtype(dtype).kind not in "biuf" or np.dtype(dtype).itemsize > 8:
            raise ValueError(
                f"{name} can't be stored as {np.dtype(dtype)}: choose a number's dtype"
            )
        layout = ArrayLayout(
            path=os.path.join(self.output.partial_path, name),
            name=name,
            shape=(0, *row_shape),
            dtype=np.dtype(dtype).newbyteorder("<").str,
            chunk_rows=chunk_rows,
            shard_rows=shard_rows,
            sharded=True,
            codec=codec,
            crc=True,
            direct=True,
            key="/".join(["c", "{}", *["0"] * len(row_shape)]),
            store_id=self.store_id,
        )
        with explained(self.path):
            os.makedirs(layout.path, exist_ok=True)
        self._arrays[name] = layout, tuple(dimension_names)
        return layout

    def commit(self, n_rows: int, attributes: Mapping[str, Any]) -> None:
        """Write the metadata, the group's last, and give the store its name.

        Parameters
        ----------
        n_rows, attributes
            As of `seal`.

        Raises
        ------
        OutputExists
            If something else appeared at the path meanwhile.
        OSError
            If the disk is full or can't be written.
        """
        self.seal(n_rows, attributes)
        self.output.commit()

    def seal(
        self,
        n_rows: int,
        attributes: Mapping[str, Any],
        of_arrays: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Write the metadata, the group's last: the store is whole, and lacks only its name.

        Parameters
        ----------
        n_rows : int
            Rows of every array.
        attributes : mapping
            Of the group; JSON values, with text for keys.
        of_arrays : mapping, optional
            Attributes of arrays, by their name.

        Raises
        ------
        OSError
            If the disk is full or can't be written.
        """
        of_arrays = of_arrays or {}
        partial_path = self.output.partial_path
        with explained(self.path):
            arrays = {
                name: array_metadata(
                    layout.with_rows(n_rows), dimension_names, of_arrays.get(name, {})
                )
                for name, (layout, dimension_names) in self._arrays.items()
            }
            for name, metadata in arrays.items():
                _write_json(os.path.join(partial_path, name), metadata)
            for directory, _, files in os.walk(partial_path, topdown=False):
                for file in files:
                    # Of a worker that was killed; another one wrote the shard.
                    if file.endswith(".tmp"):
                        os.unlink(os.path.join(directory, file))
                sync_folder(directory)
            sealed = with_checksums(attributes, self.store_id, arrays)
            _write_json(partial_path, group_metadata(sealed))
            sync_folder(partial_path)

    def discard(self) -> None:
        """Remove all of it, unless it was committed."""
        self.output.discard()


def worth_packing(sample: NDArray[Any]) -> bool:
    """Say whether lz4 shrinks a sample of a chunk by enough to pay for being decoded."""
    return packed_share(sample, "blosc") * _WORTH_PACKING < 1


def packed_share(sample: NDArray[Any], codec: Codec | None) -> float:
    """Give the share of a sample's bytes that a codec leaves of it."""
    return memoryview(_encode(codec, np.ascontiguousarray(sample))).nbytes / sample.nbytes


def _encode(codec: Codec | None, chunk: NDArray[Any]) -> Any:
    if codec == "blosc":
        from numcodecs import blosc

        return blosc.compress(chunk, b"lz4", 5, blosc.SHUFFLE)
    if codec == "zstd":
        from numcodecs import zstd

        return zstd.compress(chunk, 3)
    return chunk


def _write_all(file: Any, data: memoryview | bytes) -> None:
    """Write every byte: an unbuffered write may take fewer, and says so only by its count."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _write_json(directory: str, metadata: Mapping[str, Any]) -> None:
    with open(os.path.join(directory, "zarr.json"), "w", encoding="utf-8") as file:
        json.dump(metadata, file, indent=2, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())
